//! One HTTP/1.1 connection to one judged place, with a bound on everything that comes back.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::address::{Authority, Host};
use crate::diagnosis::{Diagnosis, DiagnosisCode as Code};
use crate::dial;
use crate::tls::diagnose_handshake;

/// The most that is read of an answer's body unless said otherwise, in bytes.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;
/// The most that an answer's head may hold, in bytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// The most header fields in an answer.
const MAX_HEADERS: usize = 100;

/// How bytes get there.
#[derive(Clone)]
pub(crate) enum Transport {
    Plain,
    Tls(Arc<ClientConfig>),
}

/// A place that was resolved and judged, and may be dialled again without asking anew.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// As it goes into the `Host` header: with the port that was written.
    pub(crate) authority: Authority,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) transport: Transport,
}

impl Endpoint {
    /// The TCP part.
    pub(crate) async fn connect(&self) -> Result<TcpStream, Diagnosis> {
        dial::connect(&self.authority.host, &self.addresses).await
    }

    /// The TLS part (nothing, where it is plain), and HTTP on top; says which TLS it became.
    pub(crate) async fn secure(&self, stream: TcpStream) -> Result<(Connection, &'static str), Diagnosis> {
        let Transport::Tls(config) = &self.transport else {
            return Ok((Connection::over(stream, &self.authority).await?, "plain HTTP"));
        };
        let name = match &self.authority.host {
            Host::Ip(ip) => ServerName::from(*ip),
            Host::Name(name) => ServerName::try_from(name.clone())
                .map_err(|_| Diagnosis::new(Code::TlsName, "the host can't be named in TLS", ""))?,
        };
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name, stream)
            .await
            .map_err(|error| diagnose_handshake(&self.authority.to_string(), &error))?;
        let version = match stream.get_ref().1.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
            _ => "TLS 1.2",
        };
        Ok((Connection::over(stream, &self.authority).await?, version))
    }

    /// All of it.
    pub(crate) async fn open(&self) -> Result<Connection, Diagnosis> {
        Ok(self.secure(self.connect().await?).await?.0)
    }
}

/// What to ask.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) accept: &'static str,
    /// Marked sensitive, so that nothing prints it.
    pub(crate) authorization: Option<HeaderValue>,
    /// The most that is read of the answer's body, in bytes.
    pub(crate) max_body: usize,
}

impl Ask {
    /// `GET`, of JSON, without authorization.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            accept: "application/json",
            authorization: None,
            max_body: MAX_BODY_BYTES,
        }
    }

    pub(crate) fn authorized(mut self, authorization: Option<HeaderValue>) -> Self {
        self.authorization = authorization;
        self
    }
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// At most as much as was asked for.
    pub(crate) body: Vec<u8>,
    /// There was more of it.
    pub(crate) truncated: bool,
}

/// An open connection; closed when dropped.
pub(crate) struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    driver: Driver,
}

/// Moves a connection's bytes while it is polled. None once the connection has ended.
type Driver = Option<Pin<Box<dyn Future<Output = ()> + Send>>>;

/// Does work over a connection and moves its bytes meanwhile: in the same task, so that neither waits for the other to
/// be woken on another thread, which takes longer than a registry's answer.
async fn drive<T>(driver: &mut Driver, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Some(moving) = driver {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = moving => {}
        }
    }
    *driver = None;
    work.await
}

impl Connection {
    async fn over<S>(stream: S, authority: &Authority) -> Result<Self, Diagnosis>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        TokioIo<S>: Read + Write,
    {
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| diagnose_http(authority, &error))?;
        let driver = async move {
            // How it ended is told to whoever waits for an answer.
            let _ = connection.await;
        };
        Ok(Self { sender, driver: Some(Box::pin(driver)) })
    }
}

/// Asks one place, over one connection as long as it lasts.
pub(crate) struct Channel {
    pub(crate) endpoint: Endpoint,
    user_agent: HeaderValue,
    connection: Option<Connection>,
}

impl Channel {
    /// `connection` may be one that is already open.
    pub(crate) fn new(endpoint: Endpoint, user_agent: HeaderValue, connection: Option<Connection>) -> Self {
        Self { endpoint, user_agent, connection }
    }

    /// Asks and reads the whole answer. Redirects are answers like others and never followed. A kept connection that
    /// turns out to have been closed meanwhile is opened again, once, to the same judged addresses.
    pub(crate) async fn ask(&mut self, ask: &Ask) -> Result<Answer, Diagnosis> {
        if let Some(kept) = self.connection.take() {
            // Nothing that is asked here does harm when asked twice.
            if let Ok(answer) = self.ask_over(kept, ask).await? {
                return Ok(answer);
            }
        }
        let fresh = self.endpoint.open().await?;
        self.ask_over(fresh, ask).await?.map_err(|error| diagnose_http(&self.endpoint.authority, &error))
    }

    /// The inner error is one of the connection, which another connection may not have.
    async fn ask_over(
        &mut self,
        mut connection: Connection,
        ask: &Ask,
    ) -> Result<Result<Answer, hyper::Error>, Diagnosis> {
        let request = self.request(ask)?;
        let Connection { sender, driver } = &mut connection;
        let authority = &self.endpoint.authority;
        let answered = drive(driver, async {
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            if response.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
                return Ok(None);
            }
            read(response, ask.max_body).await.map(Some)
        });
        let answer = match answered.await {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                return Err(Diagnosis::new(
                    Code::NotARegistry,
                    format!("{authority} answered with a compressed body that wasn't asked for"),
                    "Look at the proxy in front of the registry.",
                ));
            }
            // It answered, only not in HTTP; another connection won't change that.
            Err(error) if is_no_http(&error) => return Err(diagnose_http(authority, &error)),
            Err(error) => return Ok(Err(error)),
        };
        if !answer.truncated {
            self.connection = Some(connection);
        }
        Ok(Ok(answer))
    }

    fn request(&self, ask: &Ask) -> Result<Request<Empty<Bytes>>, Diagnosis> {
        let mut request = Request::builder()
            .method(&ask.method)
            .uri(&ask.path)
            .header(HOST, self.endpoint.authority.to_string())
            .header(USER_AGENT, &self.user_agent)
            .header(ACCEPT, ask.accept);
        if ask.method == Method::POST {
            request = request.header(CONTENT_LENGTH, 0);
        }
        if let Some(authorization) = &ask.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request
            .body(Empty::new())
            .map_err(|_| Diagnosis::new(Code::Other, "the request couldn't be built", ""))
    }
}

/// Reads a body up to the bound. When there was more, the connection can't be used again.
async fn read(response: Response<Incoming>, max_body: usize) -> Result<Answer, hyper::Error> {
    let (head, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    let mut truncated = false;
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = max_body - body.len();
        body.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            truncated = true;
            break;
        }
    }
    Ok(Answer { status: head.status, headers: head.headers, body, truncated })
}

/// Whether what came isn't HTTP, in head or body. hyper says of chunks that are none, of endless extensions and trailers
/// only that they are invalid input.
fn is_no_http(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    error.is_parse()
        || source.is_some_and(|source| {
            matches!(source.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
        })
}

fn diagnose_http(authority: &Authority, error: &hyper::Error) -> Diagnosis {
    if is_no_http(error) {
        Diagnosis::new(
            Code::NotARegistry,
            format!("{authority} answered with something that isn't HTTP, or with oversized headers"),
            "Check host and port; a port that speaks TLS needs https://.",
        )
    } else {
        Diagnosis::new(
            Code::Connect,
            format!("{authority} cut the connection"),
            "Try again; if it keeps happening, look at the proxies on the way.",
        )
    }
}
