//! `/agent`: the agents' channel. The upgrade says nothing of who dials; the handshake inside does.

use axum::{
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code},
    },
    response::Response,
};
use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use purser_proto_schema::agent::{
    MAX_TEXT_BYTES,
    wire::{Incoming, WireError, WireReader, WireWriter},
};

use super::Doors;
use crate::domain::server;

/// A sealed text: a little more than the text.
const MAX_MESSAGE: usize = MAX_TEXT_BYTES + MAX_TEXT_BYTES / 1024;
/// What fits a close frame besides its code.
const MAX_REASON: usize = 123;

pub(super) async fn handle(State(doors): State<Doors>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE).on_upgrade(move |socket| async move {
        let (writer, reader) = socket.split();
        server::serve_agent(&doors.app, Reader(reader), Writer(writer)).await;
    })
}

struct Reader(SplitStream<WebSocket>);

impl WireReader for Reader {
    async fn next(&mut self) -> Option<Result<Incoming, WireError>> {
        Some(match self.0.next().await? {
            Ok(Message::Binary(message)) => Ok(Incoming::Binary(message)),
            Ok(Message::Ping(_) | Message::Pong(_)) => Ok(Incoming::Liveness),
            Ok(Message::Close(frame)) => {
                Ok(Incoming::Closed(frame.map(|frame| frame.reason.to_string()).unwrap_or_default()))
            }
            Ok(Message::Text(_)) => Ok(Incoming::Unexpected),
            Err(error) => Err(WireError(Box::new(error))),
        })
    }
}

struct Writer(SplitSink<WebSocket, Message>);

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

    async fn close(&mut self, reason: &str) -> Result<(), WireError> {
        let end = reason.floor_char_boundary(MAX_REASON);
        let frame = CloseFrame { code: close_code::NORMAL, reason: reason[..end].into() };
        self.put(Message::Close(Some(frame))).await
    }
}
