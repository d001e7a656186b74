//! The kit's ndis.h, in a form that clang can read.
//!
//! ndis.h checks the NDIS version that a driver requests with a macro that pastes its arguments after `0x`, and `#if`
//! calls it with other macros. The standard says that an argument next to `##` is not expanded, so clang sees the
//! number `0xNDIS_FILTER_MAJOR_VERSION`; Microsoft's preprocessor expands it first.

/// The suffix for the pasting half of a macro.
const SUFFIX: &str = "_OF_DIGITS";

/// `header` with each macro that pastes a parameter after `0x` split in two: one that expands its arguments, and one
/// that pastes them. Everything else stays as it is.
pub(crate) fn expand_pasted_arguments(header: &str) -> String {
    let mut mended = String::with_capacity(header.len() + 256);
    let mut lines = header.split_inclusive('\n');
    while let Some(line) = lines.next() {
        let mut line = line.to_owned();
        while line.trim_end().ends_with('\\') {
            let Some(next) = lines.next() else { break };
            line += next;
        }
        let Some((name, parameters)) = pasting_macro(&line) else {
            mended += &line;
            continue;
        };
        mended += line.replacen(&format!("{name}("), &format!("{name}{SUFFIX}("), 1).trim_end();
        mended += &format!("\n#define {name}({parameters}) {name}{SUFFIX}({parameters})\n");
    }
    mended
}

/// Name and parameters of the macro that a line defines, if it pastes a parameter after `0x`.
fn pasting_macro(line: &str) -> Option<(&str, &str)> {
    let definition = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("define")?.trim_start();
    let (name, rest) = definition.split_once('(')?;
    let (parameters, body) = rest.split_once(')')?;
    let is_function = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let pastes = body.match_indices("##").any(|(at, _)| body[..at].trim_end().to_ascii_lowercase().ends_with("0x"));
    (is_function && pastes).then_some((name, parameters))
}
