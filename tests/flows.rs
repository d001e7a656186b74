//! The flows that live now, as `sluice flows` shows them.

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use sluice_control::flows;
use support::Rig;
use wire::{APP_ID, PID, Segment, Tcp, Wire};

const POLICY: &str =
    "[default]\noutbound = \"permit\"\n[[rule]]\nname = \"web\"\naction = \"permit\"\nremote-port = 80\nlog = true\n";

#[test]
fn a_flow_says_what_it_carried_and_which_rule_stands_behind_it() {
    let rig = Rig::with_policy(POLICY);
    let mut wire = Wire::new(&rig.machine);
    assert_eq!(flows(&rig.host).unwrap(), []);
    let mut web = wire.establish("203.0.113.10", 80);
    let _other = wire.establish("203.0.113.11", 7);
    for _ in 0..5 {
        wire.send(&mut web, Segment::Data(&[0; 1000]));
    }
    let listed = flows(&rig.host).unwrap();
    let [most, least] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((most.remote_address.to_string().as_str(), most.remote_port), ("203.0.113.10", 80));
    assert_eq!((most.verdict.as_deref(), most.rule_name.as_deref()), (Some("permit"), Some("web")));
    assert_eq!((most.process_id, most.application.as_deref()), (Some(PID), Some(APP_ID)));
    assert!(most.bytes_out >= 5000 && most.packets_out >= 5, "{most}");
    assert!(
        most.to_string().contains("203.0.113.10:80") && most.to_string().contains(" permit rule \"web\" "),
        "{most}"
    );
    assert_eq!((least.remote_port, least.rule, least.verdict.as_deref()), (7, None, Some("permit")));
    // What the policy in force says, and not that under which it began.
    rig.load("[default]\noutbound = \"block\"\n");
    assert!(flows(&rig.host).unwrap().iter().all(|flow| flow.verdict.as_deref() == Some("block")));
    wire.finish();
    rig.uninstall();
}

/// The clock of the driver has a resolution of a second and a half.
#[test]
fn a_flow_says_when_it_began_and_when_it_was_used_last() {
    let rig = Rig::with_policy(POLICY);
    let mut wire = Wire::new(&rig.machine);
    let mut web = wire.establish("203.0.113.10", 80);
    let idle = wire.establish("203.0.113.11", 80);
    let lived = |rig: &Rig, port: &Tcp| {
        let flows = flows(&rig.host).unwrap();
        let flow = flows.iter().find(|flow| flow.remote_address == port.remote()).expect("it lives").clone();
        (flow.first.as_second(), flow.last.as_second(), flow.to_string())
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let (first, last, line) = lived(&rig, &web);
    assert!((first - now).abs() <= 3 && first <= last && last - first <= 2, "{first} {last} {now}");
    assert!(line.contains(" since 20") && line.contains(" last 20"), "{line}");
    // The machine sleeps for an hour. Its clock is right again as soon as the driver's timer has run.
    rig.machine.sleep(Duration::from_secs(3600));
    let begun = Instant::now();
    let last = loop {
        wire.send(&mut web, Segment::Data(b"more"));
        let (same, last, _) = lived(&rig, &web);
        assert_eq!(same, first, "when it began does not change");
        if last >= now + 3600 || begun.elapsed() > Duration::from_secs(20) {
            break last;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!((now + 3600..now + 3640).contains(&last), "{last} {now}");
    let (same, unused, _) = lived(&rig, &idle);
    assert!((same - first).abs() <= 2 && unused <= now + 3, "nobody used it since");
    wire.finish();
    rig.uninstall();
}

#[test]
fn many_flows_are_listed_once_each_while_others_come_and_go() {
    const MANY: usize = 3000;
    let rig = Rig::with_policy(POLICY);
    let mut wire = Wire::new(&rig.machine);
    let address = |n: usize| format!("198.18.{}.{}", n / 250, n % 250 + 1);
    let _lasting: Vec<_> = (0..MANY).map(|n| wire.establish(&address(n), 80)).collect();
    let listed = std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let mut wire = Wire::new(&rig.machine);
            for port in 1000..1200 {
                wire.establish("203.0.113.9", port);
            }
            wire.finish();
        });
        let listed = flows(&rig.host).unwrap();
        others.join().unwrap();
        listed
    });
    let lasting: Vec<String> =
        listed.iter().filter(|flow| flow.remote_port == 80).map(|flow| flow.remote_address.to_string()).collect();
    assert_eq!(lasting.len(), MANY);
    assert_eq!(lasting.into_iter().collect::<BTreeSet<_>>(), (0..MANY).map(address).collect());
    wire.finish();
    rig.uninstall();
}
