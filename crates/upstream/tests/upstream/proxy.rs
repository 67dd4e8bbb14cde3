use larder_core::{ProxyBypass, ProxyRules};
use larder_upstream::{Upstream, UpstreamErrorKind, UpstreamRequest};
use url::Url;

use crate::origin::{Origin, ok, redirect, send, unauthorized};
use crate::support::{CANARY, get, kind, registry, repository, settings, text, upstream};

#[tokio::test]
async fn hazard_s10_a_private_proxy_is_used_and_literals_are_still_judged() {
    let proxy = Origin::start(|_| ok("through the proxy")).await;
    let (upstream, names) = upstream();
    names.set("proxy.test", &["127.0.0.1"]);
    let mut settings = settings(&Url::parse("http://base.test/").unwrap());
    let address = Url::parse(&format!(
        "http://user:{CANARY}@proxy.test:{}/",
        proxy.addr.port()
    ))
    .unwrap();
    settings.proxy = Some(ProxyRules::for_everything(address));
    let repository = repository(settings);
    let learned = |text: &str| UpstreamRequest {
        learned: true,
        ..get(&repository, Url::parse(text).unwrap())
    };
    for url in ["http://base.test/a", "http://elsewhere.test/b"] {
        assert_eq!(text(&upstream, learned(url)).await, "through the proxy");
        assert_eq!(proxy.seen().last().unwrap().target(), url);
    }
    let before = proxy.seen().len();
    for url in [
        "http://10.0.0.1/",
        "http://127.0.0.1/",
        "http://[::ffff:10.0.0.1]/",
        "http://localhost/",
        "http://a.LOCALHOST./",
    ] {
        assert_eq!(
            kind(upstream.send(learned(url)).await),
            UpstreamErrorKind::RefusedAddress,
            "{url}"
        );
    }
    assert_eq!(proxy.seen().len(), before);
}

#[tokio::test]
async fn hazard_s17_a_proxys_password_is_not_shown() {
    let (upstream, _) = upstream();
    let base = Url::parse("http://base.test/").unwrap();
    for proxy in [
        format!("http://user:{CANARY}@127.0.0.1:1/"),
        format!("ftp://user:{CANARY}@127.0.0.1:1/"),
    ] {
        let mut settings = settings(&base);
        settings.proxy = Some(ProxyRules::for_everything(Url::parse(&proxy).unwrap()));
        let error = upstream
            .send(get(&repository(settings), base.clone()))
            .await
            .unwrap_err();
        assert!(
            !format!("{error} {error:?} {upstream:?}").contains(CANARY),
            "{error}"
        );
    }
}

/// What is not proxied is resolved here, and judged as if there were no proxy.
#[tokio::test]
async fn hazard_s10_exceptions_from_the_proxy_are_asked_directly_and_judged_here() {
    let proxy = Origin::start(|_| ok("through the proxy")).await;
    let direct = Origin::start(|_| ok("directly")).await;
    let (upstream, names) = upstream();
    names.set("proxy.test", &["127.0.0.1"]);
    names.set("intra.test", &["127.0.0.1"]);
    names.set("cdn.intra.test", &["10.0.0.1"]);
    names.set("localhost", &["127.0.0.1"]);
    let own = format!("http://intra.test:{}/", direct.addr.port());
    let mut settings = settings(&Url::parse(&own).unwrap());
    let address = Url::parse(&format!("http://proxy.test:{}/", proxy.addr.port())).unwrap();
    let bypass = ProxyBypass::parse("intra.test").unwrap();
    settings.proxy = Some(ProxyRules::with_exceptions(Some(address), None, bypass));
    let repository = repository(settings);
    let learned = |text: &str| UpstreamRequest {
        learned: true,
        ..get(&repository, Url::parse(text).unwrap())
    };
    assert_eq!(text(&upstream, learned(&own)).await, "directly");
    assert_eq!(
        text(&upstream, learned("http://elsewhere.test/")).await,
        "through the proxy"
    );
    for url in [
        "http://cdn.intra.test/",
        "http://localhost/",
        "http://127.0.0.1/",
    ] {
        assert_eq!(
            kind(upstream.send(learned(url)).await),
            UpstreamErrorKind::RefusedAddress,
            "{url}"
        );
    }
    assert_eq!((proxy.seen().len(), direct.seen().len()), (1, 1));
}

#[tokio::test]
async fn redirects_and_token_servers_are_reached_through_the_proxy_too() {
    let proxy = Origin::start(|seen| match (seen.target(), seen.field("authorization")) {
        ("http://cdn.test/blob", None) => ok("the blob"),
        (target, _) if target.starts_with("http://auth.base.test/token") => ok(r#"{"token":"t-1","expires_in":300}"#),
        (_, Some("Bearer t-1")) => redirect(307, "http://cdn.test/blob"),
        _ => unauthorized(r#"Bearer realm="http://auth.base.test/token",service="r.example",scope="repository:a:pull""#),
    })
    .await;
    let (upstream, _) = upstream();
    let mut settings = registry(settings(&Url::parse("http://base.test/").unwrap()));
    let address = Url::parse(&format!("http://{}/", proxy.addr)).unwrap();
    settings.proxy = Some(ProxyRules::with_exceptions(
        Some(address),
        None,
        ProxyBypass::default(),
    ));
    let repository = repository(settings);
    let url = Url::parse("http://base.test/v2/a/blobs/x").unwrap();
    assert_eq!(text(&upstream, get(&repository, url)).await, "the blob");
    assert_eq!(
        proxy.seen().len(),
        4,
        "registry, token server, registry, store"
    );
}

/// What fails on the way through a proxy names the proxy, and tells its refusals from the upstream's: whoever looks for the fault must know
/// whom to ask. RFC 9110 sections 9.3.6 (CONNECT) and 15.5.8 (407).
#[tokio::test]
async fn failures_on_the_way_through_a_proxy_name_it() {
    let base = Url::parse("https://base.test/").unwrap();
    for (status, said, brief) in [
        (407, "the proxy wants a login", "its proxy wants a login"),
        (
            403,
            "the proxy refuses to connect",
            "its proxy refuses to connect to it",
        ),
        (
            502,
            "the proxy refuses to connect",
            "its proxy refuses to connect to it",
        ),
    ] {
        let proxy = Origin::start(move |_| {
            send(format!(
                "HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            ))
        })
        .await;
        let (upstream, _) = upstream();
        let mut settings = settings(&base);
        let address = Url::parse(&format!("http://user:{CANARY}@{}/", proxy.addr)).unwrap();
        settings.proxy = Some(ProxyRules::for_everything(address));
        let error = upstream
            .send(get(&repository(settings), base.clone()))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind, error.brief),
            (UpstreamErrorKind::Unreachable, brief),
            "{status}: {error}"
        );
        let named = format!("(through the proxy http://{}/)", proxy.addr);
        assert!(
            error.message.contains(said) && error.message.contains(&named),
            "{status}: {error}"
        );
        assert!(!error.message.contains(CANARY), "{error}");
    }
    let (upstream, _) = upstream();
    let mut settings = settings(&base);
    settings.proxy = Some(ProxyRules::for_everything(
        Url::parse("http://127.0.0.1:1/").unwrap(),
    ));
    let error = upstream
        .send(get(&repository(settings), base))
        .await
        .unwrap_err();
    assert!(
        error
            .message
            .contains("connection refused (through the proxy http://127.0.0.1:1/)"),
        "{error}"
    );
}
