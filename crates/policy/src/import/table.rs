//! `Get-NetFirewallRule` with its filters, as CSV or JSON.

use super::{
    ImportError,
    emit::File,
    json::Json,
    language,
    record::Record,
    windows::{self, Origin},
};

const EXPECTED: &str = "expected a table with DisplayName, Enabled, Direction and Action";

/// Reads CSV with any separator.
pub(super) fn read_csv(text: &str, file: &mut File) -> Result<(), ImportError> {
    file.origin = "Windows Firewall (Get-NetFirewallRule)";
    let (delimiter, skipped) = delimiter(text)?;
    let body = &text[skipped.bytes..];
    let mut reader =
        csv::ReaderBuilder::new().flexible(true).has_headers(false).delimiter(delimiter).from_reader(body.as_bytes());
    let mut headers: Option<Vec<String>> = None;
    for record in reader.records() {
        let record = record.map_err(|error| ImportError::Syntax {
            line: error.position().map_or(0, |position| position.line() as usize) + skipped.lines,
            message: error.to_string(),
        })?;
        let line = record.position().map_or(0, |position| line_at(body, position.byte() as usize)) + skipped.lines;
        let cells: Vec<&str> = record.iter().map(|cell| cell.trim_start_matches('\u{feff}').trim()).collect();
        // Concatenated exports have their headings in between.
        if is_heading(&cells) {
            headers = Some(cells.iter().map(|cell| (*cell).to_owned()).collect());
            continue;
        }
        if cells.iter().all(|cell| cell.is_empty()) || (cells.len() == 1 && cells[0].starts_with("#TYPE")) {
            continue;
        }
        let Some(headers) = &headers else { return Err(no_heading(&cells, line)) };
        let mut one = Record::new(format!("line {line}"));
        for (index, cell) in cells.iter().enumerate() {
            match headers.get(index) {
                Some(header) => one.push(header.clone(), (*cell).to_owned()),
                None => one.push(format!("column {}", index + 1), (*cell).to_owned()),
            }
        }
        let short = cells.len() < headers.len();
        file.rules(one, |draft| {
            if short {
                draft.lost(format!("{} of its {} columns", headers.len() - cells.len(), headers.len()));
            }
            windows::rule(draft, Origin::PowerShell)
        });
    }
    windows::settle(file, EXPECTED)
}

/// The line of a record, which may begin with the end of the previous line.
fn line_at(text: &str, byte: usize) -> usize {
    let rest = text.as_bytes().get(byte..).unwrap_or_default();
    let begin = byte + rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    text.as_bytes().iter().take(begin).filter(|byte| **byte == b'\n').count() + 1
}

/// What precedes the heading.
#[derive(Clone, Copy)]
struct Skipped {
    bytes: usize,
    lines: usize,
}

/// The column separator, and the start of the heading.
fn delimiter(text: &str) -> Result<(u8, Skipped), ImportError> {
    if text.bytes().filter(|byte| *byte == b'"').count() % 2 == 1 {
        let line = text[..text.rfind('"').unwrap_or(0)].lines().count();
        return Err(ImportError::Syntax { line, message: "a quoted value is not closed".to_owned() });
    }
    let mut skipped = Skipped { bytes: 0, lines: 0 };
    let mut told = None;
    for line in text.split_inclusive('\n') {
        let line_alone = line.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
        let content = line_alone.trim();
        // Excel writes its separator into the first line.
        if let Some([separator]) = line_alone.strip_prefix("sep=").map(str::as_bytes) {
            told = Some(*separator);
        } else if !(content.is_empty() || content.starts_with("#TYPE")) {
            let columns = |delimiter: u8| heading(content, delimiter);
            let found = [b',', b';', b'\t', b'|'].into_iter().find(|delimiter| is_heading(&columns(*delimiter)));
            return match told.filter(|told| is_heading(&columns(*told))).or(found) {
                Some(delimiter) => Ok((delimiter, skipped)),
                None => {
                    let widest = [b',', b';', b'\t'].into_iter().max_by_key(|one| columns(*one).len()).unwrap_or(b',');
                    Err(no_heading(&columns(widest), skipped.lines + 1))
                }
            };
        }
        skipped.bytes += line.len();
        skipped.lines += 1;
    }
    Err(ImportError::Empty(EXPECTED.to_owned()))
}

fn heading(line: &str, delimiter: u8) -> Vec<&str> {
    line.split(char::from(delimiter)).map(|cell| cell.trim().trim_matches('"').trim()).collect()
}

fn is_heading(cells: &[impl AsRef<str>]) -> bool {
    let has = |name: &str| cells.iter().any(|cell| cell.as_ref().eq_ignore_ascii_case(name));
    has("Direction") && has("Action")
}

/// Why a first line is not a heading.
fn no_heading(cells: &[&str], line: usize) -> ImportError {
    let shown: String = cells.join(", ").chars().take(80).collect();
    let message = if cells.len() < 2 && cells.first().is_some_and(|cell| cell.contains(" : ")) {
        "this is output of Format-List, which truncates values: export with ConvertTo-Csv or \
         docs/export-windows-firewall.ps1"
            .to_owned()
    } else if let Some(language) = cells.iter().find_map(|cell| language::of_label(cell)) {
        format!("the headings (`{shown}`) are {language}: export with docs/export-windows-firewall.ps1")
    } else {
        format!("the headings (`{shown}`) have no Direction and Action; are they in another language?")
    };
    ImportError::Syntax { line, message }
}

/// Reads JSON.
pub(super) fn read_json(text: &str, file: &mut File) -> Result<(), ImportError> {
    file.origin = "Windows Firewall (Get-NetFirewallRule)";
    let value: Json = serde_json::from_str(text)
        .map_err(|error| ImportError::Syntax { line: error.line(), message: error.to_string() })?;
    let rules = match value {
        Json::Array(rules) => rules,
        // Windows PowerShell sometimes wraps arrays.
        Json::Object(fields) if fields.iter().any(|(name, value)| name == "value" && is_array(value)) => {
            let of = |(name, value): (String, Json)| match (name.as_str(), value) {
                ("value", Json::Array(rules)) => rules,
                _ => Vec::new(),
            };
            fields.into_iter().flat_map(of).collect()
        }
        one => vec![one],
    };
    for (index, one) in rules.into_iter().enumerate() {
        let place = format!("object {}", index + 1);
        let Json::Object(fields) = one else {
            file.note(format!("{place}: `{one}` is not an object and was skipped"));
            continue;
        };
        let mut record = Record::new(place);
        for (name, value) in fields {
            record.push(name, plain(&value));
        }
        file.rules(record, |draft| windows::rule(draft, Origin::PowerShell));
    }
    windows::settle(file, EXPECTED)
}

fn is_array(value: &Json) -> bool {
    matches!(value, Json::Array(_))
}

/// A value as in a table. PowerShell 7 writes enumerations as objects with their name.
fn plain(value: &Json) -> String {
    let named = |fields: &[(String, Json)]| {
        fields.iter().find_map(|(name, value)| if name == "Value" { value.as_text().map(str::to_owned) } else { None })
    };
    match value {
        Json::Null => String::new(),
        Json::Object(fields) => named(fields).unwrap_or_else(|| value.to_string()),
        other => other.to_string(),
    }
}
