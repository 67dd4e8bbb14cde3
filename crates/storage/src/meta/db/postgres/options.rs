//! Where the server is, and as whom larder speaks to it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// The name that sessions have in the server's views.
const APPLICATION: &str = "larder";

/// How PostgreSQL is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    /// Servers of one cluster with their ports; the first that takes writes is used. A host that begins with a slash is the folder of
    /// a Unix socket.
    pub hosts: Vec<(String, u16)>,
    /// The role.
    pub user: String,
    /// Its password; empty where the server asks for none.
    pub password: String,
    /// The database.
    pub database: String,
    /// Whether the connection is encrypted, and who the server must be.
    pub tls: TlsMode,
    /// Certificates of authorities that are trusted beside those that everybody trusts, in PEM. With [`TlsMode::Require`] it makes that
    /// [`TlsMode::VerifyCa`], as it does for the server's own clients.
    pub ca_file: Option<PathBuf>,
}

/// The `sslmode` of PostgreSQL's own clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// Never encrypted.
    Disable,
    /// Encrypted only where the server insists on it.
    Allow,
    /// Encrypted where the server can.
    #[default]
    Prefer,
    /// Encrypted; whoever answers is believed.
    Require,
    /// Encrypted; an authority that is trusted must have signed the certificate.
    VerifyCa,
    /// As that, and the certificate must be for the host's name.
    VerifyFull,
}

impl TlsMode {
    /// All of them, by the names that the server's own clients use.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("disable", Self::Disable),
        ("allow", Self::Allow),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];
}

impl FromStr for TlsMode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let found = Self::NAMES.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, mode)| mode).ok_or(())
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("hosts", &self.hosts)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("tls", &self.tls)
            .field("ca_file", &self.ca_file)
            .finish_non_exhaustive()
    }
}

impl PostgresOptions {
    /// What the driver takes, for each host.
    pub(super) fn each_host(&self) -> Vec<PgConnectOptions> {
        let of = |(host, port): &(String, u16)| {
            let mode = match self.tls {
                TlsMode::Disable => PgSslMode::Disable,
                TlsMode::Allow => PgSslMode::Allow,
                TlsMode::Prefer => PgSslMode::Prefer,
                // Who names authorities means them to be looked at.
                TlsMode::Require if self.ca_file.is_some() => PgSslMode::VerifyCa,
                TlsMode::Require => PgSslMode::Require,
                TlsMode::VerifyCa => PgSslMode::VerifyCa,
                TlsMode::VerifyFull => PgSslMode::VerifyFull,
            };
            let options = PgConnectOptions::new_without_pgpass()
                .host(host)
                .port(*port)
                .username(&self.user)
                .password(&self.password)
                .database(&self.database)
                .ssl_mode(mode)
                .application_name(APPLICATION)
                // A pooler in front of the server knows no such parameter, and no float is ever read.
                .extra_float_digits(None)
                .statement_cache_capacity(0)
                .disable_statement_logging();
            match &self.ca_file {
                Some(file) => options.ssl_root_cert(file),
                None => options,
            }
        };
        self.hosts.iter().map(of).collect()
    }

    /// The hosts, for people.
    pub(super) fn shown(&self, index: usize) -> String {
        self.hosts
            .get(index)
            .map(|(host, port)| format!("{host}:{port}"))
            .unwrap_or_default()
    }
}
