//! The walk through a file: which elements hold what.

use super::ReadError;
use super::convert;
use super::event;
use super::meter::Meter;
use super::text::Text;
use super::tree::Node;
use crate::record::{Callout, Filter, Layer, NetEvent, Provider, Sublayer};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::io::{BufReader, Read};
use std::ops::ControlFlow;

/// Something that a file has.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "one at a time")]
pub enum Item {
    /// A filter.
    Filter(Filter),
    /// A layer.
    Layer(Layer),
    /// A callout.
    Callout(Callout),
    /// A provider.
    Provider(Provider),
    /// A sublayer.
    Sublayer(Sublayer),
    /// A net event.
    Event(NetEvent),
    /// An audit of the Security log that tells of a drop: its number and what it says.
    Audit(u32, NetEvent),
    /// When the state was written.
    Time(String),
}

/// A place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Outside of everything.
    Outside,
    /// In `wfpdiag`, `wfpstate`, or a part of them with the same content.
    State,
    /// In `layers`.
    Layers,
    /// In an item of `layers`.
    LayerItem,
    Callouts,
    Filters,
    Providers,
    Sublayers,
    /// In `netEvents`, or in `events` of a capture.
    Events,
    /// In `filterChange` of a capture.
    Change,
    /// In `Events` of an event log.
    Log,
}

/// What a child is.
enum Child {
    Enter(Place),
    Take(Kind),
    Skip,
}

/// What an element becomes.
#[derive(Clone, Copy)]
enum Kind {
    Filter,
    Layer,
    Callout,
    Provider,
    Sublayer,
    Event,
    Audit,
    Time,
}

/// The root elements that are read, as an error names them.
const ROOTS: &str = "<wfpstate>, <wfpdiag>, <netEvents> (netsh wfp) or <Events> (wevtutil)";

impl Place {
    /// What a child of this name is; `None` for a root that is not known.
    fn child(self, name: &str) -> Option<Child> {
        use Child::{Enter, Skip, Take};
        Some(match (self, name) {
            (Self::Outside, "wfpdiag" | "wfpstate") => Enter(Self::State),
            (Self::Outside | Self::State, "netEvents") => Enter(Self::Events),
            // The second root of wfpstate.xml.
            (Self::Outside, "firewallState") => Skip,
            (Self::Outside, "Events") => Enter(Self::Log),
            (Self::Outside | Self::Log, "Event") => Take(Kind::Audit),
            (Self::Outside, _) => return None,
            (Self::State, "initialState" | "finalState" | "wfpstate") => Enter(Self::State),
            (Self::State, "events") => Enter(Self::Events),
            (Self::State, "layers") => Enter(Self::Layers),
            (Self::State | Self::LayerItem, "callouts") => Enter(Self::Callouts),
            (Self::State | Self::LayerItem, "filters") => Enter(Self::Filters),
            (Self::State, "providers") => Enter(Self::Providers),
            (Self::State, "subLayers") => Enter(Self::Sublayers),
            (Self::State, "timeStamp") => Take(Kind::Time),
            (Self::Layers, "item") => Enter(Self::LayerItem),
            (Self::LayerItem, "layer") => Take(Kind::Layer),
            (Self::Callouts, "item") => Take(Kind::Callout),
            (Self::Filters, "item") => Take(Kind::Filter),
            (Self::Providers, "item") => Take(Kind::Provider),
            (Self::Sublayers, "item") => Take(Kind::Sublayer),
            (Self::Events, "item" | "netEvent") => Take(Kind::Event),
            (Self::Events, "filterChange") => Enter(Self::Change),
            (Self::Change, "filter") => Take(Kind::Filter),
            _ => Skip,
        })
    }
}

/// The deepest nesting that is read.
const DEEPEST: usize = 64;
/// The most elements within one element that is kept.
const MOST_NODES: usize = 400_000;

/// Reads a file and hands out what it has, in its order, until the end or until `each` breaks.
///
/// # Errors
/// [`ReadError`] with the line: the file cannot be read, is not XML or not one of the files read here, ends too early,
/// or an element lacks what is expected of it.
pub fn read(input: impl Read, each: &mut dyn FnMut(Item) -> ControlFlow<()>) -> Result<(), ReadError> {
    let mut walk = Walk::new(input);
    let mut places = vec![Place::Outside];
    let mut known = false;
    loop {
        let place = *places.last().unwrap_or(&Place::Outside);
        let (child, name, empty, line) = match walk.next()? {
            Step::Start { name, empty, line } => (place.child(&name), name, empty, line),
            Step::Text => continue,
            Step::End => {
                places.pop();
                continue;
            }
            Step::Eof if !known => {
                return Err(ReadError::at(walk.line(), format!("there is no XML element: {ROOTS} was expected")));
            }
            Step::Eof => return Ok(()),
        };
        match child {
            None => return Err(ReadError::at(line, format!("<{name}> is not one of {ROOTS}"))),
            Some(Child::Enter(place)) => {
                known = true;
                if !empty {
                    places.push(place);
                }
            }
            Some(Child::Skip) => {
                if !empty {
                    walk.skip(&name, line)?;
                }
            }
            Some(Child::Take(kind)) => {
                known = true;
                let node = walk.take(name, line, empty)?;
                if let Some(item) = made(kind, node)?
                    && each(item).is_break()
                {
                    return Ok(());
                }
            }
        }
    }
}

/// The record that an element is; `None` for an event of a log that tells of no drop.
fn made(kind: Kind, node: Node) -> Result<Option<Item>, ReadError> {
    Ok(Some(match kind {
        Kind::Filter => Item::Filter(convert::filter(&node)?),
        Kind::Layer => Item::Layer(convert::layer(&node)?),
        Kind::Callout => Item::Callout(convert::callout(&node)?),
        Kind::Provider => Item::Provider(convert::provider(&node)?),
        Kind::Sublayer => Item::Sublayer(convert::sublayer(&node)?),
        Kind::Event => Item::Event(event::net_event(&node)?),
        Kind::Audit => match event::audit(&node)? {
            Some((number, event)) => Item::Audit(number, event),
            None => return Ok(None),
        },
        Kind::Time => Item::Time(node.text.trim().to_owned()),
    }))
}

/// One step through the file.
enum Step {
    Start { name: Box<str>, empty: bool, line: u64 },
    End,
    Text,
    Eof,
}

/// The events of the XML reader, with lines.
struct Walk<R: Read> {
    reader: Reader<Meter<BufReader<Text<R>>>>,
    buffer: Vec<u8>,
    /// The names of the open elements, with their lines.
    open: Vec<(Box<str>, u64)>,
}

impl<R: Read> Walk<R> {
    fn new(input: R) -> Self {
        let mut reader = Reader::from_reader(Meter::new(BufReader::with_capacity(64 << 10, Text::new(input))));
        reader.config_mut().check_end_names = true;
        Self { reader, buffer: Vec::new(), open: Vec::new() }
    }

    fn line(&self) -> u64 {
        self.reader.get_ref().line()
    }

    fn event(&mut self) -> Result<Event<'_>, ReadError> {
        self.buffer.clear();
        let line = self.reader.get_ref().line();
        match self.reader.read_event_into(&mut self.buffer) {
            Ok(event) => Ok(event),
            Err(quick_xml::Error::Io(error)) => Err(ReadError::at(line, error.to_string())),
            Err(quick_xml::Error::Encoding(_)) => Err(ReadError::at(line, "the text is neither UTF-8 nor UTF-16")),
            Err(error) => {
                // The reader may have read on to the end of the file in search of what is missing.
                let what = match self.open.last() {
                    Some((name, since)) => format!("not well-formed XML: {error}, in <{name}> of line {since}"),
                    None => format!("not well-formed XML: {error}"),
                };
                Err(ReadError::at(line, what))
            }
        }
    }

    /// The next step.
    fn next(&mut self) -> Result<Step, ReadError> {
        self.reader.get_mut().start_element();
        let line = self.line();
        let step = match self.event()? {
            Event::Start(tag) => Step::Start { name: name_of(&tag), empty: false, line },
            Event::Empty(tag) => Step::Start { name: name_of(&tag), empty: true, line },
            Event::End(_) => Step::End,
            Event::Eof => Step::Eof,
            Event::DocType(_) => return Err(ReadError::at(line, "a document type: netsh writes none")),
            _ => Step::Text,
        };
        match &step {
            Step::Start { name, empty: false, .. } => {
                if self.open.len() >= DEEPEST {
                    return Err(ReadError::at(line, format!("elements are nested deeper than {DEEPEST}")));
                }
                self.open.push((name.clone(), line));
            }
            Step::End => drop(self.open.pop()),
            Step::Eof => {
                if let Some((name, since)) = self.open.last() {
                    let what = format!("the file ends inside of <{name}>, which begins on line {since}: it was cut");
                    return Err(ReadError::at(line, what));
                }
            }
            _ => {}
        }
        Ok(step)
    }

    /// Passes over an element that has begun.
    fn skip(&mut self, name: &str, line: u64) -> Result<(), ReadError> {
        let depth = self.open.len();
        debug_assert!(self.open.last().is_some_and(|(open, since)| **open == *name && *since == line));
        while self.open.len() >= depth {
            self.next()?;
        }
        Ok(())
    }

    /// Reads an element that has begun, whole.
    fn take(&mut self, name: Box<str>, line: u64, empty: bool) -> Result<Node, ReadError> {
        let first = Node { name, line, ..Node::default() };
        if empty {
            return Ok(first);
        }
        let mut stack = vec![first];
        let mut nodes = 1;
        self.reader.get_mut().start_element();
        loop {
            let line = self.line();
            let deep = self.open.len();
            match self.event()? {
                tag @ (Event::Start(_) | Event::Empty(_)) => {
                    let empty = matches!(tag, Event::Empty(_));
                    let (Event::Start(tag) | Event::Empty(tag)) = tag else { continue };
                    nodes += 1;
                    if nodes > MOST_NODES {
                        let what = format!("an element with more than {MOST_NODES} others in it");
                        return Err(ReadError::at(line, what));
                    }
                    if deep >= DEEPEST {
                        return Err(ReadError::at(line, format!("elements are nested deeper than {DEEPEST}")));
                    }
                    let node =
                        Node { name: name_of(&tag), line, attributes: attributes(&tag, line)?, ..Node::default() };
                    if empty {
                        push(&mut stack, node);
                    } else {
                        let open = (node.name.clone(), line);
                        stack.push(node);
                        self.open.push(open);
                    }
                }
                Event::End(_) => {
                    self.open.pop();
                    match stack.pop() {
                        Some(node) if stack.is_empty() => return Ok(node),
                        Some(node) => push(&mut stack, node),
                        None => {}
                    }
                }
                Event::Text(text) => add(&mut stack, &text.xml10_content()),
                Event::CData(text) => add(&mut stack, &text.xml10_content()),
                Event::GeneralRef(reference) => {
                    let wrong = || ReadError::at(line, "a reference that XML does not define, after `&`");
                    let character = reference.resolve_char_ref().map_err(|_| wrong())?;
                    match character {
                        Some(character) => add(&mut stack, character.encode_utf8(&mut [0; 4])),
                        None => {
                            let name = reference.xml10_content();
                            let text = quick_xml::escape::resolve_xml_entity(&name).ok_or_else(wrong)?;
                            add(&mut stack, text);
                        }
                    }
                }
                Event::Eof => {
                    let (name, since) = stack.first().map_or(("", 0), |node| (&*node.name, node.line));
                    let what = format!("the file ends inside of <{name}>, which begins on line {since}: it was cut");
                    return Err(ReadError::at(line, what));
                }
                Event::DocType(_) => return Err(ReadError::at(line, "a document type: netsh writes none")),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            }
        }
    }
}

fn push(stack: &mut [Node], node: Node) {
    if let Some(parent) = stack.last_mut() {
        parent.children.push(node);
    }
}

fn add(stack: &mut [Node], text: &str) {
    if let Some(node) = stack.last_mut() {
        // What is between elements is indentation.
        if node.children.is_empty() {
            node.text.push_str(text);
        }
    }
}

fn name_of(tag: &BytesStart<'_>) -> Box<str> {
    let name = tag.name().as_ref().to_owned();
    // A prefix names a namespace, which nothing here uses.
    name.rsplit(':').next().unwrap_or(&name).into()
}

fn attributes(tag: &BytesStart<'_>, line: u64) -> Result<Vec<(Box<str>, String)>, ReadError> {
    let mut found = Vec::new();
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|error| ReadError::at(line, format!("not well-formed XML: {error}")))?;
        let key @ ("Name" | "SystemTime") = attribute.key.as_ref() else { continue };
        let value = quick_xml::escape::unescape(&attribute.value)
            .map_err(|error| ReadError::at(line, format!("not well-formed XML: {error}, in the attribute {key}")))?;
        found.push((key.into(), value.into_owned()));
    }
    Ok(found)
}
