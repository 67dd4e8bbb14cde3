//! What the server hands to the pipeline of what it counts, and of errors.

use larder_core::{ErrorCode, Fault, FaultKind};
use larder_engine::{Figures, Representation};

use crate::harness::{Script, Server, Spec};

fn path(of: &str) -> String {
    format!("/api/v1/remote/files/{of}")
}

#[tokio::test]
async fn requests_are_counted_by_how_they_were_answered() {
    let server = Server::start().await;
    let hot = Spec {
        representation: Representation::default(),
        hot: true,
        ..Spec::default()
    };
    server.script("hot", Script::Bytes("12345".into(), hot));
    server.script("through", Script::Through("123".into()));
    let refuse = |kind, code| Script::Refuse(Fault::new(kind, code, "no"));
    server.script(
        "denied",
        refuse(FaultKind::Forbidden, ErrorCode::PatternDenied),
    );
    server.script(
        "away",
        refuse(FaultKind::BadGateway, ErrorCode::UpstreamUnreachable),
    );
    for of in [
        "hot", "hot", "hot", "hot", "denied", "denied", "away", "none", "through",
    ] {
        server.ask("GET", &path(of), &[]).await;
    }
    server.ask("HEAD", &path("hot"), &[]).await;
    server.ask("GET", "/live", &[]).await;
    let source = server.fake.traffic.lock().unwrap().clone().unwrap();
    let all = source.traffic();
    let files = all.iter().find(|(name, _)| name == "files").unwrap().1;
    let expected = Figures {
        requests: 10,
        hits: 5,
        // What is passed through is neither.
        misses: 0,
        stale: 0,
        errors: 1,
        refused: 2,
        served_bytes: 4 * 5 + 3,
        fetched_bytes: 0,
    };
    assert_eq!(files, expected);
}

#[tokio::test]
async fn errors_are_noted_with_their_requests_and_ordinary_answers_are_not() {
    let server = Server::start().await;
    let away = Fault::new(
        FaultKind::BadGateway,
        ErrorCode::UpstreamUnreachable,
        "the upstream of files does not answer",
    );
    server.script("away", Script::Refuse(away));
    server.script(
        "cut",
        Script::Frames(vec![Some("12".into()), None], Some(4)),
    );
    server.ask("GET", &path("none"), &[]).await;
    server.ask("GET", &path("away?token=s3cret"), &[]).await;
    let last = server.ask("GET", &path("away"), &[]).await;
    let errors = server.fake.errors.all();
    assert_eq!(errors.len(), 1);
    let error = &errors[0];
    assert_eq!(
        (&*error.repository, error.code, error.times),
        ("files", ErrorCode::UpstreamUnreachable, 2)
    );
    assert_eq!(error.path, path("away"));
    assert_eq!(Some(&*error.request_id), last.header("x-request-id"));
    assert_eq!(error.message, "the upstream of files does not answer");
    let cut = server.ask("GET", &path("cut"), &[]).await;
    assert!(!cut.complete);
    let errors = server.fake.errors.all();
    let seen: Vec<_> = errors
        .iter()
        .map(|error| (&*error.path, error.code))
        .collect();
    let expected = [
        ("/api/v1/remote/files/cut", ErrorCode::UpstreamCut),
        ("/api/v1/remote/files/away", ErrorCode::UpstreamUnreachable),
    ];
    assert_eq!(seen, expected);
    assert_eq!(Some(&*errors[0].request_id), cut.header("x-request-id"));
}
