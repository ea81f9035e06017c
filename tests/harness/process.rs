//! Child processes that cannot outlive their starter.
//!
//! Every child goes through `setpriv --pdeathsig`, so the kernel kills it when its starter is
//! gone, even by `kill -9`. The kernel means the *thread* that forked, not the process; so all
//! forks are made by one thread that lives as long as the process ([`spawn`]).

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts `command` from the one thread that lives as long as this process.
///
/// # Errors
/// What `Command::spawn` says.
pub fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (mut command, reply) in orders {
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        Mutex::new(sender)
    });
    let (reply, answer) = mpsc::channel();
    let sender = spawner.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    sender.send((command, reply)).map_err(io::Error::other)?;
    answer.recv().map_err(io::Error::other)?
}

/// A command whose process the kernel kills with SIGKILL when its starter dies.
pub fn tied(program: impl AsRef<std::ffi::OsStr>) -> Command {
    tied_by("KILL", &[], program)
}

/// Like [`tied`] with another death signal, and further `setpriv` options (`--reuid …`).
pub fn tied_by(signal: &str, options: &[&str], program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal]).args(options).arg("--").arg(program);
    command
}

/// Like [`tied`], for a program that sees a `/etc/hosts` of its own: in a mount namespace, which replaces itself by
/// the program, and needs root.
pub fn tied_with_hosts(hosts: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = tied("unshare");
    command.args(["--mount", "--", "sh", "-c", r#"mount --bind "$0" /etc/hosts && exec "$@""#]);
    command.arg(hosts).arg(program);
    command
}

/// A running program with its output in a file; killed and reaped on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `command` (made by [`tied`]), appending its stdout and stderr to `log`.
    ///
    /// # Errors
    /// The log cannot be opened or the program cannot be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> io::Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = spawn(command)?;
        Ok(Self { name: name.into(), pid: child.id(), log: log.into(), child: Mutex::new(child) })
    }

    /// The process id (of the program itself: `setpriv` replaces itself by it).
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Everything written so far to stdout and stderr.
    pub fn logs(&self) -> String {
        self.logs_from(0)
    }

    fn logs_from(&self, start: usize) -> String {
        let all = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(all.get(start..).unwrap_or_default()).into_owned()
    }

    /// The last `lines` lines of [`logs`](Self::logs), for error messages.
    pub fn log_tail(&self, lines: usize) -> String {
        let logs = self.logs();
        let all: Vec<_> = logs.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// `Some` once the process has ended.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child().try_wait().expect("a child can be waited for")
    }

    /// Sends `signal` unless the process has ended.
    pub fn signal(&self, signal: Signal) {
        let mut child = self.child();
        if child.try_wait().expect("a child can be waited for").is_none() {
            let pid = Pid::from_raw(i32::try_from(self.pid).expect("pids fit an i32"));
            let _ = signal::kill(pid, signal);
        }
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill9(&self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Waits for the end, blocking the thread; `None` when `timeout` passed first.
    pub fn wait(&self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.exit_status() {
                Some(status) => return Some(status),
                None if Instant::now() >= deadline => return None,
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Sends `signal` and waits; SIGKILL, and `None`, when it is still there after `timeout`.
    pub fn end(&self, signal: Signal, timeout: Duration) -> Option<ExitStatus> {
        self.signal(signal);
        let status = self.wait(timeout);
        if status.is_none() {
            self.kill9();
        }
        status
    }

    /// Waits for a log line that `pick` makes something of, blocking the thread.
    ///
    /// # Errors
    /// A message with the log's tail: the process ended, or `timeout` passed.
    pub fn await_log<T>(&self, timeout: Duration, pick: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        self.await_log_from(0, timeout, pick)
    }

    /// [`await_log`](Self::await_log) that looks only at what is logged after byte `start`.
    ///
    /// # Errors
    /// As there.
    pub fn await_log_from<T>(
        &self,
        start: usize,
        timeout: Duration,
        pick: impl Fn(&str) -> Option<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + timeout;
        loop {
            let ended = self.exit_status();
            if let Some(found) = self.logs_from(start).lines().find_map(&pick) {
                return Ok(found);
            }
            let reason = match ended {
                Some(status) => format!("ended with {status}"),
                None if Instant::now() >= deadline => format!("was not ready after {timeout:?}"),
                None => {
                    thread::sleep(Duration::from_millis(10));
                    continue;
                }
            };
            return Err(format!("{} {reason}; its log ends with:\n{}", self.name, self.log_tail(30)));
        }
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The arguments of process `pid` as anyone on the machine can read them, separated by spaces.
pub fn command_line(pid: u32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ").trim_end().to_owned()
}

/// Processor time that process `pid` has used so far.
///
/// # Panics
/// It is gone.
pub fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // After the name, which may hold anything but ends with the last bracket; in ticks of 10 ms.
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    let ticks = |at: usize| fields.split_whitespace().nth(at).and_then(|field| field.parse::<u64>().ok());
    Duration::from_millis(10 * (ticks(11).unwrap_or_default() + ticks(12).unwrap_or_default()))
}

/// Resident memory (`VmRSS`) of process `pid` in KiB; `None` when it is gone.
pub fn resident_kib(pid: u32) -> Option<u64> {
    memory_kib(pid, "VmRSS:")
}

/// The most resident memory (`VmHWM`) that process `pid` has had so far in KiB; `None` when it is gone.
pub fn peak_resident_kib(pid: u32) -> Option<u64> {
    memory_kib(pid, "VmHWM:")
}

/// How many files and sockets process `pid` has open; `None` when it is gone.
pub fn open_files(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// How many sockets process `pid` has open; `None` when it is gone. Unlike files, none is a database's that is kept.
pub fn open_sockets(pid: u32) -> Option<usize> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let links = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    Some(links.filter(|link| link.to_string_lossy().starts_with("socket:")).count())
}

fn memory_kib(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().trim_end_matches("kB").trim_end().parse().ok()
}
