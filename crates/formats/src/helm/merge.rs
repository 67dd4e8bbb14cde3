//! One index of many: the chart versions of every member in one list, each copied as it stands in its member's document.
//!
//! Charts are grouped by their entries' `name`; of equal names and versions that of the first member stays; versions are sorted newest
//! first. The result is in the block style that Helm writes, and depends on nothing but what is given.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use larder_core::UnixMillis;

use super::entries;
use super::normal::{is_plain_word, quote_into};
use super::rewrite::{Resolver, Written, instant};
use super::scan::Style;
use super::semver::Precedence;
use super::shape::is_no_text;
use super::versions::{Edit, Entries, Entry};
use crate::{Derived, Malformed, MergeFault, MergeMember, Merged};

/// The column of a version's dash in the merged index.
const COLUMN: usize = 2;

/// A chart version that may be in the merged index, by the numbers of its name, of its member and of itself there.
#[derive(Clone, Copy)]
struct Pick {
    name: u32,
    member: u32,
    entry: u32,
}

impl Pick {
    fn entry<'e>(self, entries: &'e Entries<'_>) -> Option<&'e Entry> {
        entries.versions.get(self.entry as usize)
    }
}

/// The names of all charts, each once: entries are told apart and sorted by a number.
#[derive(Default)]
struct Names<'a> {
    all: Vec<Cow<'a, str>>,
    numbers: HashMap<Cow<'a, str>, u32>,
    /// The number of the name that was asked for last: an index has a chart's versions next to each other.
    last: u32,
}

impl<'a> Names<'a> {
    fn number(&mut self, name: Cow<'a, str>) -> u32 {
        if self.of(self.last) == name && !self.all.is_empty() {
            return self.last;
        }
        let next = self.all.len() as u32;
        self.last = *self.numbers.entry(name).or_insert_with_key(|name| {
            self.all.push(name.clone());
            next
        });
        self.last
    }

    fn of(&self, number: u32) -> &str {
        self.all.get(number as usize).map_or("", |name| name)
    }

    /// For each number, how many names are before its own.
    fn ranks(&self) -> Vec<u32> {
        let mut sorted: Vec<u32> = (0..self.all.len() as u32).collect();
        sorted.sort_unstable_by_key(|number| self.of(*number));
        let mut ranks = vec![0; sorted.len()];
        for (rank, number) in sorted.into_iter().enumerate() {
            if let Some(of) = ranks.get_mut(number as usize) {
                *of = rank as u32;
            }
        }
        ranks
    }
}

/// Merges the indexes of several repositories.
pub(super) fn merge(members: &[MergeMember<'_>]) -> Result<Merged, MergeFault> {
    let mut read = Vec::with_capacity(members.len());
    for (member, of) in members.iter().enumerate() {
        let entries =
            entries::of(of.document.body).map_err(|malformed| MergeFault { member, malformed })?;
        read.push(entries);
    }
    let (mut remarks, mut names) = (Vec::new(), Names::default());
    let (picks, versions) = pick(members, &read, &mut names, &mut remarks);
    let order = choose(members, &read, (&picks, &versions), &names);
    drop(versions);
    let mut out = String::with_capacity(members.iter().map(|m| m.document.body.len()).sum());
    out.push_str("apiVersion: v1\n");
    let chosen = order.iter().filter_map(|at| picks.get(*at as usize));
    let chosen = chosen.map(|pick| (names.of(pick.name), *pick));
    write_entries(members, &read, chosen, &mut out)
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

/// The versions that may be in the merged index, in the order of the members, and what each calls itself. What is left out because of what
/// it is, is remarked on.
fn pick<'a>(
    members: &[MergeMember<'_>],
    read: &'a [Entries<'_>],
    names: &mut Names<'a>,
    remarks: &mut Vec<(usize, String)>,
) -> (Vec<Pick>, Vec<Cow<'a, str>>) {
    let all = read.iter().map(|entries| entries.versions.len()).sum();
    let (mut picks, mut versions) = (Vec::with_capacity(all), Vec::with_capacity(all));
    for (at, (member, entries)) in members.iter().zip(read).enumerate() {
        let mut refused = Refused {
            count: entries.lost,
            first: None,
        };
        for (number, entry) in entries.versions.iter().enumerate() {
            let (name, version) = match named(entries, entry) {
                Ok(named) => named,
                Err(why) => {
                    refused.add(entries, entry, why);
                    continue;
                }
            };
            if member.is_anothers.is_none_or(|is| !is(&name)) {
                picks.push(Pick {
                    name: names.number(name),
                    member: at as u32,
                    entry: number as u32,
                });
                versions.push(version);
            }
        }
        remarks.extend(refused.remark().map(|remark| (at, remark)));
    }
    (picks, versions)
}

/// The versions of one chart that no order tells apart (`1.0.0+a`, `1.0.0+b`), as far as they were met.
#[derive(Default)]
struct Equal<'v> {
    first: &'v str,
    others: HashSet<&'v str>,
}

impl<'v> Equal<'v> {
    /// Whether this version, one of them or (unless it `goes_on`) the first of the next ones, is met for the first time.
    fn is_first(&mut self, version: &'v str, goes_on: bool) -> bool {
        if goes_on {
            return version != self.first && self.others.insert(version);
        }
        self.first = version;
        self.others.clear();
        true
    }
}

/// Which of the versions are in the merged index, in its order: charts by name, versions newest first, what is equal in the order of the
/// members. Of those with one name and version the first stays, or none if that is held back: such a one is nobody else's to fill in for.
fn choose(
    members: &[MergeMember<'_>],
    read: &[Entries<'_>],
    (picks, versions): (&[Pick], &[Cow<'_, str>]),
    names: &Names<'_>,
) -> Vec<u32> {
    let ranks = names.ranks();
    let rank = |pick: &Pick| ranks.get(pick.name as usize).copied().unwrap_or_default();
    let keys: Vec<(u32, Precedence<'_>)> = picks
        .iter()
        .zip(versions)
        .map(|(pick, version)| (rank(pick), Precedence::of(version)))
        .collect();
    let key = |at: u32| keys.get(at as usize);
    let mut order: Vec<u32> = (0..picks.len() as u32).collect();
    order.sort_by(|one, other| match (key(*one), key(*other)) {
        (Some((name, version)), Some((other_name, other_version))) => name
            .cmp(other_name)
            .then_with(|| other_version.cmp(version)),
        _ => Ordering::Equal,
    });
    let mut equal = Equal::default();
    let mut before: Option<&(u32, Precedence<'_>)> = None;
    order.retain(|at| {
        let number = *at as usize;
        let (Some(pick), Some(version), Some(key)) =
            (picks.get(number), versions.get(number), key(*at))
        else {
            return false;
        };
        let goes_on = before.is_some_and(|(name, version)| {
            *name == key.0 && version.cmp(&key.1) == Ordering::Equal
        });
        before = Some(key);
        let is_held = || {
            let member = pick.member as usize;
            let is_held = members.get(member)?.is_held?;
            let entries = read.get(member)?;
            Some(is_held(created(entries, pick.entry(entries)?)))
        };
        equal.is_first(version, goes_on) && !is_held().unwrap_or(false)
    });
    order
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
        return Err(&fault.0);
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

/// Writes the versions, each with the name of its chart.
fn write_entries<'p>(
    members: &[MergeMember<'_>],
    read: &[Entries<'_>],
    picks: impl Iterator<Item = (&'p str, Pick)>,
    out: &mut String,
) -> Result<(), (usize, Malformed)> {
    let resolvers: Vec<Resolver<'_>> = members
        .iter()
        .map(|member| Resolver::new(&member.document, member.links))
        .collect();
    let mut chart = None;
    for (name, pick) in picks {
        if chart.is_none() {
            out.push_str("entries:\n");
        }
        if chart != Some(name) {
            chart = Some(name);
            out.push_str("  ");
            if is_plain_word(name) {
                out.push_str(name);
            } else {
                quote_into(name, out);
            }
            out.push_str(":\n");
        }
        let member = pick.member as usize;
        if let (Some(entries), Some(resolver)) = (read.get(member), resolvers.get(member))
            && let Some(entry) = pick.entry(entries)
        {
            let edits = entries.edits_of(pick.entry as usize);
            Copier::new(entries, entry, edits).copy(resolver, out);
        }
    }
    if chart.is_none() {
        out.push_str("entries: {}\n");
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
    fn new(entries: &'a Entries<'_>, entry: &'a Entry, edits: &'a [Edit]) -> Self {
        let column = entry.column as usize;
        Self {
            text: &entries.text,
            entry,
            edits,
            gains: COLUMN.saturating_sub(column),
            loses: column.saturating_sub(COLUMN),
            is_line_start: true,
        }
    }

    fn copy(mut self, resolver: &Resolver<'_>, out: &mut String) {
        let lines = self.entry.lines();
        let mut at = lines.start;
        for edit in self.edits {
            let span = edit.span();
            let Some((range, value)) = span.decode(self.text) else {
                resolver.cannot_read();
                continue;
            };
            let is_bare = span.style == Style::Plain && is_no_text(&value);
            let written = if edit.is_link {
                resolver.written(&value)
            } else {
                None
            };
            match written {
                Some(Written::Path(path)) => {
                    self.piece(at..range.start, out);
                    span.encode_into(&[resolver.base(), &path], out);
                }
                Some(Written::Elsewhere(url)) => {
                    self.piece(at..range.start, out);
                    span.encode_into(&[url.as_str()], out);
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
