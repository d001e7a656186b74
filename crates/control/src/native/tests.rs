use super::*;
use crate::error::Kind;
use crate::policy::tests::file;
use crate::testing::{Memory, Objects, installed};
use crate::{doctor, status, uninstall};
use sluice_host::{Condition, ConditionValue, FilterAction, MatchType};
use sluice_protocol::object::Point;

const OPTIONS: NativeOptions = NativeOptions { leave_out_blocks: false, test: true };
const OPEN: NativeOptions = NativeOptions { leave_out_blocks: true, test: true };

const POLICY: &str = r#"
[default]
outbound = "permit"
inbound = "block"

[[rule]]
name = "no curl"
action = "block"
direction = "outbound"
application = 'C:\Windows\System32\CURL.exe'
remote = ["192.0.2.0/24", "198.51.100.7", "203.0.113.10-203.0.113.12"]
remote-port = [443, "8000-8080"]
"#;

fn loaded(memory: &Memory, policy: &str) -> NativeReport {
    load(memory, file(policy).path(), OPTIONS).unwrap()
}

fn filters(memory: &Memory, point: Point, ip_version: u8) -> Vec<Filter> {
    let layer = object::layer(point);
    let key = if ip_version == 4 { layer.v4.key } else { layer.v6.key };
    memory.objects.borrow().filters.iter().filter(|filter| filter.layer == Guid(key)).cloned().collect()
}

#[test]
fn a_rule_becomes_filters_where_its_traffic_is_decided() {
    let memory = Memory::new();
    let report = loaded(&memory, POLICY);
    assert_eq!((report.rules, report.left_out.len(), report.replaced), (1, 0, 0));
    let connect = filters(&memory, Point::Connect, 4);
    let [rule, default] = connect.as_slice() else { panic!("{connect:?}") };
    assert_eq!((rule.action, default.action), (FilterAction::Block, FilterAction::Permit));
    assert!(
        matches!((rule.weight, default.weight), (sluice_host::Weight::Exact(a), sluice_host::Weight::Exact(b)) if a > b)
    );
    assert!(rule.name.ends_with("rule `no curl`") && rule.description.ends_with(":6"), "{rule:?}");
    let of = |field| -> Vec<&Condition> { rule.conditions.iter().filter(|one| one.field == field).collect() };
    let addresses: Vec<_> = of(objects::field::REMOTE_ADDRESS).into_iter().map(|one| &one.value).collect();
    let number = ConditionValue::Uint32;
    assert_eq!(
        addresses,
        [
            &ConditionValue::V4AddrMask { addr: 0xc000_0200, mask: 0xffff_ff00 },
            &number(0xc633_6407),
            &ConditionValue::Range { low: Box::new(number(0xcb00_710a)), high: Box::new(number(0xcb00_710c)) },
        ]
    );
    assert_eq!(of(objects::field::REMOTE_PORT)[1].match_type, MatchType::Range);
    let path: Vec<u8> =
        "\\device\\harddiskvolume1\\windows\\system32\\curl.exe\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(of(objects::field::APP_ID)[0].value, ConditionValue::ByteBlob(path));
    // Its addresses are of IPv4 alone, and it is for what goes out.
    assert_eq!(filters(&memory, Point::Connect, 6).len(), 1);
    assert!(filters(&memory, Point::Accept, 4).iter().all(|filter| !filter.name.contains("curl")));
    assert_eq!(filters(&memory, Point::Accept, 4).last().unwrap().action, FilterAction::Block);
}

#[test]
fn what_no_filter_expresses_is_left_out_if_it_permits_and_refused_if_it_blocks() {
    let rule = |action: &str, condition: &str| {
        format!("[default]\noutbound = \"block\"\n\n[[rule]]\nname = \"it\"\naction = \"{action}\"\n{condition}\n")
    };
    for (condition, why) in [
        ("remote-name = \"example.com\"", "asks for a name"),
        (r"application = 'C:\Tools\*'", "a folder of programs"),
        ("user = \"S-1-5-18\"\ngroup = \"S-1-5-32-545\"", "at once"),
        ("package = \"S-1-15-2-1\"", "every package"),
        ("direction = \"forward\"\nprotocol = \"tcp\"\nremote-port = 80", "what is forwarded"),
        ("direction = \"listen\"\nlocal-port = 80", "who may have a port"),
        ("direction = \"bind\"\nlocal-port = 80", "who may have a port"),
        ("schedule = \"s\"\n[schedule.s]\nhours = \"08:00-17:00\"", "has a schedule"),
    ] {
        let memory = Memory::new();
        let report = load(&memory, file(&rule("permit", condition)).path(), OPTIONS).unwrap();
        let [left] = report.left_out.as_slice() else { panic!("{condition}: {report:?}") };
        assert!(left.reason.contains(why) && left.line == 4, "{left:?}");

        let before = memory.objects.borrow().clone();
        let error = load(&memory, file(&rule("block", condition)).path(), OPTIONS).unwrap_err();
        assert!(error.to_string().contains(why) && error.kind() == Kind::Policy, "{error}");
        assert_eq!(*memory.objects.borrow(), before, "nothing changes");
        assert_eq!(load(&memory, file(&rule("block", condition)).path(), OPEN).unwrap().left_out.len(), 1);
    }
}

/// Without it what it asks about would go to later rules, and pass.
#[test]
fn a_policy_that_asks_is_refused() {
    for unanswered in ["permit", "block"] {
        let rule = format!(
            "[[rule]]\nname = \"it\"\naction = \"ask\"\ndirection = \"outbound\"\nwhen-unanswered = \"{unanswered}\"\n"
        );
        let memory = Memory::new();
        let error = load(&memory, file(&rule).path(), OPTIONS).unwrap_err();
        assert!(error.to_string().contains("asks somebody") && error.kind() == Kind::Policy, "{error}");
        assert_eq!(*memory.objects.borrow(), Objects::default());
    }
}

/// Filters would let everybody have every port.
#[test]
fn a_default_about_ports_that_blocks_is_refused() {
    for direction in ["listen", "bind"] {
        let memory = Memory::new();
        let policy = format!("[default]\n{direction} = \"block\"\n");
        let error = load(&memory, file(&policy).path(), OPTIONS).unwrap_err();
        assert!(error.to_string().contains(&format!("default of {direction}")), "{error}");
        assert_eq!(*memory.objects.borrow(), Objects::default(), "nothing changes");
        load(&memory, file(&policy.replace("block", "permit")).path(), OPTIONS).unwrap();
    }
}

#[test]
fn another_load_replaces_all_at_once_and_unload_leaves_nothing() {
    let memory = Memory::new();
    let first = loaded(&memory, POLICY);
    let second = loaded(&memory, "[default]\noutbound = \"permit\"\ninbound = \"permit\"\n");
    assert_eq!((second.replaced, second.filters), (first.filters, 6));
    let calls = memory.calls.borrow().len();
    memory.fail_at.set(Some(calls + 20));
    let before = memory.objects.borrow().clone();
    load(&memory, file(POLICY).path(), OPTIONS).unwrap_err();
    memory.fail_at.set(None);
    assert_eq!(*memory.objects.borrow(), before, "a load that fails changes nothing");
    assert_eq!(unload(&memory).unwrap(), Some(6));
    assert_eq!(*memory.objects.borrow(), Objects::default());
    assert_eq!(unload(&memory).unwrap(), None);
}

#[test]
fn status_and_doctor_know_them_and_uninstall_removes_them() {
    let memory = Memory::new();
    loaded(&memory, POLICY);
    let state = status(&memory).unwrap().native.unwrap();
    assert!(state.changed.is_empty() && state.layers["ALE_AUTH_CONNECT_V4"] == 2, "{state:?}");
    assert!(doctor(&memory).unwrap().findings.is_empty());

    memory.objects.borrow_mut().filters[0].action = FilterAction::Permit;
    assert_eq!(status(&memory).unwrap().native.unwrap().changed.len(), 1);
    assert!(doctor(&memory).unwrap().findings[0].mend.contains("--native"));
    memory.objects.borrow_mut().filters[0].action = FilterAction::Block;
    memory.objects.borrow_mut().filters[0].conditions.pop();
    assert_eq!(status(&memory).unwrap().native.unwrap().changed.len(), 1, "a condition is gone");

    let report = uninstall(&memory).unwrap();
    assert!(report.objects_removed > 8 && report.left.is_empty(), "{report:?}");
    assert_eq!(*memory.objects.borrow(), Objects::default());
}

#[test]
fn the_driver_and_its_filters_do_not_decide_beside_them() {
    let memory = installed();
    assert!(matches!(load(&memory, file(POLICY).path(), OPTIONS), Err(ControlError::DriverPresent)));

    let memory = Memory::new();
    loaded(&memory, POLICY);
    let folder = tempfile::tempdir().unwrap();
    let driver = crate::testing::driver_file(folder.path(), 1);
    let error = crate::install(&memory, &driver).unwrap_err();
    assert!(error.to_string().contains("lets everything pass"), "{error}");
    let policy = file("[default]\noutbound = \"permit\"\n");
    let options = crate::install::Options { policy: Some(policy.path()), ..crate::install::Options::of(&driver) };
    crate::install::install_with(&memory, &options).unwrap();
    assert_eq!(status(&memory).unwrap().native, None, "the driver has taken over");
}

#[test]
fn long_lists_are_split_and_bounded() {
    let addresses = |count: u32| (0..count).map(|at| std::net::Ipv4Addr::from(0x0a00_0000 + 2 * at).to_string());
    let policy = |count| {
        let list: Vec<String> = addresses(count).map(|one| format!("\"{one}\"")).collect();
        format!(
            "[[rule]]\nname = \"long\"\naction = \"block\"\ndirection = \"outbound\"\nremote = [{}]\n",
            list.join(",")
        )
    };
    let memory = Memory::new();
    loaded(&memory, &policy(1_300));
    let sizes: Vec<usize> = filters(&memory, Point::Connect, 4).iter().map(|filter| filter.conditions.len()).collect();
    assert_eq!(sizes, [512, 512, 276, 0]);
    let error = load(&memory, file(&policy(70_000)).path(), OPTIONS).unwrap_err();
    assert!(error.to_string().contains("70000 conditions"), "{error}");
}
