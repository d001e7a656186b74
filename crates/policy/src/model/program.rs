//! Paths of programs, in the form that the Filtering Platform reports.

use std::fmt;

/// Why a path does not name a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// Not the full path: a bare name could be anybody's.
    NotWhole,
    /// A short (8.3) name, which Windows does not report.
    Short,
    /// A folder's path.
    Folder,
    /// A character that is not allowed in file names, or a stream after a name.
    Letter,
    /// `.` or `..` in a path that is not resolved.
    Dots,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotWhole => "is not the full path of a program",
            Self::Short => "contains a short (8.3) name, and Windows reports long names: write the long one",
            Self::Folder => "ends like a folder: write `\\*` after a folder for all programs in it",
            Self::Letter => "contains a character that is not allowed in file names",
            Self::Dots => "contains `.` or `..`, which are not resolved in an NT path",
        })
    }
}

/// Normalizes a program's path, or a folder followed by `\*`: `\\?\` and `\??\` removed, separators single and of one
/// kind, `.` and `..` resolved, shares as `\Device\Mup\server\share`. Letter case is preserved.
///
/// # Errors
/// [`PathError`].
pub fn normalize(path: &str) -> Result<String, PathError> {
    if path.eq_ignore_ascii_case("system") {
        return Ok(path.to_owned());
    }
    if path.starts_with('/') && !path.starts_with("//") {
        return unix(path);
    }
    let path = path.replace('/', "\\");
    let literal = ["\\\\?\\", "\\\\.\\", "\\??\\"].iter().find_map(|prefix| path.strip_prefix(prefix));
    let (is_literal, rest) = (literal.is_some_and(|_| path.starts_with("\\\\?")), literal.unwrap_or(&path));
    let share = match literal {
        Some(rest) => strip_prefix(rest, "UNC\\"),
        None => rest.strip_prefix("\\\\"),
    };
    let (folder, rest) = if let Some(share) = share {
        ("\\Device\\Mup\\".to_owned(), share)
    } else if let Some(rest) = strip_prefix(rest, "\\device\\") {
        (path[path.len() - rest.len() - 8..path.len() - rest.len()].to_owned(), rest)
    } else if let [drive, b':', b'\\', ..] = rest.as_bytes()
        && drive.is_ascii_alphabetic()
    {
        (rest[..3].to_owned(), &rest[3..])
    } else if let Some((name, rest)) = rest.strip_prefix('%').and_then(|rest| rest.split_once("%\\"))
        && !name.is_empty()
        && !name.contains(['\\', '%'])
    {
        (format!("%{name}%\\"), rest)
    } else {
        return Err(PathError::NotWhole);
    };
    // `..` does not go above a device, nor above a share's server and name.
    let kept = if share.is_some() { 2 } else { usize::from(folder.len() == 8 && folder.starts_with('\\')) };
    let is_nt = folder.starts_with('\\') && share.is_none();
    let parts = parts(rest, is_literal, is_nt, kept)?;
    if parts.len() <= kept {
        return Err(PathError::NotWhole);
    }
    Ok(folder + &parts.join("\\"))
}

fn strip_prefix<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    path.get(..prefix.len()).filter(|head| head.eq_ignore_ascii_case(prefix)).map(|_| &path[prefix.len()..])
}

/// The parts of a path after its root.
fn parts(rest: &str, literal: bool, is_nt: bool, kept: usize) -> Result<Vec<&str>, PathError> {
    let (rest, all) = match rest.strip_suffix("\\*") {
        Some(folder) => (folder, true),
        None => (rest, rest == "*"),
    };
    let rest = if rest == "*" { "" } else { rest };
    if rest.ends_with('\\') && !all {
        return Err(PathError::Folder);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in rest.split('\\').filter(|part| !part.is_empty()) {
        match part {
            "." | ".." if is_nt || literal => return Err(PathError::Dots),
            "." => continue,
            ".." => {
                if parts.len() > kept {
                    parts.pop();
                }
                continue;
            }
            _ => {}
        }
        if part.contains(['<', '>', ':', '"', '|', '?', '*']) || part.chars().any(char::is_control) {
            return Err(PathError::Letter);
        }
        // Windows removes trailing dots and blanks, unless the path is literal.
        let part = if literal || is_nt { part } else { part.trim_end_matches(['.', ' ']) };
        if is_short(part) {
            return Err(PathError::Short);
        }
        if !part.is_empty() {
            parts.push(part);
        }
    }
    if all {
        parts.push("*");
    }
    Ok(parts)
}

/// `PROGRA~1`, `A~1.EXE`: up to eight letters with a tilde and digits at their end, and up to three.
fn is_short(part: &str) -> bool {
    let (name, extension) = part.split_once('.').unwrap_or((part, ""));
    let numbered = name.rsplit_once('~').is_some_and(|(head, digits)| {
        !head.is_empty() && !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())
    });
    name.len() <= 8 && extension.len() <= 3 && !extension.contains('.') && numbered
}

/// On the simulated machine, programs have the paths of its host.
fn unix(path: &str) -> Result<String, PathError> {
    let all = path.ends_with("/*") || path.ends_with("\\*");
    let inner = if all { &path[..path.len() - 2] } else { path };
    if inner.contains(['*', '?', '\0']) {
        return Err(PathError::Letter);
    }
    if inner.ends_with('/') && !all {
        return Err(PathError::Folder);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in inner.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    if parts.is_empty() && !all {
        return Err(PathError::NotWhole);
    }
    Ok(format!("/{}{}", parts.join("/"), if all { "\\*" } else { "" }))
}

/// Folds case one letter at a time: no letter becomes two, and none depends on its neighbours.
#[must_use]
pub fn fold(path: &str) -> String {
    let lower = |letter: char| {
        let mut folded = letter.to_lowercase();
        match (folded.next(), folded.next()) {
            (Some(one), None) => one,
            _ => letter,
        }
    };
    path.chars().map(lower).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form() {
        for (written, form) in [
            (r"C:\a\..\b.exe", r"C:\b.exe"),
            (r"C:\..\..\b.exe", r"C:\b.exe"),
            (r"C:\a\\b\.\c.exe", r"C:\a\b\c.exe"),
            ("C:/a/b.exe", r"C:\a\b.exe"),
            (r"C:\a. \b.exe. ", r"C:\a\b.exe"),
            (r"\\?\C:\a\b.exe", r"C:\a\b.exe"),
            (r"\??\C:\a\b.exe", r"C:\a\b.exe"),
            (r"\\server\share\a.exe", r"\Device\Mup\server\share\a.exe"),
            (r"\\?\UNC\server\share\a.exe", r"\Device\Mup\server\share\a.exe"),
            (r"\\server\share\..\..\a.exe", r"\Device\Mup\server\share\a.exe"),
            (r"\Device\HarddiskVolume3\\a.exe", r"\Device\HarddiskVolume3\a.exe"),
            (r"\device\harddiskvolume3\a.exe", r"\device\harddiskvolume3\a.exe"),
            (r"%SystemRoot%\.\system32\svchost.exe", r"%SystemRoot%\system32\svchost.exe"),
            (r"C:\a\\*", r"C:\a\*"),
            (r"C:\*", r"C:\*"),
            (r"C:\Name~1 with more\a~b.exe", r"C:\Name~1 with more\a~b.exe"),
            ("/usr//bin/../bin/./curl", "/usr/bin/curl"),
            ("System", "System"),
        ] {
            assert_eq!(normalize(written).as_deref(), Ok(form), "{written}");
        }
        for (written, why) in [
            ("curl.exe", PathError::NotWhole),
            ("C:curl.exe", PathError::NotWhole),
            (r"C:\", PathError::NotWhole),
            (r"\\server\share", PathError::NotWhole),
            (r"\Windows\a.exe", PathError::NotWhole),
            (r"%%\a.exe", PathError::NotWhole),
            (r"C:\a\b\", PathError::Folder),
            (r"C:\PROGRA~1\a.exe", PathError::Short),
            (r"C:\a\B~12.EXE", PathError::Short),
            (r"C:\a?\b.exe", PathError::Letter),
            (r"C:\a\b.exe:stream", PathError::Letter),
            (r"C:\a\*\b.exe", PathError::Letter),
            (r"\Device\HarddiskVolume3\a\..\b.exe", PathError::Dots),
            ("/usr/bin/", PathError::Folder),
        ] {
            assert_eq!(normalize(written), Err(why), "{written}");
        }
    }

    #[test]
    fn letters_fold_one_by_one() {
        assert_eq!(fold("ΣΑΣ.EXE"), "σασ.exe", "no final sigma");
        assert_eq!(fold("İstanbul"), "İstanbul", "no letter becomes two");
        assert_eq!(fold("STRASSE-ß"), "strasse-ß");
    }
}
