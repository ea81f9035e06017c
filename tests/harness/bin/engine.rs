//! Real Docker Engines, several on one machine.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use purser_tests::{
    process::{Process, tied},
    testbed::EngineAddress,
};

use crate::folder::Folder;

/// One takes about 5 s on an idle machine.
const START: Duration = Duration::from_secs(90);

pub(crate) struct RunningEngine {
    pub(crate) address: EngineAddress,
    process: Process,
}

impl RunningEngine {
    pub(crate) fn start(folder: &Folder, name: &str) -> Result<Self, String> {
        let own = folder.path().join(name);
        let home = own.join("home");
        fs::create_dir_all(&home).map_err(|error| error.to_string())?;
        let socket = own.join("docker.sock");
        // Nothing of the machine's own /etc/docker: neither its settings nor the key.json by which
        // all engines of a machine would have one and the same ID.
        let config = own.join("daemon.json");
        let settings = serde_json::json!({"deprecated-key-path": own.join("key.json")});
        fs::write(&config, settings.to_string()).map_err(|error| error.to_string())?;
        // /usr/local/bin may hold another client's tools; this one is Debian's.
        let mut command = tied("/usr/sbin/dockerd");
        command
            .args(["--bridge=none", "--iptables=false"])
            .arg("--data-root")
            .arg(own.join("data"))
            .arg("--exec-root")
            .arg(own.join("exec"))
            .arg("--config-file")
            .arg(config)
            .arg("--pidfile")
            .arg(own.join("pid"))
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .env("HOME", home);
        let log = folder.log(name);
        let process = Process::start(name, command, &log).map_err(|error| format!("dockerd: {error}"))?;
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
            return Err(format!("dockerd did not start; its log ends with:\n{}", process.log_tail(20)));
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
