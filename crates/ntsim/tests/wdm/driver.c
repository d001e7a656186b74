/* A driver without a framework, against the headers that real ones are compiled with: it echoes what it is sent through
   every kind of buffer, and keeps reads in a cancel-safe queue until a control completes them. */
#include <wdm.h>

#define CODE(function, method) CTL_CODE(FILE_DEVICE_UNKNOWN, function, method, FILE_ANY_ACCESS)
#define BUFFERED CODE(0x800, METHOD_BUFFERED)
#define IN_DIRECT CODE(0x801, METHOD_IN_DIRECT)
#define OUT_DIRECT CODE(0x802, METHOD_OUT_DIRECT)
#define NEITHER CODE(0x803, METHOD_NEITHER)
#define RELEASE CODE(0x804, METHOD_BUFFERED)
#define TWICE CODE(0x805, METHOD_BUFFERED)
#define FORGET CODE(0x806, METHOD_BUFFERED)
#define UNMARKED CODE(0x807, METHOD_BUFFERED)
#define LATER CODE(0x808, METHOD_BUFFERED)
#define DOWN CODE(0x809, METHOD_BUFFERED)
#define PENDS_BELOW CODE(0x80a, METHOD_BUFFERED)
#define MARKED CODE(0x80b, METHOD_BUFFERED)
#define CANCELABLE CODE(0x80c, METHOD_BUFFERED)
#define KEPT CODE(0x80d, METHOD_BUFFERED)
#define VANISH CODE(0x80e, METHOD_BUFFERED)
#define NOWHERE CODE(0x80f, METHOD_BUFFERED)

#ifndef EXCLUSIVE
#define EXCLUSIVE FALSE
#endif

typedef struct {
    IO_CSQ queue;
    LIST_ENTRY reads;
    KSPIN_LOCK lock;
    LONG opens;
    PDEVICE_OBJECT lower;
    PIO_WORKITEM work;
    PIRP later;
} EXTENSION;

static UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\Plain");
static UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Plain");

static EXTENSION *of(PIO_CSQ queue) { return CONTAINING_RECORD(queue, EXTENSION, queue); }

static VOID NTAPI insert(PIO_CSQ queue, PIRP irp) { InsertTailList(&of(queue)->reads, &irp->Tail.Overlay.ListEntry); }
static VOID NTAPI take(PIO_CSQ queue, PIRP irp) { RemoveEntryList(&irp->Tail.Overlay.ListEntry); }
static PIRP NTAPI peek(PIO_CSQ queue, PIRP irp, PVOID context)
{
    PLIST_ENTRY head = &of(queue)->reads, next = irp ? irp->Tail.Overlay.ListEntry.Flink : head->Flink;
    return next == head ? NULL : CONTAINING_RECORD(next, IRP, Tail.Overlay.ListEntry);
}
static VOID NTAPI lock(PIO_CSQ queue, PKIRQL irql) { KeAcquireSpinLock(&of(queue)->lock, irql); }
static VOID NTAPI unlock(PIO_CSQ queue, KIRQL irql) { KeReleaseSpinLock(&of(queue)->lock, irql); }

static NTSTATUS finish(PIRP irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static VOID NTAPI cancelled(PIO_CSQ queue, PIRP irp) { finish(irp, STATUS_CANCELLED, 0); }

static NTSTATUS NTAPI open_close(PDEVICE_OBJECT device, PIRP irp)
{
    EXTENSION *extension = device->DeviceExtension;
    PIO_STACK_LOCATION location = IoGetCurrentIrpStackLocation(irp);
    if (location->FileObject->DeviceObject != device) return finish(irp, STATUS_UNSUCCESSFUL, 0);
    if (location->MajorFunction == IRP_MJ_CREATE) InterlockedIncrement(&extension->opens);
    if (location->MajorFunction == IRP_MJ_CLOSE) InterlockedDecrement(&extension->opens);
    if (location->MajorFunction == IRP_MJ_CLEANUP) {
        PIRP read;
        while ((read = IoCsqRemoveNextIrp(&extension->queue, NULL)) != NULL) cancelled(&extension->queue, read);
    }
    return finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI read(PDEVICE_OBJECT device, PIRP irp)
{
    EXTENSION *extension = device->DeviceExtension;
    IoCsqInsertIrp(&extension->queue, irp, NULL);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI write(PDEVICE_OBJECT device, PIRP irp)
{
    EXTENSION *extension = device->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length;
    PIRP read = IoCsqRemoveNextIrp(&extension->queue, NULL);
    if (read) {
        ULONG room = IoGetCurrentIrpStackLocation(read)->Parameters.Read.Length;
        ULONG count = length < room ? length : room;
        RtlCopyMemory(read->AssociatedIrp.SystemBuffer, irp->AssociatedIrp.SystemBuffer, count);
        finish(read, STATUS_SUCCESS, count);
    }
    return finish(irp, STATUS_SUCCESS, length);
}

static VOID NTAPI work(PDEVICE_OBJECT device, PVOID context)
{
    EXTENSION *extension = device->DeviceExtension;
    finish(extension->later, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI came_back(PDEVICE_OBJECT device, PIRP irp, PVOID context)
{
    *(ULONG *)irp->AssociatedIrp.SystemBuffer += (ULONG)(ULONG_PTR)context;
    return STATUS_CONTINUE_COMPLETION;
}

/* Keeps the IRP that comes back, adds to it, and completes it once more. */
static NTSTATUS NTAPI kept(PDEVICE_OBJECT device, PIRP irp, PVOID context)
{
    *(ULONG *)irp->AssociatedIrp.SystemBuffer += 1;
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static VOID NTAPI cancel(PDEVICE_OBJECT device, PIRP irp)
{
    IoReleaseCancelSpinLock(irp->CancelIrql);
    finish(irp, STATUS_CANCELLED, 0);
}

static NTSTATUS NTAPI control(PDEVICE_OBJECT device, PIRP irp)
{
    EXTENSION *extension = device->DeviceExtension;
    PIO_STACK_LOCATION location = IoGetCurrentIrpStackLocation(irp);
    ULONG in = location->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = location->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG count = in < out ? in : out, i;
    UCHAR *from = irp->AssociatedIrp.SystemBuffer, *to;
    switch (location->Parameters.DeviceIoControl.IoControlCode) {
    case BUFFERED:
        for (i = 0; i < count; i++) from[i] ^= 0xff;
        return finish(irp, STATUS_SUCCESS, count);
    case IN_DIRECT:
    case OUT_DIRECT:
        if (!irp->MdlAddress) return finish(irp, STATUS_INVALID_PARAMETER, 0);
        to = MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority);
        if (!to || MmGetMdlByteCount(irp->MdlAddress) != out) return finish(irp, STATUS_UNSUCCESSFUL, 0);
        for (i = 0; i < count; i++) to[i] = (UCHAR)(from[i] + to[i]);
        return finish(irp, STATUS_SUCCESS, count);
    case NEITHER:
        from = location->Parameters.DeviceIoControl.Type3InputBuffer;
        to = irp->UserBuffer;
        ProbeForRead(from, in, 1);
        ProbeForWrite(to, out, 1);
        for (i = 0; i < count; i++) to[i] = from[count - 1 - i];
        return finish(irp, STATUS_SUCCESS, count);
    case RELEASE: {
        PIRP read = IoCsqRemoveNextIrp(&extension->queue, NULL);
        if (read) finish(read, STATUS_SUCCESS, 0);
        return finish(irp, read ? STATUS_SUCCESS : STATUS_NOT_FOUND, 0);
    }
    case TWICE:
        finish(irp, STATUS_SUCCESS, 0);
        return finish(irp, STATUS_SUCCESS, 0);
    case FORGET:
        return STATUS_SUCCESS;
    case UNMARKED:
        extension->later = irp;
        IoQueueWorkItem(extension->work, work, DelayedWorkQueue, NULL);
        return STATUS_PENDING;
    case MARKED:
        IoMarkIrpPending(irp);
        return finish(irp, STATUS_SUCCESS, 0);
    case CANCELABLE: {
        KIRQL irql;
        IoAcquireCancelSpinLock(&irql);
        IoMarkIrpPending(irp);
        IoSetCancelRoutine(irp, cancel);
        IoReleaseCancelSpinLock(irql);
        return STATUS_PENDING;
    }
    case VANISH:
        IoDeleteDevice(device);
        return finish(irp, STATUS_SUCCESS, 0);
    case NOWHERE:
        return IoCallDriver((PDEVICE_OBJECT)extension, irp);
    case KEPT:
        if (!extension->lower) return finish(irp, STATUS_SUCCESS, 4);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, kept, NULL, TRUE, TRUE, TRUE);
        IoCallDriver(extension->lower, irp);
        return finish(irp, STATUS_SUCCESS, 4);
    case PENDS_BELOW:
        if (extension->lower) {
            IoCopyCurrentIrpStackLocationToNext(irp);
            return IoCallDriver(extension->lower, irp);
        }
        /* fall through: the lower device does it later */
    case LATER:
        IoMarkIrpPending(irp);
        extension->later = irp;
        IoQueueWorkItem(extension->work, work, DelayedWorkQueue, NULL);
        return STATUS_PENDING;
    case DOWN:
        if (!extension->lower) { /* the lower device itself */
            *(ULONG *)from *= 10;
            return finish(irp, STATUS_SUCCESS, 4);
        }
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, came_back, (PVOID)7, TRUE, TRUE, TRUE);
        return IoCallDriver(extension->lower, irp);
    }
    return finish(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI unload(PDRIVER_OBJECT driver)
{
    IoDeleteSymbolicLink(&link);
    while (driver->DeviceObject) {
        EXTENSION *extension = driver->DeviceObject->DeviceExtension;
        PDEVICE_OBJECT device = driver->DeviceObject;
        if (extension->work) IoFreeWorkItem(extension->work);
        ObReferenceObject(device);
        IoDeleteDevice(device);
        extension->work = NULL; /* the reference keeps the memory */
        ObDereferenceObject(device);
    }
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    PDEVICE_OBJECT device, lower;
    EXTENSION *extension;
    NTSTATUS status = IoCreateDevice(driver, sizeof(EXTENSION), NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &lower);
    if (!NT_SUCCESS(status)) return status;
    status = IoCreateDevice(driver, sizeof(EXTENSION), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, EXCLUSIVE, &device);
    if (NT_SUCCESS(status)) status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) { unload(driver); return status; }
    extension = device->DeviceExtension;
    extension->lower = lower;
    extension->work = IoAllocateWorkItem(device);
    ((EXTENSION *)lower->DeviceExtension)->work = IoAllocateWorkItem(lower);
    if (!extension->work || !((EXTENSION *)lower->DeviceExtension)->work) { unload(driver); return STATUS_INSUFFICIENT_RESOURCES; }
    device->StackSize = (CCHAR)(lower->StackSize + 1);
    device->Flags |= DO_BUFFERED_IO;
    InitializeListHead(&extension->reads);
    KeInitializeSpinLock(&extension->lock);
    IoCsqInitialize(&extension->queue, insert, take, peek, lock, unlock, cancelled);
    driver->MajorFunction[IRP_MJ_CREATE] = open_close;
    driver->MajorFunction[IRP_MJ_CLEANUP] = open_close;
    driver->MajorFunction[IRP_MJ_CLOSE] = open_close;
    driver->MajorFunction[IRP_MJ_READ] = read;
    driver->MajorFunction[IRP_MJ_WRITE] = write;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = control;
    driver->DriverUnload = unload;
    return STATUS_SUCCESS;
}
