//! One index of many: the chart versions of every member in one list, each copied as it stands in its member's document.
//!
//! Charts are grouped by their entries' `name`; of equal names and versions that of the first member stays; versions are sorted newest
//! first. The result is in the block style that Helm writes, and depends on nothing but what is given.

use std::borrow::Cow;
use std::collections::HashSet;

use larder_core::UnixMillis;

use super::entries::{self, Edit, Entries, Entry};
use super::normal::{is_plain_word, quote_into};
use super::rewrite::{Resolver, Written, instant};
use super::scan::Style;
use super::semver::Precedence;
use super::shape::is_no_text;
use crate::{Derived, Malformed, MergeFault, MergeMember, Merged};

/// The column of a version's dash in the merged index.
const COLUMN: usize = 2;

/// A chart version that is in the merged index.
struct Pick<'a> {
    name: Cow<'a, str>,
    version: Cow<'a, str>,
    member: usize,
    entry: &'a Entry,
}

/// Merges the indexes of several repositories.
pub(super) fn merge(members: &[MergeMember<'_>]) -> Result<Merged, MergeFault> {
    let mut read = Vec::with_capacity(members.len());
    for (member, of) in members.iter().enumerate() {
        let entries =
            entries::of(of.document.body).map_err(|malformed| MergeFault { member, malformed })?;
        read.push(entries);
    }
    let mut remarks = Vec::new();
    let mut picks = pick(members, &read, &mut remarks);
    sort(&mut picks);
    let mut out = String::with_capacity(members.iter().map(|m| m.document.body.len()).sum());
    out.push_str("apiVersion: v1\n");
    write_entries(members, &read, &picks, &mut out)
        .map_err(|(member, malformed)| MergeFault { member, malformed })?;
    if let Some(generated) = generated(&read) {
        out.push_str("generated: ");
        quote_into(&generated, &mut out);
        out.push('\n');
    }
    Ok(Merged {
        derived: Derived {
            body: out.into_bytes(),
            content_type: "application/yaml",
        },
        remarks,
    })
}

/// Which versions are in the merged index, in the order of the members. What is left out because of what it is, is remarked on.
fn pick<'a>(
    members: &[MergeMember<'_>],
    read: &'a [Entries<'_>],
    remarks: &mut Vec<(usize, String)>,
) -> Vec<Pick<'a>> {
    let mut taken: HashSet<(Cow<'a, str>, Cow<'a, str>)> =
        HashSet::with_capacity(read.iter().map(|entries| entries.versions.len()).sum());
    let mut picks = Vec::with_capacity(taken.capacity());
    for (at, (member, entries)) in members.iter().zip(read).enumerate() {
        let mut refused = Refused {
            count: entries.lost,
            first: None,
        };
        for entry in &entries.versions {
            let (name, version) = match named(entries, entry) {
                Ok(named) => named,
                Err(why) => {
                    refused.add(entries, entry, why);
                    continue;
                }
            };
            if member.is_anothers.is_some_and(|is| is(&name)) {
                continue;
            }
            // A version that is held back is nobody else's to fill in for.
            if !taken.insert((name.clone(), version.clone())) {
                continue;
            }
            if member
                .is_held
                .is_some_and(|is_held| is_held(created(entries, entry)))
            {
                continue;
            }
            picks.push(Pick {
                name,
                version,
                member: at,
                entry,
            });
        }
        remarks.extend(refused.remark().map(|remark| (at, remark)));
    }
    picks
}

fn text_of<'a>(entries: &'a Entries<'_>, span: Option<super::scan::Span>) -> Option<Cow<'a, str>> {
    span?
        .decode(&entries.text)
        .map(|(_, text)| text)
        .filter(|text| !text.is_empty())
}

/// The name and version of an entry, or why it cannot be in an index.
fn named<'a>(
    entries: &'a Entries<'_>,
    entry: &'a Entry,
) -> Result<(Cow<'a, str>, Cow<'a, str>), &'a str> {
    if let Some(fault) = &entry.fault {
        return Err(fault);
    }
    let name = text_of(entries, entry.name).ok_or("it has no name")?;
    let version = text_of(entries, entry.version).ok_or("it has no version")?;
    Ok((name, version))
}

fn created(entries: &Entries<'_>, entry: &Entry) -> Option<UnixMillis> {
    instant(&text_of(entries, entry.created)?)
}

/// The entries of one index that Helm would refuse.
struct Refused {
    count: usize,
    first: Option<String>,
}

impl Refused {
    fn add(&mut self, entries: &Entries<'_>, entry: &Entry, why: &str) {
        self.count += 1;
        if self.first.is_none() {
            let of = |span| text_of(entries, span).unwrap_or(Cow::Borrowed("without"));
            let shown = |text: Cow<'_, str>| text.chars().take(80).collect::<String>();
            self.first = Some(format!(
                "name {:?}, version {:?}: {why}",
                shown(of(entry.name)),
                shown(of(entry.version))
            ));
        }
    }

    fn remark(self) -> Option<String> {
        let first = self.first.map_or_else(
            || "they are written with YAML aliases".to_owned(),
            |first| format!("the first of them has {first}"),
        );
        (self.count > 0).then(|| {
            format!(
                "{} entries that Helm would refuse, and the whole index with them, are left out; {first}",
                self.count
            )
        })
    }
}

/// Charts by name, versions newest first, what is equal in the order of the members.
fn sort(picks: &mut Vec<Pick<'_>>) {
    let mut order: Vec<(Precedence<'_>, usize)> = picks
        .iter()
        .enumerate()
        .map(|(at, pick)| (Precedence::of(&pick.version), at))
        .collect();
    order.sort_by(|(one, at), (other, other_at)| {
        let name = |at: usize| picks.get(at).map_or("", |pick| &*pick.name);
        name(*at)
            .cmp(name(*other_at))
            .then_with(|| other.cmp(one))
            .then_with(|| at.cmp(other_at))
    });
    let order: Vec<usize> = order.into_iter().map(|(_, at)| at).collect();
    let mut unsorted: Vec<Option<Pick<'_>>> = std::mem::take(picks).into_iter().map(Some).collect();
    picks.extend(
        order
            .into_iter()
            .filter_map(|at| unsorted.get_mut(at).and_then(Option::take)),
    );
}

fn write_entries(
    members: &[MergeMember<'_>],
    read: &[Entries<'_>],
    picks: &[Pick<'_>],
    out: &mut String,
) -> Result<(), (usize, Malformed)> {
    if picks.is_empty() {
        out.push_str("entries: {}\n");
        return Ok(());
    }
    out.push_str("entries:\n");
    let resolvers: Vec<Resolver<'_>> = members
        .iter()
        .map(|member| Resolver::new(&member.document, member.links))
        .collect();
    let mut chart = None;
    for pick in picks {
        if chart != Some(&*pick.name) {
            chart = Some(&*pick.name);
            out.push_str("  ");
            if is_plain_word(&pick.name) {
                out.push_str(&pick.name);
            } else {
                quote_into(&pick.name, out);
            }
            out.push_str(":\n");
        }
        if let (Some(entries), Some(resolver)) = (read.get(pick.member), resolvers.get(pick.member))
        {
            Copier::new(entries, pick.entry).copy(resolver, out);
        }
    }
    for (at, member) in members.iter().enumerate() {
        member.links.end().map_err(|malformed| (at, malformed))?;
    }
    Ok(())
}

/// Copies the lines of one version, moved to the merged index's column.
struct Copier<'a> {
    text: &'a str,
    entry: &'a Entry,
    edits: &'a [Edit],
    /// Spaces that each line gains, or loses.
    gains: usize,
    loses: usize,
    is_line_start: bool,
}

impl<'a> Copier<'a> {
    fn new(entries: &'a Entries<'_>, entry: &'a Entry) -> Self {
        let column = entry.column as usize;
        let edits = entry.edits.start as usize..entry.edits.end as usize;
        Self {
            text: &entries.text,
            entry,
            edits: entries.edits.get(edits).unwrap_or_default(),
            gains: COLUMN.saturating_sub(column),
            loses: column.saturating_sub(COLUMN),
            is_line_start: true,
        }
    }

    fn copy(mut self, resolver: &Resolver<'_>, out: &mut String) {
        let lines = self.entry.lines();
        let mut at = lines.start;
        for edit in self.edits {
            let Some((range, value)) = edit.span.decode(self.text) else {
                resolver.cannot_read();
                continue;
            };
            let is_bare = edit.span.style == Style::Plain && is_no_text(&value);
            let written = if edit.is_link {
                resolver.written(&value)
            } else {
                None
            };
            match written {
                Some(Written::Path(path)) => {
                    self.piece(at..range.start, out);
                    edit.span.encode_into(&[resolver.base(), &path], out);
                }
                Some(Written::Elsewhere(url)) => {
                    self.piece(at..range.start, out);
                    edit.span.encode_into(&[url.as_str()], out);
                }
                None if is_bare => {
                    self.piece(at..range.start, out);
                    quote_into(&value, out);
                }
                None => continue,
            }
            at = range.end;
        }
        self.piece(at..lines.end, out);
        if !out.ends_with('\n') {
            out.push('\n');
        }
    }

    fn piece(&mut self, range: std::ops::Range<usize>, out: &mut String) {
        let piece = self.text.get(range).unwrap_or_default();
        if self.gains == 0 && self.loses == 0 {
            out.push_str(piece);
            return;
        }
        for line in piece.split_inclusive('\n') {
            let mut line = line;
            if self.is_line_start && line != "\n" {
                out.extend(std::iter::repeat_n(' ', self.gains));
                let indent = line.len() - line.trim_start_matches(' ').len();
                line = line.get(indent.min(self.loses)..).unwrap_or_default();
            }
            out.push_str(line);
            self.is_line_start = line.ends_with('\n');
        }
    }
}

/// When the newest of the members' documents was made, as they state it.
fn generated(read: &[Entries<'_>]) -> Option<String> {
    let stated = read.iter().filter_map(|entries| {
        let text = text_of(entries, entries.generated)?;
        Some((super::instant::of(&text)?, text.into_owned()))
    });
    stated
        .max_by(|(one, text), (other, other_text)| {
            one.cmp(other).then_with(|| text.cmp(other_text))
        })
        .map(|(_, text)| text)
}
