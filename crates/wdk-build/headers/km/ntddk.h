/* Kernel interfaces beyond wdm.h.
 *
 * Written for this project from public documentation; no Microsoft header was copied. */
#pragma once
#include "wdm.h"

typedef VOID DRIVER_REINITIALIZE(PDRIVER_OBJECT DriverObject, PVOID Context, ULONG Count);
typedef DRIVER_REINITIALIZE *PDRIVER_REINITIALIZE;

VOID IoRegisterBootDriverReinitialization(PDRIVER_OBJECT DriverObject, PDRIVER_REINITIALIZE DriverReinitializationRoutine,
                                          PVOID Context);
