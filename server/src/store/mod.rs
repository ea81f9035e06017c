//! The store: the only door to the database.
//!
//! What it holds: organizations, API keys, registry entries (passwords sealed by the vault), servers
//! and join tokens (hashed), jobs and their targets, audit events, changes of registry entries, and one row
//! for the installation.
//! Every finder that a caller's id can reach takes the organization too: a foreign row is not found.
//!
//! It never sees a plaintext secret, knows no rule but those that must hold in one transaction, and
//! is the only room that names `sea_orm`.

use std::{path::Path, sync::Arc, time::Duration};

use purser_migrations::Migrator;
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseBackend, DatabaseConnection, DatabaseTransaction,
    DbErr, SqlErr, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use sea_orm_migration::MigratorTrait;

use crate::{
    error::{Error, Result},
    private_file,
};

mod api_key;
mod audit;
mod batch;
mod behind;
mod changes;
mod deadlock;
mod entity;
mod entries;
mod fan_out;
mod installation;
mod job;
mod last_test;
mod organization;
mod question;
mod registry;
mod registry_event;
mod replica;
mod retry;
mod row_cache;
mod server;
mod session_history;
mod target;

pub use api_key::AdminKey;
pub use audit::{AuditEntry, AuditFilter};
pub use changes::{after, unchanged_since};
pub use entity::{
    api_key::Model as ApiKeyRow, audit_event::Model as AuditRow, job::Model as JobRow,
    job_target::Model as TargetRow, organization::Model as OrganizationRow, registry::Model as RegistryRow,
    registry_event::Model as RegistryEventRow, server::Model as ServerRow,
};
pub use entries::Entries;
pub use job::{JobFilter, NewJob, Stored};
pub use replica::{Heard, Signal};
pub use server::{Admission, Admittance, Admitted, NewJoinToken};
pub use target::{Claim, Ending, Fence, TargetState};

use behind::Behind;
use registry_event::Waiting;
use row_cache::RowCache;

/// Readers that SQLite serves at once, and connections to PostgreSQL per replica.
const CONNECTIONS: u32 = 8;
/// How long a first connection to PostgreSQL may take.
const REACH: Duration = Duration::from_secs(10);
/// How long whoever uses SQLite waits for others.
const BUSY: Duration = Duration::from_secs(10);
/// Any number: replicas that start together migrate one after the other under it.
const MIGRATION_LOCK: i64 = 0x7075_7273_6572;

/// A handle to the database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    db: DatabaseConnection,
    /// With SQLite the one connection that writes: it has in memory the pages that it wrote last, which any other
    /// would read anew, and whoever waits for it is served in turn. With PostgreSQL it is `db`.
    writer: DatabaseConnection,
    /// Only where this process is the one writer.
    kept: Option<Arc<Kept>>,
    waiting: Arc<Waiting>,
}

/// Connections to the database.
#[derive(Clone, Copy, Debug)]
pub struct PoolState {
    /// Open, and nobody's.
    pub idle: u32,
    /// Open, and somebody's.
    pub in_use: u32,
    /// As many as there may be.
    pub most: u32,
}

/// What is kept of the database in memory.
#[derive(Debug, Default)]
struct Kept {
    /// By organization.
    registries: RowCache<Entries>,
    registry: RowCache<RegistryRow>,
    server: RowCache<ServerRow>,
    behind: Behind,
}

impl Store {
    /// Connects to `url`, or to `purser.db` in the data folder, and brings the shape up to date.
    ///
    /// # Errors
    /// [`Error::Internal`] when the database is away or a migration fails.
    pub async fn open(url: Option<&str>, data_dir: &Path) -> Result<Self> {
        let (db, writer) = match url {
            Some(url) => {
                reach(url).await?;
                let db = connect(postgres_options(url)).await?;
                (db.clone(), db)
            }
            None => {
                let path = data_dir.join("purser.db");
                // SQLite gives its other files the same mode.
                private_file::make(&path).map_err(Error::internal("making the database file"))?;
                let writer = connect(sqlite_options(&path, 1)).await?;
                (connect(sqlite_options(&path, CONNECTIONS)).await?, writer)
            }
        };
        migrate(&writer).await.map_err(Error::internal("bringing the database to the present shape"))?;
        Ok(Self { db, writer, kept: url.is_none().then(Arc::default), waiting: Arc::default() })
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`Error::Internal`] when it does not.
    pub async fn ping(&self) -> Result<()> {
        self.db.ping().await.map_err(Error::internal("asking the database for a sign of life"))
    }

    /// Waits for what is still being written behind an answer.
    pub async fn settle(&self) {
        if let Some(kept) = &self.kept {
            kept.behind.settle().await;
        }
    }

    /// The connections that there are.
    pub fn pool(&self) -> PoolState {
        fn of<D: sqlx::Database>(pool: &sqlx::Pool<D>, most: u32) -> PoolState {
            let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
            PoolState { idle, in_use: pool.size().saturating_sub(idle), most }
        }
        if self.db.get_database_backend() == DatabaseBackend::Postgres {
            return of(self.db.get_postgres_connection_pool(), CONNECTIONS);
        }
        let readers = of(self.db.get_sqlite_connection_pool(), CONNECTIONS);
        let writer = of(self.writer.get_sqlite_connection_pool(), 1);
        PoolState {
            idle: readers.idle + writer.idle,
            in_use: readers.in_use + writer.in_use,
            most: readers.most + writer.most,
        }
    }

    /// A transaction that may write. On SQLite it takes the write lock at once: a deferred one that
    /// reads first fails under load whatever the busy timeout.
    async fn write(&self) -> Result<DatabaseTransaction> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        self.writer.begin_with_options(options).await.map_err(not_begun)
    }
}

/// For tests: connections that nobody else gets as long as this lives.
#[cfg(test)]
pub struct Held {
    _connections: Vec<DatabaseTransaction>,
}

#[cfg(test)]
impl Store {
    /// Keeps SQLite's one connection that writes busy.
    pub async fn hold_writer(&self) -> Held {
        Held { _connections: vec![self.write().await.unwrap()] }
    }

    /// Keeps all of SQLite's connections that read busy.
    pub async fn hold_readers(&self) -> Held {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(self.db.begin().await.unwrap());
        }
        Held { _connections: connections }
    }
}

async fn connect(options: ConnectOptions) -> Result<DatabaseConnection> {
    Database::connect(options).await.map_err(Error::internal("connecting to the database"))
}

async fn migrate(db: &DatabaseConnection) -> std::result::Result<(), DbErr> {
    if db.get_database_backend() != DatabaseBackend::Postgres {
        return Migrator::up(db, None).await;
    }
    let lock = db.begin().await?;
    lock.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")).await?;
    Migrator::up(db, None).await?;
    lock.commit().await
}

/// Connects once without the pool, which tries for half a minute and then says only that it did.
async fn reach(url: &str) -> Result<()> {
    use sqlx::Connection;
    const WHAT: &str = "connecting to the database";
    let connecting = tokio::time::timeout(REACH, sqlx::PgConnection::connect(url));
    let connection = connecting.await.map_err(|_| "no answer in time").map_err(Error::internal(WHAT))?;
    connection.map_err(Error::internal(WHAT))?.close().await.map_err(Error::internal(WHAT))
}

fn sqlite_options(path: &Path, connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(format!("sqlite://{}?mode=rwc", path.display()));
    options
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(BUSY)
        .sqlx_logging(false)
        .test_before_acquire(false)
        .map_sqlx_sqlite_opts(|sqlite| {
            sqlite
                .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
                .synchronous(sqlx::sqlite::SqliteSynchronous::Normal)
                .foreign_keys(true)
                .busy_timeout(BUSY)
        });
    options
}

fn postgres_options(url: &str) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(CONNECTIONS)
        .min_connections(1)
        .sqlx_logging(false)
        .set_application_name("purser-server");
    options
}

fn not_begun(error: DbErr) -> Error {
    Error::NotBegun { source: Box::new(error) }
}

/// The one classification of database failures.
fn failed(error: DbErr) -> Error {
    // Of a pool that gave no connection; what fails on one is another.
    if let DbErr::ConnectionAcquire(_) | DbErr::Conn(_) = error {
        return not_begun(error);
    }
    match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => {
            Error::Conflict("another one with this name exists already".to_owned())
        }
        Some(SqlErr::ForeignKeyConstraintViolation(_)) => {
            Error::Conflict("what it belongs to was removed meanwhile".to_owned())
        }
        _ => Error::Internal { what: "using the database", source: Box::new(error) },
    }
}
