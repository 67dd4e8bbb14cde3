//! A place for a database of either engine, so that a test can be run over both.

use std::path::Path;

use larder_storage::{MetadataStore, PostgresOptions, TlsMode};
use larder_testkit::servers::postgres::{PASSWORD, Postgres, USER};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::fast_directory;

/// A database of one engine, and a directory for whatever else a test needs.
pub(crate) struct Place {
    directory: tempfile::TempDir,
    /// The database on the server.
    postgres: Option<String>,
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        Self {
            directory: fast_directory(),
            postgres: None,
        }
    }

    pub(crate) fn postgres() -> Self {
        Self {
            directory: fast_directory(),
            postgres: Some(Postgres::shared().database()),
        }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.postgres.is_some()
    }

    /// How the database on the server is reached.
    pub(crate) fn options(&self) -> Option<PostgresOptions> {
        let database = self.postgres.as_deref()?;
        Some(options(Postgres::shared().port(), database))
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A store of its own over the database, as each process has one.
    pub(crate) async fn open(&self) -> MetadataStore {
        if let Some(options) = self.options() {
            return MetadataStore::connect(&options).await.unwrap();
        }
        let path = self.directory.path().join("larder.db");
        MetadataStore::open(&path).await.unwrap()
    }

    /// Runs statements behind the store's back; gives how many rows the last one has changed.
    pub(crate) async fn run(&self, statements: &str) -> u64 {
        let statements = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
        match &self.postgres {
            None => {
                let path = self.directory.path().join("larder.db");
                let options = SqliteConnectOptions::new().filename(path);
                let pool = SqlitePool::connect_with(options).await.unwrap();
                let done = statements.execute(&pool).await.unwrap().rows_affected();
                pool.close().await;
                done
            }
            Some(database) => {
                let port = Postgres::shared().port();
                let password = PASSWORD.replace(' ', "%20");
                let url = format!("postgres://{USER}:{password}@127.0.0.1:{port}/{database}");
                let mut connection = PgConnection::connect(&url).await.unwrap();
                let done = statements.execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
                done.rows_affected()
            }
        }
    }
}

/// How a database of a test's server is reached.
pub(crate) fn options(port: u16, database: &str) -> PostgresOptions {
    PostgresOptions {
        hosts: vec![("127.0.0.1".to_owned(), port)],
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
        database: database.to_owned(),
        tls: TlsMode::default(),
        ca_file: None,
    }
}

/// Runs tests that take a place over both engines.
#[allow(unused_macros, reason = "not every test file has tests for both")]
macro_rules! on_both_engines {
    ($($name:ident),* $(,)?) => {
        mod sqlite {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                Box::pin(super::$name($crate::support::place::Place::sqlite())).await;
            }
        )*}
        mod postgres {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                Box::pin(super::$name($crate::support::place::Place::postgres())).await;
            }
        )*}
    };
}
#[allow(unused_imports, reason = "as above")]
pub(crate) use on_both_engines;
