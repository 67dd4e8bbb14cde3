//! Who gets to see user name, password, own headers and tokens.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use larder_core::UpstreamSettings;
use larder_upstream::{HttpUpstream, Upstream, UpstreamErrorKind};
use url::Url;

use crate::origin::{Act, Origin, Seen, ok, redirect, unauthorized};
use crate::support::{
    CANARY, allow, get, kind, registry, repository, settings, upstream, with_secrets,
    with_token_hosts,
};

/// "user:c4n4ry" in Base64 (RFC 4648), computed apart from larder.
const ACCOUNT: &str = "Basic dXNlcjpjNG40cnk=";
const PATH: &str = "/v2/a/manifests/latest";

/// A registry whose tokens come from `realm`.
async fn sending_to(realm: String) -> Origin {
    Origin::start(move |seen| match seen.field("authorization") {
        Some(value) if value.starts_with("Bearer") => ok("content"),
        _ => unauthorized(&format!(
            r#"Bearer realm="{realm}",service="r",scope="repository:a:pull""#
        )),
    })
    .await
}

async fn token_server() -> Origin {
    Origin::start_at("127.0.0.2:0".parse().unwrap(), |_| ok(r#"{"token":"x"}"#)).await
}

async fn ask(
    settings: UpstreamSettings,
    home: &Origin,
) -> (HttpUpstream, Result<String, (UpstreamErrorKind, String)>) {
    let (upstream, _) = upstream();
    let outcome = match upstream
        .send(get(&repository(settings), home.url(PATH)))
        .await
    {
        Ok(response) => Ok(String::from_utf8(crate::support::read(response).await.0).unwrap()),
        Err(error) => {
            let message = error.message.clone();
            Err((kind(Err(error)), message))
        }
    };
    (upstream, outcome)
}

#[tokio::test]
async fn oci_09_a_foreign_realm_gets_no_password_and_is_not_even_asked() {
    let away = token_server().await;
    let home = sending_to(away.url("/token").to_string()).await;
    // Even where redirects may lead there.
    let settings = registry(allow(with_secrets(&home.url("/")), "127.0.0.0/8"));
    let (kind, message) = ask(settings, &home).await.1.unwrap_err();
    assert_eq!(kind, UpstreamErrorKind::Unauthorized);
    for part in [
        "127.0.0.2",
        "outside its own domain",
        "were not sent",
        "token_hosts",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!((away.connections(), home.seen().len()), (0, 1));
}

#[tokio::test]
async fn oci_09_a_private_realm_is_not_asked() {
    let away = token_server().await;
    let by_name = Url::parse(&format!("http://auth.test:{}/token", away.addr.port())).unwrap();
    for realm in [away.url("/token"), by_name] {
        let home = sending_to(realm.to_string()).await;
        let (upstream, names) = upstream();
        names.set("auth.test", &["127.0.0.2"]);
        let images = repository(registry(settings(&home.url("/"))));
        let error = upstream
            .send(get(&images, home.url(PATH)))
            .await
            .unwrap_err();
        assert!(
            error.message.contains("leads to a private address"),
            "{error}"
        );
        assert_eq!(kind(Err(error)), UpstreamErrorKind::RefusedAddress);
    }
    assert_eq!(away.connections(), 0);
}

#[tokio::test]
async fn a_realm_elsewhere_is_asked_without_account_or_if_it_is_listed() {
    let away = token_server().await;
    let home = sending_to(away.url("/token").to_string()).await;
    let anonymous = registry(allow(settings(&home.url("/")), "127.0.0.2/32"));
    assert_eq!(ask(anonymous, &home).await.1.unwrap(), "content");
    assert_eq!(away.seen()[0].field("authorization"), None);
    // The operator's word admits a private address, too.
    for entry in ["127.0.0.2".to_owned(), away.addr.to_string()] {
        let listed = with_token_hosts(with_secrets(&home.url("/")), &[entry.as_str()]);
        let (upstream, outcome) = ask(listed, &home).await;
        assert_eq!(outcome.unwrap(), "content");
        let seen = away.seen().pop().unwrap();
        assert_eq!(seen.field("authorization"), Some(ACCOUNT));
        assert_eq!(
            seen.field("x-own-token"),
            None,
            "`headers` go to the configured origin only"
        );
        assert!(!format!("{upstream:?}").contains(CANARY));
    }
    let other_port = with_token_hosts(with_secrets(&home.url("/")), &["127.0.0.2:1"]);
    assert_eq!(
        ask(other_port, &home).await.1.unwrap_err().0,
        UpstreamErrorKind::Unauthorized
    );
}

#[tokio::test]
async fn hazard_s7_a_redirected_registry_cannot_have_tokens_of_the_account() {
    // The realm is home's own, which knows the account by password and by the header of `headers`. The token would go to whoever
    // asked for it.
    let on = Arc::new(OnceLock::<Url>::new());
    let home = Origin::start({
        let on = Arc::clone(&on);
        move |seen| match seen.field("authorization") {
            _ if seen.target().starts_with("/token") => {
                let known = seen.field("authorization") == Some(ACCOUNT)
                    || seen.field("x-own-token").is_some();
                ok(if known {
                    r#"{"token":"of-the-account"}"#
                } else {
                    r#"{"token":"of-nobody"}"#
                })
            }
            Some("Bearer of-the-account") => redirect(307, on.get().unwrap().as_str()),
            _ => {
                let realm = format!("http://{}/token", seen.field("host").unwrap());
                unauthorized(&format!(
                    r#"Bearer realm="{realm}",service="r",scope="repository:a:pull""#
                ))
            }
        }
    })
    .await;
    let away = sending_to(home.url("/token").to_string()).await;
    on.set(away.url(PATH)).unwrap();
    let settings = registry(allow(with_secrets(&home.url("/")), "127.0.0.0/8"));
    assert_eq!(ask(settings, &home).await.1.unwrap(), "content");
    let sent: Vec<_> = away
        .seen()
        .iter()
        .map(|seen| seen.field("authorization").map(str::to_owned))
        .collect();
    assert_eq!(sent, [None, Some("Bearer of-nobody".to_owned())]);
    let seen = home.seen();
    let shown = seen
        .iter()
        .filter(|seen| seen.target().starts_with("/token"))
        .map(|seen| seen.field("authorization"));
    assert_eq!(shown.collect::<Vec<_>>(), [Some(ACCOUNT), None]);
}

#[tokio::test]
async fn hazard_s7_a_token_is_sent_to_the_registry_that_it_was_fetched_for_only() {
    let issued = AtomicUsize::new(0);
    let realm = Origin::start(move |_| {
        ok(&format!(
            r#"{{"token":"t-{}"}}"#,
            issued.fetch_add(1, Ordering::SeqCst)
        ))
    })
    .await;
    let away = sending_to(realm.url("/token").to_string()).await;
    let (target, realm_url) = (away.url(PATH), realm.url("/token"));
    // Realm, service and scope are the same as away's.
    let home = Origin::start(move |seen| match seen.field("authorization") {
        Some(_) => redirect(307, target.as_str()),
        None => unauthorized(&format!(
            r#"Bearer realm="{realm_url}",service="r",scope="repository:a:pull""#
        )),
    })
    .await;
    let settings = registry(allow(settings(&home.url("/")), "127.0.0.0/8"));
    assert_eq!(ask(settings, &home).await.1.unwrap(), "content");
    let sent = |origin: &Origin| {
        origin
            .seen()
            .last()
            .unwrap()
            .field("authorization")
            .map(str::to_owned)
    };
    assert_eq!(
        (sent(&home).as_deref(), sent(&away).as_deref()),
        (Some("Bearer t-0"), Some("Bearer t-1"))
    );
}

#[tokio::test]
async fn hazard_s17_tokens_and_passwords_are_not_shown() {
    let home = Origin::start(|seen| match seen.field("authorization") {
        _ if seen.target().starts_with("/token") => {
            ok(&format!(r#"{{"token":"{CANARY}-token","expires_in":300}}"#))
        }
        Some(_) => redirect(302, "ftp://a.example.com/"),
        None => unauthorized(&format!(
            r#"Bearer realm="http://{}/token?secret={CANARY}""#,
            seen.field("host").unwrap()
        )),
    })
    .await;
    let (upstream, outcome) = ask(registry(with_secrets(&home.url("/"))), &home).await;
    let (kind, message) = outcome.unwrap_err();
    assert_eq!(kind, UpstreamErrorKind::RefusedRedirect);
    let shown = format!("{upstream:?} {message}");
    assert!(
        !shown.contains(CANARY) && !shown.contains("dXNlcj"),
        "{shown}"
    );
}

/// A small generator, so that a failing case can be repeated.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        // The multiplier and increment of Knuth's MMIX.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % sides
    }

    fn one_of<'a>(&mut self, of: &'a [String]) -> &'a str {
        &of[self.throw(of.len())]
    }
}

/// All of them are this machine.
const HOSTS: [&str; 8] = [
    "registry.example.com",
    "auth.example.com",
    "example.com",
    "evil.example.net",
    "registry.example.com.evil.example.net",
    "evilexample.com",
    "127.0.0.1",
    "localhost",
];

#[derive(Debug, Clone)]
enum Rule {
    Content,
    Redirect(u16, String),
    /// 401 with this until something is shown, then a redirect.
    Challenge(String, String),
}

/// Serves one world: `/v2/…` by the plan, `/token/…` gives tokens of the account or of nobody, or redirects to `/moved/…`.
fn serve(plan: &HashMap<String, Rule>, seen: &Seen) -> Vec<Act> {
    let path = seen.target().split('?').next().unwrap();
    let shown = seen.field("authorization");
    match plan.get(path) {
        Some(Rule::Redirect(status, location)) => redirect(*status, location),
        Some(Rule::Challenge(challenge, _)) if shown.is_none() => unauthorized(challenge),
        Some(Rule::Challenge(_, on)) => redirect(307, on),
        _ if path.starts_with("/token") || path.starts_with("/moved") => {
            let whose = if shown == Some(ACCOUNT) {
                "account"
            } else {
                "nobody"
            };
            ok(&format!(r#"{{"token":"of-{whose}"}}"#))
        }
        _ => ok("content"),
    }
}

/// 200 chains of challenges and redirects, `/v2/{case}/0` and on.
fn worlds(authorities: &[String]) -> HashMap<String, Rule> {
    let mut dice = Dice(20_240_229);
    let mut plan = HashMap::new();
    for case in 0..200 {
        let hops = 1 + dice.throw(5);
        for hop in 0..hops {
            let (realm, next) = (
                dice.one_of(authorities).to_owned(),
                dice.one_of(authorities).to_owned(),
            );
            let bearer = format!(
                r#"Bearer realm="http://{realm}/token/{case}/{hop}",service="r",scope="repository:{case}:pull""#
            );
            let here = format!("/v2/{case}/{hop}");
            let on = format!("http://{next}/v2/{case}/{}", hop + 1);
            if dice.throw(4) == 0 {
                plan.insert(
                    format!("/token/{case}/{hop}"),
                    Rule::Redirect(302, format!("http://{next}/moved/{realm}/{case}")),
                );
            }
            let both = format!(r#"Basic realm="r", {bearer}"#);
            let rule = match dice.throw(6) {
                0 | 1 => Rule::Challenge(bearer, on),
                2 => Rule::Challenge(both, on),
                3 => Rule::Challenge(r#"Basic realm="r""#.to_owned(), on),
                _ => Rule::Redirect([301, 302, 303, 307, 308][dice.throw(5)], on),
            };
            plan.insert(here, rule);
        }
        plan.insert(format!("/v2/{case}/{hops}"), Rule::Content);
    }
    plan
}

#[tokio::test]
async fn oci_09_hazard_s7_nothing_of_the_account_is_seen_elsewhere_in_200_generated_worlds() {
    let ports: Vec<u16> = (0..2)
        .map(|_| {
            std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port()
        })
        .collect();
    let own = format!("registry.example.com:{}", ports[0]);
    let of_the_domain = |host: &str| {
        host.split(':')
            .next()
            .is_some_and(|name| name == "example.com" || name.ends_with(".example.com"))
    };
    let mut authorities: Vec<String> = HOSTS
        .iter()
        .flat_map(|host| ports.iter().map(move |port| format!("{host}:{port}")))
        .collect();
    // Home more often than others, so that chains go on.
    authorities.extend([own.clone(), own.clone(), own.clone()]);
    let plan = Arc::new(worlds(&authorities));
    let mut origins = Vec::new();
    for port in &ports {
        let plan = Arc::clone(&plan);
        origins.push(
            Origin::start_at(format!("127.0.0.1:{port}").parse().unwrap(), move |seen| {
                serve(&plan, seen)
            })
            .await,
        );
    }
    let (upstream, names) = upstream();
    for host in HOSTS {
        names.set(host, &["127.0.0.1"]);
    }
    let base = Url::parse(&format!("http://{own}/")).unwrap();
    let images = repository(registry(allow(with_secrets(&base), "127.0.0.0/8")));
    let mut outcomes: HashMap<String, usize> = HashMap::new();
    for case in 0..200 {
        let outcome = match upstream
            .send(get(&images, base.join(&format!("/v2/{case}/0")).unwrap()))
            .await
        {
            Ok(response) => response.status.to_string(),
            Err(error) => {
                assert!(
                    matches!(error.kind, UpstreamErrorKind::Unauthorized),
                    "case {case}: {error}"
                );
                format!("{:?}", kind(Err(error)))
            }
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    let (mut to_realms, mut moved, mut to_home, mut abroad) = (0, 0, 0, 0);
    for seen in origins.iter().flat_map(Origin::seen) {
        let (host, target) = (seen.field("host").unwrap(), seen.target());
        assert!(
            !seen.head.contains(CANARY) || host == own,
            "own headers are seen by {host}: {target}"
        );
        match seen.field("authorization") {
            Some(ACCOUNT) if target.starts_with("/token/") => {
                assert!(
                    of_the_domain(host),
                    "the password is seen by the realm {host}: {target}"
                );
                to_realms += 1;
            }
            Some(ACCOUNT) if target.starts_with("/moved/") => {
                assert_eq!(
                    target.split('/').nth(2),
                    Some(host),
                    "a realm's redirect shows the password elsewhere"
                );
                moved += 1;
            }
            Some(ACCOUNT | "Bearer of-account") => {
                assert_eq!(host, own, "{}", seen.head);
                to_home += 1;
            }
            Some("Bearer of-nobody") | None => abroad += usize::from(host != own),
            Some(other) => panic!("{other}"),
        }
    }
    let reached = |outcome: &str| outcomes.get(outcome).copied().unwrap_or(0);
    let enough = to_realms > 10 && moved > 0 && to_home > 20 && abroad > 100;
    assert!(
        enough,
        "the dice must reach all: {to_realms} {moved} {to_home} {abroad}"
    );
    let enough =
        reached("200 OK") > 50 && reached("401 Unauthorized") > 5 && reached("Unauthorized") > 10;
    assert!(enough, "the dice must reach all: {outcomes:?}");
    assert!(!format!("{upstream:?}").contains(CANARY));
}
