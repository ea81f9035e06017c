//! `testbed -- CMD…`: starts the expensive shared parts once, writes their addresses into a file,
//! runs CMD with `PURSER_TESTBED=<file>`, tears everything down and exits with CMD's code.
//!
//! Whatever happens to this process, nothing stays: children die with it (`setpriv --pdeathsig`),
//! test processes hold a lifeline to it, and a janitor (this program again, in a process group of
//! its own) removes the folder when it sees its standard input close. Folders of testbeds whose
//! janitor was killed, too, are removed at the next start.

mod auth_proxy;
mod engine;
mod folder;
mod lifeline;
mod parts;
mod postgres;
mod registry;
mod token_server;

use std::{
    env,
    os::unix::process::ExitStatusExt as _,
    panic,
    process::{Command, ExitCode, ExitStatus},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use purser_tests::{process, testbed};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use crate::{folder::Folder, parts::Parts};

/// How long CMD may take to end after a signal before it is killed.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [folder::JANITOR, folder] => {
            folder::clean_after_end_of_input(folder.as_ref());
            return ExitCode::SUCCESS;
        }
        ["--", program, rest @ ..] => match panic::catch_unwind(|| run(program, rest)) {
            Ok(Ok(code)) => return code,
            Ok(Err(error)) => eprintln!("testbed: {error}"),
            // The panic's message is printed already, and everything was dropped on the way here.
            Err(_) => {}
        },
        _ => eprintln!("usage: testbed -- COMMAND [ARGUMENT]…"),
    }
    ExitCode::from(70)
}

enum Event {
    Ended(ExitStatus),
    Told(Signal),
}

fn run(program: &str, arguments: &[&str]) -> Result<ExitCode, String> {
    let runtime = Runtime::new().map_err(|error| error.to_string())?;
    let (sender, events) = mpsc::channel();
    listen_for_signals(&runtime, &sender)?;
    folder::sweep_stale();
    let folder = Folder::create()?;
    // From here on, every way out drops the parts first and then the folder.
    let parts = Parts::start(&runtime, &folder)?;
    if let Ok(Event::Told(signal)) = events.try_recv() {
        return Ok(code(128 + signal as i32));
    }

    let mut command = process::tied(program);
    command.args(arguments).env(testbed::VARIABLE, parts.file());
    let mut child = process::spawn(command).map_err(|error| format!("{program}: {error}"))?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).map_err(|error| error.to_string())?);
    thread::spawn(move || sender.send(Event::Ended(child.wait().unwrap_or_default())));

    match events.recv() {
        Ok(Event::Ended(status)) => Ok(exit_code(status)),
        Ok(Event::Told(signal)) => {
            // A terminal's Ctrl-C reached CMD already; a second SIGINT would cut its clean-up short.
            if signal != Signal::SIGINT {
                let _ = nix::sys::signal::kill(pid, signal);
            }
            let ended = || events.recv_timeout(GRACE).is_ok_and(|event| matches!(event, Event::Ended(_)));
            if !ended() {
                let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
                ended();
            }
            Ok(code(128 + signal as i32))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn listen_for_signals(runtime: &Runtime, sender: &mpsc::Sender<Event>) -> Result<(), String> {
    let _guard = runtime.enter();
    for (kind, told) in [
        (SignalKind::terminate(), Signal::SIGTERM),
        (SignalKind::interrupt(), Signal::SIGINT),
        (SignalKind::hangup(), Signal::SIGHUP),
    ] {
        let mut signals = signal(kind).map_err(|error| error.to_string())?;
        let sender = sender.clone();
        runtime.spawn(async move {
            while signals.recv().await.is_some() {
                let _ = sender.send(Event::Told(told));
            }
        });
    }
    Ok(())
}

fn exit_code(status: ExitStatus) -> ExitCode {
    code(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}

fn code(number: i32) -> ExitCode {
    ExitCode::from(u8::try_from(number).unwrap_or(1))
}

/// Runs a program that ends by itself.
fn run_to_end(command: &mut Command) -> Result<Vec<u8>, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let ended = command.output().map_err(|error| format!("{name}: {error}"))?;
    if ended.status.success() {
        return Ok(ended.stdout);
    }
    Err(format!("{name} {}: {}", ended.status, String::from_utf8_lossy(&ended.stderr).trim()))
}
