//! What replicas need to find each other: Redis, the address of this one, and the secret that they share.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use larder_core::{REDACTED, Secret};
use larder_storage::RedisAddress;

use super::Sources;
use crate::config::diagnostic::{Place, Report};
use crate::config::fields::Section;
use crate::config::file::beside;
use crate::config::schema;
use crate::config::secret_files;
use crate::config::urls::shown;

/// A shorter one could be guessed.
const SHORTEST_SECRET: usize = 16;

/// `redis`, `advertise` and `cluster`.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// `REDIS_URL`, else `redis.url`: what replicas share beside the database. `None`: this process shares with itself.
    pub redis: Option<RedisAddress>,
    /// `REDISCAFILE`, else `redis.ca_file`: the file of the authorities that may have signed the certificates of Redis and its sentinels.
    /// `None`: those that the system trusts.
    pub redis_ca_file: Option<PathBuf>,
    /// `LARDER_ADVERTISE`, else `advertise`: `host:port` at which other replicas reach this one. `None`: not at all.
    pub advertise: Option<String>,
    /// `LARDER_CLUSTER_SECRET`, else `cluster.secret`: what replicas know each other by.
    pub secret: Option<Secret<String>>,
}

pub(super) fn cluster(top: &Section<'_>, sources: &Sources, report: &mut Report) -> Cluster {
    let (redis, redis_ca_file) = redis(top, sources, report);
    let advertise = advertise(top, sources, report);
    let secret = secret(top, sources, report);
    if advertise.is_some() && secret.is_none() && !report.has_errors() {
        report.error(
            top.key_place("advertise"),
            "`advertise` needs `cluster.secret` (or LARDER_CLUSTER_SECRET): without it any stranger could ask this replica for downloads",
        );
    }
    if advertise.is_some() && redis.is_none() && !report.has_errors() {
        report.warning(
            top.key_place("advertise"),
            "`advertise` has no effect without REDIS_URL: replicas find each other through Redis",
        );
    }
    Cluster {
        redis,
        redis_ca_file,
        advertise,
        secret,
    }
}

fn redis(
    top: &Section<'_>,
    sources: &Sources,
    report: &mut Report,
) -> (Option<RedisAddress>, Option<PathBuf>) {
    let section = top.section("redis", schema::REDIS, report);
    let address = section
        .as_ref()
        .and_then(|section| section.text("url", report))
        .filter(|(text, _)| !text.is_empty());
    let address = redis_address(address, sources, report);
    let from_file = section
        .as_ref()
        .and_then(|section| section.text("ca_file", report))
        .filter(|(text, _)| !text.is_empty());
    let (path, name, place) = match (sources.environment.get("REDISCAFILE"), from_file) {
        (Some(path), _) => (PathBuf::from(path), "REDISCAFILE", None),
        (None, Some((text, place))) => {
            let path = beside(Path::new(&*place.file), text);
            (path, "`redis.ca_file`", Some(place))
        }
        (None, None) => return (address, None),
    };
    let Some(address) = address else {
        // What has no URL has no effect, or is wrong already.
        return (None, None);
    };
    let trusting = larder_upstream::check_ca_file(&path)
        .and_then(|()| std::fs::read(&path).map_err(|error| format!("cannot be read: {error}")))
        .map_err(|why| format!("names {}, which {why}", path.display()))
        .and_then(|pem| address.trusting(pem));
    match trusting {
        Ok(address) => (Some(address), Some(path)),
        Err(why) => {
            report.error(place, format!("{name} {why}"));
            (None, None)
        }
    }
}

fn redis_address(
    from_file: Option<(&str, &Place)>,
    sources: &Sources,
    report: &mut Report,
) -> Option<RedisAddress> {
    let from_variable = secret_files::secret(&sources.environment, "REDIS_URL", report);
    let (text, name, place) = match (&from_variable, from_file) {
        (Some(text), _) => (text.as_str(), "REDIS_URL", None),
        (None, Some((text, place))) => (text, "`redis.url`", Some(place)),
        (None, None) => return None,
    };
    if text == REDACTED {
        // Reported with the references.
        return None;
    }
    match RedisAddress::parse(text) {
        Ok(address) => Some(address),
        Err(why) => {
            report.error(place, format!("{name} {why}"));
            None
        }
    }
}

fn advertise(top: &Section<'_>, sources: &Sources, report: &mut Report) -> Option<String> {
    let from_file = top.text("advertise", report);
    let from_variable = sources.environment.get("LARDER_ADVERTISE");
    let (text, name, place) = match (from_variable, from_file) {
        (Some(text), _) => (text, "LARDER_ADVERTISE", None),
        (None, Some((text, place))) => (text, "`advertise`", Some(place)),
        (None, None) => return None,
    };
    match address(text) {
        Ok(address) => Some(address),
        Err(why) => {
            report.error(place, format!("{name}: {} {why}", shown(text)));
            None
        }
    }
}

/// A `host:port` that other replicas can connect to. Brackets may stand around any address: whoever fills one in need not know of which
/// kind it is.
fn address(text: &str) -> Result<String, &'static str> {
    let form = "is not HOST:PORT, the address at which other replicas reach this one";
    let (host, port) = text.rsplit_once(':').ok_or(form)?;
    if port.parse::<u16>().is_ok_and(|port| port == 0) {
        return Err("has port 0, which nobody can connect to");
    }
    let is_name = |host: &str| {
        let is_legal = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        !host.is_empty() && host.len() <= 253 && host.bytes().all(is_legal)
    };
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let address = bracketed.unwrap_or(host).parse::<IpAddr>().ok();
    let legal = match bracketed {
        Some(_) => address.is_some(),
        None => is_name(host),
    };
    if !legal || port.parse::<u16>().is_err() {
        return Err(form);
    }
    match address {
        Some(address) if address.is_unspecified() => {
            Err("is where this replica listens, not where others reach it: name its own address")
        }
        Some(IpAddr::V4(address)) => Ok(format!("{address}:{port}")),
        _ => Ok(text.to_owned()),
    }
}

fn secret(top: &Section<'_>, sources: &Sources, report: &mut Report) -> Option<Secret<String>> {
    let section = top.section("cluster", schema::CLUSTER, report);
    let from_file = section.and_then(|section| section.text("secret", report));
    let from_variable = secret_files::secret(&sources.environment, "LARDER_CLUSTER_SECRET", report);
    let (text, name, place): (String, _, Option<&Place>) = match (from_variable, from_file) {
        (Some(text), _) => (text, "LARDER_CLUSTER_SECRET", None),
        (None, Some((text, place))) => (text.to_owned(), "`cluster.secret`", Some(place)),
        (None, None) => return None,
    };
    if text == REDACTED {
        return None;
    }
    if text.len() < SHORTEST_SECRET {
        report.error(
            place,
            format!("{name} is shorter than {SHORTEST_SECRET} characters: whoever guesses it is taken for a replica"),
        );
        return None;
    }
    Some(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_that_others_can_connect_to() {
        for good in ["10.0.0.1:8000", "larder-0.larder:80", "[fd00::1]:8000"] {
            assert_eq!(address(good).as_deref(), Ok(good));
        }
        assert_eq!(
            address("[10.0.0.1]:8000").as_deref(),
            Ok("10.0.0.1:8000"),
            "brackets around what may be of either kind"
        );
        for bad in [
            "",
            "host",
            "host:",
            "host:0",
            "host:70000",
            ":8000",
            "http://host:80",
            "host:80/x",
            "fd00::1:8000x",
            "0.0.0.0:8000",
            "[::]:8000",
            "[0.0.0.0]:8000",
            "[host]:8000",
            "a b:80",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
