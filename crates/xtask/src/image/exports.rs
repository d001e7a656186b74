//! The build in which each function that a driver may import first appeared, and so the oldest Windows an image runs
//! on.

/// `module<TAB>export<TAB>build` and comments, see there for the sources.
const TABLE: &str = include_str!("../../data/exports.tsv");

/// The build that first exported `symbol` from `module` (compared as loaders do, ignoring case), or `None` if the table
/// does not have it.
#[must_use]
pub(super) fn first_build(module: &str, symbol: &str) -> Option<u32> {
    rows().find(|row| row.symbol == symbol && row.module.eq_ignore_ascii_case(module)).map(|row| row.build)
}

struct Row {
    module: &'static str,
    symbol: &'static str,
    build: u32,
}

/// Lines that are not rows are skipped here; a test checks that there are none.
fn rows() -> impl Iterator<Item = Row> {
    TABLE.lines().filter_map(row)
}

fn row(line: &'static str) -> Option<Row> {
    let mut fields = line.split('\t');
    let (module, symbol, build) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
    fields.next().is_none().then_some(Row { module, symbol, build })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_row_of_its_own_in_order() {
        let lines: Vec<_> = TABLE.lines().filter(|line| !line.starts_with('#')).collect();
        let keys: Vec<_> = lines
            .iter()
            .map(|line| row(line).map(|row| (row.module.to_ascii_lowercase(), row.symbol)).expect(line))
            .collect();
        assert!(keys.is_sorted_by(|earlier, later| earlier < later), "sorted, and none twice");
    }

    #[test]
    fn modules_are_compared_without_case_and_symbols_with_it() {
        assert_eq!(first_build("NTOSKRNL.EXE", "ExAllocatePool2"), Some(19041));
        assert_eq!(first_build("ntoskrnl.exe", "exallocatepool2"), None);
        assert_eq!(first_build("fwpkclnt.sys", "ExAllocatePool2"), None);
    }

    /// Everything that the stand-in for the WDK lets a driver link against is in the table; otherwise an image could
    /// import a function that nobody looked up.
    #[test]
    fn everything_that_can_be_linked_is_in_the_table() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wdk-build/def");
        let mut seen = 0;
        for list in fs::read_dir(folder).unwrap() {
            let list = fs::read_to_string(list.unwrap().path()).unwrap();
            let module = list.lines().find_map(|line| line.strip_prefix("LIBRARY ")).unwrap();
            for symbol in list.lines().filter_map(|line| line.strip_prefix("    ")) {
                assert!(first_build(module, symbol).is_some(), "{symbol} of {module}");
                seen += 1;
            }
        }
        assert!(seen > 200, "{seen}");
    }
}
