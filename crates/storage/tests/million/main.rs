//! Many records: what is done to them at once, and the plans of the statements that look for some of them.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program: its helpers panic to report"
)]

mod filled;
mod plans;
mod statements;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::{Content, UnixMillis};
use larder_storage::{
    BlobStore, Change, Expected, Heard, KeyRange, MemoryBlobStore, MetadataStore, Notice, Receipt,
    RecordKey, RecordUse, Swept, Unswept, Usage, Writer,
};

use filled::{REPOSITORY, fill, path};
use support::place::{Place, on_both_engines};
use support::{key, put, record, repository, store};

fn blobs() -> Arc<dyn BlobStore> {
    Arc::new(MemoryBlobStore::new())
}

fn keys(paths: &[&str]) -> Vec<RecordKey> {
    let keys = paths.iter().map(|path| ((*path).to_owned(), String::new()));
    keys.collect()
}

fn all_of(name: &str) -> Change {
    Change::InvalidateRepository {
        repository: repository(name),
    }
}

fn some_of(name: &str, paths: &[&str]) -> Change {
    Change::InvalidateRecords {
        repository: repository(name),
        keys: keys(paths),
    }
}

async fn has(meta: &MetadataStore, name: &str, path: &str) -> bool {
    meta.record(&key(name, path)).await.unwrap().is_some()
}

/// Deletes the rows of invalid records, and what only they referred to.
async fn swept(meta: &MetadataStore, blobs: &Arc<dyn BlobStore>) -> Swept {
    let mut sweep = meta.sweep_invalid(blobs);
    let mut swept = Swept::default();
    while let Some(few) = sweep.next().await.unwrap() {
        swept.add(few);
    }
    swept
}

/// Rows of the table, those of invalid records included.
async fn rows(place: &Place) -> u64 {
    place.run("UPDATE artifacts SET updated_at = 0").await
}

/// Whoever has the database open sees no invalid record from the commit on, whatever it asks for.
async fn hazard_l4_an_invalid_record_is_nobodys(place: Place) {
    let (meta, other, blobs) = (place.open().await, place.open().await, blobs());
    for path in ["a", "b", "c", "d"] {
        store(&meta, &blobs, &key("r", path), path.as_bytes()).await;
    }
    store(&meta, &blobs, &key("s", "a"), b"of another repository").await;
    let changes = [
        (some_of("r", &["b", "c", "never there"]), vec!["a", "d"]),
        (all_of("r"), vec![]),
    ];
    for (change, left) in changes {
        meta.apply(vec![change]).await.unwrap();
        for store in [&meta, &other] {
            for path in ["a", "b", "c", "d"] {
                assert_eq!(has(store, "r", path).await, left.contains(&path), "{path}");
            }
            let name = repository("r");
            let paths = |rows: Vec<(String, String, _)>| -> Vec<String> {
                rows.into_iter().map(|(path, ..)| path).collect()
            };
            assert_eq!(paths(store.rows(&name, None, 10).await.unwrap()), left);
            let range = KeyRange::of_prefix("");
            let held = store.held_rows(&name, &range, 10).await.unwrap();
            let held = held.into_iter().filter(|row| row.record.is_some());
            assert_eq!(held.map(|row| row.path).collect::<Vec<_>>(), left);
            let unswept = store.unswept(&name).await.unwrap();
            let expected = if left.is_empty() {
                Unswept::All
            } else {
                Unswept::Single
            };
            assert_eq!(unswept, expected);
            for limit in [1, 2, 10] {
                let mut range = range.clone();
                let mut valid = Vec::new();
                loop {
                    let page = store.record_keys(&name, &range, limit, unswept);
                    let page = page.await.unwrap();
                    let Some(last) = page.last() else { break };
                    range = range.behind(last);
                    valid.extend(page);
                }
                assert_eq!(valid, keys(&left));
            }
            let variants = store.variants(&name, "b").await.unwrap();
            assert_eq!(variants.len(), usize::from(left.contains(&"b")));
            let sizes = store.held_sizes().await.unwrap();
            let files = |name: &str| {
                let size = sizes.iter().find(|size| size.repository == name);
                size.map_or(0, |size| size.files)
            };
            assert_eq!((files("r"), files("s")), (left.len() as u64, 1));
            assert!(has(store, "s", "a").await, "another repository's");
        }
    }
    assert_eq!(rows(&place).await, 5, "no row was touched");
    let (one, two) = tokio::join!(swept(&meta, &blobs), swept(&other, &blobs));
    assert_eq!(one.rows + two.rows, 4);
    assert_eq!(rows(&place).await, 1);
    let unswept = meta.unswept(&repository("r")).await.unwrap();
    assert_eq!(unswept, Unswept::Nothing);
    assert_eq!(swept(&meta, &blobs).await, Swept::default());
    assert!(has(&meta, "s", "a").await);
}

/// What is fetched again after a flush is valid, and the sweep leaves it.
async fn what_is_written_anew_is_valid(place: Place) {
    let (meta, blobs) = (place.open().await, blobs());
    for path in ["a", "b", "c"] {
        store(&meta, &blobs, &key("r", path), b"before").await;
    }
    for change in [some_of("r", &["a", "b"]), all_of("r")] {
        meta.apply(vec![change]).await.unwrap();
        let anew = store(&meta, &blobs, &key("r", "a"), b"anew").await;
        let found = meta.record(&key("r", "a")).await.unwrap().unwrap();
        assert_eq!(found.blob(), Some(&anew));
        assert!(!has(&meta, "r", "b").await);
    }
    // It is still invalid once more.
    meta.apply(vec![some_of("r", &["a"])]).await.unwrap();
    assert!(!has(&meta, "r", "a").await);
    store(&meta, &blobs, &key("r", "a"), b"and again").await;
    assert_eq!(swept(&meta, &blobs).await.rows, 2, "b and c");
    assert!(has(&meta, "r", "a").await);
    assert_eq!(rows(&place).await, 1);
    // New ones of a repository that was flushed before, and of one that never was.
    store(&meta, &blobs, &key("r", "new"), b"new").await;
    store(&meta, &blobs, &key("t", "new"), b"new").await;
    assert!(has(&meta, "r", "new").await && has(&meta, "t", "new").await);
}

/// News of bytes that were flushed brings them back no more than those of bytes that were deleted.
async fn hazard_l2_news_of_an_invalid_record_is_left_out(place: Place) {
    let (meta, blobs) = (place.open().await, blobs());
    let flushed = key("r", "a");
    let blob = store(&meta, &blobs, &flushed, b"bytes").await;
    for change in [some_of("r", &["a"]), all_of("r")] {
        store(&meta, &blobs, &flushed, b"bytes").await;
        let held = meta.record(&flushed).await.unwrap().unwrap();
        meta.apply(vec![change]).await.unwrap();
        let renewal = Change::If {
            expected: Expected::Bytes(vec![blob.digest.clone()]),
            change: Box::new(Change::PutRecord {
                key: flushed.clone(),
                record: held,
                blob: None,
            }),
        };
        let told = meta.apply_by(Writer::unique(), vec![renewal], Vec::new());
        let left = vec![flushed.clone()];
        assert_eq!(told.await.unwrap(), Receipt { left });
        assert!(!has(&meta, "r", "a").await);
        // New bytes replace it, and its row.
        let info = blobs.put_bytes(b"newer").await.unwrap();
        let newer = Change::If {
            expected: Expected::NotLater {
                heard_of: UnixMillis(0),
                but: Vec::new(),
            },
            change: Box::new(put(&flushed, info)),
        };
        let told = meta.apply_by(Writer::unique(), vec![newer], Vec::new());
        assert_eq!(told.await.unwrap(), Receipt::default());
        assert!(has(&meta, "r", "a").await);
    }
}

/// One notice tells of any number of records, and deletion by key takes exactly those.
async fn many_records_are_told_of_at_once(place: Place) {
    let (meta, blobs) = (place.open().await, blobs());
    meta.share();
    let listener = place.open().await.listen(Writer::unique());
    let odd = ["a", "a'b", "a\"b", "a\\b", "ä/[\"x\"]", "a?b=c&d", "$1"];
    for path in odd {
        store(&meta, &blobs, &key("r", path), b"x").await;
    }
    let mut variant = key("r", "a");
    variant.variant = "json".into();
    store(&meta, &blobs, &variant, b"y").await;
    listener.poll().await.unwrap();
    let delete = |paths: &[&str]| Change::DeleteRecords {
        repository: repository("r"),
        keys: keys(paths),
    };
    let told = vec![Notice::Records(repository("r"))];
    for (change, left) in [
        (delete(&odd[..3]), 5),
        (some_of("r", &odd[3..5]), 3),
        (all_of("r"), 0),
    ] {
        meta.apply(vec![change]).await.unwrap();
        assert_eq!(listener.poll().await.unwrap(), Heard::Notices(told.clone()));
        let range = KeyRange::of_prefix("");
        let name = repository("r");
        let unswept = meta.unswept(&name).await.unwrap();
        let keys = meta.record_keys(&name, &range, 100, unswept).await;
        assert_eq!(keys.unwrap().len(), left);
    }
    swept(&meta, &blobs).await;
    assert_eq!(listener.poll().await.unwrap(), Heard::Notices(Vec::new()));
    assert_eq!(rows(&place).await, 0);
}

async fn keys_are_read_by_range_and_page_by_page(place: Place) {
    let meta = place.open().await;
    let name = repository("r");
    let mut expected = Vec::new();
    for path in ["a", "pool/a", "pool/b", "pool/é", "pool0", "z"] {
        for variant in ["", "json"] {
            let mut key = key("r", path);
            key.variant = variant.into();
            let record = record(Content::HeadOnly);
            let put = Change::PutRecord {
                key,
                record,
                blob: None,
            };
            meta.apply(vec![put]).await.unwrap();
            expected.push((path.to_owned(), variant.to_owned()));
        }
    }
    for (prefix, expected) in [
        ("", &expected[..]),
        ("pool/", &expected[2..8]),
        ("pool", &expected[2..10]),
        ("zz", &[]),
    ] {
        for limit in [1, 3, 100] {
            let mut range = KeyRange::of_prefix(prefix);
            let mut found = Vec::new();
            loop {
                let page = meta.record_keys(&name, &range, limit, Unswept::Nothing);
                let page = page.await.unwrap();
                let Some(last) = page.last() else { break };
                range = range.behind(last);
                found.extend(page);
            }
            assert_eq!(found, expected, "{prefix} {limit}");
        }
    }
}

/// What was used is found row by row: going through the repository for each of a list takes minutes, and holds the only writer.
async fn what_was_used_is_written_down_in_a_large_repository(place: Place) {
    place.open().await.close().await;
    fill(&place, 50_000).await;
    let meta = place.open().await;
    let uses: Vec<RecordUse> = (0..20_000)
        .map(|number| RecordUse {
            key: (path(number), String::new()),
            at: UnixMillis(1 << 40),
            served: 2,
        })
        .collect();
    let since = Instant::now();
    for uses in uses.chunks(500) {
        meta.note_used(&repository(REPOSITORY), false, uses, UnixMillis(1 << 40))
            .await
            .unwrap();
    }
    let took = since.elapsed();
    println!("20,000 uses among 50,000 records in {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    let usage = meta.usage(&repository(REPOSITORY), &path(7), "").await;
    assert_eq!(usage.unwrap().served, 2);
    meta.close().await;
}

/// Of tests whose times are small.
const NOW: UnixMillis = UnixMillis(100);

/// The order in which records go, as it is written down and read page by page.
async fn those_used_least_go_first(place: Place) {
    let (meta, blobs) = (place.open().await, blobs());
    for path in ["a", "b", "c", "d"] {
        store(&meta, &blobs, &key("r", path), path.as_bytes()).await;
    }
    store(&meta, &blobs, &key("s", "a"), b"of another repository").await;
    let used = |path: &str, at| RecordUse {
        key: (path.to_owned(), String::new()),
        at: UnixMillis(at),
        served: 2,
    };
    let uses = [used("a", 50), used("b", 40), used("c", 2), used("gone", 60)];
    meta.note_used(&repository("r"), false, &uses, NOW)
        .await
        .unwrap();
    // An earlier time is no news. Each has been used when it was written, at 3.
    meta.note_used(&repository("r"), false, &[used("a", 45)], NOW)
        .await
        .unwrap();
    // Each time it was served counts, and bytes that are written anew leave the count.
    let usage = async |path| meta.usage(&repository("r"), path, "").await.unwrap();
    store(&meta, &blobs, &key("r", "a"), b"A").await;
    assert_eq!(
        (usage("a").await.served, usage("a").await.used_at),
        (4, Some(UnixMillis(50)))
    );
    assert_eq!((usage("b").await.served, usage("d").await.served), (2, 0));
    assert_eq!(usage("gone").await, Usage::default());
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = meta.least_used("r", after.as_ref(), 1).await.unwrap();
        let Some(row) = page.into_iter().next() else {
            break;
        };
        found.push((row.key.0.clone(), row.used_at.0, row.size));
        after = Some(row);
    }
    let row = |path: &str, at| (path.to_owned(), at, 1);
    assert_eq!(
        found,
        [row("c", 3), row("d", 3), row("b", 40), row("a", 50)]
    );
    let expires = |path: &str, at| Change::Expires {
        key: key("r", path),
        at: UnixMillis(at),
    };
    let changes = vec![expires("a", 10), expires("b", 30), expires("d", 20)];
    meta.apply(changes).await.unwrap();
    let expired = |now, unused| meta.expired("r", UnixMillis(now), UnixMillis(unused), 10);
    let paths = |rows: Vec<larder_storage::UsedRow>| -> Vec<String> {
        rows.into_iter().map(|row| row.key.0).collect()
    };
    assert_eq!(paths(expired(31, 100).await.unwrap()), ["a", "d", "b"]);
    assert_eq!(
        paths(expired(30, 50).await.unwrap()),
        ["d"],
        "a was used since"
    );
}

/// What dropped records leave goes without a grace, unless something else refers to it.
async fn what_deleted_records_leave_is_due_at_once(place: Place) {
    let (meta, blobs) = (place.open().await, blobs());
    let alone = store(&meta, &blobs, &key("r", "alone"), b"alone").await;
    let shared = store(&meta, &blobs, &key("r", "shared"), b"shared").await;
    store(&meta, &blobs, &key("s", "shared"), b"shared").await;
    let info = blobs.put_bytes(b"made of it").await.unwrap();
    let derived = info.descriptor.clone();
    let derivation = Change::PutDerivation {
        key: "d".to_owned(),
        repository: repository("r"),
        sources: vec![alone.digest.clone()],
        derived: larder_storage::DerivedRecord {
            blob: derived.clone(),
            content_type: "text/html".to_owned(),
            made_at: UnixMillis(1),
        },
        blob: info,
    };
    meta.apply(vec![derivation]).await.unwrap();
    assert_eq!(meta.cached_bytes().await.unwrap(), 21);
    assert_eq!(meta.free_due(UnixMillis(1), &blobs).await.unwrap(), (0, 0));
    let change = Change::DeleteRecords {
        repository: repository("r"),
        keys: keys(&["alone", "shared"]),
    };
    meta.apply(vec![change]).await.unwrap();
    let freed = meta.free_due(UnixMillis(1), &blobs).await.unwrap();
    assert_eq!(freed, (2, 15), "the file and what was made of it");
    assert!(blobs.open(&alone).await.is_err() && blobs.open(&derived).await.is_err());
    assert!(blobs.open(&shared).await.is_ok(), "another record has it");
    assert_eq!(meta.cached_bytes().await.unwrap(), 6);
    // The same of records that were invalidated, when their rows are swept.
    meta.apply(vec![all_of("s")]).await.unwrap();
    let (rows, files, bytes) = (1, 1, 6);
    assert_eq!(swept(&meta, &blobs).await, Swept { rows, files, bytes });
    // What was replaced keeps its grace, until room is needed.
    store(&meta, &blobs, &key("r", "x"), b"before").await;
    store(&meta, &blobs, &key("r", "x"), b"after").await;
    assert_eq!(meta.free_due(UnixMillis(1), &blobs).await.unwrap(), (0, 0));
    let until = Instant::now() + Duration::from_mins(1);
    let superseded = meta.free_superseded(true, UnixMillis(1), &blobs, until);
    let superseded = superseded.await;
    assert_eq!(superseded.unwrap(), (1, 6));
}

/// A clock that ran a month ahead has been set right; another replica's is seconds ahead.
async fn what_was_used_in_the_future_is_used_now(place: Place) {
    let (meta, blobs) = (place.open().await, blobs());
    let (now, month) = (UnixMillis(1 << 40), UnixMillis((1 << 40) + 30 * 86_400_000));
    let soon = UnixMillis(now.0 + 5_000);
    for number in 0..1_200 {
        store(&meta, &blobs, &key("r", &path(number)), b"bytes").await;
    }
    let used = |number, at| RecordUse {
        key: (path(number), String::new()),
        at,
        served: 1,
    };
    let ahead: Vec<RecordUse> = (0..1_100).map(|number| used(number, month)).collect();
    meta.note_used(&repository("r"), false, &ahead, month)
        .await
        .unwrap();
    let near = [used(1_100, soon)];
    meta.note_used(&repository("r"), false, &near, now)
        .await
        .unwrap();
    assert_eq!(meta.correct_uses("r", now).await.unwrap(), 1_100);
    let at = async |number| {
        let usage = meta.usage(&repository("r"), &path(number), "").await;
        usage.unwrap().used_at
    };
    assert_eq!((at(0).await, at(1_099).await), (Some(now), Some(now)));
    assert_eq!(at(1_100).await, Some(soon));
    assert_eq!(at(1_101).await, Some(UnixMillis(3)), "as it was written");
    assert_eq!(meta.correct_uses("r", now).await.unwrap(), 0);
    // The next use corrects it as well, of uploaded files, too, which nobody looks through.
    meta.note_used(&repository("r"), false, &[used(7, month)], month)
        .await
        .unwrap();
    let later = UnixMillis(now.0 + 60_000);
    meta.note_used(&repository("r"), false, &[used(7, later)], later)
        .await
        .unwrap();
    assert_eq!(at(7).await, Some(later));
}

on_both_engines!(
    those_used_least_go_first,
    what_was_used_in_the_future_is_used_now,
    what_was_used_is_written_down_in_a_large_repository,
    what_deleted_records_leave_is_due_at_once,
    hazard_l4_an_invalid_record_is_nobodys,
    what_is_written_anew_is_valid,
    hazard_l2_news_of_an_invalid_record_is_left_out,
    many_records_are_told_of_at_once,
    keys_are_read_by_range_and_page_by_page,
    a_hundred_thousand_are_invalid_at_once,
    ten_thousand_are_swept_beside_those_who_write,
);

async fn a_hundred_thousand_are_invalid_at_once(place: Place) {
    invalidate(&place, 100_000).await;
}

async fn ten_thousand_are_swept_beside_those_who_write(place: Place) {
    let meta = invalidate(&place, 10_000).await;
    sweep(&place, &meta, 10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "a million records"]
async fn a_million_are_invalid_at_once_on_sqlite() {
    let place = Place::sqlite();
    let meta = invalidate(&place, 1_000_000).await;
    sweep(&place, &meta, 1_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "a million records"]
async fn a_million_are_invalid_at_once_on_postgresql() {
    let place = Place::postgres();
    let meta = invalidate(&place, 1_000_000).await;
    sweep(&place, &meta, 1_000_000).await;
}

/// Reads the keys of many records, and makes a tenth of them invalid, and then all.
async fn invalidate(place: &Place, records: u32) -> MetadataStore {
    let meta = place.open().await;
    let since = Instant::now();
    fill(place, records).await;
    println!("{records} records made in {:?}", since.elapsed());
    let name = repository(REPOSITORY);
    let since = Instant::now();
    let mut range = KeyRange::of_prefix("");
    let mut count = 0;
    loop {
        let page = meta.record_keys(&name, &range, 4_000, Unswept::Nothing);
        let page = page.await.unwrap();
        let Some(last) = page.last() else { break };
        range = range.behind(last);
        count += page.len();
    }
    println!("{count} keys read in {:?}", since.elapsed());
    assert_eq!(count, records as usize);
    let since = Instant::now();
    // Wherever they lie.
    let mut tenth: Vec<RecordKey> = (0..records)
        .filter(|i| i / 10 % 10 == 3)
        .map(|i| (path(i), String::new()))
        .collect();
    tenth.sort_unstable();
    for keys in tenth.chunks(5_000) {
        let keys = keys.to_vec();
        let repository = name.clone();
        let change = Change::InvalidateRecords { repository, keys };
        meta.apply(vec![change]).await.unwrap();
    }
    println!("a tenth invalid in {:?}", since.elapsed());
    assert!(!has(&meta, REPOSITORY, &path(37)).await);
    assert!(has(&meta, REPOSITORY, &path(7)).await);
    let since = Instant::now();
    meta.apply(vec![all_of(REPOSITORY)]).await.unwrap();
    println!("all invalid in {:?}", since.elapsed());
    assert!(!has(&meta, REPOSITORY, &path(7)).await);
    meta
}

/// Deletes them; who writes meanwhile waits for no more than a few rows.
async fn sweep(place: &Place, meta: &MetadataStore, records: u32) {
    let blobs = blobs();
    let since = Instant::now();
    let sweeping = tokio::spawn({
        let meta = meta.clone();
        let blobs = Arc::clone(&blobs);
        async move { swept(&meta, &blobs).await.rows }
    });
    let (mut longest, mut written) = (Duration::ZERO, 0);
    while !sweeping.is_finished() {
        let since = Instant::now();
        store(meta, &blobs, &key(REPOSITORY, &path(written)), b"anew").await;
        longest = longest.max(since.elapsed());
        written += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let swept = sweeping.await.unwrap();
    println!(
        "swept in {:?}; {written} written meanwhile, in {longest:?} at most",
        since.elapsed()
    );
    // Rows that were written anew in time were no longer there to be deleted.
    assert!(swept <= u64::from(records) && swept + u64::from(written) >= u64::from(records));
    assert_eq!(rows(place).await, u64::from(written));
    // On a busy machine, where each of these has a share of a processor only.
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}
