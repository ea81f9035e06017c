//! `/agent`: the agents' channel. The upgrade says nothing of who dials; the handshake inside does.
//!
//! Until that is done, a socket takes no more than a handshake needs: the bytes are counted below the
//! WebSocket, which would hold a whole message of a session's size for anybody. A few may send more than anyone, and
//! whoever began with that the longest ago goes for who comes.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{self, StatusCode, header},
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
use crate::{
    domain::server,
    request,
    waiting_room::{Place, WaitingRoom},
};

/// A sealed text: a little more than the text.
const MAX_MESSAGE: usize = MAX_TEXT_BYTES + MAX_TEXT_BYTES / 1024;
/// What one read takes. Every connected host has a buffer of this size, and nearly all are idle.
const READ_BUFFER: usize = 1024;
/// A close frame without a code.
const NO_CODE: u16 = 1005;
/// Those that may send more than anyone before their key is known: what they send is held until it is whole.
static LONG: LazyLock<Arc<WaitingRoom>> = LazyLock::new(|| Arc::new(WaitingRoom::new(LONG_AT_ONCE)));
const LONG_AT_ONCE: usize = 64;
/// How a read fails that displaced it.
const DISPLACED: io::ErrorKind = io::ErrorKind::QuotaExceeded;

pub(super) async fn handle(State(doors): State<Doors>, mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, _) = request.into_parts();
    match create_response(&http::Request::from_parts(parts, ())) {
        Ok(response) => {
            tokio::spawn(request::within(request::current(), serve(doors, upgrade)));
            response.map(|()| Body::empty())
        }
        Err(_) => {
            let to = [
                (header::CONNECTION, "upgrade"),
                (header::UPGRADE, "websocket"),
                (header::SEC_WEBSOCKET_VERSION, "13"),
            ];
            (StatusCode::UPGRADE_REQUIRED, to, "this is the door of purser-agent: a WebSocket")
                .into_response()
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
    let rationed = Rationed { below: TokioIo::new(upgraded), rations: rations.clone() };
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
    /// Its place among the few that may send more.
    long: Mutex<Option<Box<Place>>>,
}

impl Default for Rations {
    fn default() -> Self {
        let (bytes, more) = (AtomicUsize::new(Self::ENDLESS), AtomicUsize::new(0));
        Self(Arc::new(Left { bytes, more, long: Mutex::default() }))
    }
}

impl Rations {
    const ENDLESS: usize = usize::MAX;

    fn set(&self, ration: Ration) {
        let (bytes, more) = match ration {
            Ration::Bytes { bytes, more } => (bytes, more),
            Ration::Endless => (Self::ENDLESS, 0),
        };
        self.set_long(None);
        self.0.more.store(more, Ordering::Relaxed);
        self.0.bytes.store(bytes, Ordering::Relaxed);
    }

    fn set_long(&self, place: Option<Box<Place>>) {
        *self.0.long.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    /// Ready when the place among the few is somebody else's.
    fn poll_displaced(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut long = self.0.long.lock().unwrap_or_else(PoisonError::into_inner);
        long.as_mut().map_or(Poll::Pending, |place| place.poll_displaced(context))
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
}

impl<S> Rationed<S> {
    /// Goes on where the ration is not used up, or more is to be had.
    fn ration(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.rations.left() {
            Rations::ENDLESS => return Ok(()),
            0 => {
                let more = self.rations.more();
                if more == 0 {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                // There is no more after that.
                self.rations.set(Ration::Bytes { bytes: more, more: 0 });
                self.rations.set_long(Some(Box::new(LONG.enter().ok_or(DISPLACED)?)));
            }
            _ => {}
        }
        if self.rations.poll_displaced(context).is_ready() {
            self.rations.set(Ration::Bytes { bytes: 0, more: 0 });
            return Err(DISPLACED.into());
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rationed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.ration(context)?;
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
            Err(Error::Io(error)) if error.kind() == DISPLACED => Incoming::Displaced,
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

    /// A connection on which so much has come already, and which stays open.
    fn sent(bytes: &[u8], ration: Ration) -> Rationed<DuplexStream> {
        let (mut other, below) = duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut other, bytes).now_or_never().unwrap().unwrap();
        std::mem::forget(other);
        let rations = Rations::default();
        rations.set(ration);
        Rationed { below, rations }
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

    /// So many that each have sent what anyone may, and a first part of what few may.
    fn long(so_many: usize) -> Vec<Rationed<DuplexStream>> {
        let ration = Ration::Bytes { bytes: 8, more: 16 };
        let mut connections: Vec<_> = (0..so_many).map(|_| sent(&[7; 16], ration)).collect();
        for connection in &mut connections {
            assert_eq!(read(connection).unwrap().unwrap(), 8);
            assert_eq!(read(connection).unwrap().unwrap(), 8);
        }
        connections
    }

    #[test]
    fn who_sends_more_than_anyone_may_goes_for_who_comes_where_they_are_too_many() {
        let mut strangers = long(LONG_AT_ONCE);
        assert!(strangers.iter_mut().all(|stranger| read(stranger).is_none()), "each has a place");
        let mut agent = long(1).remove(0);
        assert!(read(&mut agent).is_none(), "it has a place");
        assert_eq!(read(&mut strangers[0]).unwrap().unwrap_err().kind(), DISPLACED);
        assert!(strangers[1..].iter_mut().all(|stranger| read(stranger).is_none()));
    }

    #[test]
    fn who_has_said_all_gives_its_place_back_before_it_is_known() {
        let mut connections = long(LONG_AT_ONCE);
        connections[1].rations.set(Ration::Bytes { bytes: 0, more: 0 });
        let next = long(1);
        assert!(read(&mut connections[0]).is_none(), "nobody had to go");
        drop(next);
        drop(connections);
        let mut more = long(LONG_AT_ONCE);
        assert!(more.iter_mut().all(|connection| read(connection).is_none()));
    }

    #[test]
    fn what_few_may_send_has_an_end() {
        let mut connection = sent(&[7; 32], Ration::Bytes { bytes: 8, more: 8 });
        assert_eq!(read(&mut connection).unwrap().unwrap(), 8);
        assert_eq!(read(&mut connection).unwrap().unwrap(), 8);
        assert_eq!(read(&mut connection).unwrap().unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        connection.rations.set(Ration::Endless);
        assert_eq!(read(&mut connection).unwrap().unwrap(), 8);
    }
}
