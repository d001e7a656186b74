//! Resources of sluice.exe: the version, the manifest, and the messages of its events in the event log. Nothing happens for other targets.

use sluice_protocol::eventlog::{ENTRIES, MESSAGE};
use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=resources/sluice.manifest");
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS")? != "windows" {
        return Ok(());
    }
    let messages = PathBuf::from(env::var("OUT_DIR")?).join("messages.bin");
    fs::write(&messages, message_table())?;
    // In a resource script a backslash begins an escape.
    let path = messages.to_str().ok_or("OUT_DIR is not Unicode")?.replace('\\', "/");
    let mut resource = winresource::WindowsResource::new();
    resource
        .set_manifest_file("resources/sluice.manifest")
        // 11 is RT_MESSAGETABLE (winuser.h).
        .append_rc_content(&format!("1 11 \"{path}\"\n"))
        .set("FileDescription", &env::var("CARGO_PKG_DESCRIPTION")?)
        .set("ProductName", "Sluicegate")
        .set("OriginalFilename", "sluice.exe")
        .set("InternalName", "sluice")
        .set("LegalCopyright", &format!("Licensed under {}", env::var("CARGO_PKG_LICENSE")?));
    resource.compile()?;
    Ok(())
}

/// A MESSAGE_RESOURCE_DATA (winnt.h): one block of ids in order, and an entry for each with its text in UTF-16.
fn message_table() -> Vec<u8> {
    let text: Vec<u8> = MESSAGE.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    // Length and Flags are before the text, and each entry begins at a multiple of four.
    let length = (4 + text.len()).next_multiple_of(4);
    let ids = ENTRIES.map(|entry| entry.id);
    let (first, last) = (ids[0], ids[ids.len() - 1]);
    let mut table: Vec<u8> = [1, first, last, 16].iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    for _ in first..=last {
        let start = table.len();
        table.extend((length as u16).to_le_bytes());
        table.extend(1u16.to_le_bytes()); // MESSAGE_RESOURCE_UNICODE
        table.extend(&text);
        table.resize(start + length, 0);
    }
    table
}
