//! Throughput of checking, claiming and deriving: `cargo bench -p larder-formats`.
//!
//! Each format has a module with generated documents of the size that `performance` goals speak of. To add one: write the
//! generator, and a module like `helm` below.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark may stop at what must not happen"
)]

mod common;

fn main() {
    divan::main();
}

mod helm {
    use std::fmt::Write as _;

    use divan::Bencher;
    use larder_core::PackageType;
    use larder_formats::Document;
    use url::Url;

    use super::common::{over, remote};

    /// The kinds of index: own host in the style of `helm repo index`; every chart on another host; something only the YAML
    /// parser reads (a carriage return at the first line's end); JSON.
    const KINDS: [&str; 4] = ["own host", "other host", "parser", "json"];

    /// An index of about 20 MB: 68 charts with 225 versions each, as a large public repository has.
    fn index(kind: &str) -> String {
        let host = if kind == "other host" {
            "releases.example.net"
        } else {
            "charts.example.com"
        };
        let mut text = String::with_capacity(21 << 20);
        text.push_str("apiVersion: v1\nentries:\n");
        for chart in 0..68 {
            let _ = writeln!(text, "  chart{chart}:");
            for version in (0..225).rev() {
                version_block(&mut text, host, chart, version);
            }
        }
        text.push_str("generated: \"2024-03-06T16:23:20.499029981Z\"\n");
        match kind {
            "parser" => text.replacen('\n', "\r\n", 1),
            "json" => json(&text),
            _ => text,
        }
    }

    fn version_block(text: &mut String, host: &str, chart: u32, version: u32) {
        let _ = write!(
            text,
            "  - annotations:\n      category: Database\n      images: |\n        - name: chart{chart}\n          image: registry.example.com/charts/chart{chart}:{version}.1.0-debian-12-r1\n        - name: os-shell\n          image: registry.example.com/charts/os-shell:12-debian-12-r{version}\n      licenses: Apache-2.0\n    apiVersion: v2\n    appVersion: {version}.1.0\n    created: \"2024-03-06T16:23:20.499814565Z\"\n    dependencies:\n    - name: common\n      repository: oci://registry.example.com/charts\n      tags:\n      - common\n      version: 2.x.x\n    description: Chart {chart} is an open source object store. It is a description that is long\n      enough to be folded by the emitter, as descriptions usually are.\n    digest: {chart:032x}{version:032x}\n    home: https://charts.example.com/home\n    icon: https://charts.example.com/icons/chart{chart}.svg\n    keywords:\n"
        );
        for keyword in [
            "database",
            "sql",
            "replication",
            "cluster",
            "storage",
            "cloud",
        ] {
            let _ = writeln!(text, "    - {keyword}");
        }
        let _ = write!(
            text,
            "    maintainers:\n    - name: The Maintainers\n      url: https://charts.example.com/maintainers\n    name: chart{chart}\n    sources:\n    - https://git.example.com/charts/tree/main/chart{chart}\n    urls:\n    - https://{host}/stable/chart{chart}-{version}.1.0.tgz\n    version: {version}.1.0\n"
        );
    }

    /// The same number of versions in JSON.
    fn json(yaml: &str) -> String {
        let urls = yaml.lines().filter_map(|line| {
            line.strip_prefix("    - ")
                .filter(|url| url.contains("/stable/chart"))
        });
        let filler = "x".repeat(1100);
        let versions: Vec<_> = urls
            .map(|url| {
                format!("{{\"name\":\"c\",\"description\":\"{filler}\",\"urls\":[\"{url}\"]}}")
            })
            .collect();
        format!(
            "{{\"apiVersion\":\"v1\",\"entries\":{{\"c\":[{}]}}}}",
            versions.join(",")
        )
    }

    fn with_document(kind: &str, run: impl FnOnce(&Document<'_>)) {
        let (text, url): (String, Url) = (
            index(kind),
            "https://charts.example.com/stable/index.yaml"
                .parse()
                .unwrap(),
        );
        run(&Document {
            body: text.as_bytes(),
            content_type: "text/yaml",
            url: &url,
            key_path: "index.yaml",
            variant: "",
            memo: None,
        });
    }

    #[divan::bench(args = KINDS)]
    fn derive(bencher: Bencher, kind: &str) {
        let repository = remote(PackageType::Helm, "https://charts.example.com/stable/");
        with_document(kind, |document| {
            over(bencher, &repository, document, |format, document, links| {
                format.derive(document, "index", links)
            });
        });
    }

    #[divan::bench(args = KINDS)]
    fn claims(bencher: Bencher, kind: &str) {
        let repository = remote(PackageType::Helm, "https://charts.example.com/stable/");
        with_document(kind, |document| {
            over(bencher, &repository, document, |format, document, links| {
                let mut count = 0;
                format.claims(document, links, &mut |_| count += 1).unwrap();
                assert_eq!(count, 68 * 225);
            });
        });
    }

    #[divan::bench(args = KINDS)]
    fn check(bencher: Bencher, kind: &str) {
        let repository = remote(PackageType::Helm, "https://charts.example.com/stable/");
        with_document(kind, |document| {
            over(bencher, &repository, document, |format, document, _| {
                format.check(&repository, document, &larder_formats::Meter::default())
            });
        });
    }
}

mod npm {
    use std::fmt::Write as _;

    use divan::Bencher;
    use larder_core::PackageType;
    use larder_formats::Document;
    use url::Url;

    use super::common::{over, remote};

    const ROOT: &str = "https://registry.example.com/";
    /// Where the tarballs are: on the registry, in the conventional layout; or on another host.
    const KINDS: [&str; 2] = ["own host", "other host"];

    /// A full packument of about 10 MB: thousands of versions with dependencies, signatures and times.
    fn packument(kind: &str) -> String {
        let files = if kind == "other host" {
            "https://cdn.example.org/files/"
        } else {
            ROOT
        };
        let mut text = String::from(
            r#"{"_id":"@scope/pack","name":"@scope/pack","dist-tags":{"latest":"0.0.0"},"versions":{"#,
        );
        let mut times = String::new();
        for n in 0_u32.. {
            if text.len() >= 10_000_000 {
                break;
            }
            let comma = if n == 0 { "" } else { "," };
            let version = format!("{}.{}.{}", n / 100, n / 10 % 10, n % 10);
            let _ = write!(
                text,
                r#"{comma}"{version}":{{"name":"@scope/pack","version":"{version}","license":"MIT","dependencies":{{"#
            );
            for d in 0..40 {
                let _ = write!(
                    text,
                    r#"{}"@scope/dependency-{d}":"^{version}""#,
                    if d == 0 { "" } else { "," }
                );
            }
            let _ = write!(
                text,
                r#"}},"scripts":{{"build":"node build.js \"prod\""}},"_id":"@scope/pack@{version}","dist":{{"shasum":"da39a3ee5e6b4b0d3255bfef95601890afd80709","tarball":"{files}@scope/pack/-/pack-{version}.tgz","integrity":"sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==","signatures":[{{"keyid":"SHA256:0","sig":"{}"}}]}}}}"#,
                "A".repeat(96)
            );
            let _ = write!(times, r#"{comma}"{version}":"2024-01-02T03:04:05.678Z""#);
        }
        let _ = write!(text, r#"}},"time":{{{times}}}}}"#);
        text
    }

    fn with_document(kind: &str, run: impl FnOnce(&Document<'_>)) {
        let (text, url): (String, Url) = (
            packument(kind),
            format!("{ROOT}@scope%2fpack").parse().unwrap(),
        );
        let content_type = "application/json";
        run(&Document {
            body: text.as_bytes(),
            content_type,
            url: &url,
            key_path: "@scope/pack",
            variant: "full",
            memo: None,
        });
    }

    #[divan::bench(args = KINDS)]
    fn derive(bencher: Bencher, kind: &str) {
        let repository = remote(PackageType::Npm, ROOT);
        with_document(kind, |document| {
            over(bencher, &repository, document, |format, document, links| {
                format.derive(document, "packument", links)
            });
        });
    }

    #[divan::bench(args = KINDS)]
    fn claims(bencher: Bencher, kind: &str) {
        let repository = remote(PackageType::Npm, ROOT);
        with_document(kind, |document| {
            over(bencher, &repository, document, |format, document, links| {
                let mut count = 0;
                format.claims(document, links, &mut |_| count += 1).unwrap();
                assert!(count > 1000);
            });
        });
    }

    #[divan::bench]
    fn check(bencher: Bencher) {
        let repository = remote(PackageType::Npm, ROOT);
        with_document("own host", |document| {
            over(bencher, &repository, document, |format, document, _| {
                format.check(&repository, document, &larder_formats::Meter::default())
            });
        });
    }
}

mod pypi {
    use std::fmt::Write as _;

    use divan::Bencher;
    use larder_core::PackageType;
    use larder_formats::Document;
    use url::Url;

    use super::common::{hex, over, remote};

    const ROOT: &str = "https://files.example.com/";
    /// The upstream's syntax and the form made of it. The last has all files on another host.
    const KINDS: [(&str, &str); 5] = [
        ("json", "simple+json"),
        ("json", "simple+html"),
        ("html", "simple+html"),
        ("html", "simple+json"),
        ("other host", "simple+json"),
    ];
    const SYNTAXES: [&str; 2] = ["json", "html"];

    /// The page of a project with 3,000 wheels: 2.0 MB of JSON, 1.7 MB of HTML.
    fn page(syntax: &str) -> String {
        let host = if syntax == "other host" {
            "https://cdn.example.net/"
        } else {
            ROOT
        };
        let mut text = String::from(if syntax == "html" {
            "<!DOCTYPE html>\n<html><head><title>Links for demo-project</title></head><body>\n"
        } else {
            "{\"files\":["
        });
        for n in 0..3000 {
            let name = format!(
                "demo_project-{}.{}.{}-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
                n / 100,
                n / 10 % 10,
                n % 10
            );
            let (metadata, digest) = (hex(n, 64), hex(n + 10_000, 64));
            let url = format!(
                "{host}packages/{}/{}/{}/{name}",
                hex(n, 2),
                hex(n + 3, 2),
                hex(n + 9, 60)
            );
            let _ = if syntax == "html" {
                writeln!(
                    text,
                    "<a href=\"{url}#sha256={digest}\" data-requires-python=\"&gt;=3.8\" data-dist-info-metadata=\"sha256={metadata}\" data-core-metadata=\"sha256={metadata}\">{name}</a><br />"
                )
            } else {
                let comma = if n == 0 { "" } else { "," };
                write!(
                    text,
                    "{comma}{{\"core-metadata\":{{\"sha256\":\"{metadata}\"}},\"data-dist-info-metadata\":{{\"sha256\":\"{metadata}\"}},\"filename\":\"{name}\",\"hashes\":{{\"sha256\":\"{digest}\"}},\"provenance\":null,\"requires-python\":\">=3.8\",\"size\":{n},\"upload-time\":\"2024-01-17T16:53:12.779164Z\",\"url\":\"{url}\",\"yanked\":false}}"
                )
            };
        }
        text.push_str(if syntax == "html" {
            "</body></html>\n"
        } else {
            "],\"meta\":{\"api-version\":\"1.4\"},\"name\":\"demo-project\",\"versions\":[]}"
        });
        text
    }

    /// A list of 600,000 projects, about 30 MB.
    fn list() -> String {
        let mut text = String::from("{\"meta\":{\"api-version\":\"1.4\"},\"projects\":[");
        for n in 0..600_000 {
            let comma = if n == 0 { "" } else { "," };
            let _ = write!(
                text,
                "{comma}{{\"_last-serial\":{},\"name\":\"project-{}\"}}",
                3_000_000 + n,
                hex(n, 8)
            );
        }
        text.push_str("]}");
        text
    }

    fn with_document(syntax: &str, key_path: &str, run: impl FnOnce(&Document<'_>)) {
        let text = if key_path == "simple/" {
            list()
        } else {
            page(syntax)
        };
        let url: Url = format!("https://index.example.com/{key_path}")
            .parse()
            .unwrap();
        let content_type = if syntax == "html" {
            "text/html"
        } else {
            "application/vnd.pypi.simple.v1+json"
        };
        run(&Document {
            body: text.as_bytes(),
            content_type,
            url: &url,
            key_path,
            variant: "",
            memo: None,
        });
    }

    #[divan::bench(args = KINDS)]
    fn derive(bencher: Bencher, (syntax, form): (&str, &'static str)) {
        let repository = remote(PackageType::Pypi, ROOT);
        with_document(syntax, "simple/demo-project/", |document| {
            over(bencher, &repository, document, |format, document, links| {
                format.derive(document, form, links).unwrap()
            });
        });
    }

    #[divan::bench(args = ["simple+json", "simple+html"], sample_count = 5)]
    fn derive_list(bencher: Bencher, form: &'static str) {
        let repository = remote(PackageType::Pypi, ROOT);
        with_document("json", "simple/", |document| {
            over(bencher, &repository, document, |format, document, links| {
                format.derive(document, form, links).unwrap()
            });
        });
    }

    #[divan::bench(args = SYNTAXES)]
    fn claims(bencher: Bencher, syntax: &str) {
        let repository = remote(PackageType::Pypi, ROOT);
        with_document(syntax, "simple/demo-project/", |document| {
            over(bencher, &repository, document, |format, document, links| {
                let mut count = 0;
                format.claims(document, links, &mut |_| count += 1).unwrap();
                assert_eq!(count, 6000);
            });
        });
    }

    #[divan::bench(args = SYNTAXES)]
    fn check(bencher: Bencher, syntax: &str) {
        let repository = remote(PackageType::Pypi, ROOT);
        with_document(syntax, "simple/demo-project/", |document| {
            over(bencher, &repository, document, |format, document, _| {
                format
                    .check(&repository, document, &larder_formats::Meter::default())
                    .unwrap();
            });
        });
    }
}
