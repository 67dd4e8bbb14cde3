//! Who is not signed in, or no longer: what is said, and where one goes on.

use super::*;

#[tokio::test]
async fn who_was_signed_out_meanwhile_comes_back_to_the_page_of_the_form() {
    let (_origin, larder) = with_a_file().await;
    for (sent_to, page) in [
        ("ui/repositories/files/flush", "files/flush"),
        ("ui/repositories/files/warm", "files/outage"),
        ("ui/repositories/files/mirrors", "files"),
        (
            "ui/repositories/files/artifact/dir/a..b/warm",
            "files/artifact/dir/a..b/warm",
        ),
    ] {
        let answer = form(&larder, sent_to, &[("csrf", "of before")], &[]).await;
        assert_eq!(answer.status, 401, "{sent_to}");
        let page = format!("/ui/repositories/{page}");
        let text = answer.text();
        let link = text.split("/ui/login?to=").nth(1).expect("a link");
        let to = link.split('"').next().expect("its end");
        assert_eq!(to, page.replace('/', "%2F"), "{sent_to}");
        let fields = [("token", TOKEN), ("to", &*page)];
        let answer = form(&larder, "ui/login", &fields, &[]).await;
        assert_eq!(answer.header("location"), format!("..{page}"), "{sent_to}");
    }
}

/// What only takes forms is no dead end for whoever reads its address again.
#[tokio::test]
async fn addresses_of_forms_and_with_a_slash_too_many_lead_to_pages() {
    let (_origin, larder) = with_a_file().await;
    for (address, leads) in [
        (
            "ui/repositories/files/warm",
            "../../../ui/repositories/files/outage",
        ),
        (
            "ui/repositories/files/mirrors",
            "../../../ui/repositories/files",
        ),
        ("ui/jobs/7/cancel", "../../../ui/jobs/7"),
        ("ui/logout", "../ui/"),
        ("ui/health/", "../../ui/health"),
        ("ui/search/?q=a%20b", "../../ui/search?q=a%20b"),
        (
            "ui/login/?to=%2Fui%2Fjobs",
            "../../ui/login?to=%2Fui%2Fjobs",
        ),
    ] {
        let answer = page(&larder, address).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, leads),
            "{address}"
        );
    }
    assert_eq!(page(&larder, "ui/health//").await.status, 404);
}

#[tokio::test]
async fn a_wrong_token_is_refused_with_a_challenge_and_to_scripts_as_json() {
    let (_origin, larder) = with_a_file().await;
    let wrong = [("token", "wrong")];
    let answer = form(&larder, "ui/login", &wrong, &[("accept", BROWSER)]).await;
    assert_eq!(answer.status, 401);
    let challenge = answer.header("www-authenticate");
    assert_eq!(
        challenge, "Bearer realm=\"larder\"",
        "RFC 9110 section 15.5.2"
    );
    assert!(answer.text().contains("This is not the admin token"));
    let accept = [("accept", "application/json")];
    let answer = form(&larder, "ui/login", &wrong, &accept).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("www-authenticate"), challenge);
    assert_eq!(answer.json()["code"], "unauthorized");
    assert_eq!(answer.json()["rule"], "auth.admin_token");
}

/// A proxy that ends TLS and says nothing of it: the browser does.
#[tokio::test]
async fn hazard_the_cookie_of_who_came_by_https_is_secure() {
    let config = "public_url: https://larder.example.com/\nauth: { admin_token: a-token-for-tests }\nremotes: {}\n";
    let larder = TestLarder::start(config).await;
    let own = format!("http://{}", larder.address());
    for (origin, is_secure) in [("https://larder.example.com", true), (&*own, false)] {
        let headers = [("origin", origin)];
        let answer = form(&larder, "ui/login", &[("token", TOKEN)], &headers).await;
        assert_eq!(answer.status, 303, "{origin}: {}", answer.text());
        let cookie = answer.header("set-cookie");
        assert_eq!(cookie.contains("; Secure"), is_secure, "{origin}: {cookie}");
    }
}

/// The lines for clients may be wrong only where nobody has said the address; there, scripts compare it with the browser's.
#[tokio::test]
async fn a_page_can_tell_that_a_proxy_has_changed_the_address() {
    let (origin, larder) = with_a_file().await;
    let address = "ui/repositories/files";
    let text = page(&larder, address).await.text();
    let here = larder.artifact("files", "");
    let note = format!(
        "data-address=\"{}\" data-here=\"../../api/v1/remote/files\" hidden",
        here.trim_end_matches('/')
    );
    assert!(text.contains(&note), "{note}: {text}");
    assert_eq!(json(&larder, address).await["is_public"], false);
    let config = format!(
        "public_url: https://larder.example.com/\n{}",
        config(&origin)
    );
    let larder = TestLarder::start(&config).await;
    let text = page(&larder, address).await.text();
    assert!(!text.contains("data-address"), "{text}");
    assert_eq!(json(&larder, address).await["is_public"], true);
}
