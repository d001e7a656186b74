//! What an image is made of that may change: noted in it, so that whoever has the image can see that it did.

use super::CompileOptions;
use crate::{
    image::sources::{self, Source, SourceKind},
    model::{Policy, program::fold},
};
use std::collections::BTreeMap;

/// Writes the records and their texts: lists in the order of their names, then drives and interfaces.
pub(super) fn write(policy: &Policy, options: &CompileOptions<'_>, records: &mut Vec<u8>, text: &mut Vec<u8>) {
    let lists = policy.lists.iter().map(|list| (list.name.clone(), list.entries.to_string()));
    let lists: BTreeMap<String, String> = lists.collect();
    let interfaces =
        policy.resolved_aliases.iter().map(|(alias, luid)| (alias.clone(), format!("{luid:#x}"))).collect();
    let kinds =
        [(SourceKind::List, lists), (SourceKind::Drive, drives(policy, options)), (SourceKind::Interface, interfaces)];
    let all =
        kinds.iter().flat_map(|(kind, named)| named.iter().map(|(name, value)| Source { kind: *kind, name, value }));
    sources::write(all, records, text);
}

/// The drives that active rules name programs by, and what they stand for: what is left of a resolved path before the
/// part that both have.
fn drives(policy: &Policy, options: &CompileOptions<'_>) -> BTreeMap<String, String> {
    let mut drives = BTreeMap::new();
    let active = policy.rules.iter().filter(|rule| rule.active(&policy.schedules, options.at));
    for path in active.flat_map(|rule| rule.applications.iter().flatten()) {
        let path = path.value.strip_suffix("\\*").unwrap_or(&path.value);
        let Some((drive, below)) = path.split_at_checked(2).filter(|(drive, _)| drive.ends_with(':')) else { continue };
        let Ok(resolved) = (options.application)(path) else { continue };
        if let Some(device) = fold(&resolved).strip_suffix(&fold(below)) {
            drives.entry(drive.to_ascii_uppercase()).or_insert_with(|| device.to_owned());
        }
    }
    drives
}
