//! A picture of the arbitration, to paste into a ticket: the layers from top to bottom, in each its sublayers from the
//! heaviest to the lightest, in each the filters that match.

use super::{Explanation, LayerExplained, Outcome, Result};
use std::fmt::Write;

const WIDTH: usize = 860;
const LINE: usize = 18;
const PERMIT: &str = "#2e7d32";
const BLOCK: &str = "#c62828";
const UNKNOWN: &str = "#b26a00";

/// The picture, as SVG of its own. `title` stands at the top.
#[must_use]
pub fn svg(explanation: &Explanation, title: &str) -> String {
    let mut body = String::new();
    let mut y = 24;
    text(&mut body, 16, y, "#000", true, title);
    y += LINE + 6;
    let (colour, said) = match &explanation.result {
        Result::Permit => (PERMIT, "permit: no layer blocks it".to_owned()),
        Result::Block(layer) => (BLOCK, format!("block: at {layer}")),
        Result::Depends(layers) => (UNKNOWN, format!("depends on what is not known, at {}", layers.join(", "))),
    };
    text(&mut body, 16, y, colour, true, &said);
    y += LINE;
    let idle: Vec<&str> = explanation
        .layers
        .iter()
        .filter(|layer| layer.sublayers.is_empty())
        .map(|layer| layer.layer.as_str())
        .collect();
    for layer in explanation.layers.iter().filter(|layer| !layer.sublayers.is_empty()) {
        y = band(&mut body, layer, y);
    }
    if !idle.is_empty() {
        text(&mut body, 16, y + LINE, "#555", false, "No filter matches at:");
        y += LINE;
        for some in idle.chunks(3) {
            y += LINE;
            text(&mut body, 32, y, "#555", false, &some.join(", "));
        }
    }
    let height = y + 24;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"ui-monospace, Consolas, monospace\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

/// One layer, from `top` on; returns where it ends.
fn band(body: &mut String, layer: &LayerExplained, top: usize) -> usize {
    let colour = colour(&layer.outcomes);
    let mut y = top + LINE + 8;
    let mut inside = String::new();
    text(&mut inside, 28, y, "#000", true, &format!("{} ({})", layer.layer, layer.when));
    end_text(&mut inside, WIDTH - 28, y, colour, &verdicts(&layer.outcomes));
    for sublayer in &layer.sublayers {
        let start = y + 8;
        y = start + LINE;
        let weight = sublayer.weight.map_or("?".to_owned(), |weight| weight.to_string());
        let mut lines = String::new();
        text(&mut lines, 44, y, "#333", true, &format!("{} (weight {weight})", sublayer.sublayer));
        end_text(
            &mut lines,
            WIDTH - 44,
            y,
            self::colour(&sublayer.after),
            &format!("then {}", verdicts(&sublayer.after)),
        );
        for filter in &sublayer.filters {
            y += LINE;
            let certain = filter.matches && filter.asked == "yes";
            let ink = match filter.asked {
                "no" => "#999",
                _ if filter.does.starts_with("unknown") || !certain => UNKNOWN,
                _ if filter.does.contains("block") => BLOCK,
                _ => PERMIT,
            };
            let doubt = if filter.matches { "" } else { "may match: " };
            let shadow = if filter.asked == "no" { " (not asked)" } else { "" };
            let line = format!("{doubt}filter {} {:?}: {}{shadow}", filter.id, filter.name, filter.does);
            text(&mut lines, 60, y, ink, false, &shortened(&line));
        }
        y += 6;
        let _ = writeln!(
            inside,
            "<rect x=\"36\" y=\"{start}\" width=\"{}\" height=\"{}\" rx=\"4\" fill=\"#fff\" stroke=\"#bbb\"/>",
            WIDTH - 72,
            y - start
        );
        inside += &lines;
    }
    y += 8;
    let _ = writeln!(
        body,
        "<rect x=\"16\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"6\" fill=\"#f4f6f8\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        top + 8,
        WIDTH - 32,
        y - top - 8
    );
    *body += &inside;
    y
}

fn colour(outcomes: &[Outcome]) -> &'static str {
    let verdict = |word: &str| outcomes.iter().any(|one| one.verdict == word);
    match (verdict("permit"), verdict("block")) {
        (true, false) => PERMIT,
        (false, true) => BLOCK,
        _ => UNKNOWN,
    }
}

/// Outcomes in a few words.
fn verdicts(outcomes: &[Outcome]) -> String {
    let mut said: Vec<String> = Vec::new();
    for one in outcomes {
        let strength = if one.strength == "none" { "nobody decided" } else { one.strength };
        let one = format!("{} ({strength})", one.verdict);
        if !said.contains(&one) {
            said.push(one);
        }
    }
    if said.len() > 3 { "permit or block".to_owned() } else { said.join(" or ") }
}

fn shortened(line: &str) -> String {
    const MOST: usize = 94;
    if line.chars().count() <= MOST { line.to_owned() } else { line.chars().take(MOST - 1).chain(['…']).collect() }
}

fn text(out: &mut String, x: usize, y: usize, colour: &str, bold: bool, words: &str) {
    let weight = if bold { " font-weight=\"bold\"" } else { "" };
    let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\"{weight}>{}</text>", escaped(words));
}

fn end_text(out: &mut String, x: usize, y: usize, colour: &str, words: &str) {
    let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\" text-anchor=\"end\">{}</text>", escaped(words));
}

/// Text as XML has it; what XML cannot have becomes a question mark.
fn escaped(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for letter in words.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            letter => out.push(letter),
        }
    }
    out
}
