//! Layout of the framework's structures and indexes of its functions, checked when this is compiled.
//!
//! The numbers are those of KMDF 1.15 on 64-bit Windows; they are the same in every version to 1.33.

use core::mem::offset_of;

use wdk_sys::*;

/// One line per structure: name, size, and the offset of each member.
macro_rules! layout {
    ($($name:ident: $size:literal { $($($field:ident).+: $offset:literal),* })*) => {$(
        const _: () = assert!(size_of::<$name>() == $size, concat!("size of ", stringify!($name)));
        $(const _: () = assert!(
            offset_of!($name, $($field).+) == $offset,
            concat!("offset of ", stringify!($name), "::", stringify!($($field).+))
        );)*
    )*};
}

/// One line per function: its index in the framework's table.
macro_rules! indexes {
    ($($name:ident = $index:literal),* $(,)?) => {
        $(const _: () = assert!(_WDFFUNCENUM::$name == $index, concat!("index of ", stringify!($name)));)*
    };
}

layout! {
    DRIVER_OBJECT: 336 { DriverUnload: 104 }
    WDF_DRIVER_GLOBALS: 56 { Driver: 0, DriverFlags: 8, DriverTag: 12, DriverName: 16, DisplaceDriverUnload: 48 }
    WDF_DRIVER_CONFIG: 32 { Size: 0, EvtDriverDeviceAdd: 8, EvtDriverUnload: 16, DriverInitFlags: 24,
        DriverPoolTag: 28 }
    WDF_OBJECT_ATTRIBUTES: 56 { Size: 0, EvtCleanupCallback: 8, EvtDestroyCallback: 16, ExecutionLevel: 24,
        SynchronizationScope: 28, ParentObject: 32, ContextSizeOverride: 40, ContextTypeInfo: 48 }
    WDF_OBJECT_CONTEXT_TYPE_INFO: 40 { Size: 0, ContextName: 8, ContextSize: 16, UniqueType: 24,
        EvtDriverGetUniqueContextType: 32 }
    WDF_IO_QUEUE_CONFIG: 96 { Size: 0, DispatchType: 4, PowerManaged: 8, AllowZeroLengthRequests: 12,
        DefaultQueue: 13, EvtIoDefault: 16, EvtIoRead: 24, EvtIoWrite: 32, EvtIoDeviceControl: 40,
        EvtIoInternalDeviceControl: 48, EvtIoStop: 56, EvtIoResume: 64, EvtIoCanceledOnQueue: 72,
        Settings.Parallel.NumberOfPresentedRequests: 80, Driver: 88 }
    WDF_FILEOBJECT_CONFIG: 40 { Size: 0, EvtDeviceFileCreate: 8, EvtFileClose: 16, EvtFileCleanup: 24,
        AutoForwardCleanupClose: 32, FileObjectClass: 36 }
    WDF_WORKITEM_CONFIG: 24 { Size: 0, EvtWorkItemFunc: 8, AutomaticSerialization: 16 }
    WDF_TIMER_CONFIG: 40 { Size: 0, EvtTimerFunc: 8, Period: 16, AutomaticSerialization: 20, TolerableDelay: 24,
        UseHighResolutionTimer: 32 }
    WDF_DPC_CONFIG: 24 { Size: 0, EvtDpcFunc: 8, AutomaticSerialization: 16 }
    WDF_REQUEST_PARAMETERS: 40 { Size: 0, MinorFunction: 2, Type: 4, Parameters.Create.SecurityContext: 8,
        Parameters.Create.Options: 16, Parameters.Create.FileAttributes: 24, Parameters.Create.ShareAccess: 26,
        Parameters.Create.EaLength: 32, Parameters.Read.Length: 8, Parameters.Read.Key: 16,
        Parameters.Read.DeviceOffset: 24, Parameters.Write.Length: 8, Parameters.Write.Key: 16,
        Parameters.Write.DeviceOffset: 24, Parameters.DeviceIoControl.OutputBufferLength: 8,
        Parameters.DeviceIoControl.InputBufferLength: 16, Parameters.DeviceIoControl.IoControlCode: 24,
        Parameters.DeviceIoControl.Type3InputBuffer: 32 }
}

indexes! {
    WdfControlDeviceInitAllocateTableIndex = 25,
    WdfControlFinishInitializingTableIndex = 27,
    WdfDeviceWdmGetDeviceObjectTableIndex = 31,
    WdfDeviceGetDriverTableIndex = 39,
    WdfDeviceInitFreeTableIndex = 54,
    WdfDeviceInitSetIoTypeTableIndex = 61,
    WdfDeviceInitSetExclusiveTableIndex = 62,
    WdfDeviceInitSetDeviceTypeTableIndex = 66,
    WdfDeviceInitAssignNameTableIndex = 67,
    WdfDeviceInitAssignSDDLStringTableIndex = 68,
    WdfDeviceInitSetDeviceClassTableIndex = 69,
    WdfDeviceInitSetCharacteristicsTableIndex = 70,
    WdfDeviceInitSetFileObjectConfigTableIndex = 71,
    WdfDeviceCreateTableIndex = 75,
    WdfDeviceCreateSymbolicLinkTableIndex = 80,
    WdfDeviceGetDefaultQueueTableIndex = 92,
    WdfDeviceConfigureRequestDispatchingTableIndex = 93,
    WdfDpcCreateTableIndex = 111,
    WdfDpcEnqueueTableIndex = 112,
    WdfDpcCancelTableIndex = 113,
    WdfDriverCreateTableIndex = 116,
    WdfDriverGetRegistryPathTableIndex = 117,
    WdfDriverWdmGetDriverObjectTableIndex = 118,
    WdfDriverOpenParametersRegistryKeyTableIndex = 119,
    WdfFileObjectGetDeviceTableIndex = 139,
    WdfIoQueueCreateTableIndex = 152,
    WdfIoQueueGetStateTableIndex = 153,
    WdfIoQueueStartTableIndex = 154,
    WdfIoQueueStopTableIndex = 155,
    WdfIoQueueStopSynchronouslyTableIndex = 156,
    WdfIoQueueGetDeviceTableIndex = 157,
    WdfIoQueueRetrieveNextRequestTableIndex = 158,
    WdfIoQueueRetrieveRequestByFileObjectTableIndex = 159,
    WdfIoQueueDrainSynchronouslyTableIndex = 162,
    WdfIoQueueDrainTableIndex = 163,
    WdfIoQueuePurgeSynchronouslyTableIndex = 164,
    WdfIoQueuePurgeTableIndex = 165,
    WdfIoQueueReadyNotifyTableIndex = 166,
    WdfObjectGetTypedContextWorkerTableIndex = 202,
    WdfObjectContextGetObjectTableIndex = 204,
    WdfObjectDeleteTableIndex = 208,
    WdfRegistryOpenKeyTableIndex = 229,
    WdfRegistryCloseTableIndex = 231,
    WdfRegistryQueryULongTableIndex = 240,
    WdfRequestUnmarkCancelableTableIndex = 256,
    WdfRequestIsCanceledTableIndex = 257,
    WdfRequestCompleteTableIndex = 263,
    WdfRequestCompleteWithInformationTableIndex = 265,
    WdfRequestGetParametersTableIndex = 266,
    WdfRequestRetrieveInputBufferTableIndex = 269,
    WdfRequestRetrieveOutputBufferTableIndex = 270,
    WdfRequestSetInformationTableIndex = 275,
    WdfRequestGetFileObjectTableIndex = 277,
    WdfRequestGetRequestorModeTableIndex = 280,
    WdfRequestForwardToIoQueueTableIndex = 281,
    WdfRequestGetIoQueueTableIndex = 282,
    WdfRequestRequeueTableIndex = 283,
    WdfWaitLockCreateTableIndex = 312,
    WdfWaitLockAcquireTableIndex = 313,
    WdfWaitLockReleaseTableIndex = 314,
    WdfSpinLockCreateTableIndex = 315,
    WdfSpinLockAcquireTableIndex = 316,
    WdfSpinLockReleaseTableIndex = 317,
    WdfTimerCreateTableIndex = 318,
    WdfTimerStartTableIndex = 319,
    WdfTimerStopTableIndex = 320,
    WdfTimerGetParentObjectTableIndex = 321,
    WdfWorkItemCreateTableIndex = 379,
    WdfWorkItemEnqueueTableIndex = 380,
    WdfWorkItemGetParentObjectTableIndex = 381,
    WdfWorkItemFlushTableIndex = 382,
    WdfRequestMarkCancelableExTableIndex = 393,
    WdfFunctionTableNumEntries = 444,
}
