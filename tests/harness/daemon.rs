//! Daemons that one test has for itself, so that it may kill them: a Docker Engine and a registry with
//! basic authentication. The testbed's own are shared and must live.

use std::{
    fs, io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use http::Method;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    client::Client,
    connection::{Connection, Endpoint},
    engine::Engine,
    hub::Hub,
    process::{Process, tied, tied_with_hosts},
    testbed::Testbed,
    wait::{eventually, random_bytes, random_hex},
};

/// One takes about 5 s on an idle machine, and longer after `kill -9`.
const START: Duration = Duration::from_secs(90);
/// A clean end also unmounts.
const END: Duration = Duration::from_secs(10);

/// Debian's `dockerd` with everything of it in `folder`, and the socket that it will listen on. It
/// takes nothing of the machine's own `/etc/docker`: neither its settings nor the `key.json` by which
/// all engines of a machine would have one and the same ID.
///
/// # Errors
/// The folder cannot be written to.
pub fn dockerd(folder: &Path) -> io::Result<(Command, PathBuf)> {
    // /usr/local/bin may hold another client's tools; this one is Debian's.
    dockerd_by(tied("/usr/sbin/dockerd"), folder, &[])
}

/// `command` is what starts it.
fn dockerd_by(mut command: Command, folder: &Path, mirrors: &[String]) -> io::Result<(Command, PathBuf)> {
    let home = folder.join("home");
    fs::create_dir_all(&home)?;
    let socket = folder.join("docker.sock");
    let config = folder.join("daemon.json");
    let settings = serde_json::json!({"deprecated-key-path": folder.join("key.json"), "registry-mirrors": mirrors,
            // A test that holds a download must not hold another's.
            "max-concurrent-downloads": 50, "max-concurrent-uploads": 50});
    fs::write(&config, settings.to_string())?;
    command
        .args(["--bridge=none", "--iptables=false"])
        .arg("--data-root")
        .arg(folder.join("data"))
        .arg("--exec-root")
        .arg(folder.join("exec"))
        .arg("--config-file")
        .arg(config)
        .arg("--pidfile")
        .arg(folder.join("pid"))
        .arg("--host")
        .arg(format!("unix://{}", socket.display()))
        .env("HOME", home);
    Ok((command, socket))
}

/// A Docker Engine of one test's own; ends, unmounted, when dropped.
pub struct OwnEngine {
    socket: PathBuf,
    process: Process,
    folder: TempDir,
}

impl OwnEngine {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// It did not; the message holds the end of its log.
    pub async fn start() -> Self {
        let folder = Testbed::get().scratch("engine");
        let (process, socket) = Self::spawn(folder.path());
        let engine = Self { socket, process, folder };
        engine.answering().await;
        engine
    }

    /// Starts one in a world in which Docker Hub is this one, with these mirrors of it.
    ///
    /// # Panics
    /// It did not come up. It is not made for [`restart`](Self::restart), which would forget both.
    pub async fn with_mirrors(hub: &Hub, mirrors: &[String]) -> Self {
        let folder = Testbed::get().scratch("engine");
        let mut command = tied_with_hosts(&hub.hosts(), "/usr/sbin/dockerd");
        command.env("SSL_CERT_FILE", hub.authority());
        let (process, socket) = Self::spawn_by(dockerd_by(command, folder.path(), mirrors), folder.path());
        let engine = Self { socket, process, folder };
        engine.answering().await;
        engine
    }

    fn spawn(folder: &Path) -> (Process, PathBuf) {
        Self::spawn_by(dockerd(folder), folder)
    }

    fn spawn_by(prepared: io::Result<(Command, PathBuf)>, folder: &Path) -> (Process, PathBuf) {
        let (command, socket) = prepared.expect("a folder of the testbed can be written to");
        let started = Process::start("dockerd", command, &folder.join("log"));
        (started.expect("dockerd can be started"), socket)
    }

    async fn answering(&self) {
        // Never over a kept connection: each try asks whoever listens now.
        eventually(START, async || {
            let ended = self.process.exit_status();
            assert!(ended.is_none(), "dockerd ended: {}", self.process.log_tail(20));
            let fresh = Connection::to(Endpoint::Unix(self.socket.clone()));
            let ping = http::Request::get("/_ping").body(http_body_util::Full::default()).ok()?;
            let answer = fresh.exchange_within(Duration::from_secs(5), ping).await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// To drive it past Purser.
    pub fn engine(&self) -> Engine {
        Engine::at(&self.socket)
    }

    /// SIGKILL, now; its containerd goes with it.
    pub fn kill9(&self) {
        self.process.kill9();
    }

    /// Starts it again on what it left.
    ///
    /// # Panics
    /// It did not come up.
    pub async fn restart(&mut self) {
        self.process.kill9();
        self.forget_what_was_killed().await;
        (self.process, self.socket) = Self::spawn(self.folder.path());
        self.answering().await;
    }
}

impl OwnEngine {
    /// The next dockerd would take a process that got the number of the killed containerd for it, and
    /// wait in vain.
    async fn forget_what_was_killed(&self) {
        let containerd = self.folder.path().join("exec/containerd");
        let pid = fs::read_to_string(containerd.join("containerd.pid")).unwrap_or_default();
        let arguments = format!("/proc/{}/cmdline", pid.trim());
        let folder = self.folder.path().display().to_string();
        eventually(END, async || {
            // None when it is a zombie.
            let line = fs::read(&arguments).unwrap_or_default();
            (!String::from_utf8_lossy(&line).contains(&folder)).then_some(())
        })
        .await;
        let files = ["containerd.pid", "containerd.sock", "containerd.sock.ttrpc", "containerd-debug.sock"];
        for stale in files.map(|name| containerd.join(name)) {
            let _ = fs::remove_file(stale);
        }
        let _ = fs::remove_file(self.folder.path().join("pid"));
        let _ = fs::remove_file(&self.socket);
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        self.process.end(Signal::SIGTERM, END);
        unmount_below(self.folder.path());
    }
}

/// Unmounts what a killed daemon left in a folder that is to go.
pub fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let points: Vec<_> = points.filter(|at| Path::new(at).starts_with(folder)).collect();
    // The innermost are mounted last.
    for point in points.into_iter().rev() {
        let _ = Command::new("umount").args(["--lazy", point]).stderr(std::process::Stdio::null()).status();
    }
}

/// A loopback address that stays free while its daemon is dead: below the ports that the system gives
/// to outgoing connections, and among those of this test's slot, which no other test that runs has.
///
/// # Panics
/// There is none.
pub fn lasting_address() -> String {
    const OF_A_SLOT: u16 = 500;
    const SLOTS: u16 = 24;
    let slot = std::env::var("NEXTEST_TEST_GLOBAL_SLOT").ok().and_then(|slot| slot.parse::<u16>().ok());
    let (first, ports) = match slot.filter(|slot| *slot < SLOTS) {
        Some(slot) => (20_000 + slot * OF_A_SLOT, OF_A_SLOT),
        None => (20_000, SLOTS * OF_A_SLOT),
    };
    let drawn = |_| {
        let bytes = random_bytes(2);
        let port = first + u16::from_be_bytes([bytes[0], bytes[1]]) % ports;
        TcpListener::bind(("127.0.0.1", port)).ok().map(|_| format!("127.0.0.1:{port}"))
    };
    (0..100).find_map(drawn).expect("a free loopback port")
}

/// A registry of one test's own, with the users and passwords of the testbed's basic one; gone when
/// dropped.
pub struct OwnRegistry {
    address: String,
    process: Process,
    folder: TempDir,
}

impl OwnRegistry {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// It did not.
    pub async fn start() -> Self {
        let folder = Testbed::get().scratch("registry");
        let address = lasting_address();
        let config = format!(
            "version: 0.1\nlog:\n  level: info\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
             rootdirectory: {data}\nhttp:\n  addr: {address}\n  secret: {secret}\nauth:\n  htpasswd:\n    realm: \
             purser-testbed\n    path: {users}\n",
            data = folder.path().join("data").display(),
            secret = random_hex(16),
            users = Testbed::get().folder.join("htpasswd").display(),
        );
        fs::write(folder.path().join("config.yml"), config).expect("a folder of the testbed is writable");
        let process = Self::spawn(folder.path());
        let registry = Self { address, process, folder };
        registry.answering().await;
        registry
    }

    fn spawn(folder: &Path) -> Process {
        let mut command = tied("docker-registry");
        command.arg("serve").arg(folder.join("config.yml"));
        Process::start("docker-registry", command, &folder.join("log"))
            .expect("docker-registry can be started")
    }

    async fn answering(&self) {
        eventually(START, async || {
            let ended = self.process.exit_status();
            assert!(ended.is_none(), "the registry ended: {}", self.process.log_tail(20));
            let fresh = Client::new(&format!("http://{}", self.address));
            fresh.send(Method::GET, "/v2/", &[], "").await.ok().map(drop)
        })
        .await;
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// SIGKILL, now.
    pub fn kill9(&self) {
        self.process.kill9();
    }

    /// Starts it again on the same port and data.
    ///
    /// # Panics
    /// It did not come up.
    pub async fn restart(&mut self) {
        self.process.kill9();
        self.process = Self::spawn(self.folder.path());
        self.answering().await;
    }
}
