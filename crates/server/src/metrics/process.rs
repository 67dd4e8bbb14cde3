//! What the kernel says of this process (proc(5)), under the names that Prometheus' client libraries use.

use std::fs;
use std::time::Duration;

/// Ticks of the kernel's clock in a second, as user space sees them: 100 on every architecture that larder is built for.
const TICKS: u64 = 100;

/// The process at one moment. What cannot be read is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Process {
    pub(super) cpu: Option<Duration>,
    pub(super) resident: Option<u64>,
    pub(super) virtual_memory: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) open_files: Option<u64>,
    pub(super) most_open_files: Option<u64>,
    /// Seconds since the epoch.
    pub(super) started: Option<f64>,
}

impl Process {
    /// Reads a few short files, and the directory of open files.
    pub(crate) fn read() -> Self {
        let text =
            |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let (status, limits, stat) = (text("status"), text("limits"), text("stat"));
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self {
            resident: kilobytes(&status, "VmRSS:"),
            virtual_memory: kilobytes(&status, "VmSize:"),
            threads: number_after(&status, "Threads:"),
            // One of them is this reading's own.
            open_files: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|entries| (entries.count() as u64).saturating_sub(1)),
            most_open_files: number_after(&limits, "Max open files"),
            ..Self::of_stat(&stat, &boot)
        }
    }

    /// The times of proc_pid_stat(5), whose second field is a name in brackets that may hold anything.
    fn of_stat(stat: &str, boot: &str) -> Self {
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map_or("", |(_, rest)| rest)
            .split_whitespace()
            .collect();
        // The third field of the file is the first after the name.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let cpu = || {
            Some(Duration::from_millis(
                (field(14)? + field(15)?) * (1_000 / TICKS),
            ))
        };
        let started =
            || Some(number_after(boot, "btime ")? as f64 + field(22)? as f64 / TICKS as f64);
        Self {
            cpu: cpu(),
            started: started(),
            ..Self::default()
        }
    }
}

fn number_after(text: &str, label: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn kilobytes(text: &str, label: &str) -> Option<u64> {
    number_after(text, label).map(|kilobytes| kilobytes * 1_024)
}

#[cfg(test)]
mod tests {
    use larder_core::{Clock as _, SystemClock};

    use super::*;

    #[test]
    fn the_times_stand_behind_a_name_that_holds_anything() {
        // Fields 3 to 22 of proc_pid_stat(5): utime 14 = 250, stime 15 = 50, starttime 22 = 12345.
        let stat = "42 (a) b 1 (x) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 9 0 12345 1000 200\n";
        let process = Process::of_stat(stat, "cpu 1 2\nbtime 1700000000\n");
        assert_eq!(process.cpu, Some(Duration::from_secs(3)));
        assert_eq!(process.started, Some(1_700_000_123.45));
        assert_eq!(Process::of_stat("", ""), Process::default());
    }

    #[test]
    fn this_process_is_seen_as_it_is() {
        let process = Process::read();
        let now = SystemClock.now().0 as f64 / 1_000.0;
        assert!(
            process
                .started
                .is_some_and(|started| started <= now + 1.0 && started > now - 86_400.0),
            "{process:?}"
        );
        assert!(
            process.resident.unwrap() > 1 << 20 && process.virtual_memory >= process.resident,
            "{process:?}"
        );
        assert!(
            process.threads.unwrap() >= 1 && process.open_files.unwrap() >= 3,
            "{process:?}"
        );
        assert!(process.most_open_files >= process.open_files, "{process:?}");
    }
}
