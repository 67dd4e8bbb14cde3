//! Clocks that differ: lives of copies, quarantine, certificates and signatures all go by the time.

use larder_core::UnixMillis;

use super::Finding;

/// Signed links and requests are refused from some minutes on; what is slower than a minute is no delay of the network.
pub(super) const MOST_SKEW_MS: i64 = 60_000;

/// What the servers that were asked take the time to be, beside this machine's.
#[derive(Debug, Default)]
pub(super) struct Clocks(Vec<Seen>);

#[derive(Debug)]
struct Seen {
    place: String,
    /// This machine's clock less the server's, in milliseconds.
    ahead: i64,
}

/// How far this machine's clock is ahead of a server that answers `date` (and `age`, where a cache is in between); `None` if it does not say.
pub(super) fn ahead(date: Option<&str>, age: Option<&str>, now: UnixMillis) -> Option<i64> {
    let at = UnixMillis::from_http_date(date?)?;
    let age: i64 = age.and_then(|age| age.trim().parse().ok()).unwrap_or(0);
    Some(
        now.0
            .saturating_sub(at.0)
            .saturating_sub(age.saturating_mul(1_000)),
    )
}

impl Clocks {
    /// Takes up how far this machine's clock was [`ahead`] when a server's answer came.
    pub(super) fn see(&mut self, place: String, ahead: i64) {
        self.0.push(Seen { place, ahead });
    }

    /// One finding if this machine's clock is the one that differs, else one for each server whose clock does.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let (skewed, right): (Vec<&Seen>, Vec<&Seen>) = self
            .0
            .iter()
            .partition(|seen| seen.ahead.abs() > MOST_SKEW_MS);
        let Some(first) = skewed.first() else {
            return Vec::new();
        };
        if right.is_empty() {
            let others: Vec<&str> = skewed.iter().map(|seen| &*seen.place).collect();
            let remedy = if skewed.len() == 1 {
                "compare both with the time, and set the wrong one right (run NTP)"
            } else {
                "set this machine's clock, and keep it right (run NTP)"
            };
            return vec![Finding::new(
                "clock",
                "this machine",
                format!("its clock is {} {}", told(first.ahead), others.join(", ")),
                remedy,
            )];
        }
        let of_server = |seen: &&Seen| {
            Finding::new(
                "clock",
                seen.place.clone(),
                format!(
                    "this machine's clock is {} this server's, and agrees with others",
                    told(seen.ahead)
                ),
                "set that server's clock, or ask who runs it: quarantine and lives of copies go by the times that it states",
            )
        };
        skewed.iter().map(of_server).collect()
    }
}

/// How far a clock is off, in words before the other.
pub(super) fn told(ahead: i64) -> String {
    let seconds = ahead.unsigned_abs() / 1_000;
    let direction = if ahead < 0 { "behind" } else { "ahead of" };
    format!("{seconds} s {direction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    /// The moment of `DATE`, from RFC 9110's example.
    const AT: i64 = 784_111_777_000;

    #[test]
    fn a_servers_date_is_counted_with_its_age() {
        let now = |later: i64| UnixMillis(AT + later);
        assert_eq!(ahead(Some(DATE), None, now(90_000)), Some(90_000));
        assert_eq!(ahead(Some(DATE), Some("90"), now(90_000)), Some(0));
        assert_eq!(ahead(Some(DATE), Some("x"), now(-5_000)), Some(-5_000));
        assert_eq!(ahead(Some("yesterday"), None, now(0)), None);
        assert_eq!(ahead(None, None, now(0)), None);
    }

    #[test]
    fn whose_clock_it_is() {
        let seen = |all: &[(&str, i64)]| {
            let all = all.iter().map(|(place, ahead)| Seen {
                place: (*place).to_owned(),
                ahead: *ahead,
            });
            Clocks(all.collect()).findings()
        };
        assert_eq!(seen(&[("a", 30_000), ("b", -30_000)]), []);
        let own = seen(&[("a", 3_600_000), ("b", 3_601_000)]);
        assert_eq!((own.len(), &*own[0].place), (1, "this machine"));
        assert!(own[0].what.contains("3600 s ahead of a, b"), "{own:?}");
        let others = seen(&[("a", 0), ("b", -3_600_000)]);
        assert_eq!((others.len(), &*others[0].place), (1, "b"));
        let what = &others[0].what;
        assert!(
            what.contains("clock is 3600 s behind this server's,"),
            "{what}"
        );
    }
}
