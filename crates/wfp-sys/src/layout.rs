//! Layout of the structures, checked when this is compiled.
//!
//! The numbers are those of kernel mode on 64-bit Windows, x86_64 and aarch64 alike: offsets that the headers of the WDK
//! 10.0.14393 to 10.0.22621 agree on. Bindings made from any header tree that disagrees do not compile.

use core::mem::offset_of;

use wdk_sys::{GUID, MDL, UNICODE_STRING};

use crate::*;

/// One line per structure: name, alignment, and the offset of each member.
macro_rules! offsets {
    ($($name:ident: $align:literal { $($field:ident: $offset:literal),* })*) => {$(
        const _: () = assert!(align_of::<$name>() == $align, concat!("alignment of ", stringify!($name)));
        $(const _: () = assert!(
            offset_of!($name, $field) == $offset,
            concat!("offset of ", stringify!($name), "::", stringify!($field))
        );)*
    )*};
}

/// One line per structure: name, size, alignment, and the offset of each member.
macro_rules! layout {
    ($($name:ident: $size:literal, $align:literal { $($field:ident: $offset:literal),* })*) => {$(
        const _: () = assert!(size_of::<$name>() == $size, concat!("size of ", stringify!($name)));
        offsets! { $name: $align { $($field: $offset),* } }
    )*};
}

layout! {
    GUID: 16, 4 { Data1: 0, Data2: 4, Data3: 6, Data4: 8 }
    UNICODE_STRING: 16, 8 { Length: 0, MaximumLength: 2, Buffer: 8 }
    MDL: 48, 8 { Next: 0, Size: 8, MdlFlags: 10, Process: 16, MappedSystemVa: 24, StartVa: 32, ByteCount: 40,
        ByteOffset: 44 }
    FWP_BYTE_BLOB: 16, 8 { size: 0, data: 8 }
    FWP_BYTE_ARRAY6: 6, 1 { byteArray6: 0 }
    FWP_BYTE_ARRAY16: 16, 1 { byteArray16: 0 }
    FWP_VALUE0: 16, 8 { type_: 0, __bindgen_anon_1: 8 }
    FWP_CONDITION_VALUE0: 16, 8 { type_: 0, __bindgen_anon_1: 8 }
    FWP_RANGE0: 32, 8 { valueLow: 0, valueHigh: 16 }
    FWP_V4_ADDR_AND_MASK: 8, 4 { addr: 0, mask: 4 }
    FWP_V6_ADDR_AND_MASK: 17, 1 { addr: 0, prefixLength: 16 }
    FWP_TOKEN_INFORMATION: 32, 8 { sidCount: 0, sids: 8, restrictedSidCount: 16, restrictedSids: 24 }
    FWPS_ACTION0: 8, 4 { type_: 0, calloutId: 4 }
    FWPS_FILTER_CONDITION0: 24, 8 { fieldId: 0, reserved: 2, matchType: 4, conditionValue: 8 }
    FWPS_FILTER0: 64, 8 { filterId: 0, weight: 8, subLayerWeight: 24, flags: 26, numFilterConditions: 28,
        filterCondition: 32, action: 40, context: 48, providerContext: 56 }
    FWPS_FILTER1: 64, 8 { filterId: 0, weight: 8, subLayerWeight: 24, flags: 26, numFilterConditions: 28,
        filterCondition: 32, action: 40, context: 48, providerContext: 56 }
    FWPS_FILTER2: 64, 8 { filterId: 0, weight: 8, subLayerWeight: 24, flags: 26, numFilterConditions: 28,
        filterCondition: 32, action: 40, context: 48, providerContext: 56 }
    FWPS_FILTER3: 64, 8 { filterId: 0, weight: 8, subLayerWeight: 24, flags: 26, numFilterConditions: 28,
        filterCondition: 32, action: 40, context: 48, providerContext: 56 }
    FWPS_CALLOUT0: 48, 8 { calloutKey: 0, flags: 16, classifyFn: 24, notifyFn: 32, flowDeleteFn: 40 }
    FWPS_CALLOUT1: 48, 8 { calloutKey: 0, flags: 16, classifyFn: 24, notifyFn: 32, flowDeleteFn: 40 }
    FWPS_CALLOUT2: 48, 8 { calloutKey: 0, flags: 16, classifyFn: 24, notifyFn: 32, flowDeleteFn: 40 }
    FWPS_CALLOUT3: 48, 8 { calloutKey: 0, flags: 16, classifyFn: 24, notifyFn: 32, flowDeleteFn: 40 }
    FWPS_CLASSIFY_OUT0: 40, 8 { actionType: 0, outContext: 8, filterId: 16, rights: 24, flags: 28, reserved: 32 }
    FWPS_INCOMING_VALUE0: 16, 8 { value: 0 }
    FWPS_INCOMING_VALUES0: 16, 8 { layerId: 0, valueCount: 4, incomingValue: 8 }
    FWPS_DISCARD_METADATA0: 16, 8 { discardModule: 0, discardReason: 4, filterId: 8 }
    FWPS_INBOUND_FRAGMENT_METADATA0: 12, 4 { fragmentIdentification: 0, fragmentOffset: 4, fragmentLength: 8 }
    FWPS_STREAM_DATA_OFFSET0: 40, 8 { netBufferList: 0, netBuffer: 8, mdl: 16, mdlOffset: 24, netBufferOffset: 28,
        streamDataOffset: 32 }
    FWPS_STREAM_DATA0: 64, 8 { flags: 0, dataOffset: 8, dataLength: 48, netBufferListChain: 56 }
    FWPS_STREAM_CALLOUT_IO_PACKET0: 40, 8 { streamData: 0, missedBytes: 8, countBytesRequired: 16,
        countBytesEnforced: 24, streamAction: 32 }
    FWPS_TRANSPORT_SEND_PARAMS0: 32, 8 { remoteAddress: 0, remoteScopeId: 8, controlData: 16, controlDataLength: 24 }
    FWPS_TRANSPORT_SEND_PARAMS1: 48, 8 { remoteAddress: 0, remoteScopeId: 8, controlData: 16, controlDataLength: 24,
        headerIncludeHeader: 32, headerIncludeHeaderLength: 40 }
    FWPM_DISPLAY_DATA0: 16, 8 { name: 0, description: 8 }
    FWPM_SESSION0: 72, 8 { sessionKey: 0, displayData: 16, flags: 32, txnWaitTimeoutInMSec: 36, processId: 40,
        sid: 48, username: 56, kernelMode: 64 }
    FWPM_SUBLAYER0: 72, 8 { subLayerKey: 0, displayData: 16, flags: 32, providerKey: 40, providerData: 48, weight: 64 }
    FWPM_CALLOUT0: 88, 8 { calloutKey: 0, displayData: 16, flags: 32, providerKey: 40, providerData: 48,
        applicableLayer: 64, calloutId: 80 }
    FWPM_ACTION0: 20, 4 { type_: 0, __bindgen_anon_1: 4 }
    FWPM_FILTER_CONDITION0: 40, 8 { fieldKey: 0, matchType: 16, conditionValue: 24 }
    FWPM_FILTER0: 200, 8 { filterKey: 0, displayData: 16, flags: 32, providerKey: 40, providerData: 48, layerKey: 64,
        subLayerKey: 80, weight: 96, numFilterConditions: 112, filterCondition: 120, action: 128,
        __bindgen_anon_1: 152, reserved: 168, filterId: 176, effectiveWeight: 184 }
    IN6_ADDR: 16, 2 { u: 0 }
    SOCKADDR_INET: 28, 4 { Ipv4: 0, Ipv6: 0, si_family: 0 }
    IP_ADDRESS_PREFIX: 32, 4 { Prefix: 0, PrefixLength: 28 }
    WSACMSGHDR: 16, 8 { cmsg_len: 0, cmsg_level: 8, cmsg_type: 12 }
}

// Windows makes these, and a later version may append: the headers named above have 280 bytes.
offsets! {
    FWPS_INCOMING_METADATA_VALUES0: 8 { currentMetadataValues: 0, flags: 4, reserved: 8, discardMetadata: 16,
        flowHandle: 32, ipHeaderSize: 40, transportHeaderSize: 44, processPath: 48, token: 56, processId: 64,
        sourceInterfaceIndex: 72, destinationInterfaceIndex: 76, compartmentId: 80, fragmentMetadata: 84,
        pathMtu: 96, completionHandle: 104, transportEndpointHandle: 112, remoteScopeId: 120, controlData: 128,
        controlDataLength: 136, packetDirection: 140, headerIncludeHeader: 144, headerIncludeHeaderLength: 152,
        destinationPrefix: 156, frameLength: 188, parentEndpointHandle: 192, icmpIdAndSequence: 200,
        localRedirectTargetPID: 204, originalDestination: 208, redirectRecords: 216, currentL2MetadataValues: 224,
        l2Flags: 228, ethernetMacHeaderSize: 232, wiFiOperationMode: 236, vSwitchSourcePortId: 240,
        vSwitchSourceNicIndex: 244, vSwitchDestinationPortId: 248, vSwitchPacketContext: 256, subProcessTag: 264 }
}

layout! {
    NET_BUFFER: 176, 16 { Next: 0, CurrentMdl: 8, CurrentMdlOffset: 16, DataLength: 24, MdlChain: 32, DataOffset: 40,
        ChecksumBias: 48, Reserved: 50, NdisPoolHandle: 56, NdisReserved: 64, ProtocolReserved: 80,
        MiniportReserved: 128, DataPhysicalAddress: 160, SharedMemoryInfo: 168 }
}

// A list ends with an array whose length depends on the NDIS version, so its size is not known.
layout! {
    NET_BUFFER_LIST: 144, 16 { Next: 0, FirstNetBuffer: 8, Context: 16, ParentNetBufferList: 24, NdisPoolHandle: 32,
        NdisReserved: 48, ProtocolReserved: 64, MiniportReserved: 96, Scratch: 112, SourceHandle: 120, NblFlags: 128,
        ChildRefCount: 132, Flags: 136, Status: 140, NetBufferListInfo: 144 }
}
