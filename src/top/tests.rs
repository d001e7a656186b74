use super::model::Top;
use super::sample::Sample;
use super::{drawn, ends};
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use sluice_control::{EventLine, FlowLine};
use sluice_protocol::event::{self, direction, verdict};
use sluice_protocol::status::Counter;
use std::time::Duration;
use zerocopy::FromZeros;

fn event(rule: Option<&str>, verdict: u8, remote: u8) -> EventLine {
    let mut octets = [0; 16];
    octets[..4].copy_from_slice(&[203, 0, 113, remote]);
    let event = sluice_protocol::Event {
        verdict,
        direction: direction::OUTBOUND,
        protocol: 6,
        ip_version: 4,
        remote: octets,
        remote_port: 443,
        rule: if rule.is_some() { 0 } else { event::RULE_DEFAULT },
        ..sluice_protocol::Event::new_zeroed()
    };
    EventLine {
        rule_name: rule.map(str::to_owned),
        application: Some(r"\device\harddiskvolume3\windows\system32\curl.exe".to_owned()),
        ..EventLine::from(&event)
    }
}

fn flow(number: u64, bytes: u64) -> FlowLine {
    FlowLine {
        flow: number,
        direction: "out".into(),
        protocol: "tcp".into(),
        local_address: [10, 0, 0, 5].into(),
        local_port: 50_000,
        remote_address: [203, 0, 113, number as u8].into(),
        remote_port: 443,
        packets_out: bytes / 100,
        bytes_out: bytes,
        packets_in: bytes,
        bytes_in: 2 * bytes,
        first: Default::default(),
        last: Default::default(),
        verdict: None,
        rule: None,
        essential: None,
        rule_name: None,
        name: Some("example.com".to_owned()),
        process_id: None,
        application: Some(r"\device\x\browser.exe".to_owned()),
    }
}

/// Five looks, a second apart.
fn top() -> Top {
    let mut top = Top::new();
    for at in 0..5u64 {
        let mut counters: std::collections::BTreeMap<_, _> = Counter::ALL.iter().map(|&(_, name)| (name, 0)).collect();
        counters.extend([
            ("connects_permitted", 30 * at),
            ("connects_blocked", 2 * at),
            ("bytes_out", 3_000_000 * at),
            ("packets_in", 7 * at),
            ("flows_refused", at),
        ]);
        let events = (0..at).flat_map(|_| {
            [event(Some("web"), verdict::PERMIT, 1), event(Some("qua\u{1b}rantine"), verdict::BLOCK, 66)]
        });
        let events = events.chain([event(None, verdict::PERMIT, 9)]).collect();
        let flows = vec![flow(1, 1_000 * at), flow(2, 100_000 * at), flow(3, 50)];
        top.add(Sample {
            at: Duration::from_secs(at),
            counters,
            policy: (3, 7),
            flows,
            events,
            unseen: u64::from(at == 4),
        });
    }
    top
}

#[test]
fn looks_come_to_rates_rules_talkers_and_what_is_blocked() {
    let top = top();
    assert_eq!((top.rates.permitted, top.rates.blocked, top.rates.bytes_out), (30.0, 2.0, 3_000_000.0));
    let rules: Vec<_> = top.rules.iter().map(|rule| (rule.name.as_str(), rule.permitted, rule.blocked)).collect();
    assert_eq!(rules, [("qua\u{1b}rantine", 0, 10), ("web", 10, 0), ("default out", 5, 0)]);
    assert_eq!(top.rules[1].history, [1, 2, 3, 4]);
    let talkers: Vec<_> = top.talkers.iter().map(|one| (one.remote.ip().to_string(), one.bytes_out)).collect();
    assert_eq!(talkers, [("203.0.113.2".to_owned(), 100_000.0), ("203.0.113.1".to_owned(), 1_000.0)]);
    assert_eq!((top.blocked.len(), top.blocked[0].count), (1, 10));
    assert_eq!((top.drops["flows_refused"], top.unseen), (4, 1));
}

#[test]
fn a_driver_that_was_loaded_again_counts_from_nothing() {
    let mut top = top();
    let counters = Counter::ALL.iter().map(|&(_, name)| (name, 0)).collect();
    top.add(Sample { at: Duration::from_secs(9), counters, ..Sample::default() });
    assert_eq!((top.rates.permitted, top.rates.bytes_out), (0.0, 0.0));
}

#[test]
fn a_picture_of_80_by_24_has_everything() {
    insta::assert_snapshot!(drawn(&top(), (80, 24)).unwrap());
}

#[test]
fn a_larger_one_has_more_room() {
    insta::assert_snapshot!(drawn(&top(), (120, 40)).unwrap());
}

#[test]
fn every_size_is_drawn_and_nothing_foreign_acts_on_the_terminal() {
    let top = top();
    for size in [(1, 1), (79, 24), (80, 23), (80, 24), (81, 25), (200, 24), (80, 100), (400, 200)] {
        let text = drawn(&top, size).unwrap();
        assert_eq!(text.lines().count(), usize::from(size.1));
        assert!(!text.contains('\u{1b}'), "{text}");
    }
    assert!(drawn(&top, (79, 24)).unwrap().contains("needs 80 columns"));
}

#[test]
fn q_and_ctrl_c_end_it_and_other_keys_do_not() {
    let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
    assert!(ends(&key(KeyCode::Char('q'), KeyModifiers::NONE)));
    assert!(ends(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)));
    assert!(!ends(&key(KeyCode::Char('c'), KeyModifiers::NONE)));
    assert!(!ends(&Event::Resize(80, 24)));
}
