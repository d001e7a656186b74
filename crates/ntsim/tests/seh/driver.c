/* A driver that catches exceptions in every way C has, and says through DbgPrint what went right. CASE names one that
   nobody may catch instead. Rust has no structured exceptions, so this one is C; what it declares is of wdm.h. */
typedef long NTSTATUS;
typedef unsigned long ULONG;
typedef unsigned long long ULONG64;
typedef unsigned char UCHAR;

__declspec(dllimport) ULONG DbgPrint(const char *format, ...);
__declspec(dllimport) void ExRaiseStatus(NTSTATUS status);
__declspec(dllimport) void ExRaiseAccessViolation(void);
__declspec(dllimport) void ProbeForRead(const volatile void *address, ULONG64 length, ULONG alignment);
__declspec(dllimport) void ProbeForWrite(volatile void *address, ULONG64 length, ULONG alignment);
__declspec(dllimport) void RtlCopyMemory(void *to, const void *from, ULONG64 count);
__declspec(dllimport) ULONG64 RtlCompareMemory(const void *a, const void *b, ULONG64 count);
__declspec(dllimport) ULONG64 wcslen(const unsigned short *text);
__declspec(dllimport) void *ExAllocatePool2(ULONG64 flags, ULONG64 size, ULONG tag);
__declspec(dllimport) void ExFreePoolWithTag(void *block, ULONG tag);
__declspec(dllimport) UCHAR KeRaiseIrqlToDpcLevel(void);

unsigned long _exception_code(void);
void *_exception_info(void);
int _abnormal_termination(void);

typedef struct { ULONG code, flags; void *nested; void *address; ULONG count; ULONG64 information[15]; } RECORD;
typedef struct { UCHAR before[0x78]; ULONG64 rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15, rip; } CONTEXT;
typedef struct { RECORD *record; CONTEXT *context; } POINTERS;

#define EXECUTE 1
#define SEARCH 0
#define CONTINUE (-1)

static int passed, failed;

static void check(const char *what, int right)
{
    if (right) { passed++; } else { failed++; DbgPrint("WRONG: %s\n", what); }
}

static volatile int zero;
static int *volatile nowhere = (int *)0x10;

static int read_nowhere(void)
{
    __try { return *nowhere; }
    __except (_exception_code() == 0xC0000005 ? EXECUTE : SEARCH) { return -1; }
}

static int divide(void)
{
    __try { return 7 / zero; }
    __except (EXECUTE) { return _exception_code() == 0xC0000094 ? -1 : -2; }
}

static ULONG raise(NTSTATUS status)
{
    __try { ExRaiseStatus(status); return 0; }
    __except (EXECUTE) { return _exception_code(); }
}

static int order[8], steps;

static __declspec(noinline) void deep(int depth)
{
    volatile ULONG64 saved[4] = { depth, depth + 1, depth + 2, depth + 3 };
    __try {
        if (depth == 0) { *nowhere = 1; } else { deep(depth - 1); }
    } __finally {
        order[steps++] = (int)saved[0] * 10 + (_abnormal_termination() ? 1 : 0);
    }
}

static int finallies_run_inner_first(void)
{
    steps = 0;
    __try { deep(3); } __except (EXECUTE) { order[steps++] = 99; }
    return steps == 5 && order[0] == 1 && order[1] == 11 && order[2] == 21 && order[3] == 31 && order[4] == 99;
}

static int normal_finally(void)
{
    steps = 0;
    __try { order[steps++] = 5; } __finally { order[steps++] = _abnormal_termination(); }
    return steps == 2 && order[0] == 5 && order[1] == 0;
}

static int filter_refuses_then_outer_takes(void)
{
    int inner = 0;
    __try {
        __try { ExRaiseStatus(0xC000009A); }
        __except (_exception_code() == 0xC0000005) { inner = 1; }
    } __except (_exception_code() == (ULONG)0xC000009A) { return inner == 0; }
    return 0;
}

static int mend(POINTERS *pointers, ULONG64 *where)
{
    if (pointers->record->code != 0xC0000005 || pointers->record->count != 2 || pointers->record->information[0] != 0) {
        return SEARCH;
    }
    pointers->context->rax = (ULONG64)where;
    return CONTINUE;
}

static int continues_where_it_faulted(void)
{
    ULONG64 good = 42, got = 0;
    __try {
        __asm__ volatile("mov $0x20, %%rax\n mov (%%rax), %0" : "=r"(got) : : "rax");
    } __except (mend((POINTERS *)_exception_info(), &good)) { return 0; }
    return got == 42;
}

static int probes(void)
{
    int right = 0;
    int good = 0;
    __try { ProbeForRead(&good, sizeof good, 4); right++; } __except (EXECUTE) { right = -100; }
    __try { ProbeForRead((char *)&good + 1, 4, 4); right = -100; } __except (_exception_code() == 0x80000002) { right++; }
    __try { ProbeForRead((void *)0xffff800000001000, 4, 1); right = -100; } __except (EXECUTE) { right++; }
    __try { ProbeForWrite((void *)0x1000, 4, 4); right = -100; } __except (EXECUTE) { right++; }
    return right == 4;
}

static int copies_from_nowhere(void)
{
    char buffer[64];
    __try { RtlCopyMemory(buffer, nowhere, sizeof buffer); return 0; }
    __except (_exception_code() == 0xC0000005) { return 1; }
}

static int compares_with_nowhere(void)
{
    char buffer[64];
    int right = 0;
    __try { right = (int)RtlCompareMemory(buffer, (const void *)nowhere, sizeof buffer) - 100; }
    __except (_exception_code() == 0xC0000005) { right++; }
    __try { right = (int)wcslen((const unsigned short *)nowhere) - 100; }
    __except (_exception_code() == 0xC0000005) { right++; }
    return right == 2;
}

static int finally_around_a_handler_runs_once(void)
{
    steps = 0;
    __try {
        __try { ExRaiseStatus(0xC000009A); } __except (EXECUTE) {}
    } __finally {
        steps++;
    }
    return steps == 1;
}

static __declspec(noinline) int frame_pointer(int size)
{
    volatile char *volatile bytes = __builtin_alloca(size); /* in memory: clang does not keep registers for handlers */
    bytes[size - 1] = 7;
    __try { *nowhere = size; return 0; } __except (EXECUTE) { return bytes[size - 1] == 7; }
}

static __declspec(noinline) double vectors(double a, double b)
{
    double sum = a * b;
    __try { sum += 0.5; ExRaiseAccessViolation(); } __except (EXECUTE) { sum += a; }
    return sum;
}

#if CASE == 0
static void run(void)
{
    check("a read of nowhere", read_nowhere() == -1);
    check("a division by zero", divide() == -1);
    check("ExRaiseStatus", raise(0xC0000022) == 0xC0000022);
    check("finally blocks, inner first", finallies_run_inner_first());
    check("a finally block without an exception", normal_finally());
    check("the outer filter", filter_refuses_then_outer_takes());
    check("a filter that mends the context", continues_where_it_faulted());
    check("probes", probes());
    check("RtlCopyMemory", copies_from_nowhere());
    check("RtlCompareMemory and wcslen", compares_with_nowhere());
    check("a finally block around the handler", finally_around_a_handler_runs_once());
    check("a frame pointer", frame_pointer(300 + zero));
    check("vector registers", vectors(1.5, 2.0) == 5.0);
    for (int i = 0; i < 1000; i++) { if (read_nowhere() != -1) { check("again and again", 0); } }
}
#elif CASE == 1
static void run(void)
{
    __try { ExRaiseStatus(0xC000009A); } __except (SEARCH) { check("nobody takes it", 0); }
}
#elif CASE == 2
static void run(void)
{
    int *block = ExAllocatePool2(0x40 /* POOL_FLAG_NON_PAGED */, 64, 'tseT');
    if (!block) return;
    ExFreePoolWithTag(block, 'tseT');
    __try { zero = *(volatile int *)block; } __except (EXECUTE) { check("the kernel's memory", 0); }
}
#elif CASE == 3
static void run(void)
{
    KeRaiseIrqlToDpcLevel();
    __try { zero = *nowhere; } __except (EXECUTE) { check("at DISPATCH_LEVEL", 0); }
}
#endif

NTSTATUS DriverEntry(void *driver, void *path)
{
    (void)driver; (void)path;
    run();
    DbgPrint("exceptions: %d right, %d wrong\n", passed, failed);
    return failed ? 0xC0000001 : 0;
}

int _fltused;
