//! What a running larder says of itself (`GET /health`).

use larder::remote_commands::Health;
use larder_core::{Clock as _, SystemClock};
use serde_json::Value;

use super::Finding;
use super::clock::{MOST_SKEW_MS, ahead, told};

/// A certificate that expires within so many days is worth a look.
const SOON_DAYS: i64 = 30;

/// What is wrong with the larder that was asked; nothing if none was.
pub(super) fn findings(health: Option<Result<Health, String>>) -> Vec<Finding> {
    match health {
        None => Vec::new(),
        Some(Err(why)) => vec![Finding::new(
            "server",
            "--server",
            why,
            "start larder, or correct the address; its log says why it does not serve",
        )],
        Some(Ok(health)) => of_page(&health),
    }
}

fn of_page(health: &Health) -> Vec<Finding> {
    let Health {
        page,
        date,
        address,
    } = health;
    let mut found = Vec::new();
    let mut say = |kind, place: String, what: String, remedy: &str| {
        found.push(Finding::new(
            kind,
            format!("{address} {place}"),
            what,
            remedy,
        ));
    };
    of_others(page, &mut say);
    if page["disk"]["keeping"] == Value::Bool(false) {
        let what = "the disk is down to its reserve: nothing more is kept".to_owned();
        say(
            "disk",
            "disk".to_owned(),
            what,
            "make room on the data directory's file system",
        );
    }
    if page["reload"]["ok"] == Value::Bool(false) {
        let what = format!(
            "the configuration on the disk was not taken over: {}",
            text(&page["reload"], "error")
        );
        say(
            "configuration",
            "reload".to_owned(),
            what,
            "correct it: the old one is in force",
        );
    }
    if let Some(days) = page["certificate"]["expires_in_days"].as_i64()
        && days < SOON_DAYS
    {
        let what = format!("the certificate expires in {days} days");
        say(
            "certificate",
            "tls.cert".to_owned(),
            what,
            "renew it; larder reads it again by itself",
        );
    }
    of_replicas(&page["cluster"], &mut say);
    if let Some(ahead) = ahead(date.as_deref(), None, SystemClock.now())
        && ahead.abs() > MOST_SKEW_MS
    {
        let what = format!("this machine's clock is {} that larder's", told(ahead));
        let remedy = "compare both with the time, and set the wrong one right (run NTP)";
        say("clock", "Date".to_owned(), what, remedy);
    }
    found
}

/// Backends and upstreams.
fn of_others(page: &Value, say: &mut impl FnMut(&'static str, String, String, &str)) {
    for (name, backend) in page["backends"].as_object().into_iter().flatten() {
        if backend["status"] != "ok" {
            let (kind, detail) = (text(backend, "kind"), text(backend, "detail"));
            let remedy = "see to this backend first: without it larder does not serve";
            say("backend", name.clone(), format!("{kind}: {detail}"), remedy);
        } else if page["disk"]["keeping"] != Value::Bool(false)
            && let Some(detail) = backend.get("detail").and_then(Value::as_str)
        {
            let remedy = "larder serves all the same; see to it before that changes";
            say("backend", name.clone(), detail.to_owned(), remedy);
        }
    }
    for upstream in page["upstreams"].as_array().into_iter().flatten() {
        if upstream["state"] == "failing" {
            let name = format!("remotes.{}", text(upstream, "repository"));
            let (error, at) = (&upstream["last_error"], text(upstream, "upstream"));
            let what = format!(
                "{at} fails: {} {}",
                text(error, "cause"),
                text(error, "reason")
            );
            let remedy = "see why it does not answer; held copies are served meanwhile";
            say("upstream_unreachable", name, what, remedy);
        }
    }
}

fn of_replicas(cluster: &Value, say: &mut impl FnMut(&'static str, String, String, &str)) {
    let shared = &cluster["shared"];
    if shared.get("status").is_some_and(|status| status != "ok") {
        let what = format!("{}: {}", text(shared, "kind"), text(shared, "detail"));
        let remedy = "start it, and see that REDIS_URL is right; until then replicas share nothing";
        say("backend", "cluster".to_owned(), what, remedy);
    }
    for alarm in cluster["alarms"].as_array().into_iter().flatten() {
        let what = alarm.as_str().unwrap_or_default().to_owned();
        let kind = if what.contains("clocks") {
            "clock"
        } else {
            "configuration"
        };
        let remedy =
            "GET /health names the replicas: give all the same configuration, and run NTP on each";
        say(kind, "cluster".to_owned(), what, remedy);
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_trouble_that_health_shows_is_a_finding() {
        let page = json!({
            "status": "unavailable",
            "backends": {
                "blobs": {"kind": "s3", "status": "unavailable", "detail": "no answer"},
                "metadata": {"kind": "sqlite", "status": "ok"},
            },
            "upstreams": [
                {"repository": "a", "upstream": "http://a.example.com/", "state": "failing",
                 "last_error": {"cause": "refused", "reason": "connection refused"}},
                {"repository": "b", "upstream": "http://b.example.com/", "state": "unknown", "last_error": null},
            ],
            "disk": {"keeping": false},
            "reload": {"ok": false, "error": "larder.yaml:3: no"},
            "certificate": {"expires_in_days": 3},
            "cluster": {"shared": {"kind": "redis", "status": "unavailable", "detail": "gone"},
                        "alarms": ["clocks of replicas differ by more than 5 s"]},
        });
        let found = of_page(&Health {
            page,
            date: Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
            address: "http://larder.example.com/".to_owned(),
        });
        let kinds: Vec<&str> = found.iter().map(|one| one.kind).collect();
        let expected = [
            "backend",
            "upstream_unreachable",
            "disk",
            "configuration",
            "certificate",
            "backend",
            "clock",
            "clock",
        ];
        assert_eq!(kinds, expected, "{found:#?}");
    }

    #[test]
    fn a_backend_that_serves_and_has_something_to_say_is_a_finding() {
        let detail = "2 blobs could not be deleted";
        let page = json!({
            "backends": {"blobs": {"kind": "filesystem", "status": "ok", "detail": detail}},
            "disk": {"keeping": true},
        });
        let found = of_page(&Health {
            page,
            date: Some(SystemClock.now().to_http_date()),
            address: String::new(),
        });
        let told: Vec<(&str, &str)> = found.iter().map(|one| (one.kind, &*one.what)).collect();
        assert_eq!(told, [("backend", detail)]);
    }

    #[test]
    fn a_larder_that_is_well_has_no_findings() {
        let page = json!({
            "backends": {"blobs": {"kind": "files", "status": "ok"}}, "upstreams": [],
            "disk": {"keeping": true}, "reload": null, "certificate": null,
        });
        let date = Some(SystemClock.now().to_http_date());
        let address = String::new();
        assert_eq!(
            of_page(&Health {
                page,
                date,
                address
            }),
            []
        );
    }
}
