//! What goes when the disk's bound is passed, chosen among many.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{MILLION, Scene, WARM};
use crate::support::{PATIENCE, get};

/// The number of the first victim.
pub(crate) const FIRST: u32 = 5;
/// How long each of them is. All others together are less than eight of these.
pub(crate) const LENGTH: u64 = 1 << 20;
/// How many there are.
const VICTIMS: u32 = 1_000;
/// Together with the short ones they are far beyond it; those alone are not.
const BOUND: &str = "limits: { disk: 8MiB }\n";
/// What a hit may take, but for the longest of a hundred: the machine has other things to do.
const HIT: Duration = Duration::from_millis(50);

/// The files of the victims, with no bytes in them.
fn files(scene: &Scene) -> Vec<PathBuf> {
    let root = scene.larder.blob_dir().join("sha256");
    let numbers = (0..scene.records).filter(|i| i % scene.victims == FIRST);
    let paths = numbers.map(|i| {
        let scattered = (u64::from(i) * 2_654_435_761) % 4_294_967_296;
        let digits = format!("{scattered:08x}{i:056x}");
        root.join(&digits[..2]).join(&digits[2..4]).join(&digits)
    });
    paths.collect()
}

/// Times of hits of a held file, one after the other, until it is told to end.
fn hits(url: String, until: Arc<AtomicBool>) -> tokio::task::JoinHandle<Vec<Duration>> {
    tokio::spawn(async move {
        let mut times = Vec::new();
        while !until.load(Ordering::Acquire) {
            let since = Instant::now();
            let answer = get(&url).await;
            times.push(since.elapsed());
            assert_eq!((answer.status, answer.source()), (200, "cache"));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        times.sort_unstable();
        times
    })
}

/// A thousand victims go, which were used longest ago, while somebody else reads.
async fn evict(on_postgres: bool, records: u32) {
    let scene = Scene::with(on_postgres, records, records / VICTIMS, BOUND).await;
    let mut scene = scene;
    let victims = files(&scene);
    assert_eq!(victims.len(), VICTIMS as usize);
    scene.larder.terminate();
    for path in &victims {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let file = std::fs::File::create(path).expect("a file");
        file.set_len(LENGTH).expect("a length");
    }
    scene.fill().await;
    scene.larder.restart().await;
    let done = Arc::new(AtomicBool::new(false));
    let hits = hits(scene.larder.artifact("other", WARM[0]), Arc::clone(&done));
    let since = Instant::now();
    let mut begun = None;
    let evicted = loop {
        let evicted = scene.larder.metric("larder_evicted_files_total", "").await;
        if evicted > 0.0 && begun.is_none() {
            begun = Some(Instant::now());
        }
        // All but what fits.
        if evicted >= f64::from(VICTIMS) - 8.0 {
            break evicted;
        }
        assert!(since.elapsed() < PATIENCE * 4, "{}", scene.larder.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let took = begun.map(|begun| begun.elapsed()).unwrap_or_default();
    scene.larder.logged("room was made").await;
    done.store(true, Ordering::Release);
    let times = hits.await.expect("hits");
    let (typical, most) = (times[times.len() * 99 / 100], times.last().expect("some"));
    println!(
        "{evicted} of {records} evicted in {took:?}; of {} hits meanwhile 99 % took {typical:?}, and the longest {most:?}",
        times.len()
    );
    assert!(
        evicted <= f64::from(VICTIMS),
        "{evicted}: none of the others"
    );
    let left = victims.iter().filter(|path| path.exists()).count();
    assert!(left <= 8, "{left} files are still there");
    for path in WARM {
        let answer = get(&scene.larder.artifact("files", path)).await;
        assert_eq!((answer.status, answer.source()), (200, "cache"), "{path}");
    }
    // Tests that run beside this one take their share, too; the long one runs alone.
    let (bound, longest) = if records == MILLION {
        (HIT, HIT * 3)
    } else {
        (HIT * 10, HIT * 100)
    };
    assert!(typical < bound && *most < longest, "{typical:?}, {most:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_of_thirty_thousand_are_evicted_on_sqlite() {
    evict(false, 30_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_of_thirty_thousand_are_evicted_on_postgresql() {
    evict(true, 30_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a million records"]
async fn a_thousand_of_a_million_are_evicted_on_sqlite() {
    evict(false, MILLION).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a million records"]
async fn a_thousand_of_a_million_are_evicted_on_postgresql() {
    evict(true, MILLION).await;
}
