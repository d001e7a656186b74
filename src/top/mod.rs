//! `sluice top`: what the driver does now, again and again.

mod model;
mod sample;
#[cfg(test)]
mod tests;
mod view;

use crate::cli::TopArgs;
use crate::failure::Failure;
use crate::output::Output;
use model::Top;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::{DefaultTerminal, Terminal};
use sample::Sampler;
use sluice_host::Host;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How wide and high the picture of `--once` is where nothing tells.
const USUAL: (u16, u16) = view::LEAST;
/// The widest and highest that is drawn for one.
const MOST: (u16, u16) = (400, 200);

pub(crate) fn top(host: &dyn Host, options: &TopArgs, json: bool, output: &mut Output) -> Result<ExitCode, Failure> {
    let on_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if !options.once && !json && !on_terminal {
        return Err(Failure::Usage(
            "`top` draws on a terminal, and this is none: --once prints one picture, --json one object for each"
                .to_owned(),
        ));
    }
    let mut sampler = Sampler::open(host)?;
    let mut top = Top::new();
    top.add(sampler.look()?);
    if options.once || json {
        loop {
            std::thread::sleep(options.interval);
            top.add(sampler.look()?);
            output.report(&top, |out| picture(&top)?.lines().try_for_each(|line| writeln!(out, "{line}")))?;
            if options.once {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    // `try_init` also restores the terminal before a panic is shown.
    let terminal = ratatui::try_init()?;
    let ended = draw_until_ended(terminal, &mut sampler, &mut top, options.interval);
    let restored = ratatui::try_restore();
    ended?;
    restored?;
    Ok(ExitCode::SUCCESS)
}

fn draw_until_ended(
    mut terminal: DefaultTerminal,
    sampler: &mut Sampler<'_>,
    top: &mut Top,
    interval: Duration,
) -> Result<(), Failure> {
    loop {
        terminal.draw(|frame| view::draw(frame, top))?;
        let next = Instant::now() + interval;
        while event::poll(next.saturating_duration_since(Instant::now()))? {
            match event::read()? {
                event if ends(&event) => return Ok(()),
                Event::Resize(..) => {
                    terminal.draw(|frame| view::draw(frame, top))?;
                }
                _ => {}
            }
        }
        top.add(sampler.look()?);
    }
}

/// Whether this is q, Esc or Ctrl-C, which a terminal in this mode sends as a key.
fn ends(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let is_end = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) || (control && key.code == KeyCode::Char('c'));
    key.kind != KeyEventKind::Release && is_end
}

/// The picture as lines of text, as wide as the terminal.
fn picture(top: &Top) -> io::Result<String> {
    let (width, height) = terminal_size::terminal_size().map_or(USUAL, |(width, height)| (width.0, height.0));
    drawn(top, (width.clamp(USUAL.0, MOST.0), height.clamp(USUAL.1, MOST.1)))
}

fn drawn(top: &Top, (width, height): (u16, u16)) -> io::Result<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).map_err(io::Error::other)?;
    terminal.draw(|frame| view::draw(frame, top)).map_err(io::Error::other)?;
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for row in buffer.content().chunks(usize::from(width)) {
        let line: String = row.iter().map(|cell| cell.symbol()).collect();
        text += line.trim_end();
        text.push('\n');
    }
    Ok(text)
}
