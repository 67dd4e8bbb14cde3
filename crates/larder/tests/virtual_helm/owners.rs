//! Whose a name is: however an index writes it, and whatever files are called.

use larder_testkit::{Origin, Resource};

use crate::support::packages::entry;
use crate::support::{TestLarder, get};
use crate::{all, archives, index, of, put_charts, urls};

/// `public` and `own`, and `all` of them; `keys` are `own`'s, and `further` is `all`'s.
async fn over(public: &Origin, own: &Origin, keys: &str, further: &str) -> TestLarder {
    let config = format!(
        "remotes:\n{}{}{}",
        entry("public", "helm", public, ""),
        entry("own", "helm", own, keys),
        all("all", &["public", "own"], further)
    );
    TestLarder::start(&config).await
}

/// Helm reads `secret` in each of these.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_its_owner_s_however_it_is_written() {
    let (public, own) = (Origin::start().await, Origin::start().await);
    put_charts(&public, "/", "public", &[("secret", "9.9.9")]);
    for version in [
        "{home: &n secret, name: *n, version: 1.0.0, urls: [s.tgz]}",
        "{<<: &base {name: secret, apiVersion: v2}, version: 1.0.0, urls: [s.tgz]}",
        "\n    name: \"sec\\\n      ret\"\n    version: 1.0.0\n    urls:\n    - s.tgz",
        "{Name: secret, version: 1.0.0, urls: [s.tgz]}",
        "{version: 1.0.0, urls: [s.tgz]}",
    ] {
        let body = format!("apiVersion: v1\nentries:\n  secret:\n  - {version}\n");
        own.put("/index.yaml", Resource::new(body).content_type("text/yaml"));
        let larder = over(&public, &own, "authoritative: true", "").await;
        let answer = index(&larder).await;
        assert_eq!(answer.status, 200, "{version}");
        assert!(
            !answer.text().contains("9.9.9"),
            "{version}: {}",
            answer.text()
        );
        for path in ["secret-9.9.9.tgz", "_m/public/secret-9.9.9.tgz"] {
            let file = get(&of(&larder, "all", path)).await;
            assert_eq!(file.status, 404, "{path}: {version}");
        }
    }
    assert_eq!(public.count("GET", "/secret-9.9.9.tgz"), 0);
}

/// Names that others' names begin with.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_merged_index_lists_is_there() {
    let (public, own) = (Origin::start().await, Origin::start().await);
    let charts = [
        ("acme-v2", "1.0.0"),
        ("acme-vault", "2.0.0"),
        ("kube", "9.0.0"),
        ("kube-1password", "1.0.0"),
    ];
    put_charts(&public, "/", "public", &charts);
    put_charts(&own, "/", "own", &[("kube", "1.0.0")]);
    let listed = [
        "acme-v2-1.0.0",
        "acme-vault-2.0.0",
        "kube-1.0.0",
        "kube-1password-1.0.0",
    ];
    for further in ["", "member_urls: virtual"] {
        let larder = over(
            &public,
            &own,
            "authoritative: true\nreserved: [acme]",
            further,
        )
        .await;
        let answer = index(&larder).await;
        assert_eq!(archives(&answer), listed);
        for link in urls(&answer) {
            assert_eq!(get(&link).await.status, 200, "{link}");
        }
        for name in listed {
            let file = get(&of(&larder, "all", &format!("{name}.tgz"))).await;
            assert_eq!(file.status, 200, "{name}: {}", file.text());
        }
    }
    assert_eq!(public.count("GET", "/kube-9.0.0.tgz"), 0);
}

/// What an index calls a file counts, and no file takes the place of another's by its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_of_the_chart_that_the_index_says() {
    let (public, own) = (Origin::start().await, Origin::start().await);
    let version = |name: &str, file: &str| {
        format!("  {name}:\n  - name: {name}\n    version: 1.0.0\n    urls:\n    - {file}\n")
    };
    let files = ["kube-9.0.0.tgz", "other-1.0.0.tgz", "both.tgz"];
    let entries = [
        version("free", files[0]),
        version("kube", files[1]),
        version("mine", files[2]),
        version("yours", files[2]),
    ];
    let body = format!("apiVersion: v1\nentries:\n{}", entries.concat());
    public.put("/index.yaml", Resource::new(body).content_type("text/yaml"));
    for file in files {
        public.put(&format!("/{file}"), Resource::new("archive"));
    }
    put_charts(&own, "/", "own", &[("kube", "1.0.0"), ("yours", "1.0.0")]);
    let larder = over(&public, &own, "authoritative: true", "member_urls: virtual").await;
    for (path, status) in [
        // Listed as `free`; by its name alone it would be the owner's.
        ("_m/public/kube-9.0.0.tgz", 200),
        ("kube-9.0.0.tgz", 404),
        // Listed as `kube`, of which the merged index has the owner's alone.
        ("_m/public/other-1.0.0.tgz", 404),
        ("other-1.0.0.tgz", 404),
        ("_m/public/both.tgz", 404),
        ("_m/own/kube-1.0.0.tgz", 200),
        ("kube-1.0.0.tgz", 200),
    ] {
        let answer = get(&of(&larder, "all", path)).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        larder.until_idle().await;
        let explained = get(&larder.url(&format!("api/v1/explain/all/{path}")))
            .await
            .json();
        let is_refused = explained["verdict"]["value"] == "refuse";
        // The owner is asked for what bears its name, and has nothing of the kind.
        let is_asked_of_owner = explained["member"]["value"] == "own";
        assert_eq!(
            is_refused || is_asked_of_owner,
            status == 404 || path.contains("kube-1"),
            "{path}: {explained}"
        );
    }
}
