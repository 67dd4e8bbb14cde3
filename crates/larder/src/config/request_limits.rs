//! Bounds on the requests that one upstream host gets: `limits.upstream`, and `limits` of a remote.

use std::time::Duration;

use larder_core::RequestLimits;

use super::diagnostic::Report;
use super::fields::Section;
use super::schema;

/// The most requests at once that can be named.
const MOST_AT_ONCE: u64 = 100_000;
/// Requests in a second: the fewest and the most that can be named.
const RATES: (f64, f64) = (0.02, 10_000.0);

/// Those of all remotes that have none of their own.
pub(super) fn of_all(limits: Option<&Section<'_>>, report: &mut Report) -> RequestLimits {
    let section = limits.and_then(|limits| limits.section("upstream", schema::UPSTREAM, report));
    let Some(section) = section else {
        return RequestLimits::default();
    };
    let (concurrency, apart) = read(&section, report);
    RequestLimits {
        concurrency,
        apart,
        is_own: false,
    }
}

/// Those of one remote. What it does not name is as for all.
pub(super) fn of_one(
    remote: &Section<'_>,
    of_all: RequestLimits,
    report: &mut Report,
) -> RequestLimits {
    let Some(section) = remote.section("limits", schema::UPSTREAM, report) else {
        return of_all;
    };
    let (concurrency, apart) = read(&section, report);
    RequestLimits {
        concurrency: concurrency.or(of_all.concurrency),
        apart: apart.or(of_all.apart),
        is_own: true,
    }
}

fn read(section: &Section<'_>, report: &mut Report) -> (Option<u32>, Option<Duration>) {
    let concurrency = section.number("concurrency", 1, MOST_AT_ONCE, report);
    (
        concurrency.and_then(|number| u32::try_from(number).ok()),
        apart(section, report),
    )
}

/// The time between two requests, of which there are `rate` in a second.
fn apart(section: &Section<'_>, report: &mut Report) -> Option<Duration> {
    let (text, place) = section.text("rate", report)?;
    let (least, most) = RATES;
    let is_number = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let rate = text.parse::<f64>().ok().filter(|_| is_number);
    let rate = rate.filter(|rate| (least..=most).contains(rate));
    if rate.is_none() {
        report.error(
            place,
            format!(
                "`{}` must be a number of requests in a second, from {least} to {most}, such as 20 or 0.5",
                section.path("rate")
            ),
        );
    }
    rate.map(|rate| Duration::from_secs_f64(1.0 / rate))
}
