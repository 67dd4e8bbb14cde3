//! What larder has counted, as it is shown: points of a span, sums, and what they say of the disk.

use std::time::Duration;

use larder_core::UnixMillis;
use larder_storage::Figures;

/// Which part of the past is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Span {
    /// 24 hours, in points of 5 minutes.
    Day,
    /// 30 days, in points of 2 hours.
    Month,
}

impl Span {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Day, Self::Month];

    /// How long a point is.
    pub const fn step(self) -> Duration {
        match self {
            Self::Day => Duration::from_mins(5),
            Self::Month => Duration::from_hours(2),
        }
    }

    /// How many points there are.
    pub const fn points(self) -> usize {
        match self {
            Self::Day => 288,
            Self::Month => 360,
        }
    }

    pub(crate) const fn step_ms(self) -> i64 {
        self.step().as_millis() as i64
    }

    /// Where the point begins that a moment is in.
    pub(crate) const fn point_of(self, now: UnixMillis) -> UnixMillis {
        UnixMillis(now.0.div_euclid(self.step_ms()) * self.step_ms())
    }

    /// Where the first point begins of the span that ends with the point of `now`.
    pub(crate) const fn first_of(self, now: UnixMillis) -> UnixMillis {
        UnixMillis(self.point_of(now).0 - (self.points() as i64 - 1) * self.step_ms())
    }
}

/// What was counted from one moment on, for as long as a point of the span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryPoint {
    /// Where it begins.
    pub at: UnixMillis,
    /// What was counted.
    pub figures: Figures,
    /// Bytes that were held at its end; `None`: that was not written down.
    pub stored_bytes: Option<u64>,
    /// Bytes that larder could still write at its end; of all repositories together only.
    pub free_bytes: Option<u64>,
}

/// What was counted of one repository, or of all together.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// The span.
    pub span: Span,
    /// Its points, the oldest first, none left out: where nothing was counted they are zero. The last one is not over yet.
    pub points: Vec<HistoryPoint>,
    /// Their sum.
    pub sum: Figures,
    /// Everything since larder began to count.
    pub total: Figures,
    /// When that was; `None`: nothing has been written down yet.
    pub began_at: Option<UnixMillis>,
    /// When the disk will be full; of all repositories together only. `None`: it does not fill up, or there are too few points.
    pub forecast: Option<Forecast>,
}

/// When the disk will be full if it goes on filling up as it did in the last days.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// Days from now on until nothing more is kept.
    pub days_left: f64,
    /// Bytes by which the free space shrinks each day.
    pub bytes_per_day: f64,
}
