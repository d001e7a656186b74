/* WdfDriverEntry.lib, written for this test. What the framework's source publishes of it is in crates/kmdf-entry; this
 * one binds to the framework with a function that only the kit's library has, by which it is told apart. */
typedef struct {
    unsigned Size;
    unsigned short *Component;
    unsigned Version[3];
    unsigned FuncCount;
    void *FuncTable;
    void *Module;
} BIND_INFO;

void *WdfDriverGlobals;
void *WdfFunctions_01015;

int WdfVersionBindClass(BIND_INFO *BindInfo, void *Globals, void *ClassBindInfo);
int DriverEntry(void *DriverObject, void *RegistryPath);

int FxDriverEntry(void *DriverObject, void *RegistryPath) {
    static BIND_INFO info;
    info.FuncTable = &WdfFunctions_01015;
    if (WdfVersionBindClass(&info, &WdfDriverGlobals, 0) < 0) return -1;
    return DriverEntry(DriverObject, RegistryPath);
}
