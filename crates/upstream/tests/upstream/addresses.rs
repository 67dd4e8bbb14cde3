use larder_upstream::{BreakerState, Upstream, UpstreamErrorKind, UpstreamRequest};
use url::Url;

use crate::origin::{Origin, ok, redirect};
use crate::support::{allow, get, kind, named, repository, settings, text, upstream};

/// What a configured origin's redirect to `location` ends in.
async fn redirected_to(
    location: String,
    allowed: Option<&str>,
) -> Result<String, UpstreamErrorKind> {
    let home = Origin::start(move |_| redirect(302, &location)).await;
    let (upstream, names) = upstream();
    names.set("private.test", &["127.0.0.2"]);
    names.set("localhost", &["127.0.0.2"]);
    let mut settings = settings(&home.url("/"));
    if let Some(entry) = allowed {
        settings = allow(settings, entry);
    }
    match upstream
        .send(get(&repository(settings), home.url("/")))
        .await
    {
        Ok(response) => Ok(String::from_utf8(crate::support::read(response).await.0).unwrap()),
        refused => Err(kind(refused)),
    }
}

#[tokio::test]
async fn hazard_s10_redirects_to_private_addresses_make_no_connection() {
    let trap = Origin::start_at("127.0.0.2:0".parse().unwrap(), |_| ok("inside")).await;
    let port = trap.addr.port();
    for host in [
        "127.0.0.2",
        "127.2",
        "0x7f.2",
        "0177.0.0.2",
        "2130706434",
        "[::ffff:127.0.0.2]",
        "private.test",
        "localhost",
    ] {
        let result = redirected_to(format!("http://{host}:{port}/"), None).await;
        assert_eq!(result, Err(UpstreamErrorKind::RefusedAddress), "{host}");
    }
    for url in [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:10.0.0.1]/",
        "http://[64:ff9b::7f00:2]/",
        "http://0/",
    ] {
        assert_eq!(
            redirected_to(url.to_owned(), None).await,
            Err(UpstreamErrorKind::RefusedAddress),
            "{url}"
        );
    }
    assert_eq!(trap.connections(), 0);
}

#[tokio::test]
async fn hazard_s10_allow_private_opens_what_it_names_and_no_more() {
    let inside = Origin::start_at("127.0.0.2:0".parse().unwrap(), |_| ok("inside")).await;
    let port = inside.addr.port();
    for host in ["127.0.0.2", "private.test"] {
        let url = format!("http://{host}:{port}/");
        assert_eq!(
            redirected_to(url.clone(), Some("127.0.0.0/30"))
                .await
                .as_deref(),
            Ok("inside")
        );
        assert_eq!(
            redirected_to(url.clone(), Some(&format!("127.0.0.2:{port}")))
                .await
                .as_deref(),
            Ok("inside")
        );
        let before = inside.connections();
        for other in ["127.0.0.2:1", "127.0.0.3/32", "10.0.0.0/8"] {
            assert_eq!(
                redirected_to(url.clone(), Some(other)).await,
                Err(UpstreamErrorKind::RefusedAddress),
                "{other}"
            );
        }
        assert_eq!(inside.connections(), before);
    }
}

#[tokio::test]
async fn hazard_s10_links_in_documents_are_judged_like_redirects_and_the_configured_origin_is_not()
{
    let home = Origin::start(|_| ok("home")).await;
    let other = Origin::start(|_| ok("other")).await;
    let (upstream, names) = upstream();
    names.set("home.test", &["127.0.0.1"]);
    let base = Url::parse(&format!("http://home.test:{}/", home.addr.port())).unwrap();
    let repository = repository(settings(&base));
    for learned in [true, false] {
        let ask = |url: Url| UpstreamRequest {
            learned,
            ..get(&repository, url)
        };
        assert_eq!(
            kind(upstream.send(ask(other.url("/"))).await),
            UpstreamErrorKind::RefusedAddress
        );
        assert_eq!(text(&upstream, ask(base.clone())).await, "home");
        // The same socket under another name is another origin.
        assert_eq!(
            kind(upstream.send(ask(home.url("/"))).await),
            UpstreamErrorKind::RefusedAddress
        );
    }
    assert_eq!(other.connections(), 0);
    assert_eq!(
        upstream.health(&repository.name),
        BreakerState::Closed,
        "a refusal is no failure of the origin"
    );
}

#[tokio::test]
async fn hazard_s10_of_mixed_addresses_only_the_admitted_one_is_connected_to() {
    let good = Origin::start_at("127.0.0.3:0".parse().unwrap(), |_| ok("good")).await;
    let trap = Origin::start_at(
        format!("127.0.0.2:{}", good.addr.port()).parse().unwrap(),
        |_| ok("trap"),
    )
    .await;
    let (upstream, names) = upstream();
    names.set("mixed.test", &["127.0.0.2", "::1", "127.0.0.3", "10.0.0.1"]);
    let repository = repository(allow(
        settings(&Url::parse("https://base.test/").unwrap()),
        "127.0.0.3/32",
    ));
    let url = Url::parse(&format!("http://mixed.test:{}/", good.addr.port())).unwrap();
    assert_eq!(
        text(
            &upstream,
            UpstreamRequest {
                learned: true,
                ..get(&repository, url)
            }
        )
        .await,
        "good"
    );
    assert_eq!(trap.connections(), 0);
}

#[tokio::test]
async fn hazard_s10_a_name_is_resolved_once_per_connection() {
    let good = Origin::start_at("127.0.0.3:0".parse().unwrap(), |seen| {
        let mut acts = ok("good");
        if seen.target() == "/close" {
            acts.push(crate::origin::Act::Close);
        }
        acts
    })
    .await;
    let trap = Origin::start_at(
        format!("127.0.0.2:{}", good.addr.port()).parse().unwrap(),
        |_| ok("trap"),
    )
    .await;
    let (upstream, names) = upstream();
    names.set("rebind.test", &["127.0.0.3"]);
    let repository = repository(allow(
        settings(&Url::parse("https://base.test/").unwrap()),
        "127.0.0.3/32",
    ));
    let url =
        |path: &str| Url::parse(&format!("http://rebind.test:{}{path}", good.addr.port())).unwrap();
    assert_eq!(text(&upstream, get(&repository, url("/a"))).await, "good");
    assert_eq!(names.lookups(), 1);
    // The name now leads inside: a kept connection may be used, a new one may not be made.
    names.set("rebind.test", &["127.0.0.2"]);
    assert_eq!(
        text(&upstream, get(&repository, url("/close"))).await,
        "good"
    );
    assert_eq!(names.lookups(), 1);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(
        kind(upstream.send(get(&repository, url("/a"))).await),
        UpstreamErrorKind::RefusedAddress
    );
    assert_eq!((names.lookups(), trap.connections()), (2, 0));
}

#[tokio::test]
async fn hazard_s10_another_repositorys_open_connection_is_no_way_in() {
    let inside = Origin::start(|_| ok("inside")).await;
    let (upstream, names) = upstream();
    names.set("inside.test", &["127.0.0.1"]);
    let url = Url::parse(&format!("http://inside.test:{}/", inside.addr.port())).unwrap();
    let owner = named("owner", settings(&url));
    let stranger = named(
        "stranger",
        settings(&Url::parse("https://base.test/").unwrap()),
    );
    assert_eq!(text(&upstream, get(&owner, url.clone())).await, "inside");
    let learned = UpstreamRequest {
        learned: true,
        ..get(&stranger, url)
    };
    assert_eq!(
        kind(upstream.send(learned).await),
        UpstreamErrorKind::RefusedAddress
    );
    assert_eq!(inside.seen().len(), 1);
}

#[tokio::test]
async fn offline_asks_nobody_not_even_dns() {
    let origin = Origin::start(|_| ok("")).await;
    let (upstream, names) = upstream();
    names.set("files.test", &["127.0.0.1"]);
    let url = Url::parse(&format!("http://files.test:{}/", origin.addr.port())).unwrap();
    let mut settings = settings(&url);
    settings.offline = true;
    assert_eq!(
        kind(upstream.send(get(&repository(settings), url)).await),
        UpstreamErrorKind::Offline
    );
    assert_eq!((names.lookups(), origin.connections()), (0, 0));
}
