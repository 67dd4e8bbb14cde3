//! What a process holds in memory. A measurement needs a process of its own: other tests of the program would be measured too.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Names the test that a child process runs.
const ALONE: &str = "LARDER_TEST_ALONE";
/// What a child prints before it fails because of the time alone: the machine may have been busy.
const TOO_SLOW: &str = "TOO SLOW:";
const TRIES: u32 = 4;

/// Runs `test`, the whole name of a test of this program, in a process of its own, one at a time. `body` is what that process does.
/// What failed because of the time alone is tried again.
pub(crate) fn alone<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    if std::env::var_os(ALONE).is_some_and(|name| name == test) {
        return tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
            .block_on(body());
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for attempt in 1..=TRIES {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output = command
            .args(["--exact", test, "--nocapture", "--include-ignored"])
            .env(ALONE, test)
            .output()
            .unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        if output.status.success() {
            assert!(
                text.contains("1 passed"),
                "no test is called {test}:\n{text}"
            );
            let figures = text
                .lines()
                .filter(|line| line.starts_with("= "))
                .collect::<Vec<_>>()
                .join("\n");
            println!("{test}\n{figures}");
            return;
        }
        assert!(
            text.contains(TOO_SLOW) && attempt < TRIES,
            "{test} failed:\n{text}"
        );
    }
}

/// Fails because of the time alone.
pub(crate) fn too_slow(what: &str) -> ! {
    panic!("{TOO_SLOW} {what}")
}

/// Anonymous memory of this process, in bytes (proc(5), `RssAnon`).
fn rss_anon() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

/// Watches how far the process's anonymous memory grows.
pub(crate) struct Peak {
    baseline: u64,
    stop: Arc<AtomicBool>,
    watcher: JoinHandle<u64>,
}

impl Peak {
    pub(crate) fn watch() -> Self {
        let baseline = rss_anon();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let watcher = std::thread::spawn(move || {
            let mut peak = 0;
            while !seen.load(Ordering::Acquire) {
                peak = peak.max(rss_anon());
                // The kernel is asked, and not tokio: memory grows in real time.
                std::thread::sleep(Duration::from_millis(1));
            }
            peak.max(rss_anon())
        });
        Self {
            baseline,
            stop,
            watcher,
        }
    }

    /// Bytes by which it grew at most.
    pub(crate) fn growth(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.watcher.join().unwrap().saturating_sub(self.baseline)
    }
}

#[test]
fn growth_is_seen() {
    alone("support::memory::growth_is_seen", || async {
        let peak = Peak::watch();
        let memory = std::hint::black_box(vec![1_u8; 64 << 20]);
        let growth = peak.growth();
        assert!(growth >= 60 << 20, "{growth} of {}", memory.len());
    });
}
