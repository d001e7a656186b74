/* Network buffers, as far as the Windows Filtering Platform and this project mention them.
 *
 * Written for this project from public documentation; no Microsoft header was copied. The structures themselves are
 * declared in crates/wfp-sys/src/ndis.rs by hand, because bindgen cannot follow their unnamed unions in every header
 * tree; here they are names only. */
#ifndef _NDIS_
#define _NDIS_
#include "wdm.h"

typedef PVOID NDIS_HANDLE, *PNDIS_HANDLE;
typedef ULONG NDIS_PORT_NUMBER;
typedef ULONG NDIS_SWITCH_PORT_ID;
typedef USHORT NDIS_SWITCH_NIC_INDEX;

typedef struct _NET_BUFFER NET_BUFFER, *PNET_BUFFER;
typedef struct _NET_BUFFER_LIST NET_BUFFER_LIST, *PNET_BUFFER_LIST;

PVOID NdisGetDataBuffer(PNET_BUFFER NetBuffer, ULONG BytesNeeded, PVOID Storage, ULONG AlignMultiple, ULONG AlignOffset);

#endif
