//! The little that the channel asks of a WebSocket, so that it can run over the server's and the
//! agent's implementations alike.

use std::future::Future;

use bytes::Bytes;

use super::close::CloseCode;

/// What arrives.
#[derive(Debug)]
pub enum Incoming {
    /// A binary message.
    Binary(Bytes),
    /// A ping or a pong: a sign of life. The implementation answers pings by itself.
    Liveness,
    /// The other side closed, with its code and reason; 1005 where it gave none.
    Closed {
        /// See [`CloseCode`].
        code: u16,
        /// For people.
        reason: String,
    },
    /// A message over the limit.
    TooLong,
    /// Others need the room for what this one was sending: see [`Ration`].
    Displaced,
    /// Something that the channel does not know, such as a text message.
    Unexpected,
}

/// What can break below the channel.
#[derive(Debug, thiserror::Error)]
#[error("the WebSocket broke")]
pub struct WireError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// How much may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ration {
    /// So many bytes.
    Bytes {
        /// From anyone.
        bytes: usize,
        /// After these, from few at once: where they are too many, the first of them has to go, and then comes
        /// [`Incoming::Displaced`].
        more: usize,
    },
    /// Whatever is sent.
    Endless,
}

/// The receiving half of a WebSocket.
pub trait WireReader: Send + 'static {
    /// The next message; `None` at the end of the stream. Must be safe to cancel.
    fn next(&mut self) -> impl Future<Output = Option<Result<Incoming, WireError>>> + Send;

    /// From now until the next call at most so much is taken from the other side, then comes
    /// [`Incoming::TooLong`]. How little strangers may make a server hold; who dials need not care.
    fn ration(&mut self, _ration: Ration) {}
}

/// The sending half of a WebSocket.
pub trait WireWriter: Send + 'static {
    /// Sends and flushes a binary message.
    fn send(&mut self, message: Bytes) -> impl Future<Output = Result<(), WireError>> + Send;
    /// Sends and flushes a ping.
    fn ping(&mut self) -> impl Future<Output = Result<(), WireError>> + Send;
    /// Closes, saying why.
    fn close(&mut self, code: CloseCode) -> impl Future<Output = Result<(), WireError>> + Send;
}
