//! Policy files: TOML in, [`Policy`] out, with all errors reported at once.

mod expectation;
pub(crate) mod list;
mod lists;
mod names_of_hosts;
mod reader;
mod rule;
mod scope;
mod values;

use crate::{
    diagnostic::{Diagnostic, Errors, Severity},
    flow::Verdict,
    model::{Action, Ask, Defaults, Moment, Policy, Schedule, schedule},
};
use reader::{Context, Reader};
use std::{io, path::Path, sync::Arc};
use toml::de::DeTable;

pub use expectation::{parse_endpoint, parse_flow};
pub(crate) use scope::BUILT_IN;

/// The source of the files that a policy names.
pub trait Files {
    /// The bytes of the file at `path`, which is the path in the policy joined to the policy's directory.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

impl Files for std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// The words of [`Action`].
const ACTIONS: [(&str, Action); 4] = [
    ("permit", Action::Permit),
    ("block", Action::Block),
    ("drop", Action::Drop),
    ("ask", Action::Ask(Ask { unanswered: Verdict::Block, within: 30 })),
];

/// Reads a policy. `path` names it in diagnostics, and list files are relative to it.
///
/// # Errors
/// Everything that is wrong, in file order.
pub fn parse(path: &Path, text: &str, files: &dyn Files) -> Result<Policy, Errors> {
    let mut context = Context { path, text, diagnostics: Vec::new() };
    let (table, syntax) = DeTable::parse_recoverable(text);
    for error in syntax {
        let span = error.span().unwrap_or(0..0);
        context.diagnostics.push(
            Diagnostic::new(Severity::Error, path, text, span).message(error.message().trim().replace('\n', "; ")),
        );
    }
    let mut root = Reader::new(table.get_ref(), 0..0, "");
    let defaults = defaults(&mut context, &mut root);
    let schedules = schedules(&mut context, &mut root);
    let scope = scope::Scope::read(&mut context, &mut root, files);
    let rules = rule::rules(&mut context, &mut root, &scope, &schedules);
    let mut expectations = Vec::new();
    for reader in root.tables(&mut context, "expect") {
        expectations.extend(expectation::read(&mut context, reader, None));
    }
    if let Some(version) = root.take("version")
        && version.value.as_integer().is_none_or(|number| number.as_str() != "1")
    {
        context.expected(&version.at, "this version of the language is not known", "1");
    }
    root.finish(&mut context);
    expectation::check_names(&mut context, &rules, &expectations);
    scope.report_unused(&mut context);

    let mut diagnostics = context.diagnostics;
    let own = |diagnostic: &Diagnostic| diagnostic.file == path;
    diagnostics.sort_by_key(|found| (!own(found), found.file.clone(), found.line, found.column));
    if diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return Err(Errors { diagnostics });
    }
    let lists = scope.lists();
    Ok(Policy {
        path: path.to_owned(),
        defaults,
        rules,
        schedules,
        lists,
        expectations,
        warnings: diagnostics,
        resolved_aliases: Default::default(),
        text: Arc::from(text),
    })
}

fn defaults(context: &mut Context<'_>, root: &mut Reader<'_>) -> Defaults {
    let mut defaults = Defaults {
        outbound: Action::Permit,
        inbound: Action::Block,
        forward: Action::Permit,
        listen: Action::Permit,
        bind: Action::Permit,
        log: false,
        essential: true,
        embedded_ipv4: false,
        shared_permit: shared_permit(context, root),
    };
    let Some(item) = root.take("default") else { return defaults };
    let Some(table) = item.value.as_table() else {
        context.expected(
            &item.at,
            "this is not a table",
            "a table with `outbound`, `inbound`, `forward`, `listen`, `bind`, `log`, `essential` and `embedded-ipv4`",
        );
        return defaults;
    };
    let mut reader = Reader::new(table, item.at.span, item.at.key);
    if let Some(item) = reader.take("outbound") {
        defaults.outbound = default(context, &item).unwrap_or(defaults.outbound);
    }
    if let Some(item) = reader.take("inbound") {
        defaults.inbound = default(context, &item).unwrap_or(defaults.inbound);
    }
    if let Some(item) = reader.take("forward") {
        defaults.forward = default(context, &item).unwrap_or(defaults.forward);
    }
    if let Some(item) = reader.take("listen") {
        defaults.listen = item.choice(context, &ACTIONS).unwrap_or(defaults.listen);
    }
    if let Some(item) = reader.take("bind") {
        defaults.bind = item.choice(context, &ACTIONS).unwrap_or(defaults.bind);
    }
    if let Some(item) = reader.take("log") {
        defaults.log = item.flag(context).unwrap_or(defaults.log);
    }
    if let Some(item) = reader.take("essential") {
        defaults.essential = item.flag(context).unwrap_or(defaults.essential);
    }
    if let Some(item) = reader.take("embedded-ipv4") {
        defaults.embedded_ipv4 = item.flag(context).unwrap_or(defaults.embedded_ipv4);
    }
    reader.finish(context);
    defaults
}

/// What a direction's default does: everything that a rule can but ask, since how that goes on is said in a rule.
fn default(context: &mut Context<'_>, item: &reader::Item<'_>) -> Option<Action> {
    if item.value.as_str() == Some("ask") {
        context.expected(
            &item.at,
            "a default cannot ask",
            "`permit`, `block` or `drop`, and a last rule with `action = \"ask\"` and `direction = \"outbound\"`",
        );
        return None;
    }
    let [answers @ .., _] = &ACTIONS;
    item.choice(context, answers)
}

/// `shared` of the table `names`.
fn shared_permit(context: &mut Context<'_>, root: &mut Reader<'_>) -> bool {
    let Some(item) = root.take("names") else { return false };
    let Some(table) = item.value.as_table() else {
        context.expected(&item.at, "this is not a table", "a table with `shared`");
        return false;
    };
    let mut reader = Reader::new(table, item.at.span, item.at.key);
    let shared = reader.take("shared").and_then(|item| item.choice(context, &[("block", false), ("permit", true)]));
    reader.finish(context);
    shared.unwrap_or(false)
}

fn schedules(context: &mut Context<'_>, root: &mut Reader<'_>) -> Vec<Schedule> {
    let mut schedules = Vec::new();
    for (name, mut reader) in root.named(context, "schedule") {
        let mut days = [true; 7];
        if let Some(item) = reader.take("days") {
            days = [false; 7];
            for word in item.words(context, "days, as in `mon` or `mon-fri`") {
                match schedule::parse_days(word.text) {
                    Some(named) => named.into_iter().for_each(|day| days[usize::from(day)] = true),
                    None => context.expected(
                        &word.at,
                        format!("`{}` is not a day", word.text),
                        "`mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`, or a range like `mon-fri`",
                    ),
                }
            }
        }
        let mut hours = Vec::new();
        if let Some(item) = reader.take("hours") {
            for word in item.words(context, "hours, as in `08:00-18:00`") {
                match schedule::parse_hours(word.text) {
                    Some(span) => hours.push(span),
                    None => context.expected(
                        &word.at,
                        format!("`{}` is not a span of hours", word.text),
                        "`08:00-18:00`; one that ends before it begins extends into the next day",
                    ),
                }
            }
        }
        reader.finish(context);
        schedules.push(Schedule { name: name.to_owned(), days, hours });
    }
    schedules
}

/// A moment, as written in expectations and commands.
fn moment(context: &mut Context<'_>, item: &reader::Item<'_>) -> Option<Moment> {
    let text = item.text(context)?;
    let moment = Moment::parse(text);
    if moment.is_none() {
        context.expected(
            &item.at,
            format!("`{text}` is not a moment of the week"),
            "a day and a time, as in `mon 08:30`",
        );
    }
    moment
}
