//! What callers that mean ill, or are broken, cost the others: the 99th percentile of `registry.one`, the server's
//! memory, and what stays open when they have gone. One burden after the other, then all at once.
//!
//! The other caller is one that calls every 2 ms over a connection of its own, and is paced so that it meets every
//! hitch; its idle value is taken before each burden, so that a noisy machine is noisy for both.

pub mod burden;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use purser_tests::{Client, Purser, process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{MissedTickBehavior, interval},
};

use crate::sample::{Row, p99, show};
use burden::Burden;

/// A call each.
const PACE: Duration = Duration::from_millis(2);
/// How long is measured without a burden, and with each.
const IDLE: Duration = Duration::from_secs(8);
const BURDENED: Duration = Duration::from_secs(20);
/// Until memory is at rest after the start.
const SETTLE: Duration = Duration::from_secs(3);
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long sockets may stay open after who opened them has gone.
const CLOSING: Duration = Duration::from_secs(60);
/// Changes of the entry, so that there is a past to be told.
const CHANGES: usize = 300;
/// What the burdens and the server open at most.
const FILES: u64 = 8_192;

/// What one burden did.
struct Seen {
    figure: &'static str,
    p99: Duration,
    peak_kib: u64,
    files: usize,
    left: usize,
}

/// A row for each burden and one for all.
pub async fn rows() -> Vec<Row> {
    raise_file_limit();
    let purser = Purser::start().await;
    let client = purser.client();
    let entry = json!({
        "registryName": "Registry", "registryUrl": "registry.example.com/team",
        "username": "someone", "password": "secret", "imagePrefix": "mycompany/",
    });
    let entry = client.mutate("registry.create", entry).await["registryId"].clone();
    for change in 0..CHANGES {
        let input = json!({"registryId": entry, "registryName": format!("Registry {change}")});
        client.mutate("registry.update", input).await;
    }
    let (others, burdens) = (key(&client, "viewer").await, key(&client, "admin").await);
    let other = Other::new(purser.address(), &others, &entry.to_string());
    make_what_is_made_once(&client).await;
    other.call_for(SETTLE).await;
    tokio::time::sleep(SETTLE).await;
    let (alone, files) = (resident(&purser), open_sockets(&purser));
    note(&format!("alone: {} KiB, {files} sockets", alone));
    let (mut idle, mut all) = (Vec::new(), Vec::new());
    let everything = burden::ALL.join(",");
    for (names, figure) in
        FIGURES.map(|(name, figure)| (if name == "all" { everything.as_str() } else { name }, figure))
    {
        idle.extend(other.call_for(IDLE).await);
        let burden =
            Burden::put(names, purser.address(), &burdens).unwrap_or_else(|error| panic!("{names}: {error}"));
        let peak = Peak::of(purser.pid());
        let during = other.call_for(BURDENED).await;
        let open = open_sockets(&purser);
        let peak_kib = peak.end().await;
        drop(burden);
        let left = still_open(&purser, files).await;
        let seen = Seen { figure, p99: p99(&during), peak_kib, files: open, left };
        note(&format!("{names}: p99 {}, {peak_kib} KiB, {open} sockets, {left} left", show(seen.p99)));
        all.push(seen);
    }
    let idle = p99(&idle);
    all.into_iter().map(|seen| row(&seen, idle, alone, files)).collect()
}

/// Documents, what is known of the schemas, what a batch, a socket and a subscription need once: else the first burden
/// that asks for one would seem to cost it.
async fn make_what_is_made_once(client: &Client) {
    client.get("/api/openapi.json").await;
    client.rpc("rpc.discover", &Value::Null).await;
    client.get("/api/trpc/registry.all,audit.all?batch=1").await;
    let socket = client.websocket().await;
    let mut socket = socket.unwrap_or_else(|error| panic!("no WebSocket: {error}"));
    socket.call("registry.all", json!({})).await.unwrap_or_else(|error| panic!("no answer: {error}"));
    let mut past = client.subscribe("/api/trpc/registry.events?lastEventId=1", &[]).await;
    for _ in 0..CHANGES {
        past.event().await;
    }
}

async fn key(client: &Client, role: &str) -> String {
    let made = client.mutate("apiKey.create", json!({"name": role, "role": role})).await;
    made["key"].as_str().unwrap_or_default().to_owned()
}

const FIGURES: [(&str, &str); 9] = [
    ("quiet", "`registry.one` beside 2,000 quiet WebSocket callers"),
    ("unread", "`registry.one` beside 40 callers that read nothing"),
    ("lines", "`registry.one` beside 16 callers that read nothing of a batch's lines"),
    ("slow", "`registry.one` beside 200 callers that send a byte a second"),
    ("batches", "`registry.one` beside batches of 10,000, 20 a second"),
    ("bodies", "`registry.one` beside bodies of 100 MiB, 20 a second"),
    ("keys", "`registry.one` beside 1,000 wrong keys a second"),
    (
        burden::ONE_OF_EACH,
        "`registry.one` beside all at once, with one caller of each kind that reads nothing or is slow",
    ),
    ("all", "`registry.one` beside all of these at once"),
];

fn row(seen: &Seen, idle: Duration, alone_kib: u64, files: usize) -> Row {
    let mib = |kib: u64| kib as f64 / 1024.0;
    Row {
        figure: seen.figure,
        purser: format!("{}, {:.1} MiB, {} sockets", show(seen.p99), mib(seen.peak_kib), seen.files),
        baseline: format!("{}, {:.1} MiB, {files} sockets", show(idle), mib(alone_kib)),
        ratio: format!(
            "{:.2}×, {:.2}×, {} left",
            seen.p99.as_secs_f64() / idle.as_secs_f64(),
            mib(seen.peak_kib) / mib(alone_kib),
            seen.left
        ),
        goal: "≤ 3×, ≤ 2×, none",
    }
}

/// The caller that is to notice nothing.
struct Other {
    address: String,
    request: String,
}

impl Other {
    fn new(address: &str, key: &str, entry: &str) -> Self {
        let body = format!(r#"{{"registryId":{entry}}}"#);
        let request = format!(
            "POST /api/trpc/registry.one HTTP/1.1\r\nhost: purser\r\nx-api-key: {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self { address: address.to_owned(), request }
    }

    async fn call_for(&self, long: Duration) -> Vec<Duration> {
        let stream = TcpStream::connect(&self.address).await;
        let mut stream = stream.unwrap_or_else(|error| panic!("no connection: {error}"));
        stream.set_nodelay(true).unwrap_or_else(|error| panic!("no TCP_NODELAY: {error}"));
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (begun, mut samples) = (Instant::now(), Vec::new());
        while begun.elapsed() < long {
            pace.tick().await;
            let asked = Instant::now();
            self.call(&mut stream)
                .await
                .unwrap_or_else(|error| panic!("the other caller was cut off: {error}"));
            samples.push(asked.elapsed());
        }
        samples
    }

    async fn call(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(self.request.as_bytes()).await?;
        let (mut buffer, mut filled) = ([0; 8 * 1024], 0);
        loop {
            let read = stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if let Some(status) = crate::load::whole(&buffer[..filled]) {
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(&buffer[..filled]));
                return Ok(());
            }
        }
    }
}

/// The most memory that a process takes meanwhile.
struct Peak {
    most: Arc<AtomicU64>,
    looking: tokio::task::JoinHandle<()>,
}

impl Peak {
    fn of(pid: u32) -> Self {
        let most = Arc::new(AtomicU64::default());
        let looked = Arc::clone(&most);
        let looking = tokio::spawn(async move {
            let mut pace = interval(LOOK);
            loop {
                pace.tick().await;
                looked.fetch_max(process::resident_kib(pid).unwrap_or_default(), Ordering::Relaxed);
            }
        });
        Self { most, looking }
    }

    async fn end(self) -> u64 {
        self.looking.abort();
        let _ = self.looking.await;
        self.most.load(Ordering::Relaxed)
    }
}

fn resident(purser: &Purser) -> u64 {
    process::resident_kib(purser.pid()).unwrap_or_default()
}

/// Sockets only: how many files the database has open is its own affair.
fn open_sockets(purser: &Purser) -> usize {
    process::open_sockets(purser.pid()).unwrap_or_default()
}

/// How many sockets more than before are open when all has ended, or after as long as that may take.
async fn still_open(purser: &Purser, before: usize) -> usize {
    let until = Instant::now() + CLOSING;
    loop {
        let left = open_sockets(purser).saturating_sub(before);
        if left == 0 || Instant::now() > until {
            return left;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The server and the burdens inherit it.
fn raise_file_limit() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_else(|error| panic!("{error}"));
    if soft < FILES {
        setrlimit(Resource::RLIMIT_NOFILE, FILES, hard.max(FILES))
            .unwrap_or_else(|error| panic!("no {FILES} open files, {hard} at most: {error}"));
    }
}

/// What is worth knowing beside the figures.
fn note(text: &str) {
    eprintln!("limits: {text}");
}
