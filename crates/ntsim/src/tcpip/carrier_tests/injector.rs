//! A driver that injects.

use super::rig::*;
use crate::cpu;
use crate::machine::Machine;
use core::ffi::c_void;
use core::ptr::null_mut;
use nt_abi::fwp::consts;
use nt_abi::{Irql, NetBufferList, NtStatus, PacketBuffer};
use parking_lot::Mutex;
use shim::layer::Direction;
use std::net::IpAddr;
use std::sync::Arc;

/// An injection handle, and the statuses of what was injected with it.
#[derive(Debug)]
pub(crate) struct Injector {
    pub(super) handle: u64,
    /// The status of each injection that was completed.
    pub(crate) done: Arc<Mutex<Vec<NtStatus>>>,
}

/// What an injection owns until it is completed.
struct Underway {
    done: Arc<Mutex<Vec<NtStatus>>>,
    packet: Option<PacketBuffer>,
}

unsafe extern "win64" fn completed(context: *mut c_void, list: *mut NetBufferList, dispatch: u8) {
    // SAFETY: the context was made for this one call; the list is the injector's own.
    unsafe {
        let underway = Box::from_raw(context.cast::<Underway>());
        assert_eq!(dispatch != 0, cpu::irql() == Irql::DISPATCH);
        underway.done.lock().push(NtStatus((*list).status));
        if underway.packet.is_none() {
            import!(FwpsFreeCloneNetBufferList0(*mut NetBufferList, u32))(list, 0);
        }
    }
}

type Complete = unsafe extern "win64" fn(*mut c_void, *mut NetBufferList, u8);

impl Injector {
    /// A handle of a kind (`FWPS_INJECTION_TYPE_*`); `family` is AF_INET (2), AF_INET6 (23) or none (0).
    pub(super) fn new(rig: &Rig, family: u16, kind: u32) -> Arc<Self> {
        Self::on(&rig.machine, family, kind)
    }

    pub(crate) fn on(machine: &Arc<Machine>, family: u16, kind: u32) -> Arc<Self> {
        let create = import!(FwpsInjectionHandleCreate0(u16, u32, *mut u64) -> NtStatus);
        let mut handle = 0;
        // SAFETY: the handle is written to a variable of ours.
        let status = cpu::enter(machine, Irql::PASSIVE, || unsafe { create(family, kind, &raw mut handle) });
        assert_eq!(status.expect("no bugcheck"), NtStatus::SUCCESS);
        Arc::new(Self { handle, done: Arc::default() })
    }

    pub(super) fn network(rig: &Rig, v6: bool) -> Arc<Self> {
        Self::new(rig, if v6 { 23 } else { 2 }, consts::FWPS_INJECTION_TYPE_NETWORK)
    }

    pub(super) fn transport(rig: &Rig) -> Arc<Self> {
        Self::new(rig, 0, consts::FWPS_INJECTION_TYPE_TRANSPORT)
    }

    /// Destroys the handle, which waits for what was injected with it.
    pub(super) fn destroy(&self, rig: &Rig) {
        let destroy = import!(FwpsInjectionHandleDestroy0(u64) -> NtStatus);
        // SAFETY: the call takes numbers only.
        assert_eq!(rig.run(|| unsafe { destroy(self.handle) }), NtStatus::SUCCESS);
    }

    /// `FWPS_PACKET_INJECTION_STATE` of a list, and the context.
    pub(crate) fn state(&self, list: *mut NetBufferList) -> (u32, u64) {
        let query = import!(FwpsQueryPacketInjectionState0(u64, *const NetBufferList, *mut u64) -> u32);
        let mut context = 0;
        // SAFETY: a live list.
        (unsafe { query(self.handle, list, &raw mut context) }, context)
    }

    /// A clone of a list, to be injected.
    pub(super) fn clone_of(list: *mut NetBufferList) -> *mut NetBufferList {
        let clone = import!(
            FwpsAllocateCloneNetBufferList0(
                *mut NetBufferList,
                *mut c_void,
                *mut c_void,
                u32,
                *mut *mut NetBufferList,
            ) -> NtStatus
        );
        let mut out = null_mut();
        // SAFETY: a live list.
        assert_eq!(unsafe { clone(list, null_mut(), null_mut(), 0, &raw mut out) }, NtStatus::SUCCESS);
        out
    }

    /// Injects with `call`, which gets the list, the completion function and its context.
    pub(super) fn with(
        &self,
        list: *mut NetBufferList,
        packet: Option<PacketBuffer>,
        call: impl FnOnce(*mut NetBufferList, Complete, *mut c_void) -> NtStatus,
    ) -> NtStatus {
        let underway = Box::into_raw(Box::new(Underway { done: self.done.clone(), packet }));
        let status = call(list, completed, underway.cast());
        if !status.is_success() {
            // SAFETY: a failed injection is not completed, so the box is still ours.
            drop(unsafe { Box::from_raw(underway) });
        }
        status
    }

    fn send(&self, list: *mut NetBufferList, packet: Option<PacketBuffer>, context: u64) -> NtStatus {
        let send = import!(
            FwpsInjectNetworkSendAsync0(u64, u64, u32, u32, *mut NetBufferList, Complete, *mut c_void) -> NtStatus
        );
        // SAFETY: the list lives until it is completed.
        self.with(list, packet, |list, f, c| unsafe { send(self.handle, context, 0, 1, list, f, c) })
    }

    fn receive(&self, list: *mut NetBufferList, packet: Option<PacketBuffer>, context: u64) -> NtStatus {
        let receive = import!(
            FwpsInjectNetworkReceiveAsync0(
                u64,
                u64,
                u32,
                u32,
                u32,
                u32,
                *mut NetBufferList,
                Complete,
                *mut c_void,
            ) -> NtStatus
        );
        // SAFETY: the list lives until it is completed.
        self.with(list, packet, |list, f, c| unsafe { receive(self.handle, context, 0, 1, 7, 0, list, f, c) })
    }

    /// Sends data that begins at the transport header, from the transport layer.
    pub(super) fn send_transport(
        &self,
        list: *mut NetBufferList,
        packet: Option<PacketBuffer>,
        endpoint: u64,
        to: IpAddr,
    ) -> NtStatus {
        /// `FWPS_TRANSPORT_SEND_PARAMS1`.
        #[repr(C)]
        struct Parameters {
            remote: *const u8,
            scope: u32,
            control: *const c_void,
            control_length: u32,
            header: *const u8,
            header_length: u32,
        }
        let send = import!(
            FwpsInjectTransportSendAsync1(
                u64,
                u64,
                u64,
                u32,
                *const Parameters,
                u16,
                u32,
                *mut NetBufferList,
                Complete,
                *mut c_void,
            ) -> NtStatus
        );
        let mut address = [0; 16];
        let family = match to {
            IpAddr::V4(v4) => {
                address[..4].copy_from_slice(&v4.octets());
                2
            }
            IpAddr::V6(v6) => {
                address = v6.octets();
                23
            }
        };
        let parameters = Parameters {
            remote: address.as_ptr(),
            scope: 0,
            control: core::ptr::null(),
            control_length: 0,
            header: core::ptr::null(),
            header_length: 0,
        };
        // SAFETY: the list lives until it is completed, the parameters for the call.
        self.with(list, packet, |list, f, c| unsafe {
            send(self.handle, 0, endpoint, 0, &raw const parameters, family, 1, list, f, c)
        })
    }

    /// Receives data that begins at the IP header, at the transport layer.
    pub(super) fn receive_transport(&self, list: *mut NetBufferList, v6: bool) -> NtStatus {
        let receive = import!(
            FwpsInjectTransportReceiveAsync0(
                u64,
                u64,
                *mut c_void,
                u32,
                u16,
                u32,
                u32,
                u32,
                *mut NetBufferList,
                Complete,
                *mut c_void,
            ) -> NtStatus
        );
        let (handle, family) = (self.handle, if v6 { 23 } else { 2 });
        // SAFETY: the list lives until it is completed.
        self.with(list, None, |list, f, c| unsafe { receive(handle, 0, null_mut(), 0, family, 1, 7, 0, list, f, c) })
    }

    /// Sends a clone of a list at the network layer.
    pub(crate) fn send_clone(&self, list: *mut NetBufferList, context: u64) -> NtStatus {
        self.send(Self::clone_of(list), None, context)
    }

    /// Receives a clone of a list at the network layer.
    pub(crate) fn receive_clone(&self, list: *mut NetBufferList, context: u64) -> NtStatus {
        self.receive(Self::clone_of(list), None, context)
    }

    /// Sends or receives a packet of the driver's own at the network layer.
    pub(super) fn inject(&self, direction: Direction, bytes: &[u8]) -> NtStatus {
        let mut packet = PacketBuffer::copy_of(bytes);
        let list = packet.list(0, 0, bytes.len());
        match direction {
            Direction::Outbound => self.send(list, Some(packet), 0),
            Direction::Inbound => self.receive(list, Some(packet), 0),
        }
    }
}
