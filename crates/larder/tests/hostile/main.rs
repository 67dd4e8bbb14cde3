//! What one stranger or one bad upstream can do to everybody else: documents that are small and ask for much, clients that call larder by
//! another name with each request, many large documents at once. Each with a bounded load, on the real program, whose memory is
//! measured from outside while another repository is asked.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may fail loudly"
)]
#![expect(clippy::format_collect, reason = "inputs are made once")]

mod documents;
mod hosts;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder_testkit::{Origin, Resource};
use support::TestLarder;
use support::client::{client, try_send};
use tokio::task::JoinHandle;

/// Of the unoptimised program, on a machine that does other things too; what is shipped is several times as fast.
const SLOWER: u32 = if cfg!(debug_assertions) { 6 } else { 1 };

/// How far memory rises from now on.
struct Memory<'l> {
    larder: &'l TestLarder,
    before: u64,
}

impl<'l> Memory<'l> {
    fn of(larder: &'l TestLarder) -> Self {
        std::fs::write(format!("/proc/{}/clear_refs", larder.pid()), "5")
            .expect("to forget the former peak");
        Self {
            larder,
            before: larder.resident_memory(),
        }
    }

    /// The highest rise, in MiB.
    fn rise(&self) -> u64 {
        self.larder.peak_memory().saturating_sub(self.before)
    }
}

/// Pages of another repository, each of them new to larder, asked for one after the other.
struct Bystander {
    stop: Arc<AtomicBool>,
    slowest: JoinHandle<(Duration, u32)>,
}

impl Bystander {
    /// What it asks for, on an upstream of its own.
    fn prepare(origin: &Origin) {
        for n in 0..2000 {
            let page = format!(
                "<!DOCTYPE html><title>Links for b{n}</title><a href=\"b{n}-1.0.tar.gz\">b{n}-1.0.tar.gz</a>"
            );
            origin.put(
                &format!("/simple/b{n}/"),
                Resource::new(page).content_type("text/html"),
            );
        }
    }

    fn start(larder: &TestLarder) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let root = larder.artifact("bystander", "simple");
        let slowest = tokio::spawn(async move {
            let client = client();
            let (mut slowest, mut pages) = (Duration::ZERO, 0);
            for n in 0..2000 {
                if stopped.load(Ordering::Acquire) {
                    break;
                }
                let began = Instant::now();
                let answer = try_send(&client, "GET", &format!("{root}/b{n}/"), &[])
                    .await
                    .unwrap();
                assert_eq!(answer.status, 200, "{}", answer.text());
                slowest = slowest.max(began.elapsed());
                pages += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (slowest, pages)
        });
        Self { stop, slowest }
    }

    /// The longest that one page took, and how many there were.
    async fn end(self) -> (Duration, u32) {
        self.stop.store(true, Ordering::Release);
        self.slowest.await.unwrap()
    }
}
