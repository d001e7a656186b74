//! Rules that ask: what a file may say, what an image holds, and what nobody may take for a permit.
#![cfg(feature = "std")]

use sluice_policy::{
    AppId, CompileOptions, Decision, Direction, Flow, Image, InvalidImage, Name, Policy, Verdict, compile, diff, lint,
    parse, show, test,
};
use std::{collections::BTreeMap, path::Path, path::PathBuf};

fn read(text: &str) -> Result<Policy, String> {
    let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    parse(Path::new("policy.toml"), text, &files).map_err(|errors| errors.to_string())
}

fn options() -> CompileOptions<'static> {
    CompileOptions { application: &|path| Ok(path.to_owned()), key: [1; 16], at: None }
}

fn image(text: &str) -> Image<Vec<u8>> {
    Image::validate(compile(&read(text).unwrap(), &options()).unwrap()).unwrap()
}

fn rule(keys: &str) -> String {
    format!("[[rule]]\nname = \"asks\"\naction = \"ask\"\n{keys}\n")
}

fn decide(image: &Image<Vec<u8>>, direction: Direction, name: Name<'_>) -> Decision {
    let [local, remote] = [[10, 0, 0, 1], [203, 0, 113, 9]].map(Into::into);
    image.decide(&Flow::new(direction, 6, local, 50_000, remote, 443).with_name(name))
}

#[test]
fn a_rule_that_asks_says_how_long_and_what_holds_without_an_answer() {
    for (keys, verdict, seconds) in [
        ("", Verdict::Block, 30),
        ("when-unanswered = \"permit\"", Verdict::Permit, 30),
        ("answer-within = \"1s\"", Verdict::Block, 1),
        ("answer-within = \"4m\"\nwhen-unanswered = \"block\"", Verdict::Block, 240),
    ] {
        let image = image(&rule(&format!("direction = \"outbound\"\n{keys}")));
        assert!(image.asks());
        let decision = decide(&image, Direction::Outbound, Name::Unknown);
        assert_eq!((decision.verdict, decision.asks, decision.rule), (verdict, Some(seconds), Some(0)), "{keys}");
        let permitted = decision.settled(Some(Verdict::Permit));
        assert_eq!((permitted.verdict, permitted.hard, permitted.asks), (Verdict::Permit, false, None));
        let blocked = decision.settled(Some(Verdict::Block));
        assert_eq!((blocked.verdict, blocked.hard, blocked.asks), (Verdict::Block, true, None));
        assert_eq!(decision.settled(None), decision.settled(Some(verdict)));
        assert_eq!(decide(&image, Direction::Inbound, Name::Unknown).asks, None);
        let shown = show(&image);
        let said = shown.rules[0].said;
        assert_eq!((said.action, said.when_unanswered, said.answer_within), ("ask", Some(verdict), Some(seconds)));
    }
    assert!(!image("[[rule]]\naction = \"block\"\n").asks());
}

#[test]
fn what_cannot_be_asked_is_refused_with_what_to_write() {
    for (text, expected) in [
        (rule(""), "only connections that this machine opens can be held until somebody answers"),
        (rule("direction = \"inbound\""), "`direction = \"outbound\"` beside `action = \"ask\"`"),
        (rule("direction = \"both\""), "only connections that this machine opens"),
        (rule("direction = \"forward\""), "only connections that this machine opens"),
        (rule("direction = \"outbound\"\nstrength = \"hard\""), "a rule that asks has no `strength`"),
        (rule("direction = \"outbound\"\nanswer-within = \"0s\""), "`0s` is not a time to answer in"),
        (rule("direction = \"outbound\"\nanswer-within = \"241s\""), "from one second (`1s`) to four minutes"),
        (rule("direction = \"outbound\"\nanswer-within = \"5m\""), "from one second (`1s`) to four minutes"),
        (rule("direction = \"outbound\"\nanswer-within = \"+9s\""), "`+9s` is not a time to answer in"),
        (rule("direction = \"outbound\"\nanswer-within = 30"), "this is a number"),
        (rule("direction = \"outbound\"\nwhen-unanswered = \"drop\""), "expected `block` or `permit`"),
        ("[[rule]]\naction = \"block\"\nanswer-within = \"9s\"\n".to_owned(), "the rule does not ask"),
        ("[[rule]]\naction = \"permit\"\nwhen-unanswered = \"permit\"\n".to_owned(), "the rule does not ask"),
        ("[default]\noutbound = \"ask\"\n".to_owned(), "a default cannot ask"),
    ] {
        let refused = read(&text).expect_err(&text);
        assert!(refused.contains(expected), "{text}: {refused}");
    }
}

/// An answer may permit, so a name may still matter; and a name may be what is asked about.
#[test]
fn names_before_a_rule_that_asks_are_waited_for() {
    let asks = rule("direction = \"outbound\"");
    for first in ["block", "permit"] {
        let image = image(&format!(
            "[[rule]]\naction = \"{first}\"\ndirection = \"outbound\"\nremote-name = \".example.com\"\n{asks}"
        ));
        let unknown = decide(&image, Direction::Outbound, Name::Unknown);
        assert_eq!((unknown.asks, unknown.needs_name), (Some(30), true), "{first}");
        assert!(unknown.settled(Some(Verdict::Permit)).needs_name && !unknown.settled(None).needs_name);
        assert_eq!(decide(&image, Direction::Outbound, Name::Known(b"www.example.com")).asks, None);
        assert_eq!(decide(&image, Direction::Outbound, Name::Known(b"example.org")).asks, Some(30));
    }
    let image =
        image(&format!("[default]\noutbound = \"block\"\n{}", rule("direction = \"outbound\"\nremote-name = \"a.b\"")));
    let unknown = decide(&image, Direction::Outbound, Name::Unknown);
    assert_eq!((unknown.asks, unknown.verdict, unknown.needs_name), (None, Verdict::Block, true));
}

#[test]
fn a_policy_expects_to_be_asked() {
    let expects = |verdict: &str| {
        let text = rule(&format!(
            "direction = \"outbound\"\nwhen-unanswered = \"permit\"\n[[rule.expect]]\nremote = \"203.0.113.9:443\"\nverdict = \"{verdict}\""
        ));
        test(&read(&text).unwrap(), &options()).unwrap().remove(0).failure
    };
    assert_eq!(expects("ask"), None);
    assert_eq!(expects("permit").as_deref(), Some("expected permit, the verdict is ask"));
}

/// Asking instead of blocking, another time to answer in, and another verdict without an answer are differences.
#[test]
fn what_is_asked_differently_is_a_difference() {
    let asks = |keys: &str| read(&rule(&format!("direction = \"outbound\"\nremote-port = 443\n{keys}"))).unwrap();
    let blocks = read("[[rule]]\naction = \"block\"\ndirection = \"outbound\"\nremote-port = 443\n").unwrap();
    let differences = |old: &Policy, new: &Policy| diff(old, new, &options()).unwrap().pairs;
    assert_eq!(differences(&asks(""), &asks("answer-within = \"30s\"\nwhen-unanswered = \"block\"")), 0);
    for other in [&blocks, &asks("answer-within = \"31s\""), &asks("when-unanswered = \"permit\"")] {
        assert_eq!((differences(&asks(""), other), differences(other, &asks(""))), (1, 1));
    }
}

/// A program that is missing may come: it is asked about then, as one that is blocked is blocked.
#[test]
fn a_missing_program_is_asked_about_when_it_appears() {
    let text = rule("direction = \"outbound\"\napplication = 'C:\\gone.exe'");
    let missing = CompileOptions { application: &|_| Err("no such file".to_owned()), ..options() };
    let image = Image::validate(compile(&read(&text).unwrap(), &missing).unwrap()).unwrap();
    let path: Vec<u8> = r"c:\gone.exe".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let [local, remote] = [[10, 0, 0, 1], [203, 0, 113, 9]].map(Into::into);
    let flow = Flow::new(Direction::Outbound, 6, local, 50_000, remote, 443).with_application(AppId(&path));
    assert_eq!(image.decide(&flow).asks, Some(30));
}

#[test]
fn asking_for_names_is_not_cutting_a_machine_off() {
    let cut = |text: &str| lint(&read(text).unwrap()).iter().any(|one| one.message.contains("no name is resolved"));
    let block = "[default]\noutbound = \"block\"\n";
    assert!(cut(block));
    assert!(!cut(&format!("{block}{}", rule("direction = \"outbound\""))));
}

/// What an image says of asking is consistent, or it is refused: a reader that knows nothing of it refuses the version, and
/// one that does refuses the rest.
#[test]
fn an_image_whose_asking_makes_no_sense_is_refused() {
    let bytes = image(&rule("direction = \"outbound\"")).as_bytes().to_vec();
    // The rule's record is the first of the first section.
    let header = u32::from_le_bytes(bytes[328..332].try_into().unwrap()) as usize;
    let changed = |at: usize, to: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = to;
        let sum = xxhash_rust::xxh3::xxh3_128(&bytes[32..]).to_le_bytes();
        bytes[16..32].copy_from_slice(&sum);
        Image::validate(bytes).map(drop)
    };
    let (seconds, flags) = (header + 5, header + 6);
    assert_eq!((bytes[seconds], bytes[flags]), (30, 32 | 2), "how long, and that it asks, hard");
    assert_eq!(changed(seconds, 240), Ok(()));
    for (at, to) in [(seconds, 0), (seconds, 241), (flags, 2), (flags, 32 | 4), (flags, 64), (flags, 0)] {
        let refused = changed(at, to).expect_err("it is refused");
        assert!(matches!(refused, InvalidImage::Field { section: "rules", .. }), "{at} {to}: {refused}");
    }
    // Defaults cannot ask.
    assert!(matches!(changed(32, 32), Err(InvalidImage::Field { section: "defaults", .. })));
    assert_eq!(changed(8, 8), Err(InvalidImage::Version(8)));
}
