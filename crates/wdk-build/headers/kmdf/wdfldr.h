/* What WDFLDR.SYS offers to the entry point of a framework driver: binding to the framework's table.
 *
 * Written for this project from the binary interface; no Microsoft header was copied. This is the form of KMDF before
 * 1.25; from then on the structure has more members. */
#pragma once
#include "wdftypes.h"

typedef struct _WDF_VERSION {
    ULONG Major;
    ULONG Minor;
    ULONG Build;
} WDF_VERSION;

typedef struct _WDF_BIND_INFO {
    ULONG Size;
    PWCHAR Component;    /* the library's name: KmdfLibrary */
    WDF_VERSION Version; /* the version the driver was built for */
    ULONG FuncCount;     /* number of functions in that version's table */
    WDFFUNC **FuncTable; /* the driver's variable that is to point at the table */
    PVOID Module;        /* the loader's own; null before */
} WDF_BIND_INFO, *PWDF_BIND_INFO;

NTSTATUS WdfVersionBind(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath, PWDF_BIND_INFO BindInfo,
                        PWDF_DRIVER_GLOBALS *ComponentGlobals);
NTSTATUS WdfVersionUnbind(PUNICODE_STRING RegistryPath, PWDF_BIND_INFO BindInfo, PWDF_DRIVER_GLOBALS ComponentGlobals);
