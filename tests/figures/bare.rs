//! The baseline of the load test: an axum handler that answers the same bytes from memory, in a
//! process of its own.

use std::{
    io::{Read, Write},
    process::{ExitCode, Stdio},
};

use axum::{Router, http::header, routing::get};
use bytes::Bytes;
use purser_tests::process;

/// Tells this program to be the baseline.
pub const ARGUMENT: &str = "--bare-handler";

/// Serves the bytes of standard input on a free port, which it prints.
pub fn main() -> ExitCode {
    let mut body = Vec::new();
    if std::io::stdin().read_to_end(&mut body).is_err() {
        return ExitCode::FAILURE;
    }
    let body = Bytes::from(body);
    let Ok(runtime) = tokio::runtime::Runtime::new() else { return ExitCode::FAILURE };
    let served = runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        crate::sample::print(&format!("{}\n", listener.local_addr()?));
        let answer = move || {
            let body = body.clone();
            async move { ([(header::CONTENT_TYPE, "application/json")], body) }
        };
        axum::serve(listener, Router::new().route("/{*path}", get(answer))).await
    });
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The baseline's process; it dies with this one.
pub struct Bare {
    child: std::process::Child,
    /// `host:port`.
    pub address: String,
}

impl Bare {
    /// Starts this program again to serve `body`.
    pub fn start(body: &[u8]) -> std::io::Result<Self> {
        let mut command = process::tied(std::env::current_exe()?);
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = process::spawn(command)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(body)?;
        }
        let mut address = String::new();
        if let Some(stdout) = child.stdout.take() {
            std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut address)?;
        }
        Ok(Self { child, address: address.trim().to_owned() })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
