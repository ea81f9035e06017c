//! A TCP proxy that records what passes, and that breaks on demand.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, split},
    net::{TcpListener, TcpSocket, TcpStream, UnixStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::connection::Stream;

/// How the proxy behaves just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mode {
    /// Bytes wait, in both directions; connections stay open.
    stalled: bool,
    /// The port is closed.
    refusing: bool,
    /// Raised by each cut; connections of an older number close.
    cut: u64,
    /// How many bytes may pass to clients, all in all; what is beyond waits.
    to_clients: usize,
}

/// Everything that passed, all connections in one row per direction.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// From clients to the upstream.
    pub to_upstream: Vec<u8>,
    /// From the upstream to clients.
    pub to_client: Vec<u8>,
}

impl Recording {
    /// Both directions in one row, for a scan.
    pub fn both(&self) -> Vec<u8> {
        [self.to_upstream.as_slice(), &self.to_client].concat()
    }
}

struct Shared {
    /// Each connection begins with another one, and goes on to the next where one refuses.
    upstreams: Mutex<Vec<String>>,
    recording: Mutex<Recording>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    /// The next bytes to the upstream are to be damaged.
    damage: AtomicBool,
}

/// A proxy on a loopback port, in front of one upstream; gone when dropped.
pub struct BreakableProxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

impl BreakableProxy {
    /// A plain proxy to `upstream` (`host:port`, or the path of a Unix socket): records what is on
    /// the wire.
    ///
    /// # Panics
    /// No loopback port is free.
    pub async fn start(upstream: &str) -> Self {
        Self::begin(upstream, None).await
    }

    /// A proxy that terminates TLS with `config` (see [`crate::certificate::Issued`]) and goes on
    /// in plain to `upstream`: records the decrypted stream, as a reverse proxy or a thief of its
    /// key would see it.
    ///
    /// # Panics
    /// No loopback port is free.
    pub async fn terminating_tls(upstream: &str, config: Arc<ServerConfig>) -> Self {
        Self::begin(upstream, Some(config.into())).await
    }

    async fn begin(upstream: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free loopback port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let mode =
            watch::Sender::new(Mode { stalled: false, refusing: false, cut: 0, to_clients: usize::MAX });
        let shared = Arc::new(Shared {
            upstreams: Mutex::new(vec![upstream.into()]),
            recording: Mutex::default(),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            damage: AtomicBool::new(false),
        });
        let accepting = Accepting { address, tls, mode: mode.subscribe(), shared: shared.clone() };
        let listening = tokio::spawn(accepting.run(listener));
        Self { address, mode, shared, listening }
    }

    /// Where to dial, `127.0.0.1:port`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections; new ones are served.
    pub fn cut(&self) {
        self.mode.send_modify(|mode| mode.cut += 1);
    }

    /// While true, connections stay open and accept nothing more: bytes wait in both directions.
    pub fn stall(&self, stalled: bool) {
        self.mode.send_modify(|mode| mode.stalled = stalled);
    }

    /// From now on at most `more` bytes pass to clients, and what comes after waits, until the next
    /// call: a download that hangs in the middle.
    pub fn allow(&self, more: usize) {
        let passed = self.recording().to_client.len();
        self.mode.send_modify(|mode| mode.to_clients = passed.saturating_add(more));
    }

    /// New connections go to another upstream.
    pub fn point_to(&self, upstream: &str) {
        self.balance(&[upstream]);
    }

    /// New connections go to these in turn, past those that refuse, as a balancer has it.
    pub fn balance(&self, upstreams: &[&str]) {
        *lock(&self.shared.upstreams) = upstreams.iter().map(|&upstream| upstream.into()).collect();
    }

    /// Flips one bit of the next bytes to the upstream.
    pub fn damage_next(&self) {
        self.shared.damage.store(true, Ordering::Relaxed);
    }

    /// While true, the port is closed and connecting is refused. Standing connections stay; see
    /// [`cut`](Self::cut).
    pub fn refuse(&self, refusing: bool) {
        self.mode.send_modify(|mode| mode.refusing = refusing);
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Connections that clients hold open now. The upstream may not be done with one that its client has
    /// closed: Docker 20.10 stops a pull at once, but not while it waits for the image's config.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// What passed so far.
    pub fn recording(&self) -> Recording {
        lock(&self.shared.recording).clone()
    }
}

impl Drop for BreakableProxy {
    /// Connections close, too: they watch the mode's sender.
    fn drop(&mut self) {
        self.listening.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A socket that has an address and does not listen yet.
///
/// # Errors
/// Somebody else listens there.
pub fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

struct Accepting {
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    mode: watch::Receiver<Mode>,
    shared: Arc<Shared>,
}

impl Accepting {
    async fn run(mut self, listener: TcpListener) {
        let mut open = Some(listener);
        // Bound and not listening, it refuses, and nobody else gets the port.
        let mut held = None;
        loop {
            if self.mode.borrow_and_update().refusing {
                if open.take().is_some() {
                    held = Some(bound(self.address).expect("the port is still ours"));
                }
            } else if let Some(held) = held.take() {
                open = Some(held.listen(1024).expect("the port is still ours"));
            }
            let Some(listener) = &open else {
                if self.mode.changed().await.is_err() {
                    return;
                }
                continue;
            };
            tokio::select! {
                changed = self.mode.changed() => if changed.is_err() { return },
                accepted = listener.accept() => if let Ok((client, _)) = accepted {
                    self.shared.accepted.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(self.connection(client));
                },
            }
        }
    }

    fn connection(&self, client: TcpStream) -> impl Future<Output = io::Result<()>> + use<> {
        let (mut upstreams, tls) = (lock(&self.shared.upstreams).clone(), self.tls.clone());
        let turn = self.shared.accepted.load(Ordering::Relaxed) % upstreams.len();
        upstreams.rotate_left(turn);
        let (mut mode, shared) = (self.mode.clone(), self.shared.clone());
        async move {
            let born = mode.borrow_and_update().cut;
            let mut cut = mode.clone();
            let held = Held::new(&shared);
            tokio::select! {
                done = relay(client, held, upstreams, tls, mode, shared) => done,
                // Also when the proxy itself is gone.
                _ = cut.wait_for(|mode| mode.cut != born) => Ok(()),
            }
        }
    }
}

/// A connection that its client holds open; counted until this is dropped.
struct Held(Arc<Shared>);

impl Held {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn relay(
    client: TcpStream,
    held: Held,
    upstreams: Vec<String>,
    tls: Option<TlsAcceptor>,
    mode: watch::Receiver<Mode>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let client: Box<dyn Stream> = match tls {
        Some(acceptor) => Box::new(acceptor.accept(client).await?),
        None => Box::new(client),
    };
    let upstream = dial(&upstreams).await?;
    let (from_client, to_client) = split(client);
    let (from_upstream, to_upstream) = split(upstream);
    let up = async {
        let _held = held;
        copy(from_client, to_upstream, mode.clone(), &shared, Direction::Up).await
    };
    let down = copy(from_upstream, to_client, mode.clone(), &shared, Direction::Down);
    tokio::try_join!(up, down).map(|_| ())
}

/// The first of these that takes a connection.
async fn dial(upstreams: &[String]) -> io::Result<Box<dyn Stream>> {
    let mut refused = io::Error::from(io::ErrorKind::NotConnected);
    for upstream in upstreams {
        let dialled: io::Result<Box<dyn Stream>> = if upstream.starts_with('/') {
            UnixStream::connect(upstream).await.map(|stream| Box::new(stream) as _)
        } else {
            TcpStream::connect(upstream).await.and_then(|stream| {
                stream.set_nodelay(true)?;
                Ok(Box::new(stream) as _)
            })
        };
        match dialled {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

async fn copy(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    mut mode: watch::Receiver<Mode>,
    shared: &Shared,
    direction: Direction,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        mode.wait_for(|mode| !mode.stalled).await.map_err(io::Error::other)?;
        let read = from.read(&mut buffer).await?;
        // A stall that began while this side waited holds these bytes back, too.
        mode.wait_for(|mode| !mode.stalled).await.map_err(io::Error::other)?;
        if read == 0 {
            return to.shutdown().await;
        }
        if direction == Direction::Down {
            let passed = || lock(&shared.recording).to_client.len();
            mode.wait_for(|mode| passed() < mode.to_clients).await.map_err(io::Error::other)?;
        } else if shared.damage.swap(false, Ordering::Relaxed) {
            buffer[read - 1] ^= 1;
        }
        {
            let mut recording = lock(&shared.recording);
            let row = match direction {
                Direction::Up => &mut recording.to_upstream,
                Direction::Down => &mut recording.to_client,
            };
            row.extend_from_slice(&buffer[..read]);
        }
        to.write_all(&buffer[..read]).await?;
    }
}
