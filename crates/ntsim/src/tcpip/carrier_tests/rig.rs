//! A machine with a carrier, and a driver made of closures that calls the exports of fwpkclnt.sys as a loaded driver
//! does.

pub(crate) use super::injector::Injector;
use crate::cpu;
use crate::export::{Entry, all};
use crate::machine::Machine;
use crate::tcpip::carrier::{Around, Carrier, Wire};
use crate::tcpip::verdicts::Verdicts;
use core::ffi::c_void;
use core::ptr::null_mut;
use etherparse::{PacketBuilder, TcpHeader};
use filter_engine::bfe::{Callout, DisplayData, Filter, FilterContext, Session, SessionOptions, Sublayer};
use filter_engine::layers::LayerId;
use nt_abi::Irql;
use nt_abi::NtStatus;
use nt_abi::fwp::value::{Read, Value};
use nt_abi::fwp::{
    FwpsCallout0, FwpsClassifyOut0, FwpsFilter0, FwpsIncomingMetadataValues0, FwpsIncomingValues0, RawGuid, consts,
};
use nt_abi::{NetBufferList, PacketBuffer};
use shim::flow::NoEndpoints;
use shim::layer::Direction;
use shim::stack::{Config, Decision};
use sluice_host::{Guid, Weight};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// An export of fwpkclnt.sys by its name, with the type the header gives it.
macro_rules! import {
    ($name:ident($($argument:ty),* $(,)?) $(-> $result:ty)?) => {
        $crate::tcpip::carrier_tests::rig::typed::<unsafe extern "win64" fn($($argument),*) $(-> $result)?>(
            stringify!($name),
        )
    };
}
pub(crate) use import;

/// An export as a function of type `T`, which must be that of the header.
pub(crate) fn typed<T: Copy>(name: &str) -> T {
    let export = all().find(|export| export.name == name).unwrap_or_else(|| panic!("{name} is not exported"));
    let Entry::Function(function) = export.entry else { panic!("{name} is a variable") };
    assert_eq!(size_of::<T>(), size_of_val(&function));
    // SAFETY: a function pointer of the same size; the caller passes the export's signature from the header.
    unsafe { core::mem::transmute_copy(&function) }
}

/// One classify call.
pub(crate) struct Call<'a> {
    pub(crate) metadata: &'a FwpsIncomingMetadataValues0,
    pub(crate) layer_data: *mut c_void,
    /// `FWP_CONDITION_FLAG_*`.
    pub(super) flags: u32,
    /// `FWP_CONDITION_REAUTHORIZE_REASON_*`.
    pub(super) reason: u32,
    /// `classifyContext`.
    pub(crate) context: *const c_void,
    /// The ports, the local one first.
    pub(super) ports: (u32, u32),
    pub(crate) out: &'a mut FwpsClassifyOut0,
}

impl Call<'_> {
    pub(crate) fn list(&self) -> *mut NetBufferList {
        self.layer_data.cast()
    }

    pub(crate) fn permit(&mut self) {
        self.out.action_type = consts::FWP_ACTION_PERMIT;
    }

    pub(super) fn block(&mut self) {
        self.out.action_type = consts::FWP_ACTION_BLOCK;
        self.out.rights &= !consts::FWPS_RIGHT_ACTION_WRITE;
    }

    /// Blocks and absorbs.
    pub(crate) fn absorb(&mut self) {
        self.block();
        self.out.flags |= consts::FWPS_CLASSIFY_OUT_FLAG_ABSORB;
    }
}

type Play = Box<dyn Fn(&mut Call<'_>) + Send + Sync>;

unsafe extern "win64" fn classify(
    fixed: *const FwpsIncomingValues0,
    metadata: *const FwpsIncomingMetadataValues0,
    layer_data: *mut c_void,
    context: *const c_void,
    filter: *const FwpsFilter0,
    _flow_context: u64,
    out: *mut FwpsClassifyOut0,
) {
    // SAFETY: the engine passes valid structures; the filter's context is the address of a closure that the driver
    // keeps.
    unsafe {
        let play = &*((*filter).context as *const Play);
        let (flags, reason) = (unsigned(&*fixed, "FLAGS"), unsigned(&*fixed, "REAUTHORIZE_REASON"));
        let ports = (unsigned(&*fixed, "IP_LOCAL_PORT"), unsigned(&*fixed, "IP_REMOTE_PORT"));
        play(&mut Call { metadata: &*metadata, layer_data, flags, reason, context, ports, out: &mut *out });
    }
}

/// A value of a classify call, by its field's name; 0 when the layer has no such field.
///
/// # Safety
/// `fixed` is as the engine passes it.
unsafe fn unsigned(fixed: &FwpsIncomingValues0, name: &str) -> u32 {
    let layer = cpu::with_machine(|machine| machine.wfp.engine.layers().get(LayerId(fixed.layer_id))).expect("a layer");
    let Some(index) = layer.field_index(name) else { return 0 };
    // SAFETY: the caller's promise; `Value` is a transparent wrapper of what the array holds.
    let value = unsafe { &*fixed.incoming_value.cast::<Value<'_>>().add(index) };
    match value.read() {
        Read::Unsigned(_, value) => value as u32,
        _ => 0,
    }
}

unsafe extern "win64" fn notify(_: u32, _: *const RawGuid, _: *mut FwpsFilter0) -> i32 {
    0
}

/// Where packets went, in order.
#[derive(Debug, Default)]
pub(super) struct Sides {
    pub(super) local: Vec<Vec<u8>>,
    pub(super) remote: Vec<Vec<u8>>,
}

impl Wire for Sides {
    fn deliver(&mut self, packet: &[u8]) {
        self.local.push(packet.to_vec());
    }
    fn transmit(&mut self, packet: &[u8]) {
        self.remote.push(packet.to_vec());
    }
}

/// A driver whose callouts are closures.
pub(crate) struct Driver {
    machine: Arc<Machine>,
    session: Session,
    next_key: u128,
    next_weight: u16,
    #[expect(clippy::vec_box, reason = "a filter's context is the address of one")]
    plays: Vec<Box<Play>>,
}

impl Driver {
    pub(crate) fn new(machine: &Arc<Machine>) -> Self {
        let session = Session::open(&machine.wfp.engine, SessionOptions::default());
        Self { machine: machine.clone(), session, next_key: 1, next_weight: 1000, plays: Vec::new() }
    }

    fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        cpu::enter(&self.machine, Irql::PASSIVE, f).expect("no bugcheck")
    }

    fn key(&mut self) -> Guid {
        self.next_key += 1;
        Guid(self.next_key << 64)
    }

    /// Calls `play` for everything at a layer, in a sublayer lighter than those before; returns the callout's id.
    pub(crate) fn callout(&mut self, layer: LayerId, play: impl Fn(&mut Call<'_>) + Send + Sync + 'static) -> u32 {
        let (callout, sublayer) = (self.key(), self.key());
        self.next_weight -= 1;
        let raw = FwpsCallout0 {
            callout_key: callout.into(),
            flags: 0,
            classify_fn: classify as *const c_void,
            notify_fn: notify as *const c_void,
            flow_delete_fn: core::ptr::null(),
        };
        let register = import!(FwpsCalloutRegister1(*mut c_void, *const FwpsCallout0, *mut u32) -> NtStatus);
        let mut device = 0u64;
        let mut id = 0;
        // SAFETY: all pointers are valid; the callout's functions live as long as the process.
        let status = self.run(|| unsafe { register((&raw mut device).cast(), &raw const raw, &raw mut id) });
        assert_eq!(status, NtStatus::SUCCESS);
        self.plays.push(Box::new(Box::new(play)));
        let context = FilterContext::Raw(std::ptr::from_ref::<Play>(self.plays.last().expect("just pushed")) as u64);
        let key = self.machine.wfp.engine.layers().get(layer).expect("a layer of the table").key;
        let display = || DisplayData::new("test", "");
        let session = &self.session;
        cpu::enter(&self.machine, Irql::PASSIVE, || {
            let of = |key| Callout { key, display: display(), flags: 0, provider: None, data: Vec::new(), layer: key };
            session.add_callout(Callout { key: callout, ..of(key) }).expect("a good callout");
            let weight = self.next_weight;
            let data = Vec::new();
            let new = Sublayer { key: sublayer, display: display(), flags: 0, provider: None, data, weight };
            session.add_sublayer(new).expect("a good sublayer");
            let filter = Filter {
                sublayer,
                action: consts::FWP_ACTION_CALLOUT_UNKNOWN,
                action_key: callout,
                context,
                ..everything(key)
            };
            session.add_filter(filter).expect("a good filter")
        })
        .expect("no bugcheck");
        id
    }
}

/// A machine on a network, with callouts.
pub(super) struct Rig {
    pub(super) machine: Arc<Machine>,
    pub(super) carrier: Carrier,
    pub(super) sides: Sides,
    pub(super) verdicts: Verdicts,
    pub(super) now: Duration,
    pub(super) woken: Arc<AtomicU64>,
    driver: Driver,
}

impl Rig {
    pub(super) fn new() -> Self {
        let machine = Machine::new();
        let woken = Arc::new(AtomicU64::new(0));
        let wake = {
            let woken = woken.clone();
            move || {
                woken.fetch_add(1, Ordering::Relaxed);
            }
        };
        Self {
            carrier: Carrier::new(&machine, Config { pick_up: false }, wake),
            driver: Driver::new(&machine),
            machine,
            sides: Sides::default(),
            verdicts: Verdicts::new(None),
            now: Duration::ZERO,
            woken,
        }
    }

    /// Runs on a simulated processor.
    pub(super) fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        cpu::enter(&self.machine, Irql::PASSIVE, f).expect("no bugcheck")
    }

    /// Calls `play` for everything at a layer, in a sublayer lighter than those before; returns the callout's id.
    pub(super) fn callout(&mut self, layer: LayerId, play: impl Fn(&mut Call<'_>) + Send + Sync + 'static) -> u32 {
        self.driver.callout(layer, play)
    }

    /// Blocks everything at a layer.
    pub(super) fn block(&mut self, layer: LayerId) -> u64 {
        let key = self.machine.wfp.engine.layers().get(layer).expect("a layer of the table").key;
        let filter = Filter { action: consts::FWP_ACTION_BLOCK, ..everything(key) };
        self.run(|| self.driver.session.add_filter(filter)).expect("a good filter")
    }

    /// Passes a packet, without serving requests.
    pub(super) fn pass(&mut self, direction: Direction, packet: &[u8]) -> Decision {
        let mut buffer = PacketBuffer::copy_of(packet);
        let Self { carrier, sides, verdicts, now, .. } = self;
        let mut around = Around { endpoints: &mut NoEndpoints, wire: sides, verdicts, now: *now };
        carrier.carry(&mut buffer, direction, &mut around).expect("no bugcheck")
    }

    /// Serves all requests of drivers.
    pub(super) fn serve(&mut self) {
        let Self { carrier, sides, verdicts, now, .. } = self;
        let mut around = Around { endpoints: &mut NoEndpoints, wire: sides, verdicts, now: *now };
        assert!(!carrier.serve(1000, &mut around).expect("no bugcheck"), "it comes to an end");
    }

    /// Runs the timers.
    pub(super) fn tick(&mut self) {
        let Self { carrier, sides, verdicts, now, .. } = self;
        let mut around = Around { endpoints: &mut NoEndpoints, wire: sides, verdicts, now: *now };
        carrier.tick(&mut around).expect("no bugcheck");
    }

    pub(super) fn out(&mut self, packet: &[u8]) {
        self.pass(Direction::Outbound, packet);
        self.serve();
    }

    pub(super) fn inward(&mut self, packet: &[u8]) {
        self.pass(Direction::Inbound, packet);
        self.serve();
    }

    /// Takes the machine off the network; returns what went where.
    pub(super) fn finish(self) -> (Sides, Arc<Machine>) {
        self.carrier.finish().expect("no bugcheck");
        (self.sides, self.machine)
    }
}

fn everything(layer: Guid) -> Filter {
    Filter {
        key: Guid(0),
        display: DisplayData::new("test", ""),
        flags: 0,
        provider: None,
        data: Vec::new(),
        layer,
        sublayer: filter_engine::names::SUBLAYER_UNIVERSAL,
        weight: Weight::Auto,
        conditions: Vec::new(),
        action: consts::FWP_ACTION_BLOCK,
        action_key: Guid(0),
        context: FilterContext::Raw(0),
    }
}

/// Retreats a list's data start by `by` bytes, calls `f`, and advances it again.
pub(crate) fn retreated<R>(list: *mut NetBufferList, by: u32, f: impl FnOnce() -> R) -> R {
    let retreat = import!(NdisRetreatNetBufferDataStart(*mut c_void, u32, u32, *mut c_void) -> NtStatus);
    let advance = import!(NdisAdvanceNetBufferDataStart(*mut c_void, u32, u8, *mut c_void));
    // SAFETY: a live list.
    unsafe {
        let buffer = (*list).first_net_buffer.cast();
        assert_eq!(retreat(buffer, by, 0, null_mut()), NtStatus::SUCCESS);
        let result = f();
        advance(buffer, by, 0, null_mut());
        result
    }
}

const CLIENT4: [u8; 4] = [10, 77, 0, 2];
const SERVER4: [u8; 4] = [203, 0, 113, 10];
const CLIENT6: [u8; 16] = [0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const SERVER6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];

fn ip(v6: bool, direction: Direction) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    match (v6, direction) {
        (false, Direction::Outbound) => PacketBuilder::ipv4(CLIENT4, SERVER4, 64),
        (false, Direction::Inbound) => PacketBuilder::ipv4(SERVER4, CLIENT4, 64),
        (true, Direction::Outbound) => PacketBuilder::ipv6(CLIENT6, SERVER6, 64),
        (true, Direction::Inbound) => PacketBuilder::ipv6(SERVER6, CLIENT6, 64),
    }
}

fn ports(direction: Direction, server: u16) -> (u16, u16) {
    match direction {
        Direction::Outbound => (40000, server),
        Direction::Inbound => (server, 40000),
    }
}

/// A datagram between 10.77.0.2:40000 and 203.0.113.10:53, or the like in IPv6.
pub(super) fn udp(v6: bool, direction: Direction, data: &[u8]) -> Vec<u8> {
    let (source, destination) = ports(direction, 53);
    let mut bytes = Vec::new();
    ip(v6, direction).udp(source, destination).write(&mut bytes, data).expect("it fits");
    bytes
}

/// A segment between 10.77.0.2:40000 and 203.0.113.10:443, or the like in IPv6; flags by their first letters.
pub(super) fn tcp(
    v6: bool,
    direction: Direction,
    flags: &str,
    sequence: u32,
    acknowledgment: u32,
    data: &[u8],
) -> Vec<u8> {
    let (source, destination) = ports(direction, 443);
    let mut header = TcpHeader::new(source, destination, sequence, 64_000);
    header.syn = flags.contains('S');
    header.ack = flags.contains('A');
    header.fin = flags.contains('F');
    header.rst = flags.contains('R');
    header.psh = flags.contains('P');
    header.acknowledgment_number = acknowledgment;
    let mut bytes = Vec::new();
    ip(v6, direction).tcp_header(header).write(&mut bytes, data).expect("it fits");
    bytes
}
