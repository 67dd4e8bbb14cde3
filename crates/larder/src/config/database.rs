//! `database`: the PostgreSQL that metadata is kept in, each key by its variable, then the file. Without a host it is SQLite in the data
//! directory.

use std::path::{Path, PathBuf};

use larder_core::REDACTED;
use larder_storage::{PostgresOptions, TlsMode};
use serde_json::{Value as Json, json};

use super::diagnostic::{Place, Report};
use super::env::Environment;
use super::fields::Section;
use super::file::beside;
use super::schema;
use super::secret_files;

/// The server's port, its role and its database, where nobody says otherwise.
const PORT: u16 = 5432;
const NAME: &str = "larder";

/// The server that metadata is kept in; `None` for SQLite, or if what is wrong has been reported.
pub(super) fn database(
    top: &Section<'_>,
    environment: &Environment,
    report: &mut Report,
) -> Option<PostgresOptions> {
    let section = top.section("database", schema::DATABASE, report);
    let mut text = |variable: &str, key: &str| -> Option<Said> {
        let file = section
            .as_ref()
            .and_then(|section| section.text(key, report));
        match environment.get(variable) {
            Some(text) => Some(Said {
                text: text.to_owned(),
                name: variable.to_owned(),
                place: None,
            }),
            None => file
                .filter(|(text, _)| !text.is_empty())
                .map(|(text, place)| Said {
                    text: text.to_owned(),
                    name: format!("`database.{key}`"),
                    place: Some(place.clone()),
                }),
        }
    };
    let host = text("DBHOST", "host");
    let port = text("DBPORT", "port");
    let user = text("DBUSER", "user");
    let name = text("DBNAME", "name");
    let sslmode = text("DBSSLMODE", "sslmode");
    let ca_file = text("DBCAFILE", "ca_file");
    let password = text("DBPASS", "password");
    let Some(host) = host else {
        let said = [&name, &user, &password, &ca_file, &sslmode, &port];
        // An empty `host` says that there is to be none.
        let is_left_empty = section.is_some_and(|section| section.key_place("host").is_some());
        if let Some(said) = said.into_iter().flatten().next().filter(|_| !is_left_empty) {
            said.without_host(report);
        }
        return None;
    };
    let password = password_of(password, environment, report);
    let tls = tls_mode(sslmode, ca_file.is_some(), report);
    let ca_file = ca_file.map(|said| {
        if matches!(tls, TlsMode::Disable | TlsMode::Allow | TlsMode::Prefer) {
            let why = "has no effect with this sslmode: set verify-full or verify-ca";
            report.warning(said.place.as_ref(), format!("{} {why}", said.name));
        }
        authorities(&said, report)
    });
    Some(PostgresOptions {
        hosts: hosts(&host, port.as_ref(), report)?,
        user: user.map_or_else(|| NAME.to_owned(), |said| said.text),
        password,
        database: name.map_or_else(|| NAME.to_owned(), |said| said.text),
        tls,
        ca_file,
    })
}

/// A value, and where it stands.
struct Said {
    text: String,
    name: String,
    place: Option<Place>,
}

impl Said {
    /// Whoever sets it means a server, and gets a file.
    fn without_host(&self, report: &mut Report) {
        let why = "has no effect without a host: metadata is kept in SQLite; name the PostgreSQL server with DBHOST or `database.host`";
        report.warning(self.place.as_ref(), format!("{} {why}", self.name));
    }

    fn wrong(&self, why: &str, report: &mut Report) {
        report.error(self.place.as_ref(), format!("{} {why}", self.name));
    }
}

/// One host or several with commas between them, each with or without a port; the ports of `port` are for all, or one for each.
fn hosts(host: &Said, port: Option<&Said>, report: &mut Report) -> Option<Vec<(String, u16)>> {
    let mut ports: Vec<u16> = Vec::new();
    for text in port.iter().flat_map(|port| port.text.split(',')) {
        let Some(number) = text.trim().parse().ok().filter(|number| *number != 0) else {
            let why = "must be a port, or one for each host, with commas between them";
            port?.wrong(why, report);
            return None;
        };
        ports.push(number);
    }
    let names: Vec<&str> = host.text.split(',').map(str::trim).collect();
    if ports.len() > 1 && ports.len() != names.len() {
        if let Some(port) = port {
            port.wrong("names several ports, but not one for each host", report);
        }
        return None;
    }
    let mut hosts = Vec::new();
    for (index, name) in names.into_iter().enumerate() {
        let default = ports.get(index).or(ports.first()).copied().unwrap_or(PORT);
        let Some(found) = with_port(name, default) else {
            let why = "must be a host name or address, with or without a port, or several with commas between them";
            host.wrong(why, report);
            return None;
        };
        hosts.push(found);
    }
    Some(hosts)
}

/// `host`, `host:port`, `[address]:port`, an IPv6 address, or the folder of a Unix socket.
fn with_port(text: &str, default: u16) -> Option<(String, u16)> {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name
                .bytes()
                .any(|byte| byte.is_ascii_whitespace() || b"@?#".contains(&byte))
    };
    if text.starts_with('/') || text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some((text.to_owned(), default));
    }
    if text.contains('/') {
        return None;
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok().filter(|port| *port != 0)?),
        None => (text, default),
    };
    let name = name
        .strip_prefix('[')
        .map_or(Some(name), |name| name.strip_suffix(']'))?;
    is_name(name).then(|| (name.to_owned(), port))
}

/// `DBPASS`, or the file that `DBPASS_FILE` names without its final newline, or the configuration's.
fn password_of(said: Option<Said>, environment: &Environment, report: &mut Report) -> String {
    secret_files::secret(environment, "DBPASS", report)
        .or(said.map(|said| said.text))
        .unwrap_or_default()
}

fn authorities(said: &Said, report: &mut Report) -> PathBuf {
    let path = match &said.place {
        Some(place) => beside(Path::new(&*place.file), &said.text),
        None => PathBuf::from(&said.text),
    };
    if !path.is_file() {
        said.wrong(
            &format!("names {}, which is not a file", path.display()),
            report,
        );
    } else if let Err(why) = larder_upstream::check_ca_file(&path) {
        said.wrong(&format!("names {}, which {why}", path.display()), report);
    }
    path
}

/// Who names authorities means them to be looked at.
fn tls_mode(said: Option<Said>, has_authorities: bool, report: &mut Report) -> TlsMode {
    let Some(said) = said else {
        return if has_authorities {
            TlsMode::VerifyFull
        } else {
            TlsMode::default()
        };
    };
    said.text.parse().unwrap_or_else(|()| {
        let names = TlsMode::NAMES.map(|(name, _)| name).join(", ");
        said.wrong(
            &format!("is {:?}, and must be one of {names}", said.text),
            report,
        );
        TlsMode::default()
    })
}

/// What `/config` shows.
pub(super) fn view(options: &PostgresOptions) -> Json {
    let hosts: Vec<String> = options
        .hosts
        .iter()
        .map(|(host, port)| {
            if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            }
        })
        .collect();
    let mode = TlsMode::NAMES
        .into_iter()
        .find(|(_, mode)| *mode == options.tls)
        .map(|(name, _)| name);
    let mut shown = json!({
        "host": hosts.join(","),
        "user": options.user,
        "name": options.database,
        "sslmode": mode,
    });
    if !options.password.is_empty() {
        shown["password"] = json!(REDACTED);
    }
    if let Some(file) = &options.ca_file {
        shown["ca_file"] = json!(file);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_ports_of_their_own_or_the_common_one() {
        let host = |name: &str, port: u16| Some((name.to_owned(), port));
        assert_eq!(with_port("db", 5432), host("db", 5432));
        assert_eq!(with_port("db:6432", 5432), host("db", 6432));
        assert_eq!(with_port("::1", 5432), host("::1", 5432));
        assert_eq!(with_port("[::1]:6432", 5432), host("::1", 6432));
        assert_eq!(
            with_port("/run/postgresql", 5432),
            host("/run/postgresql", 5432)
        );
        for wrong in [
            "",
            "db:",
            "db:0",
            "db:x",
            "postgres://db",
            "a b",
            "[::1",
            "u@db",
        ] {
            assert_eq!(with_port(wrong, 5432), None, "{wrong}");
        }
    }
}
