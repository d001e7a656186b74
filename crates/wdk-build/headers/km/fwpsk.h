/* The run-time side of the Windows Filtering Platform: callouts, classification, flows, stream data, injection.
 *
 * Written for this project from public documentation and observed values; no Microsoft header was copied. */
#pragma once
#include "fwptypes.h"
#include "fwpsk_fields.h"
#include "fwpsk_layers.h"
#include "ndis.h"
#include "wdm.h"

/* ---- What a callout answers ---- */
#define FWPS_RIGHT_ACTION_WRITE 0x1
#define FWPS_CLASSIFY_OUT_FLAG_ABSORB 0x1
#define FWPS_CLASSIFY_OUT_FLAG_BUFFER_LIMIT_REACHED 0x2
#define FWPS_CLASSIFY_OUT_FLAG_NO_MORE_DATA 0x4
#define FWPS_CLASSIFY_OUT_FLAG_ALE_FAST_CACHE_CHECK 0x8
#define FWPS_CLASSIFY_OUT_FLAG_ALE_FAST_CACHE_POSSIBLE 0x10
#define FWPS_CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS 0x1

typedef struct FWPS_CLASSIFY_OUT0_ {
    FWP_ACTION_TYPE actionType;
    UINT64 outContext;
    UINT64 filterId;
    UINT32 rights;
    UINT32 flags;
    UINT32 reserved;
} FWPS_CLASSIFY_OUT0;

/* ---- What a callout is asked ---- */
typedef struct FWPS_INCOMING_VALUE0_ {
    FWP_VALUE0 value;
} FWPS_INCOMING_VALUE0;

typedef struct FWPS_INCOMING_VALUES0_ {
    UINT16 layerId;
    UINT32 valueCount;
    FWPS_INCOMING_VALUE0 *incomingValue;
} FWPS_INCOMING_VALUES0;

/* Which members of the metadata are valid. */
#define FWPS_METADATA_FIELD_DISCARD_REASON 0x1
#define FWPS_METADATA_FIELD_FLOW_HANDLE 0x2
#define FWPS_METADATA_FIELD_IP_HEADER_SIZE 0x4
#define FWPS_METADATA_FIELD_PROCESS_PATH 0x8
#define FWPS_METADATA_FIELD_TOKEN 0x10
#define FWPS_METADATA_FIELD_PROCESS_ID 0x20
#define FWPS_METADATA_FIELD_SYSTEM_FLAGS 0x40
#define FWPS_METADATA_FIELD_RESERVED 0x80
#define FWPS_METADATA_FIELD_SOURCE_INTERFACE_INDEX 0x100
#define FWPS_METADATA_FIELD_DESTINATION_INTERFACE_INDEX 0x200
#define FWPS_METADATA_FIELD_TRANSPORT_HEADER_SIZE 0x400
#define FWPS_METADATA_FIELD_COMPARTMENT_ID 0x800
#define FWPS_METADATA_FIELD_FRAGMENT_DATA 0x1000
#define FWPS_METADATA_FIELD_PATH_MTU 0x2000
#define FWPS_METADATA_FIELD_COMPLETION_HANDLE 0x4000
#define FWPS_METADATA_FIELD_TRANSPORT_ENDPOINT_HANDLE 0x8000
#define FWPS_METADATA_FIELD_TRANSPORT_CONTROL_DATA 0x10000
#define FWPS_METADATA_FIELD_REMOTE_SCOPE_ID 0x20000
#define FWPS_METADATA_FIELD_PACKET_DIRECTION 0x40000
#define FWPS_METADATA_FIELD_PACKET_SYSTEM_CRITICAL 0x80000
#define FWPS_METADATA_FIELD_FORWARD_LAYER_OUTBOUND_PASS_THRU 0x100000
#define FWPS_METADATA_FIELD_FORWARD_LAYER_INBOUND_PASS_THRU 0x200000
#define FWPS_METADATA_FIELD_ALE_CLASSIFY_REQUIRED 0x400000
#define FWPS_METADATA_FIELD_TRANSPORT_HEADER_INCLUDE_HEADER 0x800000
#define FWPS_METADATA_FIELD_DESTINATION_PREFIX 0x1000000
#define FWPS_METADATA_FIELD_ETHER_FRAME_LENGTH 0x2000000
#define FWPS_METADATA_FIELD_PARENT_ENDPOINT_HANDLE 0x4000000
#define FWPS_METADATA_FIELD_ICMP_ID_AND_SEQUENCE 0x8000000
#define FWPS_METADATA_FIELD_LOCAL_REDIRECT_TARGET_PID 0x10000000
#define FWPS_METADATA_FIELD_ORIGINAL_DESTINATION 0x20000000
#define FWPS_METADATA_FIELD_REDIRECT_RECORD_HANDLE 0x40000000
#define FWPS_METADATA_FIELD_SUB_PROCESS_TAG 0x80000000
#define FWPS_L2_METADATA_FIELD_ETHERNET_MAC_HEADER_SIZE 0x1
#define FWPS_L2_METADATA_FIELD_WIFI_OPERATION_MODE 0x2
#define FWPS_L2_METADATA_FIELD_VSWITCH_SOURCE_PORT_ID 0x4
#define FWPS_L2_METADATA_FIELD_VSWITCH_SOURCE_NIC_INDEX 0x8
#define FWPS_L2_METADATA_FIELD_VSWITCH_PACKET_CONTEXT 0x10
#define FWPS_L2_METADATA_FIELD_VSWITCH_DESTINATION_PORT_ID 0x20
#define FWPS_L2_METADATA_FIELD_RESERVED 0x80000000

#define FWPS_INCOMING_FLAG_CACHE_SAFE 0x1
#define FWPS_INCOMING_FLAG_ENFORCE_QUERY 0x2
#define FWPS_INCOMING_FLAG_ABSORB 0x4
#define FWPS_INCOMING_FLAG_CONNECTION_FAILING_INDICATION 0x8
#define FWPS_INCOMING_FLAG_MID_STREAM_INSPECTION 0x10
#define FWPS_INCOMING_FLAG_RECLASSIFY 0x20
#define FWPS_INCOMING_FLAG_IS_LOOSE_SOURCE_FLOW 0x40
#define FWPS_INCOMING_FLAG_IS_LOCAL_ONLY_FLOW 0x80
#define FWPS_INCOMING_FLAG_RESERVED0 0x100

typedef enum FWPS_DISCARD_MODULE0_ {
    FWPS_DISCARD_MODULE_NETWORK = 0,
    FWPS_DISCARD_MODULE_TRANSPORT = 1,
    FWPS_DISCARD_MODULE_GENERAL = 2,
    FWPS_DISCARD_MODULE_MAX = 3,
} FWPS_DISCARD_MODULE0;

typedef struct FWPS_DISCARD_METADATA0_ {
    FWPS_DISCARD_MODULE0 discardModule;
    UINT32 discardReason;
    UINT64 filterId;
} FWPS_DISCARD_METADATA0;

typedef struct FWPS_INBOUND_FRAGMENT_METADATA0_ {
    UINT32 fragmentIdentification;
    UINT16 fragmentOffset;
    ULONG fragmentLength;
} FWPS_INBOUND_FRAGMENT_METADATA0;

/* As of Windows 8: earlier versions end sooner, user mode has another layout. */
typedef struct FWPS_INCOMING_METADATA_VALUES0_ {
    UINT32 currentMetadataValues;
    UINT32 flags;
    UINT64 reserved;
    FWPS_DISCARD_METADATA0 discardMetadata;
    UINT64 flowHandle;
    UINT32 ipHeaderSize;
    UINT32 transportHeaderSize;
    FWP_BYTE_BLOB *processPath;
    UINT64 token;
    UINT64 processId;
    UINT32 sourceInterfaceIndex;
    UINT32 destinationInterfaceIndex;
    ULONG compartmentId;
    FWPS_INBOUND_FRAGMENT_METADATA0 fragmentMetadata;
    ULONG pathMtu;
    HANDLE completionHandle;
    UINT64 transportEndpointHandle;
    SCOPE_ID remoteScopeId;
    WSACMSGHDR *controlData;
    ULONG controlDataLength;
    FWP_DIRECTION packetDirection;
    PVOID headerIncludeHeader;
    ULONG headerIncludeHeaderLength;
    IP_ADDRESS_PREFIX destinationPrefix;
    UINT16 frameLength;
    UINT64 parentEndpointHandle;
    UINT32 icmpIdAndSequence;
    DWORD localRedirectTargetPID;
    SOCKADDR *originalDestination;
    HANDLE redirectRecords;
    UINT32 currentL2MetadataValues;
    UINT32 l2Flags;
    UINT32 ethernetMacHeaderSize;
    UINT32 wiFiOperationMode;
    NDIS_SWITCH_PORT_ID vSwitchSourcePortId;
    NDIS_SWITCH_NIC_INDEX vSwitchSourceNicIndex;
    NDIS_SWITCH_PORT_ID vSwitchDestinationPortId;
    HANDLE vSwitchPacketContext;
    PVOID subProcessTag;
    UINT64 reserved1;
} FWPS_INCOMING_METADATA_VALUES0;

/* ---- Filters ---- */
#define FWPS_FILTER_FLAG_CLEAR_ACTION_RIGHT 0x1
#define FWPS_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED 0x2
#define FWPS_FILTER_FLAG_OR_CONDITIONS 0x4
#define FWPS_FILTER_FLAG_HAS_SECURITY_REALM_PROVIDER_CONTEXT 0x8
#define FWPS_FILTER_FLAG_SILENT_MODE 0x10
#define FWPS_FILTER_FLAG_IPSEC_NO_ACQUIRE_INITIATE 0x20
#define FWPS_FILTER_FLAG_RESERVED0 0x40
#define FWPS_FILTER_FLAG_RESERVED1 0x80

typedef struct FWPS_ACTION0_ {
    FWP_ACTION_TYPE type;
    UINT32 calloutId;
} FWPS_ACTION0;

typedef struct FWPS_FILTER_CONDITION0_ {
    UINT16 fieldId;
    UINT16 reserved;
    FWP_MATCH_TYPE matchType;
    FWP_CONDITION_VALUE0 conditionValue;
} FWPS_FILTER_CONDITION0;

typedef struct FWPM_PROVIDER_CONTEXT0_ FWPM_PROVIDER_CONTEXT0;
typedef struct FWPS_FILTER0_ {
    UINT64 filterId;
    FWP_VALUE0 weight;
    UINT16 subLayerWeight;
    UINT16 flags;
    UINT32 numFilterConditions;
    FWPS_FILTER_CONDITION0 *filterCondition;
    FWPS_ACTION0 action;
    UINT64 context;
    FWPM_PROVIDER_CONTEXT0 *providerContext;
} FWPS_FILTER0;

typedef struct FWPM_PROVIDER_CONTEXT1_ FWPM_PROVIDER_CONTEXT1;
typedef struct FWPS_FILTER1_ {
    UINT64 filterId;
    FWP_VALUE0 weight;
    UINT16 subLayerWeight;
    UINT16 flags;
    UINT32 numFilterConditions;
    FWPS_FILTER_CONDITION0 *filterCondition;
    FWPS_ACTION0 action;
    UINT64 context;
    FWPM_PROVIDER_CONTEXT1 *providerContext;
} FWPS_FILTER1;

typedef struct FWPM_PROVIDER_CONTEXT2_ FWPM_PROVIDER_CONTEXT2;
typedef struct FWPS_FILTER2_ {
    UINT64 filterId;
    FWP_VALUE0 weight;
    UINT16 subLayerWeight;
    UINT16 flags;
    UINT32 numFilterConditions;
    FWPS_FILTER_CONDITION0 *filterCondition;
    FWPS_ACTION0 action;
    UINT64 context;
    FWPM_PROVIDER_CONTEXT2 *providerContext;
} FWPS_FILTER2;

typedef struct FWPM_PROVIDER_CONTEXT3_ FWPM_PROVIDER_CONTEXT3;
typedef struct FWPS_FILTER3_ {
    UINT64 filterId;
    FWP_VALUE0 weight;
    UINT16 subLayerWeight;
    UINT16 flags;
    UINT32 numFilterConditions;
    FWPS_FILTER_CONDITION0 *filterCondition;
    FWPS_ACTION0 action;
    UINT64 context;
    FWPM_PROVIDER_CONTEXT3 *providerContext;
} FWPS_FILTER3;

/* ---- Callouts ---- */
typedef enum FWPS_CALLOUT_NOTIFY_TYPE_ {
    FWPS_CALLOUT_NOTIFY_ADD_FILTER = 0,
    FWPS_CALLOUT_NOTIFY_DELETE_FILTER = 1,
    FWPS_CALLOUT_NOTIFY_ADD_FILTER_POST_COMMIT = 2,
    FWPS_CALLOUT_NOTIFY_TYPE_MAX = 3,
} FWPS_CALLOUT_NOTIFY_TYPE;

typedef VOID (*FWPS_CALLOUT_CLASSIFY_FN0)(const FWPS_INCOMING_VALUES0 *inFixedValues,
                                          const FWPS_INCOMING_METADATA_VALUES0 *inMetaValues, void *layerData,
                                          const FWPS_FILTER0 *filter, UINT64 flowContext,
                                          FWPS_CLASSIFY_OUT0 *classifyOut);
typedef NTSTATUS (*FWPS_CALLOUT_NOTIFY_FN0)(FWPS_CALLOUT_NOTIFY_TYPE notifyType, const GUID *filterKey,
                                            FWPS_FILTER0 *filter);
typedef VOID (*FWPS_CALLOUT_CLASSIFY_FN1)(const FWPS_INCOMING_VALUES0 *inFixedValues,
                                          const FWPS_INCOMING_METADATA_VALUES0 *inMetaValues, void *layerData,
                                          const void *classifyContext, const FWPS_FILTER1 *filter, UINT64 flowContext,
                                          FWPS_CLASSIFY_OUT0 *classifyOut);
typedef NTSTATUS (*FWPS_CALLOUT_NOTIFY_FN1)(FWPS_CALLOUT_NOTIFY_TYPE notifyType, const GUID *filterKey,
                                            FWPS_FILTER1 *filter);
typedef VOID (*FWPS_CALLOUT_CLASSIFY_FN2)(const FWPS_INCOMING_VALUES0 *inFixedValues,
                                          const FWPS_INCOMING_METADATA_VALUES0 *inMetaValues, void *layerData,
                                          const void *classifyContext, const FWPS_FILTER2 *filter, UINT64 flowContext,
                                          FWPS_CLASSIFY_OUT0 *classifyOut);
typedef NTSTATUS (*FWPS_CALLOUT_NOTIFY_FN2)(FWPS_CALLOUT_NOTIFY_TYPE notifyType, const GUID *filterKey,
                                            FWPS_FILTER2 *filter);
typedef VOID (*FWPS_CALLOUT_CLASSIFY_FN3)(const FWPS_INCOMING_VALUES0 *inFixedValues,
                                          const FWPS_INCOMING_METADATA_VALUES0 *inMetaValues, void *layerData,
                                          const void *classifyContext, const FWPS_FILTER3 *filter, UINT64 flowContext,
                                          FWPS_CLASSIFY_OUT0 *classifyOut);
typedef NTSTATUS (*FWPS_CALLOUT_NOTIFY_FN3)(FWPS_CALLOUT_NOTIFY_TYPE notifyType, const GUID *filterKey,
                                            FWPS_FILTER3 *filter);
typedef VOID (*FWPS_CALLOUT_FLOW_DELETE_NOTIFY_FN0)(UINT16 layerId, UINT32 calloutId, UINT64 flowContext);

typedef struct FWPS_CALLOUT0_ {
    GUID calloutKey;
    UINT32 flags;
    FWPS_CALLOUT_CLASSIFY_FN0 classifyFn;
    FWPS_CALLOUT_NOTIFY_FN0 notifyFn;
    FWPS_CALLOUT_FLOW_DELETE_NOTIFY_FN0 flowDeleteFn;
} FWPS_CALLOUT0;

typedef struct FWPS_CALLOUT1_ {
    GUID calloutKey;
    UINT32 flags;
    FWPS_CALLOUT_CLASSIFY_FN1 classifyFn;
    FWPS_CALLOUT_NOTIFY_FN1 notifyFn;
    FWPS_CALLOUT_FLOW_DELETE_NOTIFY_FN0 flowDeleteFn;
} FWPS_CALLOUT1;

typedef struct FWPS_CALLOUT2_ {
    GUID calloutKey;
    UINT32 flags;
    FWPS_CALLOUT_CLASSIFY_FN2 classifyFn;
    FWPS_CALLOUT_NOTIFY_FN2 notifyFn;
    FWPS_CALLOUT_FLOW_DELETE_NOTIFY_FN0 flowDeleteFn;
} FWPS_CALLOUT2;

typedef struct FWPS_CALLOUT3_ {
    GUID calloutKey;
    UINT32 flags;
    FWPS_CALLOUT_CLASSIFY_FN3 classifyFn;
    FWPS_CALLOUT_NOTIFY_FN3 notifyFn;
    FWPS_CALLOUT_FLOW_DELETE_NOTIFY_FN0 flowDeleteFn;
} FWPS_CALLOUT3;

/* ---- Streams ---- */
#define FWPS_STREAM_FLAG_RECEIVE 0x1
#define FWPS_STREAM_FLAG_RECEIVE_EXPEDITED 0x2
#define FWPS_STREAM_FLAG_RECEIVE_DISCONNECT 0x4
#define FWPS_STREAM_FLAG_RECEIVE_ABORT 0x8
#define FWPS_STREAM_FLAG_RECEIVE_PUSH 0x10
#define FWPS_STREAM_FLAG_SEND 0x10000
#define FWPS_STREAM_FLAG_SEND_EXPEDITED 0x20000
#define FWPS_STREAM_FLAG_SEND_NODELAY 0x40000
#define FWPS_STREAM_FLAG_SEND_DISCONNECT 0x80000
#define FWPS_STREAM_FLAG_SEND_ABORT 0x100000

typedef enum FWPS_STREAM_ACTION_TYPE_ {
    FWPS_STREAM_ACTION_NONE = 0,
    FWPS_STREAM_ACTION_NEED_MORE_DATA = 1,
    FWPS_STREAM_ACTION_DROP_CONNECTION = 2,
    FWPS_STREAM_ACTION_DEFER = 3,
    FWPS_STREAM_ACTION_ALLOW_CONNECTION = 4,
    FWPS_STREAM_ACTION_TYPE_MAX = 5,
} FWPS_STREAM_ACTION_TYPE;

typedef struct FWPS_STREAM_DATA_OFFSET0_ {
    NET_BUFFER_LIST *netBufferList;
    NET_BUFFER *netBuffer;
    MDL *mdl;
    UINT32 mdlOffset;
    UINT32 netBufferOffset;
    SIZE_T streamDataOffset;
} FWPS_STREAM_DATA_OFFSET0;

typedef struct FWPS_STREAM_DATA0_ {
    UINT32 flags;
    FWPS_STREAM_DATA_OFFSET0 dataOffset;
    SIZE_T dataLength;
    NET_BUFFER_LIST *netBufferListChain;
} FWPS_STREAM_DATA0;

typedef struct FWPS_STREAM_CALLOUT_IO_PACKET0_ {
    FWPS_STREAM_DATA0 *streamData;
    SIZE_T missedBytes;
    UINT32 countBytesRequired;
    SIZE_T countBytesEnforced;
    FWPS_STREAM_ACTION_TYPE streamAction;
} FWPS_STREAM_CALLOUT_IO_PACKET0;

/* ---- Redirection, injection, packet information ---- */
#define FWPS_INJECTION_TYPE_STREAM 0x1
#define FWPS_INJECTION_TYPE_TRANSPORT 0x2
#define FWPS_INJECTION_TYPE_NETWORK 0x4
#define FWPS_INJECTION_TYPE_FORWARD 0x8
#define FWPS_INJECTION_TYPE_L2 0x10
#define FWPS_INJECTION_TYPE_VSWITCH_TRANSPORT 0x20

typedef enum FWPS_PACKET_INJECTION_STATE_ {
    FWPS_PACKET_NOT_INJECTED = 0,
    FWPS_PACKET_INJECTED_BY_SELF = 1,
    FWPS_PACKET_INJECTED_BY_OTHER = 2,
    FWPS_PACKET_PREVIOUSLY_INJECTED_BY_SELF = 3,
    FWPS_PACKET_INJECTION_STATE_MAX = 4,
} FWPS_PACKET_INJECTION_STATE;

typedef enum FWPS_CONNECTION_REDIRECT_STATE_ {
    FWPS_CONNECTION_NOT_REDIRECTED = 0,
    FWPS_CONNECTION_REDIRECTED_BY_SELF = 1,
    FWPS_CONNECTION_REDIRECTED_BY_OTHER = 2,
    FWPS_CONNECTION_PREVIOUSLY_REDIRECTED_BY_SELF = 3,
    FWPS_CONNECTION_REDIRECT_STATE_MAX = 4,
} FWPS_CONNECTION_REDIRECT_STATE;

typedef enum FWPS_NET_BUFFER_LIST_EVENT_TYPE0_ {
    FWPS_NET_BUFFER_LIST_ENTERED_NETIO = 0,
    FWPS_NET_BUFFER_LIST_CLONED_BY_NETIO = 1,
    FWPS_NET_BUFFER_LIST_CLONED_VIA_WFP_API = 2,
    FWPS_NET_BUFFER_LIST_DUPLICATED_BY_NETIO = 3,
    FWPS_NET_BUFFER_LIST_EXIT_NETIO = 4,
    FWPS_NET_BUFFER_LIST_CONTEXT_REMOVED = 5,
    FWPS_NET_BUFFER_LIST_NDIS_SEND_COMPLETE = 6,
    FWPS_NET_BUFFER_LIST_NDIS_RECV_COMPLETE = 7,
    FWPS_NET_BUFFER_LIST_NDIS_ETHERNET_SEND_COMPLETE = 6,
    FWPS_NET_BUFFER_LIST_NDIS_ETHERNET_RECV_COMPLETE = 7,
    FWPS_NET_BUFFER_LIST_NDIS_NATIVE_SEND_COMPLETE = 8,
    FWPS_NET_BUFFER_LIST_NDIS_NATIVE_RECV_COMPLETE = 9,
    FWPS_NET_BUFFER_LIST_NDIS_VSWITCH_INGRESS_COMPLETE = 10,
    FWPS_NET_BUFFER_LIST_NDIS_VSWITCH_EGRESS_COMPLETE = 11,
    FWPS_NET_BUFFER_LIST_CLONED_BY_NDIS = 12,
    FWPS_NET_BUFFER_LIST_REASSEMBLED_FRAGMENT = 13,
    FWPS_NET_BUFFER_LIST_REASSEMBLY_COMPLETE = 14,
} FWPS_NET_BUFFER_LIST_EVENT_TYPE0;

typedef struct FWPS_TRANSPORT_SEND_PARAMS0_ {
    UCHAR *remoteAddress;
    SCOPE_ID remoteScopeId;
    WSACMSGHDR *controlData;
    ULONG controlDataLength;
} FWPS_TRANSPORT_SEND_PARAMS0;

typedef struct FWPS_TRANSPORT_SEND_PARAMS1_ {
    UCHAR *remoteAddress;
    SCOPE_ID remoteScopeId;
    WSACMSGHDR *controlData;
    ULONG controlDataLength;
    UCHAR *headerIncludeHeader;
    ULONG headerIncludeHeaderLength;
} FWPS_TRANSPORT_SEND_PARAMS1;

typedef struct FWPS_PACKET_LIST_INFORMATION0_ {
    UINT32 ipsecInformation; /* bits of inbound or outbound IPsec information */
    UINT32 fwpInformation;
} FWPS_PACKET_LIST_INFORMATION0;

typedef VOID (*FWPS_INJECT_COMPLETE0)(void *context, NET_BUFFER_LIST *netBufferList, BOOLEAN dispatchLevel);
typedef VOID (*FWPS_NET_BUFFER_LIST_NOTIFY_FN0)(FWPS_NET_BUFFER_LIST_EVENT_TYPE0 eventType,
                                                NET_BUFFER_LIST *netBufferList, NET_BUFFER_LIST *newNetBufferList,
                                                UINT16 layerId, UINT64 context, UINT64 contextTag);
typedef NTSTATUS (*FWPS_NET_BUFFER_LIST_NOTIFY_FN1)(FWPS_NET_BUFFER_LIST_EVENT_TYPE0 eventType,
                                                    NET_BUFFER_LIST *netBufferList, NET_BUFFER_LIST *newNetBufferList,
                                                    UINT16 layerId, UINT64 context, UINT64 contextTag);

/* ---- Functions of fwpkclnt.sys ---- */
NTSTATUS FwpsAcquireClassifyHandle0(void *classifyContext, UINT32 flags, UINT64 *classifyHandle);
NTSTATUS FwpsAcquireWritableLayerDataPointer0(UINT64 classifyHandle, UINT64 filterId, UINT32 flags,
                                              PVOID *writableLayerData, FWPS_CLASSIFY_OUT0 *classifyOut);
NTSTATUS FwpsAllocateCloneNetBufferList0(NET_BUFFER_LIST *originalNetBufferList, NDIS_HANDLE netBufferListPoolHandle,
                                         NDIS_HANDLE netBufferPoolHandle, ULONG allocateCloneFlags,
                                         NET_BUFFER_LIST **netBufferList);
NTSTATUS FwpsAllocateNetBufferAndNetBufferList0(NDIS_HANDLE poolHandle, USHORT contextSize, USHORT contextBackFill,
                                                MDL *mdlChain, ULONG dataOffset, SIZE_T dataLength,
                                                NET_BUFFER_LIST **netBufferList);
VOID FwpsApplyModifiedLayerData0(UINT64 classifyHandle, PVOID modifiedLayerData, UINT32 flags);
NTSTATUS FwpsCalloutRegister0(void *deviceObject, const FWPS_CALLOUT0 *callout, UINT32 *calloutId);
NTSTATUS FwpsCalloutRegister1(void *deviceObject, const FWPS_CALLOUT1 *callout, UINT32 *calloutId);
NTSTATUS FwpsCalloutRegister2(void *deviceObject, const FWPS_CALLOUT2 *callout, UINT32 *calloutId);
NTSTATUS FwpsCalloutRegister3(void *deviceObject, const FWPS_CALLOUT3 *callout, UINT32 *calloutId);
NTSTATUS FwpsCalloutUnregisterById0(UINT32 calloutId);
NTSTATUS FwpsCalloutUnregisterByKey0(const GUID *calloutKey);
NTSTATUS FwpsClassifyOptionSet0(const FWPS_INCOMING_METADATA_VALUES0 *inMetadataValues, FWP_CLASSIFY_OPTION_TYPE option,
                                const FWP_VALUE0 *newValue);
NTSTATUS FwpsCloneStreamData0(FWPS_STREAM_DATA0 *calloutStreamData, NDIS_HANDLE netBufferListPoolHandle,
                              NDIS_HANDLE netBufferPoolHandle, ULONG allocateCloneFlags,
                              NET_BUFFER_LIST **netBufferListChain);
VOID FwpsCompleteClassify0(UINT64 classifyHandle, UINT32 flags, const FWPS_CLASSIFY_OUT0 *classifyOut);
VOID FwpsCompleteOperation0(HANDLE completionContext, PNET_BUFFER_LIST netBufferList);
NTSTATUS FwpsConstructIpHeaderForTransportPacket0(NET_BUFFER_LIST *netBufferList, ULONG headerIncludeHeaderLength,
                                                  ADDRESS_FAMILY addressFamily, const UCHAR *sourceAddress,
                                                  const UCHAR *remoteAddress, IPPROTO nextProtocol,
                                                  UINT64 endpointHandle, const WSACMSGHDR *controlData,
                                                  ULONG controlDataLength, UINT32 flags, PVOID reserved,
                                                  IF_INDEX interfaceIndex, IF_INDEX subInterfaceIndex);
VOID FwpsCopyStreamDataToBuffer0(const FWPS_STREAM_DATA0 *calloutStreamData, PVOID buffer, SIZE_T bytesToCopy,
                                 SIZE_T *bytesCopied);
VOID FwpsDereferenceNetBufferList0(NET_BUFFER_LIST *netBufferList, BOOLEAN dispatchLevel);
VOID FwpsDiscardClonedStreamData0(NET_BUFFER_LIST *netBufferListChain, UINT32 allocateCloneFlags,
                                  BOOLEAN dispatchLevel);
NTSTATUS FwpsFlowAbort0(UINT64 flowId);
NTSTATUS FwpsFlowAssociateContext0(UINT64 flowId, UINT16 layerId, UINT32 calloutId, UINT64 flowContext);
NTSTATUS FwpsFlowRemoveContext0(UINT64 flowId, UINT16 layerId, UINT32 calloutId);
VOID FwpsFreeCloneNetBufferList0(NET_BUFFER_LIST *netBufferList, ULONG freeCloneFlags);
VOID FwpsFreeNetBufferList0(NET_BUFFER_LIST *netBufferList);
NTSTATUS FwpsGetPacketListSecurityInformation0(NET_BUFFER_LIST *packetList, UINT32 queryFlags,
                                               FWPS_PACKET_LIST_INFORMATION0 *packetInformation);
NTSTATUS FwpsInjectForwardAsync0(HANDLE injectionHandle, HANDLE injectionContext, UINT32 flags,
                                 ADDRESS_FAMILY addressFamily, COMPARTMENT_ID compartmentId, IF_INDEX interfaceIndex,
                                 NET_BUFFER_LIST *netBufferList, FWPS_INJECT_COMPLETE0 completionFn,
                                 HANDLE completionContext);
NTSTATUS FwpsInjectNetworkReceiveAsync0(HANDLE injectionHandle, HANDLE injectionContext, UINT32 flags,
                                        COMPARTMENT_ID compartmentId, IF_INDEX interfaceIndex,
                                        IF_INDEX subInterfaceIndex, NET_BUFFER_LIST *netBufferList,
                                        FWPS_INJECT_COMPLETE0 completionFn, HANDLE completionContext);
NTSTATUS FwpsInjectNetworkSendAsync0(HANDLE injectionHandle, HANDLE injectionContext, UINT32 flags,
                                     COMPARTMENT_ID compartmentId, NET_BUFFER_LIST *netBufferList,
                                     FWPS_INJECT_COMPLETE0 completionFn, HANDLE completionContext);
NTSTATUS FwpsInjectTransportReceiveAsync0(HANDLE injectionHandle, HANDLE injectionContext, PVOID reserved, UINT32 flags,
                                          ADDRESS_FAMILY addressFamily, COMPARTMENT_ID compartmentId,
                                          IF_INDEX interfaceIndex, IF_INDEX subInterfaceIndex,
                                          NET_BUFFER_LIST *netBufferList, FWPS_INJECT_COMPLETE0 completionFn,
                                          HANDLE completionContext);
NTSTATUS FwpsInjectTransportSendAsync0(HANDLE injectionHandle, HANDLE injectionContext, UINT64 endpointHandle,
                                       UINT32 flags, FWPS_TRANSPORT_SEND_PARAMS0 *sendArgs,
                                       ADDRESS_FAMILY addressFamily, COMPARTMENT_ID compartmentId,
                                       NET_BUFFER_LIST *netBufferList, FWPS_INJECT_COMPLETE0 completionFn,
                                       HANDLE completionContext);
NTSTATUS FwpsInjectTransportSendAsync1(HANDLE injectionHandle, HANDLE injectionContext, UINT64 endpointHandle,
                                       UINT32 flags, FWPS_TRANSPORT_SEND_PARAMS1 *sendArgs,
                                       ADDRESS_FAMILY addressFamily, COMPARTMENT_ID compartmentId,
                                       NET_BUFFER_LIST *netBufferList, FWPS_INJECT_COMPLETE0 completionFn,
                                       HANDLE completionContext);
NTSTATUS FwpsInjectionHandleCreate0(ADDRESS_FAMILY addressFamily, UINT32 flags, HANDLE *injectionHandle);
NTSTATUS FwpsInjectionHandleDestroy0(HANDLE injectionHandle);
NTSTATUS FwpsNetBufferListAssociateContext0(NET_BUFFER_LIST *netBufferList, UINT16 layerId, UINT64 context,
                                            UINT64 contextTag, GUID *providerGuid, void *deviceObject,
                                            FWPS_NET_BUFFER_LIST_NOTIFY_FN0 notifyFn, UINT32 flags);
NTSTATUS FwpsNetBufferListAssociateContext1(NET_BUFFER_LIST *netBufferList, UINT16 layerId, UINT64 context,
                                            UINT64 contextTag, GUID *providerGuid, void *deviceObject,
                                            FWPS_NET_BUFFER_LIST_NOTIFY_FN1 notifyFn, UINT32 flags);
NTSTATUS FwpsNetBufferListRemoveContext0(NET_BUFFER_LIST *netBufferList, UINT64 contextTag, UINT32 flags);
NTSTATUS FwpsNetBufferListRetrieveContext0(NET_BUFFER_LIST *netBufferList, UINT64 contextTag, BOOLEAN removeContext,
                                           UINT32 flags, UINT64 *context);
NTSTATUS FwpsPendClassify0(UINT64 classifyHandle, UINT64 filterId, UINT32 flags, FWPS_CLASSIFY_OUT0 *classifyOut);
NTSTATUS FwpsPendOperation0(HANDLE completionHandle, HANDLE *completionContext);
FWPS_CONNECTION_REDIRECT_STATE FwpsQueryConnectionRedirectState0(HANDLE redirectRecords, HANDLE redirectHandle,
                                                                 void **redirectContext);
NTSTATUS FwpsQueryConnectionSioFormatRedirectRecords0(HANDLE RedirectRecords, PVOID OutputBuffer,
                                                      SIZE_T OutputBufferLength, PSIZE_T BytesTransferred);
FWPS_PACKET_INJECTION_STATE FwpsQueryPacketInjectionState0(HANDLE injectionHandle, const NET_BUFFER_LIST *netBufferList,
                                                           HANDLE *injectionContext);
NTSTATUS FwpsReassembleForwardFragmentGroup0(ADDRESS_FAMILY addressFamily, NET_BUFFER_LIST *fragmentGroupNblChain,
                                             NDIS_HANDLE netBufferAndNetBufferListPoolHandle, ULONG dataBackFill,
                                             ULONG flags, NET_BUFFER_LIST **reassembledNbl);
NTSTATUS FwpsRedirectHandleCreate0(const GUID *providerGuid, UINT32 flags, HANDLE *redirectHandle);
VOID FwpsRedirectHandleDestroy0(HANDLE redirectHandle);
VOID FwpsReferenceNetBufferList0(NET_BUFFER_LIST *netBufferList, BOOLEAN intendToModify);
VOID FwpsReleaseClassifyHandle0(UINT64 classifyHandle);
NTSTATUS FwpsStreamContinue0(UINT64 flowId, UINT32 calloutId, UINT16 layerId, UINT32 streamFlags);
NTSTATUS FwpsStreamInjectAsync0(HANDLE injectionHandle, HANDLE injectionContext, UINT32 flags, UINT64 flowId,
                                UINT32 calloutId, UINT16 layerId, UINT32 streamFlags, NET_BUFFER_LIST *netBufferList,
                                SIZE_T dataLength, FWPS_INJECT_COMPLETE0 completionFn, HANDLE completionContext);
