/* ndis.h, written for this test with what matters of a kit's: it checks the NDIS version with a macro that pastes its
 * arguments and is called with macros in #if. */
#if !defined(_NDIS_)
#define _NDIS_

#include <NTDDK.h>

#if defined(_M_AMD64)
#define NDIS_MIN_API 0x400
#else
#define NDIS_MIN_API 0x630
#endif
#define NDIS_API_VERSION_AVAILABLE(major,minor) ((((0x ## major) << 8) + (0x ## minor)) >= NDIS_MIN_API)

#if defined(NDIS630)
#define NDIS_FILTER_MAJOR_VERSION 6
#define NDIS_FILTER_MINOR_VERSION 30
#else
#error no NDIS version was asked for
#endif

#if !NDIS_API_VERSION_AVAILABLE(NDIS_FILTER_MAJOR_VERSION, NDIS_FILTER_MINOR_VERSION)
#error there is no such NDIS version for this architecture
#endif

typedef ULONG NDIS_PORT_NUMBER;
typedef UINT32 NDIS_SWITCH_PORT_ID;
typedef USHORT NDIS_SWITCH_NIC_INDEX;

#include <ndis\nbl.h>

PVOID NdisGetDataBuffer(NET_BUFFER *NetBuffer, ULONG BytesNeeded, PVOID Storage, ULONG AlignMultiple,
                        ULONG AlignOffset);

#endif
