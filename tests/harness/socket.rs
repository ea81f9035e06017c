//! JSON-RPC over a WebSocket.

use std::{collections::VecDeque, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Message,
        client::IntoClientRequest as _,
        http::HeaderValue,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::connection::{Endpoint, Stream};

/// How long any wait on a socket may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// An open WebSocket that speaks JSON-RPC 2.0.
pub struct RpcSocket {
    stream: WebSocketStream<Box<dyn Stream>>,
    next_id: u64,
    notifications: VecDeque<Value>,
}

impl RpcSocket {
    /// Upgrades `path` at `endpoint`, with `x-api-key` when there is a key.
    ///
    /// # Errors
    /// In words, with the HTTP status when the upgrade was refused.
    pub async fn open(endpoint: &Endpoint, path: &str, key: Option<&str>) -> Result<Self, String> {
        let url = format!("ws://{}{path}", endpoint.host());
        let mut request = url.into_client_request().map_err(|error| error.to_string())?;
        if let Some(key) = key {
            let key = HeaderValue::from_str(key).map_err(|error| error.to_string())?;
            request.headers_mut().insert("x-api-key", key);
        }
        let opening = async {
            let stream = endpoint.connect().await.map_err(|error| error.to_string())?;
            client_async(request, stream).await.map_err(|error| error.to_string())
        };
        let (stream, _) = timeout(DEADLINE, opening).await.map_err(|error| error.to_string())??;
        Ok(Self { stream, next_id: 1, notifications: VecDeque::new() })
    }

    /// Calls `method` and gives the whole response object; notifications on the way are kept
    /// for [`notification`](Self::notification).
    ///
    /// # Errors
    /// In words: closed, or no response in time.
    pub async fn call(&mut self, method: &str, params: Value) -> Result<Value, String> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string())
            .await?;
        loop {
            let message = self.receive().await?;
            if message["id"] == id {
                return Ok(message);
            }
            self.notifications.push_back(message);
        }
    }

    /// The next message that is no response to a call.
    ///
    /// # Errors
    /// In words: closed, or nothing in time.
    pub async fn notification(&mut self) -> Result<Value, String> {
        match self.notifications.pop_front() {
            Some(kept) => Ok(kept),
            None => self.receive().await,
        }
    }

    /// Sends any text frame.
    ///
    /// # Errors
    /// In words: closed.
    pub async fn send(&mut self, text: &str) -> Result<(), String> {
        let sent = timeout(DEADLINE, self.stream.send(Message::text(text))).await;
        sent.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// Says that it closes, and waits until the other end has said so, too.
    ///
    /// # Errors
    /// In words: ended without that, or not in time.
    pub async fn close(&mut self) -> Result<(), String> {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
        let closing = timeout(DEADLINE, self.stream.close(Some(frame))).await;
        closing.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        match self.receive_text().await {
            Err(closed) if closed.contains("Normal") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    /// The next JSON message of any kind.
    ///
    /// # Errors
    /// In words: closed (with the close frame), not JSON, or nothing in time.
    pub async fn receive(&mut self) -> Result<Value, String> {
        let text = self.receive_text().await?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// The next text frame, to the character.
    ///
    /// # Errors
    /// In words: closed (with the close frame), or nothing in time.
    pub async fn receive_text(&mut self) -> Result<String, String> {
        loop {
            let next = timeout(DEADLINE, self.stream.next()).await.map_err(|_| "no message in time")?;
            match next.ok_or("closed")?.map_err(|error| error.to_string())? {
                Message::Text(text) => return Ok(text.to_string()),
                Message::Close(frame) => return Err(format!("closed: {frame:?}")),
                _ => {}
            }
        }
    }
}
