//! Files of netsh and wevtutil, read.

use filter_engine::FilterEngine;
use filter_engine::bfe::{Callout, DisplayData, Filter, FilterContext, Provider, Session, SessionOptions, Sublayer};
use filter_engine::condition::{Condition, ConditionValue};
use filter_engine::layers::{LayerTable, WindowsVersion, condition};
use filter_engine::security::{SecurityDescriptor, Sid};
use proptest::prelude::*;
use sluice_diagnose::Key;
use sluice_diagnose::read::{Cabinet, CabinetError, Item, MOST_OF_ELEMENT, ReadError, is_cabinet, read};
use sluice_diagnose::record::{Action, Direction, Ends, EventKind, NetEvent, Value};
use sluice_host::{Guid, MatchType, Weight};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::Arc;

fn items(input: impl Read) -> Result<Vec<Item>, ReadError> {
    let mut items = Vec::new();
    read(input, &mut |item| {
        items.push(item);
        ControlFlow::Continue(())
    })?;
    Ok(items)
}

/// An engine with a filter for each kind of value.
fn engine() -> (Arc<FilterEngine>, Vec<Condition>) {
    let engine = Arc::new(FilterEngine::new(WindowsVersion::default(), || {}));
    let session = Session::open(&engine, SessionOptions::default());
    let display = DisplayData::new("a <name> & more\u{1F30A}", " spaces at the ends ");
    session
        .add_provider(Provider {
            key: Guid(1),
            display: display.clone(),
            flags: 0,
            data: vec![1, 2],
            service: Some("svc".into()),
        })
        .unwrap();
    let sublayer = Sublayer {
        key: Guid(2),
        display: display.clone(),
        flags: 0,
        provider: Some(Guid(1)),
        data: vec![],
        weight: 77,
    };
    session.add_sublayer(sublayer).unwrap();
    let layer = LayerTable::of(WindowsVersion::default()).by_name("ALE_AUTH_CONNECT_V4").unwrap().key;
    let callout = Callout { key: Guid(3), display: display.clone(), flags: 0, provider: None, data: vec![], layer };
    session.add_callout(callout).unwrap();
    let of = |field: &str, match_type, value| Condition { field: condition(field).unwrap(), match_type, value };
    let path: Vec<u8> = "\\device\\x.exe\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let descriptor = SecurityDescriptor::from_sddl("O:LSD:(A;;CC;;;S-1-5-21-1-2-3-1001)").unwrap();
    let conditions = vec![
        of("IP_PROTOCOL", MatchType::Equal, ConditionValue::Uint8(6)),
        of("IP_REMOTE_ADDRESS", MatchType::Equal, ConditionValue::Uint32(0xC000_0201)),
        of("IP_REMOTE_ADDRESS", MatchType::Equal, ConditionValue::V4AddrMask { addr: 0x0A00_0000, mask: 0xFF00_0000 }),
        of(
            "IP_REMOTE_PORT",
            MatchType::Range,
            ConditionValue::Range {
                low: Box::new(ConditionValue::Uint16(1)),
                high: Box::new(ConditionValue::Uint16(9)),
            },
        ),
        of("FLAGS", MatchType::FlagsNoneSet, ConditionValue::Uint32(1)),
        of("ALE_APP_ID", MatchType::Equal, ConditionValue::ByteBlob(path)),
        of("ALE_USER_ID", MatchType::Equal, ConditionValue::SecurityDescriptor(descriptor)),
        of("ALE_PACKAGE_ID", MatchType::NotEqual, ConditionValue::Sid(Sid::null().bytes().to_vec())),
        of("IP_LOCAL_INTERFACE", MatchType::Equal, ConditionValue::Uint64(u64::MAX)),
    ];
    let filter = |action, action_key, conditions: &[Condition]| Filter {
        key: Guid(0),
        display: display.clone(),
        flags: 0,
        provider: Some(Guid(1)),
        data: vec![],
        layer,
        sublayer: Guid(2),
        weight: Weight::Exact(5),
        conditions: conditions.to_vec(),
        action,
        action_key,
        context: FilterContext::Raw(0),
    };
    session.add_filter(filter(0x1001, Guid(0), &conditions)).unwrap();
    session.add_filter(filter(0x5003, Guid(3), &[])).unwrap();
    (engine, conditions)
}

#[test]
fn what_the_engine_writes_is_read_back() {
    let (engine, conditions) = engine();
    let (mut state, mut filters) = (Vec::new(), Vec::new());
    filter_engine::xml::state(&engine, &mut state).unwrap();
    filter_engine::xml::filters(&engine, &mut filters).unwrap();
    let (state, filters) = (items(&state[..]).unwrap(), items(&filters[..]).unwrap());
    for read in [&state, &filters] {
        let found: Vec<_> =
            read.iter().filter_map(|item| if let Item::Filter(f) = item { Some(f) } else { None }).collect();
        let [blocks, asks] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(
            (blocks.name.as_str(), blocks.description.as_str()),
            ("a <name> & more\u{1F30A}", " spaces at the ends ")
        );
        assert_eq!((&blocks.action, &blocks.callout, blocks.weight), (&Action::Block, &None, Some(5)));
        assert_eq!((&blocks.provider, &blocks.sublayer), (&Some(Key::Guid(Guid(1))), &Key::Guid(Guid(2))));
        let values: Vec<_> = blocks.conditions.iter().map(|one| one.value.clone()).collect();
        let written: Vec<_> = conditions.iter().map(|one| Value::Known(one.value.clone())).collect();
        assert_eq!(values, written);
        assert_eq!((&asks.action, &asks.callout), (&Action::CalloutTerminating, &Some(Key::Guid(Guid(3)))));
    }
    let layers = state.iter().filter(|item| matches!(item, Item::Layer(_))).count();
    assert_eq!(layers, LayerTable::of(WindowsVersion::default()).iter().count());
    assert!(
        state
            .iter()
            .any(|item| matches!(item, Item::Sublayer(one) if one.key == Key::Guid(Guid(2)) && one.weight == 77))
    );
    assert!(
        state
            .iter()
            .any(|item| matches!(item, Item::Callout(one) if one.key == Key::Guid(Guid(3)) && !one.registered()))
    );
    assert!(state.iter().any(|item| matches!(item, Item::Provider(one) if one.service.as_deref() == Some("svc"))));
}

#[test]
fn utf_16_reads_as_utf_8_does() {
    let (engine, _) = engine();
    let mut state = Vec::new();
    filter_engine::xml::state(&engine, &mut state).unwrap();
    let text = String::from_utf8(state.clone()).unwrap();
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(items(&wide[..]).unwrap(), items(&state[..]).unwrap());
}

/// A file that was cut anywhere is refused, and the line is in it.
#[test]
fn a_file_that_was_cut_is_refused() {
    let (engine, _) = engine();
    let mut filters = Vec::new();
    filter_engine::xml::filters(&engine, &mut filters).unwrap();
    let lines = filters.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
    // The last bytes are the end of the root element and a line end.
    for len in 0..filters.len() - 1 {
        let error = items(&filters[..len]).expect_err("cut");
        assert!((1..=lines).contains(&error.line), "{len}: {error}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let filter = |inner: &str| format!("<wfpdiag>\n<filters>\n<item>\n{inner}\n</item></filters></wfpdiag>");
    let rest = "<filterKey>{00000000-0000-0000-0000-000000000001}</filterKey><layerKey>FWPM_LAYER_STREAM_V4</layerKey>\
        <subLayerKey>FWPM_SUBLAYER_UNIVERSAL</subLayerKey><action><type>FWP_ACTION_BLOCK</type></action>";
    for (text, line, what) in [
        (String::new(), 1, "there is no XML element"),
        ("hello\nworld".into(), 2, "there is no XML element"),
        ("<html>\n</html>".into(), 1, "<html> is not one of <wfpstate>"),
        ("<wfpdiag>\n<filters>\n</wfpdiag>".into(), 3, "not well-formed XML"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]>\n<wfpdiag/>".into(), 1, "document type"),
        (filter(rest), 3, "<item> has no <filterId>"),
        (filter(&format!("<filterId>x</filterId>{rest}")), 4, "<filterId> is \"x\": a decimal number"),
        (filter(&format!("<filterId>18446744073709551616</filterId>{rest}")), 4, "at most 64 bits"),
        (filter(&format!("<filterId>1</filterId>{}", rest.replace("FWP_ACTION_BLOCK", ""))), 4, "<type> is empty"),
        (filter("<filterId>&nonsense;</filterId>"), 4, "a reference that XML does not define"),
        ("<netEvents>\n<item><header/></item></netEvents>".into(), 2, "<item> has no <type>"),
        (format!("<wfpstate>{}", "<a>".repeat(100)), 1, "nested deeper"),
        (format!("<wfpdiag><filters><item>{}", "<a>".repeat(100)), 1, "nested deeper"),
    ] {
        let error = items(text.as_bytes()).expect_err(&text);
        assert!(error.what.contains(what) && error.line == line, "{text}: {error}");
    }
    let error = items(&b"<netEvents>\xFF\xFE</netEvents>"[..]).expect_err("not UTF-8");
    assert!(error.what.contains("neither UTF-8 nor UTF-16"), "{error}");
}

/// A file that never ends, as an attacker or a damaged disk has it.
struct Endless(&'static [u8], &'static [u8], usize);

impl Read for Endless {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        for byte in out.iter_mut() {
            *byte = match self.0.get(self.2) {
                Some(byte) => *byte,
                None => self.1[(self.2 - self.0.len()) % self.1.len()],
            };
            self.2 += 1;
        }
        Ok(out.len())
    }
}

#[test]
fn an_element_without_end_is_refused() {
    for (start, again) in [
        (&b"<wfpdiag><filters><item><filterKey>"[..], &b"x"[..]),
        (b"<wfpdiag><filters><item>", b"<a>x</a>"),
        (b"<wfpdiag><filters><item>", b"<a/>"),
        (b"<", b"x"),
        (b"<a b='", b"x"),
        (b"<!--", b"x"),
    ] {
        let error = items(Endless(start, again, 0)).expect_err("endless");
        assert!(error.what.contains("more than"), "{error}");
    }
    const { assert!(MOST_OF_ELEMENT < 1 << 30) };
}

/// In the form of the samples in Microsoft's windows-itpro-docs, with our own values.
const EVENTS: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<netEvents>
	<item>
		<header>
			<timeStamp>2026-03-01T10:11:12.345Z</timeStamp>
			<flags numItems="5">
				<item>FWPM_NET_EVENT_FLAG_IP_PROTOCOL_SET</item>
				<item>FWPM_NET_EVENT_FLAG_LOCAL_ADDR_SET</item>
				<item>FWPM_NET_EVENT_FLAG_REMOTE_ADDR_SET</item>
				<item>FWPM_NET_EVENT_FLAG_REMOTE_PORT_SET</item>
				<item>FWPM_NET_EVENT_FLAG_APP_ID_SET</item>
			</flags>
			<ipVersion>FWP_IP_VERSION_V6</ipVersion>
			<ipProtocol>17</ipProtocol>
			<localAddrV6.byteArray16>fe80::1</localAddrV6.byteArray16>
			<remoteAddrV6.byteArray16>2001:db8::2</remoteAddrV6.byteArray16>
			<localPort>0</localPort>
			<remotePort>53</remotePort>
			<scopeId>0</scopeId>
			<appId><data>5c0061002e006500780065000000</data><asString>\.a...e.x.e...</asString></appId>
			<userId>S-1-5-18</userId>
			<somethingOf2030><a/></somethingOf2030>
		</header>
		<type>FWPM_NET_EVENT_TYPE_PUBLIC_CLASSIFY_DROP</type>
		<classifyDrop>
			<filterId>70123</filterId>
			<layerId>50</layerId>
			<reauthReason>0</reauthReason>
			<originalProfile>1</originalProfile>
			<currentProfile>1</currentProfile>
			<msFwpDirection>MS_FWP_DIRECTION_OUT</msFwpDirection>
			<isLoopback>false</isLoopback>
		</classifyDrop>
		<internalFields>
			<terminatingFiltersInfo numItems="1">
				<item><filterId>70123</filterId><subLayer>FWPP_SUBLAYER_INTERNAL_FIREWALL_WF</subLayer><actionType>FWP_ACTION_BLOCK</actionType></item>
			</terminatingFiltersInfo>
			<filterOrigin>Query User Default</filterOrigin>
			<interfaceIndex>7</interfaceIndex>
		</internalFields>
	</item>
</netEvents>
"#;

#[test]
fn a_net_event_has_what_its_flags_say() {
    let read = items(EVENTS.as_bytes()).unwrap();
    let [Item::Event(event)] = read.as_slice() else { panic!("{read:?}") };
    assert_eq!(event.kind, EventKind::Drop);
    assert_eq!((event.protocol, event.filter_id, event.layer_id), (Some(17), Some(70123), Some(50)));
    assert_eq!((event.local.unwrap().to_string(), event.local_port), ("fe80::1".into(), None));
    assert_eq!((event.remote.unwrap().to_string(), event.remote_port), ("2001:db8::2".into(), Some(53)));
    assert_eq!((event.app.as_deref(), &event.user), (Some(r"\a.exe"), &None), "the user is not set");
    assert_eq!((event.direction, event.origin.as_deref()), (Some(Direction::Out), Some("Query User Default")));
    assert_eq!((event.interface, event.terminating.len()), (Some(7), 1));
}

#[test]
fn a_capture_has_its_state_and_its_events() {
    let item = EVENTS.lines().skip(3).take_while(|line| *line != "\t</item>").collect::<Vec<_>>().join("\n");
    let capture = format!(
        "<wfpdiag><sysInfo/><initialState><subLayers><item><subLayerKey>FWPM_SUBLAYER_LIPS</subLayerKey>\
         <weight>3</weight></item></subLayers></initialState><events><netEvent>{item}</netEvent></events></wfpdiag>"
    );
    let read = items(capture.as_bytes()).unwrap();
    assert!(matches!(read.as_slice(), [Item::Sublayer(_), Item::Event(_)]), "{read:?}");
}

#[test]
fn netsh_may_say_something_around_its_xml() {
    let text = format!("Collecting data...\n{EVENTS}\nDone.\n");
    assert_eq!(items(text.as_bytes()).unwrap(), items(EVENTS.as_bytes()).unwrap());
}

/// In the form that event-5157.md of windows-itpro-docs shows, with the fields that came with Windows 11.
#[test]
fn audits_of_drops_are_read_and_others_are_not() {
    let audit = |id: u32| {
        format!(
            "<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System><Provider Name='P'/>\
             <EventID>{id}</EventID><TimeCreated SystemTime='2026-03-01T10:11:12.3Z'/></System><EventData>\
             <Data Name='ProcessID'>4556</Data><Data Name='Application'>\\device\\x.exe</Data>\
             <Data Name='Direction'>%%14593</Data><Data Name='SourceAddress'>10.0.0.10</Data>\
             <Data Name='SourcePort'>3333</Data><Data Name='DestAddress'>192.0.2.1</Data>\
             <Data Name='DestPort'>443</Data><Data Name='Protocol'>6</Data>\
             <Data Name='InterfaceIndex'>5</Data><Data Name='FilterOrigin'>{{A-RULE}}</Data>\
             <Data Name='FilterRTID'>110398</Data><Data Name='LayerRTID'>48</Data></EventData></Event>"
        )
    };
    let bare = format!("{}\r\n{}\r\n{}\r\n", audit(5157), audit(5156), audit(5152));
    let wrapped = format!("<Events>{}{}{}</Events>", audit(5157), audit(5156), audit(5152));
    for text in [bare, wrapped] {
        let read = items(text.as_bytes()).unwrap();
        let [Item::Audit(5157, event), Item::Audit(5152, _)] = read.as_slice() else { panic!("{read:?}") };
        let NetEvent { filter_id, layer_id, local_port, remote_port, .. } = *event;
        assert_eq!((filter_id, layer_id, local_port, remote_port), (Some(110_398), Some(48), Some(3333), Some(443)));
        assert_eq!((event.ends, event.direction), (Ends::SourceDestination, Some(Direction::Out)));
        assert_eq!((event.origin.as_deref(), event.interface), (Some("{A-RULE}"), Some(5)));
        assert_eq!((event.time.as_str(), event.process), ("2026-03-01T10:11:12.3Z", Some(4556)));
    }
}

/// A cabinet with these files.
fn cabinet(files: &[(&str, &[u8])]) -> Vec<u8> {
    use std::io::Write;
    let mut builder = cab::CabinetBuilder::new();
    let folder = builder.add_folder(cab::CompressionType::MsZip);
    for (name, _) in files {
        folder.add_file(*name);
    }
    let mut writer = builder.build(io::Cursor::new(Vec::new())).unwrap();
    for (_, content) in files {
        writer.next_file().unwrap().unwrap().write_all(content).unwrap();
    }
    assert!(writer.next_file().unwrap().is_none());
    writer.finish().unwrap().into_inner()
}

#[test]
fn a_cabinet_is_read_for_its_xml() {
    let bytes = cabinet(&[("wfpdiag.etl", b"trace"), ("wfpdiag.xml", EVENTS.as_bytes())]);
    assert!(is_cabinet(&bytes) && !is_cabinet(EVENTS.as_bytes()));
    let mut opened = Cabinet::open(io::Cursor::new(&bytes)).unwrap();
    assert_eq!(opened.name(), "wfpdiag.xml");
    assert_eq!(items(opened.xml().unwrap()).unwrap(), items(EVENTS.as_bytes()).unwrap());
    // A second pass, for what is joined.
    assert_eq!(items(opened.xml().unwrap()).unwrap().len(), 1);
    let none = cabinet(&[("wfpdiag.etl", b"trace")]);
    assert!(matches!(Cabinet::open(io::Cursor::new(&none)), Err(CabinetError::NoXml)));
    for len in 0..bytes.len() {
        let Ok(mut opened) = Cabinet::open(io::Cursor::new(&bytes[..len])) else { continue };
        let Ok(xml) = opened.xml() else { continue };
        assert!(items(xml).is_err(), "{len} bytes of {}", bytes.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever a file was turned into, it is read or refused, with a line that it has.
    #[test]
    fn a_damaged_file_is_read_or_refused(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9)) {
        let mut bytes = EVENTS.as_bytes().to_vec();
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        let most = bytes.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        if let Err(error) = items(&bytes[..]) {
            prop_assert!(error.line <= most && !error.what.is_empty(), "{}", error);
        }
    }
}
