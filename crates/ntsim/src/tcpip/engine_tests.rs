//! What a callout sees of a packet, and what filters match.

use super::*;
use crate::fwpkclnt::UserSession;
use core::ffi::c_void;
use core::ptr::null_mut;
use etherparse::{PacketBuilder, TcpHeader};
use filter_engine::layers::condition;
use nt_abi::PacketBuffer;
use nt_abi::fwp::value::{Read, Value};
use nt_abi::fwp::{
    FwpsCallout0, FwpsClassifyOut0, FwpsFilter0, FwpsIncomingValues0, FwpsStreamCalloutIoPacket0, RawGuid,
};
use parking_lot::Mutex;
use shim::classifier::REASON_POLICY_CHANGE;
use shim::flow::{Endpoints, FlowKey};
use shim::stack::{Config, Decision, Stack, Verdict};
use sluice_host::{Callout, Condition, ConditionValue, Engine as _, Filter, FilterAction, Guid, MatchType, Weight};
use std::time::Duration;

const CALLOUT: Guid = Guid(0x1111_2222_3333_4444_5555_6666_7777_8888);
const SUBLAYER_UNIVERSAL: Guid = Guid(0xeebe_cc03_ced4_4380_819a_2734_397b_2b74);

/// What the callout saw, one line for each call. The callout is a plain function, so tests that use it take turns.
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
static TURN: Mutex<()> = Mutex::new(());
/// Whether the callout moves the data start.
static MOVES_DATA: Mutex<bool> = Mutex::new(false);

unsafe extern "win64" fn look(
    fixed: *const FwpsIncomingValues0,
    metadata: *const FwpsIncomingMetadataValues0,
    layer_data: *mut c_void,
    _context: *const c_void,
    _filter: *const FwpsFilter0,
    _flow_context: u64,
    _out: *mut FwpsClassifyOut0,
) {
    // SAFETY: the engine hands callouts valid structures.
    let (fixed, metadata) = unsafe { (&*fixed, &*metadata) };
    let layer = cpu::with_machine(|machine| machine.wfp.engine.layers().get(LayerId(fixed.layer_id))).expect("a layer");
    // SAFETY: as above; `Value` is a transparent wrapper of what the array holds.
    let values: &[Value<'_>] =
        unsafe { core::slice::from_raw_parts(fixed.incoming_value.cast(), fixed.value_count as usize) };
    assert_eq!(values.len(), layer.fields.len());
    let mut line = format!("{} {}", layer.name, cpu::irql());
    for (field, value) in layer.fields.iter().zip(values) {
        let wanted = ["IP_", "EMBEDDED", "ICMP", "ALE_APP", "DIRECTION", "FLAGS", "REAUTH"];
        if !wanted.iter().any(|prefix| field.name.starts_with(prefix)) || field.name.contains("INTERFACE") {
            continue;
        }
        let text = match value.read() {
            Read::Unsigned(_, v) if field.name.ends_with("ADDRESS") => std::net::Ipv4Addr::from(v as u32).to_string(),
            Read::Unsigned(_, v) => v.to_string(),
            Read::Bytes16(v6) => std::net::Ipv6Addr::from(*v6).to_string(),
            Read::Bytes(_, bytes) if field.name == "ALE_APP_ID" => {
                let units: Vec<u16> = bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
                String::from_utf16(&units).expect("UTF-16").replace('\0', "$")
            }
            Read::Empty => "-".to_owned(),
            other => format!("{other:?}"),
        };
        line.push_str(&format!(" {}={text}", field.name));
    }
    let has = |bit| metadata.current_metadata_values & bit != 0;
    if has(consts::FWPS_METADATA_FIELD_PROCESS_ID) {
        line.push_str(&format!(" pid={}", metadata.process_id));
    }
    if has(consts::FWPS_METADATA_FIELD_FLOW_HANDLE) {
        line.push_str(" flow");
    }
    if has(consts::FWPS_METADATA_FIELD_IP_HEADER_SIZE) {
        line.push_str(&format!(" ip={}", metadata.ip_header_size));
    }
    if has(consts::FWPS_METADATA_FIELD_TRANSPORT_HEADER_SIZE) {
        line.push_str(&format!(" transport={}", metadata.transport_header_size));
    }
    if has(consts::FWPS_METADATA_FIELD_ALE_CLASSIFY_REQUIRED) {
        line.push_str(" ale-required");
    }
    if !layer_data.is_null() {
        let bytes = if layer.is_stream() {
            // SAFETY: the layer data of the stream layers is this structure.
            let stream = unsafe { &*(*layer_data.cast::<FwpsStreamCalloutIoPacket0>()).stream_data };
            line.push_str(&format!(" stream-flags={:#x}", stream.flags));
            shown(stream.net_buffer_list_chain.cast(), stream.data_length)
        } else {
            shown(layer_data.cast(), usize::MAX)
        };
        line.push_str(&format!(" [{}]", String::from_utf8_lossy(&bytes).replace('\0', ".")));
        if *MOVES_DATA.lock() {
            // SAFETY: the list is live during the call.
            unsafe { (*(*layer_data.cast::<nt_abi::NetBufferList>()).first_net_buffer).data_offset += 1 };
        }
    }
    SEEN.lock().push(line);
}

/// The last eight bytes, at most, of what a list shows: payloads in these tests are short.
fn shown(list: *mut nt_abi::NetBufferList, len: usize) -> Vec<u8> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: the list and its one MDL are live during the call.
    unsafe {
        let buffer = &*(*list).first_net_buffer;
        let mdl = &*buffer.mdl_chain;
        let all = core::slice::from_raw_parts(mdl.mapped_system_va.cast::<u8>(), mdl.byte_count as usize);
        let data = &all[buffer.data_offset as usize..][..buffer.data_length as usize];
        assert!(len == usize::MAX || len == data.len());
        data[data.len().saturating_sub(8)..].to_vec()
    }
}

unsafe extern "win64" fn accept(_: u32, _: *const RawGuid, _: *mut FwpsFilter0) -> i32 {
    0
}

struct Curl;

impl Endpoints for Curl {
    fn owner(&mut self, _: &FlowKey) -> Option<Arc<Owner>> {
        Some(Arc::new(Owner { pid: 42, uid: Some(1000), app_id: r"\device\harddiskvolume1\usr\bin\curl".into() }))
    }
}

struct Bench {
    machine: Arc<Machine>,
    stack: Stack<Arc<Flow>>,
    classifier: EngineClassifier,
}

impl Bench {
    fn new() -> Self {
        let machine = Machine::new();
        let classifier = EngineClassifier::new(machine.clone());
        Self { machine, stack: Stack::new(Config { pick_up: false }), classifier }
    }

    /// Registers [`look`], as a driver does, with a filter at every layer.
    fn watch(&self) {
        let register = crate::export::all().find(|e| e.name == "FwpsCalloutRegister1").expect("exported");
        let crate::export::Entry::Function(register) = register.entry else { panic!("a function") };
        // SAFETY: FwpsCalloutRegister1 has this signature.
        let register: unsafe extern "win64" fn(*mut c_void, *const FwpsCallout0, *mut u32) -> i32 =
            unsafe { core::mem::transmute(register) };
        let mut session = UserSession::open(&self.machine, false);
        let layers = self.machine.wfp.engine.layers().iter().filter(|layer| layer.id.0 < 70 && !layer.is_discard());
        for layer in layers.filter(|layer| !layer.fields.is_empty()) {
            let key = Guid(CALLOUT.0 + u128::from(layer.id.0));
            let raw = FwpsCallout0 {
                callout_key: key.into(),
                flags: 0,
                classify_fn: look as *const c_void,
                notify_fn: accept as *const c_void,
                flow_delete_fn: core::ptr::null(),
            };
            let mut device = 0u64;
            let status = cpu::enter(&self.machine, Irql::PASSIVE, || {
                // SAFETY: all pointers are valid; the callout's functions live as long as the process.
                unsafe { register((&raw mut device).cast(), &raw const raw, null_mut()) }
            });
            assert_eq!(status.expect("no bugcheck"), 0);
            let (name, description) = (layer.name.to_owned(), String::new());
            session
                .add_callout(&Callout { key, name, description, persistent: false, provider: None, layer: layer.key })
                .expect("a good callout");
            let filter = filter(layer.key, Vec::new(), FilterAction::CalloutInspection(key));
            session.add_filter(&filter).unwrap_or_else(|error| panic!("{}: {error}", layer.name));
        }
    }

    fn block(&self, layer: u16, conditions: Vec<(&str, MatchType, ConditionValue)>) -> u64 {
        let layer = self.machine.wfp.engine.layers().get(LayerId(layer)).expect("a layer").key;
        let conditions = conditions
            .into_iter()
            .map(|(name, match_type, value)| Condition { field: condition(name).expect("known"), match_type, value })
            .collect();
        let filter = filter(layer, conditions, FilterAction::Block);
        UserSession::open(&self.machine, false).add_filter(&filter).expect("a good filter")
    }

    fn pass(&mut self, direction: Direction, bytes: &[u8]) -> Result<Decision, cpu::Bugcheck> {
        let mut buffer = PacketBuffer::copy_of(bytes);
        let Self { machine, stack, classifier } = self;
        cpu::enter(machine, Irql::PASSIVE, || {
            classifier.packet(|classifier| stack.process(classifier, &mut Curl, &mut buffer, direction, Duration::ZERO))
        })
    }
}

fn filter(layer: Guid, conditions: Vec<Condition>, action: FilterAction) -> Filter {
    Filter {
        key: None,
        name: "filter".into(),
        description: String::new(),
        flags: 0,
        provider: None,
        layer,
        sublayer: SUBLAYER_UNIVERSAL,
        weight: Weight::Auto,
        conditions,
        action,
    }
}

fn tcp(v6: bool, direction: Direction, flags: &str, sequence: u32, acknowledgment: u32, data: &[u8]) -> Vec<u8> {
    let (client4, server4) = ([10, 77, 0, 2], [203, 0, 113, 10]);
    let (mut client6, mut server6) = ([0u8; 16], [0u8; 16]);
    client6[..2].copy_from_slice(&[0xfd, 0x77]);
    client6[15] = 2;
    server6[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
    server6[15] = 0x10;
    let out = direction == Direction::Outbound;
    let ip = match (v6, out) {
        (false, true) => PacketBuilder::ipv4(client4, server4, 64),
        (false, false) => PacketBuilder::ipv4(server4, client4, 64),
        (true, true) => PacketBuilder::ipv6(client6, server6, 64),
        (true, false) => PacketBuilder::ipv6(server6, client6, 64),
    };
    let (source, destination) = if out { (40000, 443) } else { (443, 40000) };
    let mut header = TcpHeader::new(source, destination, sequence, 9999);
    header.syn = flags.contains('S');
    header.ack = flags.contains('A');
    header.psh = flags.contains('P');
    header.acknowledgment_number = acknowledgment;
    let mut bytes = Vec::new();
    ip.tcp_header(header).write(&mut bytes, data).unwrap();
    bytes
}

#[test]
fn callouts_see_a_connection_as_windows_shows_it() {
    let _turn = TURN.lock();
    for v6 in [false, true] {
        let mut b = Bench::new();
        b.watch();
        SEEN.lock().clear();
        b.pass(Direction::Outbound, &tcp(v6, Direction::Outbound, "S", 100, 0, b"")).unwrap();
        b.pass(Direction::Inbound, &tcp(v6, Direction::Inbound, "SA", 500, 101, b"")).unwrap();
        b.pass(Direction::Outbound, &tcp(v6, Direction::Outbound, "AP", 101, 501, b"question")).unwrap();
        b.pass(Direction::Inbound, &tcp(v6, Direction::Inbound, "AP", 501, 109, b"reply")).unwrap();
        let seen = SEEN.lock().clone();
        let (local, remote) = if v6 { ("fd77::2", "2001:db8::10") } else { ("10.77.0.2", "203.0.113.10") };
        let v = if v6 { "V6" } else { "V4" };
        let ip = if v6 { 40 } else { 20 };
        let app = r"\device\harddiskvolume1\usr\bin\curl$";
        let addresses = format!("IP_LOCAL_ADDRESS={local} IP_LOCAL_ADDRESS_TYPE=1 IP_LOCAL_PORT=40000");
        let bind_pid = "pid=42";
        let expected = [
            format!(
                "ALE_BIND_REDIRECT_{v} PASSIVE_LEVEL ALE_APP_ID={app} {addresses} IP_PROTOCOL=6 FLAGS=0 {bind_pid}"
            ),
            format!(
                "ALE_RESOURCE_ASSIGNMENT_{v} PASSIVE_LEVEL ALE_APP_ID={app} {addresses} IP_PROTOCOL=6 FLAGS=8 {bind_pid}"
            ),
            format!(
                "ALE_CONNECT_REDIRECT_{v} PASSIVE_LEVEL ALE_APP_ID={app} {addresses} IP_PROTOCOL=6 \
                 IP_REMOTE_ADDRESS={remote} IP_DESTINATION_ADDRESS_TYPE=1 IP_REMOTE_PORT=443 FLAGS=0 {bind_pid}"
            ),
            format!(
                "ALE_AUTH_CONNECT_{v} PASSIVE_LEVEL ALE_APP_ID={app} {addresses} IP_PROTOCOL=6 \
                 IP_REMOTE_ADDRESS={remote} IP_REMOTE_PORT=443 IP_DESTINATION_ADDRESS_TYPE=1 FLAGS=0 \
                 REAUTHORIZE_REASON=0 pid=42"
            ),
            format!(
                "OUTBOUND_TRANSPORT_{v} DISPATCH_LEVEL IP_PROTOCOL=6 IP_LOCAL_ADDRESS={local} IP_LOCAL_ADDRESS_TYPE=1 \
                 IP_REMOTE_ADDRESS={remote} IP_LOCAL_PORT=40000 IP_REMOTE_PORT=443 IP_DESTINATION_ADDRESS_TYPE=1 \
                 FLAGS=0 transport=20"
            ),
        ];
        for (line, expected) in seen.iter().zip(&expected) {
            assert!(line.starts_with(expected.as_str()), "\n{line}\n{expected}");
        }
        let find = |layer: &str| {
            let layer = format!("{layer}_{v} ");
            seen.iter().rfind(|line| line.starts_with(&layer)).unwrap_or_else(|| panic!("{layer}: {seen:#?}"))
        };
        let established = find("ALE_FLOW_ESTABLISHED");
        assert!(established.contains("DIRECTION=0") && established.contains(" pid=42 flow"), "{established}");
        let out = find("OUTBOUND_IPPACKET");
        assert!(out.ends_with(&format!("ip={ip} transport=20 [question]")), "{out}");
        let transport = find("INBOUND_TRANSPORT");
        assert!(transport.ends_with(&format!("flow ip={ip} transport=20 [reply]")), "{transport}");
        let stream = find("STREAM");
        assert!(stream.contains("DIRECTION=1"), "{stream}");
        assert!(stream.ends_with("flow stream-flags=0x11 [reply]"), "{stream}");
        let sent = seen.iter().find(|line| line.starts_with("STREAM")).unwrap();
        assert!(sent.ends_with("flow stream-flags=0x10000 [question]"), "{sent}");
    }
}

#[test]
fn a_callout_must_leave_the_data_offset_where_it_was() {
    let _turn = TURN.lock();
    let mut b = Bench::new();
    b.watch();
    *MOVES_DATA.lock() = true;
    let result = b.pass(Direction::Outbound, &tcp(false, Direction::Outbound, "S", 100, 0, b""));
    *MOVES_DATA.lock() = false;
    let bugcheck = result.expect_err("a violation");
    assert_eq!(bugcheck.code, cpu::code::DRIVER_VERIFIER_DETECTED_VIOLATION);
    assert!(bugcheck.why.contains("data start"), "{}", bugcheck.why);
}

#[test]
fn filters_match_on_what_the_shim_says() {
    let app = r"\device\harddiskvolume1\usr\bin\curl";
    let blob = ConditionValue::ByteBlob(app.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect());
    let server6 = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10).octets();
    let address = |v6: bool| match v6 {
        false => ConditionValue::V4AddrMask { addr: 0xcb00_7100, mask: 0xffff_ff00 },
        true => ConditionValue::V6AddrMask { addr: server6, prefix_length: 64 },
    };
    for v6 in [false, true] {
        for (name, value) in [
            ("IP_REMOTE_ADDRESS", address(v6)),
            ("IP_REMOTE_PORT", ConditionValue::Uint16(443)),
            ("IP_LOCAL_PORT", ConditionValue::Uint16(40000)),
            ("IP_PROTOCOL", ConditionValue::Uint8(6)),
            ("ALE_APP_ID", blob.clone()),
        ] {
            let mut b = Bench::new();
            let id = b.block(if v6 { 50 } else { 48 }, vec![(name, MatchType::Equal, value)]);
            let decision = b.pass(Direction::Outbound, &tcp(v6, Direction::Outbound, "S", 100, 0, b"")).unwrap();
            assert_eq!(decision.verdict, Verdict::Refuse, "{name}");
            assert_eq!(decision.by.unwrap().filter_id, id);
        }
        let mut b = Bench::new();
        b.block(if v6 { 50 } else { 48 }, vec![("IP_REMOTE_PORT", MatchType::Equal, ConditionValue::Uint16(444))]);
        let decision = b.pass(Direction::Outbound, &tcp(v6, Direction::Outbound, "S", 100, 0, b"")).unwrap();
        assert_eq!(decision.verdict, Verdict::Forward);
    }
}

#[test]
fn a_block_is_a_net_event() {
    let mut b = Bench::new();
    let id = b.block(48, vec![]);
    b.pass(Direction::Outbound, &tcp(false, Direction::Outbound, "S", 100, 0, b"")).unwrap();
    let events = b.machine.wfp.engine.events.to_vec();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].filter_id, events[0].layer), (id, LayerId(48)));
    assert_eq!(events[0].remote, Some("203.0.113.10".parse().unwrap()));
    assert_eq!((events[0].local_port, events[0].remote_port, events[0].protocol), (Some(40000), Some(443), Some(6)));
    assert_eq!(events[0].user, Some(Sid::new(22, &[1, 1000])));
    assert!(events[0].app_id.as_ref().is_some_and(|id| id.ends_with(&[b'l', 0, 0, 0])));
}

#[test]
fn adding_a_filter_reauthorizes_a_connection() {
    let mut b = Bench::new();
    b.pass(Direction::Outbound, &tcp(false, Direction::Outbound, "S", 100, 0, b"")).unwrap();
    b.pass(Direction::Inbound, &tcp(false, Direction::Inbound, "SA", 500, 101, b"")).unwrap();
    let data = tcp(false, Direction::Outbound, "A", 101, 501, b"data");
    assert_eq!(b.pass(Direction::Outbound, &data).unwrap().verdict, Verdict::Forward);
    b.block(50, vec![]);
    assert_eq!(b.pass(Direction::Outbound, &data).unwrap().verdict, Verdict::Forward, "another layer");
    let id = b.block(48, vec![]);
    let decision = b.pass(Direction::Outbound, &data).unwrap();
    assert_eq!((decision.verdict, decision.by.unwrap().filter_id), (Verdict::Abort, id));
    assert_eq!(b.machine.wfp.engine.flows.len(), 0);
    assert_eq!(b.machine.wfp.engine.events.to_vec().last().unwrap().reauth_reason, REASON_POLICY_CHANGE);
}
