//! The request that a task works for: its id, by which its lines in all logs are found, and where it came from.
//!
//! It travels with the task and not through the layers: rules and doors need not know of it, and what is done in
//! another task is given it on purpose ([`within`]). It decides nothing.

use std::{
    fmt,
    future::Future,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::Either;
use tracing::Instrument as _;
use uuid::Uuid;

tokio::task_local! {
    static CURRENT: Request;
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// The address at the other end of its connection: a proxy's, where one is between.
    pub source: Option<IpAddr>,
    /// The door that it came by.
    pub door: Door,
    /// Whether it came as far as a procedure, which then counts it.
    reached: Arc<AtomicBool>,
}

/// What a request may come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `/api/trpc/<procedure>`
    Trpc,
    /// `/api/<procedure>`
    Plain,
    /// `/rpc` over POST.
    JsonRpc,
    /// `/rpc` as a WebSocket.
    WebSocket,
    /// The agents' channel.
    Agent,
    /// Health, metrics, documents, the console.
    Other,
}

impl Door {
    /// Every door.
    pub const ALL: [Self; 6] =
        [Self::Trpc, Self::Plain, Self::JsonRpc, Self::WebSocket, Self::Agent, Self::Other];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trpc => "trpc",
            Self::Plain => "plain",
            Self::JsonRpc => "jsonrpc",
            Self::WebSocket => "websocket",
            Self::Agent => "agent",
            Self::Other => "other",
        }
    }
}

impl Request {
    /// A request that comes in.
    pub fn new(id: RequestId, source: Option<IpAddr>, door: Door) -> Self {
        Self { id, source, door, reached: Arc::default() }
    }

    /// Notes that it came as far as a procedure.
    pub fn reach(&self) {
        self.reached.store(true, Ordering::Relaxed);
    }

    /// Whether it came as far as a procedure.
    pub fn has_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    /// The `number`th message on a socket that this request opened.
    pub fn message(&self, number: u64) -> Self {
        Self::new(RequestId(format!("{}.{number}", self.id).into()), self.source, Door::WebSocket)
    }
}

/// The id of a request: the caller's own where that is well-formed, else one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The longest that a caller may choose, in bytes.
    pub const MAX: usize = 128;

    /// A new one.
    pub fn generate() -> Self {
        let mut text = Uuid::encode_buffer();
        Self(Uuid::now_v7().simple().encode_lower(&mut text).into())
    }

    /// A caller's, if it may stand in a header, a log line and a column as it is.
    pub fn from_received(text: &str) -> Option<Self> {
        let fits = (1..=Self::MAX).contains(&text.len());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:=/+@".contains(&byte);
        (fits && text.bytes().all(plain)).then(|| Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The request that this task works for.
pub fn current() -> Option<Request> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Does work for a request, where there is one. Each log line of it says which. An error's level, so that no filter leaves the id out
/// of a line that it lets pass. An `async fn` would hold the work twice: as what it was given, and as what it waits for.
pub fn within<F: Future>(request: Option<Request>, work: F) -> impl Future<Output = F::Output> {
    let Some(request) = request else { return Either::Left(work) };
    let span = tracing::error_span!(parent: None, "request", id = %request.id);
    Either::Right(CURRENT.scope(request, work.instrument(span)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_only_if_it_can_stand_anywhere() {
        for good in ["a", "1-67891233-abcdef", "Root=1-2/3+x@y_z.0:1", &"x".repeat(RequestId::MAX)] {
            assert_eq!(RequestId::from_received(good).as_ref().map(RequestId::as_str), Some(good));
        }
        for bad in ["", " ", "a b", "a\nb", "a\"b", "ä", "{}", "a,b", "<x>", &"x".repeat(RequestId::MAX + 1)]
        {
            assert_eq!(RequestId::from_received(bad), None, "{bad}");
        }
        assert_ne!(RequestId::generate(), RequestId::generate());
        assert!(RequestId::from_received(RequestId::generate().as_str()).is_some());
    }

    #[tokio::test]
    async fn a_task_knows_its_request_and_no_other_does() {
        let request = Request::new(RequestId::generate(), None, Door::Other);
        let known = within(Some(request.clone()), async { current().map(|request| request.id) }).await;
        assert_eq!(known, Some(request.id));
        assert!(current().is_none());
    }
}
