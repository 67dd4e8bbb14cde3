//! larder's own variables: a name with their prefix that is none of them is a mistake, and a setting that would silently not be used.

use super::diagnostic::Report;
use super::env::Environment;
use super::hints;

const PREFIX: &str = "LARDER_";

/// Those that this version reads.
const KNOWN: &[&str] = &[
    "LARDER_LISTEN",
    "LARDER_DATA_DIR",
    "LARDER_PUBLIC_URL",
    "LARDER_ADMIN_TOKEN",
    "LARDER_ADMIN_TOKEN_FILE",
    "LARDER_LOG",
    "LARDER_LOG_FORMAT",
    "LARDER_ADVERTISE",
    "LARDER_CLUSTER_SECRET",
    "LARDER_CLUSTER_SECRET_FILE",
    // Of commands that ask a running larder.
    "LARDER_URL",
    "LARDER_TOKEN",
    "LARDER_TOKEN_FILE",
];

/// Reports every variable with larder's prefix that is none of its own. `referred` are names that the configuration refers to, which are
/// the operator's to choose.
pub(super) fn check(environment: &Environment, referred: &[String], report: &mut Report) {
    quoted(environment, referred, report);
    let strange = environment.named(PREFIX).filter(|(name, value)| {
        !KNOWN.contains(name)
            && !referred.iter().any(|other| other == name)
            && !is_of_a_service(name, value)
    });
    for (name, _) in strange {
        if name.starts_with("LARDER_CONF") {
            report.error(
                None,
                format!(
                    "the environment variable {name} is none of larder's: did you mean CONFIG_PATH?"
                ),
            );
            continue;
        }
        // What all have in common makes none of them likelier.
        let own = name.strip_prefix(PREFIX).unwrap_or_default();
        let near = hints::nearest(
            own,
            KNOWN.iter().filter_map(|known| known.strip_prefix(PREFIX)),
        );
        let near = near.map_or_else(
            || format!("known are {}", KNOWN.join(", ")),
            |near| format!("did you mean {PREFIX}{near}?"),
        );
        report.error(
            None,
            format!("the environment variable {name} is none of larder's: {near}"),
        );
    }
}

/// Reports values in quotation marks. A shell and systemd take them off; `docker --env-file` and Kubernetes hand them on.
fn quoted(environment: &Environment, referred: &[String], report: &mut Report) {
    const WHY: &str = "stands in quotation marks, which are part of it";
    let is_quoted = |name: &str| {
        let value = environment.get(name).unwrap_or_default();
        value.len() > 1
            && ['"', '\'']
                .into_iter()
                .any(|mark| value.starts_with(mark) && value.ends_with(mark))
    };
    // The log's are judged with the log's, before anything else.
    let own = KNOWN
        .iter()
        .copied()
        .chain([
            "CONFIG_PATH",
            "DBHOST",
            "DBPORT",
            "DBUSER",
            "DBNAME",
            "DBSSLMODE",
            "DBCAFILE",
            "DBPASS_FILE",
            "REDIS_URL",
            "REDISCAFILE",
            "REDIS_URL_FILE",
            "MINIO_ENDPOINT",
            "MINIO_BUCKET",
            "MINIO_SECURE",
            "MINIO_ACCESS_KEY_FILE",
            "MINIO_SECRET_KEY_FILE",
        ])
        .filter(|name| !name.starts_with("LARDER_LOG"));
    for name in own.filter(|name| is_quoted(name)) {
        report.error(
            None,
            format!("the value of the environment variable {name} {WHY}: take them off"),
        );
    }
    let mut referred: Vec<&str> = referred
        .iter()
        .map(String::as_str)
        .filter(|name| is_quoted(name))
        .collect();
    referred.sort_unstable();
    referred.dedup();
    for name in referred {
        report.warning(
            None,
            format!("the value of the environment variable {name} {WHY}: is that meant?"),
        );
    }
}

/// What Kubernetes, and Docker before it, put into the environment of every container beside a service that is called larder:
/// `LARDER_SERVICE_HOST`, `LARDER_SERVICE_PORT_HTTP`, `LARDER_PORT=tcp://…`, `LARDER_PORT_8000_TCP_ADDR`.
fn is_of_a_service(name: &str, value: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    if name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
    {
        return true;
    }
    let Some((_, after)) = name
        .rsplit_once("_PORT_")
        .or_else(|| Some((name.strip_suffix("_PORT")?, "")))
    else {
        return false;
    };
    if after.is_empty() {
        return value.contains("://");
    }
    // `…_PORT_8000_TCP`, and the same with _PROTO, _PORT or _ADDR behind it; the last `_PORT_` is before the number.
    let mut parts = after.split('_');
    let number = parts.next().is_some_and(|part| part.parse::<u16>().is_ok());
    number && parts.next().is_some_and(|part| PROTOCOLS.contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(variables: &[(&str, &str)], referred: &[String]) -> String {
        let mut report = Report::default();
        check(
            &Environment::of(variables.iter().copied()),
            referred,
            &mut report,
        );
        report
            .into_sorted()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn a_misspelt_variable_is_told_its_nearest() {
        assert!(
            said(&[("LARDER_LISTN", ":1")], &[])
                .contains("LARDER_LISTN is none of larder's: did you mean LARDER_LISTEN?")
        );
        assert!(said(&[("LARDER_LOGLEVEL", "x")], &[]).contains("did you mean LARDER_LOG?"));
        assert!(said(&[("LARDER_CONFIG", "/x")], &[]).contains("did you mean CONFIG_PATH?"));
        assert!(said(&[("LARDER_CONFIG_FILE", "/x")], &[]).contains("did you mean CONFIG_PATH?"));
        assert!(said(&[("LARDER_FROBNICATE", "x")], &[]).contains("known are LARDER_LISTEN, "));
        assert_eq!(said(&[("DBPASS_FILE", "/run/x")], &[]), "");
        let known: Vec<_> = KNOWN.iter().map(|name| (*name, "x")).collect();
        assert_eq!(said(&known, &[]), "");
        assert_eq!(
            said(&[("LARDER_LISTN", ""), ("OTHER", "x")], &[]),
            "",
            "empty is absent, and others are not larder's"
        );
        assert_eq!(
            said(&[("LARDER_OWN", "x")], &["LARDER_OWN".to_owned()]),
            "",
            "the configuration refers to it"
        );
    }

    #[test]
    fn quotation_marks_are_part_of_a_value() {
        for (name, value) in [
            ("LARDER_DATA_DIR", "\"/srv\""),
            ("CONFIG_PATH", "'/etc/x'"),
            ("LARDER_PUBLIC_URL", "\"https://a\""),
        ] {
            let said = said(&[(name, value)], &[]);
            assert!(
                said.contains(name)
                    && said.contains("in quotation marks")
                    && !said.starts_with("warning"),
                "{said}"
            );
        }
        let secret = said(
            &[("PASS", "'canary'")],
            &["PASS".to_owned(), "PASS".to_owned()],
        );
        assert!(
            secret.starts_with("warning: ")
                && secret.contains("PASS")
                && !secret.contains("canary"),
            "{secret}"
        );
        assert_eq!(secret.lines().count(), 1);
        assert_eq!(
            said(
                &[
                    ("LARDER_DATA_DIR", "/a\"b"),
                    ("PASS", "\"x"),
                    ("OTHER", "\"x\"")
                ],
                &["PASS".to_owned()]
            ),
            ""
        );
    }

    /// The names that Kubernetes documents for the variables of a service, and of Docker's links.
    #[test]
    fn variables_of_a_service_that_is_called_larder_are_not_larders() {
        let service = [
            ("LARDER_SERVICE_HOST", "10.0.0.11"),
            ("LARDER_SERVICE_PORT", "8000"),
            ("LARDER_SERVICE_PORT_HTTP", "8000"),
            ("LARDER_PORT", "tcp://10.0.0.11:8000"),
            ("LARDER_PORT_8000_TCP", "tcp://10.0.0.11:8000"),
            ("LARDER_PORT_8000_TCP_PROTO", "tcp"),
            ("LARDER_PORT_8000_TCP_PORT", "8000"),
            ("LARDER_PORT_8000_TCP_ADDR", "10.0.0.11"),
            ("LARDER_MAIN_SERVICE_HOST", "10.0.0.11"),
        ];
        assert_eq!(said(&service, &[]), "");
        assert!(
            said(&[("LARDER_PORT", "8000")], &[]).contains("LARDER_PORT is none of larder's"),
            "somebody means the port"
        );
    }
}
