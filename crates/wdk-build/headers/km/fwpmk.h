/* The management side of the Windows Filtering Platform that a driver needs: is the Base Filtering Engine running?
 * Providers, sublayers, callouts and filters are added from user mode.
 *
 * Written for this project from public documentation and observed values; no Microsoft header was copied. */
#pragma once
#include "wdm.h"

typedef enum FWPM_SERVICE_STATE_ {
    FWPM_SERVICE_STOPPED = 0,
    FWPM_SERVICE_START_PENDING = 1,
    FWPM_SERVICE_STOP_PENDING = 2,
    FWPM_SERVICE_RUNNING = 3,
    FWPM_SERVICE_STATE_MAX = 4,
} FWPM_SERVICE_STATE;

typedef VOID (*FWPM_SERVICE_STATE_CHANGE_CALLBACK0)(void *context, FWPM_SERVICE_STATE newState);

FWPM_SERVICE_STATE FwpmBfeStateGet0(VOID);
NTSTATUS FwpmBfeStateSubscribeChanges0(void *deviceObject, FWPM_SERVICE_STATE_CHANGE_CALLBACK0 callback, void *context,
                                       HANDLE *changeHandle);
NTSTATUS FwpmBfeStateUnsubscribeChanges0(HANDLE changeHandle);
