//! Run-time structures (fwpsk.h, fwpstypes.h).

use super::{FwpByteBlob, FwpValue0, RawGuid, layout};
use core::ffi::c_void;

/// `FWPS_ACTION0`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FwpsAction0 {
    pub kind: u32,
    pub callout_id: u32,
}
layout!(FwpsAction0, 8, 4, { kind: 0, callout_id: 4 });

/// `FWPS_FILTER_CONDITION0`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FwpsFilterCondition0 {
    pub field_id: u16,
    pub reserved: u16,
    pub match_type: u32,
    pub condition_value: FwpValue0,
}
layout!(FwpsFilterCondition0, 24, 8, { field_id: 0, reserved: 2, match_type: 4, condition_value: 8 });

/// `FWPS_FILTER0` to `FWPS_FILTER3`: they differ only in the version of what `provider_context` points to.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpsFilter0 {
    pub filter_id: u64,
    pub weight: FwpValue0,
    pub sub_layer_weight: u16,
    pub flags: u16,
    pub num_filter_conditions: u32,
    pub filter_condition: *const FwpsFilterCondition0,
    pub action: FwpsAction0,
    pub context: u64,
    pub provider_context: *const c_void,
}
layout!(FwpsFilter0, 64, 8, {
    filter_id: 0, weight: 8, sub_layer_weight: 24, flags: 26, num_filter_conditions: 28, filter_condition: 32,
    action: 40, context: 48, provider_context: 56,
});

/// `FWPS_CALLOUT0` to `FWPS_CALLOUT3`: they differ only in the types of the functions.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpsCallout0 {
    pub callout_key: RawGuid,
    pub flags: u32,
    pub classify_fn: *const c_void,
    pub notify_fn: *const c_void,
    pub flow_delete_fn: *const c_void,
}
layout!(FwpsCallout0, 48, 8, { callout_key: 0, flags: 16, classify_fn: 24, notify_fn: 32, flow_delete_fn: 40 });

/// `FWPS_CLASSIFY_OUT0`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FwpsClassifyOut0 {
    pub action_type: u32,
    pub out_context: u64,
    pub filter_id: u64,
    pub rights: u32,
    pub flags: u32,
    pub reserved: u32,
}
layout!(FwpsClassifyOut0, 40, 8, {
    action_type: 0, out_context: 8, filter_id: 16, rights: 24, flags: 28, reserved: 32,
});

/// `FWPS_INCOMING_VALUES0`. An `FWPS_INCOMING_VALUE0` is one `FWP_VALUE0`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpsIncomingValues0 {
    pub layer_id: u16,
    pub value_count: u32,
    pub incoming_value: *const FwpValue0,
}
layout!(FwpsIncomingValues0, 16, 8, { layer_id: 0, value_count: 4, incoming_value: 8 });

/// `FWPS_DISCARD_METADATA0`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FwpsDiscardMetadata0 {
    pub discard_module: u32,
    pub discard_reason: u32,
    pub filter_id: u64,
}
layout!(FwpsDiscardMetadata0, 16, 8, { discard_module: 0, discard_reason: 4, filter_id: 8 });

/// `FWPS_INBOUND_FRAGMENT_METADATA0`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FwpsInboundFragmentMetadata0 {
    pub fragment_identification: u32,
    pub fragment_offset: u16,
    pub fragment_length: u32,
}
layout!(FwpsInboundFragmentMetadata0, 12, 4, { fragment_identification: 0, fragment_offset: 4, fragment_length: 8 });

/// `IP_ADDRESS_PREFIX`: a `SOCKADDR_INET` and a prefix length.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct IpAddressPrefix {
    pub prefix: [u32; 7],
    pub prefix_length: u8,
}
layout!(IpAddressPrefix, 32, 4, { prefix: 0, prefix_length: 28 });

/// `FWPS_INCOMING_METADATA_VALUES0` of a driver compiled for Windows 8 or later. `current_metadata_values` says which
/// members hold something; an older driver simply knows fewer of the bits.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpsIncomingMetadataValues0 {
    pub current_metadata_values: u32,
    pub flags: u32,
    pub reserved: u64,
    pub discard_metadata: FwpsDiscardMetadata0,
    pub flow_handle: u64,
    pub ip_header_size: u32,
    pub transport_header_size: u32,
    pub process_path: *const FwpByteBlob,
    pub token: u64,
    pub process_id: u64,
    pub source_interface_index: u32,
    pub destination_interface_index: u32,
    pub compartment_id: u32,
    pub fragment_metadata: FwpsInboundFragmentMetadata0,
    pub path_mtu: u32,
    pub completion_handle: *mut c_void,
    pub transport_endpoint_handle: u64,
    pub remote_scope_id: u32,
    pub control_data: *const c_void,
    pub control_data_length: u32,
    pub packet_direction: u32,
    pub header_include_header: *mut c_void,
    pub header_include_header_length: u32,
    pub destination_prefix: IpAddressPrefix,
    pub frame_length: u16,
    pub parent_endpoint_handle: u64,
    pub icmp_id_and_sequence: u32,
    pub local_redirect_target_pid: u32,
    pub original_destination: *const c_void,
    pub redirect_records: *mut c_void,
    pub current_l2_metadata_values: u32,
    pub l2_flags: u32,
    pub ethernet_mac_header_size: u32,
    pub wi_fi_operation_mode: u32,
    pub v_switch_source_port_id: u32,
    pub v_switch_source_nic_index: u16,
    pub v_switch_destination_port_id: u32,
    pub v_switch_packet_context: *mut c_void,
    pub sub_process_tag: *mut c_void,
    pub reserved1: u64,
}
layout!(FwpsIncomingMetadataValues0, 280, 8, {
    current_metadata_values: 0, flags: 4, reserved: 8, discard_metadata: 16, flow_handle: 32, ip_header_size: 40,
    transport_header_size: 44, process_path: 48, token: 56, process_id: 64, source_interface_index: 72,
    destination_interface_index: 76, compartment_id: 80, fragment_metadata: 84, path_mtu: 96, completion_handle: 104,
    transport_endpoint_handle: 112, remote_scope_id: 120, control_data: 128, control_data_length: 136,
    packet_direction: 140, header_include_header: 144, header_include_header_length: 152, destination_prefix: 156,
    frame_length: 188, parent_endpoint_handle: 192, icmp_id_and_sequence: 200, local_redirect_target_pid: 204,
    original_destination: 208, redirect_records: 216, current_l2_metadata_values: 224, l2_flags: 228,
    ethernet_mac_header_size: 232, wi_fi_operation_mode: 236, v_switch_source_port_id: 240,
    v_switch_source_nic_index: 244, v_switch_destination_port_id: 248, v_switch_packet_context: 256,
    sub_process_tag: 264, reserved1: 272,
});

impl Default for FwpsIncomingMetadataValues0 {
    fn default() -> Self {
        // SAFETY: the structure is made of integers and raw pointers; all-zero bytes are a value of each (and mean
        // "nothing present" to a driver, since `current_metadata_values` is zero).
        unsafe { core::mem::zeroed() }
    }
}

/// `FWPS_STREAM_DATA_OFFSET0`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpsStreamDataOffset0 {
    pub net_buffer_list: *mut c_void,
    pub net_buffer: *mut c_void,
    pub mdl: *mut c_void,
    pub mdl_offset: u32,
    pub net_buffer_offset: u32,
    pub stream_data_offset: usize,
}
layout!(FwpsStreamDataOffset0, 40, 8, {
    net_buffer_list: 0, net_buffer: 8, mdl: 16, mdl_offset: 24, net_buffer_offset: 28, stream_data_offset: 32,
});

/// `FWPS_STREAM_DATA0`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpsStreamData0 {
    pub flags: u32,
    pub data_offset: FwpsStreamDataOffset0,
    pub data_length: usize,
    pub net_buffer_list_chain: *mut c_void,
}
layout!(FwpsStreamData0, 64, 8, { flags: 0, data_offset: 8, data_length: 48, net_buffer_list_chain: 56 });

/// `FWPS_STREAM_CALLOUT_IO_PACKET0`: the layer data of the stream layers.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpsStreamCalloutIoPacket0 {
    pub stream_data: *mut FwpsStreamData0,
    pub missed_bytes: usize,
    pub count_bytes_required: u32,
    pub count_bytes_enforced: usize,
    pub stream_action: u32,
}
layout!(FwpsStreamCalloutIoPacket0, 40, 8, {
    stream_data: 0, missed_bytes: 8, count_bytes_required: 16, count_bytes_enforced: 24, stream_action: 32,
});

/// `SOCKADDR_STORAGE`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct SockaddrStorage(pub [u8; 128]);
layout!(SockaddrStorage, 128, 8, {});

/// `FWPS_CONNECT_REQUEST0` (Windows 8 and later).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpsConnectRequest0 {
    pub local_address_and_port: SockaddrStorage,
    pub remote_address_and_port: SockaddrStorage,
    pub port_reservation_token: u64,
    pub local_redirect_target_pid: u32,
    pub previous_version: *mut FwpsConnectRequest0,
    pub modifier_filter_id: u64,
    pub local_redirect_handle: *mut c_void,
    pub local_redirect_context: *mut c_void,
    pub local_redirect_context_size: usize,
}
layout!(FwpsConnectRequest0, 312, 8, {
    local_address_and_port: 0, remote_address_and_port: 128, port_reservation_token: 256,
    local_redirect_target_pid: 264, previous_version: 272, modifier_filter_id: 280, local_redirect_handle: 288,
    local_redirect_context: 296, local_redirect_context_size: 304,
});

/// `FWPS_BIND_REQUEST0`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpsBindRequest0 {
    pub local_address_and_port: SockaddrStorage,
    pub port_reservation_token: u64,
    pub previous_version: *mut FwpsBindRequest0,
    pub modifier_filter_id: u64,
}
layout!(FwpsBindRequest0, 152, 8, {
    local_address_and_port: 0, port_reservation_token: 128, previous_version: 136, modifier_filter_id: 144,
});

/// `FWPS_TRANSPORT_SEND_PARAMS0` and 1; the last two members are of version 1 only.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpsTransportSendParams1 {
    pub remote_address: *const u8,
    pub remote_scope_id: u32,
    pub control_data: *const c_void,
    pub control_data_length: u32,
    pub header_include_header: *const u8,
    pub header_include_header_length: u32,
}
layout!(FwpsTransportSendParams1, 48, 8, {
    remote_address: 0, remote_scope_id: 8, control_data: 16, control_data_length: 24, header_include_header: 32,
    header_include_header_length: 40,
});

/// Layer data that a callout may change: what a connect or a bind asks for.
#[derive(Clone, Debug)]
pub enum RedirectRequest {
    /// At ALE_CONNECT_REDIRECT.
    Connect(FwpsConnectRequest0),
    /// At ALE_BIND_REDIRECT.
    Bind(FwpsBindRequest0),
}
