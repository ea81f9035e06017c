//! `registry.all` under load beside a bare handler that answers the same bytes.
//!
//! The callers are as cheap as can be (a fixed request, an answer whose length is read from its
//! head), since they share the machine with what they measure.

use std::time::{Duration, Instant};

use purser_tests::Purser;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{bare::Bare, sample::Row};

const ROWS: usize = 10;
const CONNECTIONS: usize = 32;
const ROUND: Duration = Duration::from_secs(4);
const ROUNDS: usize = 3;

/// Requests per second of `registry.all` with ten entries over 32 connections.
pub async fn registry_all() -> Row {
    let purser = Purser::start().await;
    let client = purser.client();
    for number in 0..ROWS {
        let entry = json!({
            "registryName": format!("Registry {number}"), "registryUrl": format!("registry-{number}.example.com/team"),
            "username": "someone", "password": "secret", "imagePrefix": "mycompany/",
        });
        client.mutate("registry.create", entry).await;
    }
    let answer = client.get("/api/trpc/registry.all").await;
    let bare = Bare::start(&answer.body).unwrap_or_else(|error| panic!("no baseline: {error}"));
    let request = format!(
        "GET /api/trpc/registry.all HTTP/1.1\r\nhost: purser\r\nx-api-key: {}\r\n\r\n",
        purser.admin_key()
    );
    let (mut ours, mut theirs) = (0.0, 0.0);
    for _ in 0..ROUNDS {
        theirs += round(&bare.address, &request).await;
        ours += round(purser.address(), &request).await;
    }
    let rounds = ROUNDS as f64;
    Row {
        figure: "`registry.all`, 10 entries, 32 connections, beside a bare axum handler of the same bytes",
        purser: format!("{:.0}/s", ours / rounds),
        baseline: format!("{:.0}/s", theirs / rounds),
        ratio: format!("{:.2}×", ours / theirs),
        goal: "≥ 0.25×",
    }
}

/// Requests per second of one round.
async fn round(address: &str, request: &str) -> f64 {
    let until = Instant::now() + ROUND;
    let callers: Vec<_> = (0..CONNECTIONS)
        .map(|_| tokio::spawn(call_until(address.to_owned(), request.to_owned(), until)))
        .collect();
    let mut answers = 0;
    for caller in callers {
        answers += caller.await.unwrap_or_else(|error| panic!("a caller failed: {error}"));
    }
    answers as f64 / ROUND.as_secs_f64()
}

async fn call_until(address: String, request: String, until: Instant) -> u64 {
    let broken = |error| panic!("{address} broke off: {error}");
    let mut stream = TcpStream::connect(&address).await.unwrap_or_else(broken);
    stream.set_nodelay(true).unwrap_or_else(|error| panic!("no TCP_NODELAY: {error}"));
    let mut buffer = vec![0; 64 * 1024];
    let mut answers = 0;
    while Instant::now() < until {
        stream.write_all(request.as_bytes()).await.unwrap_or_else(|error| panic!("{error}"));
        let mut filled = 0;
        loop {
            let read = stream.read(&mut buffer[filled..]).await.unwrap_or_else(|error| panic!("{error}"));
            assert!(read > 0, "the connection was closed");
            filled += read;
            if let Some(status) = whole(&buffer[..filled]) {
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(&buffer[..filled]));
                break;
            }
        }
        answers += 1;
    }
    answers
}

/// The status of an answer, once all of it has been read.
pub fn whole(answer: &[u8]) -> Option<u16> {
    let head = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let name = b"content-length: ";
    let at = memchr::memmem::find(&answer[..head], name).unwrap_or_else(|| panic!("no length")) + name.len();
    let number = |digits: &[u8]| {
        let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
    };
    let status = u16::try_from(number(&answer[b"HTTP/1.1 ".len()..])).unwrap_or_default();
    (answer.len() >= head + 4 + number(&answer[at..])).then_some(status)
}
