/* A fwpuclnt.dll for tests under Wine, which has no Base Filtering Engine: it appends every call that changes something
 * to the file that FWPUCLNT_RECORD names, with all that its arguments point to, and remembers the objects in
 * FWPUCLNT_OBJECTS from one program to the next, so that enumerations and deletions find them.
 *
 * Structures are those of mingw's fwpmtypes.h, so that ours (windows-sys) are compared with another's. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>
#include <fwpmu.h>

#define API __declspec(dllexport) DWORD WINAPI
#define NOT_FOUND 0x80320008u /* FWP_E_NOT_FOUND */
#define EXISTS 0x80320009u    /* FWP_E_ALREADY_EXISTS */
#define MOST 16384

/* What is remembered of an object: what enumerations are asked for. */
typedef struct {
    char kind;
    GUID key, provider, sublayer, layer;
} object;

static object objects[MOST], before[MOST];
static int count, count_before, at;

static FILE *record(void) {
    static FILE *file;
    if (!file) file = fopen(getenv("FWPUCLNT_RECORD"), "ab");
    if (!file) abort();
    return file;
}

static void say(const char *format, ...) {
    va_list list;
    va_start(list, format);
    vfprintf(record(), format, list);
    va_end(list);
}

static void say_guid(const char *name, const GUID *g) {
    if (!g) { say(" %s=-", name); return; }
    say(" %s=%08lx-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", name, (unsigned long)g->Data1, g->Data2, g->Data3,
        g->Data4[0], g->Data4[1], g->Data4[2], g->Data4[3], g->Data4[4], g->Data4[5], g->Data4[6], g->Data4[7]);
}

static void say_text(const char *name, const WCHAR *text) {
    char utf8[4096];
    if (!text) { say(" %s=-", name); return; }
    WideCharToMultiByte(CP_UTF8, 0, text, -1, utf8, sizeof utf8, 0, 0);
    say(" %s=[%s]", name, utf8);
}

static void say_bytes(const UINT8 *bytes, UINT32 size) {
    for (UINT32 i = 0; i < size; i++) say("%02x", bytes[i]);
}

static void say_plain(FWP_DATA_TYPE type, const FWP_VALUE0 *value) {
    say("%d:", type);
    switch (type) {
    case FWP_EMPTY: break;
    case FWP_UINT8: say("%u", value->uint8); break;
    case FWP_UINT16: say("%u", value->uint16); break;
    case FWP_UINT32: say("%lu", (unsigned long)value->uint32); break;
    case FWP_UINT64: say("%llu", (unsigned long long)*value->uint64); break;
    case FWP_BYTE_ARRAY16_TYPE: say_bytes(value->byteArray16->byteArray16, 16); break;
    case FWP_BYTE_BLOB_TYPE: say_bytes(value->byteBlob->data, value->byteBlob->size); break;
    case FWP_SID: say_bytes((const UINT8 *)value->sid, GetLengthSid(value->sid)); break;
    case FWP_SECURITY_DESCRIPTOR_TYPE: say_bytes(value->sd->data, value->sd->size); break;
    default: say("?");
    }
}

static void say_value(const FWP_CONDITION_VALUE0 *value) {
    switch (value->type) {
    case FWP_V4_ADDR_MASK:
        say("%d:%lu/%lu", value->type, (unsigned long)value->v4AddrMask->addr, (unsigned long)value->v4AddrMask->mask);
        break;
    case FWP_V6_ADDR_MASK:
        say("%d:", value->type);
        say_bytes(value->v6AddrMask->addr, 16);
        say("/%u", value->v6AddrMask->prefixLength);
        break;
    case FWP_RANGE_TYPE:
        say("%d:", value->type);
        say_plain(value->rangeValue->valueLow.type, &value->rangeValue->valueLow);
        say("..");
        say_plain(value->rangeValue->valueHigh.type, &value->rangeValue->valueHigh);
        break;
    default:
        say_plain(value->type, (const FWP_VALUE0 *)value);
    }
}

static void recall(void) {
    FILE *file = fopen(getenv("FWPUCLNT_OBJECTS"), "rb");
    count = file ? (int)fread(objects, sizeof *objects, MOST, file) : 0;
    if (file) fclose(file);
}

static void remember(void) {
    FILE *file = fopen(getenv("FWPUCLNT_OBJECTS"), "wb");
    if (!file || fwrite(objects, sizeof *objects, count, file) != (size_t)count) abort();
    fclose(file);
}

static object *find(char kind, const GUID *key) {
    for (int i = 0; i < count; i++)
        if (objects[i].kind == kind && IsEqualGUID(&objects[i].key, key)) return &objects[i];
    return 0;
}

static DWORD add(char kind, const GUID *key, const GUID *provider, const GUID *sublayer, const GUID *layer) {
    object new = {.kind = kind, .key = *key};
    if (find(kind, key)) return EXISTS;
    if (provider) new.provider = *provider;
    if (sublayer) new.sublayer = *sublayer;
    if (layer) new.layer = *layer;
    if (count == MOST) abort();
    objects[count++] = new;
    return 0;
}

static DWORD take(const char *function, char kind, const GUID *key) {
    object *found = find(kind, key);
    if (!found) return NOT_FOUND;
    say("%s", function);
    say_guid("key", key);
    say("\n");
    memmove(found, found + 1, (char *)&objects[--count] - (char *)found);
    return 0;
}

API FwpmEngineOpen0(const WCHAR *server, UINT32 service, SEC_WINNT_AUTH_IDENTITY_W *identity, const FWPM_SESSION0 *session, HANDLE *engine) {
    if (server || service != RPC_C_AUTHN_DEFAULT || identity || session) return ERROR_INVALID_PARAMETER;
    recall();
    *engine = (HANDLE)1;
    return 0;
}
API FwpmEngineClose0(HANDLE engine) { return 0; }
API FwpmTransactionBegin0(HANDLE engine, UINT32 flags) {
    say("FwpmTransactionBegin0 flags=%#x\n", flags);
    memcpy(before, objects, sizeof objects);
    count_before = count;
    return 0;
}
API FwpmTransactionCommit0(HANDLE engine) {
    say("FwpmTransactionCommit0\n");
    fflush(record());
    remember();
    return 0;
}
API FwpmTransactionAbort0(HANDLE engine) {
    say("FwpmTransactionAbort0\n");
    memcpy(objects, before, sizeof objects);
    count = count_before;
    return 0;
}

API FwpmProviderAdd0(HANDLE engine, const FWPM_PROVIDER0 *provider, PSECURITY_DESCRIPTOR sd) {
    say("FwpmProviderAdd0");
    say_guid("key", &provider->providerKey);
    say_text("name", provider->displayData.name);
    say_text("description", provider->displayData.description);
    say(" flags=%#x data=%u", provider->flags, provider->providerData.size);
    say_text("service", provider->serviceName);
    say(" sd=%d\n", sd != 0);
    return add('p', &provider->providerKey, 0, 0, 0);
}
API FwpmSubLayerAdd0(HANDLE engine, const FWPM_SUBLAYER0 *sublayer, PSECURITY_DESCRIPTOR sd) {
    say("FwpmSubLayerAdd0");
    say_guid("key", &sublayer->subLayerKey);
    say_text("name", sublayer->displayData.name);
    say_text("description", sublayer->displayData.description);
    say(" flags=%#x data=%u", sublayer->flags, sublayer->providerData.size);
    say_guid("provider", sublayer->providerKey);
    say(" weight=%u sd=%d\n", sublayer->weight, sd != 0);
    return add('s', &sublayer->subLayerKey, sublayer->providerKey, 0, 0);
}
API FwpmCalloutAdd0(HANDLE engine, const FWPM_CALLOUT0 *callout, PSECURITY_DESCRIPTOR sd, UINT32 *id) {
    say("FwpmCalloutAdd0");
    say_guid("key", &callout->calloutKey);
    say_text("name", callout->displayData.name);
    say_text("description", callout->displayData.description);
    say(" flags=%#x data=%u", callout->flags, callout->providerData.size);
    say_guid("provider", callout->providerKey);
    say_guid("layer", &callout->applicableLayer);
    say(" sd=%d\n", sd != 0);
    if (id) *id = 1 + count;
    return add('c', &callout->calloutKey, callout->providerKey, 0, &callout->applicableLayer);
}
API FwpmFilterAdd0(HANDLE engine, const FWPM_FILTER0 *filter, PSECURITY_DESCRIPTOR sd, UINT64 *id) {
    say("FwpmFilterAdd0");
    say_guid("key", &filter->filterKey);
    say_text("name", filter->displayData.name);
    say_text("description", filter->displayData.description);
    say(" flags=%#x data=%u", filter->flags, filter->providerData.size);
    say_guid("provider", filter->providerKey);
    say_guid("layer", &filter->layerKey);
    say_guid("sublayer", &filter->subLayerKey);
    say(" weight=");
    say_plain(filter->weight.type, &filter->weight);
    say(" action=%#lx", (unsigned long)filter->action.type);
    if (filter->action.type & FWP_ACTION_FLAG_CALLOUT) say_guid("callout", &filter->action.calloutKey);
    say(" sd=%d\n", sd != 0);
    for (UINT32 i = 0; i < filter->numFilterConditions; i++) {
        const FWPM_FILTER_CONDITION0 *one = &filter->filterCondition[i];
        say(" ");
        say_guid("field", &one->fieldKey);
        say(" match=%d value=", one->matchType);
        say_value(&one->conditionValue);
        say("\n");
    }
    if (id) *id = 1 + count;
    return add('f', &filter->filterKey, filter->providerKey, &filter->subLayerKey, &filter->layerKey);
}

API FwpmProviderDeleteByKey0(HANDLE e, const GUID *key) { return take("FwpmProviderDeleteByKey0", 'p', key); }
API FwpmSubLayerDeleteByKey0(HANDLE e, const GUID *key) { return take("FwpmSubLayerDeleteByKey0", 's', key); }
API FwpmCalloutDeleteByKey0(HANDLE e, const GUID *key) { return take("FwpmCalloutDeleteByKey0", 'c', key); }
API FwpmFilterDeleteByKey0(HANDLE e, const GUID *key) { return take("FwpmFilterDeleteByKey0", 'f', key); }

API FwpmProviderGetByKey0(HANDLE engine, const GUID *key, FWPM_PROVIDER0 **provider) {
    if (!find('p', key)) return NOT_FOUND;
    *provider = calloc(1, sizeof **provider);
    (*provider)->providerKey = *key;
    return 0;
}
API FwpmSubLayerGetByKey0(HANDLE engine, const GUID *key, FWPM_SUBLAYER0 **sublayer) {
    if (!find('s', key)) return NOT_FOUND;
    *sublayer = calloc(1, sizeof **sublayer);
    (*sublayer)->subLayerKey = *key;
    return 0;
}
API FwpmCalloutGetByKey0(HANDLE engine, const GUID *key, FWPM_CALLOUT0 **callout) {
    if (!find('c', key)) return NOT_FOUND;
    *callout = calloc(1, sizeof **callout);
    (*callout)->calloutKey = *key;
    return 0;
}

/* A template names boot-time filters of a layer, of which there are none here. */
API FwpmFilterCreateEnumHandle0(HANDLE engine, const FWPM_FILTER_ENUM_TEMPLATE0 *template, HANDLE *enumeration) {
    at = template ? count : 0;
    *enumeration = (HANDLE)1;
    return 0;
}
API FwpmFilterEnum0(HANDLE engine, HANDLE enumeration, UINT32 wanted, FWPM_FILTER0 ***entries, UINT32 *found) {
    /* One block: the pointers, the filters, and the keys that they point to. */
    typedef struct { FWPM_FILTER0 filter; GUID provider; } entry;
    char *block = calloc(wanted, sizeof(FWPM_FILTER0 *) + sizeof(entry));
    FWPM_FILTER0 **list = (FWPM_FILTER0 **)block;
    entry *room = (entry *)(list + wanted);
    for (*found = 0; *found < wanted && at < count; at++) {
        if (objects[at].kind != 'f') continue;
        entry *one = &room[*found];
        one->provider = objects[at].provider;
        one->filter.filterKey = objects[at].key;
        one->filter.providerKey = &one->provider;
        one->filter.subLayerKey = objects[at].sublayer;
        one->filter.layerKey = objects[at].layer;
        one->filter.displayData.name = L"";
        list[(*found)++] = &one->filter;
    }
    *entries = list;
    return 0;
}
API FwpmFilterDestroyEnumHandle0(HANDLE engine, HANDLE enumeration) { return 0; }

__declspec(dllexport) void WINAPI FwpmFreeMemory0(void **memory) {
    free(*memory);
    *memory = 0;
}
