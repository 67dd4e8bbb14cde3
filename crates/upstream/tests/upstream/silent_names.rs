//! A resolver that says nothing of some names: nobody waits for it for ever, and nobody else notices.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use larder_core::Repository;
use larder_upstream::{Cause, HttpUpstream, NameLookup, Options, Upstream as _, UpstreamErrorKind};
use tokio::sync::watch;
use tokio::task::JoinSet;
use url::Url;

use crate::origin::{Origin, ok};
use crate::support::{allow, get, named, settings, text};

/// `timeouts.connect` of these repositories.
const CONNECT: Duration = Duration::from_secs(2);
/// Look-ups that one repository may have under way.
const SHARE: usize = 16;

/// Of names below `silent.test` it says nothing until it is told to; all others lead to this machine.
#[derive(Debug)]
struct Resolver {
    begun: AtomicUsize,
    speaks: watch::Sender<bool>,
}

#[async_trait]
impl NameLookup for Resolver {
    async fn addresses(&self, name: &str) -> std::io::Result<Vec<IpAddr>> {
        if name.ends_with("silent.test") {
            self.begun.fetch_add(1, Ordering::SeqCst);
            let _ = self.speaks.subscribe().wait_for(|speaks| *speaks).await;
        }
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    }
}

struct Scene {
    upstream: Arc<HttpUpstream>,
    resolver: Arc<Resolver>,
    origin: Origin,
}

impl Scene {
    async fn new() -> Self {
        let resolver = Arc::new(Resolver {
            begun: AtomicUsize::new(0),
            speaks: watch::Sender::new(false),
        });
        let options = Options {
            lookup: Arc::clone(&resolver) as Arc<dyn NameLookup>,
            ..Options::new("larder/0.0-test")
        };
        Self {
            upstream: Arc::new(HttpUpstream::new(options)),
            resolver,
            origin: Origin::start(|_| ok("here")).await,
        }
    }

    fn url(&self, host: &str) -> Url {
        Url::parse(&format!("http://{host}:{}/file", self.origin.addr.port())).unwrap()
    }

    /// A repository of `base.test` that may be led to any host on this machine.
    fn repository(&self, name: &str) -> Arc<Repository> {
        let mut settings = allow(settings(&self.url("base.test")), "127.0.0.0/8");
        settings.connect_timeout = CONNECT;
        named(name, settings)
    }

    /// 1,500 requests for one repository, each to the host that `host` says.
    fn flood(&self, host: impl Fn(usize) -> String) -> JoinSet<(UpstreamErrorKind, String)> {
        let repository = self.repository("a");
        let mut asking = JoinSet::new();
        for n in 0..1500 {
            let (upstream, name) = (Arc::clone(&self.upstream), host(n));
            let request = get(&repository, self.url(&name));
            asking.spawn(async move {
                let error = upstream.send(request).await.expect_err("no address");
                assert_eq!(error.cause, Some(Cause::Dns));
                let said = error.to_string();
                assert!(said.contains(&name), "{said}");
                (error.kind, said)
            });
        }
        asking
    }

    /// Another repository's new host answers within a second, again and again.
    async fn others_do_not_notice(&self) {
        for n in 0..5 {
            let host = format!(
                "new-{n}-{}.test",
                self.resolver.begun.load(Ordering::SeqCst)
            );
            let repository = self.repository("b");
            let began = Instant::now();
            assert_eq!(
                text(&self.upstream, get(&repository, self.url(&host))).await,
                "here"
            );
            assert!(
                began.elapsed() < Duration::from_secs(1),
                "{:?}",
                began.elapsed()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn all_end(&self, mut asking: JoinSet<(UpstreamErrorKind, String)>) {
        let began = Instant::now();
        while let Some(ended) = asking.join_next().await {
            let (kind, said) = ended.unwrap();
            assert_eq!(kind, UpstreamErrorKind::TimedOut);
            assert!(
                said.contains("no answer from the resolver for 1.8 s"),
                "{said}"
            );
        }
        assert!(began.elapsed() < CONNECT * 3, "{:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_x1_one_name_without_an_answer_costs_one_look_up() {
    let scene = Scene::new().await;
    let asking = scene.flood(|_| "silent.test".to_owned());
    scene.others_do_not_notice().await;
    scene.all_end(asking).await;
    assert_eq!(scene.resolver.begun.load(Ordering::SeqCst), 1);
    // The resolver is back: so is the name.
    scene.resolver.speaks.send_replace(true);
    let repository = scene.repository("a");
    let request = get(&repository, scene.url("silent.test"));
    assert_eq!(text(&scene.upstream, request).await, "here");
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_x1_many_names_without_an_answer_take_one_repository_s_share() {
    let scene = Scene::new().await;
    let asking = scene.flood(|n| format!("n{n}.silent.test"));
    scene.others_do_not_notice().await;
    scene.all_end(asking).await;
    let begun = || scene.resolver.begun.load(Ordering::SeqCst);
    assert_eq!(begun(), SHARE);
    // Those that had not begun are not begun any more, for nobody waits for them.
    scene.resolver.speaks.send_replace(true);
    let repository = scene.repository("a");
    let request = get(&repository, scene.url("another.silent.test"));
    assert_eq!(text(&scene.upstream, request).await, "here");
    assert_eq!(begun(), SHARE + 1);
}
