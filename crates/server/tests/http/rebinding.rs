//! DNS rebinding: a web page whose own name has been made to lead to loopback reads nothing by its visitor's browser.

use larder_server::LiveSettings;

use crate::harness::{Script, Server, Spec, etag, settings};

const BROWSER: (&str, &str) = (
    "User-Agent",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
);
const FOREIGN: (&str, &str) = ("Host", "evil.example:8000");

/// Every endpoint that is read, and what it answers to whoever may read it.
const READ: &[(&str, u16)] = &[
    ("/", 200),
    ("/health", 200),
    ("/ready", 200),
    ("/live", 200),
    ("/config", 200),
    ("/metrics", 200),
    ("/api/openapi.json", 200),
    ("/api/v1/artifacts", 200),
    ("/api/v1/virtual/all/index.yaml", 501),
    ("/api/v1/remote/files/x", 200),
    ("/api/v1/remote/absent/x", 404),
    ("/v2/", 200),
    ("/v2/_catalog", 200),
    ("/hub/v2/", 200),
    ("/nowhere", 404),
];

async fn serving(settings: larder_server::ServerSettings) -> Server {
    let server = Server::with(settings).await;
    let spec = Spec {
        representation: etag("v1"),
        hot: true,
        ..Spec::default()
    };
    server.script("x", Script::Bytes("private".into(), spec));
    server
}

#[tokio::test]
async fn hazard_a_browser_led_here_by_a_foreign_name_reads_nothing() {
    let server = serving(settings()).await;
    // Once more when all that can be hot is hot.
    for _ in 0..2 {
        for (path, status) in READ {
            for method in ["GET", "HEAD"] {
                let answer = server.ask(method, path, &[FOREIGN, BROWSER]).await;
                assert_eq!(answer.status, 421, "{method} {path}");
                assert!(
                    method == "HEAD" || answer.text().contains("public_url"),
                    "{path}: {}",
                    answer.text()
                );
                for others in [
                    &[FOREIGN][..],
                    &[BROWSER],
                    &[FOREIGN, ("User-Agent", "npm/12.0.0 node/v24.1.0")],
                ] {
                    assert_eq!(
                        server.ask(method, path, others).await.status,
                        *status,
                        "{method} {path} {others:?}"
                    );
                }
            }
        }
    }
    let refused = server
        .ask("GET", "/v2/hub/x/manifests/latest", &[FOREIGN, BROWSER])
        .await;
    assert!(
        refused.json()["errors"].is_array(),
        "the form of OCI: {}",
        refused.text()
    );
    for (method, path) in [
        ("PUT", "/cache/flush"),
        ("POST", "/api/v1/remote/npm/-/audit"),
        ("DELETE", "/api/v1/remote/files/x"),
    ] {
        assert_eq!(
            server.ask(method, path, &[FOREIGN, BROWSER]).await.status,
            421,
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn browsers_may_use_the_machine_s_own_names_its_addresses_and_those_that_are_configured() {
    let host_names = ["larder.example", "npm.example"].map(str::to_owned).into();
    let server = serving(larder_server::ServerSettings {
        live: LiveSettings {
            host_names,
            ..settings().live
        },
        ..settings()
    })
    .await;
    for host in [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1:8000",
        "[::1]",
        "192.0.2.7",
        "larder.example",
        "NPM.example:8443",
    ] {
        assert_eq!(
            server
                .ask("GET", "/api/v1/remote/files/x", &[("Host", host), BROWSER])
                .await
                .status,
            200,
            "{host}"
        );
    }
    assert_eq!(
        server.ask("GET", "/live", &[FOREIGN, BROWSER]).await.status,
        421
    );
    // A reload takes names away.
    server.handle.replace_live(settings().live);
    assert_eq!(
        server
            .ask("GET", "/live", &[("Host", "larder.example"), BROWSER])
            .await
            .status,
        421
    );
}

/// Elsewhere whoever reaches the address reads, by whatever name.
#[tokio::test]
async fn a_server_that_does_not_listen_on_loopback_answers_under_any_name() {
    let everywhere = larder_server::ServerSettings {
        listen: vec!["0.0.0.0:0".parse().unwrap()],
        ..settings()
    };
    let mut server = serving(everywhere).await;
    server.address.set_ip([127, 0, 0, 1].into());
    assert_eq!(
        server
            .ask("GET", "/api/v1/remote/files/x", &[FOREIGN, BROWSER])
            .await
            .status,
        200
    );
}
