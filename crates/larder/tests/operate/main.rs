//! What operators are given beside the program: alert rules and dashboard name metrics that are there, and the Kubernetes manifest says
//! of larder what is so.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};

use larder_testkit::{Origin, Resource};
use regex::Regex;
use serde_json::Value;
use support::packages::one_of_each;
use support::{TestLarder, get};

const ALERTS: &str = include_str!("../../../../docs/operate/alerts.yaml");
const DASHBOARD: &str = include_str!("../../../../docs/operate/grafana.json");
const METRICS: &str = include_str!("../../../../docs/operate/metrics.md");
const MANIFEST: &str = include_str!("../../../../packaging/kubernetes.yaml");
const CONTAINERFILE: &str = include_str!("../../../../Containerfile");

/// Prometheus itself makes these.
const OF_PROMETHEUS: &[&str] = &["up"];

/// Every expression of the alert rules and of the dashboard, by where it stands.
fn expressions() -> BTreeMap<String, String> {
    let rules = yaml::documents(ALERTS).remove(0);
    let rules = rules["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules").clone());
    let mut found: BTreeMap<String, String> = rules
        .map(|rule| (text(&rule["alert"]), text(&rule["expr"])))
        .collect();
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    for panel in dashboard["panels"].as_array().expect("panels") {
        for (number, target) in panel["targets"]
            .as_array()
            .expect("targets")
            .iter()
            .enumerate()
        {
            found.insert(
                format!("{} ({number})", text(&panel["title"])),
                text(&target["expr"]),
            );
        }
    }
    for variable in dashboard["templating"]["list"]
        .as_array()
        .expect("variables")
    {
        if let Some(query) = variable["query"]["query"].as_str() {
            let metric = query
                .trim_start_matches("label_values(")
                .split(',')
                .next()
                .unwrap_or_default();
            found.insert(
                format!("variable {}", text(&variable["name"])),
                metric.to_owned(),
            );
        }
    }
    found
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("a text, not {value}"))
        .to_owned()
}

/// A selector of an expression: the metric and the labels that it is chosen by.
fn selectors(expression: &str) -> Vec<(String, Vec<String>)> {
    let selector = Regex::new(r"\b((?:larder|process)_[a-z_]+|up)\b(?:\{([^}]*)\})?").unwrap();
    let label = Regex::new(r#"(\w+)\s*(?:=~|!~|!=|=)\s*""#).unwrap();
    let labels = |captures: &regex::Captures<'_>| {
        let chosen = captures.get(2).map_or("", |found| found.as_str());
        label
            .captures_iter(chosen)
            .map(|found| found[1].to_owned())
            .collect()
    };
    selector
        .captures_iter(expression)
        .map(|captures| (captures[1].to_owned(), labels(&captures)))
        .collect()
}

/// The samples of a page: each name with the labels that it has.
fn samples(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let label = Regex::new(r#"(\w+)=""#).unwrap();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or(line.len()));
        let labels = rest.rsplit_once('}').map_or("", |(labels, _)| labels);
        found
            .entry(name.to_owned())
            .or_default()
            .extend(label.captures_iter(labels).map(|found| found[1].to_owned()));
    }
    found
}

/// What metrics.md says there is: each name with its labels. Some appear on the page only after an event.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let name = Regex::new(r"`((?:larder|process)_[a-z_]+)(?:\{([a-z_,]*)\})?`").unwrap();
    let labels = |found: &regex::Captures<'_>| {
        let labels = found.get(2).map_or("", |labels| labels.as_str());
        labels
            .split(',')
            .filter(|label| !label.is_empty())
            .map(str::to_owned)
            .collect::<BTreeSet<_>>()
    };
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for found in name.captures_iter(METRICS) {
        all.entry(found[1].to_owned())
            .or_default()
            .extend(labels(&found));
    }
    all
}

/// A page after hits, misses, refusals and failures.
async fn page() -> String {
    let origin = Origin::start().await;
    origin.put("/a.txt", Resource::new("a"));
    let larder = TestLarder::start(&one_of_each(&origin, "deny_patterns: ['^denied']")).await;
    for path in ["a.txt", "a.txt", "denied", "missing"] {
        get(&larder.artifact("generic", path)).await;
    }
    get(&larder.url("/metrics")).await.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_dashboard_name_metrics_and_labels_that_are_there() {
    let page = samples(&page().await);
    let documented = documented();
    assert!(
        documented.len() > 10,
        "metrics.md was not understood: {documented:?}"
    );
    let expressions = expressions();
    assert!(expressions.len() > 40, "{} expressions", expressions.len());
    let of_target = ["job", "instance"];
    let mut wrong = Vec::new();
    for (place, expression) in &expressions {
        let used = selectors(expression);
        assert!(!used.is_empty(), "{place} asks for nothing: {expression}");
        for (name, labels) in used {
            if OF_PROMETHEUS.contains(&&*name) {
                continue;
            }
            let base = name.trim_end_matches("_bucket").to_owned();
            let Some(has) = page
                .get(&name)
                .or_else(|| documented.get(&name))
                .or_else(|| documented.get(&base))
            else {
                wrong.push(format!("{place}: there is no {name}"));
                continue;
            };
            let missing = labels
                .iter()
                .filter(|label| !of_target.contains(&&***label) && !has.contains(*label));
            wrong.extend(missing.map(|label| format!("{place}: {name} has no label {label}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_alert_says_how_bad_it_is_and_what_it_means() {
    let rules = yaml::documents(ALERTS).remove(0);
    let rules = rules["groups"][0]["rules"]
        .as_array()
        .expect("rules")
        .clone();
    let mut names = BTreeSet::new();
    for rule in &rules {
        assert!(
            names.insert(text(&rule["alert"])),
            "twice: {}",
            rule["alert"]
        );
        assert!(
            ["warning", "critical"].contains(&&*text(&rule["labels"]["severity"])),
            "{rule}"
        );
        assert!(
            rule["annotations"]["summary"].is_string()
                && rule["annotations"]["description"].is_string(),
            "{rule}"
        );
    }
}

/// The manifest's object of this kind.
fn object(kind: &str) -> Value {
    let all = yaml::documents(MANIFEST);
    all.into_iter()
        .find(|object| object["kind"] == kind)
        .unwrap_or_else(|| panic!("no {kind}"))
}

/// The variables of the image.
fn image_variable(name: &str) -> String {
    let value = Regex::new(&format!(r"\b{name}=(\S+)")).unwrap();
    value
        .captures(CONTAINERFILE)
        .unwrap_or_else(|| panic!("no {name} in the Containerfile"))[1]
        .to_owned()
}

#[test]
fn the_manifest_fits_the_image_and_itself() {
    let set = object("StatefulSet");
    let (spec, pod) = (&set["spec"], &set["spec"]["template"]["spec"]);
    let container = &pod["containers"][0];
    assert_eq!(spec["replicas"], 1, "one data directory, one process");
    assert_eq!(
        spec["selector"]["matchLabels"],
        spec["template"]["metadata"]["labels"]
    );
    let service = object("Service");
    assert_eq!(
        service["spec"]["selector"],
        spec["template"]["metadata"]["labels"]
    );
    assert_eq!(
        service["spec"]["ports"][0]["targetPort"],
        container["ports"][0]["name"]
    );
    assert_eq!(spec["serviceName"], service["metadata"]["name"]);
    let port = container["ports"][0]["containerPort"]
        .as_i64()
        .expect("a port");
    assert!(
        image_variable("LARDER_LISTEN").ends_with(&format!(":{port}")),
        "the image listens elsewhere"
    );
    let mounts = container["volumeMounts"].as_array().expect("mounts");
    let mounted = |path: &str| {
        mounts
            .iter()
            .find(|mount| mount["mountPath"] == path)
            .unwrap_or_else(|| panic!("{path} is not mounted"))
    };
    assert_eq!(
        mounted(&image_variable("LARDER_DATA_DIR"))["name"],
        spec["volumeClaimTemplates"][0]["metadata"]["name"]
    );
    assert!(
        mounted("/etc/larder")["subPath"].is_null(),
        "a file by itself is never seen to change"
    );
    let user = Regex::new(r"(?m)^USER (\d+):(\d+)$").unwrap();
    let user = user
        .captures(CONTAINERFILE)
        .expect("a user by number, as runAsNonRoot needs it");
    for key in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert_eq!(pod["securityContext"][key].to_string(), user[1], "{key}");
    }
}

#[test]
fn the_manifest_meets_the_restricted_standard() {
    let set = object("StatefulSet");
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["capabilities"]["drop"][0], "ALL");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifests_probes_are_answered_and_its_configuration_loads() {
    let set = object("StatefulSet");
    let container = set["spec"]["template"]["spec"]["containers"][0].clone();
    let config = text(&object("ConfigMap")["data"]["larder.yaml"]);
    let mut setup = support::Setup::new(&config);
    for variable in container["env"].as_array().expect("variables") {
        setup = setup.env(&text(&variable["name"]), "a-token-of-some-length");
    }
    let larder = setup.start().await;
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let path = text(&container[probe]["httpGet"]["path"]);
        assert_eq!(get(&larder.url(&path)).await.status, 200, "{probe}: {path}");
    }
    let annotations = &set["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(
        get(&larder.url(&text(&annotations["prometheus.io/path"])))
            .await
            .status,
        200
    );
}
