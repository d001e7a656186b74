//! A rule of Windows Firewall, by PowerShell's names of its fields. `Get-NetFirewallRule` alone shows no addresses,
//! ports or program: those come from its filters, and docs/export-windows-firewall.ps1 exports them all.

use super::{
    ImportError,
    emit::{File, Rule},
    record::Draft,
    words,
};
use crate::model::{SidBuf, program::normalize};
use std::collections::BTreeMap;

/// As Windows decides: blocking rules come first, then permitting ones, then the direction's default.
pub(super) fn settle(file: &mut File, expected: &'static str) -> Result<(), ImportError> {
    if file.len() == 0 {
        return Err(file.nothing(expected));
    }
    file.note("the defaults are Windows' own (outbound permit, inbound block): check them");
    file.note("edge traversal is not carried over: rules apply to Teredo traffic too");
    (file.outbound, file.inbound) = (Some("permit"), Some("block"));
    Ok(())
}

/// Fields that do not affect what a rule matches.
const SILENT: &[&str] = &[
    "Name",
    "ID",
    "InstanceID",
    "Group",
    "Grouping",
    "RuleGroup",
    "DisplayGroup",
    "EdgeTraversalPolicy",
    "Edge traversal",
    "Defer to application",
    "Rule source",
    "PolicyStoreSource",
    "PolicyStoreSourceType",
    "PrimaryStatus",
    "Status",
    "StatusCode",
    "EnforcementStatus",
    "Caption",
    "ElementName",
    "CommonName",
    "CreationClassName",
    "SystemCreationClassName",
    "SystemName",
    "PolicyRuleName",
    "PolicyKeywords",
    "PolicyRoles",
    "PolicyDecisionStrategy",
    "ConditionListType",
    "ExecutionStrategy",
    "RuleUsage",
    "SequencedActions",
    "Mandatory",
    "RulePriority",
    "Priority",
    "CimClass",
    "CimInstanceProperties",
    "CimSystemProperties",
    "PSComputerName",
    "PSShowComputerName",
    "RunspaceId",
];

/// Without any of these, it is not known what a rule matches.
const NEEDED: &[&str] = &["Protocol", "LocalPort", "RemotePort", "RemoteAddress", "Program"];
/// Each of these may narrow a rule; if an export does not show one, a rule that permits is disabled.
const NARROWING: &[&str] = &[
    "LocalAddress",
    "Service",
    "Package",
    "InterfaceType",
    "InterfaceAlias",
    "LocalUser",
    "Owner",
    "Profile",
    "Authentication",
];
/// What netsh's verbose text shows for every rule; it never shows packages and users.
const NARROWING_NETSH: &[&str] = &["LocalAddress", "InterfaceType", "Profile", "Security"];

/// The kind of export that a record is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A table or objects: every rule has all columns.
    PowerShell,
    /// Text that leaves lines out.
    Netsh,
}

/// Reads one rule.
pub(super) fn rule(draft: &mut Draft<String>, origin: Origin) -> Vec<Rule> {
    let display = text(draft, "DisplayName");
    let name = display.or_else(|| text(draft, "Name")).unwrap_or_default();
    let description = text(draft, "Description");
    let group = text(draft, "Grouping").or_else(|| text(draft, "DisplayGroup"));
    draft.pass_over(SILENT);
    missing(draft, origin);

    // The enumerations' numbers are those of MSFT_NetFirewallRule.
    let action = word(draft, "Action", &[("allow", false), ("2", false), ("block", true), ("4", true)]);
    let directions = &[
        ("inbound", "inbound"),
        ("in", "inbound"),
        ("1", "inbound"),
        ("outbound", "outbound"),
        ("out", "outbound"),
        ("2", "outbound"),
    ];
    let direction = word(draft, "Direction", directions);
    let states =
        &[("true", true), ("yes", true), ("1", true), ("false", false), ("no", false), ("2", false), ("0", false)];
    let enabled = word(draft, "Enabled", states);
    let mut rule = Rule {
        name,
        note: description.or(group),
        block: action.unwrap_or(true),
        enabled: enabled.unwrap_or(false),
        direction,
        ..Rule::default()
    };
    rule.rank = u8::from(!rule.block);
    rule.protocol = protocol(draft);
    addresses(draft, &mut rule);
    ports(draft, &mut rule, origin);
    who(draft, &mut rule);
    place(draft, &mut rule);
    let kinds = icmp(draft, &rule);
    if action.is_none() && direction.is_none() {
        // Apparently not a rule at all.
        return Vec::new();
    }
    if kinds.is_empty() {
        return vec![rule];
    }
    let of_code = |(code, types): (Option<String>, Vec<String>)| Rule {
        icmp_types: types,
        icmp_codes: code.into_iter().collect(),
        ..rule.clone()
    };
    kinds.into_iter().map(of_code).collect()
}

/// A field that holds something.
fn text(draft: &mut Draft<String>, key: &str) -> Option<String> {
    draft.take(key).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// One of a few words, in any letter case; any other word, or none, is reported as lost.
fn word<T: Copy>(draft: &mut Draft<String>, key: &str, words: &[(&str, T)]) -> Option<T> {
    let Some(value) = text(draft, key) else {
        draft.lost(format!("the missing {key}"));
        return None;
    };
    let known = words.iter().find(|(word, _)| value.eq_ignore_ascii_case(word)).map(|(_, meaning)| *meaning);
    if known.is_none() {
        draft.unknown(key, value);
    }
    known
}

/// Whether a value sets no condition.
fn any(value: &str) -> bool {
    value.eq_ignore_ascii_case("any")
}

/// A condition's value, if the field sets one.
fn asked(draft: &mut Draft<String>, key: &str) -> Option<String> {
    text(draft, key).filter(|value| !any(value))
}

/// The values of a list, without those that set no condition.
fn asked_list(draft: &mut Draft<String>, key: &str) -> Vec<String> {
    let value = text(draft, key).unwrap_or_default();
    words::list(&value, &[',', ';']).filter(|word| !any(word)).map(str::to_owned).collect()
}

/// Notes which fields that could narrow the rule are missing from the export.
fn missing(draft: &mut Draft<String>, origin: Origin) {
    // These are usually empty.
    let told = |draft: &Draft<String>, key: &str| match key {
        "Package" | "Owner" => draft.has(key),
        "Authentication" => draft.tells(key) || draft.tells("Security"),
        key => draft.tells(key),
    };
    let absent = |draft: &Draft<String>, keys: &[&'static str]| -> Vec<&'static str> {
        keys.iter().copied().filter(|key| !told(draft, key)).collect()
    };
    let (needed, narrowing) = match origin {
        Origin::PowerShell => (absent(draft, NEEDED), absent(draft, NARROWING)),
        Origin::Netsh => {
            let mut narrowing = absent(draft, NARROWING_NETSH);
            // Only verbose text has lines for programs, and none for a store app's rule.
            let verbose = narrowing.is_empty();
            let mut needed = absent(draft, &["Protocol", "RemoteAddress"]);
            if !draft.tells("Program") {
                if verbose { &mut narrowing } else { &mut needed }.push("Program");
            }
            (needed, narrowing)
        }
    };
    if !needed.is_empty() {
        draft.lost(format!("what the export does not show ({})", needed.join(", ")));
    } else if !narrowing.is_empty() {
        draft.wider(format!("the export does not show {}", narrowing.join(", ")));
    }
}

fn protocol(draft: &mut Draft<String>) -> Option<String> {
    let value = asked(draft, "Protocol")?;
    let lower = value.to_ascii_lowercase();
    let known = match lower.as_str() {
        "icmpv4" => Some("icmp".to_owned()),
        "tcp" | "udp" | "icmpv6" | "igmp" | "gre" | "ipv6" | "l2tp" => Some(lower),
        number => number.parse::<u8>().ok().map(|number| match number {
            1 => "icmp".to_owned(),
            58 => "icmpv6".to_owned(),
            other => other.to_string(),
        }),
    };
    if known.is_none() {
        draft.unknown("Protocol", value);
    }
    known
}

fn addresses(draft: &mut Draft<String>, rule: &mut Rule) {
    for (key, local) in [("RemoteAddress", false), ("LocalAddress", true)] {
        let mut found = Vec::new();
        for word in asked_list(draft, key).into_iter().filter(|word| word != "*") {
            if word.eq_ignore_ascii_case("LocalSubnet") {
                draft.lost(format!("{key} `{word}` (replaced by all private and link-local addresses)"));
                found.extend(["@private".to_owned(), "@link-local".to_owned()]);
            } else if let Some(address) = words::address(&word) {
                found.push(address);
            } else {
                draft.unknown(key, word);
            }
        }
        *if local { &mut rule.local } else { &mut rule.remote } = found;
    }
}

fn ports(draft: &mut Draft<String>, rule: &mut Rule, origin: Origin) {
    let icmp = matches!(rule.protocol.as_deref(), Some("icmp" | "icmpv6"));
    let carried = matches!(rule.protocol.as_deref(), Some("tcp" | "udp" | "6" | "17"));
    for (key, local) in [("RemotePort", false), ("LocalPort", true)] {
        if carried && origin == Origin::Netsh && !draft.tells(key) {
            draft.lost(format!("what the export does not show ({key})"));
        }
        let mut found = Vec::new();
        for word in asked_list(draft, key).into_iter().filter(|word| word != "*") {
            match words::port(&word) {
                // PowerShell shows `RPC` for every ICMP rule, although it has no ports.
                None if icmp && word.eq_ignore_ascii_case("RPC") => {}
                Some(port) if !icmp => found.push(port),
                _ => draft.unknown(key, word),
            }
        }
        *if local { &mut rule.local_ports } else { &mut rule.remote_ports } = found;
    }
}

/// ICMP types by code; `None` is every code.
fn icmp(draft: &mut Draft<String>, rule: &Rule) -> BTreeMap<Option<String>, Vec<String>> {
    let mut kinds: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
    let icmp = matches!(rule.protocol.as_deref(), Some("icmp" | "icmpv6"));
    for word in asked_list(draft, "IcmpType") {
        let (kind, code) = word.split_once(':').unwrap_or((&word, "any"));
        let number = |text: &str| text.trim().parse::<u8>().ok().map(|number| number.to_string());
        let code = if any(code) || code == "*" { Some(None) } else { number(code).map(Some) };
        match (number(kind), code) {
            (Some(kind), Some(code)) if icmp => kinds.entry(code).or_default().push(kind),
            _ => draft.unknown("IcmpType", &word),
        }
    }
    kinds
}

/// Program, service, package and users.
fn who(draft: &mut Draft<String>, rule: &mut Rule) {
    if let Some(program) = asked(draft, "Program") {
        if normalize(&program).is_ok() {
            rule.applications = vec![program];
        } else {
            draft.lost(format!("Program `{program}`, which is not the full path of a program,"));
        }
    }
    // `*` is any service, but only services.
    if let Some(service) = asked(draft, "Service") {
        match SidBuf::of_service(&service) {
            Some(_) => rule.services = vec![service],
            None => draft.unknown("Service", service),
        }
    }
    if let Some(package) = asked(draft, "Package") {
        match SidBuf::of_package(&package) {
            Ok(_) => rule.packages = vec![package],
            Err(_) => draft.unknown("Package", package),
        }
    }
    if let Some(value) = asked(draft, "LocalUser") {
        match users_of_sddl(&value) {
            Some(users) => rule.users = users,
            None => draft.unknown("LocalUser", value),
        }
    }
    if let Some(owner) = asked(draft, "Owner") {
        match SidBuf::parse(&owner) {
            Some(sid) if rule.users.is_empty() || rule.users == [sid.to_string()] => rule.users = vec![sid.to_string()],
            _ => draft.unknown("Owner", owner),
        }
    }
    for (key, neutral) in [
        ("RemoteUser", "any"),
        ("RemoteMachine", "any"),
        ("RemoteUserGroup", "any"),
        ("RemoteMachineGroup", "any"),
        ("Authentication", "NotRequired"),
        ("Encryption", "NotRequired"),
        ("Security", "NotRequired"),
        ("OverrideBlockRules", "False"),
        ("LooseSourceMapping", "False"),
        ("LSM", "False"),
        ("LocalOnlyMapping", "False"),
        ("DynamicTarget", "any"),
        ("DynamicTransport", "any"),
        ("RemoteDynamicKeywordAddresses", "any"),
        ("PolicyAppId", "any"),
        ("Platform", "any"),
        ("Platforms", "any"),
    ] {
        // Numbers are JSON's values for the first word of an enumeration; braces are an empty list.
        let neutral = |value: &String| value.eq_ignore_ascii_case(neutral) || matches!(value.as_str(), "0" | "{}");
        if let Some(value) = asked(draft, key).filter(|value| !neutral(value)) {
            draft.unknown(key, value);
        }
    }
}

/// The users that `O:LSD:(A;;CC;;;SID)...` admits, if it contains nothing else.
fn users_of_sddl(text: &str) -> Option<Vec<String>> {
    let (_, list) = text.split_once("D:")?;
    let mut users = Vec::new();
    for entry in list.split_inclusive(')') {
        let fields: Vec<&str> = entry.strip_prefix('(')?.strip_suffix(')')?.split(';').collect();
        let ["A", "", "CC", "", "", sid] = fields[..] else { return None };
        users.push(SidBuf::parse(sid)?.to_string());
    }
    (!users.is_empty()).then_some(users)
}

/// Interfaces and profiles.
fn place(draft: &mut Draft<String>, rule: &mut Rule) {
    if let Some(alias) = asked(draft, "InterfaceAlias") {
        draft.unknown("InterfaceAlias", alias);
    }
    for word in asked_list(draft, "InterfaceType") {
        match word.to_ascii_lowercase().as_str() {
            "0" => {}
            "wireless" | "2" => rule.interfaces.push("wireless".to_owned()),
            "wired" | "lan" | "1" => rule.interfaces.push("ethernet".to_owned()),
            "remoteaccess" | "ras" | "4" => rule.interfaces.push("ppp".to_owned()),
            _ => draft.unknown("InterfaceType", word),
        }
    }
    let all = ["all", "domain,private,public", "0", "7", "2147483647"];
    for key in ["Profile", "Profiles"] {
        let Some(profile) = asked(draft, key) else { continue };
        let plain: String = profile.to_ascii_lowercase().split_whitespace().collect();
        if !all.contains(&plain.as_str()) {
            draft.unknown(key, profile);
        }
    }
}
