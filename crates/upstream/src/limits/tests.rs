use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use futures_util::FutureExt as _;
use larder_core::{
    AccessPolicy, CachePolicy, Kind, PackageType, QuarantinePolicy, Repository, RepositoryName,
    ReservedNames,
};

use super::*;

const CLUSTER_OF: u32 = 3;

/// A cluster of three that gives what it is told to give, or cannot be reached.
#[derive(Debug, Default)]
struct Played {
    grants: AtomicU32,
    is_away: AtomicBool,
    claims: Mutex<Vec<HostClaim>>,
}

impl ClusterLimits for Played {
    fn share<'a>(&'a self, _: &'a str, claim: HostClaim) -> BoxFuture<'a, Option<u32>> {
        async move {
            self.claims.lock().unwrap().push(claim);
            let granted = self.grants.load(Ordering::Relaxed).min(claim.wanted);
            (!self.is_away.load(Ordering::Relaxed)).then_some(granted)
        }
        .boxed()
    }

    fn moment<'a>(&'a self, _: &'a str, _: Duration, _: Duration) -> BoxFuture<'a, Option<Moment>> {
        async move { None }.boxed()
    }

    fn replicas(&self) -> u32 {
        CLUSTER_OF
    }
}

fn asked(name: &str, limits: RequestLimits) -> (UpstreamRequest, Url) {
    let url = Url::parse("http://example.com/file").unwrap();
    let mut settings = UpstreamSettings::new(url.clone());
    settings.limits = limits;
    let repository = Repository {
        name: RepositoryName::parse(name).unwrap(),
        package: PackageType::Generic,
        description: String::new(),
        kind: Kind::Remote(Box::new(settings)),
        access: AccessPolicy::default(),
        cache: CachePolicy::default(),
        quarantine: QuarantinePolicy::default(),
        authoritative: false,
        reserved: ReservedNames::default(),
        rules_epoch: 0,
    };
    let request = UpstreamRequest::new(Arc::new(repository), http::Method::GET, url.clone());
    (request, url)
}

fn at_once(concurrency: u32) -> RequestLimits {
    RequestLimits {
        concurrency: Some(concurrency),
        ..RequestLimits::default()
    }
}

async fn turn(limits: &Limits, (request, url): &(UpstreamRequest, Url)) -> Result<Turn, NoTurn> {
    let settings = request.repository.upstream().unwrap();
    limits.turn(request, settings, url).await
}

/// How many turns are had before one has to wait.
async fn turns(limits: &Limits, of: &(UpstreamRequest, Url)) -> Vec<Turn> {
    let mut had = Vec::new();
    while let Ok(one) = tokio::time::timeout(Duration::from_secs(5), turn(limits, of)).await {
        had.push(one.unwrap());
        assert!(had.len() < 100);
    }
    had
}

#[tokio::test(start_paused = true)]
async fn no_more_at_once_than_the_bound_and_the_next_when_one_ends() {
    let limits = Limits::default();
    let (one, other) = (asked("one", at_once(4)), asked("other", at_once(4)));
    let mut had = turns(&limits, &one).await;
    assert_eq!(had.len(), 4);
    assert_eq!(turns(&limits, &other).await.len(), 0, "one host, one bound");
    had.pop();
    assert_eq!(turns(&limits, &other).await.len(), 1);
    let own = RequestLimits {
        is_own: true,
        ..at_once(2)
    };
    assert_eq!(turns(&limits, &asked("own", own)).await.len(), 2);
    let none = asked("none", RequestLimits::default());
    for _ in 0..50 {
        std::mem::forget(turn(&limits, &none).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_told_so() {
    let limits = Limits::default();
    let (mut request, url) = asked("one", at_once(1));
    let _held = turn(&limits, &(request.clone(), url.clone()))
        .await
        .unwrap();
    let began = Instant::now();
    let refused = turn(&limits, &(request.clone(), url.clone())).await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("no turn within 30 s")
    );
    assert_eq!(began.elapsed(), PATIENCE);
    request.patience = Some(Duration::from_secs(2));
    let refused = turn(&limits, &(request, url)).await;
    assert!(refused.is_err());
    assert_eq!(began.elapsed(), PATIENCE + Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn requests_are_spaced_and_none_are_saved_up() {
    let limits = Limits::default();
    let rate = RequestLimits {
        apart: Some(Duration::from_millis(100)),
        ..RequestLimits::default()
    };
    let one = asked("one", rate);
    for _ in 0..2 {
        let began = Instant::now();
        for n in 0..10 {
            turn(&limits, &one).await.unwrap();
            assert_eq!(began.elapsed().as_millis(), n * 100);
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    // By itself each of three replicas keeps to a third.
    limits.keep_to(Arc::new(Played::default()));
    turn(&limits, &one).await.unwrap();
    turn(&limits, &one).await.unwrap();
    let began = Instant::now();
    turn(&limits, &one).await.unwrap();
    assert_eq!(began.elapsed().as_millis(), 300);
    let slow = RequestLimits {
        apart: Some(Duration::from_secs(20)),
        is_own: true,
        ..RequestLimits::default()
    };
    let slow = asked("slow", slow);
    let limits = Limits::default();
    turn(&limits, &slow).await.unwrap();
    turn(&limits, &slow).await.unwrap();
    turn(&limits, &slow).await.unwrap();
    let instant = Duration::from_millis(1);
    let later = tokio::time::timeout(instant, turn(&limits, &slow)).await;
    assert!(later.is_err(), "it waits for its moment, which is taken");
    let refused = turn(&limits, &slow).await.unwrap_err().to_string();
    assert!(refused.contains("in 39 s only"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn the_cluster_says_how_many_and_is_told_of_all() {
    let (limits, cluster) = (Limits::default(), Arc::new(Played::default()));
    limits.keep_to(Arc::clone(&cluster) as Arc<dyn ClusterLimits>);
    cluster.grants.store(2, Ordering::Relaxed);
    let one = asked("one", at_once(6));
    let mut had = turns(&limits, &one).await;
    assert_eq!(had.len(), 2);
    cluster.grants.store(5, Ordering::Relaxed);
    had.extend(turns(&limits, &one).await);
    assert_eq!(had.len(), 5);
    // Fewer: what is under way goes on, and is not replaced.
    cluster.grants.store(1, Ordering::Relaxed);
    tokio::time::sleep(BEAT_OR_MORE).await;
    had.truncate(2);
    assert_eq!(turns(&limits, &one).await.len(), 0);
    had.clear();
    tokio::time::sleep(BEAT_OR_MORE).await;
    let last = *cluster.claims.lock().unwrap().last().unwrap();
    assert_eq!(
        (last.held, last.wanted),
        (0, 0),
        "it claims nothing any more"
    );
    let claims = cluster.claims.lock().unwrap().len();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(cluster.claims.lock().unwrap().len(), claims, "nor asks");
    assert_eq!(
        turns(&limits, &one).await.len(),
        1,
        "until somebody wants it"
    );
}

const BEAT_OR_MORE: Duration = Duration::from_secs(2);

#[tokio::test(start_paused = true)]
async fn without_the_cluster_each_keeps_to_its_part() {
    let (limits, cluster) = (Limits::default(), Arc::new(Played::default()));
    limits.keep_to(Arc::clone(&cluster) as Arc<dyn ClusterLimits>);
    cluster.is_away.store(true, Ordering::Relaxed);
    let began = Instant::now();
    let one = asked("one", at_once(7));
    let first = turn(&limits, &one).await.unwrap();
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took < BEAT_OR_MORE,
        "{took:?}"
    );
    let more = turns(&limits, &one).await;
    assert_eq!(more.len() + 1, 2, "a third of seven");
    drop((first, more));
    tokio::time::sleep(Duration::from_mins(1)).await;
    // Now it is known, and nobody waits to find it out.
    let began = Instant::now();
    let few = asked("few", at_once(2));
    let _one = turn(&limits, &few).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(100));
    assert_eq!(turns(&limits, &few).await.len(), 0, "one at least");
    cluster.is_away.store(false, Ordering::Relaxed);
    cluster.grants.store(2, Ordering::Relaxed);
    assert_eq!(turns(&limits, &few).await.len(), 1, "it is back");
}
