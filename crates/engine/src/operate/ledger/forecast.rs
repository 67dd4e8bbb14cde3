//! When the disk will be full: a straight line through the free space of the last days.

use larder_core::UnixMillis;
use larder_storage::FigureRow;

use super::figures::Forecast;
use crate::operate::condition::DiskSpace;

const DAY_MS: f64 = 86_400_000.0;
/// Points that are older are not looked at.
const LOOKED_AT_DAYS: f64 = 7.0;
/// Of fewer points, or of a shorter time, nothing is said.
const LEAST_POINTS: usize = 6;
const LEAST_DAYS: f64 = 0.5;
/// What is further away is no forecast.
const FURTHEST_DAYS: f64 = 3_650.0;

/// From points of two hours. `None`: too few, or the space does not shrink.
pub(super) fn of(rows: &[FigureRow], disk: &DiskSpace, now: UnixMillis) -> Option<Forecast> {
    let point = |row: &FigureRow| {
        let days = (row.at.0 - now.0) as f64 / DAY_MS;
        (days >= -LOOKED_AT_DAYS).then_some((days, row.free? as f64))
    };
    let points: Vec<(f64, f64)> = rows.iter().filter_map(point).collect();
    let (first, last) = (points.first()?.0, points.last()?.0);
    if points.len() < LEAST_POINTS || last - first < LEAST_DAYS {
        return None;
    }
    let bytes_per_day = -slope(&points);
    let room = disk.free.saturating_sub(disk.reserve) as f64;
    let days_left = room / bytes_per_day;
    (bytes_per_day > 0.0 && days_left <= FURTHEST_DAYS).then_some(Forecast {
        days_left,
        bytes_per_day,
    })
}

/// Of the line whose squared distances from the points are least.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let (mut above, mut below) = (0.0, 0.0);
    for (x, y) in points {
        above += (x - mean_x) * (y - mean_y);
        below += (x - mean_x) * (x - mean_x);
    }
    above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const NOW: UnixMillis = UnixMillis(1_780_000_000_000);

    fn disk(free: u64) -> DiskSpace {
        DiskSpace {
            free,
            total: 10_000_000,
            reserve: 1_000,
            failing: false,
        }
    }

    /// Points of two hours up to now, of a free space that changes by so much with each.
    fn rows(count: i64, start: i64, change: i64) -> Vec<FigureRow> {
        let row = |n: i64| FigureRow {
            at: UnixMillis(NOW.0 - (count - 1 - n) * 2 * HOUR),
            free: u64::try_from(start + n * change).ok(),
            ..FigureRow::default()
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn a_disk_that_fills_up_steadily_is_full_when_it_is() {
        // 12 points a day, 100 bytes each: 1,200 a day; 25,000 until the reserve.
        let found = of(&rows(24, 28_300, -100), &disk(26_000), NOW).unwrap();
        assert!((found.bytes_per_day - 1_200.0).abs() < 1e-6, "{found:?}");
        assert!(
            (found.days_left - 25_000.0 / 1_200.0).abs() < 1e-6,
            "{found:?}"
        );
        // What was before the last seven days does not matter.
        let mut long = rows(24, 28_300, -100);
        long.insert(
            0,
            FigureRow {
                at: UnixMillis(NOW.0 - 8 * 24 * HOUR),
                free: Some(9_000_000),
                ..FigureRow::default()
            },
        );
        assert_eq!(of(&long, &disk(26_000), NOW), Some(found));
    }

    #[test]
    fn nothing_is_said_of_what_does_not_shrink_or_is_not_known_for_long() {
        assert_eq!(of(&rows(24, 1_000_000, 0), &disk(1_000_000), NOW), None);
        assert_eq!(of(&rows(24, 1_000_000, 50), &disk(1_000_000), NOW), None);
        assert_eq!(of(&rows(5, 1_000_000, -50), &disk(1_000_000), NOW), None);
        assert_eq!(of(&[], &disk(1_000_000), NOW), None);
        // Ten years and more.
        assert_eq!(of(&rows(24, 9_999_999, -1), &disk(9_999_999), NOW), None);
        // It is full already.
        let full = of(&rows(24, 28_300, -100), &disk(900), NOW).unwrap();
        assert!(full.days_left.abs() < f64::EPSILON);
    }
}
