//! The picture: from 80 columns and 24 lines on; more lines show more of everything.

use super::model::{REMEMBERED, Rule, Top};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table};
use sluice_policy::text::harmless;
use std::collections::VecDeque;

/// The least that it fits into.
pub(super) const LEAST: (u16, u16) = (80, 24);

const GOOD: Style = Style::new().fg(Color::Green);
const BAD: Style = Style::new().fg(Color::Red);
const TITLE: Style = Style::new().add_modifier(Modifier::BOLD);

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, top: &Top) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("sluice top needs {} columns and {} lines; q ends it", LEAST.0, LEAST.1);
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    // The tables share what the head and the foot leave.
    let [head, rules, lower, foot] =
        Layout::vertical([Constraint::Length(5), Constraint::Fill(2), Constraint::Fill(3), Constraint::Length(2)])
            .areas(area);
    let [talkers, blocked] = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(lower);
    draw_head(frame, head, top);
    draw_rules(frame, rules, &top.rules);
    draw_talkers(frame, talkers, top);
    draw_blocked(frame, blocked, top);
    draw_foot(frame, foot, top);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, top: &Top) {
    let policy = match top.generation {
        0 => "no policy".to_owned(),
        generation => format!("{} rules, generation {generation}", top.rules_in_force),
    };
    let [title, rates, lines] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(2), Constraint::Length(2)]).areas(area);
    let title_line = Line::from(vec![
        Span::styled("sluice top", TITLE),
        Span::raw(format!("  {policy}, {} flows, {:.0} s", top.flows, top.seconds)),
    ]);
    frame.render_widget(Paragraph::new(title_line), title);
    let rate = top.rates;
    let text = vec![
        Line::from(vec![
            Span::styled(format!("permitted {:>9.1}/s", rate.permitted), GOOD),
            Span::raw(format!("   out {:>10}/s {:>9.1} packets/s", bytes(rate.bytes_out), rate.packets_out)),
        ]),
        Line::from(vec![
            Span::styled(format!("blocked   {:>9.1}/s", rate.blocked), BAD),
            Span::raw(format!("   in  {:>10}/s {:>9.1} packets/s", bytes(rate.bytes_in), rate.packets_in)),
        ]),
    ];
    frame.render_widget(Paragraph::new(text), rates);
    let halves = Layout::vertical([Constraint::Length(1), Constraint::Length(1)]).split(lines);
    for ((history, style), area) in top.history.iter().zip([GOOD, BAD]).zip(halves.iter()) {
        let wide: Vec<u64> = history.iter().copied().collect();
        frame.render_widget(Sparkline::default().data(&wide).style(style), *area);
    }
}

fn titled(text: &str) -> Block<'_> {
    Block::new().borders(Borders::TOP).title(Span::styled(text, TITLE))
}

/// A sparkline in one cell of a table.
fn spark(history: &VecDeque<u64>) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = history.iter().copied().max().unwrap_or(0);
    let bar = |value: u64| match value {
        0 => ' ',
        value => BARS[((value.saturating_mul(8).div_ceil(most)).clamp(1, 8) - 1) as usize],
    };
    let drawn: String = history.iter().copied().map(bar).collect();
    format!("{drawn:>REMEMBERED$}")
}

fn draw_rules(frame: &mut Frame<'_>, area: Rect, rules: &[Rule]) {
    // The sparkline's end is the newest: in a narrow table its beginning is cut.
    let width = usize::from(area.width).saturating_sub(32 + 3 * 10).min(REMEMBERED);
    let row = |rule: &Rule| {
        let drawn: Vec<char> = spark(&rule.history).chars().collect();
        let shown: String = drawn[drawn.len().saturating_sub(width)..].iter().collect();
        let style = if rule.blocked > rule.permitted { BAD } else { GOOD };
        Row::new([
            Cell::from(harmless(&rule.name).into_owned()),
            Cell::from(format!("{:>9}", rule.permitted)),
            Cell::from(format!("{:>9}", rule.blocked)),
            Cell::from(Span::styled(shown, style)),
        ])
    };
    let widths = [Constraint::Fill(1), Constraint::Length(9), Constraint::Length(9), Constraint::Length(width as u16)];
    let head = Row::new(["rule", "permitted", "  blocked", "decisions"]).style(TITLE);
    frame.render_widget(Table::new(rules.iter().map(row), widths).header(head).block(titled("Rules")), area);
}

fn draw_talkers(frame: &mut Frame<'_>, area: Rect, top: &Top) {
    let rows = top.talkers.iter().map(|talker| {
        Row::new([
            harmless(&talker.program).into_owned(),
            talker.remote.to_string(),
            talker.name.as_deref().map_or(String::new(), |name| harmless(name).into_owned()),
            format!("{:>10}/s", bytes(talker.bytes_out)),
            format!("{:>10}/s", bytes(talker.bytes_in)),
        ])
    });
    let widths =
        [Constraint::Fill(2), Constraint::Fill(3), Constraint::Fill(2), Constraint::Length(12), Constraint::Length(12)];
    let head = Row::new(["program", "with", "name", "         out", "          in"]).style(TITLE);
    frame.render_widget(Table::new(rows, widths).header(head).block(titled("Talkers")), area);
}

fn draw_blocked(frame: &mut Frame<'_>, area: Rect, top: &Top) {
    let rows = top.blocked.iter().map(|one| {
        Row::new([
            one.time.clone(),
            format!("{:>6}", one.count),
            format!("{} {}", one.protocol, one.direction),
            one.remote.to_string(),
            harmless(&one.program).into_owned(),
            harmless(&one.by).into_owned(),
        ])
    });
    let widths = [
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(8),
        Constraint::Fill(3),
        Constraint::Fill(2),
        Constraint::Fill(2),
    ];
    let head = Row::new(["last", " times", "what", "with", "program", "by"]).style(TITLE);
    frame.render_widget(Table::new(rows, widths).header(head).style(BAD).block(titled("Blocked")), area);
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, top: &Top) {
    let mut drops: Vec<String> =
        top.drops.iter().map(|(name, count)| format!("{} {count}", name.replace('_', " "))).collect();
    if top.unseen > 0 {
        drops.push(format!("{} decisions not shown here", top.unseen));
    }
    let (text, style) = if drops.is_empty() { ("nothing lost".to_owned(), GOOD) } else { (drops.join(", "), BAD) };
    let text = vec![Line::styled(text, style), Line::raw("q or Ctrl-C ends it")];
    frame.render_widget(Paragraph::new(text), area);
}

/// Bytes with a unit, at most seven letters.
fn bytes(count: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut count, mut unit) = (count, 0);
    while count >= 1024.0 && unit + 1 < UNITS.len() {
        count /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count:.0} B") } else { format!("{count:.1} {}", UNITS[unit]) }
}
