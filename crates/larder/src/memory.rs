//! Memory that nothing uses any more goes back to the system: the allocator keeps what a burst of connections or documents has freed.

use std::time::{Duration, Instant};

/// How often is looked whether there is something to give back.
const EVERY: Duration = Duration::from_secs(10);

/// Less growth than this is not worth the look through all that is allocated.
const GROWN: u64 = 4 << 20;

/// Looks now and then how much memory the process takes, and gives back what is unused once it has grown; never ends. Only where the
/// kernel says how much it is.
pub(crate) async fn kept_small() {
    let mut least = u64::MAX;
    while let Some(taken) = anonymous() {
        least = least.min(taken);
        if taken - least >= GROWN {
            let since = Instant::now();
            // A thread of its own: arenas are locked meanwhile.
            if tokio::task::spawn_blocking(larder_server::return_unused_pages)
                .await
                .is_err()
            {
                return;
            }
            least = anonymous().unwrap_or(taken);
            tracing::debug!(
                bytes = taken.saturating_sub(least),
                took = ?since.elapsed(),
                "unused memory was given back"
            );
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Bytes of memory that no file is behind, from `/proc/self/statm`: what is resident but for what is shared.
fn anonymous() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    anonymous_of(&text, rustix::param::page_size() as u64)
}

/// Pages: the whole size, resident, shared, and more (proc_pid_statm(5)).
fn anonymous_of(statm: &str, page: u64) -> Option<u64> {
    let mut pages = statm
        .split_ascii_whitespace()
        .skip(1)
        .map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    Some(resident.saturating_sub(shared) * page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_resident_and_not_shared_is_anonymous() {
        let statm = "269000 9000 7800 8000 0 21000 0\n";
        assert_eq!(anonymous_of(statm, 4096), Some(1200 * 4096));
        assert_eq!(anonymous_of("1 2", 4096), None);
        assert_eq!(anonymous_of("", 4096), None);
    }
}
