//! What larder has counted over the last day and the last month, as charts.

use larder_core::Fault;
use larder_engine::{Figures, History, HistoryPoint, Span};
use larder_ui::pages::{Trend, Trends};
use larder_ui::{Bytes, Count, Moment, Saved, Share};

use super::visit::Visit;
use crate::backend::Backend;

/// Both spans of one repository, or of all together.
pub(crate) struct Spans {
    pub(crate) day: History,
    pub(crate) month: History,
}

impl Spans {
    pub(crate) async fn read<B: Backend>(
        visit: &Visit<'_, B>,
        repository: Option<&str>,
    ) -> Result<Self, Fault> {
        Ok(Self {
            day: visit.backend().history(repository, Span::Day).await?,
            month: visit.backend().history(repository, Span::Month).await?,
        })
    }

    /// In how many days the room ends if it goes on like this.
    pub(crate) fn full_in_days(&self) -> Option<u64> {
        let days = self.month.forecast.as_ref()?.days_left;
        // Beyond that it says nothing.
        (0.0..3_650.0).contains(&days).then_some(days as u64)
    }

    /// As pages show it.
    pub(crate) fn shown(&self) -> Trends {
        let saved = |figures: &Figures| Saved(figures.saved_bytes());
        let mut rows = vec![
            self.ratio(),
            self.counted("Requests", |f| f.requests, count),
            self.counted("Sent to clients", |f| f.served_bytes, bytes),
            self.counted("Fetched from upstreams", |f| f.fetched_bytes, bytes),
            self.counted("Errors", |f| f.errors, count),
            self.counted("Refused by rules", |f| f.refused, count),
        ];
        rows.extend(self.last("Stored", |point| point.stored_bytes));
        rows.extend(self.last("Free space", |point| point.free_bytes));
        Trends {
            saved_day: saved(&self.day.sum),
            saved_month: saved(&self.month.sum),
            saved_ever: saved(&self.month.total),
            began_at: self.month.began_at.map(Moment),
            rows,
        }
    }

    fn ratio(&self) -> Trend {
        let points = |history: &History| {
            let points = known(history).map(|point| point.and_then(|p| p.figures.hit_ratio()));
            points.collect()
        };
        let total = |history: &History| match history.sum.hit_ratio() {
            Some(ratio) => Share(ratio).to_string(),
            None => "-".to_owned(),
        };
        Trend {
            name: "Hit ratio",
            day: points(&self.day),
            day_total: total(&self.day),
            month: points(&self.month),
            month_total: total(&self.month),
            top: Some(1.0),
        }
    }

    fn counted(
        &self,
        name: &'static str,
        of: fn(&Figures) -> u64,
        shown: fn(u64) -> String,
    ) -> Trend {
        let points = |history: &History| {
            let points = known(history).map(|point| point.map(|p| of(&p.figures) as f64));
            points.collect()
        };
        Trend {
            name,
            day: points(&self.day),
            day_total: shown(of(&self.day.sum)),
            month: points(&self.month),
            month_total: shown(of(&self.month.sum)),
            top: None,
        }
    }

    /// Of something that has a size at each moment, the last one; `None` if none is known.
    fn last(&self, name: &'static str, of: fn(&HistoryPoint) -> Option<u64>) -> Option<Trend> {
        let points = |history: &History| -> Vec<Option<f64>> {
            let points = history.points.iter().map(of);
            points
                .map(|value| value.map(|value| value as f64))
                .collect()
        };
        let last = |history: &History| history.points.iter().rev().find_map(of);
        let (day, month) = (last(&self.day), last(&self.month));
        month?;
        let shown = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), bytes);
        Some(Trend {
            name,
            day: points(&self.day),
            day_total: shown(day),
            month: points(&self.month),
            month_total: shown(month),
            top: None,
        })
    }
}

/// The points; `None` before larder began to count.
fn known(history: &History) -> impl Iterator<Item = Option<&HistoryPoint>> {
    let step = history.span.step();
    let is_known = move |point: &&HistoryPoint| {
        let began = history.began_at;
        began.is_some_and(|began| point.at.plus(step) > began)
    };
    history
        .points
        .iter()
        .map(move |point| Some(point).filter(is_known))
}

fn count(value: u64) -> String {
    Count(value).to_string()
}

fn bytes(value: u64) -> String {
    Bytes(value).to_string()
}
