//! An agent: the built `purser-agent` with a state folder and a home of its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    client::Client,
    engine::Engine,
    hub::Hub,
    process::{Process, tied, tied_with_hosts},
    purser::{Purser, built},
    testbed::Testbed,
    wait::{eventually, unique},
};

/// How long joining may take; generous, for a busy machine.
const JOIN: Duration = Duration::from_secs(30);
/// A clean stop is promised within 10 s, and ends itself then; the rest is for a busy machine.
const STOP: Duration = Duration::from_secs(20);

/// How an agent is started; made by [`Agent::builder`].
#[derive(Clone)]
pub struct Builder {
    server: String,
    join_token: Option<String>,
    docker_host: String,
    rust_log: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    state: Option<PathBuf>,
    hosts: Option<PathBuf>,
}

/// A running (or killed) agent; dropping it kills it and removes its folder. When the test
/// panics, the end of its log is printed first.
pub struct Agent {
    builder: Builder,
    process: Process,
    log: PathBuf,
    folder: TempDir,
}

impl Builder {
    /// Another URL, e.g. that of a proxy before the server.
    #[must_use]
    pub fn server(mut self, url: &str) -> Self {
        self.server = url.into();
        self
    }

    /// Another way to the engine, e.g. through a proxy.
    #[must_use]
    pub fn docker_host(mut self, host: &str) -> Self {
        self.docker_host = host.into();
        self
    }

    /// `RUST_LOG`, `info` by default.
    #[must_use]
    pub fn rust_log(mut self, filter: &str) -> Self {
        self.rust_log = filter.into();
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

    /// Another place for its state folder, e.g. on a disk that can be full.
    #[must_use]
    pub fn state_in(mut self, folder: &Path) -> Self {
        self.state = Some(folder.into());
        self
    }

    /// In a world in which Docker Hub is this one.
    #[must_use]
    pub fn with_hub(mut self, hub: &Hub) -> Self {
        self.hosts = Some(hub.hosts());
        self.env("SSL_CERT_FILE", &hub.authority().display().to_string())
    }

    /// Starts it; it may still be joining. See [`Agent::join`].
    ///
    /// # Panics
    /// The program cannot be started.
    pub fn start(self) -> Agent {
        let folder = Testbed::get().scratch("agent");
        if let Some(state) = &self.state {
            std::os::unix::fs::symlink(state, folder.path().join("state"))
                .expect("a folder of the testbed takes a link");
        }
        self.start_in(folder)
    }

    /// Starts it on the state folder of `other`, without taking it over.
    ///
    /// # Panics
    /// The program cannot be started.
    pub fn start_beside(self, other: &Agent) -> Agent {
        let folder = Testbed::get().scratch("agent");
        std::os::unix::fs::symlink(other.state_dir(), folder.path().join("state"))
            .expect("a folder of the testbed takes a link");
        self.start_in(folder)
    }

    /// Starts it with a copy of `other`'s state folder: a clone of that agent.
    ///
    /// # Panics
    /// The folder cannot be copied.
    pub fn start_as_clone_of(self, other: &Agent) -> Agent {
        let folder = Testbed::get().scratch("agent");
        let copied =
            std::process::Command::new("cp").arg("-a").arg(other.state_dir()).arg(folder.path()).status();
        assert!(copied.is_ok_and(|status| status.success()), "the state folder was not copied");
        self.start_in(folder)
    }

    fn start_in(self, folder: TempDir) -> Agent {
        let log = folder.path().join("log");
        let process = self.spawn(folder.path(), &log);
        Agent { builder: self, process, log, folder }
    }

    fn spawn(&self, folder: &Path, log: &Path) -> Process {
        let home = folder.join("home");
        fs::create_dir_all(&home).expect("a folder of the testbed can be made");
        let program = built("purser-agent");
        let mut command = match &self.hosts {
            None => tied(program),
            Some(hosts) => tied_with_hosts(hosts, program),
        };
        command.env_clear().env("RUST_LOG", &self.rust_log).env("HOME", home);
        command.envs(env::var_os("PATH").map(|path| ("PATH", path)));
        // By environment: arguments can be read by anyone on the machine.
        command.envs(self.join_token.as_ref().map(|token| ("PURSER_JOIN_TOKEN", token)));
        command.args(["--server", &self.server, "--docker-host", &self.docker_host]);
        command.arg("--state-dir").arg(folder.join("state"));
        command.args(&self.arguments).envs(self.environment.clone());
        Process::start("purser-agent", command, log).expect("purser-agent can be started")
    }
}

impl Agent {
    /// Starts an agent for `engine` that joins with `join_token`.
    pub fn start(purser: &Purser, engine: &Engine, join_token: &str) -> Self {
        Self::builder(purser, engine, Some(join_token)).start()
    }

    /// The defaults. Without a token the state folder must hold an identity.
    pub fn builder(purser: &Purser, engine: &Engine, join_token: Option<&str>) -> Builder {
        Builder {
            server: purser.url().into(),
            join_token: join_token.map(str::to_owned),
            docker_host: engine.docker_host(),
            rust_log: "info".into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            state: None,
            hosts: None,
        }
    }

    /// Makes a server row, starts an agent for it, and waits until it is online: the agent and
    /// the row's `serverId`.
    ///
    /// # Panics
    /// It did not come online.
    pub async fn join(purser: &Purser, engine: &Engine) -> (Self, String) {
        Self::join_by(purser, Self::builder(purser, engine, None)).await
    }

    /// [`join`](Self::join) with a builder of the caller's.
    ///
    /// # Panics
    /// It did not come online.
    pub async fn join_by(purser: &Purser, builder: Builder) -> (Self, String) {
        Self::join_through(&purser.client(), builder).await
    }

    /// [`join`](Self::join) with a builder and a client of the caller's.
    ///
    /// # Panics
    /// It did not come online.
    pub async fn join_through(client: &Client, builder: Builder) -> (Self, String) {
        let row = client.mutate("server.create", json!({"name": unique("host")})).await;
        let id = row["serverId"].as_str().expect("a server has an id").to_owned();
        let token = row["joinToken"].as_str().expect("a created server has a token");
        let agent = Builder { join_token: Some(token.into()), ..builder }.start();
        agent.await_online(client, &id).await;
        (agent, id)
    }

    /// Waits until its log holds `text`.
    ///
    /// # Panics
    /// It did not within 30 s.
    pub async fn await_log(&self, text: &str) {
        eventually(JOIN, async || self.logs().contains(text).then_some(())).await;
    }

    /// Waits until `server.one` says `online` and the agent has written down that it joined, which
    /// comes a moment later.
    ///
    /// # Panics
    /// It did not within 30 s, or the agent ended.
    pub async fn await_online(&self, client: &Client, server_id: &str) -> Value {
        eventually(JOIN, async || {
            assert!(self.exit_status().is_none(), "the agent ended: {}", self.process.log_tail(20));
            let row = client.query("server.one", json!({"serverId": server_id})).await;
            (row["status"] == "online" && self.state_dir().join("server.json").exists()).then_some(row)
        })
        .await
    }

    /// Its process id; another one after [`restart`](Self::restart).
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `--state-dir`.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// `HOME` of the process: where a `.docker/config.json` would appear.
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

    /// SIGKILL, now.
    pub fn kill9(&self) {
        self.process.kill9();
    }

    /// Sends any signal, e.g. SIGSTOP for a host that hangs.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// SIGTERM, and waits for longer than the 10 s that are promised: the machine may be slow.
    ///
    /// # Panics
    /// It was still there.
    pub async fn stop(&self) -> ExitStatus {
        self.process.signal(Signal::SIGTERM);
        eventually(STOP, async || self.process.exit_status()).await
    }

    /// `Some` once the process has ended.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.process.exit_status()
    }

    /// Kills it if it still runs, and starts it again on the same state, without the token.
    pub fn restart(&mut self) {
        self.process.kill9();
        self.builder.join_token = None;
        self.process = self.builder.spawn(self.folder.path(), &self.log);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.kill9();
        if std::thread::panicking() {
            eprintln!("--- the end of purser-agent's log\n{}\n---", self.process.log_tail(40));
        }
    }
}
