//! A registry that means harm, or is merely broken: told one behaviour, it does that to whoever asks, and
//! remembers every byte that it was sent. It never knows a secret: a test looks for its own in
//! [`Hostile::received`].

mod reply;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

pub use reply::{Reply, answer, basic, bearer, json, token};

use crate::certificate::Issued;

/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;
/// More than any request that a client should send; a token of 1 MB fits.
const MAX_HEAD: usize = 2 * 1024 * 1024;
/// How long an endless reply goes on if nobody hangs up: longer than any verdict may take.
const ENDLESS: Duration = Duration::from_secs(60);

/// What stands before HTTP.
#[derive(Clone)]
pub enum Front {
    /// Nothing: to a TLS handshake it says in plain HTTP that it is none.
    Plain,
    /// TLS with this certificate.
    Tls(Issued),
    /// Takes the connection and hangs up.
    Closes,
    /// Takes the connection, reads, and never says a word.
    Silent,
    /// Begins to answer the handshake, a byte a second, and never ends.
    TlsWithoutEnd,
    /// Says this before it was asked anything, and hangs up.
    Says(Vec<u8>),
}

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET`, `HEAD`, `POST`, …
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The value of `Authorization`, for behaviours that repeat it.
    pub authorization: Option<String>,
    /// The value of `Host`.
    pub host: String,
    /// How many requests came before this one, on any connection.
    pub before: usize,
    /// Where it was asked.
    pub address: SocketAddr,
}

impl Asked {
    /// Whether it came with `Authorization`.
    pub fn authorized(&self) -> bool {
        self.authorization.is_some()
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// What a registry does.
pub type Script = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// The registry; gone when dropped, with all of its connections.
pub struct Hostile {
    address: SocketAddr,
    seen: Arc<Seen>,
    listening: JoinHandle<()>,
}

/// What came in and went out.
#[derive(Default)]
struct Seen {
    bytes: Mutex<Vec<u8>>,
    requests: Mutex<Vec<Asked>>,
    count: AtomicUsize,
    connections: AtomicUsize,
    written: AtomicU64,
}

impl Hostile {
    /// On 127.0.0.1, in plain HTTP.
    pub async fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::behind(Front::Plain, Arc::new(script)).await
    }

    /// On 127.0.0.1, behind a front.
    pub async fn behind(front: Front, script: Script) -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into(), front, script).await
    }

    /// On any address of this machine.
    ///
    /// # Panics
    /// It has no such address, or no port is free.
    pub async fn at(ip: IpAddr, front: Front, script: Script) -> Self {
        Self::on(SocketAddr::new(ip, 0), front, script).await
    }

    /// On any address and port of this machine.
    ///
    /// # Panics
    /// It has no such address, or the port is taken.
    pub async fn on(place: SocketAddr, front: Front, script: Script) -> Self {
        let listener = TcpListener::bind(place).await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let seen = Arc::<Seen>::default();
        let registry = Registry { address, front, script, seen: seen.clone() };
        let listening = tokio::spawn(async move {
            // Dropped with the listener, and the connections with it.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                registry.seen.connections.fetch_add(1, Ordering::Relaxed);
                connections.spawn(registry.clone().meet(stream));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, seen, listening }
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `localhost:port`: the same place under another name.
    pub fn as_localhost(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// Every byte that it was sent so far (behind TLS: what was in it), including whatever is no HTTP.
    pub fn received(&self) -> Vec<u8> {
        self.seen.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Asked> {
        self.seen.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many of them came with `Authorization`.
    pub fn authorized(&self) -> usize {
        self.requests().iter().filter(|asked| asked.authorized()).count()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// How many bytes were taken off its hands, the buffers of the network among them.
    pub fn written(&self) -> u64 {
        self.seen.written.load(Ordering::Relaxed)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

#[derive(Clone)]
struct Registry {
    address: SocketAddr,
    front: Front,
    script: Script,
    seen: Arc<Seen>,
}

impl Registry {
    async fn meet(self, mut stream: TcpStream) {
        match &self.front {
            Front::Closes => {}
            Front::Silent => while self.read(&mut stream).await.is_some() {},
            Front::Says(text) => {
                let _ = stream.write_all(text).await;
                let _ = stream.shutdown().await;
                self.read(&mut stream).await;
            }
            Front::TlsWithoutEnd => {
                self.read(&mut stream).await;
                // A ServerHello of 16 KiB, of which a byte comes each second.
                let begun = stream.write_all(&[HANDSHAKE, 3, 3, 0x40, 0, 2, 0, 0x3f, 0xfc, 3, 3]).await;
                while begun.is_ok() && stream.write_all(&[0]).await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Front::Plain => self.converse(stream).await,
            Front::Tls(issued) => {
                if let Ok(stream) = TlsAcceptor::from(issued.server_config()).accept(stream).await {
                    self.converse(stream).await;
                }
            }
        }
    }

    /// `None` at the end.
    async fn read(&self, stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 16 * 1024];
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        buffer.truncate(read);
        self.seen.bytes.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer);
        Some(buffer)
    }

    async fn converse(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut input = Vec::new();
        loop {
            let head = loop {
                if input.first() == Some(&HANDSHAKE) {
                    let refusal = answer("400 Bad Request", "Connection: close\r\n", "");
                    let _ = self.write(&mut stream, &refusal).await;
                    return;
                }
                if let Some(end) = input.windows(4).position(|end| end == b"\r\n\r\n") {
                    break input.drain(..end + 4).collect::<Vec<_>>();
                }
                match self.read(&mut stream).await {
                    Some(more) if input.len() < MAX_HEAD => input.extend(more),
                    _ => return,
                }
            };
            let asked = self.understand(&head);
            self.seen.requests.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
            let (text, then) = (self.script)(&asked).into_parts();
            if self.write(&mut stream, &text).await.is_none() {
                return;
            }
            match then {
                reply::Then::Next => {}
                reply::Then::Close => {
                    let _ = stream.shutdown().await;
                    return;
                }
                reply::Then::Silence => {
                    tokio::time::sleep(ENDLESS).await;
                    return;
                }
                reply::Then::Endless(piece, pause) => {
                    let endless = async {
                        while self.write(&mut stream, &piece).await.is_some() {
                            tokio::time::sleep(pause).await;
                        }
                    };
                    let _ = tokio::time::timeout(ENDLESS, endless).await;
                    return;
                }
            }
        }
    }

    async fn write(&self, stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Option<()> {
        for piece in bytes.chunks(64 * 1024) {
            stream.write_all(piece).await.ok()?;
            stream.flush().await.ok()?;
            self.seen.written.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        Some(())
    }

    fn understand(&self, head: &[u8]) -> Asked {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let fields: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
        let field = |name: &str| {
            let found = fields.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
            found.map(|(_, value)| (*value).to_owned())
        };
        Asked {
            method,
            target,
            authorization: field("authorization"),
            host: field("host").unwrap_or_default(),
            before: self.seen.count.fetch_add(1, Ordering::Relaxed),
            address: self.address,
        }
    }
}
