//! `[list.NAME]`: where its entries come from, and what they must be.

use super::{
    Files,
    list::{self, Collector, Contents, Format},
    reader::{At, Context, Reader, Word, one_of},
    scope::Named,
};
use crate::{diagnostic::Severity, text};
use std::{
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// The keys of a list besides its sources.
struct Keys {
    format: Format,
    subdomains: Option<bool>,
    may_be_empty: bool,
    allow_outside: bool,
}

/// Reads one list.
pub(super) fn read(context: &mut Context<'_>, mut reader: Reader<'_>, files: &dyn Files) -> Named {
    let at = reader.at.clone();
    let mut flag = |context: &mut Context<'_>, key| reader.take(key).and_then(|item| item.flag(context));
    let subdomains = flag(context, "subdomains");
    let strict = flag(context, "strict").unwrap_or(false);
    let may_be_empty = flag(context, "may-be-empty").unwrap_or(false);
    let allow_outside = flag(context, "allow-outside").unwrap_or(false);
    let format = reader.take("format").and_then(|item| item.choice(context, &list::FORMATS)).unwrap_or(Format::Auto);
    let keys = Keys { format, subdomains, may_be_empty, allow_outside };

    let mut collector = Collector::default();
    let mut sources = 0;
    for key in ["file", "files"] {
        let Some(item) = reader.take(key) else { continue };
        for word in item.words(context, "the path of a file, or a list of them") {
            sources += 1;
            file(context, &word, &keys, files, &mut collector);
        }
    }
    if let Some(item) = reader.take("entries") {
        sources += 1;
        for word in item.words(context, "entries as in a list file") {
            entry(context, &word, &keys, &mut collector);
        }
    }
    if sources == 0 {
        context.expected(&at, "the list has no source", "`file`, `files` or `entries`");
    }
    let mut found = std::mem::take(&mut collector.diagnostics);
    if strict {
        found.iter_mut().for_each(|one| one.severity = Severity::Error);
    }
    context.diagnostics.append(&mut found);
    reader.finish(context);
    named(context, &at, collector, strict)
}

fn named(context: &mut Context<'_>, at: &At, mut collector: Collector, strict: bool) -> Named {
    let (has_addresses, has_names) = (collector.address_count > 0, collector.has_names());
    if has_addresses && has_names {
        context.error(at, "the list holds both addresses and names; split it into two lists");
    }
    let names = collector.take_names();
    let empty = !has_addresses && names.is_empty();
    let mut named = Named::default();
    (named.is_list, named.entries, named.empty, named.strict) = (true, collector.entries, empty, strict);
    // A list without entries can be used as either.
    for contents in [Contents::Addresses(collector.addresses.finish()), Contents::Names(names)] {
        match contents {
            Contents::Addresses(set) if !has_names => named.addresses = Some(Arc::new(set)),
            Contents::Names(set) if !has_addresses => named.names = Some(Arc::new(set)),
            _ => {}
        }
    }
    named
}

/// A file of entries.
fn file(context: &mut Context<'_>, word: &Word<'_>, keys: &Keys, files: &dyn Files, collector: &mut Collector) {
    let Some(path) = place(context, word, keys.allow_outside) else { return };
    let bytes = match files.read(&path) {
        Ok(bytes) => bytes,
        Err(error) => return context.error(&word.at, format!("`{}` cannot be read: {error}", path.display())),
    };
    // Comments of old lists can be in any code page; in an entry, what is not UTF-8 is not a name either.
    let text = text::decode(&bytes, None).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned());
    if text.trim_start().starts_with('<') {
        let help = "servers send such pages on errors: download the list again";
        return context.error_with_help(&word.at, format!("`{}` is a web page, not a list", word.text), help);
    }
    let before = collector.entries;
    collector.read(&path, &text, keys.format, keys.subdomains);
    if collector.entries > before {
        return;
    }
    let message = format!("`{}` has no entries", word.text);
    if keys.may_be_empty {
        return context.warning(&word.at, message, None);
    }
    let formats = one_of(list::FORMATS.iter().map(|(word, _)| *word));
    let help = format!("if it has some, set its format: {formats}; if it may be empty, set `may-be-empty = true`");
    context.error_with_help(&word.at, message, help);
}

/// An inline entry.
fn entry(context: &mut Context<'_>, word: &Word<'_>, keys: &Keys, collector: &mut Collector) {
    let before = collector.entries;
    let held = std::mem::take(&mut collector.diagnostics);
    collector.read(context.path, word.text, keys.format, keys.subdomains);
    let found = std::mem::replace(&mut collector.diagnostics, held);
    // Their lines are counted from the entry; the word knows its place in the policy.
    for one in found {
        if collector.entries > before {
            context.warning(&word.at, format!("`{}`: {}", word.text, one.message), None);
        }
    }
    if collector.entries == before {
        let expected = "an address, prefix, range or name";
        context.expected(&word.at, format!("`{}` is not an entry", word.text), expected);
    }
}

/// The path of a list file. A relative path must stay inside the policy's folder unless the list says otherwise, and no
/// other machine is contacted, since that would reveal who asks.
fn place(context: &mut Context<'_>, word: &Word<'_>, allow_outside: bool) -> Option<PathBuf> {
    if word.text.starts_with("\\\\") || word.text.starts_with("//") {
        let help = "copy the list to this machine: reading it there sends the reader's credentials";
        context.error_with_help(&word.at, format!("`{}` is on another machine or is a device", word.text), help);
        return None;
    }
    let mut depth = 0i32;
    let outside = Path::new(&word.text.replace('\\', "/")).components().any(|part| {
        depth += match part {
            Component::ParentDir => -1,
            Component::Normal(_) => 1,
            _ => 0,
        };
        depth < 0
    });
    let absolute = Path::new(word.text).is_absolute() || word.text.get(1..2) == Some(":");
    if outside && !absolute && !allow_outside {
        let help = "move it there, give its full path, or set `allow-outside = true`";
        context.error_with_help(&word.at, format!("`{}` is outside the policy's folder", word.text), help);
        return None;
    }
    let base = context.path.parent().map_or_else(PathBuf::new, PathBuf::from);
    Some(base.join(word.text))
}
