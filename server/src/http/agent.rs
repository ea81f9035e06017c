//! `/agent`: the agents' channel. The upgrade says nothing of who dials; the handshake inside does.
//!
//! Until that is done, a socket takes no more than a handshake needs: the bytes are counted below the
//! WebSocket, which would hold a whole message of a session's size for anybody.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{self, StatusCode},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use purser_proto_schema::agent::{
    MAX_TEXT_BYTES,
    close::CloseCode,
    wire::{Incoming, WireError, WireReader, WireWriter},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        handshake::server::create_response,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

use super::Doors;
use crate::{domain::server, request};

/// A sealed text: a little more than the text.
const MAX_MESSAGE: usize = MAX_TEXT_BYTES + MAX_TEXT_BYTES / 1024;
/// What one read takes. Every connected host has a buffer of this size, and nearly all are idle.
const READ_BUFFER: usize = 1024;
/// A close frame without a code.
const NO_CODE: u16 = 1005;

pub(super) async fn handle(State(doors): State<Doors>, mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, _) = request.into_parts();
    match create_response(&http::Request::from_parts(parts, ())) {
        Ok(response) => {
            tokio::spawn(request::within(request::current(), serve(doors, upgrade)));
            response.map(|()| Body::empty())
        }
        Err(_) => {
            (StatusCode::UPGRADE_REQUIRED, "this is the door of purser-agent: a WebSocket").into_response()
        }
    }
}

async fn serve(doors: Doors, upgrade: OnUpgrade) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            tracing::debug!(%error, "an agent's upgrade failed");
            return;
        }
    };
    let ration = Ration::default();
    let rationed = Rationed { below: TokioIo::new(upgraded), ration: ration.clone() };
    let socket = WebSocketStream::from_raw_socket(rationed, Role::Server, Some(limits())).await;
    let (writer, reader) = socket.split();
    server::serve_agent(&doors.app, Reader { socket: reader, ration }, Writer(writer)).await;
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(READ_BUFFER)
        .max_write_buffer_size(2 * MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// How many bytes may still come; shared between who counts and who decides.
#[derive(Clone)]
struct Ration(Arc<AtomicUsize>);

impl Default for Ration {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(Self::ENDLESS)))
    }
}

impl Ration {
    const ENDLESS: usize = usize::MAX;

    fn set(&self, bytes: Option<usize>) {
        self.0.store(bytes.unwrap_or(Self::ENDLESS), Ordering::Relaxed);
    }

    fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Only the one reader takes, so nothing comes between.
    fn take(&self, bytes: usize) {
        let left = self.left();
        if left != Self::ENDLESS {
            self.0.store(left.saturating_sub(bytes), Ordering::Relaxed);
        }
    }
}

/// A connection that gives no more than its ration, and what one read took beyond.
struct Rationed {
    below: TokioIo<Upgraded>,
    ration: Ration,
}

impl AsyncRead for Rationed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ration.left() == 0 {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.below).poll_read(context, buffer))?;
        self.ration.take(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rationed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.below).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.below).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.below).poll_shutdown(context)
    }
}

struct Reader {
    socket: SplitStream<WebSocketStream<Rationed>>,
    ration: Ration,
}

impl WireReader for Reader {
    async fn next(&mut self) -> Option<Result<Incoming, WireError>> {
        Some(Ok(match self.socket.next().await? {
            Ok(Message::Binary(message)) => Incoming::Binary(message),
            Ok(Message::Ping(_) | Message::Pong(_)) => Incoming::Liveness,
            Ok(Message::Close(frame)) => {
                let frame = frame.map(|frame| (frame.code.into(), frame.reason.as_str().to_owned()));
                let (code, reason) = frame.unwrap_or((NO_CODE, String::new()));
                Incoming::Closed { code, reason }
            }
            Ok(Message::Text(_) | Message::Frame(_)) => Incoming::Unexpected,
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => return None,
            Err(Error::Capacity(_)) => Incoming::TooLong,
            Err(_) if self.ration.left() == 0 => Incoming::TooLong,
            Err(error) => return Some(Err(WireError(Box::new(error)))),
        }))
    }

    fn ration(&mut self, bytes: Option<usize>) {
        self.ration.set(bytes);
    }
}

struct Writer(SplitSink<WebSocketStream<Rationed>, Message>);

impl Writer {
    async fn put(&mut self, message: Message) -> Result<(), WireError> {
        self.0.send(message).await.map_err(|error| WireError(Box::new(error)))
    }
}

impl WireWriter for Writer {
    async fn send(&mut self, message: Bytes) -> Result<(), WireError> {
        self.put(Message::Binary(message)).await
    }

    async fn ping(&mut self) -> Result<(), WireError> {
        self.put(Message::Ping(Bytes::new())).await
    }

    async fn close(&mut self, code: CloseCode) -> Result<(), WireError> {
        let frame = CloseFrame { code: code.number().into(), reason: code.reason().into() };
        self.put(Message::Close(Some(frame))).await
    }
}
