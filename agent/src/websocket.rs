//! The WebSocket below the sealed channel, by tokio-tungstenite over an own dial.
//!
//! TLS guards the metadata; what the agent relies on is the pinned key inside, see [`Trust`]. It may know nothing of what travels above: no key, no call, no target.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use purser_proto_schema::agent::{
    MAX_TEXT_BYTES,
    close::CloseCode,
    wire::{Incoming, WireError, WireReader, WireWriter},
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use crate::{
    certificate,
    config::{ServerUrl, Trust},
    error::AgentError,
};

/// From the name to the open WebSocket: a server whose whole fleet dials at once gets to each in turn.
const DIAL_DEADLINE: Duration = Duration::from_secs(30);
/// For one address of several.
const CONNECT_DEADLINE: Duration = Duration::from_secs(8);
/// A sealed text is a little longer than the text.
const MAX_MESSAGE_BYTES: usize = MAX_TEXT_BYTES + MAX_TEXT_BYTES / 512;
/// A close frame without a code.
const NO_CODE: u16 = 1005;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
type Socket = WebSocketStream<Box<dyn Stream>>;

/// Dials the server.
pub(crate) struct Dialler {
    server: ServerUrl,
    tls: Option<TlsConnector>,
}

impl Dialler {
    /// Prepares TLS where the server's URL asks for it.
    ///
    /// # Errors
    /// [`AgentError::CaFile`] when the authorities cannot be loaded, or there is no TLS for them.
    pub(crate) fn new(server: ServerUrl, trust: &Trust) -> Result<Self, AgentError> {
        let tls = match trust {
            _ if server.tls => Some(certificate::client(trust)?.into()),
            Trust::File(path) => {
                let source = "the server's address (--server) does not begin with https://".into();
                return Err(AgentError::CaFile { path: path.clone(), source });
            }
            Trust::System | Trust::Pinned => None,
        };
        Ok(Self { server, tls })
    }

    /// The server's address, for logs.
    pub(crate) fn server(&self) -> &ServerUrl {
        &self.server
    }

    /// Opens a WebSocket to the server, within 30 s.
    ///
    /// # Errors
    /// [`AgentError::Connect`], [`AgentError::Tls`], [`AgentError::WebSocket`] or [`AgentError::Timeout`].
    pub(crate) async fn dial(&self) -> Result<(Reader, Writer), AgentError> {
        timeout(DIAL_DEADLINE, self.open()).await.map_err(|_| AgentError::Timeout("dialling"))?
    }

    async fn open(&self) -> Result<(Reader, Writer), AgentError> {
        let tcp = self.connect().await.map_err(AgentError::Connect)?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let name = ServerName::try_from(self.server.host.clone())
                    .map_err(|error| AgentError::Tls(Box::new(error)))?;
                Box::new(tls.connect(name, tcp).await.map_err(|error| AgentError::Tls(Box::new(error)))?)
            }
        };
        let (socket, _) = client_async_with_config(&self.server.channel, stream, Some(limits()))
            .await
            .map_err(|error| AgentError::WebSocket(Box::new(error)))?;
        Ok(halves(socket))
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup_host((self.server.host.as_str(), self.server.port)).await? {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_keepalive(true)?;
            socket.set_nodelay(true)?;
            match timeout(CONNECT_DEADLINE, socket.connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(16 * 1024)
        .max_write_buffer_size(2 * MAX_MESSAGE_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}

fn halves(socket: Socket) -> (Reader, Writer) {
    let (sink, stream) = socket.split();
    (Reader(stream), Writer(sink))
}

/// What the server sends. Pings are answered below.
pub(crate) struct Reader(SplitStream<Socket>);

impl WireReader for Reader {
    async fn next(&mut self) -> Option<Result<Incoming, WireError>> {
        let incoming = match self.0.next().await? {
            Ok(Message::Binary(message)) => Incoming::Binary(message),
            Ok(Message::Ping(_) | Message::Pong(_)) => Incoming::Liveness,
            Ok(Message::Close(frame)) => {
                let (code, reason) = frame.map_or((NO_CODE, String::new()), |frame| {
                    (frame.code.into(), frame.reason.as_str().to_owned())
                });
                Incoming::Closed { code, reason }
            }
            Ok(Message::Text(_) | Message::Frame(_)) => Incoming::Unexpected,
            Err(Error::Capacity(_)) => Incoming::TooLong,
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => return None,
            Err(error) => return Some(Err(WireError(Box::new(error)))),
        };
        Some(Ok(incoming))
    }
}

/// What goes to the server.
pub(crate) struct Writer(SplitSink<Socket, Message>);

impl Writer {
    async fn write(&mut self, message: Message) -> Result<(), WireError> {
        self.0.send(message).await.map_err(|error| WireError(Box::new(error)))
    }
}

impl WireWriter for Writer {
    async fn send(&mut self, message: Bytes) -> Result<(), WireError> {
        self.write(Message::Binary(message)).await
    }

    async fn ping(&mut self) -> Result<(), WireError> {
        self.write(Message::Ping(Bytes::new())).await
    }

    async fn close(&mut self, code: CloseCode) -> Result<(), WireError> {
        let frame = CloseFrame { code: code.number().into(), reason: code.reason().into() };
        self.write(Message::Close(Some(frame))).await
    }
}

#[cfg(test)]
pub(crate) async fn accept(stream: TcpStream) -> (Reader, Writer) {
    let stream: Box<dyn Stream> = Box::new(stream);
    halves(tokio_tungstenite::accept_async(stream).await.unwrap())
}
