//! What an engine keeps of its own past, and what it says of its present.
#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use larder_core::{ErrorCode, Pattern, RepositoryName, UnixMillis};
use larder_engine::{Engine, Figures, FlushRequest, Outage, Span, TrafficSource};
use larder_storage::{AskedFor, MetadataStore, PostgresOptions, RecordUse, TlsMode};
use larder_testkit::Resource;
use larder_testkit::servers::postgres::{PASSWORD, Postgres, USER};
use support::{Bench, START, eventually};

/// A server that has counted this.
#[derive(Debug, Default)]
struct Counted(Mutex<Vec<(String, Figures)>>);

impl TrafficSource for Counted {
    fn traffic(&self) -> Vec<(String, Figures)> {
        self.0.lock().unwrap().clone()
    }
}

impl Counted {
    fn of(engine: &Engine) -> Arc<Self> {
        let counted = Arc::<Self>::default();
        engine.ledger().counted_by(Arc::clone(&counted) as _);
        counted
    }

    fn stand_at(&self, all: &[(&str, u64)]) {
        let all = all
            .iter()
            .map(|(name, n)| ((*name).to_owned(), figures(*n)));
        *self.0.lock().unwrap() = all.collect();
    }
}

fn figures(times: u64) -> Figures {
    Figures {
        requests: 10 * times,
        hits: 6 * times,
        misses: 3 * times,
        stale: times,
        errors: times,
        refused: times,
        served_bytes: 1_000 * times,
        fetched_bytes: 0,
    }
}

async fn history(engine: &Engine, name: Option<&str>, span: Span) -> larder_engine::History {
    engine.ledger().history(name, span).await.unwrap()
}

/// Where something was counted, as places from the last point backwards.
fn filled(history: &larder_engine::History) -> Vec<(usize, u64)> {
    let points = history.points.iter().rev().enumerate();
    points
        .filter(|(_, point)| !point.figures.is_nothing())
        .map(|(place, point)| (place, point.figures.requests))
        .collect()
}

#[tokio::test]
async fn what_was_counted_stands_in_its_points_and_outlives_a_restart() {
    let mut bench = Bench::new().await;
    let counted = Counted::of(&bench.engine);
    counted.stand_at(&[("generic", 1), ("npm", 2), ("", 50)]);
    let before = history(&bench.engine, Some("generic"), Span::Day).await;
    assert_eq!(
        (before.sum, before.total),
        (figures(1), figures(1)),
        "seen before it is written"
    );
    assert_eq!(before.points.len(), 288);
    bench.engine.ledger().write().await.unwrap();
    bench.wait(600);
    counted.stand_at(&[("generic", 4), ("npm", 2), ("", 99)]);
    bench.engine.ledger().write().await.unwrap();
    // Written twice, it counts once.
    bench.engine.ledger().write().await.unwrap();
    let all = history(&bench.engine, None, Span::Day).await;
    assert_eq!(filled(&all), [(0, 30), (2, 30)]);
    assert_eq!(
        all.sum,
        figures(6),
        "what addresses no repository is left out"
    );
    let last = all.points.last().unwrap();
    assert!(last.at <= bench.engine.now() && bench.engine.now().0 - last.at.0 < 300_000);
    assert!(last.free_bytes.is_some());
    // The process ends, and what it has counted last is not lost.
    counted.stand_at(&[("generic", 5), ("npm", 2)]);
    bench.restart().await;
    let after = history(&bench.engine, None, Span::Day).await;
    assert_eq!((after.sum, after.total), (figures(7), figures(7)));
    assert_eq!(after.began_at, Some(START));
    let counted = Counted::of(&bench.engine);
    counted.stand_at(&[("generic", 3)]);
    let month = history(&bench.engine, Some("generic"), Span::Month).await;
    assert_eq!((month.sum, month.points.len()), (figures(8), 360));
    // Counters that were set to zero go on from there.
    counted.stand_at(&[("generic", 1)]);
    let month = history(&bench.engine, Some("generic"), Span::Month).await;
    assert_eq!(month.sum, figures(9));
    let fault = bench.engine.ledger().history(Some("none"), Span::Day).await;
    assert_eq!(fault.unwrap_err().code, ErrorCode::UnknownRepository);
}

#[tokio::test]
async fn points_leave_the_span_and_the_total_stays() {
    let bench = Bench::new().await;
    let counted = Counted::of(&bench.engine);
    counted.stand_at(&[("generic", 1)]);
    bench.engine.ledger().write().await.unwrap();
    for (days, day, month) in [(0.9, 1, 1), (1.1, 0, 1), (29.5, 0, 1), (30.5, 0, 0)] {
        let now = UnixMillis(START.0 + (days * 86_400_000.0) as i64);
        bench.clock.set(now);
        bench.engine.ledger().write().await.unwrap();
        let sums = [Span::Day, Span::Month].map(|span| history(&bench.engine, None, span));
        let [of_day, of_month] = sums;
        let (of_day, of_month) = (of_day.await, of_month.await);
        assert_eq!(
            (of_day.sum, of_month.sum),
            (figures(day), figures(month)),
            "{days}"
        );
        assert_eq!(of_day.total, figures(1));
    }
}

/// Both count at the same time, and both see what both have counted.
async fn add_to_one_history(one: &Arc<Engine>, two: &Arc<Engine>) {
    let (first, second) = (Counted::of(one), Counted::of(two));
    for n in 1..=5 {
        first.stand_at(&[("generic", n)]);
        second.stand_at(&[("generic", 2 * n), ("npm", n)]);
        let (here, there) = tokio::join!(one.ledger().write(), two.ledger().write());
        here.unwrap();
        there.unwrap();
    }
    for engine in [one, two] {
        let generic = history(engine, Some("generic"), Span::Day).await;
        assert_eq!((generic.sum, generic.total), (figures(15), figures(15)));
        assert_eq!(filled(&generic), [(0, 150)], "one bucket");
        assert_eq!(history(engine, None, Span::Month).await.total, figures(20));
    }
}

#[tokio::test]
async fn two_engines_add_to_one_history_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let limits = larder_engine::Limits::default();
    let bench = Bench::sharing(directory.path(), limits, true, |_| {}).await;
    let other = bench.second(true).await;
    add_to_one_history(&bench.engine, &other).await;
}

#[tokio::test]
async fn two_engines_add_to_one_history_on_a_server() {
    let server = Postgres::shared();
    let options = PostgresOptions {
        hosts: vec![("127.0.0.1".to_owned(), server.port())],
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
        database: server.database(),
        tls: TlsMode::default(),
        ca_file: None,
    };
    let bench = Bench::new().await;
    let connect = async || bench.over(MetadataStore::connect(&options).await.unwrap());
    add_to_one_history(&connect().await, &connect().await).await;
}

#[tokio::test]
async fn bytes_from_upstream_are_counted_by_the_engine() {
    let bench = Bench::new().await;
    bench.origin.put("/a", Resource::new(vec![7; 4_321]));
    bench.get("generic", "a").await.unwrap();
    bench.settled().await;
    bench.get("generic", "a").await.unwrap();
    let counted = Counted::of(&bench.engine);
    counted.stand_at(&[("generic", 9)]);
    let generic = history(&bench.engine, Some("generic"), Span::Day).await;
    assert_eq!(generic.sum.fetched_bytes, 4_321);
    assert_eq!(generic.sum.saved_bytes(), 9_000 - 4_321);
    assert_eq!(generic.sum.hit_ratio(), Some(0.7));
}

#[tokio::test]
async fn a_suggested_pattern_admits_what_was_refused() {
    let mut bench = Bench::with(|repository| {
        repository.access.immutable = Some(vec![Pattern::compile(r"\.whl$").unwrap()]);
    })
    .await;
    for path in [
        "v1.2/a.tar.gz",
        "v1.2/b.tar.gz",
        "x/y/z.zip",
        "v1.2/b.tar.gz",
    ] {
        bench.origin.put(&format!("/{path}"), Resource::new("x"));
        assert_eq!(
            bench.get("generic", path).await.unwrap_err().code,
            ErrorCode::PatternDenied
        );
    }
    let groups = bench.engine.ledger().refused("generic").unwrap();
    assert_eq!(groups.len(), 2);
    let (first, second) = (&groups[0], &groups[1]);
    assert_eq!((first.count, second.count), (3, 1));
    assert_eq!(first.examples, ["v1.2/b.tar.gz", "v1.2/a.tar.gz"]);
    assert_eq!(
        (&*first.rule, &*first.add_to),
        ("immutable_patterns", &["immutable_patterns".to_owned()][..])
    );
    let patterns: Vec<String> = groups
        .iter()
        .filter_map(|group| group.pattern.clone())
        .collect();
    assert_eq!(patterns.len(), 2);
    // By the code that the configuration is read with.
    bench.reload(|repository| {
        let added = patterns
            .iter()
            .map(|pattern| Pattern::compile(pattern).unwrap());
        repository.access.immutable.as_mut().unwrap().extend(added);
    });
    for path in ["v1.2/a.tar.gz", "v1.2/b.tar.gz", "x/y/z.zip"] {
        bench.get("generic", path).await.unwrap();
    }
    assert_eq!(bench.engine.ledger().refused("generic").unwrap(), []);
    bench.get("generic", "v1x2/a.tar.gz").await.unwrap_err();
}

#[tokio::test]
async fn a_pattern_may_belong_into_two_lists_and_helps_against_no_denial() {
    let bench = Bench::with(|repository| {
        let pattern = |text: &str| vec![Pattern::compile(text).unwrap()];
        repository.access.allow = pattern("^ok/");
        repository.access.immutable = Some(pattern(r"\.whl$"));
        repository.access.deny = pattern("secret");
    })
    .await;
    for path in ["ok/secret.whl", "other/a.zip"] {
        bench.get("generic", path).await.unwrap_err();
    }
    let groups = bench.engine.ledger().refused("generic").unwrap();
    let seen: Vec<_> = groups
        .iter()
        .map(|group| {
            (
                &*group.examples[0],
                group.refused_by.as_deref(),
                group.pattern.as_deref(),
                group.add_to.len(),
            )
        })
        .collect();
    assert!(
        seen.contains(&("ok/secret.whl", Some("secret"), None, 0)),
        "{seen:?}"
    );
    assert!(
        seen.contains(&("other/a.zip", None, Some(r"^other/[^/]*\.zip$"), 2)),
        "{seen:?}"
    );
}

async fn outage(bench: &Bench) -> Outage {
    bench
        .engine
        .ledger()
        .outage("generic", &["generic".to_owned()], None, 100)
        .await
        .unwrap()
}

fn paths(outage: &Outage) -> Vec<(&str, u64, &str)> {
    let missing = outage.missing.iter();
    missing
        .map(|path| (&*path.path, path.requests, &*path.why))
        .collect()
}

#[tokio::test]
async fn an_outage_leaves_out_what_is_not_held() {
    let bench = Bench::new().await;
    let counted = Counted::of(&bench.engine);
    for path in ["a", "b"] {
        bench
            .origin
            .put(&format!("/{path}"), Resource::new("content"));
        bench.get("generic", path).await.unwrap();
    }
    bench.settled().await;
    for _ in 0..3 {
        bench.get("generic", "none").await.unwrap_err();
    }
    bench
        .ask(Method::HEAD, "generic", "none-either", &[])
        .await
        .unwrap_err();
    counted.stand_at(&[("generic", 2)]);
    let seen = outage(&bench).await;
    assert_eq!(
        paths(&seen),
        [("none", 3, "absent"), ("none-either", 1, "absent")]
    );
    assert_eq!(
        (seen.requests, seen.missing_requests, seen.missing_paths),
        (20, 4, 2)
    );
    assert_eq!(seen.share, Some(0.8));
    // Page by page it is the same.
    let first = bench
        .engine
        .ledger()
        .outage("generic", &["generic".to_owned()], None, 1)
        .await
        .unwrap();
    assert_eq!(paths(&first), [("none", 3, "absent")]);
    let second = bench
        .engine
        .ledger()
        .outage("generic", &["generic".to_owned()], first.next.as_deref(), 1)
        .await
        .unwrap();
    assert_eq!(
        (paths(&second), second.next.as_deref()),
        (vec![("none-either", 1, "absent")], None)
    );
    // What is flushed is missing until it is asked for again.
    let flush = FlushRequest {
        remote: Some("generic".to_owned()),
        pattern: Some("^a$".to_owned()),
        ..FlushRequest::default()
    };
    bench.engine.flush(flush).await.unwrap();
    assert!(paths(&outage(&bench).await).contains(&("a", 1, "flushed")));
    bench.get("generic", "a").await.unwrap();
    bench.settled().await;
    assert_eq!(outage(&bench).await.missing_paths, 2);
    // After 30 days nobody asks for it any more.
    bench.wait(31 * 86_400);
    let later = outage(&bench).await;
    assert_eq!(
        (later.requests, later.share, later.missing.len()),
        (0, None, 0)
    );
    for after in ["", "x", "1-x-y"] {
        let fault = bench
            .engine
            .ledger()
            .outage("generic", &["generic".to_owned()], Some(after), 1)
            .await;
        assert_eq!(fault.unwrap_err().code, ErrorCode::BadRequest, "{after:?}");
    }
}

/// Has a file fetched and, as a server counts, its bytes given so often.
async fn serve(bench: &Bench, path: &str, served: u32) {
    bench.get("generic", path).await.unwrap();
    bench.settled().await;
    let rows = bench.metadata.least_used("generic", None, 10).await;
    let row = rows.unwrap().into_iter().find(|row| row.key.0 == path);
    let one = RecordUse {
        key: row.unwrap().key,
        at: bench.engine.now(),
        served,
    };
    let name = RepositoryName::parse("generic").unwrap();
    bench
        .metadata
        .note_used(&name, false, &[one], bench.engine.now())
        .await
        .unwrap();
    bench.wait(60);
}

/// A file that has made room for another one had more requests than the one that brought it.
#[tokio::test]
async fn what_is_evicted_counts_with_the_requests_that_it_had() {
    let bench = Bench::with(|repository| {
        support::upstream(repository).max_disk = Some(150_000);
    })
    .await;
    let counted = Counted::of(&bench.engine);
    for path in ["much", "little"] {
        let body = vec![7; 100_000];
        bench.origin.put(&format!("/{path}"), Resource::new(body));
    }
    serve(&bench, "much", 10).await;
    counted.stand_at(&[("generic", 1)]);
    assert_eq!(outage(&bench).await.share, Some(1.0), "it is held");
    serve(&bench, "little", 4).await;
    counted.stand_at(&[("generic", 2)]);
    let seen = outage(&bench).await;
    assert_eq!(paths(&seen), [("much", 10, "evicted")]);
    assert_eq!((seen.requests, seen.share), (20, Some(0.5)));
    // Fetched again, it is missing no longer.
    serve(&bench, "much", 1).await;
    let seen = outage(&bench).await;
    assert_eq!(paths(&seen), [("little", 4, "evicted")]);
}

#[tokio::test]
async fn what_a_format_passes_through_is_missing_in_an_outage() {
    let bench = Bench::new().await;
    let path = "-/npm/v1/security/advisories/bulk";
    bench.origin.put(&format!("/{path}"), Resource::new("{}"));
    for _ in 0..2 {
        let asked = bench.ask(Method::POST, "npm", path, &[]).await;
        assert_eq!(asked.unwrap().answer.status, 200);
    }
    let seen = bench
        .engine
        .ledger()
        .outage("npm", &["npm".to_owned()], None, 100)
        .await;
    assert_eq!(paths(&seen.unwrap()), [(path, 2, "passed_through")]);
}

#[tokio::test]
async fn documents_past_their_stale_bound_are_missing_in_an_outage() {
    let bench = Bench::with(|repository| {
        repository.access.mutable = Some(vec![Pattern::compile("^index$").unwrap()]);
        repository.cache.mutable_ttl = Duration::from_hours(1);
        repository.cache.stale_max_age = Some(Duration::from_hours(3));
    })
    .await;
    for path in ["index", "file"] {
        bench
            .origin
            .put(&format!("/{path}"), Resource::new("content"));
        bench.get("generic", path).await.unwrap();
    }
    bench.settled().await;
    bench.wait(2 * 3_600);
    assert_eq!(outage(&bench).await.missing, [], "it would be served stale");
    bench.wait(2 * 3_600);
    assert_eq!(paths(&outage(&bench).await), [("index", 0, "too_old")]);
}

/// A query may be a secret: of a path that clients ask for with one it is said so, and no more.
#[tokio::test]
async fn what_is_asked_for_with_a_query_says_so() {
    let bench = Bench::new().await;
    for (target, has_query) in [
        ("none?token=secret", true),
        ("none", false),
        ("none?x", false),
    ] {
        bench.get("generic", target).await.unwrap_err();
        let seen = outage(&bench).await;
        assert_eq!(seen.missing.len(), 1, "one path");
        let path = &seen.missing[0];
        assert_eq!(
            (&*path.path, path.has_query),
            ("none", has_query),
            "{target}"
        );
    }
    let bench = Bench::new().await;
    bench.get("generic", "what%3Fis?it").await.unwrap_err();
    let seen = outage(&bench).await;
    assert_eq!(paths(&seen), [("what?is", 1, "absent")]);
    assert!(seen.missing[0].has_query);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flight_is_seen_while_it_is_under_way() {
    let bench = Bench::new().await;
    bench.origin.put("/big", Resource::new(vec![7; 4 << 20]));
    bench.origin.hold_body("/big", 2 << 20);
    let engine = Arc::clone(&bench.engine);
    let reading = tokio::spawn(async move {
        let _ = support::ask(&engine, Method::GET, "generic", "big", &[]).await;
    });
    eventually("half of it has come", async || {
        let flights = bench.engine.ledger().flights();
        flights.first().is_some_and(|flight| {
            let is_it = (&*flight.repository, &*flight.path) == ("generic", "big");
            is_it && flight.bytes >= 1 << 20 && flight.total == Some(4 << 20) && flight.readers == 1
        })
    })
    .await;
    reading.abort();
}

/// A month of 100 repositories, and a list that is as long as it may be: each is a page for people.
#[tokio::test]
#[ignore = "heavy: fills the tables; prints what reading them takes"]
async fn full_tables_are_read_in_a_moment() {
    let bench = Bench::new().await;
    let counted = Counted::of(&bench.engine);
    let names: Vec<String> = (0..100).map(|n| format!("r{n}")).collect();
    for n in 1..=360 {
        let all: Vec<(&str, u64)> = names.iter().map(|name| (&**name, n)).collect();
        counted.stand_at(&[&all[..], &[("generic", n)]].concat());
        bench.engine.ledger().write().await.unwrap();
        bench.wait(7_200);
    }
    let paths: Vec<String> = (0..10_000)
        .map(|n| format!("folder/{n:05}.tar.gz"))
        .collect();
    let variant = format!("@{}", "x".repeat(40));
    let now = bench.engine.now();
    let asked: Vec<_> = paths
        .iter()
        .map(|path| AskedFor {
            path,
            variant: &variant,
            requests: 1,
            first_at: now,
            last_at: now,
            why: "failed",
        })
        .collect();
    bench
        .metadata
        .add_asked("generic", &asked, 10_000)
        .await
        .unwrap();
    for span in Span::ALL {
        let began = std::time::Instant::now();
        let all = history(&bench.engine, None, span).await;
        assert!(all.total.requests >= 360 * 100 * 10);
        eprintln!("{span:?}: {:?}", began.elapsed());
    }
    let began = std::time::Instant::now();
    bench
        .engine
        .ledger()
        .outage("generic", &["generic".to_owned()], None, 100)
        .await
        .unwrap();
    eprintln!("outage: {:?}", began.elapsed());
    let began = std::time::Instant::now();
    bench.engine.ledger().write().await.unwrap();
    eprintln!("write: {:?}", began.elapsed());
}

#[test]
fn names_of_repositories_are_never_that_of_all_together() {
    assert!(RepositoryName::parse("").is_err());
}
