//! A real PostgreSQL cluster in a temporary folder, as user postgres.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;
use purser_tests::process::{Process, tied_by};

use crate::{folder::Folder, run_to_end};

const USER: [&str; 5] = ["--reuid", "postgres", "--regid", "postgres", "--init-groups"];

/// A running cluster.
pub(crate) struct Cluster {
    /// URL of its maintenance database.
    pub(crate) url: String,
    process: Process,
}

impl Cluster {
    pub(crate) fn start(folder: &Folder) -> Result<Self, String> {
        let own = folder.path().join("postgres");
        fs::create_dir_all(&own).map_err(|error| error.to_string())?;
        run_to_end(Command::new("chown").arg("postgres:postgres").arg(&own))?;
        let data = own.join("data");
        let mut initdb = tied_by("KILL", &USER, program("initdb")?);
        initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "--no-sync"]);
        run_to_end(initdb.arg("--pgdata").arg(&data).current_dir(&own))?;
        // The port was free a moment ago; somebody else may be faster, so it is tried again.
        let mut last = Self::attempt(folder, &own, &data);
        for _ in 0..2 {
            last = last.or_else(|_| Self::attempt(folder, &own, &data));
        }
        last
    }

    fn attempt(folder: &Folder, own: &Path, data: &Path) -> Result<Self, String> {
        let port = free_port()?;
        // SIGQUIT is PostgreSQL's immediate end: unlike after SIGKILL, its workers go at once and
        // no shared memory stays.
        let mut command = tied_by("QUIT", &USER, program("postgres")?);
        command.arg("-D").arg(data).current_dir(own);
        for setting in [
            "listen_addresses=127.0.0.1",
            &format!("port={port}"),
            &format!("unix_socket_directories={}", own.display()),
            "max_connections=300",
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "dynamic_shared_memory_type=mmap",
            "log_timezone=UTC",
        ] {
            command.args(["-c", setting]);
        }
        let started = Process::start("postgres", command, &folder.log("postgres"));
        let process = started.map_err(|error| format!("postgres: {error}"))?;
        process.await_log(Duration::from_secs(60), |line| {
            line.contains("database system is ready to accept connections").then_some(())
        })?;
        Ok(Self { url: format!("postgres://postgres@127.0.0.1:{port}/postgres"), process })
    }
}

impl Drop for Cluster {
    /// Everything in it is thrown away: no checkpoint needed.
    fn drop(&mut self) {
        self.process.end(Signal::SIGQUIT, Duration::from_secs(10));
    }
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    Ok(listener.local_addr().map_err(|error| error.to_string())?.port())
}

/// Debian keeps the server's programs out of PATH, in a folder per version; the newest is taken.
fn program(name: &str) -> Result<PathBuf, String> {
    let versions = fs::read_dir("/usr/lib/postgresql").map_err(|error| format!("no PostgreSQL: {error}"))?;
    let found =
        versions.flatten().map(|version| version.path().join("bin").join(name)).filter(|path| path.exists());
    let number = |path: &PathBuf| {
        path.iter().nth(4).and_then(|part| part.to_str()?.parse::<u32>().ok()).unwrap_or_default()
    };
    found.max_by_key(number).ok_or_else(|| format!("no {name} below /usr/lib/postgresql"))
}
