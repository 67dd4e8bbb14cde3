//! What has been counted and is not written down yet.

use std::collections::{BTreeMap, HashMap};

use larder_core::UnixMillis;
use larder_storage::{FigureRow, Figures, HeldSize, SINCE_THE_BEGINNING};

use super::figures::Span;

/// The name of all repositories together.
pub(super) const ALL: &str = "";

/// A repository, the seconds of a point, and where it begins.
type Place = (String, i64, UnixMillis);

#[derive(Debug, Default)]
pub(super) struct Book {
    /// How the counters stood when they were looked at last.
    seen: HashMap<String, Figures>,
    pending: BTreeMap<Place, FigureRow>,
    /// The point of two hours in which this was written last of a repository, and what it held then.
    stored: HashMap<String, (UnixMillis, u64)>,
    /// The point of two hours in which old points were deleted last.
    cleared: Option<UnixMillis>,
}

impl Book {
    /// Takes over how the counters stand now, and what is held and free.
    pub(super) fn take(
        &mut self,
        counted: Vec<(String, Figures)>,
        held: &[HeldSize],
        free: Option<u64>,
        now: UnixMillis,
    ) {
        let mut sum = Figures::default();
        for (name, figures) in counted {
            let before = self.seen.insert(name.clone(), figures);
            let more = figures.since(before.unwrap_or_default());
            // What addresses no repository is nobody's.
            if name != ALL && !more.is_nothing() {
                sum = sum.plus(more);
                self.add(&name, more, (None, None), now);
            }
        }
        let point = Span::Month.point_of(now);
        for size in held {
            let known = self
                .stored
                .insert(size.repository.clone(), (point, size.bytes));
            if known != Some((point, size.bytes)) {
                self.add(
                    &size.repository,
                    Figures::default(),
                    (Some(size.bytes), None),
                    now,
                );
            }
        }
        let stored = (!held.is_empty()).then(|| held.iter().map(|size| size.bytes).sum());
        if stored.is_some() || free.is_some() || !sum.is_nothing() {
            self.add(ALL, sum, (stored, free), now);
        }
        // Where nothing can be written for days, what would be deleted goes.
        let oldest = Span::ALL.map(|span| (span.step().as_secs() as i64, span.first_of(now)));
        self.pending
            .retain(|(_, step, at), _| !oldest.iter().any(|(of, first)| of == step && at < first));
    }

    fn add(
        &mut self,
        name: &str,
        figures: Figures,
        (stored, free): (Option<u64>, Option<u64>),
        now: UnixMillis,
    ) {
        let of_span = |span: Span| (span.step().as_secs() as i64, span.point_of(now));
        let [day, month] = Span::ALL.map(of_span);
        for (step, at) in [day, month, (SINCE_THE_BEGINNING, UnixMillis(0))] {
            let place = (name.to_owned(), step, at);
            let row = self.pending.entry(place).or_insert(FigureRow {
                at,
                began_at: now,
                ..FigureRow::default()
            });
            row.figures = row.figures.plus(figures);
            row.stored = stored.or(row.stored);
            row.free = free.or(row.free);
        }
    }

    /// All that is to be written.
    pub(super) fn rows(&self) -> Vec<(String, i64, FigureRow)> {
        let rows = self.pending.iter();
        rows.map(|((name, step, _), row)| (name.clone(), *step, *row))
            .collect()
    }

    /// It is written.
    pub(super) fn written(&mut self) {
        self.pending.clear();
    }

    /// Points that are written down, together with what is not yet.
    pub(super) fn with(
        &self,
        name: &str,
        step: i64,
        from: UnixMillis,
        mut written: Vec<FigureRow>,
    ) -> Vec<FigureRow> {
        let first = (name.to_owned(), step, from);
        let last = (name.to_owned(), step, UnixMillis(i64::MAX));
        for (_, row) in self.pending.range(first..=last) {
            match written.iter_mut().find(|known| known.at == row.at) {
                Some(known) => {
                    known.figures = known.figures.plus(row.figures);
                    known.stored = row.stored.or(known.stored);
                    known.free = row.free.or(known.free);
                }
                None => written.push(*row),
            }
        }
        written.sort_by_key(|row| row.at);
        written
    }

    /// Whether old points are to be deleted: once in every two hours.
    pub(super) fn is_to_be_cleared(&mut self, now: UnixMillis) -> bool {
        let point = Some(Span::Month.point_of(now));
        std::mem::replace(&mut self.cleared, point) != point
    }
}
