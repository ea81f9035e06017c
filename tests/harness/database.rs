//! Which database a control plane gets: SQLite in its data folder, or one of its own in the
//! testbed's PostgreSQL cluster.

use std::{env, path::Path, process::Command};

use crate::{testbed::Testbed, wait::unique};

/// The name of the SQLite file in a data folder.
pub const FILE: &str = "purser.db";

/// Environment variable that chooses: `sqlite` (default) or `postgres`.
pub const VARIABLE: &str = "PURSER_TEST_DATABASE";

/// Whether this run is on PostgreSQL.
///
/// # Panics
/// The variable holds something else.
pub fn is_postgres() -> bool {
    match env::var(VARIABLE).as_deref() {
        Err(_) | Ok("" | "sqlite") => false,
        Ok("postgres") => true,
        Ok(other) => panic!("{VARIABLE} is {other:?}, not sqlite or postgres"),
    }
}

/// A fresh PostgreSQL database, dropped (with its connections) on drop.
#[derive(Debug)]
pub struct Database {
    name: String,
    url: String,
}

impl Database {
    /// Makes one in the testbed's cluster.
    ///
    /// # Panics
    /// The cluster refused.
    pub fn create() -> Self {
        let name = unique("purser").replace('-', "_");
        psql(&format!("CREATE DATABASE {name}"));
        let (cluster, _) = Testbed::get().postgres.rsplit_once('/').expect("a URL with a database");
        Self { url: format!("{cluster}/{name}"), name }
    }

    /// `postgres://…`, fit for `--database-url`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends every connection to it, and waits until they have ended; new ones are taken.
    pub fn cut(&self) {
        psql(&format!(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{}'",
            self.name
        ));
    }

    /// While true, it takes no connection, and those that stood are ended: what a failover looks like to who
    /// uses it.
    pub fn away(&self, is_away: bool) {
        psql(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS {}", self.name, !is_away));
        if is_away {
            self.cut();
        }
    }

    /// The only value that a query gives, as text.
    ///
    /// # Panics
    /// `psql` failed.
    pub fn value(&self, query: &str) -> String {
        let run = Command::new("psql")
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", &self.url, "--command", query])
            .output()
            .expect("psql can be started");
        assert!(run.status.success(), "{query}: {}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8_lossy(&run.stdout).trim().to_owned()
    }

    /// Whether somebody holds this advisory lock in it.
    pub fn holds_advisory_lock(&self, lock: i32) -> bool {
        let held = self.value(&format!(
            "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = {lock} \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ));
        held != "0"
    }

    /// The whole database as SQL text, to look for secrets in.
    ///
    /// # Panics
    /// `pg_dump` failed.
    pub fn dump(&self) -> Vec<u8> {
        let dumped = Command::new("pg_dump").arg(&self.url).output().expect("pg_dump can be started");
        assert!(dumped.status.success(), "pg_dump: {}", String::from_utf8_lossy(&dumped.stderr));
        dumped.stdout
    }

    /// One statement; gives the rows it answers with, columns separated by `|`.
    ///
    /// # Panics
    /// The database refused it.
    pub fn execute(&self, statement: &str) -> String {
        let command = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--command", statement];
        answer(Command::new("psql").arg(&self.url).args(command), statement)
    }
}

/// One statement in an SQLite file; gives the rows it answers with, columns separated by `|`.
///
/// # Panics
/// The database refused it.
pub fn execute_in_file(file: &Path, statement: &str) -> String {
    answer(Command::new("sqlite3").args(["-cmd", ".timeout 5000"]).arg(file).arg(statement), statement)
}

fn answer(command: &mut Command, statement: &str) -> String {
    let run = command.output().expect("the database's client can be started");
    assert!(run.status.success(), "{statement}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stdout).trim_end().to_owned()
}

impl Drop for Database {
    fn drop(&mut self) {
        psql(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}

/// One statement in the cluster's maintenance database.
fn psql(statement: &str) {
    let run = Command::new("psql")
        .args(["--no-psqlrc", "--quiet", &Testbed::get().postgres, "--command", statement])
        .output()
        .expect("psql can be started");
    if !run.status.success() && !std::thread::panicking() {
        panic!("{statement}: {}", String::from_utf8_lossy(&run.stderr));
    }
}
