//! What changes something: signing in, forms and what they must bring.

use std::time::Instant;

use larder_testkit::Resource;
use serde_json::json;

use super::support::PATIENCE;
use super::*;

#[tokio::test]
async fn a_session_begins_with_the_token_and_ends_with_the_form() {
    let (_origin, larder) = with_a_file().await;
    for wrong in ["", "a-token-for-test", "a-token-for-tests2"] {
        let answer = form(&larder, "ui/login", &[("token", wrong)], &[]).await;
        assert_eq!(answer.status, 401, "{wrong:?}");
        assert_eq!(answer.header("set-cookie"), "", "{wrong:?}");
        assert!(answer.text().contains("not the admin token"));
    }
    let answer = form(
        &larder,
        "ui/login",
        &[("token", TOKEN), ("to", "/ui/jobs")],
        &[],
    )
    .await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, "../ui/jobs")
    );
    let cookie = answer.header("set-cookie").to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Max-Age=43200"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "it came by plain HTTP");
    assert!(!cookie.contains(TOKEN), "the token is not in it");
    assert!(!larder.log().contains(TOKEN), "nor in the log");
    // Nobody is led away by signing in.
    let elsewhere = [("token", TOKEN), ("to", "https://evil.example.net/")];
    let answer = form(&larder, "ui/login", &elsewhere, &[]).await;
    assert_eq!(answer.header("location"), "../ui/");

    let visitor = sign_in(&larder).await;
    let headers = [("cookie", &*visitor.cookie)];
    let answer = form(&larder, "ui/logout", &[("csrf", "wrong")], &headers).await;
    assert_eq!(answer.status, 403);
    let answer = form(&larder, "ui/logout", &[("csrf", &visitor.csrf)], &headers).await;
    assert_eq!(answer.status, 303);
    assert!(
        answer
            .header("set-cookie")
            .contains("larder_session=; Max-Age=0")
    );
}

#[tokio::test]
async fn a_flush_asks_twice_and_then_forgets() {
    let (_origin, larder) = with_a_file().await;
    get(&larder.artifact("files", "dir/a.bin")).await;
    until_held(&larder, "files", 1).await;
    let visitor = sign_in(&larder).await;
    let headers = [("cookie", &*visitor.cookie)];
    let csrf = ("csrf", &*visitor.csrf);
    let address = "ui/repositories/files/flush";
    let first = [csrf, ("cache_type", "all"), ("pattern", "^dir/")];
    let answer = form(&larder, address, &first, &headers).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().contains("name=\"confirmed\" value=\"yes\""));
    assert_eq!(
        held(&larder, "files").await,
        1,
        "nothing is forgotten before it is confirmed"
    );
    for (fields, status) in [
        (vec![csrf, ("cache_type", "all"), ("pattern", "(")], 400),
        (vec![csrf, ("cache_type", "every")], 400),
    ] {
        let answer = form(&larder, address, &fields, &headers).await;
        assert_eq!(answer.status, status, "{fields:?}");
    }
    // The form comes back with what was wrong in it.
    let wrong = [csrf, ("cache_type", "files"), ("pattern", "^dir/(")];
    let text = form(&larder, address, &wrong, &headers).await.text();
    assert!(
        text.contains("no regular expression") && text.contains("value=\"^dir/(\""),
        "{text}"
    );
    let second = [first.as_slice(), &[("confirmed", "yes")]].concat();
    let answer = form(&larder, address, &second, &headers).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(held(&larder, "files").await, 0);
}

/// A form's token, header fields beside it, and the status that it is answered with.
type Case<'c> = (&'c str, &'c [(&'c str, &'c str)], u16);

/// Whatever is wrong with a form, nothing changes.
#[tokio::test]
async fn hazard_a_form_that_is_not_of_this_visitor_changes_nothing() {
    let (_origin, larder) = with_a_file().await;
    get(&larder.artifact("files", "dir/a.bin")).await;
    until_held(&larder, "files", 1).await;
    let visitor = sign_in(&larder).await;
    let other = sign_in(&larder).await;
    assert_ne!(visitor.csrf, other.csrf);
    let cookie = ("cookie", &*visitor.cookie);
    let bearer = format!("Bearer {TOKEN}");
    let own = format!("http://{}", larder.address());
    let cases: &[Case<'_>] = &[
        (&visitor.csrf, &[], 401),
        ("", &[cookie], 403),
        ("0", &[cookie], 403),
        (&other.csrf, &[cookie], 403),
        (
            &visitor.csrf,
            &[cookie, ("origin", "http://evil.example.net")],
            403,
        ),
        (&visitor.csrf, &[cookie, ("origin", "null")], 403),
        (
            &visitor.csrf,
            &[cookie, ("sec-fetch-site", "cross-site")],
            403,
        ),
        (
            &visitor.csrf,
            &[cookie, ("sec-fetch-site", "same-site")],
            403,
        ),
        (&visitor.csrf, &[("cookie", "larder_session=1.2.3")], 401),
        // A browser can be made to send no such header, but a form of the pages is a matter of the session.
        (&visitor.csrf, &[("authorization", &bearer)], 401),
    ];
    for address in ["ui/repositories/files/flush", "ui/repositories/files/warm"] {
        for (csrf, headers, status) in cases {
            let fields = [("csrf", *csrf), ("cache_type", "all"), ("confirmed", "yes")];
            let answer = form(&larder, address, &fields, headers).await;
            assert_eq!(
                answer.status,
                *status,
                "{address} {headers:?}: {}",
                answer.text()
            );
        }
    }
    assert_eq!(held(&larder, "files").await, 1);
    let json = client()
        .post(larder.url("ui/repositories/files/flush"))
        .header("cookie", &visitor.cookie)
        .header("content-type", "application/json")
        .body("{}");
    assert_eq!(json.send().await.expect("an answer").status(), 400);
    // What a browser sends with a form of larder's own.
    let headers = [cookie, ("origin", &*own), ("sec-fetch-site", "same-origin")];
    let fields = [
        ("csrf", &*visitor.csrf),
        ("cache_type", "all"),
        ("confirmed", "yes"),
    ];
    let answer = form(&larder, "ui/repositories/files/flush", &fields, &headers).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(held(&larder, "files").await, 0);
}

#[tokio::test]
async fn without_a_token_nothing_can_be_changed_and_the_page_says_what_opens_it() {
    let origin = Origin::start().await;
    let open = config(&origin);
    let open = open.split_once('\n').expect("the token's line").1;
    let larder = TestLarder::start(open).await;
    let text = page(&larder, "ui/repositories/files/flush").await.text();
    assert!(text.contains("auth.admin_token") && !text.contains("name=\"csrf\" value=\"0"));
    let text = page(&larder, "ui/login").await.text();
    assert!(text.contains("auth.admin_token") && !text.contains("type=\"password\""));
    for address in ["ui/login", "ui/repositories/files/flush"] {
        let fields = [("token", ""), ("cache_type", "all"), ("confirmed", "yes")];
        let answer = form(&larder, address, &fields, &[]).await;
        assert_eq!(answer.status, 401, "{address}");
        assert!(answer.text().contains("auth.admin_token"), "{address}");
    }
    // Reading what shows the configuration is open, as it is elsewhere.
    assert_eq!(page(&larder, "ui/configuration").await.status, 200);
    assert_eq!(
        page(&larder, "ui/explain?url=files/a.bin").await.status,
        200
    );
}

#[tokio::test]
async fn a_job_is_shown_and_cancelled() {
    let (origin, larder) = with_a_file().await;
    for number in 0..40 {
        origin.put(&format!("/slow/{number}.bin"), Resource::new("x"));
        origin.hold(&format!("/slow/{number}.bin"));
    }
    let paths: Vec<String> = (0..40).map(|number| format!("slow/{number}.bin")).collect();
    let made = client()
        .post(larder.url("api/v1/artifacts/files/cache"))
        .header("authorization", format!("Bearer {TOKEN}"))
        .body(json!({"paths": paths}).to_string());
    let made = made.send().await.expect("an answer");
    assert_eq!(made.status(), 202);
    let body = made.bytes().await.expect("a body");
    let made: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let id = made["id"].as_str().expect("an id");
    let address = format!("ui/jobs/{id}");
    let shown = super::json(&larder, &address).await;
    assert_eq!(
        (
            &shown["job"]["repository"],
            shown["items"].as_array().expect("files").len()
        ),
        (&json!("files"), 40)
    );
    assert!(page(&larder, "ui/jobs").await.text().contains(id));

    let visitor = sign_in(&larder).await;
    let headers = [("cookie", &*visitor.cookie)];
    let cancel = format!("{address}/cancel");
    assert_eq!(form(&larder, &cancel, &[], &headers).await.status, 403);
    let answer = form(&larder, &cancel, &[("csrf", &visitor.csrf)], &headers).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert_eq!(answer.header("location"), format!("../../../ui/jobs/{id}"));
    let shown = super::json(&larder, &address).await;
    assert_eq!(shown["job"]["state"], "cancelled");
}

/// What was flushed would be missing if the upstream died, and one form fetches it.
#[tokio::test]
async fn what_an_outage_would_leave_out_is_fetched_by_one_form() {
    let (_origin, larder) = with_a_file().await;
    get(&larder.artifact("files", "dir/a.bin")).await;
    until_held(&larder, "files", 1).await;
    let visitor = sign_in(&larder).await;
    let headers = [("cookie", &*visitor.cookie)];
    let csrf = ("csrf", &*visitor.csrf);
    // Nothing is missing yet, and no job is made for that.
    let warm = "ui/repositories/files/warm";
    let answer = form(&larder, warm, &[csrf], &headers).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let all = [csrf, ("cache_type", "all"), ("confirmed", "yes")];
    let answer = form(&larder, "ui/repositories/files/flush", &all, &headers).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let began = Instant::now();
    loop {
        let shown = super::json(&larder, "ui/repositories/files/outage").await;
        let missing = shown["missing"].as_array().expect("a list");
        if missing.iter().any(|path| path["path"] == "dir/a.bin") {
            break;
        }
        assert!(began.elapsed() < 4 * PATIENCE, "{shown}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let answer = form(&larder, warm, &[csrf], &headers).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert!(answer.header("location").contains("/ui/jobs/"));
    until_held(&larder, "files", 1).await;
}

/// Queries may be secrets, and are not shown: what is held under a path goes with all of them, and no job asks for it.
#[tokio::test]
async fn a_path_is_dropped_with_all_its_queries() {
    let (origin, larder) = with_a_file().await;
    let path = "dir/deep/er/c.bin";
    origin.put(&format!("/{path}"), Resource::new("the bytes of c"));
    get(&larder.artifact("files", "dir/a.bin")).await;
    for query in ["sig=1", "sig=2"] {
        let address = format!("{}?{query}", larder.artifact("files", path));
        assert_eq!(get(&address).await.status, 200);
    }
    larder.until_idle().await;
    let address = format!("ui/repositories/files/artifact/{path}");
    let shown = super::json(&larder, &address).await;
    let copies = shown["copies"].as_array().expect("a list");
    assert_eq!(copies.len(), 2, "{shown}");
    let visitor = sign_in(&larder).await;
    let headers = [("cookie", &*visitor.cookie)];
    let csrf = ("csrf", &*visitor.csrf);
    let answer = form(&larder, &address, &[csrf, ("action", "refetch")], &headers).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let answer = form(&larder, &address, &[csrf, ("action", "drop")], &headers).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    let leads = answer.header("location");
    assert!(
        leads.ends_with("/ui/repositories/files/browse/dir/"),
        "what is empty has no page: {leads}"
    );
    assert_eq!(page(&larder, &address).await.status, 404);
    assert_eq!(held(&larder, "files").await, 1, "the other one stays");
    let last = "ui/repositories/files/artifact/dir/a.bin";
    let answer = form(&larder, last, &[csrf, ("action", "drop")], &headers).await;
    let leads = answer.header("location");
    assert!(leads.ends_with("/ui/repositories/files/browse/"), "{leads}");
    let answer = form(&larder, last, &[csrf, ("action", "drop")], &headers).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
}

/// A job is no client: what it asks for in vain is missed by nobody.
#[tokio::test]
async fn what_only_jobs_ask_for_is_not_missing() {
    let (_origin, larder) = with_a_file().await;
    let made = client()
        .post(larder.url("api/v1/artifacts/files/cache"))
        .header("authorization", format!("Bearer {TOKEN}"))
        .body(json!({"paths": ["dir/none.bin", "dir/a.bin"]}).to_string());
    let made = made.send().await.expect("an answer").bytes().await;
    let made: serde_json::Value = serde_json::from_slice(&made.expect("a body")).expect("a job");
    let address = format!("ui/jobs/{}", made["id"].as_str().expect("an id"));
    let began = Instant::now();
    while super::json(&larder, &address).await["job"]["state"] != "done" {
        assert!(began.elapsed() < PATIENCE, "the job does not end");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let outage = "ui/repositories/files/outage";
    let shown = super::json(&larder, outage).await;
    assert_eq!(shown["missing"], json!([]), "{shown}");
    get(&larder.artifact("files", "dir/none.bin")).await;
    let shown = super::json(&larder, outage).await;
    assert_eq!(shown["missing"][0]["requests"], 1, "{shown}");
    // With a query it is marked, and left out of what is fetched.
    get(&format!(
        "{}?token=s3cret",
        larder.artifact("files", "dir/other.bin")
    ))
    .await;
    let text = page(&larder, outage).await.text();
    assert!(
        text.contains("with a query") && !text.contains("s3cret"),
        "{text}"
    );
}
