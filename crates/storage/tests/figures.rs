//! What is counted, on both engines: processes add to the same points; and what was asked for and is not held.
#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::sync::Arc;

use larder_core::{Content, UnixMillis};
use larder_storage::{
    AskedFor, BlobStore, Change, FigureRow, Figures, MemoryBlobStore, MetadataStore,
    SINCE_THE_BEGINNING,
};
use support::place::{Place, on_both_engines};
use support::{key, record, repository, store};

/// A different number in each place, so that none is taken for another.
fn figures(times: u64) -> Figures {
    Figures {
        requests: times,
        hits: 2 * times,
        misses: 3 * times,
        stale: 4 * times,
        errors: 5 * times,
        refused: 6 * times,
        served_bytes: 7 * times,
        fetched_bytes: 8 * times,
    }
}

fn row(at: i64, times: u64, stored: Option<u64>) -> FigureRow {
    FigureRow {
        at: UnixMillis(at),
        figures: figures(times),
        stored,
        free: stored.map(|bytes| bytes * 2),
        began_at: UnixMillis(0),
    }
}

async fn add(meta: &MetadataStore, name: &str, step: i64, row: FigureRow, now: i64) {
    let rows = [(name.to_owned(), step, row)];
    meta.add_figures(&rows, UnixMillis(now)).await.unwrap();
}

async fn processes_add_to_the_same_points(place: Place) {
    let (one, other) = (place.open().await, place.open().await);
    let adding = |meta: MetadataStore| async move {
        for n in 0..20 {
            let at = 300_000 * (n % 2);
            let rows = [
                ("files".to_owned(), 300, row(at, 1, None)),
                (String::new(), 300, row(at, 1, None)),
                (String::new(), SINCE_THE_BEGINNING, row(0, 1, None)),
            ];
            meta.add_figures(&rows, UnixMillis(5 + n)).await.unwrap();
        }
    };
    let here = tokio::spawn(adding(one.clone()));
    let there = tokio::spawn(adding(other.clone()));
    here.await.unwrap();
    there.await.unwrap();
    for meta in [&one, &other] {
        let seen = meta.figures("files", 300, UnixMillis(0)).await.unwrap();
        let seen: Vec<_> = seen.iter().map(|row| (row.at.0, row.figures)).collect();
        assert_eq!(seen, [(0, figures(20)), (300_000, figures(20))]);
        let total = meta.figures("", SINCE_THE_BEGINNING, UnixMillis(0));
        let total = total.await.unwrap();
        assert_eq!((total.len(), total[0].figures), (1, figures(40)));
        assert_eq!(total[0].began_at, UnixMillis(5), "the first time");
    }
}

async fn the_last_sizes_stay_and_old_points_go(place: Place) {
    let meta = place.open().await;
    add(&meta, "a", 300, row(300_000, 1, Some(10)), 1).await;
    add(&meta, "a", 300, row(300_000, 1, Some(20)), 2).await;
    add(&meta, "a", 300, row(300_000, 1, None), 3).await;
    // Numbers sort as numbers, whatever their digits.
    add(&meta, "a", 300, row(9_900_000, 1, None), 4).await;
    add(&meta, "a", 7_200, row(7_200_000, 9, None), 4).await;
    let seen = meta.figures("a", 300, UnixMillis(300_000)).await.unwrap();
    let seen: Vec<_> = seen
        .iter()
        .map(|row| (row.at.0, row.figures, row.stored, row.free))
        .collect();
    let expected = [
        (300_000, figures(3), Some(20), Some(40)),
        (9_900_000, figures(1), None, None),
    ];
    assert_eq!(seen, expected);
    let later = meta.figures("a", 300, UnixMillis(300_001)).await.unwrap();
    assert_eq!(later.len(), 1);
    meta.forget_figures(300, UnixMillis(9_900_000))
        .await
        .unwrap();
    for (step, at) in [(300, 9_900_000), (7_200, 7_200_000)] {
        let left = meta.figures("a", step, UnixMillis(0)).await.unwrap();
        let left: Vec<_> = left.iter().map(|row| row.at.0).collect();
        assert_eq!(left, [at]);
    }
}

/// Asked for so often at one moment.
fn at(path: &'static str, requests: u64, moment: i64, why: &'static str) -> AskedFor<'static> {
    AskedFor {
        path,
        variant: "",
        requests,
        first_at: UnixMillis(moment),
        last_at: UnixMillis(moment),
        why,
    }
}

async fn asked(meta: &MetadataStore, since: i64) -> Vec<(String, u64, i64, i64, String)> {
    let rows = meta.asked("files", UnixMillis(since), 99).await.unwrap();
    rows.into_iter()
        .map(|row| {
            (
                row.path,
                row.requests,
                row.first_at.0,
                row.last_at.0,
                row.why,
            )
        })
        .collect()
}

async fn what_is_held_is_not_missing(place: Place) {
    let meta = place.open().await;
    let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
    store(&meta, &blobs, &key("files", "held"), b"bytes").await;
    store(&meta, &blobs, &key("other", "gone"), b"of another").await;
    let pointer = Change::PutRecord {
        key: key("files", "tag"),
        record: record(Content::Pointer("held".to_owned())),
        blob: None,
    };
    meta.apply(vec![pointer]).await.unwrap();
    let first = [
        at("held", 5, 10, "not_kept"),
        AskedFor {
            first_at: UnixMillis(4),
            ..at("gone", 2, 12, "absent")
        },
        at("tag", 1, 11, "not_kept"),
    ];
    meta.add_asked("files", &first, 99).await.unwrap();
    // An older time does not replace a later one.
    let more = [at("gone", 3, 9, "failed")];
    meta.add_asked("files", &more, 99).await.unwrap();
    let of = |path: &str, requests, first, last, why: &str| {
        (path.to_owned(), requests, first, last, why.to_owned())
    };
    let (gone, tag) = (
        of("gone", 5, 4, 12, "failed"),
        of("tag", 1, 11, 11, "not_kept"),
    );
    assert_eq!(asked(&meta, 0).await, [gone.clone(), tag.clone()]);
    let rows = meta.asked("files", UnixMillis(0), 99).await.unwrap();
    assert!(rows[0].record.is_none());
    let known = rows[1].record.as_ref().unwrap();
    assert!(matches!(known.content, Content::Pointer(_)));
    // What arrives later is missing no longer, and is again once it is dropped.
    store(&meta, &blobs, &key("files", "gone"), b"there").await;
    assert_eq!(asked(&meta, 0).await, std::slice::from_ref(&tag));
    let drop = Change::InvalidateRepository {
        repository: repository("files"),
    };
    meta.apply(vec![drop]).await.unwrap();
    assert_eq!(asked(&meta, 0).await, [gone.clone(), tag]);
    assert_eq!(asked(&meta, 12).await, [gone]);
    meta.forget_asked(UnixMillis(13)).await.unwrap();
    assert_eq!(asked(&meta, 0).await, []);
}

async fn of_each_repository_the_last_ones_are_remembered(place: Place) {
    let meta = place.open().await;
    let names: Vec<String> = (0..30).map(|n| format!("p{n:02}")).collect();
    let rows: Vec<AskedFor<'_>> = names
        .iter()
        .zip(100..)
        .map(|(name, moment)| AskedFor {
            path: name,
            ..at("", 1, moment, "failed")
        })
        .collect();
    meta.add_asked("files", &rows, 10).await.unwrap();
    meta.add_asked("other", &rows[..3], 10).await.unwrap();
    let left: Vec<String> = asked(&meta, 0).await.into_iter().map(|row| row.0).collect();
    let expected: Vec<String> = names.iter().rev().take(10).cloned().collect();
    assert_eq!(left, expected);
    assert_eq!(
        meta.asked("other", UnixMillis(0), 99).await.unwrap().len(),
        3
    );
}

on_both_engines!(
    processes_add_to_the_same_points,
    the_last_sizes_stay_and_old_points_go,
    what_is_held_is_not_missing,
    of_each_repository_the_last_ones_are_remembered,
);
