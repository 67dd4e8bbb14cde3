//! Wrong admin tokens: whoever guesses has to wait, by the form and by the API alike, and nobody else.

use std::time::{Duration, Instant};

use super::*;

/// A larder that believes what this machine says of who asks.
async fn behind_a_proxy() -> (Origin, TestLarder) {
    let origin = Origin::start().await;
    origin.put("/dir/a.bin", Resource::new("the bytes of a"));
    let config = format!("trusted_proxies: [127.0.0.0/8]\n{}", config(&origin));
    (origin, TestLarder::start(&config).await)
}

const GUESSER: (&str, &str) = ("x-forwarded-for", "2001:db8:0:1::7");
/// Another host of the same network.
const BESIDE: (&str, &str) = ("x-forwarded-for", "2001:db8:0:1::8");
const OTHER: (&str, &str) = ("x-forwarded-for", "2001:db8:0:2::7");

async fn sign_in_with(larder: &TestLarder, token: &str, from: (&str, &str)) -> Answer {
    form(larder, "ui/login", &[("token", token)], &[from]).await
}

async fn ask_with(larder: &TestLarder, token: &str, from: (&str, &str), path: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let method = if path.ends_with("flush") {
        "PUT"
    } else {
        "GET"
    };
    let headers = [
        ("authorization", &*bearer),
        from,
        ("accept", "application/json"),
    ];
    send(method, &larder.url(path), &headers).await
}

/// Guesses until larder no longer listens; gives when that was, and for how long.
async fn guess(larder: &TestLarder) -> (Instant, Duration) {
    for number in 0..40 {
        let token = format!("guess {number}");
        let answer = if number % 2 == 0 {
            sign_in_with(larder, &token, GUESSER).await
        } else {
            ask_with(larder, &token, GUESSER, "cache/flush").await
        };
        if answer.status == 429 {
            let seconds: u64 = answer.header("retry-after").parse().expect("seconds");
            assert!(number >= 10, "the first ten are looked at");
            return (Instant::now(), Duration::from_secs(seconds));
        }
        assert_eq!(answer.status, 401, "{number}: {}", answer.text());
    }
    panic!("forty wrong tokens were looked at");
}

#[tokio::test]
async fn hazard_who_guesses_tokens_has_to_wait_and_nobody_else_has_to() {
    let (_origin, larder) = behind_a_proxy().await;
    get(&larder.artifact("files", "dir/a.bin")).await;
    let (since, wait) = guess(&larder).await;
    // From everywhere else the right token opens everything.
    assert_eq!(sign_in_with(&larder, TOKEN, OTHER).await.status, 303);
    assert_eq!(
        ask_with(&larder, TOKEN, OTHER, "cache/flush").await.status,
        200
    );
    // Reading needs no token, so one that is sent with it is nobody's business.
    let read = ask_with(&larder, TOKEN, GUESSER, "api/v1/remote/files/dir/a.bin").await;
    assert_eq!(read.status, 200);
    for path in [
        "cache/flush",
        "api/v1/explain/files/dir/a.bin",
        "ui/explain?url=files/dir/a.bin",
        "ui/configuration",
    ] {
        let answer = ask_with(&larder, TOKEN, BESIDE, path).await;
        if since.elapsed() < wait {
            assert_eq!(answer.status, 429, "{path}: {}", answer.text());
            assert_eq!(answer.json()["code"], "too_many_attempts", "{path}");
            assert_ne!(answer.header("retry-after"), "", "{path}");
        }
    }
    let answer = sign_in_with(&larder, TOKEN, BESIDE).await;
    if since.elapsed() < wait {
        assert_eq!(answer.status, 429, "{}", answer.text());
        assert_eq!(answer.header("set-cookie"), "");
        assert_ne!(answer.header("retry-after"), "");
        assert!(answer.text().contains("Too many wrong tokens"));
        assert!(
            answer.text().contains("name=\"token\""),
            "the form is there"
        );
    }
    tokio::time::sleep(wait.saturating_sub(since.elapsed())).await;
    assert_eq!(sign_in_with(&larder, TOKEN, GUESSER).await.status, 303);
}

/// A client that is set up with a wrong token sends it again and again.
#[tokio::test]
async fn the_same_wrong_token_again_is_no_guess() {
    let (_origin, larder) = behind_a_proxy().await;
    for _ in 0..40 {
        let answer = ask_with(&larder, "of-another-larder", GUESSER, "cache/flush").await;
        assert_eq!(answer.status, 401);
    }
    assert_eq!(sign_in_with(&larder, TOKEN, GUESSER).await.status, 303);
}
