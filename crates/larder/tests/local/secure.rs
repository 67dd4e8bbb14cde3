//! The same over TLS and HTTP/2, where an answer ends a stream and not the connection.

use reqwest::Certificate;

use crate::support::Setup;
use crate::support::client::builder;
use crate::{CONFIG, stored, try_put};

#[tokio::test(flavor = "multi_thread")]
async fn uploads_over_http_2_are_taken_and_refused_in_words() {
    let folder = tempfile::tempdir().expect("a directory");
    let made =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).expect("written");
    std::fs::write(
        folder.path().join("key.pem"),
        made.signing_key.serialize_pem(),
    )
    .expect("written");
    let root = Certificate::from_pem(made.cert.pem().as_bytes()).expect("a root");
    let client = builder().tls_certs_only([root]).build().expect("a client");
    let tls = format!(
        "\ntls: {{ cert: '{0}/cert.pem', key: '{0}/key.pem' }}\n",
        folder.path().display()
    );
    let larder = Setup::new(&format!("{CONFIG}{tls}")).start().await;
    let url = larder.artifact("files", "large");
    let body = vec![7; 3 << 20];
    let answer = try_put(&client, &url, body.clone(), &[])
        .await
        .expect("an answer");
    assert_eq!(answer.status, 201, "{}", answer.text());
    let answer = client.get(&url).send().await.expect("an answer");
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    assert!(answer.bytes().await.expect("a body") == body);
    // What is refused before its body is read, and what is refused in the midst of it.
    for length in [1_001, 3 << 20] {
        let refused = try_put(
            &client,
            &larder.artifact("small", "a"),
            vec![1; length],
            &[],
        )
        .await;
        let refused = refused.expect("an answer");
        assert_eq!(
            (refused.status, refused.json()["rule"].as_str()),
            (413, Some("max_size"))
        );
        let parts = (0..=length / 1_000).map(|_| Ok::<_, std::io::Error>(vec![1_u8; 1_000]));
        let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(parts));
        let refused = try_put(&client, &larder.artifact("small", "a"), stream, &[]).await;
        let refused = refused.expect("an answer");
        assert_eq!(
            (refused.status, refused.json()["rule"].as_str()),
            (413, Some("max_size"))
        );
    }
    // A client that goes away in the midst of a body.
    let parts = (0..2).map(|number| match number {
        0 => Ok(vec![1_u8; 1_000]),
        _ => Err(std::io::Error::other("it goes away")),
    });
    let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(parts));
    assert!(
        try_put(&client, &larder.artifact("files", "cut"), stream, &[])
            .await
            .is_err()
    );
    let cut = client
        .get(larder.artifact("files", "cut"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(cut.status(), 404);
    assert_eq!(stored(&larder).len(), 1, "{:?}", stored(&larder));
}
