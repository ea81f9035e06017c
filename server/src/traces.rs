//! Traces for OpenTelemetry, where `OTEL_EXPORTER_OTLP_ENDPOINT` asks for them: a span for each request, each call of a
//! procedure in it, and each target's end on its host.
//!
//! Which trace a span belongs to, and below which span, follows from the request's id alone ([`Context`]): the id goes
//! with the work to other tasks, other control planes and the database as it is, and nothing else has to. Nobody waits
//! for an export: what the receiver is too slow for is dropped, and counted.
//!
//! The protocol is OTLP over HTTP with JSON, written here: the published exporters would bring tonic and a second
//! HTTP client for one POST.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom as _, SystemRandom},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{error::chain, metrics::Metrics, request::RequestId};

mod otlp;
mod receiver;

pub use receiver::{Receiver, Settings};

/// Spans that wait to be sent; more are dropped.
const WAITING: usize = 8_192;
/// Spans that are sent at once.
const BATCH: usize = 512;
/// How long a span waits for others.
const TOGETHER: Duration = Duration::from_secs(2);
/// How long the last spans may take when the process stops.
const LAST: Duration = Duration::from_secs(3);

/// Where spans go. Cheap to clone; without a receiver it takes nothing.
#[derive(Clone)]
pub struct Traces(Option<Spans>);

#[derive(Clone)]
struct Spans {
    waiting: mpsc::Sender<Span>,
    metrics: Arc<Metrics>,
}

/// What took some time.
#[derive(Debug)]
pub struct Span {
    context: Context,
    place: Place,
    name: String,
    began: SystemTime,
    took: Duration,
    /// How it failed, if it did.
    error: Option<String>,
    attributes: Vec<(&'static str, String)>,
}

/// Where a span is in its trace.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The request itself.
    Request,
    /// Below it.
    Within,
}

/// What a request's id says of its trace.
///
/// An id that begins with 32 hexadecimal digits, as ours do, names the trace by them, and by 16 more behind a dash the
/// caller's span. Of any other the trace is a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    trace: [u8; 16],
    request: [u8; 8],
    caller: Option<[u8; 8]>,
}

impl Context {
    /// Of a request.
    pub fn of(id: &RequestId) -> Self {
        Self::of_text(id.as_str())
    }

    fn of_text(id: &str) -> Self {
        let hash = digest(&SHA256, id.as_bytes());
        let mut trace = [0; 16];
        trace.copy_from_slice(&hash.as_ref()[..16]);
        let mut request = [0; 8];
        request.copy_from_slice(&hash.as_ref()[16..24]);
        let (named, rest) = id.split_at_checked(32).unwrap_or(("", id));
        let Some(named) = bytes(named).filter(|named| *named != [0; 16]) else {
            return Self { trace, request, caller: None };
        };
        let caller = rest.strip_prefix('-').filter(|rest| rest.len() == 16).and_then(bytes);
        Self { trace: named, request, caller }
    }

    /// The id of a request that came with this `traceparent` header (W3C Trace Context), if that is well-formed.
    pub fn id_of_parent(header: &str) -> Option<RequestId> {
        let mut parts = header.split('-');
        let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
        let lower = |text: &str| !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let trace_bytes: [u8; 16] = bytes(trace).filter(|_| lower(trace))?;
        let span_bytes: [u8; 8] = bytes(span).filter(|_| lower(span))?;
        let flags = parts.next()?;
        let known = version.len() == 2 && version != "ff" && flags.len() == 2;
        if !known || trace_bytes == [0; 16] || span_bytes == [0; 8] {
            return None;
        }
        RequestId::from_received(&format!("{trace}-{span}"))
    }
}

/// Hexadecimal digits as the bytes that they stand for, if they are exactly so many.
fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    if hex.len() != 2 * N || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

impl Span {
    /// A request that has just ended.
    pub fn of_request(id: &RequestId, name: String, took: Duration) -> Self {
        Self::ended(Context::of(id), Place::Request, name, took)
    }

    /// Something that has just ended and was done for a request.
    pub fn within_request(id: &str, name: String, took: Duration) -> Self {
        Self::ended(Context::of_text(id), Place::Within, name, took)
    }

    fn ended(context: Context, place: Place, name: String, took: Duration) -> Self {
        let now = SystemTime::now();
        let began = now.checked_sub(took).unwrap_or(now);
        Self { context, place, name, began, took, error: None, attributes: Vec::new() }
    }

    /// With something to know of it. Never a secret, and never what a caller sent.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    /// As something that failed, with the code of it.
    #[must_use]
    pub fn failed(mut self, code: Option<&str>) -> Self {
        self.error = code.map(ToOwned::to_owned);
        self
    }
}

impl Traces {
    /// Sends what it is told to the receiver, if there is one, until `stop` and then what waits still.
    pub fn start(
        receiver: Option<Receiver>,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let Some(receiver) = receiver else { return Self(None) };
        let (waiting, spans) = mpsc::channel(WAITING);
        tasks.spawn(export(receiver, spans, Arc::clone(&metrics), stop));
        Self(Some(Spans { waiting, metrics }))
    }

    /// Takes the span that `make` gives, where somebody wants it. Waits for nothing.
    pub fn tell(&self, make: impl FnOnce() -> Span) {
        let Some(spans) = &self.0 else { return };
        if spans.waiting.try_send(make()).is_err() {
            spans.metrics.spans_dropped(1);
        }
    }
}

async fn export(
    receiver: Receiver,
    mut spans: mpsc::Receiver<Span>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let (mut batch, mut failing) = (Vec::with_capacity(BATCH), false);
    loop {
        let stopping = tokio::select! {
            () = stop.cancelled() => true,
            _ = gather(&mut spans, &mut batch) => false,
        };
        if stopping {
            while batch.len() < WAITING
                && let Ok(span) = spans.try_recv()
            {
                batch.push(span);
            }
        }
        if !batch.is_empty() {
            let sending = receiver.send(otlp::text(&batch, receiver.service()));
            let until = Instant::now() + if stopping { LAST } else { receiver::DEADLINE };
            let sent = timeout_at(until, sending).await.unwrap_or_else(|_| Err(receiver::too_slow()));
            match sent {
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!("traces are exported again");
                }
                Ok(()) => {}
                Err(error) => {
                    metrics.spans_dropped(batch.len() as u64);
                    if !failing {
                        failing = true;
                        tracing::warn!(error = %chain(&error), "traces are not exported; they are dropped until they can be");
                    }
                }
            }
            batch.clear();
        }
        if stopping {
            return;
        }
    }
}

/// Waits for a span, and then a little for others. What it has when it is dropped is in the batch.
async fn gather(spans: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>) {
    let Some(first) = spans.recv().await else { return std::future::pending().await };
    batch.push(first);
    let until = Instant::now() + TOGETHER;
    while batch.len() < BATCH
        && let Ok(Some(span)) = timeout_at(until, spans.recv()).await
    {
        batch.push(span);
    }
}

/// An id for a span that nobody needs to know.
fn random_id() -> [u8; 8] {
    let mut id = [0; 8];
    // Without random bytes the span is taken for another one, and nothing else goes wrong.
    let _ = SystemRandom::new().fill(&mut id);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const CALLER: &str = "b7ad6b7169203331";

    #[test]
    fn a_callers_trace_goes_on_in_the_requests_id() {
        let id = Context::id_of_parent(&format!("00-{TRACE}-{CALLER}-01")).unwrap();
        assert_eq!(id.as_str(), format!("{TRACE}-{CALLER}"));
        let context = Context::of(&id);
        assert_eq!((Some(context.trace), context.caller), (bytes(TRACE), bytes(CALLER)));
        for bad in [
            "",
            "00",
            TRACE,
            &format!("ff-{TRACE}-{CALLER}-01"),
            &format!("00-{TRACE}-{CALLER}"),
            &format!("00-{TRACE}-{CALLER}0-01"),
            &format!("00-{}-{CALLER}-01", "0".repeat(32)),
            &format!("00-{TRACE}-{}-01", "0".repeat(16)),
            &format!("00-{}-{CALLER}-01", TRACE.to_uppercase()),
        ] {
            assert_eq!(Context::id_of_parent(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_id_names_one_trace_and_one_span() {
        let of = Context::of_text;
        assert_eq!(of("abc"), of("abc"));
        assert_ne!(of("abc").trace, of("abd").trace);
        // A message on a socket is in the socket's trace, and not the socket's span.
        let (socket, message) = (of(TRACE), of(&format!("{TRACE}.1")));
        assert_eq!((socket.trace, message.caller), (message.trace, None));
        assert_ne!(socket.request, message.request);
        assert_eq!(Some(of(RequestId::generate().as_str()).trace).filter(|trace| *trace == [0; 16]), None);
    }
}
