//! Real engines, several on one machine: Docker, and Podman behind Docker's API.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use purser_tests::{
    certificate::{Authority, Validity},
    daemon::dockerd,
    process::{Process, tied},
    testbed::EngineAddress,
};

use crate::folder::Folder;

/// One takes about 5 s on an idle machine.
const START: Duration = Duration::from_secs(90);

/// A TCP address where an engine listens for clients with certificates of its authority.
pub(crate) struct ByTls {
    /// `127.0.0.1:port`.
    pub(crate) address: String,
    /// `ca.pem`, `cert.pem` and `key.pem` of a client, and the engine's own `server.pem` and `server.key`.
    pub(crate) folder: PathBuf,
}

impl ByTls {
    pub(crate) fn prepare(folder: &Folder, authority: &Authority) -> Result<Self, String> {
        let own = folder.path().join("docker-tls");
        let client = authority.issue(&["purser-agent"], Validity::Current);
        let written = fs::create_dir_all(&own)
            .and_then(|()| authority.issue(&["127.0.0.1"], Validity::Current).write(&own, "server"))
            .and_then(|()| fs::write(own.join("ca.pem"), authority.pem()))
            .and_then(|()| fs::write(own.join("cert.pem"), client.certificate))
            .and_then(|()| fs::write(own.join("key.pem"), client.key));
        written.map_err(|error| error.to_string())?;
        // dockerd takes no port 0.
        Ok(Self { address: purser_tests::daemon::lasting_address(), folder: own })
    }

    fn ask_for(&self, command: &mut Command) {
        command.arg("--host").arg(format!("tcp://{}", self.address)).arg("--tlsverify");
        for (flag, file) in
            [("--tlscacert", "ca.pem"), ("--tlscert", "server.pem"), ("--tlskey", "server.key")]
        {
            command.arg(flag).arg(self.folder.join(file));
        }
    }
}

pub(crate) struct RunningEngine {
    pub(crate) address: EngineAddress,
    process: Process,
}

impl RunningEngine {
    /// A Docker Engine; with `by_tls` it listens there, too.
    pub(crate) fn start(folder: &Folder, name: &str, by_tls: Option<&ByTls>) -> Result<Self, String> {
        let own = folder.path().join(name);
        let (mut command, socket) = dockerd(&own).map_err(|error| error.to_string())?;
        if let Some(by_tls) = by_tls {
            by_tls.ask_for(&mut command);
        }
        Self::of(command, folder, name, socket)
    }

    /// A Podman that keeps everything in its folder and reads nothing of the machine's own settings.
    pub(crate) fn start_podman(folder: &Folder, name: &str) -> Result<Self, String> {
        let own = folder.path().join(name);
        fs::create_dir_all(own.join("home")).map_err(|error| error.to_string())?;
        let socket = own.join("podman.sock");
        // Docker speaks plain HTTP to loopback without being told. An entry is one for all ports.
        let registries = own.join("registries.conf");
        let loopback = "[[registry]]\nlocation = \"127.0.0.1\"\ninsecure = true\n";
        fs::write(&registries, loopback).map_err(|error| error.to_string())?;
        let mut command = tied("podman");
        // vfs mounts nothing.
        command.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=none"]);
        for (flag, part) in [("--root", "data"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(flag).arg(own.join(part));
        }
        command
            .args(["system", "service", "--time=0"])
            .arg(format!("unix://{}", socket.display()))
            .env("HOME", own.join("home"))
            .env("XDG_RUNTIME_DIR", own.join("home"))
            .env("TMPDIR", &own)
            .env("CONTAINERS_REGISTRIES_CONF", registries);
        Self::of(command, folder, name, socket)
    }

    fn of(command: Command, folder: &Folder, name: &str, socket: PathBuf) -> Result<Self, String> {
        let process =
            Process::start(name, command, &folder.log(name)).map_err(|error| format!("{name}: {error}"))?;
        await_ping(&process, &socket)?;
        Ok(Self { address: EngineAddress { name: name.into(), socket }, process })
    }
}

impl Drop for RunningEngine {
    /// Its containerd ends with it in any case; a clean end also unmounts.
    fn drop(&mut self) {
        self.process.end(Signal::SIGTERM, Duration::from_secs(10));
    }
}

fn await_ping(process: &Process, socket: &Path) -> Result<(), String> {
    let deadline = Instant::now() + START;
    while !answers(socket) {
        if process.exit_status().is_some() || Instant::now() >= deadline {
            return Err(format!("an engine did not start; its log ends with:\n{}", process.log_tail(20)));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn answers(socket: &Path) -> bool {
    let ping = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    ping().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}
