//! Parameters and results of the functions in the export tables.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

/// Collected from the declarations in the sources by `build.rs`.
const COLLECTED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/signatures.rs"));

/// For functions that macros declare, and variadic ones.
const SUPPLEMENT: &str = include_str!("signatures.txt");

fn supplement() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = SUPPLEMENT.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap_or((line, "")))
}

/// How many stack arguments are read for a function with unknown parameters: more than any function of the tables has.
const STACK_WORDS: u64 = 24;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not shown: the framework's globals.
    Hidden,
    Status,
    Boolean,
    Irql,
    Unsigned(u32),
    Signed(u32),
    Tag,
    UnicodeString,
    AnsiString,
    Guid,
    /// A NUL-terminated string of bytes.
    Text,
    /// A NUL-terminated string of UTF-16 units.
    Wide,
    Pointer,
    /// The address of a value that the function writes, of so many bytes.
    Out(u32),
}

/// A parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

/// A function's parameters and result.
#[derive(Debug)]
pub(crate) struct Signature {
    pub(crate) parameters: Vec<Parameter>,
    /// None for a function that returns nothing.
    pub(crate) result: Option<Kind>,
    /// Whether more may be read than `parameters` says.
    open_ended: bool,
}

impl Signature {
    /// For an unknown function: the four registers.
    fn unknown() -> Self {
        let parameters = ["rcx", "rdx", "r8", "r9"].map(|name| Parameter { name, kind: Kind::Unsigned(64) });
        Self { parameters: parameters.into(), result: Some(Kind::Unsigned(64)), open_ended: true }
    }

    fn parse(function: &str, text: &'static str, open_ended: bool) -> Self {
        let (parameters, result) = match text.split_once("->") {
            Some((parameters, result)) => (parameters, Some(result.trim())),
            None => (text, None),
        };
        let parameters = split(parameters).into_iter().filter_map(|parameter| {
            let (name, kind) = parameter.split_once(':')?;
            let name = name.trim().trim_start_matches("mut ").trim_start_matches('_');
            Some(Parameter { name, kind: kind_of(name, kind.trim()) })
        });
        Self {
            parameters: parameters.collect(),
            result: match result {
                Some("u8") if ["Irql", "RaiseTo"].iter().any(|part| function.contains(part)) => Some(Kind::Irql),
                result => result.filter(|result| *result != "!").map(|result| kind_of("", result)),
            },
            open_ended,
        }
    }

    /// How many of the arguments on the stack the function may read.
    pub(crate) fn stack_words(&self) -> u64 {
        if self.open_ended { STACK_WORDS } else { (self.parameters.len() as u64).saturating_sub(4) }
    }
}

/// Splits at the commas outside brackets.
fn split(parameters: &'static str) -> Vec<&'static str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in parameters.char_indices() {
        match c {
            '(' | '[' | '<' => depth += 1,
            ')' | ']' => depth -= 1,
            '>' if !parameters[..at].ends_with('-') => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&parameters[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&parameters[start..]);
    parts
}

fn kind_of(name: &str, kind: &str) -> Kind {
    match kind {
        "Globals" => Kind::Hidden,
        "NtStatus" => Kind::Status,
        "Irql" => Kind::Irql,
        "u8" if name.contains("irql") || name == "old" => Kind::Irql,
        "u8" if name.is_empty() || name.starts_with("is_") || name == "wait" => Kind::Boolean,
        "bool" => Kind::Boolean,
        "u32" if name == "tag" => Kind::Tag,
        "u8" => Kind::Unsigned(8),
        "u16" => Kind::Unsigned(16),
        "u32" => Kind::Unsigned(32),
        "i8" => Kind::Signed(8),
        "i16" => Kind::Signed(16),
        "i32" => Kind::Signed(32),
        "i64" => Kind::Signed(64),
        "u64" | "usize" | "Handle" => Kind::Unsigned(64),
        "*const UnicodeString" | "*mut UnicodeString" => Kind::UnicodeString,
        "*const AnsiString" | "*mut AnsiString" => Kind::AnsiString,
        // A callout is shown by its key, which comes first.
        "*const RawGuid" | "*const Guid" | "*const FwpsCallout0" => Kind::Guid,
        "*const c_char" => Kind::Text,
        "*const u16" => Kind::Wide,
        "*mut u8" | "*mut i8" | "*mut bool" if name.contains("irql") => Kind::Out(1),
        "*mut u16" if name != "to" => Kind::Pointer,
        "*mut u32" | "*mut i32" => Kind::Out(4),
        "*mut u64" | "*mut i64" | "*mut usize" | "*mut Handle" => Kind::Out(8),
        out if out.starts_with("*mut *") => Kind::Out(8),
        _ => Kind::Pointer,
    }
}

/// The signature of an export; for an unknown one, the four registers.
pub(crate) fn of(name: &'static str) -> &'static Signature {
    static ALL: LazyLock<HashMap<&'static str, Signature>> = LazyLock::new(|| {
        let collected = COLLECTED.iter().map(|(name, text)| (*name, Signature::parse(name, text, false)));
        // A variadic function reads as many arguments as its format says.
        let supplement = supplement().map(|(name, text)| (name, Signature::parse(name, text, true)));
        collected.chain(supplement).collect()
    });
    static UNKNOWN: OnceLock<Signature> = OnceLock::new();
    ALL.get(name).unwrap_or_else(|| UNKNOWN.get_or_init(Signature::unknown))
}

/// Functions that cannot be hooked: they change registers or the stack as no ordinary function does.
pub(crate) fn is_bare(name: &str) -> bool {
    matches!(name, "__chkstk" | "__C_specific_handler" | "_local_unwind" | "RtlCaptureContext")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_split_where_they_end() {
        assert_eq!(split("a: *const [u8; 4], b: Option<fn(u8, u8) -> i32>, c: u8").len(), 3);
        let signature = Signature::parse("F", "_: Globals, tag: u32, _name: *const UnicodeString -> NtStatus", false);
        let kinds: Vec<Kind> = signature.parameters.iter().map(|parameter| parameter.kind).collect();
        assert_eq!(kinds, [Kind::Hidden, Kind::Tag, Kind::UnicodeString]);
        assert_eq!((signature.parameters[2].name, signature.result), ("name", Some(Kind::Status)));
    }

    #[test]
    fn the_sources_tell_most_signatures() {
        let known = |name: &str| COLLECTED.iter().any(|(n, _)| *n == name) || supplement().any(|(n, _)| n == name);
        let functions: Vec<&str> = crate::export::all()
            .filter(|export| matches!(export.entry, crate::export::Entry::Function(_)))
            .map(|export| export.name)
            .collect();
        let missing: Vec<&&str> = functions.iter().filter(|name| !known(name) && !is_bare(name)).collect();
        assert!(missing.len() * 10 < functions.len(), "{} of {}: {missing:?}", missing.len(), functions.len());
        let pool = of("ExAllocatePoolWithTag");
        assert_eq!(pool.parameters.iter().map(|p| p.name).collect::<Vec<_>>(), ["pool_type", "size", "tag"]);
        assert_eq!(of("WdfMemoryCreate").stack_words(), 3);
        assert_eq!(of("KeAcquireSpinLockRaiseToDpc").result, Some(Kind::Irql));
        assert_eq!(of("no such function").parameters.len(), 4);
    }
}
