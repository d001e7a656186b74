//! Collects from the sources the parameters of every function that a driver can call, for `ntsim trace`.
//!
//! The compiler knows the types of an `extern "win64"` function but not its parameters' names, and the export tables
//! hold bare addresses. Reading the declarations keeps the names right without a second list to maintain. Functions
//! that a macro declares are not found; `src/trace/signature.rs` adds those by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src");
    let mut files = Vec::new();
    collect(Path::new("src"), &mut files);
    files.sort();
    let texts: Vec<String> = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    // A table may name the functions of the files beside it.
    let everywhere: BTreeMap<String, String> = texts.iter().flat_map(|text| functions(text)).collect();
    let mut signatures = BTreeMap::new();
    for text in &texts {
        let here = functions(text);
        for (export, function) in exported(text) {
            if let Some(signature) = here.get(&function).or_else(|| everywhere.get(&function)) {
                signatures.entry(export).or_insert_with(|| signature.clone());
            }
        }
    }
    let mut table = String::from("&[\n");
    for (export, signature) in &signatures {
        table.push_str(&format!("    ({export:?}, {signature:?}),\n"));
    }
    table.push_str("]\n");
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).expect("cargo sets OUT_DIR");
    fs::write(out.join("signatures.rs"), table).expect("OUT_DIR can be written");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            collect(&path, files);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            files.push(path);
        }
    }
}

/// The `extern "win64"` functions of a file: `parameter: type, ... -> result`. `naked` functions have none.
fn functions(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while let Some(at) = rest.find("extern \"win64\" fn ") {
        let naked = rest[..at].rsplit('\n').take(2).any(|line| line.contains("naked"));
        rest = &rest[at + "extern \"win64\" fn ".len()..];
        let Some(open) = rest.find('(') else { break };
        let name = rest[..open].split('<').next().unwrap_or_default();
        if name.is_empty() || naked || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let Some(close) = closing(&rest[open..]) else { break };
        let parameters = &rest[open + 1..open + close];
        let behind = &rest[open + close + 1..];
        let end = behind.find(['{', ';']).unwrap_or(0);
        let result = behind[..end].split("where").next().unwrap_or_default().trim();
        let words: Vec<&str> = parameters.split_whitespace().collect();
        found.insert(name.to_owned(), format!("{} {result}", words.join(" ").trim_end_matches(',')).trim().to_owned());
    }
    found
}

/// The position of the parenthesis that closes the one at the start of `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The exports of a file, each with the function behind it: the rows of `exports!`, which are functions under their own
/// names, and `"Name", ... function as *const ()`.
fn exported(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for block in text.split("exports! {").skip(1) {
        let block = &block[..block.find("\n}").unwrap_or(block.len())];
        for row in block.lines() {
            if let Some((name, _)) = row.trim().split_once(": ") {
                found.push((name.to_owned(), name.to_owned()));
            }
        }
    }
    let mut rest = text;
    while let Some(at) = rest.find(" as *const ()") {
        let before = &rest[..at];
        rest = &rest[at + " as *const ()".len()..];
        let start = before.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |i| i + 1);
        let near = &before[..start];
        // The row begins at the nearest bracket; the name is its only string, or its last.
        let row = &near[near.rfind(['(', '[']).unwrap_or(0)..];
        let quoted = row.split('"').skip(1).step_by(2).filter(|word| !word.contains([' ', '.']));
        if let Some(name) = quoted.last() {
            found.push((name.to_owned(), before[start..].to_owned()));
        }
    }
    found
}
