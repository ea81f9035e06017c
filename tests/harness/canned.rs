//! An HTTP server with one answer for everything, which remembers what it was asked: something that
//! is no registry, or a hostile one.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The first byte of a TLS handshake, to which this server says in plain that it does not speak it.
const HANDSHAKE: u8 = 0x16;
/// More than any request of these tests.
const MAX_REQUEST: usize = 64 * 1024;

/// The server; gone when dropped.
pub struct Canned {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    listening: JoinHandle<()>,
}

impl Canned {
    /// Answers everything with `status` (`200 OK`), `headers` (each ended by CRLF) and `body`.
    ///
    /// # Panics
    /// No loopback port is free.
    pub async fn start(status: &str, headers: &str, body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free loopback port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}",
            body.len()
        );
        let seen = requests.clone();
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, answer.clone(), seen.clone()));
            }
        });
        Self { address, requests, listening }
    }

    /// A registry that sends everyone to the token server at `realm`.
    pub async fn with_realm(realm: &str) -> Self {
        let challenge = format!(
            "WWW-Authenticate: Bearer realm=\"{realm}\",service=\"registry\"\r\n\
             Docker-Distribution-Api-Version: registry/2.0\r\n"
        );
        Self::start("401 Unauthorized", &challenge, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#).await
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The head of each request so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

impl Drop for Canned {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn serve(mut client: TcpStream, answer: String, seen: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    let whole = |request: &[u8]| {
        request.first() == Some(&HANDSHAKE) || request.windows(4).any(|end| end == b"\r\n\r\n")
    };
    while !whole(&request) && request.len() < MAX_REQUEST {
        match client.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => request.extend_from_slice(&buffer[..read]),
        }
    }
    if request.is_empty() {
        return;
    }
    let head = String::from_utf8_lossy(&request).into_owned();
    seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(head);
    let _ = client.write_all(answer.as_bytes()).await;
    let _ = client.shutdown().await;
}
