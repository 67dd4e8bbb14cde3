//! What is published to a virtual repository: it goes to the local one that `default_local` names, and nowhere without.

use larder_testkit::Origin;

use crate::support::packages::entry;
use crate::support::{TestLarder, check, get, send};
use crate::{of, put_charts};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_goes_to_the_local_member_that_is_named() {
    let one = Origin::start().await;
    put_charts(&one, "/", "one", &[("vault", "0.27.0")]);
    let larder = TestLarder::start(&format!(
        "remotes:\n{}  own: {{ type: local, package: helm }}\n  \
         inner: {{ type: virtual, package: helm, members: [own] }}\n  \
         all: {{ type: virtual, package: helm, members: [inner, one], default_local: own }}\n",
        entry("one", "helm", &one, ""),
    ))
    .await;
    for method in ["PUT", "DELETE"] {
        let answer = send(method, &of(&larder, "all", "demo-1.0.0.tgz"), &[]).await;
        // Of a local Helm repository nothing but its name is built.
        assert_eq!(answer.status, 501, "{method}: {}", answer.text());
        assert_eq!(answer.json()["repository"], "own", "{method}");
    }
    for method in ["POST", "PATCH"] {
        let answer = send(method, &of(&larder, "all", "demo-1.0.0.tgz"), &[]).await;
        assert_eq!(answer.status, 405, "{method}: {}", answer.text());
        assert_eq!(answer.header("allow"), "GET, HEAD, PUT, DELETE", "{method}");
    }
    assert_eq!(
        send("PUT", &of(&larder, "inner", "demo-1.0.0.tgz"), &[])
            .await
            .status,
        405,
        "what one names holds for no other"
    );
    let config = get(&larder.url("config")).await.json();
    assert_eq!(config["remotes"]["all"]["default_local"], "own");
}

/// What is published must be seen where it was published to.
#[test]
fn it_must_be_a_local_repository_among_the_members() {
    for (named, why) in [
        ("nobody", "does not exist"),
        ("one", "is a remote"),
        ("stray", "is no member"),
    ] {
        let (may_start, said) = check(&format!(
            "remotes:\n  one: {{ package: helm, base_url: 'http://charts.example.com' }}\n  \
             own: {{ type: local, package: helm }}\n  stray: {{ type: local, package: helm }}\n  \
             all: {{ type: virtual, package: helm, members: [one, own], default_local: {named} }}\n"
        ));
        let expected = format!("`default_local: {named}` of `all` must name a local repository");
        assert!(!may_start && said.contains(&expected), "{why}: {said}");
    }
}
