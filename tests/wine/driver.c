/* A sluice.sys for Wine's kernel, which has no Filtering Platform to run the real one: a device that answers every
 * request with STATUS, which says that there is no policy, so that `sluice enable` goes on to the filters. */
#include <ddk/wdm.h>

static const unsigned char answer[] = {STATUS};
static UNICODE_STRING link_name;

static NTSTATUS NTAPI done(DEVICE_OBJECT *device, IRP *irp) {
    irp->IoStatus.Status = STATUS_SUCCESS;
    irp->IoStatus.Information = 0;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI control(DEVICE_OBJECT *device, IRP *irp) {
    unsigned room = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.OutputBufferLength;
    unsigned length = room < sizeof answer ? room : sizeof answer;
    volatile unsigned char *output = irp->AssociatedIrp.SystemBuffer;
    for (unsigned i = 0; i < length; i++) output[i] = answer[i];
    irp->IoStatus.Status = STATUS_SUCCESS;
    irp->IoStatus.Information = length;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static void NTAPI unload(DRIVER_OBJECT *driver) {
    IoDeleteSymbolicLink(&link_name);
    IoDeleteDevice(driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(DRIVER_OBJECT *driver, UNICODE_STRING *path) {
    UNICODE_STRING name;
    DEVICE_OBJECT *device;
    NTSTATUS status;
    RtlInitUnicodeString(&name, L"\\Device\\Sluice");
    RtlInitUnicodeString(&link_name, L"\\DosDevices\\Sluice");
    status = IoCreateDevice(driver, 0, &name, FILE_DEVICE_UNKNOWN, 0, FALSE, &device);
    if (status) return status;
    driver->MajorFunction[IRP_MJ_CREATE] = driver->MajorFunction[IRP_MJ_CLOSE] = done;
    driver->MajorFunction[IRP_MJ_CLEANUP] = done;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = control;
    driver->DriverUnload = unload;
    return IoCreateSymbolicLink(&link_name, &name);
}
