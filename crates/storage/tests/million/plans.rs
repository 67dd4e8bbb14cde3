//! Every statement that runs finds its rows by an index, on both engines.

use larder_testkit::servers::postgres::Postgres;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{AssertSqlSafe, Row as _};

use super::filled::{fill, fill_all};
use super::statements::{self, Statement};
use super::support::place::Place;

const RECORDS: u32 = 100_000;

/// Tables that stay small, and tables of values.
const SMALL: [&str; 16] = [
    "schema_version",
    "sqlite_master",
    "epochs",
    "e",
    "feed",
    "secrets",
    "origins",
    "local_usage",
    "json_each",
    "CONSTANT",
    "k",
    "one",
    "page",
    "scrubs",
    "scrubs_1",
    "damaged",
];

/// Statements that may read a whole table or sort, and why.
const ALLOWED: &[(&str, &str)] = &[
    (
        "mod.rs COUNT_BLOBS",
        "counts all, behind the scenes, in a hundredth of the time at most",
    ),
    (
        "uses.rs CACHED_BYTES",
        "counts all, behind the scenes, where the disk is bounded, in a hundredth of the time at most and when the bound is reached",
    ),
    (
        "held.rs VALID_SIZES",
        "counts all, behind the scenes, and only while flushed records are still to be deleted",
    ),
    (
        "origins.rs OF_OTHERS",
        "counts all of a repository, behind the scenes, where it has another upstream than before",
    ),
    (
        "condemn.rs LOCK_BLOBS",
        "sorts a page of the collector's, so that its rows are locked in one order",
    ),
    (
        "takeover.rs CONDEMNERS",
        "sorts what is condemned, which is a page of the collector's for each process",
    ),
    (
        "collect.rs LEFT_BEHIND",
        "sorts what was condemned at one time, which is a page of the collector's at most",
    ),
    (
        "invalid.rs UNSWEPT",
        "reads the first row, in the order of the key",
    ),
    (
        "sweep.rs SINGLE",
        "reads the first rows, in the order of the key",
    ),
    (
        "feed.rs NEWEST",
        "reads the last row, in the order of the key",
    ),
    ("by_blob.rs RECORDS", "sorts what has the same bytes"),
    ("by_blob.rs FILES", "as the one before"),
    (
        "garbage.rs WAITING",
        "counts all, when an operator asks for it",
    ),
    (
        "freed.rs DROP_DERIVED",
        "a server takes a list for a hundred texts, and reads a table that is not much longer",
    ),
    ("collect.rs DATE_DERIVATIONS", "as the one before"),
    (
        "scrub/run.rs FORGET_FINDINGS",
        "deletes nearly all that it reads",
    ),
    (
        "scrub/mod.rs LAST",
        "sorts the scrubs, which are two or three",
    ),
    (
        "scrub/mod.rs LOCAL",
        "sorts what scrubs have found of uploaded files, from an index of its own",
    ),
    (
        "scrub/run.rs OLDEST",
        "sorts the scrubs, which are two or three",
    ),
    ("migrate.rs LOOKS", "reads one row of each table"),
    ("heartbeats.rs BEAT", "reads a row for each replica"),
    (
        "sweep.rs NEXT_REPOSITORY",
        "sorts a row for each repository",
    ),
    (
        "local_lists.rs ALL_USAGE",
        "sorts a row for each repository",
    ),
    (
        "db/sqlite.rs SCHEMA",
        "sorts a row for each table and index",
    ),
];

/// Statements of one engine.
const SQLITE_ONLY: [&str; 4] = [
    "migrate.rs",
    "db/sqlite.rs",
    "db/upkeep.rs",
    "artifacts.rs ABSENCES",
];
const POSTGRES_ONLY: [&str; 1] = ["db/postgres/"];

fn is_allowed(statement: &Statement) -> bool {
    ALLOWED.iter().any(|(name, _)| *name == statement.name)
}

fn is_one_of(statement: &Statement, names: &[&str]) -> bool {
    names.iter().any(|name| statement.name.starts_with(name))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_of_sqlite_uses_an_index() {
    let place = Place::sqlite();
    place.open().await.close().await;
    fill(&place, RECORDS).await;
    fill_all(&place).await;
    let path = place.directory().join("larder.db");
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(path));
    let pool = pool.await.unwrap();
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for statement in statements::all() {
        if is_one_of(&statement, &POSTGRES_ONLY) {
            continue;
        }
        let explained = format!("EXPLAIN QUERY PLAN {}", statement.sqlite);
        let rows = sqlx::query(AssertSqlSafe(explained)).fetch_all(&pool).await;
        let rows = rows.unwrap_or_else(|error| panic!("{statement:?}: {error}"));
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        looked_at += 1;
        let is_bad = plan.iter().any(|step| {
            let scanned = step.strip_prefix("SCAN ").is_some_and(|table| {
                let name = table.split(' ').next().unwrap_or_default();
                !table.contains("INDEX") && !name.starts_with("(subquery") && !SMALL.contains(&name)
            });
            // Whoever has a list looks for each of it, and not at all of the repository.
            let by_repository = statement.sqlite.starts_with("DELETE FROM artifacts")
                && step.ends_with("(repository=?)");
            scanned || by_repository || step.contains("USE TEMP B-TREE")
        });
        if is_bad && !is_allowed(&statement) {
            wrong.push(format!(
                "{}\n  {}\n  {plan:#?}",
                statement.name, statement.sqlite
            ));
        }
    }
    pool.close().await;
    assert!(looked_at > 60, "{looked_at} statements were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_of_postgresql_uses_an_index() {
    let place = Place::postgres();
    place.open().await.close().await;
    fill(&place, RECORDS).await;
    fill_all(&place).await;
    place.run("VACUUM ANALYZE").await;
    let scans = |statement: &Statement, line: &str| {
        let scanned = line.split("Seq Scan on ").nth(1).is_some_and(|table| {
            let name = table.split(' ').next().unwrap_or_default();
            !SMALL.contains(&name)
        });
        !is_allowed(statement) && (scanned || line.contains("Sort"))
    };
    let (looked_at, wrong) = plans_with(&place, |_| true, scans);
    assert!(looked_at > 50, "{looked_at} statements were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A server that has not yet looked at a table would rather read all of it than look for each row of a list.
#[tokio::test(flavor = "multi_thread")]
async fn lists_are_looked_up_one_by_one_without_statistics() {
    let place = Place::postgres();
    place.open().await.close().await;
    place
        .run("ALTER TABLE artifacts SET (autovacuum_enabled = off); ALTER TABLE blobs SET (autovacuum_enabled = off)")
        .await;
    fill(&place, 10_000).await;
    let is_of_list = |statement: &Statement| {
        let files = ["condemn.rs", "freed.rs", "sweep.rs", "takeover.rs"];
        let is_it = is_one_of(statement, &files) || is_one_of(statement, &["invalid.rs DELETE"]);
        is_it && statement.postgres.contains("json_array_elements($")
    };
    let reads_all = |_: &Statement, line: &str| {
        [
            "Seq Scan on artifacts",
            "Seq Scan on blobs",
            "Cond: (repository = 'files'::text)",
        ]
        .iter()
        .any(|step| line.contains(step))
    };
    let (looked_at, wrong) = plans_with(&place, is_of_list, reads_all);
    assert!(looked_at >= 11, "{looked_at} statements were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Of some statements how many there are, and those with plans that have a bad step.
fn plans_with(
    place: &Place,
    which: impl Fn(&Statement) -> bool,
    is_bad: impl Fn(&Statement, &str) -> bool,
) -> (usize, Vec<String>) {
    let database = place.options().unwrap().database;
    let (mut looked_at, mut wrong) = (0, Vec::new());
    for statement in statements::all() {
        if is_one_of(&statement, &SQLITE_ONLY) || !which(&statement) {
            continue;
        }
        let explained = explain(&database, &statement);
        looked_at += 1;
        if explained.lines().any(|line| is_bad(&statement, line)) {
            wrong.push(format!(
                "{}\n  {}\n{explained}",
                statement.name, statement.postgres
            ));
        }
    }
    (looked_at, wrong)
}

/// The plan of a statement with values in it as they are when it runs: literals, of the types that the server finds.
fn explain(database: &str, statement: &Statement) -> String {
    let server = Postgres::shared();
    let text = statement.postgres.trim_end_matches(';');
    let types = server.sql(
        database,
        &format!(
            "PREPARE s AS {text}; SELECT array_to_string(parameter_types::text[], ',') FROM pg_prepared_statements"
        ),
    );
    let types: Vec<&str> = types.split(',').filter(|kind| !kind.is_empty()).collect();
    let mut filled = text.to_owned();
    // From the last on, so that `$1` is not found in `$10`.
    for (index, kind) in types.iter().enumerate().rev() {
        let place = format!("${}", index + 1);
        filled = filled.replace(&place, &sample(text, &place, kind));
    }
    server.sql(database, &format!("EXPLAIN {filled}"))
}

fn sample(statement: &str, place: &str, kind: &str) -> String {
    let is_compared = |with: &str| statement.contains(&format!("{with} {place}"));
    match kind {
        "bigint" | "integer" => "200".to_owned(),
        "json" => "'[[\"pool/1/file-0000001.deb\",\"\"]]'".to_owned(),
        "bytea" => "'\\x00'::bytea".to_owned(),
        _ if is_compared("repository =") => "'files'".to_owned(),
        // The first of what [`fill_all`] has put there.
        _ if statement.contains(&format!("<= ({place}")) => "'gone/1'".to_owned(),
        _ if is_compared("<") => "'pool/6'".to_owned(),
        _ if is_compared("digest =") || is_compared("blob =") => {
            "'sha256:0000000000000001'".to_owned()
        }
        _ => "'pool/5'".to_owned(),
    }
}
