/* Basic types of kernel-mode Windows, as far as this project uses them.
 *
 * Written for this project from public documentation of names, sizes and values; no Microsoft header was copied.
 * 32-bit integers are `int`, not `long`: the same on Windows, and the bindings stay valid on a host whose `long` has 64
 * bits, where the driver's unit tests run. */
#pragma once

typedef void VOID, *PVOID;
typedef char CHAR, *PCHAR, *PSTR, CCHAR;
typedef const char *PCSTR, *LPCSTR, *PCCH;
typedef signed char INT8, SCHAR;
typedef unsigned char UCHAR, *PUCHAR, BOOLEAN, *PBOOLEAN, UINT8, BYTE;
typedef short SHORT, CSHORT, INT16;
typedef unsigned short USHORT, *PUSHORT, WORD, UINT16;
typedef unsigned short WCHAR, *PWCHAR, *PWSTR, *PWCH, *LPWSTR;
typedef const WCHAR *PCWSTR, *PCWCH;
typedef int INT, INT32, LONG, *PLONG, NTSTATUS;
typedef unsigned int UINT, UINT32, ULONG, *PULONG, DWORD, ACCESS_MASK, DEVICE_TYPE, LOGICAL;
typedef long long LONGLONG, *PLONGLONG, LONG64, INT64, LONG_PTR;
typedef unsigned long long ULONGLONG, *PULONGLONG, ULONG64, *PULONG64, UINT64, DWORD64, ULONG_PTR, *PULONG_PTR;
typedef ULONG_PTR SIZE_T, *PSIZE_T, KAFFINITY, KSPIN_LOCK, *PKSPIN_LOCK;
typedef ULONG64 POOL_FLAGS;
#if defined(_MSC_VER)
typedef unsigned long long size_t;
#else
#include <stddef.h> /* a host compiler, for unit tests */
#endif

typedef void *HANDLE, **PHANDLE;
typedef UCHAR KIRQL, *PKIRQL;
typedef CCHAR KPROCESSOR_MODE;
typedef LONG KPRIORITY;

#define TRUE 1
#define FALSE 0

typedef struct _GUID {
    ULONG Data1;
    USHORT Data2;
    USHORT Data3;
    UCHAR Data4[8];
} GUID, *LPGUID;
typedef const GUID *LPCGUID;

typedef union _LARGE_INTEGER {
    struct {
        ULONG LowPart;
        LONG HighPart;
    } u;
    LONGLONG QuadPart;
} LARGE_INTEGER, *PLARGE_INTEGER, PHYSICAL_ADDRESS;

typedef struct _LUID {
    ULONG LowPart;
    LONG HighPart;
} LUID, *PLUID;

typedef struct _UNICODE_STRING {
    USHORT Length;        /* bytes in use, without a terminator */
    USHORT MaximumLength; /* bytes allocated */
    PWCH Buffer;
} UNICODE_STRING, *PUNICODE_STRING;
typedef const UNICODE_STRING *PCUNICODE_STRING;

typedef struct _LIST_ENTRY {
    struct _LIST_ENTRY *Flink;
    struct _LIST_ENTRY *Blink;
} LIST_ENTRY, *PLIST_ENTRY;

typedef struct _PROCESSOR_NUMBER {
    USHORT Group;
    UCHAR Number;
    UCHAR Reserved;
} PROCESSOR_NUMBER, *PPROCESSOR_NUMBER;

typedef struct _SID SID, *PSID;
typedef struct _ACL ACL, *PACL;
typedef void *PSECURITY_DESCRIPTOR;

typedef struct _OBJECT_ATTRIBUTES {
    ULONG Length;
    HANDLE RootDirectory;
    PUNICODE_STRING ObjectName;
    ULONG Attributes;
    PVOID SecurityDescriptor;
    PVOID SecurityQualityOfService;
} OBJECT_ATTRIBUTES, *POBJECT_ATTRIBUTES;

typedef ULONG SECURITY_INFORMATION;
