//! The tables that are copied: how their rows are read in the order of their keys, written and deleted, and which of them are good.

use crate::meta::db::{DbError, Row, Value};
use crate::meta::seal::{Unsealed, is_bytes, unseal, unseal_bytes};

/// What a column holds.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Integer,
    MaybeText,
    MaybeInteger,
    /// Bytes; in SQLite's file perhaps a text of an earlier version.
    Bytes,
}

/// A table, with its columns in the order of its statements. The key comes first, and is of texts.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) keys: usize,
    kinds: &'static [Kind],
    /// Rows after a key, in order; the limit is the last place.
    pub(super) page: &'static str,
    /// As `page`, of what is to be copied of the source.
    pub(super) source_page: &'static str,
    pub(super) put: &'static str,
    pub(super) delete: &'static str,
    pub(super) count: &'static str,
    /// The column that names a blob.
    pub(super) blob: Option<usize>,
}

/// A row: the values of its columns.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cells(pub(super) Vec<Value<'static>>);

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its seal is broken.
    Damaged,
    /// It cannot be found by its key in the other database.
    TooLong,
}

/// Of `artifacts AS a`: what has not been flushed. Rows of flushed records stand until they are swept (docs/adr/0088).
macro_rules! kept {
    () => {
        "a.epoch >= COALESCE((SELECT e.invalid_before FROM epochs AS e WHERE e.repository = a.repository), 0) \
         AND NOT EXISTS (SELECT 1 FROM invalid_records AS i WHERE i.repository = a.repository AND i.path = a.path \
         AND i.variant = a.variant AND i.epoch > a.epoch)"
    };
}
pub(super) use kept;

const BLOBS_PAGE: &str =
    "SELECT digest, size, modified_ns FROM blobs WHERE digest > $1 ORDER BY digest LIMIT $2";

/// Those that records and uploaded files name.
pub(super) const BLOBS: Table = Table {
    name: "blobs",
    keys: 1,
    kinds: &[Kind::Text, Kind::Integer, Kind::Integer],
    page: BLOBS_PAGE,
    source_page: concat!(
        "SELECT digest, size, modified_ns FROM blobs AS b WHERE digest > $1 \
         AND (EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = b.digest AND ",
        kept!(),
        ") OR EXISTS (SELECT 1 FROM local_files AS l WHERE l.blob = b.digest)) ORDER BY digest LIMIT $2"
    ),
    put: "INSERT INTO blobs (digest, size, modified_ns) VALUES ($1, $2, $3) ON CONFLICT (digest) DO UPDATE SET \
         size = excluded.size, modified_ns = excluded.modified_ns, delete_after = NULL, condemned_by = NULL, condemned_at = NULL",
    delete: "DELETE FROM blobs WHERE digest = $1",
    count: concat!(
        "SELECT COUNT(*) FROM blobs AS b WHERE EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = b.digest AND ",
        kept!(),
        ") OR EXISTS (SELECT 1 FROM local_files AS l WHERE l.blob = b.digest)"
    ),
    blob: Some(0),
};

const ORIGINS_PAGE: &str = "SELECT repository, url, origin FROM origins WHERE (repository, url) > ($1, $2) \
     ORDER BY repository, url LIMIT $3";
const ORIGINS: Table = Table {
    name: "origins",
    keys: 2,
    kinds: &[Kind::Text, Kind::Text, Kind::Text],
    page: ORIGINS_PAGE,
    source_page: ORIGINS_PAGE,
    put: "INSERT INTO origins (repository, url, origin) VALUES ($1, $2, $3) \
         ON CONFLICT (repository, url) DO UPDATE SET origin = excluded.origin",
    delete: "DELETE FROM origins WHERE repository = $1 AND url = $2",
    count: "SELECT COUNT(*) FROM origins",
    blob: None,
};

/// Not those that belong to one database: of its tables, of the place of its files, and of the copy itself.
const SECRETS_PAGE: &str = "SELECT name, value FROM secrets WHERE name > $1 \
     AND name NOT IN ('schema', 'files', 'migration') ORDER BY name LIMIT $2";
const SECRETS: Table = Table {
    name: "secrets",
    keys: 1,
    kinds: &[Kind::Text, Kind::Text],
    page: SECRETS_PAGE,
    source_page: SECRETS_PAGE,
    put: "INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    delete: "DELETE FROM secrets WHERE name = $1",
    count: "SELECT COUNT(*) FROM secrets WHERE name NOT IN ('schema', 'files', 'migration')",
    blob: None,
};

const ARTIFACTS_PAGE: &str = "SELECT repository, path, variant, blob, size, updated_at, record FROM artifacts \
     WHERE (repository, path, variant) > ($1, $2, $3) ORDER BY repository, path, variant LIMIT $4";
pub(super) const ARTIFACTS: Table = Table {
    name: "artifacts",
    keys: 3,
    kinds: &[
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::MaybeText,
        Kind::MaybeInteger,
        Kind::Integer,
        Kind::Bytes,
    ],
    page: ARTIFACTS_PAGE,
    source_page: concat!(
        "SELECT repository, path, variant, blob, size, updated_at, record FROM artifacts AS a \
         WHERE (repository, path, variant) > ($1, $2, $3) AND ",
        kept!(),
        " ORDER BY repository, path, variant LIMIT $4"
    ),
    put: "INSERT INTO artifacts (repository, path, variant, blob, size, updated_at, record) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (repository, path, variant) DO UPDATE SET \
         blob = excluded.blob, size = excluded.size, updated_at = excluded.updated_at, record = excluded.record",
    delete: "DELETE FROM artifacts WHERE repository = $1 AND path = $2 AND variant = $3",
    count: concat!("SELECT COUNT(*) FROM artifacts AS a WHERE ", kept!()),
    blob: Some(3),
};

const FILES_PAGE: &str = "SELECT repository, path, blob, size, uploaded_at, headers FROM local_files \
     WHERE (repository, path) > ($1, $2) ORDER BY repository, path LIMIT $3";
pub(super) const LOCAL_FILES: Table = Table {
    name: "local_files",
    keys: 2,
    kinds: &[
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::Integer,
        Kind::Integer,
        Kind::Text,
    ],
    page: FILES_PAGE,
    source_page: FILES_PAGE,
    put: "INSERT INTO local_files (repository, path, blob, size, uploaded_at, headers) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (repository, path) DO UPDATE SET blob = excluded.blob, size = excluded.size, \
         uploaded_at = excluded.uploaded_at, headers = excluded.headers",
    delete: "DELETE FROM local_files WHERE repository = $1 AND path = $2",
    count: "SELECT COUNT(*) FROM local_files",
    blob: Some(2),
};

const USAGE_PAGE: &str = "SELECT repository, files, bytes FROM local_usage WHERE repository > $1 ORDER BY repository LIMIT $2";
const LOCAL_USAGE: Table = Table {
    name: "local_usage",
    keys: 1,
    kinds: &[Kind::Text, Kind::Integer, Kind::Integer],
    page: USAGE_PAGE,
    source_page: USAGE_PAGE,
    put: "INSERT INTO local_usage (repository, files, bytes) VALUES ($1, $2, $3) \
         ON CONFLICT (repository) DO UPDATE SET files = excluded.files, bytes = excluded.bytes",
    delete: "DELETE FROM local_usage WHERE repository = $1",
    count: "SELECT COUNT(*) FROM local_usage",
    blob: None,
};

const JOBS_PAGE: &str = "SELECT id, repository, state, reason, created_at, ended_at, runner, lease_until FROM jobs \
     WHERE id > $1 ORDER BY id LIMIT $2";
const JOBS: Table = Table {
    name: "jobs",
    keys: 1,
    kinds: &[
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::Integer,
        Kind::MaybeInteger,
        Kind::Text,
        Kind::Integer,
    ],
    page: JOBS_PAGE,
    source_page: JOBS_PAGE,
    put: "INSERT INTO jobs (id, repository, state, reason, created_at, ended_at, runner, lease_until) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO UPDATE SET repository = excluded.repository, \
         state = excluded.state, reason = excluded.reason, created_at = excluded.created_at, ended_at = excluded.ended_at, \
         runner = excluded.runner, lease_until = excluded.lease_until",
    delete: "DELETE FROM jobs WHERE id = $1",
    count: "SELECT COUNT(*) FROM jobs",
    blob: None,
};

const ITEMS_PAGE: &str = "SELECT job, path, state, bytes, reason FROM job_items WHERE (job, path) > ($1, $2) \
     ORDER BY job, path LIMIT $3";
const JOB_ITEMS: Table = Table {
    name: "job_items",
    keys: 2,
    kinds: &[
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::Integer,
        Kind::Text,
    ],
    page: ITEMS_PAGE,
    source_page: ITEMS_PAGE,
    put: "INSERT INTO job_items (job, path, state, bytes, reason) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (job, path) DO UPDATE SET state = excluded.state, bytes = excluded.bytes, reason = excluded.reason",
    delete: "DELETE FROM job_items WHERE job = $1 AND path = $2",
    count: "SELECT COUNT(*) FROM job_items",
    blob: None,
};

const FIGURES_PAGE: &str = "SELECT repository, point, step, at, requests, hits, misses, stale, errors, refused, served, fetched, stored, free, \
     began_at FROM figures WHERE (repository, point) > ($1, $2) ORDER BY repository, point LIMIT $3";
const FIGURES: Table = Table {
    name: "figures",
    keys: 2,
    kinds: &[
        Kind::Text,
        Kind::Text,
        Kind::Integer,
        Kind::Integer,
        Kind::Integer,
        Kind::Integer,
        Kind::Integer,
        Kind::Integer,
        Kind::Integer,
        Kind::Integer,
        Kind::Integer,
        Kind::Integer,
        Kind::MaybeInteger,
        Kind::MaybeInteger,
        Kind::Integer,
    ],
    page: FIGURES_PAGE,
    source_page: FIGURES_PAGE,
    put: "INSERT INTO figures (repository, point, step, at, requests, hits, misses, stale, errors, refused, served, fetched, stored, free, \
         began_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
         ON CONFLICT (repository, point) DO UPDATE SET step = excluded.step, at = excluded.at, requests = excluded.requests, \
         hits = excluded.hits, misses = excluded.misses, stale = excluded.stale, errors = excluded.errors, refused = excluded.refused, \
         served = excluded.served, fetched = excluded.fetched, stored = excluded.stored, free = excluded.free, began_at = excluded.began_at",
    delete: "DELETE FROM figures WHERE repository = $1 AND point = $2",
    count: "SELECT COUNT(*) FROM figures",
    blob: None,
};

const ASKED_PAGE: &str = "SELECT repository, path, variant, requests, first_at, last_at, why FROM asked \
     WHERE (repository, path, variant) > ($1, $2, $3) ORDER BY repository, path, variant LIMIT $4";
const ASKED: Table = Table {
    name: "asked",
    keys: 3,
    kinds: &[
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::Integer,
        Kind::Integer,
        Kind::Integer,
        Kind::Text,
    ],
    page: ASKED_PAGE,
    source_page: ASKED_PAGE,
    put: "INSERT INTO asked (repository, path, variant, requests, first_at, last_at, why) VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (repository, path, variant) DO UPDATE SET requests = excluded.requests, first_at = excluded.first_at, \
         last_at = excluded.last_at, why = excluded.why",
    delete: "DELETE FROM asked WHERE repository = $1 AND path = $2 AND variant = $3",
    count: "SELECT COUNT(*) FROM asked",
    blob: None,
};

const AGES_PAGE: &str = "SELECT repository, path, variant, digest, size, published_at, first_seen_at, contacted_at FROM ages \
     WHERE (repository, path, variant) > ($1, $2, $3) ORDER BY repository, path, variant LIMIT $4";
/// Their bytes need not be there.
const AGES: Table = Table {
    name: "ages",
    keys: 3,
    kinds: &[
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::MaybeText,
        Kind::MaybeInteger,
        Kind::MaybeInteger,
        Kind::Integer,
        Kind::Integer,
    ],
    page: AGES_PAGE,
    source_page: AGES_PAGE,
    put: "INSERT INTO ages (repository, path, variant, digest, size, published_at, first_seen_at, contacted_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (repository, path, variant) DO UPDATE SET digest = excluded.digest, \
         size = excluded.size, published_at = excluded.published_at, first_seen_at = excluded.first_seen_at, \
         contacted_at = excluded.contacted_at",
    delete: "DELETE FROM ages WHERE repository = $1 AND path = $2 AND variant = $3",
    count: "SELECT COUNT(*) FROM ages",
    blob: None,
};

/// The tables in the order in which their rows may be written: who refers to a row comes after it.
pub(super) const TABLES: [&Table; 11] = [
    &BLOBS,
    &SECRETS,
    &ORIGINS,
    &ARTIFACTS,
    &LOCAL_FILES,
    &LOCAL_USAGE,
    &JOBS,
    &JOB_ITEMS,
    &FIGURES,
    &ASKED,
    &AGES,
];

impl Table {
    /// A row as it is read.
    ///
    /// # Errors
    /// A column holds another type.
    pub(super) fn cells(&self, row: &Row) -> Result<Cells, DbError> {
        let cell = |(index, kind): (usize, &Kind)| -> Result<Value<'static>, DbError> {
            Ok(match kind {
                Kind::Text => row.get::<String>(index)?.into(),
                Kind::Integer => row.get::<i64>(index)?.into(),
                Kind::MaybeText => row.get::<Option<String>>(index)?.into(),
                Kind::MaybeInteger => row.get::<Option<i64>>(index)?.into(),
                Kind::Bytes => row.get::<Vec<u8>>(index)?.into(),
            })
        };
        let cells = self.kinds.iter().enumerate().map(cell);
        Ok(Cells(cells.collect::<Result<_, _>>()?))
    }

    /// Whether a row's seal says that it is as it was written.
    pub(super) fn is_intact(&self, cells: &Cells) -> bool {
        let cell = |index: usize| cells.0.get(index).cloned().unwrap_or(Value::Null);
        let shown = |index: usize| match cell(index) {
            Value::Text(text) => text.into_owned(),
            Value::Integer(number) => number.to_string(),
            Value::Null | Value::Bytes(_) => String::new(),
        };
        match self.name {
            "artifacts" => match cell(6) {
                Value::Bytes(record) => is_sealed(&[&shown(0), &shown(1), &shown(2)], &record),
                _ => false,
            },
            "local_files" => {
                let key: Vec<String> = (0..5).map(shown).collect();
                let key: Vec<&str> = key.iter().map(String::as_str).collect();
                matches!(unseal(&key, &shown(5)), Unsealed::Intact(_))
            }
            "secrets" => !matches!(unseal(&[&shown(0)], &shown(1)), Unsealed::Damaged),
            _ => true,
        }
    }
}

/// Whether a record is sealed for this key, or is a text of a version that knew no seals.
fn is_sealed(key: &[&str], record: &[u8]) -> bool {
    if is_bytes(record) {
        return unseal_bytes(key, record).is_some();
    }
    match unseal(key, &String::from_utf8_lossy(record)) {
        Unsealed::Intact(_) => true,
        Unsealed::Bare(text) => text.starts_with('{'),
        Unsealed::Damaged => false,
    }
}

impl Cells {
    /// A column's text; empty if it holds none.
    pub(super) fn text(&self, index: usize) -> &str {
        match self.0.get(index) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    /// The key: as both engines order texts, byte by byte.
    pub(super) fn key(&self, table: &Table) -> Vec<&str> {
        (0..table.keys).map(|index| self.text(index)).collect()
    }

    /// What the key is found by.
    pub(super) fn key_values(&self, table: &Table) -> Vec<Value<'static>> {
        self.0.iter().take(table.keys).cloned().collect()
    }

    /// Roughly what the row takes in memory.
    pub(super) fn weight(&self) -> usize {
        let each = self.0.iter().map(|value| match value {
            Value::Null | Value::Integer(_) => 8,
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
        });
        64 + each.sum::<usize>()
    }
}
