//! `s3`: where blobs are kept, if not in files of the data directory.

use std::path::Path;
use std::time::Duration;

use larder_core::{ProxyRules, Secret};
use larder_storage::S3Settings;

use crate::config::defaults;
use crate::config::diagnostic::{Place, Report};
use crate::config::env::Environment;
use crate::config::fields::Section;
use crate::config::file::beside;
use crate::config::schema;
use crate::config::secret_files;

/// A store that speaks S3, and the local tier in front of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3 {
    /// Where the store is, and who larder is to it.
    pub store: S3Settings,
    /// What the tier may hold in bytes; `None`: four fifths of the space that is free.
    pub tier: Option<u64>,
    /// How long a multipart upload is leased at a time: what a process that died has begun is aborted after that.
    pub upload_lease: Duration,
    /// Whether repositories that say nothing of it send clients to the store for whole immutable files.
    pub presign: bool,
}

/// `s3.upload_lease`, unless it is set.
const UPLOAD_LEASE: Duration = Duration::from_mins(15);

/// By which a platform says where its credentials are, in the names that the AWS SDKs document.
const PLATFORM: [&str; 8] = [
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ENDPOINT_URL_STS",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_METADATA_ENDPOINT",
];

/// A value with the name by which messages call it.
struct Given {
    text: String,
    name: String,
    place: Option<Place>,
}

/// The settings of `s3`, each of the environment, then of the file; `None` without an endpoint.
pub(super) fn s3(
    top: &Section<'_>,
    environment: &Environment,
    proxies: Option<&ProxyRules>,
    report: &mut Report,
) -> Option<S3> {
    let section = top.section("s3", schema::S3, report);
    let section = section
        .unwrap_or_else(|| Section::of_entries(&[], "s3", schema::S3, &mut Report::default()));
    let mut look = |variable: &str, key: &str| given(&section, environment, variable, key, report);
    let endpoint = look("MINIO_ENDPOINT", "endpoint");
    let (bucket, secure) = (
        look("MINIO_BUCKET", "bucket"),
        look("MINIO_SECURE", "secure"),
    );
    let access = look("MINIO_ACCESS_KEY", "access_key");
    let secret = look("MINIO_SECRET_KEY", "secret_key");
    let region = look("", "region");
    let public = look("", "public_endpoint");
    let Some(endpoint) = endpoint else {
        tell_no_endpoint(
            &section,
            [bucket, access, secret, secure, region, public],
            report,
        );
        return None;
    };
    let (endpoint, scheme) = host(&endpoint, report)?;
    let secure = is_secure(secure, scheme, &endpoint, report)?;
    let Some(bucket) = bucket else {
        report.error(
            top.key_place("s3"),
            "MINIO_ENDPOINT or `s3.endpoint` is set without a bucket: set MINIO_BUCKET or `s3.bucket`",
        );
        return None;
    };
    let is_aws = defaults::is_aws(&endpoint);
    let region = region_of(region, &endpoint, environment, &section, report)?;
    let path_style = section.truth("path_style", report);
    let keys = keys(access, secret, report)?;
    let store = S3Settings {
        secure,
        bucket: bucket.text,
        region,
        path_style: path_style.unwrap_or(!is_aws),
        prefix: prefix(&section, report)?,
        platform: platform(environment),
        ca: authorities(&section, secure || keys.is_none(), report),
        keys,
        public: match &public {
            Some(given) => host(given, report)
                .map(|(host, scheme)| (host, scheme.unwrap_or(secure)))
                .map(Some)?,
            None => None,
        },
        checksums: is_aws,
        proxies: proxies.cloned(),
        endpoint,
    };
    Some(S3 {
        store,
        tier: section.size("tier", report),
        upload_lease: lease(&section, report),
        presign: section.truth("presign", report).unwrap_or(false),
    })
}

/// The store's region: as it is set, as its host name says, as the environment has it for all stores, or the usual one.
fn region_of(
    given: Option<Given>,
    endpoint: &str,
    environment: &Environment,
    section: &Section<'_>,
    report: &mut Report,
) -> Option<String> {
    let region = given
        .map(|given| given.text)
        .or_else(|| defaults::aws_region(endpoint).map(str::to_owned))
        .or_else(|| environment.get("AWS_REGION").map(str::to_owned))
        .unwrap_or_else(|| "us-east-1".to_owned());
    if holds_control(&region) {
        let message = "`s3.region` or AWS_REGION holds a control character";
        report.error(section.key_place("region"), message);
        return None;
    }
    Some(region)
}

fn lease(section: &Section<'_>, report: &mut Report) -> Duration {
    let lease = section.seconds("upload_lease", 2, report);
    lease.unwrap_or(UPLOAD_LEASE)
}

/// Whoever sets one of these means a store, and gets files.
fn tell_no_endpoint(section: &Section<'_>, said: [Option<Given>; 6], report: &mut Report) {
    // An empty `endpoint` says that there is to be none.
    let is_left_empty = section.key_place("endpoint").is_some();
    let first = said.into_iter().flatten().next();
    let Some(first) = first.filter(|_| !is_left_empty) else {
        return;
    };
    let why = "has no effect without an endpoint: blobs are files of the data directory; name the store with MINIO_ENDPOINT or \
               `s3.endpoint`";
    report.warning(first.place.as_ref(), format!("{} {why}", first.name));
}

/// A value of the environment, of a file that the environment names, or of the configuration; an empty one is none.
fn given(
    section: &Section<'_>,
    environment: &Environment,
    variable: &str,
    key: &str,
    report: &mut Report,
) -> Option<Given> {
    let direct = if schema::is_secret(key) {
        secret_files::secret(environment, variable, report)
    } else {
        environment.get(variable).map(str::to_owned)
    };
    let direct = direct.map(|text| Given {
        text,
        name: variable.to_owned(),
        place: None,
    });
    let of_file = || {
        let (text, place) = section.text(key, report)?;
        Some(Given {
            text: text.to_owned(),
            name: format!("`s3.{key}`"),
            place: Some(place.clone()),
        })
    };
    direct
        .or_else(of_file)
        .filter(|given| !given.text.is_empty())
}

/// Host and port, and whether a scheme in front of them says that it is TLS.
fn host(given: &Given, report: &mut Report) -> Option<(String, Option<bool>)> {
    let text = given.text.trim_end_matches('/');
    let (scheme, host) = match text.split_once("://") {
        Some(("https", host)) => (Some(true), host),
        Some(("http", host)) => (Some(false), host),
        Some(_) => (None, ""),
        None => (None, text),
    };
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if host.is_empty() || !host.bytes().all(legal) {
        let form = "must be a host, with a port if it is not the usual one, such as s3.example.com or minio:9000";
        report.error(given.place.as_ref(), format!("{} {form}", given.name));
        return None;
    }
    Some((host.to_ascii_lowercase(), scheme))
}

fn is_secure(
    given: Option<Given>,
    scheme: Option<bool>,
    endpoint: &str,
    report: &mut Report,
) -> Option<bool> {
    let Some(given) = given else {
        return Some(scheme.unwrap_or(defaults::is_aws(endpoint)));
    };
    let said = match given.text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => true,
        "false" | "no" | "off" | "0" => false,
        _ => {
            let message = format!("{} must be true or false", given.name);
            report.error(given.place.as_ref(), message);
            return None;
        }
    };
    if scheme.is_some_and(|scheme| scheme != said) {
        let message = format!(
            "{} says something else than the scheme of the endpoint",
            given.name
        );
        report.error(given.place.as_ref(), message);
    }
    Some(said)
}

type Keys = Option<(Secret<String>, Secret<String>)>;

/// Both keys, or none: then the platform has credentials.
fn keys(access: Option<Given>, secret: Option<Given>, report: &mut Report) -> Option<Keys> {
    let unusable = |given: &&Given| holds_control(&given.text);
    if let Some(one) = [&access, &secret].into_iter().flatten().find(unusable) {
        let message = format!(
            "{} holds a control character, such as the end of a line",
            one.name
        );
        report.error(one.place.as_ref(), message);
        return None;
    }
    match (access, secret) {
        (Some(access), Some(secret)) => {
            Some(Some((Secret::new(access.text), Secret::new(secret.text))))
        }
        (None, None) => Some(None),
        (Some(one), None) | (None, Some(one)) => {
            let message = format!(
                "{} is set and the other key is not: set both, or none of them to use the platform's credentials",
                one.name
            );
            report.error(one.place.as_ref(), message);
            None
        }
    }
}

/// What requests are signed with stands in their heads, which have room for none of these.
fn holds_control(text: &str) -> bool {
    text.contains(char::is_control)
}

fn platform(environment: &Environment) -> Vec<(String, String)> {
    PLATFORM
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), environment.get(name)?.to_owned())))
        .collect()
}

/// What all keys begin with, with a slash at its end.
fn prefix(section: &Section<'_>, report: &mut Report) -> Option<String> {
    let Some((text, place)) = section.text("prefix", report) else {
        return Some(String::new());
    };
    let text = text.trim_matches('/');
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._/".contains(&b);
    let is_path = !text.split('/').any(|part| matches!(part, "" | "." | ".."));
    if text.is_empty() {
        Some(String::new())
    } else if is_path && text.bytes().all(legal) {
        Some(format!("{text}/"))
    } else {
        report.error(
            place,
            "`s3.prefix` must be letters, digits and - . _, in folders divided by slashes",
        );
        None
    }
}

/// `is_needed`: whether anything is asked over TLS.
fn authorities(section: &Section<'_>, is_needed: bool, report: &mut Report) -> Option<Vec<u8>> {
    let (path, place) = section.text("ca_file", report)?;
    if !is_needed {
        let why = "has no effect: the store is not asked over TLS (MINIO_SECURE, `s3.secure`)";
        report.warning(place, format!("`s3.ca_file` {why}"));
    }
    let path = beside(Path::new(&*place.file), path);
    let pem = larder_upstream::check_ca_file(&path)
        .and_then(|()| std::fs::read(&path).map_err(|error| format!("cannot be read: {error}")));
    pem.inspect_err(|why| {
        let message = format!("`s3.ca_file` names {}, which {why}", path.display());
        report.error(place, message);
    })
    .ok()
}
