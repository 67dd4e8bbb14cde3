//! What is known of the chart versions of an index. Kept small: there may be a million of them.

use std::borrow::Cow;
use std::ops::Range;

use super::scan::{Span, Style};
use super::shape::{CREATED, DEPRECATED, NAME, OTHERWISE, VERSION};

/// The end, or the start, of a version where it is not known yet.
pub(super) const UNKNOWN: u32 = u32::MAX;

/// The chart versions of one index.
#[derive(Debug)]
pub(super) struct Entries<'a> {
    /// What all ranges are of: the document, or its normal form.
    pub(super) text: Cow<'a, str>,
    /// In document order.
    pub(super) versions: Vec<Entry>,
    /// What is written in other words, in document order.
    pub(super) edits: Vec<Edit>,
    /// `generated`.
    pub(super) generated: Option<Span>,
    /// Versions, or lists of them, that are not among these because they stand elsewhere (aliases).
    pub(super) lost: usize,
}

/// One chart version.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Option<Span>,
    pub(super) version: Option<Span>,
    pub(super) created: Option<Span>,
    pub(super) is_deprecated: bool,
    /// Where its part of [`Entries::edits`] begins.
    first_edit: u32,
    /// Its lines, from the one with its dash to before what follows.
    pub(super) start: u32,
    pub(super) end: u32,
    /// The column of its dash.
    pub(super) column: u32,
    /// Why Helm would refuse it, and with it the whole index.
    pub(super) fault: Option<Box<Unfit>>,
}

/// What is wrong with a version.
#[derive(Debug)]
pub(super) struct Unfit(pub(super) String);

/// A scalar that is not copied as it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edit {
    start: u32,
    end: u32,
    style: Style,
    /// A chart's URL; else a scalar that is put in quotes.
    pub(super) is_link: bool,
}

impl Edit {
    pub(super) fn of(span: Span, is_link: bool) -> Self {
        let Span { start, end, style } = span;
        Self {
            start,
            end,
            style,
            is_link,
        }
    }

    pub(super) fn span(self) -> Span {
        let Self {
            start, end, style, ..
        } = self;
        Span { start, end, style }
    }
}

impl Entries<'_> {
    /// What of a version is written in other words.
    pub(super) fn edits_of(&self, version: usize) -> &[Edit] {
        let from = |version: usize| {
            self.versions
                .get(version)
                .map(|entry| entry.first_edit as usize)
        };
        let (first, next) = (from(version), from(version + 1));
        let range = first.unwrap_or(self.edits.len())..next.unwrap_or(self.edits.len());
        self.edits.get(range).unwrap_or_default()
    }
}

impl Entry {
    /// One whose edits begin here.
    pub(super) fn beginning(first_edit: u32) -> Self {
        Self {
            name: None,
            version: None,
            created: None,
            is_deprecated: false,
            first_edit,
            start: UNKNOWN,
            end: UNKNOWN,
            column: 0,
            fault: None,
        }
    }

    /// Its lines.
    pub(super) fn lines(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Takes the value of a field.
    pub(super) fn set(&mut self, field: u8, value: Span, is_true: bool) {
        let of = match field % OTHERWISE {
            NAME => &mut self.name,
            VERSION => &mut self.version,
            CREATED => &mut self.created,
            DEPRECATED => return self.is_deprecated = is_true,
            _ => return,
        };
        if field < OTHERWISE || of.is_none() {
            *of = Some(value);
        }
    }
}
