//! The tables of a server's database, and how they change: numbered scripts, each run once, in a transaction that also notes its number.
//!
//! Several processes may start at once: whoever holds the row of version 0 runs the scripts, and the others wait for it and find them
//! done. A script only adds what earlier versions of larder do not mind (a table, a column with a default, an index); what is to go
//! goes in a later version, when no process that needs it runs any more. `oldest` of each row is the oldest version of the tables that
//! a process must know of to go on working with these.

use std::sync::Once;
use std::time::Duration;

use super::codes::code;
use super::{Db, Tx};
use crate::meta::db::{About, DbError, Durability, Row, Value};

/// How long a script may run.
pub(super) const SCRIPT: Duration = Duration::from_mins(10);

/// Script `n`, counted from 1, and the oldest version that a process must know of to work with what it leaves. Scripts are never edited,
/// only added.
const SCRIPTS: [(i64, &str); 10] = [
    (1, include_str!("0001.sql")),
    (1, include_str!("0002.sql")),
    (1, include_str!("0003.sql")),
    (1, include_str!("0004.sql")),
    (1, include_str!("0005.sql")),
    (1, include_str!("0006.sql")),
    (1, include_str!("0007.sql")),
    (1, include_str!("0008.sql")),
    (1, include_str!("0010.sql")),
    (1, include_str!("0011.sql")),
];

const EXISTS: &str = "SELECT COALESCE(to_regclass('schema_version')::text, '')";
const CREATE: &str = "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY, oldest BIGINT NOT NULL)";
const SEED: &str =
    "INSERT INTO schema_version (version, oldest) VALUES (0, 0) ON CONFLICT (version) DO NOTHING";
/// Another process's scripts are waited for; but not by readers of its tables, and not for ever.
const PATIENCE: &str =
    "SET LOCAL lock_timeout = 600000; SET LOCAL idle_in_transaction_session_timeout = 60000";
const LOCK: &str = "SELECT version FROM schema_version WHERE version = 0 FOR UPDATE";
const VERSIONS: &str =
    "SELECT COALESCE(MAX(version), 0), COALESCE(MAX(oldest), 0) FROM schema_version";
const NOTE: &str = "INSERT INTO schema_version (version, oldest) VALUES ($1, $2)";
/// The tables whose rows a running larder changes.
macro_rules! tables {
    () => {
        "unnest(ARRAY['ages', 'artifacts', 'asked', 'blobs', 'changes', 'derivation_sources', 'derivations', 'epochs', 'feed', \
         'figures', 'invalid_records', 'job_items', 'jobs', 'local_files', 'local_usage', 'multipart_uploads', 'origins', 'replicas', \
         'scrub_findings', 'scrubs', 'secrets']) AS name"
    };
}
/// What keeps the user from making the tables, or bringing them up to date; nothing if it may.
const MAY_NOT_MAKE: &str = concat!(
    "SELECT CASE WHEN NOT COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false) \
     THEN 'may not create tables in the schema ' || COALESCE(current_schema()::text, 'public') \
     WHEN EXISTS (SELECT FROM ",
    tables!(),
    " WHERE NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = to_regclass(name)), 'USAGE')) \
     THEN 'does not own the tables, which have to be changed' ELSE '' END"
);
/// What keeps the user from changing rows; nothing if it may.
const MAY_NOT_WRITE: &str = concat!(
    "SELECT COALESCE('may not read and change ' || string_agg(name, ', '), '') FROM ",
    tables!(),
    " WHERE NOT (has_table_privilege(to_regclass(name), 'SELECT') AND has_table_privilege(to_regclass(name), 'INSERT') \
     AND has_table_privilege(to_regclass(name), 'UPDATE') AND has_table_privilege(to_regclass(name), 'DELETE'))"
);
/// What two processes that make the first table at once are told.
const MADE_MEANWHILE: [&str; 3] = ["23505", "42P07", "42710"];
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Why a server cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// It does not answer, or takes no writes at present: worth another try. For the operator; names hosts, no secrets.
    #[error("{0}")]
    Unreachable(String),
    /// It will not do without a change: credentials, rights, version, tables of a newer larder.
    #[error("{0}")]
    Refused(String),
}

pub(super) async fn migrate(db: &Db) -> Result<(), ConnectError> {
    let mut tries = 0;
    loop {
        let error = match try_to_migrate(db).await {
            Ok(result) => return result,
            Err(error) => error,
        };
        tries += 1;
        if tries == TRIES || !(error.about == About::Conflict || is_made_meanwhile(&error)) {
            return Err(told(db, &error));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether the server and its tables could be used by a start; nothing is changed.
pub(super) async fn look(db: &Db) -> Result<(), ConnectError> {
    let lacks = if version_there(db).await? < SCRIPTS.len() as i64 {
        MAY_NOT_MAKE
    } else {
        MAY_NOT_WRITE
    };
    let looked = async { one(db.all(lacks, &[]).await?)?.get::<String>(0) };
    match looked.await {
        Ok(lacks) if lacks.is_empty() => Ok(()),
        Ok(lacks) => Err(ConnectError::Refused(format!(
            "{} cannot be used: the user {lacks}: make it the owner of the database and of what is in it",
            about(db)
        ))),
        Err(error) => Err(told(db, &error)),
    }
}

/// Whether larder has tables there, which this version can work with.
pub(super) async fn has_tables(db: &Db) -> Result<bool, ConnectError> {
    // Whoever was to make them may have been ended before it did.
    Ok(version_there(db).await? > 0)
}

/// The version of the tables, which this larder can work with; 0 where there are none.
async fn version_there(db: &Db) -> Result<i64, ConnectError> {
    let looked = async {
        let exists: String = one(db.all(EXISTS, &[]).await?)?.get(0)?;
        if exists.is_empty() {
            return Ok((0, 0));
        }
        versions(&one(db.all(VERSIONS, &[]).await?)?)
    };
    match looked.await {
        Ok((version, oldest)) => too_new(version, oldest).map_or(Ok(version), Err),
        Err(error) => Err(told(db, &error)),
    }
}

/// Why a process that runs is too old for the tables, if a newer larder has changed them so. It goes on, and the log says so once.
pub(super) async fn outdated(db: &Db) -> Result<Option<String>, DbError> {
    static TOLD: Once = Once::new();
    let (version, oldest) = versions(&one(db.all(VERSIONS, &[]).await?)?)?;
    let why = too_new(version, oldest).map(|refused| refused.to_string());
    if let Some(why) = &why {
        TOLD.call_once(|| tracing::error!(why, "this larder is too old for its database"));
    }
    Ok(why)
}

async fn try_to_migrate(db: &Db) -> Result<Result<(), ConnectError>, DbError> {
    let exists: String = one(db.all(EXISTS, &[]).await?)?.get(0)?;
    if !exists.is_empty() {
        let (version, oldest) = versions(&one(db.all(VERSIONS, &[]).await?)?)?;
        if let Some(refused) = too_new(version, oldest) {
            return Ok(Err(refused));
        }
        // The usual start writes nothing, and waits for nobody.
        if version >= SCRIPTS.len() as i64 {
            return Ok(Ok(()));
        }
    }
    let mut tx = db.begin(Durability::Durable).await?;
    tx.script(CREATE).await?;
    tx.execute(SEED, &[]).await?;
    tx.commit_with(&[]).await?;
    let mut tx = db.begin(Durability::Durable).await?;
    match run(&mut tx).await? {
        Some(refused) => {
            tx.rollback().await;
            Ok(Err(refused))
        }
        None => Ok(Ok(tx.commit_with(&[]).await?)),
    }
}

async fn run(tx: &mut Tx) -> Result<Option<ConnectError>, DbError> {
    tx.script(PATIENCE).await?;
    tx.script(LOCK).await?;
    let (version, oldest) = versions(&one(tx.all(VERSIONS, &[]).await?)?)?;
    if let Some(refused) = too_new(version, oldest) {
        return Ok(Some(refused));
    }
    for (number, (oldest, script)) in (1_i64..).zip(SCRIPTS).skip(version.max(0) as usize) {
        tracing::info!(
            version = number,
            "the tables of the metadata database are brought up to date"
        );
        tx.script(script).await?;
        let values: [Value<'_>; 2] = [number.into(), oldest.into()];
        tx.execute(NOTE, &values).await?;
    }
    Ok(None)
}

fn versions(row: &Row) -> Result<(i64, i64), DbError> {
    Ok((row.get(0)?, row.get(1)?))
}

fn one(rows: Vec<Row>) -> Result<Row, DbError> {
    Ok(rows.into_iter().next().ok_or(sqlx::Error::RowNotFound)?)
}

fn too_new(version: i64, oldest: i64) -> Option<ConnectError> {
    let known = SCRIPTS.len() as i64;
    (oldest > known).then(|| {
        ConnectError::Refused(format!(
            "the metadata database has version {version}, which needs a larder that knows version {oldest}, and this one knows \
             versions up to {known}: start the newer larder"
        ))
    })
}

fn is_made_meanwhile(error: &DbError) -> bool {
    code(error).is_some_and(|code| MADE_MEANWHILE.contains(&code))
}

/// What could not be used, for the operator.
fn about(db: &Db) -> String {
    let options = db.pool.options();
    let hosts: Vec<String> = (0..options.hosts.len()).map(|n| options.shown(n)).collect();
    format!(
        "PostgreSQL (database {} at {}, as user {})",
        options.database,
        hosts.join(", "),
        options.user
    )
}

/// A failure at the start, for the operator.
fn told(db: &Db, error: &DbError) -> ConnectError {
    let about = about(db);
    match error.about {
        About::Lost | About::Conflict => {
            ConnectError::Unreachable(format!("{about} cannot be reached: {}", error.source))
        }
        About::Refused => ConnectError::Refused(format!(
            "{about} cannot be used: {}: look at DBHOST, DBPORT, DBUSER, DBPASS, DBNAME, for TLS at DBSSLMODE and DBCAFILE, and at the user's rights",
            error.source
        )),
        _ if is_made_meanwhile(error) => ConnectError::Refused(format!(
            "{about} cannot be used: {}: give larder a database of its own",
            error.source
        )),
        _ => ConnectError::Refused(format!("{about} cannot be used: {}", error.source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_asked_for_each_table_that_the_scripts_make() {
        let made = SCRIPTS.iter().flat_map(|(_, script)| {
            let lines = script.lines();
            lines.filter_map(|line| line.strip_prefix("CREATE TABLE "))
        });
        let mut made: Vec<&str> = made.filter_map(|line| line.split(' ').next()).collect();
        made.sort_unstable();
        assert_eq!(
            made,
            tables!().split('\'').skip(1).step_by(2).collect::<Vec<_>>()
        );
    }

    #[test]
    fn an_older_larder_goes_on_unless_the_tables_say_otherwise() {
        let known = SCRIPTS.len() as i64;
        assert!(too_new(known, 1).is_none());
        assert!(too_new(known + 1, known).is_none(), "an expansion");
        let refused = too_new(known + 2, known + 1).map(|error| error.to_string());
        assert!(refused.is_some_and(|text| text.contains("start the newer larder")));
    }
}
