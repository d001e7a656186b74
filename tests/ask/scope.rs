//! What an answer is for, and what it is not.

use super::*;

#[test]
fn an_answer_for_the_life_of_a_process_ends_with_it() {
    let rig = Rig::with_policy(ASKS);
    let mut card = Card::new(&rig.machine, PID);
    let start = || {
        rig.machine.start_process(PID.into(), 4, r"\Device\HarddiskVolume1\usr\bin\curl", "curl").expect("it starts")
    };
    let first = start();
    let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
    card.connect(REMOTE[0], 443);
    card.connect(REMOTE[1], 80);
    let asked = answerer.open().expect("questions");
    assert_eq!((asked.len(), asked[0].parent_id), (2, Some(4)));
    assert!(asked[0].process_created.is_some());
    give(&mut answerer, asked[0].id, Verdict::Permit, Scope::Process);
    assert_eq!(open(&mut answerer), 0, "it answers the other one too");
    card.await_outcome((2, 0));
    let (stands, mut tcp) = card.connect("203.0.113.77", 22);
    assert_eq!(stands, Stands::Sent, "nothing is asked about it any more");
    assert!(card.talks(&mut tcp));
    assert!(lines(&rig.host).last().expect("an event").contains("[answered for the process]"));
    // Another program has not been answered about.
    card.becomes(PID + 4);
    assert_eq!(card.connect("203.0.113.77", 22).0, Stands::Held);
    // The process ends, and its number is another's.
    card.becomes(PID);
    rig.machine.end_process(first, 0);
    let second = start();
    assert_eq!(card.connect("203.0.113.77", 22).0, Stands::Held, "the new process inherits nothing");
    // So does one whose beginning alone was told.
    let asked = answerer.open().expect("questions").into_iter().find(|one| one.process_id == Some(PID)).expect("it");
    give(&mut answerer, asked.id, Verdict::Permit, Scope::Process);
    assert_eq!(card.connect("203.0.113.78", 22).0, Stands::Sent);
    start();
    assert_eq!(card.connect("203.0.113.78", 22).0, Stands::Held);
    rig.machine.end_process(second, 0);
    drop(answerer);
    card.serve();
    card.finish();
    rig.uninstall();
}

/// Where the driver is not told of processes that end, an answer holds once only.
#[test]
fn an_answer_that_cannot_be_remembered_is_refused() {
    let rig = Rig::with_policy(ASKS);
    let mut card = Card::new(&rig.machine, 0);
    let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
    card.connect(REMOTE[0], 443);
    let asked = only(&mut answerer);
    if asked.process_id.is_none() {
        let kept = answerer.answer(asked.id, Verdict::Permit, Scope::Process).expect("an answer");
        assert_eq!((kept, open(&mut answerer)), (Answered::NotRemembered, 1), "the process is not known");
    }
    // As many processes as can be remembered, and one more.
    for number in 0..=ask::MAX_REMEMBERED as u32 {
        card.becomes(100_000 + 4 * number);
        card.connect(REMOTE[0], 80);
        let open = answerer.open().expect("questions");
        let asked = open.iter().find(|one| one.process_id == Some(100_000 + 4 * number)).expect("it asks");
        let kept = answerer.answer(asked.id, Verdict::Block, Scope::Process).expect("an answer");
        let expected = if number < ask::MAX_REMEMBERED as u32 { Answered::Yes } else { Answered::NotRemembered };
        assert_eq!(kept, expected, "{number}");
        card.serve();
    }
    drop(answerer);
    card.serve();
    card.finish();
    rig.uninstall();
}

/// The policy may be loaded by the program that answers: what it decides is not open any more.
#[test]
fn a_rule_is_an_answer() {
    let rig = Rig::with_policy(ASKS);
    let mut card = Card::new(&rig.machine, PID);
    let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
    card.connect(REMOTE[0], 443);
    let asked = only(&mut answerer);
    let remote = asked.remote_address;
    let rule = format!("[[rule]]\naction = \"permit\"\ndirection = \"outbound\"\nremote = \"{remote}\"\n{ASKS}");
    load(&rig.host, &rig.policy_file(&rule)).expect("it loads");
    card.await_outcome((1, 0));
    assert_eq!(open(&mut answerer), 0);
    drop(answerer);
    card.finish();
    rig.uninstall();
}
/// A connection that was permitted and came to nothing leaves its answer to no later one from the same port.
#[test]
fn an_answer_is_not_for_a_later_connection_from_the_same_port() {
    for (policy, unanswered) in [(ASKS, (0, 1)), (PERMITS_UNANSWERED, (1, 0))] {
        let rig = Rig::with_policy(policy);
        let mut card = Card::new(&rig.machine, PID);
        let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
        for (verdict, outcome) in [(Verdict::Permit, (1, 0)), (Verdict::Block, (0, 1)), (Verdict::Permit, (1, 0))] {
            let (stands, mut tcp) = card.connect_from(60_000, REMOTE[0], 443);
            assert_eq!(stands, Stands::Held);
            let asked = only(&mut answerer);
            give(&mut answerer, asked.id, verdict, Scope::Once);
            card.await_outcome(outcome);
            card.pass(&tcp.packet(Segment::Rst, Direction::Inbound), Direction::Inbound);
        }
        // Nor does it answer for nobody.
        let (stands, _) = card.connect_from(60_000, REMOTE[0], 443);
        assert_eq!(stands, Stands::Held);
        rig.machine.clock.push(Duration::from_secs(31));
        card.await_outcome(unanswered);
        drop(answerer);
        card.finish();
        rig.uninstall();
    }
}

/// What is answered late in a long time is known as long as what is answered at once.
#[test]
fn a_late_answer_is_not_forgotten_before_windows_asks_again() {
    let rig = Rig::with_policy(&PERMITS_UNANSWERED.replace("5s", "120s"));
    let mut card = Card::new(&rig.machine, PID);
    let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
    card.connect(REMOTE[0], 443);
    let asked = only(&mut answerer);
    rig.machine.clock.push(Duration::from_secs(100));
    give(&mut answerer, asked.id, Verdict::Block, Scope::Once);
    assert_eq!(card.connect(REMOTE[1], 443).0, Stands::Held, "it looks for room");
    card.await_outcome((0, 1));
    drop(answerer);
    card.finish();
    rig.uninstall();
}

/// One program's questions leave room for others'.
#[test]
fn one_process_cannot_fill_the_table_of_questions() {
    let rig = Rig::with_policy(ASKS);
    let mut card = Card::new(&rig.machine, PID);
    let answerer = Answerer::begin(&rig.host).expect("it may answer");
    for port in 1..=ask::MAX_QUESTIONS_OF_ONE as u16 {
        assert_eq!(card.connect(REMOTE[0], port).0, Stands::Held);
    }
    assert_eq!(card.connect(REMOTE[0], 1000).0, Stands::Refused);
    assert_eq!(card.connect(REMOTE[0], 1).0, Stands::Held, "that is asked already");
    card.becomes(PID + 4);
    assert_eq!(card.connect(REMOTE[0], 1000).0, Stands::Held, "another has room");
    assert_eq!(rig.counter("not_asked_for_want_of_room"), 1);
    drop(answerer);
    card.serve();
    card.finish();
    rig.uninstall();
}

/// A rule without a name is called by its place, where another one is in the next policy.
#[test]
fn an_answer_under_a_rule_without_a_name_ends_with_its_policy() {
    let asks = |port| format!("[[rule]]\naction = \"ask\"\ndirection = \"outbound\"\nremote-port = {port}\n");
    let rig = Rig::with_policy(&format!("{}{}", asks(443), asks(22)));
    let mut card = Card::new(&rig.machine, PID);
    let mut answerer = Answerer::begin(&rig.host).expect("it may answer");
    assert_eq!(card.connect(REMOTE[0], 22).0, Stands::Held);
    let asked = only(&mut answerer);
    give(&mut answerer, asked.id, Verdict::Permit, Scope::Process);
    card.await_outcome((1, 0));
    assert_eq!(card.connect(REMOTE[0], 22).0, Stands::Sent, "it holds as long as the policy does");
    let first = "[[rule]]\naction = \"permit\"\ndirection = \"outbound\"\nremote-port = 8080\n";
    rig.load(&format!("{first}{}{}", asks(443), asks(22)));
    assert_eq!(card.connect(REMOTE[0], 443).0, Stands::Held, "nobody has answered this");
    drop(answerer);
    card.serve();
    card.finish();
    rig.uninstall();
}

/// What its name permits is not asked about, also when a new policy asks about the rest.
#[test]
fn a_flow_that_its_name_permits_goes_on_under_a_policy_that_asks_about_the_rest() {
    let named = "[[rule]]\nname = \"named\"\naction = \"permit\"\ndirection = \"outbound\"\n\
                 remote-name = \"www.example.com\"\n";
    let rig = Rig::with_policy(&format!("{named}{}", ASKS.replace("ask", "block")));
    let mut card = Card::new(&rig.machine, PID);
    let (stands, mut tcp) = card.connect(REMOTE[0], 443);
    assert_eq!(stands, Stands::Sent, "its name decides");
    let hello: &'static [u8] = Box::leak(hello::hello("www.example.com", 9999).into());
    for (segment, direction) in [
        (Segment::SynAck, Direction::Inbound),
        (Segment::Ack, Direction::Outbound),
        (Segment::Data(hello), Direction::Outbound),
    ] {
        let packet = tcp.packet(segment, direction);
        assert!(matches!(card.pass(&packet, direction), Passed::Forward | Passed::Relayed));
    }
    assert!(card.says(&mut tcp), "it is permitted");
    rig.load(&format!("{named}{ASKS}"));
    assert!(card.says(&mut tcp), "it still is");
    rig.load(ASKS);
    assert!(!card.says(&mut tcp), "nobody can be asked about it any more");
    card.finish();
    rig.uninstall();
}
