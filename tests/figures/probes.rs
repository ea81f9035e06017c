//! `registry.all` while 1,000 tests of an address wait that never answers.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use purser_tests::{Client, Purser, process};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::sample::{Row, p99, show, timed};

const PROBES: usize = 1_000;
const ENTRIES: usize = 10;
/// A call each; fast enough to meet every hitch, slow enough to leave the machine to others.
const PACE: Duration = Duration::from_millis(2);
const IDLE: Duration = Duration::from_secs(10);

/// An address that answers nothing, not even SYN: its backlog is full and nobody accepts.
struct Dead {
    listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Dead {
    async fn listen() -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(([127, 0, 0, 1], 0).into())?;
        let listener = socket.listen(1)?;
        let mut waiting = Vec::new();
        while let Ok(stream) =
            timeout(Duration::from_millis(500), TcpStream::connect(listener.local_addr()?)).await
        {
            waiting.push(stream?);
        }
        Ok(Self { listener, _waiting: waiting })
    }
}

/// The 99th percentile while they wait, beside that of an idle server, and what each takes of memory.
pub async fn dead_address() -> [Row; 2] {
    let purser = Purser::start().await;
    let client = purser.client();
    for number in 0..ENTRIES {
        let entry = json!({
            "registryName": format!("Registry {number}"), "registryUrl": format!("registry-{number}.example.com/team"),
            "username": "someone", "password": "secret",
        });
        client.mutate("registry.create", entry).await;
    }
    let dead = Dead::listen().await.unwrap_or_else(|error| panic!("no dead address: {error}"));
    let address = dead.listener.local_addr().unwrap_or_else(|error| panic!("no address: {error}"));
    let before = Instant::now();
    let idle = calls(&client, || before.elapsed() < IDLE).await;
    let alone = process::resident_kib(purser.pid()).unwrap_or_default();
    let waiting = AtomicBool::new(true);
    let probes = async {
        let body = json!({"registryUrl": address.to_string()}).to_string();
        let request = format!(
            "POST /api/trpc/registry.testRegistry HTTP/1.1\r\nhost: purser\r\nx-api-key: {}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            purser.admin_key(),
            body.len()
        );
        let probes: Vec<_> =
            (0..PROBES).map(|_| tokio::spawn(probe(purser.address().to_owned(), request.clone()))).collect();
        for probe in probes {
            probe.await.unwrap_or_else(|error| panic!("a probe failed: {error}"));
        }
        waiting.store(false, Ordering::Relaxed);
    };
    let ((), during) = tokio::join!(probes, calls(&client, || waiting.load(Ordering::Relaxed)));
    let (idle, during) = (p99(&idle), p99(&during));
    let most = process::peak_resident_kib(purser.pid()).unwrap_or_default();
    let calls = Row {
        figure: "99th percentile of `registry.all` under 1,000 tests of a dead address, beside the idle server's",
        purser: show(during),
        baseline: show(idle),
        ratio: format!("{:.2}×", during.as_secs_f64() / idle.as_secs_f64()),
        goal: "≤ 2×",
    };
    let memory = Row {
        figure: "memory of the server for each of them, its caller's connection included",
        purser: format!("{:.0} KiB", most.saturating_sub(alone) as f64 / PROBES as f64),
        baseline: "–".into(),
        ratio: "–".into(),
        goal: "–",
    };
    [calls, memory]
}

async fn calls(client: &Client, go_on: impl Fn() -> bool) -> Vec<Duration> {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut samples = Vec::new();
    while go_on() {
        pace.tick().await;
        let (took, answer) = timed(client.get("/api/trpc/registry.all")).await;
        assert!(answer.status.is_success(), "{}", answer.text());
        samples.push(took);
    }
    samples
}

/// One test, which must end with a verdict.
async fn probe(address: String, request: String) {
    let answer = async {
        let mut stream = TcpStream::connect(&address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = answer.await.unwrap_or_else(|error| panic!("no verdict: {error}"));
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("timeout"), "{answer}");
}
