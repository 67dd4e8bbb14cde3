use larder_upstream::{Upstream, UpstreamErrorKind, UpstreamRequest};
use url::Url;

use crate::origin::{Origin, ok};
use crate::support::{CANARY, get, kind, repository, settings, text, upstream};

#[tokio::test]
async fn hazard_s10_a_private_proxy_is_used_and_literals_are_still_judged() {
    let proxy = Origin::start(|_| ok("through the proxy")).await;
    let (upstream, names) = upstream();
    names.set("proxy.test", &["127.0.0.1"]);
    let mut settings = settings(&Url::parse("http://base.test/").unwrap());
    settings.proxy = Some(Url::parse(&format!("http://user:{CANARY}@proxy.test:{}/", proxy.addr.port())).unwrap());
    let repository = repository(settings);
    let learned = |text: &str| UpstreamRequest { learned: true, ..get(&repository, Url::parse(text).unwrap()) };
    for url in ["http://base.test/a", "http://elsewhere.test/b"] {
        assert_eq!(text(&upstream, learned(url)).await, "through the proxy");
        assert_eq!(proxy.seen().last().unwrap().target(), url);
    }
    let before = proxy.seen().len();
    for url in ["http://10.0.0.1/", "http://127.0.0.1/", "http://[::ffff:10.0.0.1]/", "http://localhost/", "http://a.LOCALHOST./"]
    {
        assert_eq!(kind(upstream.send(learned(url)).await), UpstreamErrorKind::RefusedAddress, "{url}");
    }
    assert_eq!(proxy.seen().len(), before);
}

#[tokio::test]
async fn hazard_s17_a_proxys_password_is_not_shown() {
    let (upstream, _) = upstream();
    let base = Url::parse("http://base.test/").unwrap();
    for proxy in [format!("http://user:{CANARY}@127.0.0.1:1/"), format!("ftp://user:{CANARY}@127.0.0.1:1/")] {
        let mut settings = settings(&base);
        settings.proxy = Some(Url::parse(&proxy).unwrap());
        let error = upstream.send(get(&repository(settings), base.clone())).await.unwrap_err();
        assert!(!format!("{error} {error:?} {upstream:?}").contains(CANARY), "{error}");
    }
}
