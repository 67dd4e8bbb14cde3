//! kill -9 during uploads (hazards L1, L2): what has been acknowledged is there, whole; what has not is there whole or not at all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_core::sha256;
use tokio::task::JoinHandle;

use crate::support::client::client;
use crate::support::{TestLarder, get};
use crate::{start, try_put};

const WRITERS: u64 = 6;

/// Numbers that look random (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What a writer knows of a path: the last body that was acknowledged, and those that may or may not have got there since, each cut off
/// by a kill.
#[derive(Debug, Clone, Default)]
struct Known {
    acknowledged: Option<(u64, usize)>,
    maybe: Vec<(u64, usize)>,
}

fn body((seed, length): (u64, usize)) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.below(u64::MAX).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

type Paths = Arc<Mutex<BTreeMap<String, Known>>>;

/// Starts the writers, and gives them some time.
async fn write(larder: &TestLarder, paths: &Paths, random: &mut Random) -> Vec<JoinHandle<()>> {
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (base, paths) = (larder.artifact("files", ""), Arc::clone(paths));
            let mut random = Random(random.below(u64::MAX));
            tokio::spawn(async move {
                let client = client();
                loop {
                    // Each writer has paths of its own, some of which it overwrites again and again.
                    let path = format!("w{writer}/{}", random.below(40));
                    let length = 1 << random.below(19);
                    let new = (random.below(u64::MAX), length as usize);
                    paths
                        .lock()
                        .expect("no panic")
                        .entry(path.clone())
                        .or_default()
                        .maybe
                        .push(new);
                    let answer = try_put(&client, &format!("{base}{path}"), body(new), &[]).await;
                    match answer.map(|answer| answer.status) {
                        Ok(200 | 201) => {
                            let mut paths = paths.lock().expect("no panic");
                            paths.insert(
                                path,
                                Known {
                                    acknowledged: Some(new),
                                    maybe: Vec::new(),
                                },
                            );
                        }
                        Ok(status) => panic!("{path}: {status}"),
                        Err(_) => return,
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20 + random.below(150))).await;
    writers
}

async fn check(larder: &TestLarder, paths: &Paths, only: Option<&str>) -> (usize, usize) {
    let (mut whole, mut late) = (0, 0);
    let all = paths.lock().expect("no panic").clone();
    for (path, known) in all
        .iter()
        .filter(|(path, _)| only.is_none_or(|only| path.starts_with(only)))
    {
        let answer = get(&larder.artifact("files", path)).await;
        let is = |what: &(u64, usize)| answer.status == 200 && answer.body == body(*what);
        let found = if known.acknowledged.as_ref().is_some_and(is) {
            whole += 1;
            known.acknowledged
        } else if let Some(written) = known.maybe.iter().find(|what| is(what)) {
            // It was written, and the answer did not get out.
            late += 1;
            Some(*written)
        } else {
            assert!(
                answer.status == 404 && known.acknowledged.is_none(),
                "{path}: an acknowledged upload is lost or torn: {} with {} bytes, digest {}; known: {known:?}",
                answer.status,
                answer.body.len(),
                sha256(&answer.body)
            );
            None
        };
        // What is there now is what any later answer must be, until something else is written.
        let settled = Known {
            acknowledged: found,
            maybe: Vec::new(),
        };
        paths
            .lock()
            .expect("no panic")
            .insert(path.clone(), settled);
    }
    (whole, late)
}

async fn cycles(number: u64) {
    let seed = u64::from(std::process::id());
    eprintln!("{number} cycles, seed {seed}");
    let mut random = Random(seed);
    let mut larder = start().await;
    let paths = Paths::default();
    let (mut whole, mut late) = (0, 0);
    for cycle in 0..number {
        let writing = write(&larder, &paths, &mut random).await;
        larder.kill9();
        for writer in writing {
            writer.await.expect("a writer");
        }
        larder.restart().await;
        let only = format!("w{}/", cycle % WRITERS);
        let (some, more) = check(&larder, &paths, (cycle % 10 != 9).then_some(&only)).await;
        whole += some;
        late += more;
    }
    let (some, more) = check(&larder, &paths, None).await;
    eprintln!(
        "{} paths; looked at {} whole, {} of them written and not acknowledged",
        paths.lock().expect("no panic").len(),
        whole + some,
        late + more
    );
    assert!(some > 0, "nothing was ever acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_l1_l2_kill_nine_during_uploads_loses_nothing_that_was_acknowledged() {
    cycles(10).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; part of make stress"]
async fn hazard_l1_l2_five_hundred_kills_during_uploads() {
    cycles(500).await;
}
