//! The little that the channel asks of a WebSocket, so that it can run over the server's and the
//! agent's implementations alike.

use std::future::Future;

use bytes::Bytes;

/// What arrives.
#[derive(Debug)]
pub enum Incoming {
    /// A binary message.
    Binary(Bytes),
    /// A ping or a pong: a sign of life. The implementation answers pings by itself.
    Liveness,
    /// The other side closed, with its reason.
    Closed(String),
    /// Something that the channel does not know, such as a text message.
    Unexpected,
}

/// What can break below the channel.
#[derive(Debug, thiserror::Error)]
#[error("the WebSocket broke")]
pub struct WireError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// The receiving half of a WebSocket.
pub trait WireReader: Send + 'static {
    /// The next message; `None` at the end of the stream. Must be safe to cancel.
    fn next(&mut self) -> impl Future<Output = Option<Result<Incoming, WireError>>> + Send;
}

/// The sending half of a WebSocket.
pub trait WireWriter: Send + 'static {
    /// Sends and flushes a binary message.
    fn send(&mut self, message: Bytes) -> impl Future<Output = Result<(), WireError>> + Send;
    /// Sends and flushes a ping.
    fn ping(&mut self) -> impl Future<Output = Result<(), WireError>> + Send;
    /// Closes, saying why. The reason is cut to what a close frame takes (123 bytes).
    fn close(&mut self, reason: &str) -> impl Future<Output = Result<(), WireError>> + Send;
}
