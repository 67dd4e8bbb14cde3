//! How things were over the last day and the last month: a part of several pages.

use serde::Serialize;

use crate::sparkline::sparkline;
use crate::values::{Markup, Moment, Saved};

/// How things were over the last day and the last month.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Trends {
    /// Bytes sent to clients that did not have to be fetched: in the last day.
    pub saved_day: Saved,
    /// In the last 30 days.
    pub saved_month: Saved,
    /// Since the counting began.
    pub saved_ever: Saved,
    /// Since when it is counted; `None`: nothing has been written down yet.
    pub began_at: Option<Moment>,
    /// One line each.
    pub rows: Vec<Trend>,
}

/// One number over time.
#[derive(Debug, Clone, Serialize)]
pub struct Trend {
    /// What it is.
    pub name: &'static str,
    /// Points of the last day, oldest first; `None` where nothing is known.
    pub day: Vec<Option<f64>>,
    /// What the day comes to.
    pub day_total: String,
    /// Points of the last 30 days.
    pub month: Vec<Option<f64>>,
    /// What they come to.
    pub month_total: String,
    /// The top of the scale; `None`: the largest point.
    #[serde(skip)]
    pub top: Option<f64>,
}

impl Trend {
    /// The chart of the day.
    pub fn day_chart(&self) -> Markup {
        sparkline(&self.day, self.top)
    }

    /// The chart of the month.
    pub fn month_chart(&self) -> Markup {
        sparkline(&self.month, self.top)
    }
}
