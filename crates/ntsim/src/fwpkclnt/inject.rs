//! Packet injection: handles, injected packets until their completion, and how a callout recognizes one.

use super::stack::Stack;
use crate::cpu;
use crate::ndis::data;
use crate::verifier::callback::{self, At};
use arrayvec::ArrayVec;
use core::ffi::c_void;
use filter_engine::error::{FWP_INJECT_HANDLE_CLOSING, FWP_INJECT_HANDLE_STALE};
use filter_engine::layers::LayerId;
use nt_abi::NetBufferList;
use nt_abi::NtStatus;
use nt_abi::fwp::consts;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// `FWPS_INJECT_COMPLETE0`.
pub(super) type CompletionFn = unsafe extern "win64" fn(*mut c_void, *mut NetBufferList, u8);

/// An injection handle.
#[derive(Debug)]
pub(super) struct InjectionHandle {
    /// `FWPS_INJECTION_TYPE_*`.
    types: u32,
    family: u16,
    closing: AtomicBool,
    pending: AtomicUsize,
}

/// The path of the stack into which something is injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectionPath {
    /// FwpsInjectNetworkSendAsync0: a packet that begins at its IP header, to be sent.
    NetworkSend {
        /// compartmentId.
        compartment: u32,
    },
    /// FwpsInjectNetworkReceiveAsync0: a packet that begins at its IP header, as if received.
    NetworkReceive {
        /// compartmentId.
        compartment: u32,
        /// interfaceIndex.
        interface: u32,
        /// subInterfaceIndex.
        sub_interface: u32,
    },
    /// FwpsInjectForwardAsync0: a packet to be forwarded.
    Forward {
        /// addressFamily.
        family: u16,
        /// compartmentId.
        compartment: u32,
        /// interfaceIndex.
        interface: u32,
    },
    /// FwpsInjectTransportSendAsync0 and 1: data that begins at the transport header.
    TransportSend {
        /// endpointHandle.
        endpoint: u64,
        /// addressFamily.
        family: u16,
        /// compartmentId.
        compartment: u32,
        /// sendArgs.remoteAddress.
        remote: Option<IpAddr>,
        /// sendArgs.remoteScopeId.
        scope: u32,
        /// sendArgs.headerIncludeHeader.
        header: Vec<u8>,
    },
    /// FwpsInjectTransportReceiveAsync0: a packet that begins at the IP header.
    TransportReceive {
        /// addressFamily.
        family: u16,
        /// compartmentId.
        compartment: u32,
        /// interfaceIndex.
        interface: u32,
        /// subInterfaceIndex.
        sub_interface: u32,
    },
    /// FwpsStreamInjectAsync0: data into a stream.
    Stream {
        /// flowId.
        flow: u64,
        /// calloutId: the callout that injects; only lighter sublayers see the data.
        callout_id: u32,
        /// layerId.
        layer: LayerId,
        /// `FWPS_STREAM_FLAG_*`.
        flags: u32,
        /// dataLength.
        length: usize,
    },
}

impl InjectionPath {
    /// The type a handle must have been created with.
    fn needs(&self) -> u32 {
        match self {
            Self::NetworkSend { .. } | Self::NetworkReceive { .. } => consts::FWPS_INJECTION_TYPE_NETWORK,
            Self::Forward { .. } => consts::FWPS_INJECTION_TYPE_FORWARD,
            Self::TransportSend { .. } | Self::TransportReceive { .. } => consts::FWPS_INJECTION_TYPE_TRANSPORT,
            Self::Stream { .. } => consts::FWPS_INJECTION_TYPE_STREAM,
        }
    }
}

/// Who injected a packet, oldest first: the mark of a list that carries the packet on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark(Vec<(u64, u64)>);

/// An injection in progress. Must be completed once; dropping it before that is a bug of the stack.
pub struct Injection {
    /// Where to.
    pub path: InjectionPath,
    /// The packet or data. The stack reads it and marks what it builds from it with [`Self::mark`].
    pub list: *mut NetBufferList,
    mark: Mark,
    handle: Arc<InjectionHandle>,
    completion: CompletionFn,
    context: *mut c_void,
    done: bool,
}

// SAFETY: until its completion the stack owns the list, and an asynchronous completion may come on any thread, so list
// and context may cross threads.
unsafe impl Send for Injection {}

impl fmt::Debug for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injection").field("path", &self.path).field("mark", &self.mark).finish_non_exhaustive()
    }
}

impl Injection {
    /// The address family the handle was created for: 0, AF_INET (2) or AF_INET6 (23).
    #[must_use]
    pub fn family(&self) -> u16 {
        self.handle.family
    }

    /// Who injected it: the mark for the list that carries it on through the layers ([`Injections::mark`]).
    #[must_use]
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// The used data of each injected packet: every `NET_BUFFER` of every list of the chain.
    #[must_use]
    pub fn packets(&self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut list = self.list;
        // SAFETY: a successful injection leaves the list with the stack until its completion
        // (FwpsInjectNetworkSendAsync0), so the lists, buffers and MDLs are live.
        unsafe {
            while let Some(here) = list.as_ref() {
                let mut buffer = here.first_net_buffer;
                while let Some(packet) = buffer.as_ref() {
                    packets.push(data::to_vec(packet));
                    buffer = packet.next;
                }
                list = here.next;
            }
        }
        packets
    }

    /// Returns the list to the driver, with its status.
    ///
    /// Must run on a simulated processor, at DISPATCH_LEVEL or below.
    pub fn complete(mut self: Box<Self>, status: NtStatus) {
        self.done = true;
        let (list, completion, context) = (self.list, self.completion, self.context);
        let one_by_one = matches!(self.path, InjectionPath::Stream { .. });
        // Only the handle is needed from here; it is kept as a raw pointer because an abandoned stack drops nothing.
        let handle: *const InjectionHandle = Arc::into_raw(self.handle.clone());
        drop(self);
        let at = At("the completion function of an injection", completion as usize as u64);
        let dispatch = u8::from(cpu::irql() == nt_abi::Irql::DISPATCH);
        // SAFETY: the lists are live until this completion, and the driver's from then on. The function is the driver's
        // FWPS_INJECT_COMPLETE0; the driver cannot unload before it destroys the injection handle, which waits for
        // `pending`.
        unsafe {
            let mut each = list;
            while let Some(here) = each.as_mut() {
                let next = here.next;
                here.status = status.0;
                if one_by_one {
                    // "once for each NET_BUFFER_LIST in the chain" (FwpsStreamInjectAsync0 documentation)
                    here.next = core::ptr::null_mut();
                    callback::call(&at, "completionFn", || completion(context, each, dispatch));
                }
                each = next;
            }
            // A stream's end without data has no list and no completion (same page).
            if !one_by_one {
                callback::call(&at, "completionFn", || completion(context, list, dispatch));
            }
        }
        // SAFETY: from `into_raw` above; taken back once.
        unsafe { Arc::from_raw(handle) }.pending.fetch_sub(1, Ordering::AcqRel);
    }

    /// Undoes an injection that was not accepted: the completion function is not called.
    fn give_up(mut self) {
        self.done = true;
        self.handle.pending.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        if !self.done {
            tracing::error!(path = ?self.path, "an injected packet was dropped without being completed");
        }
    }
}

/// The arguments of an injection function.
pub(super) struct InjectionRequest {
    pub(super) handle: u64,
    pub(super) injection_context: u64,
    pub(super) path: InjectionPath,
    pub(super) list: *mut NetBufferList,
    pub(super) completion: Option<CompletionFn>,
    pub(super) context: *mut c_void,
}

/// `FWPS_PACKET_INJECTION_STATE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of FWPS_PACKET_INJECTION_STATE")]
#[repr(u32)]
pub enum InjectionState {
    NotInjected = consts::FWPS_PACKET_NOT_INJECTED,
    InjectedBySelf = consts::FWPS_PACKET_INJECTED_BY_SELF,
    InjectedByOther = consts::FWPS_PACKET_INJECTED_BY_OTHER,
    PreviouslyInjectedBySelf = consts::FWPS_PACKET_PREVIOUSLY_INJECTED_BY_SELF,
}

/// The injection handles of a machine, and the marks of injected packets.
#[derive(Debug)]
pub struct Injections {
    handles: super::handle::Handles<InjectionHandle>,
    /// By the address of the list.
    marks: RwLock<HashMap<usize, Mark>>,
    marked: AtomicUsize,
}

impl Default for Injections {
    fn default() -> Self {
        Self {
            handles: super::handle::Handles::new(0xFFFF_E200_0000_1000),
            marks: RwLock::default(),
            marked: AtomicUsize::new(0),
        }
    }
}

impl Injections {
    /// Marks a list as carrying an injected packet; the mark stays until [`Self::unmark`].
    pub fn mark(&self, list: *const NetBufferList, mark: &Mark) {
        if self.marks.write().insert(list as usize, mark.clone()).is_none() {
            self.marked.fetch_add(1, Ordering::Release);
        }
    }

    /// Removes a mark, when the list is finished or reused for another packet.
    pub fn unmark(&self, list: *const NetBufferList) {
        if self.marked.load(Ordering::Acquire) != 0 && self.marks.write().remove(&(list as usize)).is_some() {
            self.marked.fetch_sub(1, Ordering::Release);
        }
    }

    /// The mark of a list or, for a clone, of its nearest marked ancestor.
    ///
    /// # Safety
    /// `list` is null or live.
    unsafe fn mark_of(&self, list: *const NetBufferList) -> Option<Mark> {
        if self.marked.load(Ordering::Acquire) == 0 {
            return None;
        }
        // A clone keeps its parent alive, so the walk ends at a list that is not a clone. The driver's lists are read
        // before the lock is taken: a fault abandons the stack.
        let mut lists: ArrayVec<usize, 16> = ArrayVec::new();
        let mut next = list;
        // SAFETY: the caller's promise.
        while let Some(here) = unsafe { next.as_ref() } {
            if lists.try_push(next.addr()).is_err() {
                break;
            }
            next = here.parent_net_buffer_list;
        }
        let marks = self.marks.read();
        lists.iter().find_map(|list| marks.get(list)).cloned()
    }

    pub(super) fn create(&self, family: u16, types: u32) -> Result<u64, NtStatus> {
        const KNOWN: u32 = consts::FWPS_INJECTION_TYPE_STREAM
            | consts::FWPS_INJECTION_TYPE_TRANSPORT
            | consts::FWPS_INJECTION_TYPE_NETWORK
            | consts::FWPS_INJECTION_TYPE_FORWARD
            | consts::FWPS_INJECTION_TYPE_L2
            | consts::FWPS_INJECTION_TYPE_VSWITCH_TRANSPORT;
        // Zero means transport, stream and forward (FwpsInjectionHandleCreate0 documentation).
        const DEFAULT: u32 = consts::FWPS_INJECTION_TYPE_STREAM
            | consts::FWPS_INJECTION_TYPE_TRANSPORT
            | consts::FWPS_INJECTION_TYPE_FORWARD;
        use consts::{AF_INET, AF_INET6, AF_UNSPEC};
        if types & !KNOWN != 0 || !matches!(family, AF_UNSPEC | AF_INET | AF_INET6) {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        // The network layer needs a family.
        if types & consts::FWPS_INJECTION_TYPE_NETWORK != 0 && family == AF_UNSPEC {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let types = if types == 0 { DEFAULT } else { types };
        let (closing, pending) = (AtomicBool::new(false), AtomicUsize::new(0));
        Ok(self.handles.add(InjectionHandle { types, family, closing, pending }))
    }

    /// Destroys a handle, after every injection with it has been completed.
    pub(super) fn destroy(&self, handle: u64) -> NtStatus {
        let Some(found) = self.handles.get(handle) else { return NtStatus::INVALID_HANDLE };
        if found.closing.swap(true, Ordering::AcqRel) {
            return NtStatus::INVALID_HANDLE;
        }
        while found.pending.load(Ordering::Acquire) != 0 {
            cpu::leave_if_stopped();
            std::thread::sleep(Duration::from_micros(100));
        }
        self.handles.remove(handle);
        NtStatus::SUCCESS
    }

    /// Injects.
    ///
    /// # Safety
    /// The list is null or live and owned by the caller, who gives it up on success; the completion is a function of
    /// its type.
    pub(super) unsafe fn inject(&self, stack: &dyn Stack, request: InjectionRequest) -> NtStatus {
        let InjectionRequest { handle, injection_context, path, list, completion, context } = request;
        let Some(completion) = completion else { return NtStatus::INVALID_PARAMETER };
        if list.is_null() && !matches!(path, InjectionPath::Stream { .. }) {
            return NtStatus::INVALID_PARAMETER;
        }
        let Some(found) = self.handles.get(handle) else { return FWP_INJECT_HANDLE_STALE };
        if found.types & path.needs() == 0 {
            return FWP_INJECT_HANDLE_STALE;
        }
        // Counted before `closing` is read: either the destruction sees this injection, or this sees the destruction.
        found.pending.fetch_add(1, Ordering::AcqRel);
        if found.closing.load(Ordering::Acquire) {
            found.pending.fetch_sub(1, Ordering::AcqRel);
            return FWP_INJECT_HANDLE_CLOSING;
        }
        // SAFETY: the caller's promise.
        let mut mark = unsafe { self.mark_of(list) }.unwrap_or_default();
        mark.0.push((handle, injection_context));
        let injection = Box::new(Injection { path, list, mark, handle: found, completion, context, done: false });
        match stack.inject(injection) {
            Ok(()) => NtStatus::SUCCESS,
            Err((status, injection)) => {
                injection.give_up();
                status
            }
        }
    }

    /// FwpsQueryPacketInjectionState0, with the context of the injection through this handle.
    ///
    /// # Safety
    /// `list` is null or live.
    pub(super) unsafe fn state(&self, handle: u64, list: *const NetBufferList) -> (InjectionState, u64) {
        // SAFETY: the caller's promise.
        let Some(Mark(by)) = (unsafe { self.mark_of(list) }) else { return (InjectionState::NotInjected, 0) };
        let mine = by.iter().rev().find(|(by, _)| *by == handle).map(|(_, context)| *context);
        match (by.last(), mine) {
            (Some((last, context)), _) if *last == handle => (InjectionState::InjectedBySelf, *context),
            (_, Some(context)) => (InjectionState::PreviouslyInjectedBySelf, context),
            _ => (InjectionState::InjectedByOther, 0),
        }
    }

    /// Whether a list carries an injected packet.
    ///
    /// # Safety
    /// `list` is null or live.
    pub(super) unsafe fn is_injected(&self, list: *const NetBufferList) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.mark_of(list) }.is_some()
    }

    /// The number of handles.
    pub(crate) fn handle_count(&self) -> usize {
        self.handles.len()
    }
}
