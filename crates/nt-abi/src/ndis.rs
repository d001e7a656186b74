//! `NET_BUFFER_LIST`, `NET_BUFFER` and `MDL` as drivers compiled for x64 see them.
//!
//! Layouts: nbl.h, ndis.h and wdm.h of WDK 14393 to 22621, which agree up to the number of slots in
//! `NetBufferListInfo` (26 up to NDIS 6.70, 27 since; a driver never allocates the structure itself).

#![allow(missing_docs, reason = "the members are those of the headers, in their order")]

use core::ffi::c_void;
use core::mem::{offset_of, size_of};
use core::ptr::null_mut;

/// `NET_BUFFER_LIST`: one or more packets that travel together.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct NetBufferList {
    pub next: *mut NetBufferList,
    pub first_net_buffer: *mut NetBuffer,
    pub context: *mut c_void,
    pub parent_net_buffer_list: *mut NetBufferList,
    pub ndis_pool_handle: *mut c_void,
    pub reserved_40: u64,
    pub ndis_reserved: [*mut c_void; 2],
    pub protocol_reserved: [*mut c_void; 4],
    pub miniport_reserved: [*mut c_void; 2],
    pub scratch: *mut c_void,
    pub source_handle: *mut c_void,
    pub nbl_flags: u32,
    pub child_ref_count: i32,
    pub flags: u32,
    pub status: i32,
    pub net_buffer_list_info: [*mut c_void; 27],
}

/// `NET_BUFFER`: one packet, as a window (`data_offset`, `data_length`) over a chain of MDLs.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct NetBuffer {
    pub next: *mut NetBuffer,
    pub current_mdl: *mut Mdl,
    pub current_mdl_offset: u32,
    /// `stDataLength` overlays `DataLength`; its upper half is zero for every packet that fits in memory here.
    pub data_length: u64,
    pub mdl_chain: *mut Mdl,
    pub data_offset: u32,
    pub reserved_44: u32,
    pub checksum_bias: u16,
    pub reserved: u16,
    pub ndis_pool_handle: *mut c_void,
    pub ndis_reserved: [*mut c_void; 2],
    pub protocol_reserved: [*mut c_void; 6],
    pub miniport_reserved: [*mut c_void; 4],
    pub data_physical_address: i64,
    pub shared_memory_info: *mut c_void,
}

/// `MDL`: the description of a piece of memory.
#[derive(Debug)]
#[repr(C)]
pub struct Mdl {
    pub next: *mut Mdl,
    pub size: i16,
    pub mdl_flags: i16,
    pub process: *mut c_void,
    pub mapped_system_va: *mut c_void,
    pub start_va: *mut c_void,
    pub byte_count: u32,
    pub byte_offset: u32,
}

/// `MDL_MAPPED_TO_SYSTEM_VA`: `mapped_system_va` is valid.
pub const MDL_MAPPED_TO_SYSTEM_VA: i16 = 0x0001;
/// `MDL_SOURCE_IS_NONPAGED_POOL`: the memory is always mapped, `mapped_system_va` is valid.
pub const MDL_SOURCE_IS_NONPAGED_POOL: i16 = 0x0004;

const _: () = {
    assert!(size_of::<NetBufferList>() == 368);
    assert!(offset_of!(NetBufferList, next) == 0);
    assert!(offset_of!(NetBufferList, first_net_buffer) == 8);
    assert!(offset_of!(NetBufferList, context) == 16);
    assert!(offset_of!(NetBufferList, parent_net_buffer_list) == 24);
    assert!(offset_of!(NetBufferList, ndis_pool_handle) == 32);
    assert!(offset_of!(NetBufferList, ndis_reserved) == 48);
    assert!(offset_of!(NetBufferList, protocol_reserved) == 64);
    assert!(offset_of!(NetBufferList, miniport_reserved) == 96);
    assert!(offset_of!(NetBufferList, scratch) == 112);
    assert!(offset_of!(NetBufferList, source_handle) == 120);
    assert!(offset_of!(NetBufferList, nbl_flags) == 128);
    assert!(offset_of!(NetBufferList, child_ref_count) == 132);
    assert!(offset_of!(NetBufferList, flags) == 136);
    assert!(offset_of!(NetBufferList, status) == 140);
    assert!(offset_of!(NetBufferList, net_buffer_list_info) == 144);

    assert!(size_of::<NetBuffer>() == 176);
    assert!(offset_of!(NetBuffer, current_mdl) == 8);
    assert!(offset_of!(NetBuffer, current_mdl_offset) == 16);
    assert!(offset_of!(NetBuffer, data_length) == 24);
    assert!(offset_of!(NetBuffer, mdl_chain) == 32);
    assert!(offset_of!(NetBuffer, data_offset) == 40);
    assert!(offset_of!(NetBuffer, checksum_bias) == 48);
    assert!(offset_of!(NetBuffer, ndis_pool_handle) == 56);
    assert!(offset_of!(NetBuffer, ndis_reserved) == 64);
    assert!(offset_of!(NetBuffer, protocol_reserved) == 80);
    assert!(offset_of!(NetBuffer, miniport_reserved) == 128);
    assert!(offset_of!(NetBuffer, data_physical_address) == 160);
    assert!(offset_of!(NetBuffer, shared_memory_info) == 168);

    assert!(size_of::<Mdl>() == 48);
    assert!(offset_of!(Mdl, size) == 8);
    assert!(offset_of!(Mdl, mdl_flags) == 10);
    assert!(offset_of!(Mdl, process) == 16);
    assert!(offset_of!(Mdl, mapped_system_va) == 24);
    assert!(offset_of!(Mdl, start_va) == 32);
    assert!(offset_of!(Mdl, byte_count) == 40);
    assert!(offset_of!(Mdl, byte_offset) == 44);
};

impl NetBufferList {
    /// A list without packets.
    pub const EMPTY: Self = Self {
        next: null_mut(),
        first_net_buffer: null_mut(),
        context: null_mut(),
        parent_net_buffer_list: null_mut(),
        ndis_pool_handle: null_mut(),
        reserved_40: 0,
        ndis_reserved: [null_mut(); 2],
        protocol_reserved: [null_mut(); 4],
        miniport_reserved: [null_mut(); 2],
        scratch: null_mut(),
        source_handle: null_mut(),
        nbl_flags: 0,
        child_ref_count: 0,
        flags: 0,
        status: 0,
        net_buffer_list_info: [null_mut(); 27],
    };
}

impl NetBuffer {
    /// An empty packet.
    pub const EMPTY: Self = Self {
        next: null_mut(),
        current_mdl: null_mut(),
        current_mdl_offset: 0,
        data_length: 0,
        mdl_chain: null_mut(),
        data_offset: 0,
        reserved_44: 0,
        checksum_bias: 0,
        reserved: 0,
        ndis_pool_handle: null_mut(),
        ndis_reserved: [null_mut(); 2],
        protocol_reserved: [null_mut(); 6],
        miniport_reserved: [null_mut(); 4],
        data_physical_address: 0,
        shared_memory_info: null_mut(),
    };
}

impl Mdl {
    /// An empty description.
    pub const EMPTY: Self = Self {
        next: null_mut(),
        size: size_of::<Self>() as i16,
        mdl_flags: 0,
        process: null_mut(),
        mapped_system_va: null_mut(),
        start_va: null_mut(),
        byte_count: 0,
        byte_offset: 0,
    };

    /// Describes `len` bytes of memory that stays mapped, at `va`.
    pub fn describe(&mut self, va: *mut u8, len: u32) {
        const PAGE: usize = 4096;
        let offset = va.addr() & (PAGE - 1);
        self.mdl_flags = MDL_SOURCE_IS_NONPAGED_POOL;
        self.mapped_system_va = va.cast();
        self.start_va = va.wrapping_sub(offset).cast();
        self.byte_offset = offset as u32;
        self.byte_count = len;
    }
}
