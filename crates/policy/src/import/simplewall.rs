//! simplewall's profile.xml: `apps/item` are programs that may do everything; `rules_custom`, `rules_system` and
//! `rules_blocklist` hold rules; `rules_config` says which of the latter two are enabled.
//!
//! A rule's `rule` and `rule_local` hold addresses, ports and both (`10.0.0.1:80`), separated by semicolons;
//! `dir` is 0 outbound, 1 inbound, 2 both; `protocol` an IP protocol number; `version` an address family (2 or 23);
//! `apps` paths separated by bars; `is_services` adds the kernel and svchost.exe. A missing attribute is false or 0.
//! What no rule and no program permits is blocked. The order is: the blocklist, the user's blocking rules, the user's
//! permitting rules, system rules, programs.

use super::{
    ImportError,
    emit::{File, Rule},
    record::{Draft, Record},
    words,
};
use crate::model::{SidBuf, program::normalize};
use quick_xml::{Reader, events::Event};
use std::collections::BTreeMap;

const SVCHOST: &str = r"%SystemRoot%\system32\svchost.exe";

/// The `rules_config` entry of a rule.
#[derive(Clone, Debug, Default)]
struct Config {
    enabled: bool,
    apps: String,
    used: bool,
}

type Configs = BTreeMap<String, Config>;

/// The kinds of rules.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blocklist,
    Custom,
    System,
}

/// Reads a profile.
pub(super) fn read(text: &str, file: &mut File) -> Result<(), ImportError> {
    file.origin = "a simplewall profile";
    (file.outbound, file.inbound) = (Some("block"), Some("block"));
    let mut apps = Vec::new();
    let mut rules = Vec::new();
    let mut configs = Configs::new();
    let mut separator = '|';
    for (section, item) in items(text, file)? {
        match section.as_str() {
            "root" => separator = root(item, file),
            "apps" => apps.push(item),
            "rules_custom" => rules.push((Kind::Custom, item)),
            "rules_blocklist" => rules.push((Kind::Blocklist, item)),
            "rules_system" => rules.push((Kind::System, item)),
            "rules_config" => config(item, &mut configs, file),
            other => file.rules(item, |draft| {
                draft.lost(format!("an item of the unknown section `{other}`"));
                Vec::new()
            }),
        }
    }
    for (kind, item) in rules {
        file.rules(item, |draft| rule(draft, kind, &mut configs, separator));
    }
    let elsewhere: Vec<&String> = configs.iter().filter(|(_, one)| !one.used).map(|(name, _)| name).collect();
    if let Some(first) = elsewhere.first() {
        file.note(format!(
            "rules_config refers to {} rules that are not in this file (`{first}` is the first): simplewall keeps its \
             own in profile_internal.xml",
            elsewhere.len()
        ));
    }
    let mut permitted = Apps::default();
    for item in apps {
        file.rules(item, |draft| {
            app(draft, &mut permitted);
            Vec::new()
        });
    }
    let all = Rule { name: "permitted programs".to_owned(), enabled: true, rank: 9, ..Rule::default() };
    permitted.rules(&all).into_iter().for_each(|rule| file.push(rule));
    if file.len() == 0 {
        return Err(file.nothing("a profile has <rules_custom> or enabled <apps>"));
    }
    Ok(())
}

/// The items of all sections in order, the root's own attributes first.
fn items(text: &str, file: &mut File) -> Result<Vec<(String, Record<String>)>, ImportError> {
    let line_of = |at: u64| text.as_bytes().iter().take(at as usize).filter(|byte| **byte == b'\n').count() + 1;
    let mut reader = Reader::from_str(text);
    let mut section = String::new();
    let mut items = Vec::new();
    loop {
        let wrong = |at: u64, message: String| ImportError::Syntax { line: line_of(at), message };
        let event = reader.read_event().map_err(|error| wrong(reader.error_position(), error.to_string()))?;
        let at = reader.buffer_position();
        let (tag, encloses) = match event {
            Event::Eof if items.is_empty() => return Err(wrong(at, "there is no <root>".to_owned())),
            Event::Eof if !section.is_empty() => return Err(wrong(at, format!("<{section}> is not closed"))),
            Event::Eof => return Ok(items),
            Event::Start(tag) => (tag, true),
            Event::Empty(tag) => (tag, false),
            Event::End(tag) => {
                if tag.name().as_ref() == section.as_str() {
                    section.clear();
                }
                continue;
            }
            Event::Text(words) => {
                let words = words.to_string();
                if !words.trim().is_empty() {
                    file.note(format!("line {}: the text `{}` is ignored", line_of(at), words.trim()));
                }
                continue;
            }
            _ => continue,
        };
        let name = tag.name().as_ref().to_owned();
        if items.is_empty() && name != "root" {
            return Err(wrong(at, format!("expected <root>, found <{name}>")));
        }
        let mut item = Record::new(format!("line {}", line_of(at)));
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(|error| wrong(at, error.to_string()))?;
            let value = quick_xml::escape::unescape(&attribute.value)
                .map_err(|error| wrong(at, error.to_string()))?
                .into_owned();
            item.push(attribute.key.as_ref().to_owned(), value);
        }
        if items.is_empty() {
            items.push((name, item));
        } else if name == "item" {
            items.push((section.clone(), item));
        } else {
            if !item.is_empty() {
                items.push((name.clone(), item));
            }
            section = if encloses { name } else { String::new() };
        }
    }
}

/// The separator of programs, by the root's version.
fn root(item: Record<String>, file: &mut File) -> char {
    let mut separator = '|';
    file.rules(item, |draft| {
        if draft.take("version").and_then(|version| version.parse::<u32>().ok()).is_some_and(|version| version < 3) {
            separator = ';';
        }
        draft.pass_over(&["timestamp", "type"]);
        Vec::new()
    });
    separator
}

fn config(item: Record<String>, configs: &mut Configs, file: &mut File) {
    file.rules(item, |draft| {
        let Some(name) = draft.take("name") else {
            draft.lost("an item without a name");
            return Vec::new();
        };
        let enabled = flag(draft, "is_enabled");
        let apps = draft.take("apps").unwrap_or_default();
        draft.pass_over(&["hash"]);
        configs.insert(name, Config { enabled: enabled == Some(true), apps, used: false });
        Vec::new()
    });
}

/// A boolean; none if it is neither.
fn flag(draft: &mut Draft<String>, key: &str) -> Option<bool> {
    let Some(value) = draft.take(key) else { return Some(false) };
    match value.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => {
            draft.unknown(key, value);
            None
        }
    }
}

/// Programs, packages and services, any of which is enough for a rule to match.
#[derive(Clone, Debug, Default)]
struct Apps {
    programs: Vec<String>,
    packages: Vec<String>,
    services: Vec<String>,
}

impl Apps {
    /// Adds one, if it is one: programs by their paths, packages by their SIDs, services by their names.
    fn push(&mut self, text: &str) -> bool {
        if normalize(text).is_ok() {
            self.programs.push(text.to_owned());
        } else if text.starts_with("S-1-15-2-") && SidBuf::of_package(text).is_ok() {
            self.packages.push(text.to_owned());
        } else if !text.contains(['\\', '.', ':']) && SidBuf::of_service(text).is_some() {
            self.services.push(text.to_owned());
        } else {
            return false;
        }
        true
    }

    /// One rule for each kind present.
    fn rules(self, all: &Rule) -> Vec<Rule> {
        let mut rules = Vec::new();
        if !self.programs.is_empty() {
            rules.push(Rule { applications: self.programs, ..all.clone() });
        }
        if !self.packages.is_empty() {
            rules.push(Rule { packages: self.packages, ..all.clone() });
        }
        if !self.services.is_empty() {
            rules.push(Rule { services: self.services, ..all.clone() });
        }
        rules
    }
}

/// A program that may do everything.
fn app(draft: &mut Draft<String>, permitted: &mut Apps) {
    draft.pass_over(&["timestamp", "hash", "is_silent", "is_undeletable", "comment", "notes", "profile"]);
    let Some(path) = draft.take("path") else { return draft.lost("a program without a path") };
    let timer = draft.take("timer").filter(|timer| timer != "0");
    if flag(draft, "is_enabled") != Some(true) {
        return;
    }
    if let Some(timer) = timer {
        draft.lost(format!("`{path}`, which is permitted only until {timer}"));
    } else if draft.leaves_something() {
        draft.lost(format!("`{path}`, which is not fully understood"));
    } else if !permitted.push(&path) {
        draft.lost(format!("`{path}`, which is not the path of a program"));
    }
}

fn rule(draft: &mut Draft<String>, kind: Kind, configs: &mut Configs, separator: char) -> Vec<Rule> {
    let name = draft.take("name").unwrap_or_default();
    let config = configs.get_mut(&name).filter(|_| kind != Kind::Custom).map(|config| {
        config.used = true;
        config.clone()
    });
    let block = flag(draft, "is_block").unwrap_or(true) || kind == Kind::Blocklist;
    // The blocklist's three parts are switched as a whole; by default simplewall enables the first one and unnamed
    // parts.
    let own = flag(draft, "is_enabled") == Some(true);
    let usual =
        if kind == Kind::Blocklist { !(name.starts_with("update_") || name.starts_with("extra_")) } else { own };
    let mut rule = Rule {
        block,
        enabled: config.as_ref().map_or(usual, |config| config.enabled),
        rank: match (kind, block) {
            (Kind::Blocklist, _) => 0,
            (Kind::Custom, true) => 1,
            (Kind::Custom, false) => 2,
            (Kind::System, true) => 3,
            (Kind::System, false) => 4,
        },
        note: draft.take("comment").filter(|comment| !comment.is_empty()),
        direction: Some("outbound"),
        name,
        ..Rule::default()
    };
    draft.pass_over(&["timestamp", "hash", "is_readonly"]);
    match draft.take("dir").as_deref() {
        None | Some("0") => {}
        Some("1") => rule.direction = Some("inbound"),
        Some("2") => rule.direction = None,
        Some(other) => draft.unknown("dir", other),
    }
    if let Some(number) = draft.take("protocol").filter(|number| number != "0") {
        match number.parse::<u8>() {
            Ok(number) => rule.protocol = Some(number.to_string()),
            Err(_) => draft.unknown("protocol", number),
        }
    }
    if let Some(version) = draft.take("os_version") {
        // A rule exists from this version of Windows on; every Windows that the driver runs on is 10.0.
        let parsed = version.trim().parse::<f32>();
        if !parsed.is_ok_and(|version| version <= 10.0) {
            draft.unknown("os_version", version);
        }
    }
    let apps = programs(draft, config.as_ref(), separator);
    let everybody = apps.programs.is_empty() && apps.packages.is_empty() && apps.services.is_empty();
    let rules = sides(draft, &rule);
    if everybody { rules } else { rules.iter().flat_map(|rule| apps.clone().rules(rule)).collect() }
}

fn programs(draft: &mut Draft<String>, config: Option<&Config>, separator: char) -> Apps {
    let mut found = Apps::default();
    let services = flag(draft, "is_services") == Some(true);
    let kernel = flag(draft, "is_kernel") == Some(true);
    if kernel || services {
        found.programs.push("System".to_owned());
    }
    if services && !kernel {
        found.programs.push(SVCHOST.to_owned());
    }
    let apps = draft.take("apps").unwrap_or_default();
    let more = config.map(|config| config.apps.as_str()).unwrap_or_default();
    for path in apps.split(separator).chain(more.split(separator)).map(str::trim).filter(|path| !path.is_empty()) {
        if !found.push(path) {
            draft.unknown("apps", path);
        }
    }
    found
}

/// Each part is an address, a port, or an address with a port; different pairs become separate rules.
fn sides(draft: &mut Draft<String>, rule: &Rule) -> Vec<Rule> {
    let take = |draft: &mut Draft<String>, key: &str| -> Vec<String> {
        let value = draft.take(key).unwrap_or_default();
        words::list(&value, &[';']).map(str::to_owned).collect()
    };
    let mut remote = take(draft, "rule");
    remote.extend(take(draft, "rule_remote"));
    let local = take(draft, "rule_local");
    if remote.len() > 1 && local.len() > 1 {
        draft.lost("`rule` and `rule_local`, whose parts belong together in pairs,");
    }
    let mut rules = vec![rule.clone()];
    for (key, parts, is_local) in [("rule", remote, false), ("rule_local", local, true)] {
        if parts.is_empty() {
            continue;
        }
        let mut pairs: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
        let mut ports = Vec::new();
        for part in parts {
            match side(&part) {
                Some((Some(address), port)) => pairs.entry(port).or_default().push(address),
                Some((None, Some(port))) => ports.push(port),
                _ => draft.unknown(key, part),
            }
        }
        let mut alternatives: Vec<(Vec<String>, Vec<String>)> =
            pairs.into_iter().map(|(port, addresses)| (addresses, port.into_iter().collect())).collect();
        if !ports.is_empty() || alternatives.is_empty() {
            alternatives.insert(0, (Vec::new(), ports));
        }
        let with = |one: &Rule, (addresses, ports): &(Vec<String>, Vec<String>)| {
            let mut one = one.clone();
            if is_local {
                (one.local, one.local_ports) = (addresses.clone(), ports.clone());
            } else {
                (one.remote, one.remote_ports) = (addresses.clone(), ports.clone());
            }
            one
        };
        rules = rules.iter().flat_map(|one| alternatives.iter().map(move |other| with(one, other))).collect();
    }
    family(draft, &mut rules);
    rules
}

/// The address family narrows a rule that names no address.
fn family(draft: &mut Draft<String>, rules: &mut [Rule]) {
    let family = match draft.take("version").as_deref() {
        None | Some("0") => return,
        Some("2") => "ipv4",
        Some("23") => "ipv6",
        Some(other) => return draft.unknown("version", other),
    };
    for rule in rules {
        if rule.remote.is_empty() {
            rule.remote.push(family.to_owned());
        } else if rule.remote.iter().any(|address| address.contains(':') != (family == "ipv6")) {
            draft.lost(format!("addresses of a family other than `version` ({family})"));
        }
    }
}

/// An address, a port, or both.
fn side(part: &str) -> Option<(Option<String>, Option<String>)> {
    if let Some(port) = words::port(part) {
        return Some((None, Some(port)));
    }
    if let Some(address) = words::address(part) {
        return Some((Some(address), None));
    }
    let (address, port) = part.rsplit_once(':')?;
    // An IPv6 address with a port is in brackets; without them, its last group would be taken for one.
    if address.contains(':') && !address.starts_with('[') {
        return None;
    }
    Some((Some(words::address(address)?), Some(words::port(port)?)))
}
