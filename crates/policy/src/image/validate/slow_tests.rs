//! Images made by hand so that a decision takes long.

use super::{InvalidImage, SlowPart};
use crate::{
    AppId, Direction, Flow, Image, Sid,
    compile::Writer,
    image::{
        budget::{MOST_SIDS, MOST_STEPS, SHARED_LEAF},
        forest::{Cut, ROOM, Word},
        layout::*,
    },
    model::{Action, NumberSet},
};
use std::{collections::BTreeMap, path::Path};

/// An IPv4 forest whose rests are `depth` deep, at every way of the flow below, with the same leaf of so many entries at
/// every end.
#[derive(Clone, Copy)]
struct Deep {
    depth: u8,
    leaf: u32,
    /// How many conditions its one rule has, a list each.
    conditions: u8,
    /// Takes away from what is said of the steps of the first cut.
    lie: u32,
}

impl Deep {
    /// The image, put together as the compiler does.
    fn image(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        let list = NumberSet::from_ranges((0..1000).map(|place| (place * 10, place * 10 + 8)).collect());
        let conditions = vec![(Dimension::RemotePort, list); self.conditions.into()];
        writer.rule("slow", Action::Block, 0, &conditions);
        for _ in 0..self.leaf {
            let flags = ENTRY_ANY_PROTOCOL | if self.conditions == 0 { 0 } else { ENTRY_CONDITIONS };
            // No flow of the tests comes from there: every entry is compared.
            let local_port = if self.conditions == 0 { (1, 1) } else { (0, u16::MAX) };
            let tail = EntryTail { local_port, remote_port: (0, u16::MAX), flags, ..EntryTail::default() };
            Entry4 { remote: 0, local: 0, tail }.write(&mut writer.parts.entries4);
        }
        let of_rule = writer.steps(0);
        let leaf = Word::Leaf { first: 0, count: self.leaf };
        let mut steps = u64::from(1 + self.leaf + self.leaf * of_rule);
        let mut words: Vec<Word> = Vec::new();
        let (mut root, mut level) = (leaf, 1u32);
        let cut = |base: u32, room: u8| {
            let (dimension, bits, rest) = (Dimension::LocalPort as u8, 1, true);
            let (shift, second_dimension, second_shift) = (0, 0, 0);
            Word::Cut(Cut { base, dimension, shift, second_dimension, second_shift, bits, hashed: false, rest, room })
        };
        let mut said = Vec::new();
        if self.depth > 0 {
            root = cut(0, self.depth);
        }
        // Of every block two words lead further: the first child, and the rest.
        for depth in (0..self.depth).rev() {
            let mut next = level * 4;
            let base = words.len() as u32 + next;
            next = base;
            for _ in 0..level {
                for place in 0..4 {
                    words.push(match place {
                        1 => Word::Empty,
                        3 => Word::Least(0),
                        _ if depth == 0 => leaf,
                        _ => {
                            next += 4;
                            cut(next - 4, depth)
                        }
                    });
                }
            }
            level *= 2;
        }
        let mut by_depth: Vec<u64> = Vec::new();
        for _ in 0..self.depth {
            steps = 1 + 2 * steps;
            by_depth.push(steps);
        }
        for (index, steps) in by_depth.iter().rev().enumerate() {
            said.extend(std::iter::repeat_n(*steps as u32, 2usize.pow(index as u32)));
        }
        if let Some(first) = said.first_mut() {
            *first -= self.lie;
        }
        writer.parts.forest4 = words.iter().flat_map(|word| word.pack().to_le_bytes()).collect();
        writer.parts.steps4 = said.iter().flat_map(|steps| steps.to_le_bytes()).collect();
        let mut roots = [0; ROOTS];
        (roots[0], roots[1]) = (root.pack(), root.pack());
        writer.finish([RULE_PERMIT; 5], 0, [7; 16], roots, [0; 2]).expect("it fits")
    }

    fn steps(&self) -> Result<u32, InvalidImage> {
        Image::validate(self.image()).map(|image| image.most_steps())
    }
}

fn flow() -> Flow<'static> {
    let [local, remote] = [[10, 0, 0, 5], [192, 0, 2, 1]].map(Into::into);
    Flow::new(Direction::Outbound, 6, local, 50000, remote, 9)
}

const DEEP: Deep = Deep { depth: 9, leaf: 8, conditions: 0, lie: 0 };

#[test]
fn the_longest_way_is_counted_to_the_step() {
    for deep in [Deep { depth: 0, ..DEEP }, Deep { depth: 1, ..DEEP }, DEEP, Deep { depth: 5, conditions: 3, ..DEEP }] {
        let image = Image::validate(deep.image()).expect("a valid image");
        // All leaves of the way are looked at, since no entry of theirs matches.
        let (decision, steps) = image.decide_counting(&flow());
        assert_eq!((decision.rule, steps), (None, image.most_steps().into()), "{} deep", deep.depth);
    }
}

#[test]
fn rests_that_stand_deep_over_shared_leaves_are_refused() {
    let deepest = Deep { depth: (ROOM - 1) as u8, ..DEEP };
    let most = Deep { leaf: 4, ..deepest }.steps().expect("all the rests there can be, over short leaves");
    assert!((MOST_STEPS / 2..MOST_STEPS).contains(&most), "{most}");
    let Err(InvalidImage::Steps { steps, part: SlowPart::Rules }) = deepest.steps() else { panic!("accepted") };
    assert!((MOST_STEPS.into()..2 * u64::from(MOST_STEPS)).contains(&steps), "{steps}");
    let conditions = Deep { conditions: 255, ..deepest }.steps();
    assert!(
        matches!(conditions, Err(InvalidImage::Steps { steps: 500_000_000.., part: SlowPart::Rules })),
        "{conditions:?}"
    );
    let text = conditions.unwrap_err().to_string();
    assert!(text.contains(&format!("{MOST_STEPS} are allowed")), "{text}");
    // A leaf with more entries may not be shared.
    let long = Deep { depth: 2, leaf: SHARED_LEAF + 1, ..DEEP }.steps();
    assert!(matches!(long, Err(InvalidImage::Field { section: "forest4", .. })), "{long:?}");
    let alone = Deep { depth: 0, leaf: MOST_STEPS, ..DEEP }.steps();
    assert!(matches!(alone, Err(InvalidImage::Steps { .. })), "{alone:?}");
}

#[test]
fn what_is_said_of_the_steps_is_not_believed() {
    for lie in [1, 100] {
        let lied = Deep { lie, ..DEEP }.steps();
        let Err(InvalidImage::Field { rule, .. }) = lied else { panic!("{lied:?}") };
        assert_eq!(rule, "the steps are those of the longest way");
    }
}

/// The image of a policy.
fn compiled(text: &str) -> Image<Vec<u8>> {
    let policy = crate::parse(Path::new("policy.toml"), text, &BTreeMap::new()).expect("it parses");
    let options = crate::CompileOptions { application: &|path| Ok(path.to_owned()), key: [7; 16], at: None };
    Image::validate(crate::compile(&policy, &options).expect("it compiles")).expect("it is valid")
}

#[test]
fn a_program_is_found_in_a_bounded_number_of_steps() {
    let name = |number: usize| format!(r"\device\v\{}\{number}.exe", "folder".repeat(number % 9));
    let rule = |number: usize| format!("[[rule]]\naction = \"block\"\napplication = '{}'\n", name(number));
    let folder = |number: usize| format!("[[rule]]\naction = \"block\"\napplication = '{}\\*'\n", name(number));
    let image = compiled(&(0..300).map(|number| rule(number) + &folder(number)).collect::<String>());
    let longest = usize::from(u16::MAX / 2);
    let paths = (0..300).map(name).chain((0..300).map(|number| format!(r"{}\x", name(number))));
    let long = ["x".repeat(longest), r"\x".repeat(longest / 2), name(8) + &r"\y".repeat(longest / 2 - 100)];
    let mut slowest = 0;
    for path in paths.chain(long) {
        let wide: Vec<u8> = path.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let (decision, steps) = image.decide_counting(&flow().with_application(AppId(&wide)));
        assert!(!decision.over_budget && steps <= image.most_steps().into(), "{steps} of {}", image.most_steps());
        slowest = slowest.max(steps);
    }
    assert!(slowest > 1000, "{slowest}");
}

/// An image's identities are in so many sets each; a token tells each once, or one of them again and again.
#[test]
fn an_owner_is_told_in_a_bounded_number_of_steps() {
    let mut text = String::new();
    for rule in 0..400 {
        text += &format!("[[rule]]\naction = \"block\"\ngroup = [\"Everyone\", \"S-1-5-21-1-2-3-{rule}\"]\n");
    }
    let image = compiled(&text);
    let everyone: &[u8] = &[1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];

    #[derive(Debug)]
    struct Again(&'static [u8], u32);
    impl crate::Identities for Again {
        fn each(&self, visit: &mut dyn FnMut(Sid<'_>)) {
            (0..self.1).for_each(|_| visit(Sid(self.0)));
        }
    }
    let (once, steps) = image.decide_counting(&flow().with_others(&Again(everyone, 1)));
    assert_eq!((once.rule, once.over_budget), (Some(0), false));
    assert!(steps <= image.most_steps().into());
    let (again, steps) = image.decide_counting(&flow().with_others(&Again(everyone, MOST_SIDS)));
    assert!(again.over_budget && again.hard && again.rule.is_none(), "{again:?} in {steps} steps");
    assert_eq!(again.verdict, crate::Verdict::Block);
    // It stops at once.
    assert!((MOST_STEPS.into()..u64::from(MOST_STEPS) + 1024).contains(&steps), "{steps}");
}
