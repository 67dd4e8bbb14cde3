use http::{HeaderMap, HeaderName, HeaderValue, Method};
use larder_core::{Pseudonym, Secret, Trail, field_text};
use larder_upstream::{
    Conditions, HttpUpstream, Options, Resume, Upstream, UpstreamErrorKind, UpstreamRequest,
    on_behalf, spawn,
};

use crate::origin::{Origin, Seen, ok, redirect};
use crate::support::{
    CANARY, allow, get, kind, repository, settings, text, upstream, with_secrets,
};

/// Sends `request` to a fresh origin and gives what arrived.
async fn seen(change: impl FnOnce(UpstreamRequest) -> UpstreamRequest) -> Seen {
    let origin = Origin::start(|_| ok("")).await;
    let (upstream, _) = upstream();
    let repository = repository(settings(&origin.url("/")));
    upstream
        .send(change(get(&repository, origin.url("/file?q=1#part"))))
        .await
        .unwrap();
    origin.seen().remove(0)
}

fn fields(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(n, v)| {
            (
                HeaderName::try_from(*n).unwrap(),
                HeaderValue::from_str(v).unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn hazard_s9_exactly_these_fields_are_sent() {
    let plain = seen(|request| request).await;
    assert_eq!(
        plain.fields(),
        ["accept", "accept-encoding", "host", "user-agent", "via"]
    );
    assert_eq!(plain.target(), "/file?q=1");
    assert_eq!(plain.field("accept-encoding"), Some("identity"));
    assert_eq!(plain.field("user-agent"), Some("larder/0.0-test"));

    let conditional = seen(|request| UpstreamRequest {
        accept: Some("application/json"),
        conditions: Conditions {
            if_none_match: Some("W/\"v1\"".to_owned()),
            if_modified_since: Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
        },
        ..request
    })
    .await;
    assert_eq!(conditional.field("accept"), Some("application/json"));
    assert_eq!(conditional.field("if-none-match"), Some("W/\"v1\""));
    assert_eq!(
        conditional.field("if-modified-since"),
        Some("Sun, 06 Nov 1994 08:49:37 GMT")
    );
    assert!(conditional.field("range").is_none());
}

#[tokio::test]
async fn hazard_s9_a_clients_secrets_and_conditions_do_not_pass_through() {
    let forbidden = [
        "authorization",
        "cookie",
        "set-cookie",
        "proxy-authorization",
        "x-forwarded-for",
        "x-forwarded-host",
        "forwarded",
        "via",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "range",
        "if-range",
        "if-none-match",
        "if-match",
        "if-modified-since",
        "if-unmodified-since",
        "referer",
        "expect",
        "x-real-ip",
        "content-length",
    ];
    let mut headers = fields(&forbidden.map(|name| (name, CANARY)));
    headers.extend(fields(&[
        ("host", "evil.test"),
        ("user-agent", "client"),
        ("accept-encoding", "gzip"),
        ("npm-command", "ci"),
    ]));
    let arrived = seen(|request| UpstreamRequest { headers, ..request }).await;
    assert_eq!(
        arrived.fields(),
        [
            "accept",
            "accept-encoding",
            "host",
            "npm-command",
            "user-agent",
            "via"
        ]
    );
    assert!(
        !arrived.head.contains(CANARY) && !arrived.head.contains("evil.test"),
        "{}",
        arrived.head
    );
    assert_eq!(arrived.field("user-agent"), Some("larder/0.0-test"));
    assert_eq!(arrived.field("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn hazard_s9_passed_fields_do_not_follow_to_another_origin() {
    let away = Origin::start(|_| ok("away")).await;
    let target = away.url("/").to_string();
    let home = Origin::start(move |_| redirect(307, &target)).await;
    let (upstream, _) = upstream();
    let repository = repository(allow(settings(&home.url("/")), "127.0.0.1/32"));
    let headers = fields(&[("npm-command", "ci")]);
    text(
        &upstream,
        UpstreamRequest {
            headers,
            ..get(&repository, home.url("/"))
        },
    )
    .await;
    assert_eq!(home.seen()[0].field("npm-command"), Some("ci"));
    assert_eq!(
        away.seen()[0].fields(),
        ["accept", "accept-encoding", "host", "user-agent", "via"]
    );
}

#[tokio::test]
async fn hazard_w1_a_resume_goes_out_with_its_strong_validator_or_not_at_all() {
    let resume = |if_range: &str| {
        Some(Resume {
            offset: 1000,
            if_range: if_range.to_owned(),
            vouched: false,
        })
    };
    let conditions = Conditions {
        if_none_match: Some("\"v1\"".to_owned()),
        if_modified_since: None,
    };
    let strong = seen(|request| UpstreamRequest {
        resume: resume("\"v1\""),
        conditions,
        ..request
    })
    .await;
    assert_eq!(
        (strong.field("range"), strong.field("if-range")),
        (Some("bytes=1000-"), Some("\"v1\""))
    );
    assert_eq!(
        strong.field("if-none-match"),
        None,
        "a 304 to a resume would say nothing"
    );
    for unusable in ["W/\"v1\"", "", "\"a\r\nb\""] {
        let arrived = seen(|request| UpstreamRequest {
            resume: resume(unusable),
            ..request
        })
        .await;
        assert_eq!(
            (arrived.field("range"), arrived.field("if-range")),
            (None, None),
            "{unusable:?}"
        );
    }
    // Unless a digest vouches for the whole.
    let vouched = Some(Resume {
        offset: 1000,
        if_range: String::new(),
        vouched: true,
    });
    let arrived = seen(|request| UpstreamRequest {
        resume: vouched,
        ..request
    })
    .await;
    assert_eq!(
        (arrived.field("range"), arrived.field("if-range")),
        (Some("bytes=1000-"), None)
    );
}

#[tokio::test]
async fn a_post_carries_its_body_and_type() {
    let arrived = seen(|request| UpstreamRequest {
        method: Method::POST,
        headers: fields(&[
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
        ]),
        body: Some("{\"a\":1}".into()),
        ..request
    })
    .await;
    assert_eq!(arrived.method(), "POST");
    assert_eq!(arrived.field("content-length"), Some("7"));
    assert_eq!(arrived.field("content-type"), Some("application/json"));
    assert_eq!(arrived.field("content-encoding"), Some("gzip"));
}

#[tokio::test]
async fn hazard_s14_configured_headers_are_checked_and_not_shown() {
    let origin = Origin::start(|_| ok("")).await;
    let (upstream, _) = upstream();
    for (name, value) in [
        ("X-Token", format!("{CANARY}\r\nX-Evil: 1")),
        ("Bad Name", CANARY.to_owned()),
        ("Transfer-Encoding", CANARY.to_owned()),
        ("Content-Length", "5".to_owned()),
        ("Accept-Encoding", "gzip".to_owned()),
    ] {
        let mut settings = with_secrets(&origin.url("/"));
        settings.headers = vec![(name.to_owned(), Secret::new(value))];
        let error = upstream
            .send(get(&repository(settings), origin.url("/")))
            .await
            .unwrap_err();
        assert!(error.message.contains(name), "{error}");
        assert_eq!(kind(Err(error)), UpstreamErrorKind::Protocol);
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn hazard_s17_nothing_that_is_printed_holds_a_secret() {
    let origin = Origin::start(|_| {
        crate::origin::send(format!("HTTP/1.1 200 OK\r\nSet-Cookie: {CANARY}\r\n\r\n"))
    })
    .await;
    let (upstream, _) = upstream();
    let repository = repository(with_secrets(&origin.url("/")));
    let mut request = get(&repository, origin.url(&format!("/x?token={CANARY}")));
    request.headers = fields(&[("npm-otp", CANARY)]);
    request.body = Some(CANARY.into());
    let shown = format!("{request:?}");
    let response = upstream.send(request).await.unwrap();
    for text in [shown, format!("{response:?}"), format!("{upstream:?}")] {
        assert!(!text.contains(CANARY), "{text}");
    }
}

/// What an origin sees of the larders that a request has passed.
fn via(seen: &Seen) -> Trail {
    Trail::of(&fields(&[("via", seen.field("via").expect("Via"))]))
}

/// RFC 9110 section 7.6.3: whoever sends a request on says so, in each; in work that is begun for a request, too.
#[tokio::test]
async fn loop_every_request_says_which_larders_it_has_passed() {
    let away = Origin::start(|_| ok("away")).await;
    let target = away.url("/").to_string();
    let home = Origin::start(move |_| redirect(307, &target)).await;
    let (own, before) = (Pseudonym::random(), Pseudonym::random());
    let upstream = std::sync::Arc::new(HttpUpstream::new(Options {
        pseudonym: own,
        ..Options::new("larder/0.0-test")
    }));
    let mut settings = allow(settings(&home.url("/")), "127.0.0.1/32");
    settings.headers = vec![("Via".to_owned(), Secret::new("1.0 configured".to_owned()))];
    let repository = repository(settings);
    for method in [Method::GET, Method::HEAD] {
        upstream
            .send(UpstreamRequest {
                method,
                ..get(&repository, home.url("/"))
            })
            .await
            .unwrap();
    }
    let passed = Trail::of(&fields(&[("via", &format!("1.1 fred, 1.1 {before}"))]));
    let work = async {
        let (upstream, request) = (
            std::sync::Arc::clone(&upstream),
            get(&repository, home.url("/")),
        );
        spawn(async move { upstream.send(request).await.map(drop) })
            .await
            .unwrap()
            .unwrap();
    };
    on_behalf(passed, work).await;
    assert!(
        away.seen().iter().all(|seen| via(seen).is_loop(own)),
        "redirects' hops as well"
    );
    let onward = away.seen().pop().unwrap();
    assert!(via(&onward).is_loop(before), "{}", onward.head);
    assert!(
        !onward.head.contains("fred"),
        "strangers' words are not carried on: {}",
        onward.head
    );
    assert!(
        home.seen()
            .iter()
            .all(|seen| seen.head.matches("larder-").count() >= 1),
        "beside a configured line"
    );
}

/// curl takes 5,000 fields and 300 KiB; RFC 9110 section 5.4 sets no limit.
#[tokio::test]
async fn many_or_long_fields_are_no_reason_to_refuse_an_answer() {
    for (count, length) in [
        (101, 1),
        (1_000, 10),
        (4_900, 20),
        (1, 12_000),
        (10, 12_000),
        (1, 200_000),
    ] {
        let lines = (0..count)
            .map(|n| format!("X-Field-{n}: {}\r\n", "v".repeat(length)))
            .collect::<Vec<_>>()
            .concat();
        let origin = Origin::start(move |_| {
            crate::origin::send(format!(
                "HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\nETag: \"last\"\r\n\r\nok"
            ))
        })
        .await;
        let (upstream, _) = upstream();
        let response = upstream
            .send(get(
                &repository(settings(&origin.url("/"))),
                origin.url("/"),
            ))
            .await
            .unwrap();
        assert_eq!(
            response.headers.len(),
            count + 2,
            "{count} fields of {length} bytes"
        );
        assert_eq!(response.header("etag"), Some("\"last\""));
    }
}

/// RFC 9110 section 8.8.3: an entity tag may hold obs-text; section 13.1.2: it is sent back as it came.
#[tokio::test]
async fn validators_of_any_octets_go_back_byte_for_byte() {
    let origin = Origin::start(|_| ok("")).await;
    let (upstream, _) = upstream();
    let repository = repository(settings(&origin.url("/")));
    for tag in [
        &b"\"\xe8\xb5\x84\""[..],
        b"\"caf\xe9\"",
        b"W/\"\xff\"",
        b"not well formed \xfc",
    ] {
        let text = field_text(&HeaderValue::from_bytes(tag).unwrap()).into_owned();
        let conditions = Conditions {
            if_none_match: Some(text.clone()),
            if_modified_since: None,
        };
        upstream
            .send(UpstreamRequest {
                conditions,
                ..get(&repository, origin.url("/"))
            })
            .await
            .unwrap();
        let mut line = b"if-none-match: ".to_vec();
        line.extend_from_slice(tag);
        let sent = origin.seen().pop().unwrap().raw;
        assert!(
            sent.windows(line.len())
                .any(|window| window.eq_ignore_ascii_case(&line)),
            "{tag:?}"
        );
    }
}
