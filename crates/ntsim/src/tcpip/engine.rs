//! The real filter engine behind the shim: an [`Indication`] becomes values, metadata and layer data as Windows has
//! them.
//!
//! Values come in the order and types of the platform's layer table. Which metadata a layer carries is that of
//! "Metadata Fields at Each Filtering Layer" (windows-driver-docs network/metadata-fields-at-each-filtering-layer.md).

use super::injected::InjectedLists;
use super::interface::{self, Interface};
use super::mailbox::{Mailbox, stream_data};
use super::requests;
use super::show::{with_list, with_stream};
use crate::cpu;
use crate::fwpkclnt::inject::{Injection, Mark};
use crate::machine::Machine;
use filter_engine::flow::Flow;
use filter_engine::layers::LayerId;
use filter_engine::{Classify, LayerData};
use filter_engine::{security::Sid, token::Token};
use foldhash::HashMap;
use nt_abi::Irql;
use nt_abi::fwp::consts;
use nt_abi::fwp::value::{Blob, Incoming};
use nt_abi::fwp::{FwpsDiscardMetadata0, FwpsIncomingMetadataValues0};
use shim::classifier::{Classifier, Data, Indication, Injected, Outcome, StreamAction, condition_flag};
use shim::flow::Owner;
use shim::layer::{Direction, IpVersion, Layer};
use shim::packet::{AddressType, Packet, Quoted, Upper};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

/// `FWPS_DISCARD_MODULE_TRANSPORT`, and `InetDiscardEndpointNotFound` of INET_DISCARD_REASON (fwpsk.h).
const FWPS_DISCARD_MODULE_TRANSPORT: u32 = 1;
const INET_DISCARD_ENDPOINT_NOT_FOUND: u32 = 5;

/// How a field is filled in for each indication. A field without one keeps its first value.
#[derive(Clone, Copy, Debug)]
enum Fill {
    Protocol,
    LocalAddress,
    RemoteAddress,
    LocalAddressType,
    RemoteAddressType,
    LocalPort,
    RemotePort,
    Flags,
    Direction,
    AppId,
    User,
    Reason,
    IcmpType,
    IcmpCode,
    Promiscuous,
    Embedded(Embedded),
}

/// A field about the packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug)]
enum Embedded {
    Protocol,
    RemoteAddress,
    LocalAddressType,
    LocalPort,
    RemotePort,
}

impl Fill {
    /// By the condition's name after `FWPM_CONDITION_`.
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "IP_PROTOCOL" => Self::Protocol,
            "IP_LOCAL_ADDRESS" | "IP_SOURCE_ADDRESS" => Self::LocalAddress,
            "IP_REMOTE_ADDRESS" | "IP_DESTINATION_ADDRESS" => Self::RemoteAddress,
            "IP_LOCAL_ADDRESS_TYPE" => Self::LocalAddressType,
            "IP_DESTINATION_ADDRESS_TYPE" => Self::RemoteAddressType,
            "IP_LOCAL_PORT" => Self::LocalPort,
            "IP_REMOTE_PORT" => Self::RemotePort,
            "FLAGS" => Self::Flags,
            "DIRECTION" => Self::Direction,
            "ALE_APP_ID" | "ALE_ORIGINAL_APP_ID" => Self::AppId,
            "ALE_USER_ID" => Self::User,
            "REAUTHORIZE_REASON" => Self::Reason,
            "ICMP_TYPE" => Self::IcmpType,
            "ICMP_CODE" => Self::IcmpCode,
            "ALE_PROMISCUOUS_MODE" => Self::Promiscuous,
            "EMBEDDED_PROTOCOL" => Self::Embedded(Embedded::Protocol),
            "EMBEDDED_REMOTE_ADDRESS" => Self::Embedded(Embedded::RemoteAddress),
            "EMBEDDED_LOCAL_ADDRESS_TYPE" => Self::Embedded(Embedded::LocalAddressType),
            "EMBEDDED_LOCAL_PORT" => Self::Embedded(Embedded::LocalPort),
            "EMBEDDED_REMOTE_PORT" => Self::Embedded(Embedded::RemotePort),
            _ => return None,
        })
    }
}

/// One layer's values and metadata, reused for every indication.
#[derive(Debug)]
struct Slot {
    id: LayerId,
    interface: &'static Interface,
    incoming: Incoming,
    fills: Box<[(usize, Fill)]>,
    metadata: FwpsIncomingMetadataValues0,
    carries: u32,
}

/// What the ALE layers see of a process.
#[derive(Debug)]
struct Identity {
    app_id: Arc<Blob>,
    user: Option<Arc<Blob>>,
}

/// The filter engine of a machine, as one simulated processor calls it.
///
/// [`EngineClassifier::packet`] must be open around every use, inside [`cpu::enter`] at PASSIVE_LEVEL.
#[derive(Debug)]
pub struct EngineClassifier {
    machine: Arc<Machine>,
    slots: Box<[Slot]>,
    identities: HashMap<(Arc<str>, Option<u32>), Identity>,
    raised_from: Option<Irql>,
    injected_lists: InjectedLists,
    /// Where callouts put what they inject.
    mailbox: Option<Arc<Mailbox>>,
    /// Injections that were taken out and must be completed.
    done: VecDeque<Box<Injection>>,
}

/// Metadata every layer of a kind carries (`currentMetadataValues`).
fn carries(layer: Layer) -> u32 {
    use consts::{
        FWPS_METADATA_FIELD_COMPARTMENT_ID as COMPARTMENT, FWPS_METADATA_FIELD_COMPLETION_HANDLE as COMPLETION,
        FWPS_METADATA_FIELD_DISCARD_REASON as DISCARD, FWPS_METADATA_FIELD_FLOW_HANDLE as FLOW,
        FWPS_METADATA_FIELD_ICMP_ID_AND_SEQUENCE as ICMP, FWPS_METADATA_FIELD_IP_HEADER_SIZE as IP_HEADER,
        FWPS_METADATA_FIELD_PACKET_DIRECTION as DIRECTION, FWPS_METADATA_FIELD_PATH_MTU as PATH_MTU,
        FWPS_METADATA_FIELD_PROCESS_ID as PROCESS_ID, FWPS_METADATA_FIELD_PROCESS_PATH as PROCESS_PATH,
        FWPS_METADATA_FIELD_REMOTE_SCOPE_ID as SCOPE, FWPS_METADATA_FIELD_TRANSPORT_ENDPOINT_HANDLE as ENDPOINT,
        FWPS_METADATA_FIELD_TRANSPORT_HEADER_SIZE as TRANSPORT_HEADER,
    };
    const PROCESS: u32 = PROCESS_ID | PROCESS_PATH;
    match layer {
        Layer::InboundIpPacket => IP_HEADER | COMPARTMENT,
        Layer::OutboundIpPacket => IP_HEADER | TRANSPORT_HEADER | COMPARTMENT | PATH_MTU,
        Layer::IpForward => COMPARTMENT,
        Layer::InboundTransport => FLOW | IP_HEADER | TRANSPORT_HEADER | COMPARTMENT | ENDPOINT | ICMP,
        Layer::InboundTransportDiscard => DISCARD | IP_HEADER | TRANSPORT_HEADER | COMPARTMENT | ICMP,
        Layer::OutboundTransport => FLOW | TRANSPORT_HEADER | COMPARTMENT | ENDPOINT | SCOPE | ICMP,
        Layer::Stream => FLOW,
        Layer::DatagramData => FLOW | IP_HEADER | TRANSPORT_HEADER | COMPARTMENT | ENDPOINT | SCOPE | ICMP,
        Layer::InboundIcmpError => IP_HEADER | TRANSPORT_HEADER | COMPARTMENT | ENDPOINT,
        Layer::OutboundIcmpError => TRANSPORT_HEADER | COMPARTMENT | ENDPOINT | SCOPE,
        Layer::AleResourceAssignment | Layer::AleAuthListen => PROCESS | ENDPOINT | COMPLETION,
        Layer::AleAuthRecvAccept => {
            COMPLETION | FLOW | IP_HEADER | PROCESS | TRANSPORT_HEADER | COMPARTMENT | ENDPOINT | DIRECTION | ICMP
        }
        Layer::AleAuthConnect => {
            COMPLETION | FLOW | PROCESS | TRANSPORT_HEADER | COMPARTMENT | ENDPOINT | SCOPE | DIRECTION | ICMP
        }
        Layer::AleConnectRedirect | Layer::AleBindRedirect => PROCESS | ENDPOINT,
        Layer::AleFlowEstablished => FLOW | PROCESS | ENDPOINT | ICMP,
        Layer::AleResourceRelease | Layer::AleEndpointClosure => PROCESS_ID | COMPARTMENT | ENDPOINT,
    }
}

/// The slot of a layer, for the interface at `place` of [`Interface::ALL`].
const fn slot_index(place: usize, layer: Layer, version: IpVersion) -> usize {
    (place * Layer::ALL.len() + layer as usize) * 2 + version as usize
}

impl EngineClassifier {
    /// The engine of `machine`.
    ///
    /// # Panics
    /// If the platform's table lacks a layer; it has all of them from Windows 7 on.
    #[must_use]
    pub fn new(machine: Arc<Machine>) -> Self {
        let table = machine.wfp.engine.layers();
        let slots = Interface::ALL
            .into_iter()
            .flat_map(|interface| Layer::ALL.map(|layer| (interface, layer)))
            .flat_map(|(interface, layer)| [IpVersion::V4, IpVersion::V6].map(|version| (interface, layer, version)))
            .map(|(interface, layer, version)| {
                let id = LayerId(layer.id(version));
                let description = table.get(id).expect("the table has every layer the shim knows");
                let mut incoming = Incoming::new(description.fields.len());
                let mut fills = Vec::new();
                for (index, field) in description.fields.iter().enumerate() {
                    match Fill::of(field.name) {
                        Some(fill) => fills.push((index, fill)),
                        None => constant(&mut incoming, index, interface, layer, field.name),
                    }
                }
                let metadata = FwpsIncomingMetadataValues0 {
                    compartment_id: interface::COMPARTMENT,
                    path_mtu: interface::MTU,
                    // Carried at the layer of discarded packets only, which are there for one reason.
                    discard_metadata: FwpsDiscardMetadata0 {
                        discard_module: FWPS_DISCARD_MODULE_TRANSPORT,
                        discard_reason: INET_DISCARD_ENDPOINT_NOT_FOUND,
                        filter_id: 0,
                    },
                    ..FwpsIncomingMetadataValues0::default()
                };
                Slot { id, interface, incoming, fills: fills.into(), metadata, carries: carries(layer) }
            })
            .collect();
        let (identities, injected_lists) = (HashMap::default(), InjectedLists::default());
        Self { machine, slots, identities, raised_from: None, injected_lists, mailbox: None, done: VecDeque::new() }
    }

    /// The engine of `machine`, whose callouts inject through `mailbox`.
    pub(super) fn with(machine: Arc<Machine>, mailbox: Arc<Mailbox>) -> Self {
        Self { mailbox: Some(mailbox), ..Self::new(machine) }
    }

    /// Takes the oldest injection that is finished.
    pub(super) fn take_done(&mut self) -> Option<Box<Injection>> {
        self.done.pop_front()
    }

    /// Runs `f` with this classifier, inside [`cpu::enter`] at PASSIVE_LEVEL. A layer called at DISPATCH_LEVEL leaves
    /// the IRQL there until a layer called below it, or until `f` ends.
    pub fn packet<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> R {
        self.raised_from = None; // a bugcheck may have ended the last packet in the middle
        let result = f(self);
        self.at(Irql::PASSIVE);
        result
    }

    /// Runs `f` with this classifier; the packets that it passes count as injected with `mark`.
    pub(super) fn injected<R>(&mut self, mark: Mark, f: impl FnOnce(&mut Self) -> R) -> R {
        self.injected_lists.set(Some(mark));
        let result = f(self);
        self.injected_lists.set(None);
        result
    }

    /// Releases the lists of injected packets that nobody holds any more.
    pub(super) fn sweep(&mut self) {
        self.injected_lists.sweep(&self.machine);
    }

    /// Changes to the IRQL of the next call into driver code.
    pub(super) fn at(&mut self, irql: Irql) {
        match (self.raised_from, irql >= Irql::DISPATCH) {
            (None, true) => self.raised_from = Some(cpu::raise(Irql::DISPATCH)),
            (Some(old), false) => {
                self.raised_from = None;
                cpu::lower(old);
            }
            _ => {}
        }
    }

    fn identity<'a>(identities: &'a mut HashMap<(Arc<str>, Option<u32>), Identity>, owner: &Owner) -> &'a Identity {
        identities.entry((owner.app_id.clone(), owner.uid)).or_insert_with(|| Identity {
            app_id: Arc::new(Blob::app_id(&owner.app_id)),
            user: owner.uid.map(|uid| Arc::new(token(uid).to_blob())),
        })
    }
}

/// The token that stands for a Unix user's: LocalSystem's for root; for the rest `S-1-22-1-UID` (Samba's "Unix User"
/// authority) with the groups that every user of Windows is in: Everyone, Users, Authenticated Users.
fn token(uid: u32) -> Token {
    if uid == 0 {
        return Token::local_system();
    }
    Token { sids: vec![Sid::new(22, &[1, uid]), Sid::new(1, &[0]), Sid::new(5, &[32, 545]), Sid::new(5, &[11])] }
}

/// Fields that are the same for every packet of an interface.
fn constant(incoming: &mut Incoming, index: usize, of: &Interface, layer: Layer, name: &str) {
    // "If an outbound packet is being reauthorized ... all the fields pertaining to the arrival interface are unknown",
    // and empty; the next hop's likewise when a connection comes in.
    let unknown = match layer {
        Layer::AleAuthConnect => name.contains("ARRIVAL_"),
        Layer::AleAuthRecvAccept => name.contains("NEXTHOP_"),
        _ => false,
    };
    if unknown {
        return;
    }
    match name {
        "IP_LOCAL_INTERFACE"
        | "IP_ARRIVAL_INTERFACE"
        | "IP_NEXTHOP_INTERFACE"
        | "IP_FORWARD_INTERFACE"
        | "IP_PHYSICAL_ARRIVAL_INTERFACE"
        | "IP_PHYSICAL_NEXTHOP_INTERFACE" => {
            incoming.u64(index, of.luid);
        }
        "INTERFACE_INDEX"
        | "ARRIVAL_INTERFACE_INDEX"
        | "NEXTHOP_INTERFACE_INDEX"
        | "SOURCE_INTERFACE_INDEX"
        | "DESTINATION_INTERFACE_INDEX" => {
            incoming.u32(index, of.index);
        }
        "INTERFACE_TYPE" | "ARRIVAL_INTERFACE_TYPE" | "NEXTHOP_INTERFACE_TYPE" => {
            incoming.u32(index, of.kind);
        }
        "TUNNEL_TYPE" | "ARRIVAL_TUNNEL_TYPE" | "NEXTHOP_TUNNEL_TYPE" => {
            incoming.u32(index, interface::TUNNEL_TYPE);
        }
        "SUB_INTERFACE_INDEX"
        | "NEXTHOP_SUB_INTERFACE_INDEX"
        | "SOURCE_SUB_INTERFACE_INDEX"
        | "DESTINATION_SUB_INTERFACE_INDEX" => incoming.u32(index, 0),
        "COMPARTMENT_ID" => incoming.u32(index, interface::COMPARTMENT),
        "PROFILE_ID"
        | "ORIGINAL_PROFILE_ID"
        | "CURRENT_PROFILE_ID"
        | "ARRIVAL_INTERFACE_PROFILE_ID"
        | "NEXTHOP_INTERFACE_PROFILE_ID"
        | "LOCAL_INTERFACE_PROFILE_ID" => incoming.u32(index, interface::PROFILE),
        "INTERFACE_QUARANTINE_EPOCH" => incoming.u64(index, 0),
        "SIO_FIREWALL_SYSTEM_PORT"
        | "ALE_SIO_FIREWALL_SYSTEM_PORT"
        | "SIO_FIREWALL_SOCKET_PROPERTY"
        | "ALE_NAP_CONTEXT"
        | "NAP_CONTEXT" => incoming.u32(index, 0),
        "ALE_PACKAGE_ID" => incoming.sid(index, Sid::null().bytes().into()),
        _ => {} // peer, effective and package names, remote identities, reserved fields: empty
    }
}

fn put_address(incoming: &mut Incoming, index: usize, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => incoming.u32(index, v4.to_bits()),
        IpAddr::V6(v6) => incoming.bytes16(index, v6.octets()),
    }
}

impl Slot {
    fn fill<F>(&mut self, indication: &Indication<'_, F>, identity: Option<&Identity>, quoted: Option<&Quoted>) {
        let key = indication.key;
        // An ICMP message's type and code are those of the message itself; a flow is known by its request's.
        let (local_port, remote_port) = match indication.packet {
            Some(packet) if matches!(packet.upper, Upper::Icmp(_)) => packet.ports(),
            _ => (key.local_port, key.remote_port),
        };
        let incoming = &mut self.incoming;
        for &(index, fill) in &self.fills {
            match fill {
                Fill::Protocol => incoming.u8(index, key.protocol),
                // "If the local address is not specified in the bind() call, the local address field is set to FWP_EMPTY"
                // ("ALE Layers"); what listens has the address that it was bound to.
                Fill::LocalAddress if is_of_sockets(indication.layer) && key.local().is_unspecified() => {
                    incoming.empty(index);
                }
                Fill::LocalAddress => put_address(incoming, index, key.local()),
                Fill::RemoteAddress => put_address(incoming, index, key.remote()),
                Fill::LocalAddressType => incoming.u8(index, AddressType::of(key.local()) as u8),
                Fill::RemoteAddressType => incoming.u8(index, AddressType::of(key.remote()) as u8),
                Fill::LocalPort | Fill::IcmpType => incoming.u16(index, local_port),
                Fill::RemotePort | Fill::IcmpCode => incoming.u16(index, remote_port),
                Fill::Flags => incoming.u32(index, indication.flags),
                Fill::Direction => incoming.u32(index, self::direction(indication) as u32),
                Fill::AppId => match identity {
                    Some(identity) => incoming.blob(index, identity.app_id.clone()),
                    None => incoming.empty(index),
                },
                Fill::User => match identity.and_then(|identity| identity.user.as_ref()) {
                    Some(token) => incoming.token(index, token.clone()),
                    None => incoming.empty(index),
                },
                Fill::Reason => incoming.u32(index, indication.reason),
                Fill::Promiscuous => incoming.u32(index, indication.promiscuous),
                Fill::Embedded(embedded) => match quoted {
                    // An error that comes in quotes a packet that went out: its source is local.
                    Some(quoted) => match embedded {
                        Embedded::Protocol => incoming.u8(index, quoted.protocol),
                        Embedded::RemoteAddress => put_address(incoming, index, quoted.destination),
                        Embedded::LocalAddressType => incoming.u8(index, AddressType::of(quoted.source) as u8),
                        Embedded::LocalPort => incoming.u16(index, quoted.source_port),
                        Embedded::RemotePort => incoming.u16(index, quoted.destination_port),
                    },
                    None => incoming.empty(index),
                },
            }
        }
    }

    fn describe(&mut self, indication: &Indication<'_, Arc<Flow>>, identity: Option<&Identity>) {
        let metadata = &mut self.metadata;
        let mut carried = self.carries;
        match indication.flow {
            Some(flow) => metadata.flow_handle = flow.id(),
            None => carried &= !consts::FWPS_METADATA_FIELD_FLOW_HANDLE,
        }
        match (indication.owner, identity) {
            (Some(owner), Some(identity)) => {
                metadata.process_id = u64::from(owner.pid);
                metadata.process_path = identity.app_id.raw();
            }
            _ => {
                carried &= !(consts::FWPS_METADATA_FIELD_PROCESS_ID | consts::FWPS_METADATA_FIELD_PROCESS_PATH);
                metadata.process_path = core::ptr::null();
            }
        }
        if indication.endpoint == 0 {
            carried &= !consts::FWPS_METADATA_FIELD_TRANSPORT_ENDPOINT_HANDLE;
        }
        metadata.transport_endpoint_handle = indication.endpoint;
        metadata.packet_direction = indication.direction as u32;
        let headers = consts::FWPS_METADATA_FIELD_IP_HEADER_SIZE | consts::FWPS_METADATA_FIELD_TRANSPORT_HEADER_SIZE;
        match (indication.packet, &indication.data) {
            (Some(packet), Data::Packet { start, .. }) => {
                metadata.ip_header_size = packet.ip_header_len as u32;
                metadata.transport_header_size = transport_header(packet, indication.direction);
                if *start > 0 {
                    carried &= !consts::FWPS_METADATA_FIELD_IP_HEADER_SIZE; // there is none yet
                }
            }
            _ => carried &= !headers,
        }
        match indication.packet.map(|packet| packet.upper) {
            Some(Upper::Icmp(icmp)) if icmp.echo.is_some() => {
                let (id, sequence) = icmp.echo.unwrap_or_default();
                metadata.icmp_id_and_sequence = u32::from(id) | u32::from(sequence) << 16;
            }
            _ => carried &= !consts::FWPS_METADATA_FIELD_ICMP_ID_AND_SEQUENCE,
        }
        // Only link-local and multicast addresses have a scope; this machine has one link.
        if !matches!(indication.key.remote(), IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast()) {
            carried &= !consts::FWPS_METADATA_FIELD_REMOTE_SCOPE_ID;
        }
        metadata.remote_scope_id = self.interface.index;
        if indication.flags & condition_flag::REQUIRES_ALE_CLASSIFY != 0 {
            carried |= consts::FWPS_METADATA_FIELD_ALE_CLASSIFY_REQUIRED;
        }
        if let (Layer::InboundIpPacket, Some(fragment)) =
            (indication.layer, indication.packet.and_then(|packet| packet.fragment))
        {
            carried |= consts::FWPS_METADATA_FIELD_FRAGMENT_DATA;
            metadata.fragment_metadata.fragment_identification = fragment.id;
            metadata.fragment_metadata.fragment_offset = fragment.offset as u16;
            let len = indication.packet.map_or(0, |packet| packet.len - packet.ip_header_len);
            metadata.fragment_metadata.fragment_length = len as u32;
        }
        metadata.current_metadata_values = carried;
    }
}

/// The layers of bind() and listen().
const fn is_of_sockets(layer: Layer) -> bool {
    matches!(layer, Layer::AleBindRedirect | Layer::AleResourceAssignment | Layer::AleAuthListen)
}

/// At ALE_FLOW_ESTABLISHED the direction is the flow's, elsewhere the data's.
fn direction<F>(indication: &Indication<'_, F>) -> Direction {
    match indication.layer {
        Layer::AleFlowEstablished => indication.flow_direction,
        _ => indication.direction,
    }
}

/// Inbound ICMP data begins at the ICMP header, so nothing is between it and the IP header: the sizes say how far a
/// callout must go back to reach the IP header ("Packet Indication Format").
fn transport_header(packet: &Packet, direction: Direction) -> u32 {
    match (packet.upper, direction) {
        (Upper::Icmp(icmp), Direction::Inbound) if !icmp.error => 0,
        _ => packet.transport_header_len() as u32,
    }
}

impl Classifier for EngineClassifier {
    type Flow = Arc<Flow>;

    fn wants(&self, layer: Layer, version: IpVersion) -> bool {
        self.machine.wfp.engine.has_filters(LayerId(layer.id(version)))
    }

    fn concerns(&self, layer: Layer, version: IpVersion, flow: &Arc<Flow>) -> bool {
        self.machine.wfp.engine.concerns(LayerId(layer.id(version)), flow)
    }

    fn classify(&mut self, indication: Indication<'_, Arc<Flow>>) -> Outcome {
        self.at(indication.irql());
        let Self { machine, slots, identities, injected_lists, .. } = self;
        let of_loopback = indication.flags & condition_flag::IS_LOOPBACK != 0 && indication.key.local().is_loopback();
        let slot = &mut slots[slot_index(Interface::place(of_loopback), indication.layer, indication.version())];
        let identity = indication.owner.map(|owner| Self::identity(identities, owner));
        let quoted = match (&indication.data, indication.packet) {
            (Data::Packet { buffer, .. }, Some(packet)) if indication.layer == Layer::InboundIcmpError => {
                Quoted::parse(buffer.bytes(), packet)
            }
            _ => None,
        };
        slot.fill(&indication, identity, quoted.as_ref());
        slot.describe(&indication, identity);
        let offered = slot.carries & consts::FWPS_METADATA_FIELD_COMPLETION_HANDLE != 0;
        if offered {
            let again = indication.flags & condition_flag::IS_REAUTHORIZE != 0;
            slot.metadata.completion_handle = machine.wfp.operations.offer(indication.endpoint, again);
        }
        let slot: &Slot = slot;
        let ask = |layer_data: LayerData<'_>| {
            let call = Classify {
                layer: slot.id,
                values: slot.incoming.values(),
                metadata: &slot.metadata,
                layer_data,
                flow: indication.flow,
                request: None,
            };
            match (indication.injected_by, requests::of(indication.layer, indication.key)) {
                (0, None) => machine.wfp.classify(&call, 0, None),
                (0, request) => machine.wfp.classify(&call, indication.endpoint, request.map(Box::new)),
                (callout, _) => machine.wfp.engine.classify_below(&call, callout),
            }
        };
        let outcome = match indication.data {
            Data::None => ask(LayerData::None),
            Data::Packet { buffer, start, offset, end } => with_list(buffer, start, offset, end, |list| {
                // SAFETY: `buffer.list` has just set the list up, and the buffer stays borrowed through the call.
                unsafe { injected_lists.show(machine, list) };
                ask(LayerData::Pointer(list.cast()))
            }),
            Data::Stream { data, flags } => with_stream(data, flags, ask),
        };
        let stream = outcome.stream.unwrap_or_default();
        Outcome {
            blocked: outcome.verdict == filter_engine::Verdict::Block,
            absorbed: outcome.absorb,
            pended: outcome.pended || (offered && machine.wfp.operations.settle(slot.metadata.completion_handle)),
            filter_id: outcome.filter_id,
            stream: match stream.action {
                filter_engine::StreamAction::DropConnection => StreamAction::DropConnection,
                filter_engine::StreamAction::NeedMoreData => StreamAction::NeedMoreData(stream.bytes_required),
                filter_engine::StreamAction::Defer => StreamAction::Defer(stream.callout_id),
                filter_engine::StreamAction::None | filter_engine::StreamAction::AllowConnection => StreamAction::None,
            },
            enforced: stream.bytes_enforced,
            redirect: outcome.redirect.as_deref().and_then(requests::read),
        }
    }

    fn generation(&self, layer: Layer, version: IpVersion) -> u64 {
        self.machine.wfp.engine.generation(LayerId(layer.id(version)))
    }

    fn create_flow(&mut self) -> Arc<Flow> {
        self.machine.wfp.engine.flows.create()
    }

    fn end_flow(&mut self, flow: Arc<Flow>) {
        self.at(Irql::DISPATCH);
        self.machine.wfp.engine.flows.terminate(&flow);
    }

    fn is_aborted(&self, flow: &Arc<Flow>) -> bool {
        flow.is_aborted()
    }

    fn speak_for_itself(&mut self, own: bool) {
        self.injected_lists.suspend(own);
    }

    fn flow_id(&self, flow: &Arc<Flow>) -> u64 {
        flow.id()
    }

    fn take_injected(&mut self, flow: &Arc<Flow>, direction: Direction) -> Vec<Injected> {
        let Some(mailbox) = &self.mailbox else { return Vec::new() };
        let mut taken = Vec::new();
        for injection in mailbox.take_stream(flow.id(), direction) {
            taken.extend(stream_data(&injection));
            self.done.push_back(injection);
        }
        taken
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
