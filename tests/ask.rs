//! Rules that ask, on the real sluice.sys: a connection is held until the program that answers has, or until what holds
//! without an answer does.

#[path = "support/held.rs"]
mod held;
#[path = "support/hello.rs"]
mod hello;
#[path = "ask/scope.rs"]
mod scope;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{ops::ControlFlow, process, time::Duration};

use held::{Card, Stands};
use hello::{answer as dns_answer, question as dns_question};
use ntsim::host::LocalHost;
use shim::{layer::Direction, stack::Verdict as Passed};
use sluice_control::{Answered, Answerer, ControlError, EventOptions, Item, Question, Scope, events, load};
use sluice_host::{Device, Host, ServiceState};
use sluice_policy::Verdict;
use sluice_protocol::{DEVICE_PATH, SERVICE_NAME, ask, event::verdict, ioctl};
use support::Rig;
use wire::{APP_ID, Segment, udp};
use zerocopy::IntoBytes;

const ASKS: &str = r#"
    [[rule]]
    name = "anything"
    action = "ask"
    direction = "outbound"
    log = true
"#;
const PERMITS_UNANSWERED: &str = r#"
    [[rule]]
    name = "anything"
    action = "ask"
    direction = "outbound"
    when-unanswered = "permit"
    answer-within = "5s"
    log = true
"#;
const REMOTE: [&str; 2] = ["203.0.113.10", "2001:db8:1::10"];
const PID: u32 = 4244;

/// The only open question.
fn only(answerer: &mut Answerer) -> Question {
    let mut open = answerer.open().expect("the driver answers");
    assert_eq!(open.len(), 1, "{open:?}");
    open.remove(0)
}

fn open(answerer: &mut Answerer) -> usize {
    answerer.open().expect("the driver answers").len()
}

fn give(answerer: &mut Answerer, id: u64, verdict: Verdict, scope: Scope) {
    assert_eq!(answerer.answer(id, verdict, scope).expect("the driver answers"), Answered::Yes);
}

fn lines(host: &LocalHost) -> Vec<String> {
    let mut lines = Vec::new();
    events(host, &EventOptions::default(), &mut |item| {
        if let Item::Event(line) = item {
            lines.push(line.to_string());
        }
        ControlFlow::Continue(())
    })
    .expect("events");
    lines
}

#[test]
fn a_connection_waits_until_it_is_permitted_or_blocked() {
    for remote in REMOTE {
        let rig = Rig::with_policy(ASKS);
        let mut card = Card::new(&rig.machine, PID);
        let mut answerer = Answerer::begin(&rig.host).expect("it may answer");

        let (stands, mut tcp) = card.connect(remote, 443);
        assert_eq!(stands, Stands::Held);
        assert_eq!(card.outcome(), (0, 0), "nothing of it passes");
        let asked = only(&mut answerer);
        assert_eq!((asked.process_id, asked.application.as_deref()), (Some(PID), Some(APP_ID)));
        assert_eq!((asked.remote_address.to_string().as_str(), asked.remote_port), (remote, 443));
        assert_eq!((asked.rule_name.as_deref(), asked.when_unanswered), (Some("anything"), Verdict::Block));
        assert_eq!((asked.protocol.as_ref(), asked.held, asked.user.as_deref()), ("tcp", 1, Some("S-1-22-1-1000")));
        assert!((1..=30_000).contains(&asked.milliseconds), "{}", asked.milliseconds);
        give(&mut answerer, asked.id, Verdict::Permit, Scope::Once);
        card.await_outcome((1, 0));
        assert!(card.talks(&mut tcp), "the flow keeps its answer");
        assert_eq!(open(&mut answerer), 0);

        let (stands, _) = card.connect(remote, 443);
        assert_eq!(stands, Stands::Held, "it was answered once");
        let asked = only(&mut answerer);
        give(&mut answerer, asked.id, Verdict::Block, Scope::Once);
        card.await_outcome((0, 1));
        assert!(card.says(&mut tcp), "the other connection goes on");

        assert_eq!(rig.counter("questions_asked"), 2);
        assert_eq!((rig.counter("questions_answered"), rig.counter("connections_held")), (2, 2));
        assert_eq!((rig.counter("connects_permitted"), rig.counter("connects_blocked")), (1, 1));
        let lines = lines(&rig.host);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains(" permit out ") && lines[0].contains("[answered]"), "{}", lines[0]);
        assert!(lines[1].contains(" block  out ") && lines[1].contains("[answered]"), "{}", lines[1]);
        drop(answerer);
        card.finish();
        rig.uninstall();
    }
}

#[test]
fn who_does_not_answer_in_time_gets_what_the_rule_says() {
    for (policy, expected) in [(ASKS, (0, 1)), (PERMITS_UNANSWERED, (1, 0))] {
        let rig = Rig::with_policy(policy);
        let mut card = Card::new(&rig.machine, PID);
        let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
        let (_, mut tcp) = card.connect(REMOTE[0], 443);
        let asked = only(&mut answerer);
        rig.machine.clock.push(Duration::from_secs(3));
        assert_eq!((card.outcome(), open(&mut answerer)), ((0, 0), 1), "there is time");
        rig.machine.clock.push(Duration::from_secs(28));
        card.await_outcome(expected);
        assert_eq!(open(&mut answerer), 0);
        assert_eq!(answerer.answer(asked.id, Verdict::Permit, Scope::Once).expect("an answer"), Answered::Closed);
        assert!(expected == (0, 1) || card.talks(&mut tcp));
        assert_eq!((rig.counter("questions_timed_out"), rig.counter("questions_answered")), (1, 0));
        assert!(lines(&rig.host)[0].contains("[not answered in time]"));
        drop(answerer);
        card.finish();
        rig.uninstall();
    }
}

#[test]
fn without_anybody_to_ask_nothing_waits() {
    for (policy, stands) in [(ASKS, Stands::Refused), (PERMITS_UNANSWERED, Stands::Sent)] {
        let rig = Rig::with_policy(policy);
        let mut card = Card::new(&rig.machine, PID);
        let (found, mut tcp) = card.connect(REMOTE[0], 443);
        assert_eq!(found, stands);
        if stands == Stands::Sent {
            assert!(card.talks(&mut tcp));
        }
        assert_eq!(rig.counter("not_asked_for_nobody"), 1);
        assert!(lines(&rig.host)[0].contains("[nobody to ask]"));
        card.finish();
        rig.uninstall();
    }
}

/// However it ends: its handle is closed.
#[test]
fn when_whoever_answers_ends_every_open_question_is_closed_at_once() {
    let rig = Rig::with_policy(ASKS);
    let mut card = Card::new(&rig.machine, PID);
    let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
    for remote in ["203.0.113.1", "203.0.113.2", "203.0.113.2"] {
        assert_eq!(card.connect(remote, 443).0, Stands::Held);
    }
    assert_eq!(open(&mut answerer), 2);
    drop(answerer);
    card.await_outcome((0, 3));
    assert_eq!(card.connect("203.0.113.1", 443).0, Stands::Refused, "nobody is there");
    assert_eq!((rig.counter("questions_dropped"), rig.counter("connections_held")), (2, 3));
    let lines = lines(&rig.host);
    assert!(lines[..3].iter().all(|line| line.contains("[not answered any more]")), "{lines:?}");
    card.finish();
    rig.uninstall();
}

#[test]
fn what_a_process_asks_alike_is_one_question() {
    let rig = Rig::with_policy(ASKS);
    let mut card = Card::new(&rig.machine, PID);
    let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
    for _ in 0..5 {
        assert_eq!(card.connect(REMOTE[0], 443).0, Stands::Held);
    }
    assert_eq!((only(&mut answerer).held, rig.counter("questions_asked")), (5, 1));
    assert_eq!(card.connect(REMOTE[0], 80).0, Stands::Held, "another port");
    card.becomes(PID + 4);
    assert_eq!(card.connect(REMOTE[0], 443).0, Stands::Held, "another process");
    let asked = answerer.open().expect("questions");
    assert_eq!(asked.iter().map(|one| one.held).collect::<Vec<_>>(), [5, 1, 1]);
    card.becomes(PID);
    give(&mut answerer, asked[0].id, Verdict::Block, Scope::Once);
    assert_eq!(open(&mut answerer), 2);
    drop(answerer);
    card.serve();
    card.finish();
    rig.uninstall();
}

/// A question about a process that has ended is nobody's any more, and cannot be answered for whoever gets its number.
#[test]
fn questions_end_with_their_process() {
    let rig = Rig::with_policy(ASKS);
    let mut card = Card::new(&rig.machine, PID);
    let process = rig.machine.start_process(PID.into(), 4, r"\Device\x.exe", "x").expect("it starts");
    let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
    card.connect(REMOTE[0], 443);
    let asked = only(&mut answerer);
    rig.machine.end_process(process, 0);
    assert_eq!(open(&mut answerer), 0);
    assert_eq!(answerer.answer(asked.id, Verdict::Permit, Scope::Process).expect("an answer"), Answered::Closed);
    card.await_outcome((0, 1));
    assert_eq!(rig.counter("questions_dropped"), 1);
    drop(answerer);
    card.finish();
    rig.uninstall();
}

#[test]
fn whoever_answers_is_not_asked_about_itself() {
    let rig = Rig::with_policy(ASKS);
    let mut card = Card::new(&rig.machine, process::id());
    assert_eq!(card.connect(REMOTE[0], 443).0, Stands::Refused, "nobody answers yet");
    let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
    let (stands, mut tcp) = card.connect(REMOTE[0], 443);
    assert_eq!((stands, open(&mut answerer)), (Stands::Sent, 0));
    assert!(card.talks(&mut tcp));
    assert!(lines(&rig.host)[1].contains("[answers itself]"));
    // The same program in another process is asked about: its path proves nothing.
    card.becomes(process::id() + 4);
    assert_eq!((card.connect(REMOTE[0], 443).0, open(&mut answerer)), (Stands::Held, 1));
    drop(answerer);
    card.serve();
    card.becomes(process::id());
    assert_eq!(card.connect(REMOTE[0], 443).0, Stands::Refused, "it answers no more");
    card.finish();
    rig.uninstall();
}

#[test]
fn what_there_is_no_room_for_is_not_asked() {
    let rig = Rig::with_policy(ASKS);
    let mut card = Card::new(&rig.machine, PID);
    let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
    // One process has as many connections as one may.
    for _ in 0..ask::MAX_HELD_BY_ONE {
        assert_eq!(card.connect(REMOTE[0], 443).0, Stands::Held);
    }
    assert_eq!(card.connect(REMOTE[0], 443).0, Stands::Refused);
    assert_eq!(card.connect(REMOTE[1], 443).0, Stands::Refused);
    // And the others, until there is no room at all.
    for other in 1..ask::MAX_HELD / ask::MAX_HELD_BY_ONE {
        card.becomes(PID + 4 * other as u32);
        (0..ask::MAX_HELD_BY_ONE).for_each(|_| assert_eq!(card.connect(REMOTE[0], 443).0, Stands::Held));
    }
    card.becomes(PID + 1000);
    assert_eq!(card.connect(REMOTE[0], 443).0, Stands::Refused);
    assert_eq!(rig.counter("not_asked_for_want_of_room"), 3);
    assert!(lines(&rig.host)[0].contains("[no room to ask]"));
    for asked in answerer.open().expect("questions") {
        give(&mut answerer, asked.id, Verdict::Block, Scope::Once);
    }
    card.serve();
    // Then as many questions as there may be, of several processes.
    for number in 0..ask::MAX_QUESTIONS {
        card.becomes(PID + 4 * (number as u32 % 4));
        assert_eq!(card.connect(REMOTE[0], 1000 + number as u16).0, Stands::Held);
    }
    assert_eq!(card.connect(REMOTE[0], 2000).0, Stands::Refused);
    assert_eq!(card.connect(REMOTE[0], 1000 + ask::MAX_QUESTIONS as u16 - 1).0, Stands::Held, "that is asked already");
    assert_eq!(open(&mut answerer), ask::MAX_QUESTIONS);
    drop(answerer);
    card.serve();
    card.finish();
    rig.uninstall();
}

#[test]
fn a_new_policy_decides_what_is_open() {
    let rig = Rig::with_policy(ASKS);
    let mut card = Card::new(&rig.machine, PID);
    let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
    for port in [80, 443, 22] {
        assert_eq!(card.connect(REMOTE[0], port).0, Stands::Held);
    }
    let rule = |action: &str, port: u16| {
        format!(
            "[[rule]]\nname = \"{action}\"\naction = \"{action}\"\ndirection = \"outbound\"\nremote-port = {port}\n"
        )
    };
    rig.load(&format!("{}{}{ASKS}", rule("permit", 80), rule("block", 443)));
    // What is still asked stays open, under its new rule.
    let asked = only(&mut answerer);
    assert_eq!((asked.remote_port, asked.rule, asked.rule_name.as_deref()), (22, 2, Some("anything")));
    card.await_outcome((1, 1));
    rig.load(support::PERMIT_ALL);
    assert_eq!(open(&mut answerer), 0);
    card.await_outcome((2, 1));
    assert_eq!(rig.counter("questions_dropped"), 3);
    assert_eq!(answerer.answer(asked.id, Verdict::Block, Scope::Once).expect("an answer"), Answered::Closed);
    drop(answerer);
    card.finish();
    rig.uninstall();
}

/// A flow keeps the answer that permitted it under every policy that asks about it; what was not asked about gets what
/// holds without an answer, and an answer for the life of its process.
#[test]
fn a_swap_to_a_policy_that_asks_keeps_what_was_answered() {
    let rig = Rig::with_policy(ASKS);
    let mut card = Card::new(&rig.machine, PID);
    let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
    let (_, mut once) = card.connect(REMOTE[0], 443);
    let asked = only(&mut answerer);
    give(&mut answerer, asked.id, Verdict::Permit, Scope::Once);
    card.await_outcome((1, 0));
    assert!(card.talks(&mut once));
    rig.load(support::PERMIT_ALL);
    let (_, mut never) = card.connect(REMOTE[0], 80);
    assert!(card.talks(&mut never));
    card.becomes(PID + 4);
    let (_, mut remembered) = card.connect(REMOTE[0], 80);
    assert!(card.talks(&mut remembered));
    rig.load(&format!("{ASKS}# again\n"));
    assert!(card.says(&mut once));
    card.connect(REMOTE[0], 22);
    let asked = only(&mut answerer);
    give(&mut answerer, asked.id, Verdict::Permit, Scope::Process);
    assert!(card.says(&mut remembered), "its process is known");
    card.becomes(PID);
    assert!(!card.says(&mut never), "nobody can be asked about it any more");
    assert!(lines(&rig.host).iter().any(|line| line.contains("[too late to ask]")), "{:?}", lines(&rig.host));
    drop(answerer);
    card.finish();
    rig.uninstall();
}

#[test]
fn an_unload_waits_for_whoever_answers_and_leaves_nothing() {
    let rig = Rig::with_policy(ASKS);
    let mut card = Card::new(&rig.machine, PID);
    let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
    for number in 0..19 {
        assert_eq!(card.connect(REMOTE[0], 1 + number % 12).0, Stands::Held);
    }
    assert_eq!(open(&mut answerer), 12);
    let _ = rig.host.stop_service(SERVICE_NAME);
    assert_eq!(rig.host.service_state(SERVICE_NAME), Ok(ServiceState::StopPending));
    drop(answerer);
    let reports = rig.host.unload_reports();
    assert!(reports.len() == 1 && reports[0].is_clean(), "{reports:?}");
    // Windows asks again when the driver has gone: as is declared for a machine without it, which fails open.
    assert_eq!(card.outcome(), (19, 0));
    card.finish();
    rig.host.start_service(SERVICE_NAME).expect("it starts again");
    rig.uninstall();
}

/// A name that DNS has told is part of the question; a rule may ask about names alone.
#[test]
fn a_question_has_the_name_that_dns_has_told() {
    let resolver = "[[rule]]\nname = \"resolver\"\naction = \"permit\"\ndirection = \"outbound\"\nremote-port = 53\n";
    let named =
        "[[rule]]\nname = \"named\"\naction = \"ask\"\ndirection = \"outbound\"\nremote-name = \".example.com\"\n";
    for (policy, rule) in [(format!("{resolver}{ASKS}"), "anything"), (format!("{resolver}{named}"), "named")] {
        let rig = Rig::with_policy(&policy);
        let mut card = Card::new(&rig.machine, PID);
        let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
        let asks = dns_question(7, "www.example.com");
        assert_eq!(
            card.pass(&udp("203.0.113.53", 53, Direction::Outbound, &asks), Direction::Outbound),
            Passed::Forward
        );
        let told = dns_answer(7, "www.example.com", &[("www.example.com", 1, 600, vec![203, 0, 113, 10])]);
        assert_eq!(card.pass(&udp("203.0.113.53", 53, Direction::Inbound, &told), Direction::Inbound), Passed::Forward);
        let (stands, mut tcp) = card.connect("203.0.113.10", 22);
        assert_eq!(stands, Stands::Held);
        let asked = only(&mut answerer);
        assert_eq!((asked.name.as_deref(), asked.rule_name.as_deref()), (Some("www.example.com"), Some(rule)));
        give(&mut answerer, asked.id, Verdict::Permit, Scope::Once);
        card.await_outcome((1, 0));
        assert!(card.talks(&mut tcp));
        drop(answerer);
        card.finish();
        rig.uninstall();
    }
}

/// The first datagram is lost, as Windows says; the next one passes.
#[test]
fn a_datagrams_conversation_is_asked_about_too() {
    let rig = Rig::with_policy(ASKS);
    let mut card = Card::new(&rig.machine, PID);
    let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
    let packet = udp(REMOTE[0], 4433, Direction::Outbound, b"first");
    assert_eq!(card.pass(&packet, Direction::Outbound), Passed::Hold);
    let asked = only(&mut answerer);
    assert_eq!(asked.protocol, "udp");
    give(&mut answerer, asked.id, Verdict::Permit, Scope::Once);
    assert_eq!(card.outcome(), (0, 0), "flushed");
    assert_eq!(card.pass(&packet, Direction::Outbound), Passed::Forward);
    assert_eq!(open(&mut answerer), 0);
    drop(answerer);
    card.finish();
    rig.uninstall();
}

fn device(rig: &Rig) -> Box<dyn Device> {
    rig.host.open_device(DEVICE_PATH).expect("the device opens")
}

#[test]
fn only_who_answers_may_answer_and_only_what_is_open() {
    let rig = Rig::with_policy(ASKS);
    let mut card = Card::new(&rig.machine, PID);
    let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
    assert!(matches!(Answerer::begin(&rig.host), Err(ControlError::AnsweredElsewhere)));
    card.connect(REMOTE[0], 443);
    let id = only(&mut answerer).id;
    let other = device(&rig);
    let answer = ask::Answer { id, verdict: verdict::PERMIT, scope: ask::scope::ONCE, reserved: [0; 6] };
    assert!(other.control(ioctl::ANSWER, answer.as_bytes(), &mut []).is_err(), "it does not answer");
    let mut output = [0; 4 * size_of::<ask::Question>()];
    let seen = other.control(ioctl::OPEN_QUESTIONS, ioctl::From { number: 0 }.as_bytes(), &mut output);
    assert_eq!(seen, Ok(size_of::<ask::Question>()), "it may look");
    let later = ioctl::From { number: id + 1 };
    assert_eq!(other.control(ioctl::OPEN_QUESTIONS, later.as_bytes(), &mut output), Ok(0));
    drop(answerer);
    card.serve();

    assert_eq!(other.control(ioctl::ANSWER_QUESTIONS, &[], &mut []), Ok(0), "now it answers");
    assert_eq!(other.control(ioctl::ANSWER_QUESTIONS, &[], &mut []), Ok(0), "again");
    card.connect(REMOTE[0], 443);
    let good = ask::Answer { id: id + 1, ..answer };
    for wrong in [
        ask::Answer { id, ..good },
        ask::Answer { id: 0, ..good },
        ask::Answer { id: u64::MAX, ..good },
        ask::Answer { verdict: verdict::NONE, ..good },
        ask::Answer { verdict: 9, ..good },
        ask::Answer { scope: 0, ..good },
        ask::Answer { scope: 3, ..good },
        ask::Answer { reserved: [0, 0, 0, 0, 0, 1], ..good },
    ] {
        assert!(other.control(ioctl::ANSWER, wrong.as_bytes(), &mut []).is_err(), "{wrong:?}");
    }
    for length in 0..300 {
        let bytes = vec![0; length];
        assert!(other.control(ioctl::ANSWER, &bytes, &mut []).is_err(), "{length} bytes");
        assert_eq!(other.control(ioctl::ANSWER_QUESTIONS, &bytes, &mut []).is_ok(), length == 0);
        let asked = other.control(ioctl::OPEN_QUESTIONS, &bytes, &mut output);
        assert_eq!(asked.is_ok(), length == size_of::<ioctl::From>(), "{length} bytes");
        let short = other.control(ioctl::OPEN_QUESTIONS, &[0; 8], &mut vec![0; length * 4]);
        assert_eq!(short.is_ok(), length * 4 >= size_of::<ask::Question>());
    }
    assert_eq!(card.outcome(), (0, 0), "nothing of that was an answer");
    assert_eq!(other.control(ioctl::ANSWER, good.as_bytes(), &mut []), Ok(0));
    assert!(other.control(ioctl::ANSWER, good.as_bytes(), &mut []).is_err(), "once");
    card.await_outcome((1, 0));
    drop(other);
    card.finish();
    rig.uninstall();
}

/// Every call that can fail, fails once, with a connection in each state.
#[test]
fn without_memory_nothing_is_held_for_ever() {
    let rig = Rig::with_policy(ASKS);
    let mut card = Card::new(&rig.machine, PID);
    let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
    rig.machine.low_resources.enable(1);
    let mut outcomes = Vec::new();
    for port in 1..40 {
        outcomes.push(card.connect(REMOTE[0], port).0);
    }
    rig.machine.low_resources.disable();
    assert!(outcomes.contains(&Stands::Refused) && outcomes.contains(&Stands::Held), "{outcomes:?}");
    let held = outcomes.iter().filter(|one| **one == Stands::Held).count();
    assert_eq!(open(&mut answerer), held);
    assert!(rig.counter("not_asked_for_want_of_room") > 0);
    drop(answerer);
    card.serve();
    card.finish();
    rig.uninstall();
}

/// An older driver, or one from before a restart, does not take what it does not know for a permit.
#[test]
fn an_image_of_another_version_changes_nothing() {
    let rig = Rig::with_policy(support::BLOCK_ALL);
    let mut image = rig.compile(ASKS);
    image[8] -= 1;
    let refused = sluice_control::load_image(&rig.host, &image).expect_err("it is refused");
    assert!(refused.to_string().contains("compile it again"), "{refused}");
    let mut card = Card::new(&rig.machine, PID);
    assert_eq!(card.connect(REMOTE[0], 443).0, Stands::Refused);
    card.finish();
    rig.uninstall();
}

/// Many processes at once on several processors, while answers, restarts of whoever answers, and policies come.
#[test]
fn nothing_is_lost_when_everything_happens_at_once() {
    let rig = Rig::with_policy(ASKS);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (host, done) = (&rig.host, &done);
        scope.spawn(move || {
            for round in 0..40_u64 {
                let Ok(mut answerer) = Answerer::begin(host) else { continue };
                for asked in answerer.open().expect("questions") {
                    let verdict = if asked.id % 3 == 0 { Verdict::Block } else { Verdict::Permit };
                    let long = if asked.id % 5 == 0 { Scope::Process } else { Scope::Once };
                    let _ = answerer.answer(asked.id, verdict, long).expect("an answer");
                }
                if round % 4 == 0 {
                    std::thread::yield_now();
                }
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        scope.spawn(|| {
            let mut round = 0;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                round += 1;
                rig.load(if round % 2 == 0 { ASKS } else { PERMITS_UNANSWERED });
            }
        });
        scope.spawn(|| {
            let mut card = Card::new(&rig.machine, PID);
            let mut number = 0;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                number += 1;
                card.becomes(PID + 4 * (number % 7));
                let (_, mut tcp) = card.connect(REMOTE[0], 1 + (number % 50) as u16);
                card.serve();
                if number % 3 == 0 {
                    card.talks(&mut tcp);
                }
                if number % 11 == 0 {
                    rig.machine.clock.push(Duration::from_secs(40));
                }
            }
            card.serve();
            card.finish();
        });
    });
    assert_eq!(rig.machine.stopped().map(|bugcheck| bugcheck.to_string()), None);
    let asked = rig.counter("questions_asked");
    let ended = ["questions_answered", "questions_timed_out", "questions_dropped"].map(|name| rig.counter(name));
    assert!(asked > 0);
    assert_eq!(asked, ended.iter().sum::<u64>(), "every question ends once: {ended:?}");
    rig.uninstall();
}
