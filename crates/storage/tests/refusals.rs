//! What answers in a store's place and is none, or is one that refuses: it is noticed, and the last reason is the one that is told.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

use std::sync::Arc;

use larder_core::Secret;
use larder_storage::{ObjectStore as _, S3Objects, S3Settings};
use larder_testkit::{Behaviour, Origin, Resource};

fn objects(store: &Origin) -> S3Objects {
    let key = |text: &str| Secret::new(text.to_owned());
    let settings = S3Settings {
        endpoint: store.address().to_string(),
        secure: false,
        bucket: "artifacts".to_owned(),
        region: "us-east-1".to_owned(),
        path_style: true,
        prefix: String::new(),
        keys: Some((key("access"), key("secret"))),
        platform: Vec::new(),
        ca: None,
        public: None,
        checksums: false,
        proxies: None,
    };
    S3Objects::new(settings, Arc::default()).unwrap()
}

#[tokio::test]
async fn whatever_is_no_stores_answer_is_trouble_and_the_last_reason_counts() {
    let store = Origin::start().await;
    store.put("/artifacts", Resource::new(""));
    let objects = objects(&store);
    objects.ping().await;
    assert_eq!(objects.trouble(), None);
    for (status, said) in [
        (429, "429"),
        (404, "no bucket artifacts"),
        (403, "credentials"),
        (405, "405"),
        (407, "407"),
        (400, "400"),
    ] {
        store.behave("/artifacts", Behaviour::Status(status));
        objects.ping().await;
        let (why, _) = objects.trouble().expect("trouble");
        assert!(why.contains(said), "{status}: {why}");
    }
    store.clear("/artifacts");
    objects.ping().await;
    assert_eq!(objects.trouble(), None);
}
