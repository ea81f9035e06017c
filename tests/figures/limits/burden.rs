//! The burdens themselves, in a process of its own that gives way to everybody: it shares the machine's cores with
//! what is measured. One thread, bare sockets, bytes made beforehand.

use std::{
    io::{BufRead as _, Write as _},
    process::{Child, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use purser_tests::{process, wait::random_hex};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

/// Tells this program to be a burden.
pub const ARGUMENT: &str = "--limits-burden";
/// All of them, in the order in which they are measured.
pub const ALL: [&str; 7] = ["quiet", "unread", "lines", "slow", "batches", "bodies", "keys"];

/// One caller of each kind where the others are many, and everything else as it is.
pub const ONE_OF_EACH: &str = "quiet,unread=1,lines=1,slow=1,batches,bodies,keys";

/// Callers that upgrade and say nothing.
const QUIET: usize = 2_000;
/// Of each kind of caller that reads nothing.
const UNREAD: usize = 8;
/// Callers that read no line of batches that ask the database: more than there are connections to it.
const LINES: usize = 16;
/// Of each kind of caller that sends a byte a second.
const SLOW: usize = 100;
/// Calls of a batch, and batches a second.
const BATCH: usize = 10_000;
const BATCHES: u32 = 20;
/// The size of a body, and how many a second are begun.
const BODY: usize = 100 << 20;
const BODIES: u32 = 20;
/// Wrong keys a second, and over how many connections.
const KEYS: u32 = 1_000;
const KEY_CONNECTIONS: u32 = 16;
/// How long it is waited for an answer, and before a connection that was cut is made again.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(200);
/// What a caller that reads nothing lets the system take for it.
const UNREAD_BUFFER: u32 = 4096;

/// What a burden must know.
struct World {
    address: String,
    key: String,
}

/// Puts the named burdens (parted by commas; `slow=1` is one caller of each kind) on the server that standard input tells
/// of, says so by a line, and goes on until it is killed.
pub fn main(names: &str) -> ExitCode {
    let mut told = String::new();
    let Ok(_) = std::io::stdin().lock().read_line(&mut told) else { return ExitCode::FAILURE };
    let told: Value = serde_json::from_str(&told).unwrap_or_default();
    let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
    let world = Arc::new(World { address: text("address"), key: text("key") });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    runtime.block_on(async {
        for name in names.split(',') {
            let (name, callers) = name.split_once('=').unwrap_or((name, ""));
            let callers = callers.parse().ok();
            match name {
                "quiet" => quiet(&world).await,
                "unread" => unread(&world, callers.unwrap_or(UNREAD)),
                "lines" => lines(&world, callers.unwrap_or(LINES)),
                "slow" => slow(&world, callers.unwrap_or(SLOW)),
                "batches" => batches(&world),
                "bodies" => bodies(&world),
                "keys" => keys(&world),
                other => panic!("no burden: {other}"),
            }
        }
        crate::sample::print("on\n");
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

/// A burden's process, which ends with this.
pub struct Burden {
    child: Child,
}

impl Burden {
    /// Puts burdens on a server, and waits until they are on.
    pub fn put(names: &str, address: &str, key: &str) -> std::io::Result<Self> {
        // Whoever else wants the processor has it at once: of a process that is merely nice it would wait for its slice.
        let mut command = process::tied("chrt");
        command.args(["--idle", "0"]).arg(std::env::current_exe()?).args([ARGUMENT, names]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = process::spawn(command)?;
        if let Some(mut stdin) = child.stdin.take() {
            writeln!(stdin, "{}", json!({"address": address, "key": key}))?;
        }
        let mut on = String::new();
        if let Some(stdout) = child.stdout.take() {
            std::io::BufReader::new(stdout).read_line(&mut on)?;
        }
        if on == "on\n" {
            Ok(Self { child })
        } else {
            Err(std::io::Error::other("the burden did not come on"))
        }
    }
}

impl Drop for Burden {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl World {
    /// A request without a body, or with one whose headers are given.
    fn request(&self, line: &str, more: &str) -> String {
        self.request_by(&self.key, line, more)
    }

    fn request_by(&self, key: &str, line: &str, more: &str) -> String {
        format!("{line} HTTP/1.1\r\nhost: purser\r\nx-api-key: {key}\r\n{more}\r\n")
    }

    fn upgrade(&self) -> String {
        let more = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        self.request("GET /rpc", more)
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn connect_unread(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(UNREAD_BUFFER)?;
        let address = self.address.parse().map_err(std::io::Error::other)?;
        socket.connect(address).await
    }
}

/// Does something over and over, on a new connection each time it was cut.
fn again<F>(world: &Arc<World>, once: impl Fn(Arc<World>) -> F + Send + 'static)
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let world = Arc::clone(world);
    tokio::spawn(async move {
        loop {
            // That it is cut off is what is hoped for.
            let _ = once(Arc::clone(&world)).await;
            sleep(AGAIN).await;
        }
    });
}

/// Reads an answer, and gives its status.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<u16> {
    let mut filled = 0;
    loop {
        let read = timeout(PATIENCE, stream.read(&mut buffer[filled..])).await??;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        if let Some(status) = crate::load::whole(&buffer[..filled]) {
            return Ok(status);
        }
    }
}

fn every(part: Duration) -> tokio::time::Interval {
    let mut pace = interval(part);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

/// Upgraded, and quiet but for their pongs.
async fn quiet(world: &Arc<World>) {
    for _ in 0..QUIET {
        let mut stream = world.connect().await.unwrap_or_else(|error| panic!("no connection: {error}"));
        let upgraded = async {
            stream.write_all(world.upgrade().as_bytes()).await?;
            let mut head = [0; 1024];
            let read = stream.read(&mut head).await?;
            std::io::Result::Ok(head[..read].starts_with(b"HTTP/1.1 101"))
        };
        assert!(upgraded.await.unwrap_or_default(), "no upgrade");
        tokio::spawn(async move {
            let mut pinged = [0; 64];
            while let Ok(1..) = stream.read(&mut pinged).await {
                // An empty pong with an empty mask.
                if stream.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Who asks for much and reads nothing of it: documents, batches, lines of a batch, a socket's answers, and the
/// past of the registries.
fn unread(world: &Arc<World>, callers: usize) {
    let calls: Vec<_> =
        (0..100).map(|id| json!({"jsonrpc": "2.0", "method": "registry.all", "id": id})).collect();
    let calls = Value::from(calls).to_string();
    let posted = |path: &str, body: &str, more: &str| {
        let more = format!("{more}content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        world.request(&format!("POST {path}"), &more) + body
    };
    let names = vec!["registry.all"; 100].join(",");
    let requests = [
        world.request("GET /api/openapi.json", ""),
        posted("/rpc", &calls, ""),
        posted(&format!("/api/trpc/{names}?batch=1"), "{}", "accept: application/jsonl\r\n"),
        world.request("GET /api/trpc/registry.events?lastEventId=1", ""),
    ];
    for request in requests {
        for _ in 0..callers {
            let request = request.clone();
            again(world, move |world| flood(world, request.clone().into_bytes(), None));
        }
    }
    let frame = text_frame(&calls);
    for _ in 0..callers {
        let frame = frame.clone();
        again(world, move |world| {
            let upgrade = world.upgrade();
            flood(world, frame.clone(), Some(upgrade))
        });
    }
}

/// Who reads nothing of a JSONL batch, each of whose calls reads the database.
fn lines(world: &Arc<World>, callers: usize) {
    let inputs: Vec<_> = (0..100).map(|at| format!(r#""{at}":{{"limit":100}}"#)).collect();
    let body = format!("{{{}}}", inputs.join(","));
    let names = vec!["audit.all"; 100].join(",");
    let more = format!(
        "accept: application/jsonl\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    let request = world.request(&format!("POST /api/trpc/{names}?batch=1"), &more) + &body;
    for _ in 0..callers {
        let request = request.clone();
        again(world, move |world| flood(world, request.clone().into_bytes(), None));
    }
}

/// A masked text frame (by an empty mask).
fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0xfe];
    let length = u16::try_from(text.len()).unwrap_or_else(|_| panic!("a frame of {} bytes", text.len()));
    frame.extend(length.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

/// Sends a request again and again, until it is cut off.
async fn flood(world: Arc<World>, request: Vec<u8>, first: Option<String>) -> std::io::Result<()> {
    let mut stream = world.connect_unread().await?;
    if let Some(upgrade) = first {
        stream.write_all(upgrade.as_bytes()).await?;
        stream.read_exact(&mut [0; 64]).await?;
    }
    loop {
        stream.write_all(&request).await?;
    }
}

/// A byte a second, of the head or of the body.
fn slow(world: &Arc<World>, callers: usize) {
    let head = world.request("GET /api/trpc/registry.all", &format!("x-padding: {}\r\n", "x".repeat(200)));
    let body = world.request(
        "POST /api/trpc/registry.create",
        "content-type: application/json\r\ncontent-length: 1000\r\n",
    );
    for (at_once, slowly) in [("", head), (body.as_str(), " ".repeat(1000))] {
        let (at_once, slowly) = (at_once.to_owned(), slowly);
        for _ in 0..callers {
            let (at_once, slowly) = (at_once.clone(), slowly.clone());
            again(world, move |world| {
                let (at_once, slowly) = (at_once.clone(), slowly.clone());
                async move {
                    let mut stream = world.connect().await?;
                    stream.write_all(at_once.as_bytes()).await?;
                    for byte in slowly.as_bytes() {
                        // Whether it was cut off is seen at the next byte.
                        sleep(Duration::from_secs(1)).await;
                        stream.write_all(&[*byte]).await?;
                    }
                    Ok(())
                }
            });
        }
    }
}

/// Batches far beyond the limit, at both doors.
fn batches(world: &Arc<World>) {
    let calls: Vec<_> =
        (0..BATCH).map(|id| json!({"jsonrpc": "2.0", "method": "registry.all", "id": id})).collect();
    let calls = Value::from(calls).to_string();
    // A longer path would be no batch any more, but too long.
    let names = vec!["a"; BATCH].join(",");
    for (path, body) in [("/rpc".to_owned(), calls), (format!("/api/trpc/{names}?batch=1"), "{}".to_owned())]
    {
        let more = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        let request = (world.request(&format!("POST {path}"), &more) + &body).into_bytes();
        again(world, move |world| {
            let request = request.clone();
            async move {
                let mut stream = world.connect().await?;
                let (mut pace, mut buffer) =
                    (every(Duration::from_secs(1) * 2 / BATCHES), vec![0; 16 * 1024]);
                loop {
                    pace.tick().await;
                    stream.write_all(&request).await?;
                    let status = answer(&mut stream, &mut buffer).await?;
                    assert_eq!(status, 413, "a batch of {BATCH}");
                }
            }
        });
    }
}

/// Bodies far beyond the limit, announced and not, at each door, with a key and without.
fn bodies(world: &Arc<World>) {
    let paths = ["/api/trpc/registry.create", "/api/registry.create", "/rpc"];
    let lengths = [format!("content-length: {BODY}\r\n"), "transfer-encoding: chunked\r\n".to_owned()];
    let keys = [world.key.clone(), "none".to_owned()];
    let kinds = paths.iter().flat_map(|path| lengths.iter().map(move |length| (path, length)));
    let heads: Vec<_> = kinds
        .flat_map(|(path, length)| keys.iter().map(move |key| (path, length, key)))
        .map(|(path, length, key)| {
            let more = format!("content-type: application/json\r\n{length}");
            (world.request_by(key, &format!("POST {path}"), &more), length.starts_with("transfer"))
        })
        .collect();
    let part = Arc::new([b' '; 64 * 1024]);
    let pace = Duration::from_secs(1) * u32::try_from(heads.len()).unwrap_or(1) / BODIES;
    for (head, chunked) in heads {
        let part = Arc::clone(&part);
        again(world, move |world| {
            let (head, part) = (head.clone(), Arc::clone(&part));
            async move {
                let begun = Instant::now();
                let mut stream = world.connect().await?;
                stream.write_all(head.as_bytes()).await?;
                let sending = async {
                    let mut sent = 0;
                    while sent < BODY {
                        if chunked {
                            stream.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await?;
                        }
                        stream.write_all(part.as_slice()).await?;
                        if chunked {
                            stream.write_all(b"\r\n").await?;
                        }
                        sent += part.len();
                    }
                    std::io::Result::Ok(())
                };
                // The server hears no more of it once it has answered.
                let sent = sending.await;
                assert!(sent.is_err(), "100 MiB were taken");
                tokio::time::sleep_until(begun + pace).await;
                Ok(())
            }
        });
    }
}

/// Keys that nobody has, and the beginning of one that somebody has.
fn keys(world: &Arc<World>) {
    let prefix: String = world.key.chars().take(23).collect();
    for at in 0..KEY_CONNECTIONS {
        let prefix = prefix.clone();
        again(world, move |world| {
            let prefix = prefix.clone();
            async move {
                let mut stream = world.connect().await?;
                let (mut pace, mut buffer) =
                    (every(Duration::from_secs(1) * KEY_CONNECTIONS / KEYS), vec![0; 16 * 1024]);
                loop {
                    pace.tick().await;
                    let secret = random_hex(21);
                    let key = match at % 2 {
                        0 => format!("{prefix}_{secret}x"),
                        _ => format!("purser_{}_{secret}x", random_hex(8)),
                    };
                    let request = world.request_by(&key, "GET /api/trpc/registry.all", "");
                    stream.write_all(request.as_bytes()).await?;
                    let status = answer(&mut stream, &mut buffer).await?;
                    assert_eq!(status, 401, "a wrong key");
                }
            }
        });
    }
}
