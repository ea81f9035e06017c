//! `purser-server`: arguments, logging, signals, exit code.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use purser_server::config::{Cli, Command, Settings};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

/// The exit code of a stop that waited for nothing.
const CUT_OFF: i32 = 130;
/// For what still blocks a thread when everything else has ended, such as a slow disk.
const LAST: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("no threads can be started: {error}")),
    };
    let code = runtime.block_on(run());
    runtime.shutdown_timeout(LAST);
    code
}

async fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are answers, not refusals.
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => {
            let text = error.to_string();
            return refuse(text.lines().next().unwrap_or_default().trim_start_matches("error: "));
        }
    };
    let settings = match cli.settings.complete() {
        Ok(settings) => settings,
        Err(line) => return refuse(&line),
    };
    purser_server::logging::start(settings.log_format);
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return refuse("another TLS provider is installed already");
    }
    let done = match cli.command {
        None => serve(settings).await,
        Some(Command::Reencrypt) => purser_server::reencrypt(settings).await.map(|changed| {
            tracing::info!(changed, "stored secrets sealed anew");
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&purser_server::chain(&error)),
    }
}

async fn serve(settings: Settings) -> purser_server::Result<()> {
    let (stop, reload) = (CancellationToken::new(), Arc::new(Notify::new()));
    let (stopped, reloaded) = (stop.clone(), Arc::clone(&reload));
    tokio::spawn(async move {
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
        else {
            tracing::error!("signals cannot be received; stop the process by SIGKILL");
            return;
        };
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => reloaded.notify_one(),
            }
        }
        stopped.cancel();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("told to stop once more: what is under way is cut off");
        std::process::exit(CUT_OFF);
    });
    purser_server::run(settings, reload, stop).await
}

fn refuse(line: &str) -> ExitCode {
    use std::io::Write;
    // Nothing is left to do where even stderr is gone.
    let _ = writeln!(std::io::stderr(), "purser-server: {line}");
    ExitCode::FAILURE
}
