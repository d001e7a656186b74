//! A Windows Driver Kit on a case-sensitive file system.
//!
//! The kit's files are named in one letter case and included in another: `#include <DriverSpecs.h>` means
//! driverspecs.h. Clang could be given a virtual file system, but wdk-sys lets this crate give its C compiler only the
//! folders to search. So those folders are mirrored with symbolic links: each file under its own name, in lower case,
//! and as any header of the kit spells it.

#[cfg(unix)]
use std::os::unix::fs::symlink;
#[cfg(windows)]
use std::os::windows::fs::symlink_file as symlink; // compiled there, but not called
use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::IoError;

/// What `path` names below `folder`, ignoring case. An exact match wins.
pub(crate) fn find(folder: &Path, path: &str) -> Option<PathBuf> {
    path.split('/').try_fold(folder.to_owned(), |at, part| {
        let exact = at.join(part);
        if exact.exists() {
            return Some(exact);
        }
        let mut names = fs::read_dir(&at).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.find(|name| name.eq_ignore_ascii_case(part)).map(|name| at.join(name))
    })
}

/// Mirrors folders, each given with the place of its mirror. Folders beside each other must be so in the mirrors too,
/// because headers also include `..\shared\name.h`.
///
/// Mirrors are made once per process, and anew in the next: the kit may have changed.
pub(crate) fn mirror(folders: &[(PathBuf, PathBuf)]) -> Result<(), IoError> {
    static MADE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    // What a panicked thread left behind is not in the set, and is made anew.
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if folders.iter().all(|(_, place)| made.contains(place)) {
        return Ok(());
    }
    for (_, place) in folders {
        match fs::remove_dir_all(place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(IoError::with_path(place, error)),
            _ => {}
        }
    }
    let mut mirror = Mirror::default();
    for (folder, place) in folders {
        mirror.add(folder, place)?;
    }
    for (_, place) in folders {
        if let (Some(parent), Some(name)) = (place.parent(), place.file_name().and_then(|name| name.to_str())) {
            mirror.name(parent, name);
        }
    }
    for (beside, spelling) in &mirror.includes {
        // Where a compiler looks: beside the header that includes, then in the folders to search.
        for from in folders.iter().map(|(_, place)| place).chain([beside]) {
            mirror.alias(from, spelling)?;
        }
    }
    made.extend(folders.iter().map(|(_, place)| place.clone()));
    Ok(())
}

#[derive(Default)]
struct Mirror {
    /// The names in each mirrored folder, as spelled and in lower case.
    names: HashMap<PathBuf, HashMap<String, String>>,
    /// The paths that headers include, each with the mirrored folder of the header.
    includes: BTreeSet<(PathBuf, String)>,
}

impl Mirror {
    /// Mirrors a folder and its subfolders.
    fn add(&mut self, folder: &Path, place: &Path) -> Result<(), IoError> {
        if self.names.contains_key(place) {
            return Ok(()); // km/crt, which is also searched on its own
        }
        fs::create_dir_all(place).map_err(|error| IoError::with_path(place, error))?;
        self.names.insert(place.to_owned(), HashMap::new());
        for entry in fs::read_dir(folder).map_err(|error| IoError::with_path(folder, error))? {
            let entry = entry.map_err(|error| IoError::with_path(folder, error))?;
            let (original, mirrored) = (entry.path(), place.join(entry.file_name()));
            if original.is_dir() {
                self.add(&original, &mirrored)?;
            } else {
                link(&original, &mirrored)?;
                if is_header(&original) {
                    let text = fs::read(&original).map_err(|error| IoError::with_path(&original, error))?;
                    self.includes.extend(included(&text).map(|spelling| (place.to_owned(), spelling)));
                }
            }
            if let Some(name) = entry.file_name().to_str() {
                self.name(place, name);
            }
        }
        for (alias, name) in self.names[place].iter().filter(|(alias, name)| alias != name) {
            link(Path::new(name), &place.join(alias))?;
        }
        Ok(())
    }

    /// Records a name in a mirrored folder.
    fn name(&mut self, place: &Path, name: &str) {
        let names = self.names.entry(place.to_owned()).or_default();
        names.entry(name.to_ascii_lowercase()).or_insert_with(|| name.to_owned());
        names.insert(name.to_owned(), name.to_owned());
    }

    /// Makes `spelling` resolve from a mirrored folder, if it names something there in another letter case.
    fn alias(&self, from: &Path, spelling: &str) -> Result<(), IoError> {
        let mut at = from.to_owned();
        for part in spelling.split(['/', '\\']) {
            if part == ".." {
                at.pop();
                continue;
            }
            let Some(names) = self.names.get(&at) else { return Ok(()) };
            let Some(name) = names.get(part).or_else(|| names.get(&part.to_ascii_lowercase())) else { return Ok(()) };
            if name != part {
                link(Path::new(name), &at.join(part))?;
            }
            at.push(name);
        }
        Ok(())
    }
}

fn is_header(file: &Path) -> bool {
    let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["h", "hpp", "inl"].iter().any(|known| known.eq_ignore_ascii_case(extension))
}

/// The paths in the `#include` lines of a header. Not all headers are UTF-8, but these lines are.
fn included(header: &[u8]) -> impl Iterator<Item = String> {
    header.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = line.trim_ascii_start().strip_prefix(b"#")?.trim_ascii_start();
        let line = line.strip_prefix(b"include")?.trim_ascii_start();
        let closing = match line.first()? {
            b'"' => b'"',
            b'<' => b'>',
            _ => return None, // a macro
        };
        let path = line[1..].split(|byte| *byte == closing).next()?;
        String::from_utf8(path.to_vec()).ok()
    })
}

fn link(original: &Path, alias: &Path) -> Result<(), IoError> {
    match symlink(original, alias) {
        // It already exists, or the mirror itself is on a case-insensitive file system.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|error| IoError::with_path(alias, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kit(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("wdk-build-{name}-{}", std::process::id()));
        for (file, text) in files {
            let file = root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        root
    }

    #[test]
    fn every_spelling_of_the_kit_is_found() {
        let root = kit(
            "spellings",
            &[
                ("KM/Wdm.h", "#include <DriverSpecs.h>\r\n #  include \"Sub\\Part.H\"\r\n"),
                ("KM/sub/part.h", "#include \"BESIDE.h\"\n#include \"..\\..\\Shared\\NtDef.h\"\n#include NAME\n"),
                ("KM/sub/beside.h", "\u{a9}"),
                ("KM/crt/excpt.h", ""),
                ("Shared/driverspecs.h", ""),
                ("Shared/ntdef.h", ""),
            ],
        );
        let places = [root.join("out/km/crt"), root.join("out/km"), root.join("out/shared")];
        let names = ["km/crt", "km", "shared"];
        let folders: Vec<_> = names.iter().map(|name| find(&root, name).unwrap()).zip(places).collect();
        mirror(&folders).unwrap();
        for path in
            ["km/Wdm.h", "km/wdm.h", "shared/DriverSpecs.h", "km/Sub/Part.H", "km/sub/BESIDE.h", "shared/NtDef.h"]
        {
            assert!(root.join("out").join(path).is_file(), "{path}");
        }
        assert!(root.join("out/km/sub/../../Shared/NtDef.h").is_file());
        mirror(&folders).unwrap();
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_name_as_it_is_written_wins() {
        let root = kit("wins", &[("km/a.h", "#include <B.h>\n#include <b.h>\n"), ("km/B.h", "1"), ("km/b.h", "2")]);
        mirror(&[(root.join("km"), root.join("out"))]).unwrap();
        assert_eq!(fs::read_to_string(root.join("out/B.h")).unwrap(), "1");
        assert_eq!(fs::read_to_string(root.join("out/b.h")).unwrap(), "2");
        assert_eq!(find(&root, "KM/b.h"), Some(root.join("km/b.h")));
        assert_eq!(find(&root, "KM/c.h"), None);
        fs::remove_dir_all(root).unwrap();
    }
}
