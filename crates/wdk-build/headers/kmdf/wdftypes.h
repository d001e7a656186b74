/* Handles and the structures shared by all of KMDF.
 *
 * KMDF 1.15, written for this project from public documentation; no Microsoft header was copied. File names in this
 * folder start with `wdf`: that is how wdk-sys tells the framework's declarations from the kernel's. */
#pragma once
#include "wdm.h"

#define WDF_DECLARE_HANDLE(name)                                                                                       \
    struct name##__;                                                                                                   \
    typedef struct name##__ *name

WDF_DECLARE_HANDLE(WDFDRIVER);
WDF_DECLARE_HANDLE(WDFDEVICE);
WDF_DECLARE_HANDLE(WDFQUEUE);
WDF_DECLARE_HANDLE(WDFREQUEST);
WDF_DECLARE_HANDLE(WDFFILEOBJECT);
WDF_DECLARE_HANDLE(WDFDPC);
WDF_DECLARE_HANDLE(WDFTIMER);
WDF_DECLARE_HANDLE(WDFWORKITEM);
WDF_DECLARE_HANDLE(WDFSPINLOCK);
WDF_DECLARE_HANDLE(WDFWAITLOCK);
WDF_DECLARE_HANDLE(WDFKEY);
typedef HANDLE WDFOBJECT;
typedef PVOID WDFCONTEXT;

typedef struct WDFDEVICE_INIT WDFDEVICE_INIT, *PWDFDEVICE_INIT;
typedef VOID (*WDFFUNC)(VOID);

typedef enum _WDF_TRI_STATE { WdfFalse = 0, WdfTrue = 1, WdfUseDefault = 2 } WDF_TRI_STATE;

typedef struct _WDF_DRIVER_GLOBALS {
    WDFDRIVER Driver;
    ULONG DriverFlags;
    ULONG DriverTag;
    CHAR DriverName[32];
    BOOLEAN DisplaceDriverUnload; /* the entry point must put its own unload routine before the driver's */
} WDF_DRIVER_GLOBALS, *PWDF_DRIVER_GLOBALS;

/* Storage supplied by the entry point library: the driver's globals and the table that the loader fills in. */
#if KMDF_VERSION_MAJOR != 1 || KMDF_VERSION_MINOR != 15
#error these headers describe KMDF 1.15 only: set WDKContentRoot to a WDK for other versions
#endif
extern PWDF_DRIVER_GLOBALS WdfDriverGlobals;
extern const WDFFUNC *WdfFunctions_01015;
