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
    wire::{Incoming, Ration, WireError, WireReader, WireWriter},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{AcquireError, Semaphore, SemaphorePermit},
};
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
/// Those that may send more than anyone before their key is known: what they send is held until then.
static LONG: Semaphore = Semaphore::const_new(LONG_AT_ONCE);
const LONG_AT_ONCE: usize = 64;

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
    let rations = Rations::default();
    let rationed = Rationed { below: TokioIo::new(upgraded), rations: rations.clone(), long: None };
    let socket = WebSocketStream::from_raw_socket(rationed, Role::Server, Some(limits())).await;
    let (writer, reader) = socket.split();
    server::serve_agent(&doors.app, Reader { socket: reader, rations }, Writer(writer)).await;
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(READ_BUFFER)
        .max_write_buffer_size(2 * MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// How much may still come; shared between who counts and who decides.
#[derive(Clone)]
struct Rations(Arc<Left>);

struct Left {
    bytes: AtomicUsize,
    more: AtomicUsize,
}

impl Default for Rations {
    fn default() -> Self {
        Self(Arc::new(Left { bytes: AtomicUsize::new(Self::ENDLESS), more: AtomicUsize::new(0) }))
    }
}

impl Rations {
    const ENDLESS: usize = usize::MAX;

    fn set(&self, ration: Ration) {
        let (bytes, more) = match ration {
            Ration::Bytes { bytes, more } => (bytes, more),
            Ration::Endless => (Self::ENDLESS, 0),
        };
        self.0.more.store(more, Ordering::Relaxed);
        self.0.bytes.store(bytes, Ordering::Relaxed);
    }

    fn left(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    fn more(&self) -> usize {
        self.0.more.load(Ordering::Relaxed)
    }

    /// Only the one reader takes, so nothing comes between.
    fn take(&self, bytes: usize) {
        let left = self.left();
        if left != Self::ENDLESS {
            self.0.bytes.store(left.saturating_sub(bytes), Ordering::Relaxed);
        }
    }
}

/// A connection that gives no more than its ration, and what one read took beyond.
struct Rationed<S> {
    below: S,
    rations: Rations,
    long: Option<Long>,
}

type Permit = Result<SemaphorePermit<'static>, AcquireError>;

/// Who sends more than anyone may.
enum Long {
    Waits(Pin<Box<dyn Future<Output = Permit> + Send>>),
    /// One of few, until its ration is endless.
    May {
        _permit: SemaphorePermit<'static>,
    },
}

impl<S> Rationed<S> {
    /// Goes on where the ration is not used up, or more is to be had.
    fn poll_ration(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.rations.left() {
            Rations::ENDLESS => self.long = None,
            0 => {
                let more = self.rations.more();
                if more == 0 {
                    return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
                }
                let long = self.long.get_or_insert_with(|| Long::Waits(Box::pin(LONG.acquire())));
                if let Long::Waits(turn) = long {
                    let permit = ready!(turn.as_mut().poll(context)).map_err(io::Error::other)?;
                    *long = Long::May { _permit: permit };
                }
                // There is no more after that.
                self.rations.set(Ration::Bytes { bytes: more, more: 0 });
            }
            _ => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rationed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_ration(context))?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.below).poll_read(context, buffer))?;
        self.rations.take(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rationed<S> {
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

type Socket = WebSocketStream<Rationed<TokioIo<Upgraded>>>;

struct Reader {
    socket: SplitStream<Socket>,
    rations: Rations,
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
            Err(_) if self.rations.left() == 0 => Incoming::TooLong,
            Err(error) => return Some(Err(WireError(Box::new(error)))),
        }))
    }

    fn ration(&mut self, ration: Ration) {
        self.rations.set(ration);
    }
}

struct Writer(SplitSink<Socket, Message>);

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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};

    use super::*;

    /// A connection on which so much has come already.
    fn sent(bytes: &[u8], ration: Ration) -> Rationed<DuplexStream> {
        let (mut other, below) = duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut other, bytes).now_or_never().unwrap().unwrap();
        let rations = Rations::default();
        rations.set(ration);
        Rationed { below, rations, long: None }
    }

    /// What is read of it at once: nothing while it waits.
    fn read(from: &mut Rationed<DuplexStream>) -> Option<io::Result<usize>> {
        from.read(&mut [0; 8]).now_or_never()
    }

    #[test]
    fn beyond_its_ration_nothing_is_read() {
        let mut connection = sent(&[7; 32], Ration::Bytes { bytes: 10, more: 0 });
        assert_eq!(read(&mut connection).unwrap().unwrap(), 8);
        assert_eq!(read(&mut connection).unwrap().unwrap(), 8, "what one read takes beyond");
        assert_eq!(read(&mut connection).unwrap().unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        connection.rations.set(Ration::Endless);
        assert_eq!(read(&mut connection).unwrap().unwrap(), 8);
    }

    #[test]
    fn who_sends_more_than_anyone_may_is_one_of_few_or_waits() {
        let ration = Ration::Bytes { bytes: 8, more: 8 };
        let mut connections: Vec<_> = (0..=LONG_AT_ONCE).map(|_| sent(&[7; 32], ration)).collect();
        for connection in &mut connections {
            assert_eq!(read(connection).unwrap().unwrap(), 8);
        }
        let (last, first) = connections.split_last_mut().unwrap();
        for connection in first.iter_mut() {
            assert_eq!(read(connection).unwrap().unwrap(), 8);
        }
        assert!(read(last).is_none(), "it waits");
        assert!(read(&mut first[0]).unwrap().is_err(), "more is not endless");
        first[1].rations.set(Ration::Endless);
        assert_eq!(read(&mut first[1]).unwrap().unwrap(), 8);
        assert_eq!(read(last).unwrap().unwrap(), 8, "a place was given back");
    }
}
