//! HTTP/1.1 to one endpoint over TCP, TLS or a Unix socket, with kept-alive connections.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// How long one exchange may take unless the caller says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A byte stream of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where a [`Connection`] goes.
#[derive(Clone)]
pub enum Endpoint {
    /// `host:port`, plain.
    Tcp(String),
    /// `host:port`, TLS.
    Tls(String, Arc<ClientConfig>),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// Opens a fresh stream.
    ///
    /// # Errors
    /// Connecting or the TLS handshake failed.
    pub async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Tls(address, config) => {
                let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host).to_owned();
                let name = ServerName::try_from(host).map_err(io::Error::other)?;
                let stream = TcpStream::connect(address).await?;
                Box::new(TlsConnector::from(config.clone()).connect(name, stream).await?)
            }
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    }

    /// The `Host` header for this endpoint.
    pub fn host(&self) -> &str {
        match self {
            Self::Tcp(address) | Self::Tls(address, _) => address,
            Self::Unix(_) => "localhost",
        }
    }
}

type Sender = http1::SendRequest<Full<Bytes>>;

/// A pool of connections to one endpoint; clones share it.
#[derive(Clone)]
pub struct Connection {
    endpoint: Endpoint,
    idle: Arc<Mutex<Vec<Sender>>>,
}

impl Connection {
    /// Nothing is opened before the first request.
    pub fn to(endpoint: Endpoint) -> Self {
        Self { endpoint, idle: Arc::default() }
    }

    /// Where requests go.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends `request` (path and query only) and reads the whole answer.
    ///
    /// # Errors
    /// In words: no connection, a broken one, or no complete answer within [`DEADLINE`].
    pub async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, String> {
        self.exchange_within(DEADLINE, request).await
    }

    /// [`exchange`](Self::exchange) with a deadline of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn exchange_within(
        &self,
        deadline: Duration,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, String> {
        let whole = async {
            let (response, sender) = self.send(request).await?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| format!("the answer broke off: {error:?}"))?;
            self.keep(sender);
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        timeout(deadline, whole).await.unwrap_or_else(|_| Err(format!("no answer within {deadline:?}")))
    }

    /// Sends `request` and gives the answer as soon as its head is there, for streams. The
    /// connection closes when the body is dropped.
    ///
    /// # Errors
    /// In words.
    pub async fn stream(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
        Ok(self.send(request).await?.0)
    }

    async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<(Response<Incoming>, Sender), String> {
        let host = HeaderValue::from_str(self.endpoint.host()).map_err(|error| error.to_string())?;
        request.headers_mut().entry(header::HOST).or_insert(host);
        let mut sender = self.sender().await?;
        let response = sender.send_request(request).await.map_err(|error| format!("broken: {error:?}"))?;
        Ok((response, sender))
    }

    async fn sender(&self) -> Result<Sender, String> {
        while let Some(mut sender) = self.take() {
            if !sender.is_closed() && sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let stream = self.endpoint.connect().await.map_err(|error| format!("no connection: {error}"))?;
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (sender, driver) = shaken.map_err(|error| format!("no connection: {error}"))?;
        tokio::spawn(driver);
        Ok(sender)
    }

    fn take(&self) -> Option<Sender> {
        self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop()
    }

    fn keep(&self, sender: Sender) {
        self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(sender);
    }
}
