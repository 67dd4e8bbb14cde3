//! The settings that belong to the program and not to a repository, each by flag, then environment, then file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use larder_core::{PublicUrls, REDACTED, Secret};
use url::Url;

use super::{Sources, Tls};
use crate::config::diagnostic::{Place, Report};
use crate::config::env::Environment;
use crate::config::fields::Section;
use crate::config::file::beside;
use crate::config::schema;
use crate::config::secret_files;
use crate::config::urls::{listen_address, network, root_url, shown};

/// A setting that may be given more than once, each item with its name in messages: of the flag, else of the variable (separated by
/// commas), else of the file.
fn items_of<'a>(
    top: &Section<'a>,
    key: &'a str,
    (flag, given): (&'a str, &'a [String]),
    (variable, environment): (&'a str, &'a Environment),
    report: &mut Report,
) -> Option<Vec<(&'a str, &'a str, Option<&'a Place>)>> {
    let from_file = top.one_or_more(key, report);
    if !given.is_empty() {
        return Some(
            given
                .iter()
                .map(|text| (text.as_str(), flag, None))
                .collect(),
        );
    }
    if let Some(list) = environment.get(variable) {
        return Some(
            list.split(',')
                .map(|text| (text.trim(), variable, None))
                .collect(),
        );
    }
    let items: Vec<_> = from_file?
        .into_iter()
        .map(|(text, place)| (text, key, Some(place)))
        .collect();
    if items.is_empty() {
        report.error(
            top.key_place(key),
            format!("`{key}` is an empty list: name at least one address"),
        );
    }
    Some(items)
}

/// The addresses of `listen`; loopback if nobody names any.
pub(super) fn listen(top: &Section<'_>, sources: &Sources, report: &mut Report) -> Vec<SocketAddr> {
    let texts = items_of(
        top,
        "listen",
        ("--listen", &sources.listen),
        ("LARDER_LISTEN", &sources.environment),
        report,
    );
    let texts = texts.unwrap_or_else(|| vec![("127.0.0.1:8000", "listen", None)]);
    let mut addresses = Vec::new();
    for (text, name, place) in texts {
        match listen_address(text) {
            Ok(address) if address.port() != 0 && addresses.contains(&address) => {
                report.error(
                    place,
                    format!("{name}: {text:?} stands twice: an address can be listened on once"),
                );
            }
            Ok(address) => addresses.push(address),
            Err(why) => report.error(place, format!("{name}: {why}")),
        }
    }
    addresses
}

/// The data directory; `None` if it is reported that there is none.
pub(super) fn data_dir(
    top: &Section<'_>,
    sources: &Sources,
    report: &mut Report,
) -> Option<PathBuf> {
    let from_file = top
        .text("data_dir", report)
        .map(|(path, place)| beside(Path::new(&*place.file), path));
    let chosen = sources
        .data_dir
        .clone()
        .or_else(|| {
            sources
                .environment
                .get("LARDER_DATA_DIR")
                .map(PathBuf::from)
        })
        .or(from_file)
        .or_else(|| sources.environment.default_data_dir());
    if chosen.is_none() {
        report.error(
            None,
            "no data directory: set --data-dir, LARDER_DATA_DIR or `data_dir`, for neither XDG_DATA_HOME nor HOME is set",
        );
    }
    // A shell takes `~` for the home directory, and only at the beginning of a word of its own.
    if let Some(path) = chosen
        .as_deref()
        .filter(|path| path.components().any(|part| part.as_os_str() == "~"))
    {
        report.error(
            top.key_place("data_dir"),
            format!(
                "the data directory {}: `~` is no home directory here: write the whole path",
                path.display()
            ),
        );
    }
    chosen
}

/// The addresses of `public_url`.
pub(super) fn public_urls(top: &Section<'_>, sources: &Sources, report: &mut Report) -> PublicUrls {
    let (flag, variable) = (
        ("--public-url", sources.public_url.as_slice()),
        ("LARDER_PUBLIC_URL", &sources.environment),
    );
    let mut urls: Vec<Url> = Vec::new();
    for (text, name, place) in
        items_of(top, "public_url", flag, variable, report).unwrap_or_default()
    {
        match root_url(text) {
            Ok(url) if urls.iter().any(|other| other.origin() == url.origin()) => {
                let why = "names a scheme, host and port twice: a request's Host could not choose between them";
                report.error(place, format!("{name} {why}"));
            }
            Ok(url) => urls.push(url),
            Err(why) => report.error(place, format!("{name} {why}")),
        }
    }
    PublicUrls::new(urls)
}

/// The networks of `trusted_proxies`.
pub(super) fn trusted_proxies(top: &Section<'_>, report: &mut Report) -> Vec<IpNet> {
    let mut proxies = Vec::new();
    for (text, place) in top
        .one_or_more("trusted_proxies", report)
        .unwrap_or_default()
    {
        match network(text) {
            Some(network) => proxies.push(network.trunc()),
            None => report.error(
                place,
                format!(
                    "`trusted_proxies`: {} is not an address or a network such as 10.0.0.0/8",
                    shown(text)
                ),
            ),
        }
    }
    proxies
}

/// The files of `tls`, which are there.
pub(super) fn tls(top: &Section<'_>, report: &mut Report) -> Option<Tls> {
    let section = top.section("tls", schema::TLS, report)?;
    let mut file = |key| {
        let Some((path, place)) = section.text(key, report) else {
            report.error(
                top.key_place("tls"),
                format!("`tls` needs `cert` and `key`; `{key}` is missing"),
            );
            return None;
        };
        let path = beside(Path::new(&*place.file), path);
        if !path.is_file() {
            report.error(
                place,
                format!("`tls.{key}`: {} is not a file", path.display()),
            );
        }
        Some(path)
    };
    let (cert, key) = (file("cert"), file("key"));
    Some(Tls {
        cert: cert?,
        key: key?,
    })
}

/// The admin token: of the flag, else of the variable, else of the file.
pub(super) fn admin_token(
    top: &Section<'_>,
    sources: &Sources,
    report: &mut Report,
) -> Option<Secret<String>> {
    let section = top.section("auth", schema::AUTH, report);
    let from_file = section
        .and_then(|section| section.text("admin_token", report))
        .map(|(text, _)| text.to_owned());
    let from_flag =
        sources
            .admin_token_file
            .as_deref()
            .map(|path| match std::fs::read_to_string(path) {
                Ok(text) => text.trim().to_owned(),
                Err(error) => {
                    report.error(
                        None,
                        format!(
                            "--admin-token-file: cannot read {}: {error}",
                            path.display()
                        ),
                    );
                    "unread-but-reported".to_owned()
                }
            });
    let from_flag = from_flag.map(|token| (token, "--admin-token-file", None));
    let from_environment = secret_files::secret(&sources.environment, "LARDER_ADMIN_TOKEN", report);
    let from_variable = || {
        let token = from_environment?;
        Some((token, "LARDER_ADMIN_TOKEN", None))
    };
    let place = top.key_place("auth");
    let (token, whence, place) = from_flag
        .or_else(from_variable)
        .or_else(|| from_file.map(|token| (token, "`auth.admin_token`", place)))?;
    // RFC 6750 section 2.1: what may follow `Bearer`.
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    if token == REDACTED {
        // Reported with the references.
    } else if token.is_empty() || !token.bytes().all(legal) {
        let form = "the admin token must be letters, digits and - . _ ~ + / = (it follows `Bearer` in a header), and not empty";
        report.error(place, format!("{whence}: {form}"));
    } else if token.len() < 16 {
        report.warning(
            place,
            format!("{whence}: the admin token is shorter than 16 characters: anyone who reaches larder may guess it"),
        );
    }
    Some(Secret::new(token))
}
