//! A control plane: the built `purser-server` with a data folder and a database of its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    client::Client,
    database::{self, Database},
    hub::Hub,
    process::{Process, tied, tied_with_hosts},
    testbed::Testbed,
};

/// How long a start may take; generous, for a busy machine.
const START: Duration = Duration::from_secs(30);
/// A clean stop is promised within 10 s, and ends itself then; the rest is for a busy machine.
const STOP: Duration = Duration::from_secs(20);

/// How a control plane is started; made by [`Purser::builder`].
#[derive(Clone)]
pub struct Builder {
    listen: String,
    rust_log: String,
    local_agent: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    data: Option<Arc<TempDir>>,
    database_url: Option<String>,
    open_files: Option<(u32, u32)>,
    hosts: Option<PathBuf>,
    trusted: Option<String>,
}

/// A running (or killed) control plane. Dropping it kills it, drops its database and removes its
/// folder; when the test panics, the end of its log is printed first.
pub struct Purser {
    builder: Builder,
    process: Process,
    listening: Listening,
    address: String,
    url: String,
    log: PathBuf,
    // Last, so that they are dropped after the process.
    database: Option<Arc<Database>>,
    folder: Arc<TempDir>,
}

impl Builder {
    /// `RUST_LOG`, `info` by default; `trace` for the tests that look for secrets in logs.
    #[must_use]
    pub fn rust_log(mut self, filter: &str) -> Self {
        self.rust_log = filter.into();
        self
    }

    /// `--listen`, loopback by default.
    #[must_use]
    pub fn listen(mut self, address: &str) -> Self {
        self.listen = address.into();
        self
    }

    /// `--local-agent`, `off` by default. With `auto` or `on`, set `DOCKER_HOST` by
    /// [`env`](Self::env).
    #[must_use]
    pub fn local_agent(mut self, mode: &str) -> Self {
        self.local_agent = mode.into();
        self
    }

    /// One more argument; call it once for the flag and once for its value.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// One more environment variable. The program inherits only `PATH`.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The folder and the database of another control plane (whose process should have ended).
    #[must_use]
    pub fn data_of(mut self, other: &Purser) -> Self {
        self.data = Some(other.folder.clone());
        match other.database() {
            Some(database) => self.database_url(database.url()),
            None => self,
        }
    }

    /// This database instead of a fresh one.
    #[must_use]
    pub fn database_url(mut self, url: &str) -> Self {
        self.database_url = Some(url.into());
        self
    }

    /// The limits of open files, soft and hard.
    #[must_use]
    pub fn open_files(mut self, soft: u32, hard: u32) -> Self {
        self.open_files = Some((soft, hard));
        self
    }

    /// In a world in which Docker Hub is this one.
    #[must_use]
    pub fn with_hub(mut self, hub: &Hub) -> Self {
        self.hosts = Some(hub.hosts());
        self.env("SSL_CERT_FILE", &hub.authority().display().to_string())
    }

    /// A TLS certificate (as [`Issued::write`](crate::certificate::Issued::write) names its files in
    /// `folder`), and the authority that clients trust for it.
    #[must_use]
    pub fn certificate(mut self, folder: &Path, name: &str, authority: &str) -> Self {
        self.trusted = Some(authority.into());
        let file = |extension: &str| folder.join(format!("{name}.{extension}")).display().to_string();
        self.arg("--tls-cert").arg(&file("pem")).arg("--tls-key").arg(&file("key"))
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// It did not come up; the message holds the end of its log.
    pub async fn start(self) -> Purser {
        self.try_start().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Like [`start`](Self::start), for configurations that must be refused.
    ///
    /// # Errors
    /// How it ended, with the end of its log.
    pub async fn try_start(self) -> Result<Purser, String> {
        let folder = self.data.clone().unwrap_or_else(|| Arc::new(Testbed::get().scratch("purser")));
        let fresh = self.database_url.is_none() && database::is_postgres();
        let database = fresh.then(|| Arc::new(Database::create()));
        let log = folder.path().join("log");
        let (process, listening) = self.spawn(&folder, database.as_deref(), &self.listen, &log).await?;
        // All that the tests dial is loopback.
        let address = listening.address.replace("0.0.0.0", "127.0.0.1");
        let url = format!("{}://{address}", if listening.tls { "https" } else { "http" });
        Ok(Purser { builder: self, process, listening, address, url, log, database, folder })
    }

    async fn spawn(
        &self,
        folder: &TempDir,
        database: Option<&Database>,
        listen: &str,
        log: &Path,
    ) -> Result<(Process, Listening), String> {
        let program = built("purser-server");
        let mut command = match (self.open_files, &self.hosts) {
            (None, None) => tied(program),
            (None, Some(hosts)) => tied_with_hosts(hosts, program),
            (Some((soft, hard)), _) => {
                // It replaces itself by the program.
                let mut command = tied("prlimit");
                command.arg(format!("--nofile={soft}:{hard}")).arg(program);
                command
            }
        };
        command.env_clear().env("RUST_LOG", &self.rust_log).env("HOME", folder.path().join("home"));
        command.envs(env::var_os("PATH").map(|path| ("PATH", path)));
        command.args(["--listen", listen, "--log-format", "json", "--local-agent", &self.local_agent]);
        command.arg("--data-dir").arg(folder.path().join("data"));
        if let Some(url) = self.database_url.as_deref().or(database.map(Database::url)) {
            command.args(["--database-url", url]);
        }
        command.args(&self.arguments).envs(self.environment.clone());
        fs::create_dir_all(folder.path().join("home")).map_err(|error| error.to_string())?;
        let seen = fs::metadata(log).map_or(0, |meta| meta.len());
        let process = Process::start("purser-server", command, log).map_err(|error| error.to_string())?;
        let (process, listening) = on_a_thread(process, move |process| {
            process.await_log_from(usize::try_from(seen).unwrap_or_default(), START, Listening::read)
        })
        .await;
        Ok((process, listening?))
    }
}

/// The line that says that the server listens.
#[derive(PartialEq, Debug)]
struct Listening {
    address: String,
    tls: bool,
}

impl Listening {
    fn read(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        let fields = &line["fields"];
        let is_it = fields["message"].as_str()?.to_lowercase().contains("listening");
        let address = fields["address"].as_str().filter(|_| is_it)?.to_owned();
        Some(Self { address, tls: fields["tls"] == true })
    }
}

/// Runs a blocking wait beside the test's runtime.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    process: Process,
    wait: impl FnOnce(&Process) -> T + Send + 'static,
) -> (Process, T) {
    let waited = tokio::task::spawn_blocking(move || {
        let answer = wait(&process);
        (process, answer)
    });
    waited.await.expect("the wait does not panic")
}

impl Purser {
    /// A control plane with the defaults.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// The defaults: port 0, log as JSON at `info`, fresh folder and database, no local agent.
    pub fn builder() -> Builder {
        Builder {
            listen: "127.0.0.1:0".into(),
            rust_log: "info".into(),
            local_agent: "off".into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            data: None,
            database_url: None,
            open_files: None,
            hosts: None,
            trusted: None,
        }
    }

    /// `http://127.0.0.1:port`, or `https://` where it serves TLS.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `127.0.0.1:port`, e.g. as the upstream of a proxy.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process id; another one after [`restart`](Self::restart).
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `--data-dir`.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// `HOME` of the process.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Everything it wrote to stdout and stderr, over all restarts.
    pub fn logs(&self) -> String {
        self.process.logs()
    }

    /// The file behind [`logs`](Self::logs).
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// Its PostgreSQL database, if this run is on PostgreSQL.
    pub fn database(&self) -> Option<&Database> {
        self.database.as_deref()
    }

    /// One SQL statement past the program, for what no procedure does (an old deadline); gives the
    /// rows it answers with, columns separated by `|`.
    ///
    /// # Panics
    /// The database refused it.
    pub fn execute_sql(&self, statement: &str) -> String {
        match self.database() {
            Some(database) => database.execute(statement),
            None => database::execute_in_file(&self.data_dir().join(database::FILE), statement),
        }
    }

    /// The instance-admin key that it made at its first start.
    ///
    /// # Panics
    /// There is none: another key was given by `PURSER_ADMIN_API_KEY`.
    pub fn admin_key(&self) -> String {
        let file = self.data_dir().join("admin-api-key");
        let key = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        key.trim().to_owned()
    }

    /// A client with the instance-admin key.
    pub fn client(&self) -> Client {
        self.anonymous().with_key(&self.admin_key())
    }

    /// A client without a key.
    pub fn anonymous(&self) -> Client {
        if self.listening.tls { Client::tls(&self.url, &self.trusted()) } else { Client::new(&self.url) }
    }

    /// What clients trust over TLS, in PEM: the authority of the certificate that it was given, or the
    /// certificate of its own.
    ///
    /// # Panics
    /// It has no certificate.
    pub fn trusted(&self) -> String {
        self.builder.trusted.clone().unwrap_or_else(|| {
            let own = self.data_dir().join("tls-cert.pem");
            fs::read_to_string(&own).unwrap_or_else(|error| panic!("{}: {error}", own.display()))
        })
    }

    /// Sends any signal, e.g. SIGHUP.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until its log holds `text`.
    ///
    /// # Panics
    /// It did not within 30 s.
    pub async fn await_log(&self, text: &str) {
        crate::wait::eventually(START, async || self.logs().contains(text).then_some(())).await;
    }

    /// SIGKILL, now.
    pub fn kill9(&self) {
        self.process.kill9();
    }

    /// SIGTERM, and waits for longer than the 10 s that are promised: the machine may be slow.
    ///
    /// # Panics
    /// It was still there.
    pub async fn stop(&self) -> ExitStatus {
        self.process.signal(Signal::SIGTERM);
        let ended = async || self.process.exit_status();
        crate::wait::eventually(STOP, ended).await
    }

    /// `Some` once the process has ended.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.process.exit_status()
    }

    /// Kills it if it still runs, and starts it again on the same port, folder and database.
    ///
    /// # Panics
    /// It did not come up.
    pub async fn restart(&mut self) {
        self.process.kill9();
        // Until it listens there again, nobody else gets its port.
        let _held = self.listening.address.parse().ok().and_then(|address| crate::proxy::bound(address).ok());
        let (folder, database) = (self.folder.clone(), self.database.clone());
        let started =
            self.builder.spawn(&folder, database.as_deref(), &self.listening.address, &self.log).await;
        let (process, listening) = started.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(listening, self.listening, "the same port");
        self.process = process;
    }
}

impl Drop for Purser {
    fn drop(&mut self) {
        self.process.kill9();
        if std::thread::panicking() {
            eprintln!("--- the end of purser-server's log\n{}\n---", self.process.log_tail(40));
        }
    }
}

/// The path of a program of this workspace.
///
/// # Panics
/// It was not built.
pub fn built(program: &str) -> PathBuf {
    let folder = env::var_os("PURSER_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let test = env::current_exe().expect("a process knows its executable");
        test.ancestors().nth(2).expect("target/<profile>/deps/<test>").to_owned()
    });
    let path = folder.join(program);
    assert!(
        path.is_file(),
        "{} is not built: run tests/run, or cargo build --workspace --bins",
        path.display()
    );
    path
}
