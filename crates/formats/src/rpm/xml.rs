//! XML as repository metadata needs it: no document type, no entities of its own, bounded depth and token size, read as it
//! is unpacked (hazard R3).

use std::io::{self, BufRead, Read};

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use crate::{Malformed, Meter};

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 64;
/// Largest text, tag or comment.
const MAX_TOKEN: usize = 4 << 20;
/// Longest name of an element: as many as are open are kept.
const MAX_NAME: usize = 256;
/// Longest text of those that are kept: digests, numbers, dates.
const MAX_TEXT: usize = 2048;

/// What a reader of XML is told.
pub(super) trait Sink {
    /// An element begins; `path` has the local names from the root down to it.
    fn open(&mut self, path: &[Box<[u8]>], element: &Element<'_>) -> Result<(), Malformed>;
    /// An element ends, with the text that stood directly in it if [`wants_text`](Sink::wants_text) asked for it.
    fn close(&mut self, path: &[Box<[u8]>], text: &str) -> Result<(), Malformed>;
    /// Whether the text of this element matters.
    fn wants_text(&self, path: &[Box<[u8]>]) -> bool;
}

/// An opening tag.
pub(super) struct Element<'a>(&'a BytesStart<'a>);

impl Element<'_> {
    /// The value of an attribute, by its name as written.
    pub(super) fn attribute(&self, name: &str) -> Result<Option<String>, Malformed> {
        match self
            .0
            .try_get_attribute(name)
            .map_err(|error| Malformed(format!("a broken attribute: {error}")))?
        {
            None => Ok(None),
            Some(attribute) => {
                let value = attribute.normalized_value(XmlVersion::Implicit1_0);
                value
                    .map(|value| Some(value.into_owned()))
                    .map_err(|error| Malformed(format!("a broken attribute: {error}")))
            }
        }
    }
}

/// Reads all of `source` into `sink`.
/// What it takes of time is counted on `meter`; entries are for the sink to count.
pub(super) fn read<R: BufRead>(
    source: R,
    meter: &Meter,
    sink: &mut dyn Sink,
) -> Result<(), Malformed> {
    let mut reader = Reader::from_reader(Bounded {
        source,
        left: MAX_TOKEN,
    });
    reader.config_mut().expand_empty_elements = true;
    let mut buffer = Vec::new();
    let mut reading = Reading {
        sink,
        path: Vec::new(),
        text: String::new(),
        wanted: false,
        rooted: false,
    };
    loop {
        buffer.clear();
        meter.tick();
        meter.end()?;
        reader.get_mut().left = MAX_TOKEN;
        let event = reader.read_event_into(&mut buffer);
        let at = reader.buffer_position();
        match event.map_err(|error| broken(at, &error))? {
            Event::Start(tag) => reading.start(at, &tag)?,
            Event::End(_) => reading.end()?,
            Event::Text(part) if reading.wanted => {
                reading.add(at, &part.decode().map_err(|error| broken(at, &error))?)?;
            }
            Event::CData(part) if reading.wanted => {
                reading.add(at, &part.decode().map_err(|error| broken(at, &error))?)?;
            }
            Event::GeneralRef(reference) => {
                let character = match reference
                    .resolve_char_ref()
                    .map_err(|error| broken(at, &error))?
                {
                    Some(character) => character,
                    None => predefined(&reference)
                        .ok_or_else(|| broken(at, &"an entity that XML itself does not define"))?,
                };
                if reading.wanted && reading.text.len() < MAX_TEXT {
                    reading.text.push(character);
                }
            }
            Event::DocType(_) => {
                return Err(broken(
                    at,
                    &"a document type, which repository metadata must not have",
                ));
            }
            Event::Eof if reading.path.is_empty() && reading.rooted => return Ok(()),
            Event::Eof => return Err(broken(at, &"it ends too early")),
            Event::Text(_)
            | Event::CData(_)
            | Event::Empty(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_) => {}
        }
    }
}

fn broken(at: u64, what: &dyn std::fmt::Display) -> Malformed {
    Malformed(format!("XML that cannot be read, at byte {at}: {what}"))
}

/// Where a reading has come to.
struct Reading<'s> {
    sink: &'s mut dyn Sink,
    /// Local names of the open elements.
    path: Vec<Box<[u8]>>,
    /// The text that stands directly in the element that was opened last.
    text: String,
    /// Whether that matters.
    wanted: bool,
    /// Whether there has been a root.
    rooted: bool,
}

impl Reading<'_> {
    fn start(&mut self, at: u64, tag: &BytesStart<'_>) -> Result<(), Malformed> {
        if self.path.len() >= MAX_DEPTH || (self.path.is_empty() && self.rooted) {
            return Err(broken(
                at,
                &"elements nested too deeply, or more than one root",
            ));
        }
        if tag.local_name().as_ref().len() > MAX_NAME {
            return Err(broken(at, &"an element's name is too long"));
        }
        self.rooted = true;
        self.path.push(tag.local_name().as_ref().into());
        self.sink.open(&self.path, &Element(tag))?;
        self.wanted = self.sink.wants_text(&self.path);
        self.text.clear();
        Ok(())
    }

    fn end(&mut self) -> Result<(), Malformed> {
        self.sink.close(&self.path, self.text.trim())?;
        self.path.pop();
        self.text.clear();
        self.wanted = false;
        Ok(())
    }

    /// Many parts make up one text, and none that matters is long.
    fn add(&mut self, at: u64, part: &str) -> Result<(), Malformed> {
        if self.text.len() + part.len() > MAX_TEXT {
            return Err(broken(at, &"a text is too long"));
        }
        self.text.push_str(part);
        Ok(())
    }
}

/// The five entities of XML 1.0 section 4.6.
fn predefined(name: &[u8]) -> Option<char> {
    match name {
        b"amp" => Some('&'),
        b"lt" => Some('<'),
        b"gt" => Some('>'),
        b"quot" => Some('"'),
        b"apos" => Some('\''),
        _ => None,
    }
}

/// Fails when more than a token's worth of bytes was taken since `left` was last set: the parser keeps a token whole.
struct Bounded<R> {
    source: R,
    left: usize,
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Err(io::Error::other("a text or tag is too long"));
        }
        let available = self.source.fill_buf()?;
        Ok(&available[..available.len().min(self.left)])
    }

    fn consume(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count);
        self.source.consume(count);
    }
}
