//! A classify call in the words of a trace.

use super::Classify;
use crate::cpu;
use crate::trace::{Argument, Callback};
use crate::wfp::callout::{self, Registration};
use crate::wfp::layers::FieldKind;
use nt_abi::fwp::value::Read;
use nt_abi::fwp::{FwpsClassifyOut0, consts};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The call, with every field that has a value and is no blob.
pub(super) fn classify_fn(
    classify: &Classify<'_>,
    registration: &Registration,
    filter_id: u64,
    flow_context: u64,
    may_write: bool,
) -> Callback {
    let routine = match registration.classify {
        callout::Classify::V0(f) => f as *const () as u64,
        callout::Classify::V1(f) => f as *const () as u64,
    };
    let layer = cpu::with_machine(|machine| machine.wfp.layers().get(classify.layer));
    let mut arguments = vec![
        Argument::new("layer", layer.map_or("?", |layer| layer.name)),
        Argument::new("filterId", filter_id),
        Argument::new("flowContext", format_args!("{flow_context:#x}")),
        Argument::new("rights", if may_write { "WRITE" } else { "none" }),
    ];
    for (field, value) in layer.iter().flat_map(|layer| &layer.fields).zip(classify.values) {
        let shown = match value.read() {
            Read::Unsigned(consts::FWP_UINT32, v) if field.kind == FieldKind::IpAddress => {
                Ipv4Addr::from(v as u32).to_string()
            }
            Read::Unsigned(_, v) if field.kind == FieldKind::Flags => format!("{v:#x}"),
            Read::Unsigned(_, v) => v.to_string(),
            Read::Bytes16(v) => Ipv6Addr::from(*v).to_string(),
            _ => continue,
        };
        arguments.push(Argument::new(field.name, shown));
    }
    Callback::new("classifyFn", routine, arguments)
}

/// What the callout answered.
pub(super) fn answer(out: &FwpsClassifyOut0) -> String {
    let action = match out.action_type {
        consts::FWP_ACTION_PERMIT => "PERMIT".to_owned(),
        consts::FWP_ACTION_BLOCK => "BLOCK".to_owned(),
        consts::FWP_ACTION_CONTINUE => "CONTINUE".to_owned(),
        other => format!("action {other:#x}"),
    };
    let rights = if out.rights & consts::FWPS_RIGHT_ACTION_WRITE == 0 { ", right cleared" } else { "" };
    let flags = if out.flags == 0 { String::new() } else { format!(", flags {:#x}", out.flags) };
    format!("{action}{rights}{flags}")
}
