//! A policy beside an image of which only the bytes are known, as that in force is.
//!
//! The image's rules cannot be had back, but what they match is in it as boxes of addresses and ports, and their
//! programs by name: flows are made of both, and of what the policy's own rules match.

use super::{BUDGET, Difference, Found, essential, image, witnesses};
use crate::{
    compile::CompileOptions,
    diagnostic::Errors,
    flow::{Direction, unspecified},
    image::{Image, layout::*},
    model::{FlowSpec, Policy},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Programs of the image that are tried with a box whose rule asks for more than addresses and ports.
const PROGRAMS: usize = 8;

/// Compares an image with a policy. What is reported has been seen; a difference that shows only for flows of which no
/// rule's edge tells may be missed.
///
/// # Errors
/// The policy does not compile.
pub fn diff_with_image(
    in_force: Image<Vec<u8>>,
    new: &Policy,
    options: &CompileOptions<'_>,
) -> Result<Difference, Errors> {
    let flows = flows_of(&in_force);
    let mut found = Found::new([in_force, image(new, options)?], options);
    witnesses(None, None, &mut |flow| found.try_flow(flow));
    essential().into_iter().for_each(|(_, flow)| found.try_flow(flow));
    let active = new.rules.iter().filter(|rule| rule.active(&new.schedules, options.at));
    for rule in active.take(BUDGET / 4) {
        witnesses(Some(rule), None, &mut |flow| found.try_flow(flow));
    }
    flows.for_each(|flow| found.try_flow(flow));
    Ok(found.into_difference(false))
}

/// Flows from the corners of what an image's rules match.
fn flows_of(image: &Image<Vec<u8>>) -> impl Iterator<Item = FlowSpec> + use<> {
    let bytes = image.as_bytes();
    let sections = Header::read(bytes).sections;
    let programs = programs(bytes, &sections);
    let four = sections.entries4.of(bytes).as_chunks().0.iter().map(|entry| {
        let Entry4 { remote, local, tail } = Entry4::read(entry);
        let last = |first: u32, length: u8| first | u32::MAX.checked_shr(length.into()).unwrap_or(0);
        let ends = |first: u32, length: u8| [first, last(first, length)].map(|bits| IpAddr::V4(Ipv4Addr::from(bits)));
        (ends(remote, tail.remote_length), ends(local, tail.local_length), tail)
    });
    let six = sections.entries6.of(bytes).as_chunks().0.iter().map(|entry| {
        let Entry6 { remote, local, tail } = Entry6::read(entry);
        let last = |first: u128, length: u8| first | u128::MAX.checked_shr(length.into()).unwrap_or(0);
        let ends = |first: u128, length: u8| [first, last(first, length)].map(|bits| IpAddr::V6(Ipv6Addr::from(bits)));
        (ends(remote, tail.remote_length), ends(local, tail.local_length), tail)
    });
    let boxes: Vec<_> = four.chain(six).take(BUDGET).collect();
    boxes.into_iter().flat_map(move |(remotes, locals, tail)| {
        let protocol = if tail.flags & ENTRY_ANY_PROTOCOL != 0 { 6 } else { tail.protocol };
        let asks = tail.flags & ENTRY_CONDITIONS != 0;
        let tried = if asks { programs.clone() } else { vec![None] };
        let flow = move |corner: usize, direction: Direction, application: Option<String>| FlowSpec {
            direction,
            protocol,
            local: (locals[corner], [tail.local_port.0, tail.local_port.1][corner]),
            remote: if direction.is_local() {
                (unspecified(locals[corner]), 0)
            } else {
                (remotes[corner], [tail.remote_port.0, tail.remote_port.1][corner])
            },
            application,
            users: Vec::new(),
            interface: None,
            remote_name: None,
        };
        tried.into_iter().flat_map(move |program| {
            let each = [0, 1].into_iter().flat_map(|corner| Direction::ALL.map(|direction| (corner, direction)));
            // Of what is forwarded no program is known.
            let each = each.map(move |(corner, direction)| {
                (corner, direction, program.clone().filter(|_| direction != Direction::Forward))
            });
            each.map(move |(corner, direction, program)| flow(corner, direction, program))
        })
    })
}

/// No program, and some of those that an image names.
fn programs(bytes: &[u8], sections: &Sections) -> Vec<Option<String>> {
    let strings = sections.strings.of(bytes);
    let wide: Vec<u16> = strings.as_chunks().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
    // Paths follow each other without a mark between them, and each begins with the device.
    let text = String::from_utf16_lossy(&wide);
    let named = text.split(r"\device\").skip(1).take(PROGRAMS).map(|rest| Some(format!(r"\device\{rest}")));
    named
        .map(|path| path.map(|path| if path.ends_with('\\') { path + "program.exe" } else { path }))
        .chain([None])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compile, parse};
    use std::{collections::BTreeMap, path::Path, path::PathBuf};

    fn policy(text: &str) -> Policy {
        let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        parse(Path::new("policy.toml"), text, &files).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn rules(rules: &[&str]) -> String {
        rules.iter().zip(0..).map(|(keys, number)| format!("[[rule]]\nname = \"r{number}\"\n{keys}\n")).collect()
    }

    /// The rules that decide differently, old and new.
    fn changes(old: &str, new: &str) -> Vec<(Option<String>, Option<String>)> {
        let options = CompileOptions { application: &|path| Ok(path.to_owned()), key: [1; 16], at: None };
        let in_force = Image::validate(compile(&policy(old), &options).unwrap()).unwrap();
        let found = diff_with_image(in_force, &policy(new), &options).unwrap();
        assert_eq!(found.pairs, found.changes.len());
        let mut changes: Vec<_> = found.changes.into_iter().map(|one| (one.old_rule, one.new_rule)).collect();
        changes.sort();
        changes.dedup();
        changes
    }

    #[test]
    fn what_an_image_decides_differently_is_found() {
        let web = "action = \"block\"\nremote = \"203.0.113.0/24\"\nremote-port = 443";
        let six = "action = \"block\"\nremote = \"2001:db8::/48\"";
        let program = r"action = 'block'
application = '\Device\HarddiskVolume1\a.exe'";
        let (r0, r1) = (Some("r0".to_owned()), Some("r1".to_owned()));
        let both = rules(&[web, six]);
        assert_eq!(changes(&both, &both), []);
        assert_eq!(changes(&both, &rules(&[web])), [(r1.clone(), None)]);
        assert_eq!(changes(&rules(&[web]), &both), [(None, r1)]);
        assert_eq!(changes(&rules(&[web]), &rules(&[&web.replace("/24", "/25")])), [(r0.clone(), None)]);
        assert_eq!(changes(&rules(&[program]), ""), [(r0, None)]);
        assert_eq!(changes("", "[default]\noutbound = \"block\"\n"), [(None, None)]);
    }
}
