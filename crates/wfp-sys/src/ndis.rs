//! Network buffers, by hand: bindgen cannot follow their unnamed unions in every header tree.
//!
//! A packet is a [`NET_BUFFER_LIST`], whose [`NET_BUFFER`]s each hold one packet's bytes in a chain of MDLs. Windows
//! allocates them; a driver reads them and must not rely on their size: the list's array of information slots grows
//! with each NDIS version. Source of the offsets: nbl.h and nblinfo.h of the WDK 10.0.14393 to 10.0.22621.
#![allow(non_camel_case_types, non_snake_case, reason = "the names are those of C")]

use wdk_sys::{LARGE_INTEGER, LONG, NTSTATUS, PMDL, PVOID, ULONG, USHORT};

/// Pointer to a network buffer.
pub type PNET_BUFFER = *mut NET_BUFFER;
/// Pointer to a network buffer list.
pub type PNET_BUFFER_LIST = *mut NET_BUFFER_LIST;

/// One packet, or a piece of a stream: bytes in a chain of MDLs.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct NET_BUFFER {
    /// Next buffer of the same list, or null.
    pub Next: PNET_BUFFER,
    /// The MDL that holds the first byte.
    pub CurrentMdl: PMDL,
    /// Offset of the first byte in `CurrentMdl`.
    pub CurrentMdlOffset: ULONG,
    /// Number of bytes. Windows declares a union with a pointer-sized member here; the value fits in its lower half.
    pub DataLength: usize,
    /// First MDL of the chain, before any header that was stripped.
    pub MdlChain: PMDL,
    /// Offset of the first byte from the start of `MdlChain`.
    pub DataOffset: ULONG,
    padding: ULONG,
    /// Used by NDIS.
    pub ChecksumBias: USHORT,
    /// Used by NDIS.
    pub Reserved: USHORT,
    /// Pool the buffer came from.
    pub NdisPoolHandle: PVOID,
    /// Used by NDIS.
    pub NdisReserved: [PVOID; 2],
    /// Scratch space of the protocol driver.
    pub ProtocolReserved: [PVOID; 6],
    /// Scratch space of the miniport driver.
    pub MiniportReserved: [PVOID; 4],
    /// Physical address of the data, where known.
    pub DataPhysicalAddress: LARGE_INTEGER,
    /// Shared memory or scatter-gather list of the buffer.
    pub SharedMemoryInfo: PVOID,
}

/// A packet, or a chain of packets that share their out-of-band information.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct NET_BUFFER_LIST {
    /// Next list of a chain, or null.
    pub Next: PNET_BUFFER_LIST,
    /// First buffer of this list.
    pub FirstNetBuffer: PNET_BUFFER,
    /// Context blocks of drivers on the path.
    pub Context: PVOID,
    /// The list this one was cloned from.
    pub ParentNetBufferList: PNET_BUFFER_LIST,
    /// Pool the list came from.
    pub NdisPoolHandle: PVOID,
    padding: PVOID,
    /// Used by NDIS.
    pub NdisReserved: [PVOID; 2],
    /// Scratch space of the protocol driver.
    pub ProtocolReserved: [PVOID; 4],
    /// Scratch space of the miniport driver.
    pub MiniportReserved: [PVOID; 2],
    /// Scratch space of whoever owns the list.
    pub Scratch: PVOID,
    /// Who originated the list.
    pub SourceHandle: PVOID,
    /// Flags of NDIS.
    pub NblFlags: ULONG,
    /// Clones that still refer to this list.
    pub ChildRefCount: LONG,
    /// Flags.
    pub Flags: ULONG,
    /// Result of the send or receive.
    pub Status: NTSTATUS,
    /// First of the slots of out-of-band information; how many follow depends on the NDIS version.
    pub NetBufferListInfo: [PVOID; 0],
}
