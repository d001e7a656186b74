//! Compares the IRQL limits of the export tables with headers and documentation (tests/facts).

use nt_abi::Irql;
use ntsim::export;
use std::collections::BTreeMap;

fn level(name: &str) -> Irql {
    match name {
        "PASSIVE" => Irql::PASSIVE,
        "APC" => Irql::APC,
        "DISPATCH" => Irql::DISPATCH,
        "DEVICE" => Irql::DEVICE,
        "HIGH" => Irql::HIGH,
        other => panic!("{other} is no level"),
    }
}

/// The rows of a table: the first column and the others.
fn rows(text: &str) -> Vec<(&str, Vec<&str>)> {
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.map(|line| {
        let mut columns = line.split('\t');
        (columns.next().expect("a name"), columns.collect())
    })
    .collect()
}

fn exports_of(module: &str) -> BTreeMap<&'static str, Irql> {
    let theirs = export::all().filter(|export| export.module.eq_ignore_ascii_case(module));
    theirs.map(|export| (export.name, export.max_irql)).collect()
}

#[test]
fn limits_of_the_kernel_are_those_of_their_pages() {
    let exports = exports_of("ntoskrnl.exe");
    let rows = rows(include_str!("facts/irql_ntoskrnl.tsv"));
    assert!(rows.len() > 50);
    for (name, columns) in rows {
        let found = exports.get(name).unwrap_or_else(|| panic!("{name} is not exported"));
        assert_eq!(*found, level(columns[0]), "{name}, see {}", columns[1]);
    }
}

#[test]
fn limits_of_the_filtering_platform_are_those_of_headers_and_pages() {
    let rows: BTreeMap<&str, Vec<&str>> = rows(include_str!("facts/irql_fwpkclnt.tsv")).into_iter().collect();
    let mut checked = 0;
    for (name, limit) in exports_of("fwpkclnt.sys") {
        let Some(columns) = rows.get(name) else { panic!("{name} is in no header") };
        for source in columns.iter().filter(|source| !source.is_empty()) {
            assert_eq!(limit, level(source), "{name}");
            checked += 1;
        }
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn header_and_page_of_a_function_agree() {
    for (name, columns) in rows(include_str!("facts/irql_fwpkclnt.tsv")) {
        if let [header, page] = columns[..]
            && !header.is_empty()
            && !page.is_empty()
        {
            assert_eq!(header, page, "{name}");
        }
    }
}
