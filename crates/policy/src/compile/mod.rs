//! Compiles rules to bytes.
//!
//! Conditions become sets; sets that overlap become classes; rules become boxes over addresses, ports and classes;
//! boxes become a forest. The order of every step depends only on the policy, so that the same policy, key and moment
//! give the same bytes everywhere.

mod addresses;
mod boxes;
mod classes;
mod forest;
mod identifiers;
mod names;
mod places;
mod resolve;
mod rules;
mod sources;
mod steps;
mod v4;
mod v6;
mod writer;

use crate::{
    diagnostic::{Diagnostic, Errors, Severity},
    flow::{Direction, Verdict},
    image::{Image, InvalidImage, MOST_STEPS, SlowPart, layout::*},
    model::{Action, Moment, Policy},
};
use std::fmt;
pub(crate) use writer::Writer;

pub use resolve::resolved_applications;
pub(crate) use resolve::utf16;

/// What compiling needs besides the policy.
pub struct CompileOptions<'a> {
    /// Turns a program's path as written in a policy into the NT path that the kernel reports; of `...\*`, the path
    /// before the `\*` is passed. The result is converted to lower case; an error means that the program is missing.
    pub application: &'a dyn Fn(&str) -> Result<String, String>,
    /// The key of the image's hashes: random for every image in use, fixed where bytes must be reproducible.
    pub key: [u8; 16],
    /// The moment for which schedules are evaluated; without one, all schedules are active.
    pub at: Option<Moment>,
}

impl fmt::Debug for CompileOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is a secret of the machine that loads the image.
        f.debug_struct("CompileOptions").field("at", &self.at).finish_non_exhaustive()
    }
}

/// An image, with its warnings.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The image's bytes.
    pub image: Vec<u8>,
    /// Missing programs: a rule that permits them does not match, and one that blocks uses their paths as written.
    pub warnings: Vec<Diagnostic>,
}

/// Compiles a policy. The same policy, key and moment give the same bytes everywhere.
///
/// # Errors
/// What does not fit into an image, by rule.
pub fn compile(policy: &Policy, options: &CompileOptions<'_>) -> Result<Vec<u8>, Errors> {
    compile_with_warnings(policy, options).map(|compiled| compiled.image)
}

/// As [`compile`], with its warnings.
///
/// # Errors
/// As there.
pub fn compile_with_warnings(policy: &Policy, options: &CompileOptions<'_>) -> Result<Compiled, Errors> {
    let whole = |message: String| Errors {
        diagnostics: vec![Diagnostic::new(Severity::Error, &policy.path, &policy.text, 0..0).message(message)],
    };
    let mut writer = Writer::default();
    let (spaces, warnings) = resolve::Spaces::of(policy, options);
    let resolved = spaces.write(options.key, &mut writer).map_err(whole)?;

    let mut boxes4 = rules::Family::<u32>::default();
    boxes4.embedded = policy.defaults.embedded_ipv4;
    let mut boxes6 = rules::Family::<u128>::default();
    for (index, rule) in policy.rules.iter().enumerate() {
        let conditions = resolved.conditions.get(&index);
        let flags = flags(rule.action, rule.hard, rule.log);
        let number = writer.rule(&rule.name, rule.action, flags, conditions.map_or(&[], Vec::as_slice));
        if let Some(conditions) = conditions {
            boxes4.add(rule, number, conditions, resolved.by_set[index], |set| &set.v4);
            boxes6.add(rule, number, conditions, resolved.by_set[index], |set| &set.v6);
        }
    }
    let (four, six) = (boxes4.grow(&writer).map_err(whole)?, boxes6.grow(&writer).map_err(whole)?);
    let slowest = if four.most_steps() >= six.most_steps() {
        slowest_rules(policy, &boxes4.slowest(&four, &writer))
    } else {
        slowest_rules(policy, &boxes6.slowest(&six, &writer))
    };
    for &place in &four.entries {
        let one = &boxes4.boxes.entries[place as usize];
        Entry4 { remote: one.remote, local: one.local, tail: one.tail }.write(&mut writer.parts.entries4);
    }
    for &place in &six.entries {
        let one = &boxes6.boxes.entries[place as usize];
        Entry6 { remote: one.remote, local: one.local, tail: one.tail }.write(&mut writer.parts.entries6);
    }
    drop((boxes4, boxes6));
    writer.parts.forest4 = four.words.iter().flat_map(|word| word.to_le_bytes()).collect();
    writer.parts.forest6 = six.words.iter().flat_map(|word| word.to_le_bytes()).collect();
    writer.parts.steps4 = four.steps.iter().flat_map(|steps| steps.to_le_bytes()).collect();
    writer.parts.steps6 = six.steps.iter().flat_map(|steps| steps.to_le_bytes()).collect();
    let mut roots = [0; ROOTS];
    roots[..ROOTS_V6].copy_from_slice(&four.roots);
    roots[ROOTS_V6..].copy_from_slice(&six.roots[..TREES]);
    drop((four, six));

    let parts = &mut writer.parts;
    sources::write(policy, options, &mut parts.sources, &mut parts.source_text);
    let spares = if policy.defaults.essential { DEFAULT_SPARES_ESSENTIAL } else { 0 };
    let default = |action| flags(action, action != Action::Permit, policy.defaults.log);
    let defaults = Direction::ALL.map(|direction| {
        default(policy.defaults.of(direction)) | if direction == Direction::Forward { 0 } else { spares }
    });
    let option = |set, option| if set { option } else { 0 };
    let wanted = option(policy.defaults.embedded_ipv4, OPTION_EMBEDDED)
        | option(policy.defaults.shared_permit, OPTION_SHARED_PERMIT);
    let names = [resolved.undecidable, resolved.name_depths];
    let image = writer.finish(defaults, wanted, options.key, roots, names).map_err(whole)?;
    match Image::validate(&image[..]) {
        Ok(_) => Ok(Compiled { image, warnings }),
        Err(InvalidImage::Steps { steps, part }) => Err(whole(too_slow(steps, part, &slowest))),
        Err(other) => Err(whole(format!("the compiler is at fault: {other}"))),
    }
}

/// Why a policy is refused whose decisions would take too long.
fn too_slow(steps: u64, part: SlowPart, slowest: &str) -> String {
    let why = match part {
        SlowPart::Rules => slowest,
        SlowPart::Programs => "its rules name programs in folders of too many different lengths",
        SlowPart::Identities => {
            "its rules name the same users, groups, services or packages in too many different sets"
        }
    };
    format!("a decision could take {steps} steps, {MOST_STEPS} are possible: {why}")
}

/// What to say of the rules that stand in one leaf, by their numbers.
fn slowest_rules(policy: &Policy, rules: &[u32]) -> String {
    let name =
        |rule: Option<&u32>| rule.and_then(|rule| policy.rules.get(*rule as usize)).map_or("", |rule| &rule.name);
    format!(
        "{} rules from `{}` to `{}` are alike in addresses, ports, protocols, programs and whatever else tells rules apart",
        rules.len(),
        name(rules.first()),
        name(rules.last())
    )
}

fn flags(action: Action, hard: bool, log: bool) -> u8 {
    let mut flags = match action {
        Action::Permit => RULE_PERMIT,
        Action::Block => 0,
        Action::Drop => RULE_SILENT,
        Action::Ask(ask) if ask.unanswered == Verdict::Permit => RULE_ASKS | RULE_PERMIT,
        Action::Ask(_) => RULE_ASKS,
    };
    if hard {
        flags |= RULE_HARD;
    }
    if log {
        flags |= RULE_LOG;
    }
    flags
}
