//! An answer that is read while it is being written: lines, or server-sent events.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hyper::{Response, body::Incoming};
use serde_json::Value;
use tokio::time::timeout;

/// How long any wait may take.
const DEADLINE: Duration = Duration::from_secs(45);

/// The answer. Dropping it closes its connection.
pub struct Streamed {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    buffer: Vec<u8>,
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSent {
    /// Its name; `message` where none is given.
    pub event: String,
    /// Its data.
    pub data: String,
    /// Its id, where it has one.
    pub id: Option<String>,
}

impl ServerSent {
    /// The data as JSON.
    ///
    /// # Panics
    /// It is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

impl Streamed {
    /// The answer whose head has arrived.
    pub fn of(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        Self { status: head.status, headers: head.headers, body, buffer: Vec::new() }
    }

    /// The next line without its end; `None` at the end of the answer.
    ///
    /// # Panics
    /// Nothing in time, or the answer broke off.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            let frame = timeout(DEADLINE, self.body.frame()).await.expect("something in time")?;
            let frame = frame.unwrap_or_else(|error| panic!("the answer broke off: {error:?}"));
            self.buffer.extend(frame.into_data().unwrap_or_default());
        }
    }

    /// The next event, pings included; `None` at the end of the answer.
    ///
    /// # Panics
    /// As of [`line`](Self::line), and for a line that is none of an event.
    pub async fn event(&mut self) -> Option<ServerSent> {
        let mut told = ServerSent { event: "message".into(), data: String::new(), id: None };
        loop {
            let line = self.line().await?;
            match line.split_once(": ") {
                None if line.is_empty() => return Some(told),
                Some(("event", name)) => told.event = name.into(),
                Some(("data", data)) => told.data = data.into(),
                Some(("id", id)) => told.id = Some(id.into()),
                _ => panic!("no line of an event: {line:?}"),
            }
        }
    }

    /// The next event that is no ping.
    ///
    /// # Panics
    /// As of [`event`](Self::event), and where there are only pings.
    pub async fn told(&mut self) -> Option<ServerSent> {
        let told = async {
            loop {
                match self.event().await {
                    Some(ping) if ping.event == "ping" => {}
                    other => return other,
                }
            }
        };
        timeout(DEADLINE, told).await.expect("more than pings in time")
    }

    /// The next event, which is a message.
    ///
    /// # Panics
    /// It is something else.
    pub async fn message(&mut self) -> ServerSent {
        let told = self.told().await.expect("an event and not the end");
        assert_eq!(told.event, "message", "{told:?}");
        told
    }
}
