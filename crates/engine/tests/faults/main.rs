//! Random faults of the upstream, random clients, and an oracle: no wrong body ever ends well, and nothing wrong is kept.
//!
//! `LARDER_FAULT_RUNS` sets the number of cases, `LARDER_FAULT_SEED` the seed, `LARDER_FAULT_ONLY` the one case to run, as a failure
//! names it. A case is a function of seed and number; only the timing differs from run to run.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test program: its helpers panic to report"
)]

mod case;
mod chance;
mod oracle;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_core::Revalidate;
use support::{Bench, upstream};

use case::Case;

/// What `cargo test` runs in about a minute.
const RUNS: u64 = 1500;
const SEED: u64 = 0x001a_2d0e_2001;
/// Cases that run side by side, each lane in its own engine with one case after the other.
const LANES: u64 = 8;

fn number(name: &str) -> Option<u64> {
    std::env::var_os(name).map(|text| {
        text.to_str()
            .and_then(|text| text.parse().ok())
            .expect("a number")
    })
}

#[test]
fn whatever_the_upstream_does_no_wrong_body_ends_well_and_nothing_wrong_is_kept() {
    let runs = number("LARDER_FAULT_RUNS").unwrap_or(RUNS);
    run(runs);
}

/// `make stress`.
#[test]
#[ignore = "takes some minutes; part of `make stress`"]
fn ten_thousand_fault_runs() {
    run(number("LARDER_FAULT_RUNS").unwrap_or(10_000));
}

fn run(runs: u64) {
    let seed = number("LARDER_FAULT_SEED").unwrap_or(SEED);
    let only = number("LARDER_FAULT_ONLY");
    let began = Instant::now();
    let done = Arc::new(AtomicU64::new(0));
    let well = Arc::new(AtomicU64::new(0));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut lanes = tokio::task::JoinSet::new();
        for lane in 0..LANES {
            let (done, well) = (Arc::clone(&done), Arc::clone(&well));
            lanes.spawn(async move {
                let bench = bench(lane).await;
                for number in (lane..runs).step_by(LANES as usize).filter(|number| only.is_none_or(|only| only == *number)) {
                    let case = Case::new(seed, number);
                    let told = format!("{case:#?}");
                    let outcome = tokio::spawn({
                        let bench = Arc::clone(&bench);
                        async move { case.run(&bench).await }
                    });
                    match tokio::time::timeout(Duration::from_secs(60), outcome).await {
                        Ok(Ok(ended_well)) => drop(well.fetch_add(ended_well, Ordering::Relaxed)),
                        Ok(Err(failed)) => panic!("LARDER_FAULT_ONLY={number} LARDER_FAULT_SEED={seed}: {failed}\n{told}"),
                        Err(elapsed) => panic!("LARDER_FAULT_ONLY={number} LARDER_FAULT_SEED={seed} hangs: {elapsed}\n{told}"),
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while let Some(lane) = lanes.join_next().await {
            if let Err(failed) = lane {
                std::panic::resume_unwind(failed.into_panic());
            }
        }
    });
    let (done, well) = (done.load(Ordering::Relaxed), well.load(Ordering::Relaxed));
    println!(
        "{done} fault runs in {:?}: {well} bodies ended well, all of them right; nothing wrong was kept",
        began.elapsed()
    );
    assert!(
        only.is_some() || done == runs && well > runs,
        "faults everywhere, and still most clients get what they want"
    );
}

/// Lanes differ in how expired files are brought up to date.
async fn bench(lane: u64) -> Arc<Bench> {
    let bench = Bench::with(|r| {
        upstream(r).read_timeout = Duration::from_millis(1000);
        if lane % 2 == 1 {
            r.cache.immutable_ttl = Some(Duration::from_secs(100));
        }
        r.cache.revalidate =
            [None, Some(Revalidate::Head), Some(Revalidate::Get)][lane as usize % 3];
        if lane % 4 == 3 {
            r.cache.stale_on_status = vec![429, 500, 502, 503, 504];
        }
    });
    Arc::new(bench.await)
}
