use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use larder_upstream::{Upstream, UpstreamErrorKind, UpstreamRequest};
use url::Url;

use crate::origin::{Origin, ok, redirect};
use crate::support::{CANARY, allow, get, kind, repository, text, upstream, with_secrets};

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
}

type Plan = HashMap<String, (u16, String)>;

fn script(plan: Arc<Plan>) -> impl Fn(&crate::origin::Seen) -> Vec<crate::origin::Act> {
    move |seen| match plan.get(seen.target()) {
        Some((status, location)) => redirect(*status, location),
        None => ok("end"),
    }
}

#[tokio::test]
async fn hazard_s6_credentials_never_reach_another_origin_in_200_generated_redirect_chains() {
    // The plan needs the ports, so reserve them first.
    let ports: Vec<u16> = (0..3)
        .map(|_| {
            std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port()
        })
        .collect();
    let own = format!("127.0.0.1:{}", ports[0]);
    let authorities = [
        own.clone(),
        format!("127.0.0.1:{}", ports[1]),
        format!("127.0.0.1:{}", ports[2]),
        format!("127.0.0.2:{}", ports[0]),
        format!("other.test:{}", ports[0]),
        format!("127.0.0.1.other.test:{}", ports[0]),
        // Other spellings of the configured origin are the configured origin.
        format!("127.1:{}", ports[0]),
        format!("2130706433:{}", ports[0]),
    ];
    let mut dice = Dice(20_240_229);
    let mut plan = Plan::new();
    for case in 0..200 {
        let hops = 1 + dice.throw(9);
        for hop in 0..hops {
            let status = [301, 302, 303, 307, 308][dice.throw(5)];
            let next = format!("/{case}/{}", hop + 1);
            let location = match dice.throw(12) {
                0 => next,
                1 => format!("{}", hop + 1),
                side => {
                    let scheme = ["http:", "", "HTTP:"][dice.throw(3)];
                    format!("{scheme}//{}{next}", authorities[side % authorities.len()])
                }
            };
            plan.insert(format!("/{case}/{hop}"), (status, location));
        }
    }
    let plan = Arc::new(plan);
    let mut origins = Vec::new();
    for at in [
        format!("0.0.0.0:{}", ports[0]),
        format!("127.0.0.1:{}", ports[1]),
        format!("127.0.0.1:{}", ports[2]),
    ] {
        origins.push(Origin::start_at(at.parse().unwrap(), script(Arc::clone(&plan))).await);
    }
    let (upstream, names) = upstream();
    names.set("other.test", &["127.0.0.1"]);
    names.set("127.0.0.1.other.test", &["127.0.0.1"]);
    let base = Url::parse(&format!("http://{own}/")).unwrap();
    let repository = repository(allow(with_secrets(&base), "127.0.0.0/8"));
    for case in 0..200 {
        let response = upstream
            .send(get(&repository, base.join(&format!("/{case}/0")).unwrap()))
            .await
            .unwrap();
        assert_eq!(response.status, 200, "case {case}");
    }
    let (mut at_home, mut abroad) = (0, 0);
    for seen in origins.iter().flat_map(Origin::seen) {
        if seen.field("host") == Some(&own) {
            at_home += 1;
            // "user:c4n4ry" in Base64 (RFC 4648), computed apart from larder.
            assert_eq!(
                seen.field("authorization"),
                Some("Basic dXNlcjpjNG40cnk="),
                "{}",
                seen.head
            );
            assert_eq!(
                seen.field("x-own-token"),
                Some("c4n4ry-own"),
                "{}",
                seen.head
            );
        } else {
            abroad += 1;
            assert!(seen.field("authorization").is_none(), "{}", seen.head);
            assert!(
                !seen.head.contains(CANARY) && !seen.head.contains("dXNlcj"),
                "{}",
                seen.head
            );
            assert!(
                seen.field("x-own-token").is_none() && seen.field("cookie").is_none(),
                "{}",
                seen.head
            );
        }
    }
    assert!(
        at_home > 300 && abroad > 300,
        "the dice must reach both: {at_home} {abroad}"
    );
}

#[tokio::test]
async fn hazard_s6_credentials_come_back_at_home_and_learned_urls_get_none() {
    let away = Origin::start(|_| ok("away")).await;
    let home = Origin::start(|_| ok("home")).await;
    let (upstream, _) = upstream();
    let repository = repository(allow(with_secrets(&home.url("/")), "127.0.0.0/8"));
    let learned = |url: Url| UpstreamRequest {
        learned: true,
        ..get(&repository, url)
    };
    assert_eq!(text(&upstream, learned(away.url("/x"))).await, "away");
    assert!(away.seen()[0].field("authorization").is_none());
    assert_eq!(text(&upstream, learned(home.url("/x"))).await, "home");
    assert!(
        home.seen()[0].field("authorization").is_some(),
        "a link back to the configured origin is the configured origin"
    );
}

#[tokio::test]
async fn hazard_s6_the_eleventh_redirect_is_refused() {
    let origin = Origin::start(|seen| {
        let n: u32 = seen.target()[1..].parse().unwrap();
        if n == 100 {
            ok("end")
        } else {
            redirect(302, &format!("/{}", n + 1))
        }
    })
    .await;
    let (upstream, _) = upstream();
    let repository = repository(with_secrets(&origin.url("/")));
    assert_eq!(
        text(&upstream, get(&repository, origin.url("/90"))).await,
        "end"
    );
    assert_eq!(origin.seen().len(), 11);
    assert_eq!(
        kind(upstream.send(get(&repository, origin.url("/89"))).await),
        UpstreamErrorKind::RefusedRedirect
    );
    assert_eq!(origin.seen().len(), 22);
    // The redirects had no bodies, so one connection carried them all.
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn the_final_url_is_reported_and_its_query_is_not_shown() {
    let origin = Origin::start(|seen| match seen.target() {
        "/a" => redirect(302, &format!("/b?signature={CANARY}#part")),
        _ => ok("b"),
    })
    .await;
    let (upstream, _) = upstream();
    let repository = repository(with_secrets(&origin.url("/")));
    let response = upstream
        .send(get(&repository, origin.url("/a")))
        .await
        .unwrap();
    assert_eq!(
        response.final_url,
        origin.url(&format!("/b?signature={CANARY}"))
    );
    assert!(!format!("{response:?}").contains(CANARY));
}

#[tokio::test]
async fn a_head_stays_a_head_and_a_post_is_not_redirected() {
    let origin = Origin::start(|seen| match seen.target() {
        "/a" => redirect(303, "/b"),
        _ => crate::origin::send("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"),
    })
    .await;
    let (upstream, _) = upstream();
    let repository = repository(with_secrets(&origin.url("/")));
    let head = UpstreamRequest {
        method: Method::HEAD,
        ..get(&repository, origin.url("/a"))
    };
    let response = upstream.send(head).await.unwrap();
    assert_eq!(
        (response.declared_length(), response.body.declared_length()),
        (Some(12345), Some(0))
    );
    assert_eq!(crate::support::read(response).await, (vec![], None));
    let methods: Vec<_> = origin
        .seen()
        .iter()
        .map(|seen| seen.method().to_owned())
        .collect();
    assert_eq!(methods, ["HEAD", "HEAD"]);

    let post = UpstreamRequest {
        method: Method::POST,
        body: Some("{}".into()),
        ..get(&repository, origin.url("/a"))
    };
    assert_eq!(
        kind(upstream.send(post).await),
        UpstreamErrorKind::RefusedRedirect
    );
    assert_eq!(origin.seen().len(), 3);
}

#[tokio::test]
async fn hazard_s6_user_info_in_a_location_is_refused_and_unknown_3xx_are_answers() {
    let origin = Origin::start(|seen| match seen.target() {
        "/a" => redirect(302, &format!("http://user:{CANARY}@127.0.0.1:1/")),
        "/b" => redirect(300, "/c"),
        _ => redirect(304, "/c"),
    })
    .await;
    let (upstream, _) = upstream();
    let repository = repository(with_secrets(&origin.url("/")));
    assert_eq!(
        kind(upstream.send(get(&repository, origin.url("/a"))).await),
        UpstreamErrorKind::RefusedRedirect
    );
    for (path, status) in [("/b", 300), ("/304", 304)] {
        assert_eq!(
            upstream
                .send(get(&repository, origin.url(path)))
                .await
                .unwrap()
                .status,
            status
        );
    }
    let mut with_user = origin.url("/c");
    with_user.set_password(Some(CANARY)).unwrap();
    assert_eq!(
        kind(upstream.send(get(&repository, with_user)).await),
        UpstreamErrorKind::RefusedAddress
    );
    assert_eq!(origin.seen().len(), 3);
}
