//! One session of the channel: calls out through [`Outbound`], calls in to a method table, told apart per
//! frame.
//!
//! Three bounds keep a peer from harming the other: [`IN_FLIGHT`] calls are served at once and the
//! rest is answered `busy`; at most [`OUTGOING`] texts wait to be written; and a write that takes
//! longer than [`WRITE_DEADLINE`] ends the session, since pings alone do not notice a reader that
//! stalls.

use std::{
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use jsonrpsee::{
    core::server::Methods,
    types::{ErrorObject, Id, ResponsePayload},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    close::CloseCode,
    noise::{ChannelError, Opener, Sealer},
    outbound::Outbound,
    outgoing::{Next, Outgoing},
    wire::{Incoming, WireReader, WireWriter},
};

/// Calls of the other side that are served at once.
pub const IN_FLIGHT: usize = 64;
/// Texts that may wait to be written.
pub const OUTGOING: usize = 64;
/// How long one write may take.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(15);

/// How long the other side may take to read what it did wrong.
const FAREWELL: Duration = Duration::from_secs(2);

/// How a side keeps the link alive.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    /// Ping this often; `None` on the side that only answers.
    pub ping_every: Option<Duration>,
    /// No traffic for this long: the link is lost.
    pub lost_after: Duration,
}

/// A running session. Dropping it ends the session.
pub struct Peer {
    outbound: Arc<Outbound>,
    end: Arc<End>,
}

/// The end of a session, once it has one.
struct End {
    reason: OnceLock<Arc<ChannelError>>,
    told: Notify,
    token: CancellationToken,
}

impl Peer {
    /// Starts the session in a task of its own, over a socket whose handshake is done. `methods` serves the
    /// other side's calls; each runs in its own task and is not stopped by a broken socket.
    pub fn start<R: WireReader, W: WireWriter>(
        reader: R,
        writer: W,
        sealer: Sealer,
        opener: Opener,
        methods: Methods,
        liveness: Liveness,
    ) -> Self {
        let (peer, run) = Self::new(reader, writer, sealer, opener, methods, liveness);
        tokio::spawn(run);
        peer
    }

    /// As [`start`](Self::start), for who has a task for it already: the session lives as long as what is
    /// given beside it runs, which gives why it ended.
    pub fn new<R: WireReader, W: WireWriter>(
        reader: R,
        writer: W,
        sealer: Sealer,
        opener: Opener,
        methods: Methods,
        liveness: Liveness,
    ) -> (Self, impl Future<Output = Arc<ChannelError>> + Send + use<R, W>) {
        let outbound = Arc::new(Outbound::new(Outgoing::new(OUTGOING)));
        let end = End { reason: OnceLock::new(), told: Notify::new(), token: CancellationToken::new() };
        let end = Arc::new(end);
        let ending = Ending { outbound: Arc::clone(&outbound), end: Arc::clone(&end) };
        let demultiplexer = Demultiplexer {
            methods,
            outbound: Arc::clone(&outbound),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
        };
        let run = run(reader, writer, sealer, opener, demultiplexer, ending, liveness);
        (Self { outbound, end }, run)
    }

    /// For calls to the other side.
    #[must_use]
    pub fn client(&self) -> Arc<Outbound> {
        Arc::clone(&self.outbound)
    }

    /// Says a reason to the other side and ends the session, within [`WRITE_DEADLINE`].
    pub async fn close(&self, code: CloseCode) {
        // Where something else is being said, that is let finish.
        self.outbound.texts().close(code);
        let _ = timeout(WRITE_DEADLINE, self.end.token.cancelled()).await;
        self.end.token.cancel();
    }

    /// Ends the session at once, saying nothing.
    pub fn cut(&self) {
        self.end.token.cancel();
    }

    /// Cancelled when the session has ended.
    #[must_use]
    pub fn end_token(&self) -> CancellationToken {
        self.end.token.clone()
    }

    /// Waits for the end of the session, and says why it ended.
    pub async fn ended(&self) -> Arc<ChannelError> {
        loop {
            let mut told = pin!(self.end.told.notified());
            // From now on nothing is missed.
            told.as_mut().enable();
            if let Some(reason) = self.end.reason.get() {
                return Arc::clone(reason);
            }
            told.await;
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.end.token.cancel();
    }
}

/// Ends the session for all who wait for that, also where its task is dropped.
struct Ending {
    outbound: Arc<Outbound>,
    end: Arc<End>,
}

impl Ending {
    fn because(&self, error: ChannelError) -> Arc<ChannelError> {
        Arc::clone(self.end.reason.get_or_init(|| Arc::new(error)))
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.because(ChannelError::Ended);
        self.end.token.cancel();
        self.end.told.notify_waiters();
        self.outbound.end();
    }
}

async fn run<R: WireReader, W: WireWriter>(
    reader: R,
    writer: W,
    sealer: Sealer,
    opener: Opener,
    demultiplexer: Demultiplexer,
    ending: Ending,
    liveness: Liveness,
) -> Arc<ChannelError> {
    let error = {
        let mut write = pin!(write_loop(writer, sealer, &ending.outbound, liveness.ping_every));
        tokio::select! {
            error = &mut write => error,
            error = read_loop(reader, opener, &demultiplexer, liveness.lost_after) => {
                if let Some(code) = CloseCode::about(&error) {
                    // If something is being said already, that is said.
                    ending.outbound.texts().close(code);
                    let _ = Box::pin(timeout(FAREWELL, write)).await;
                }
                error
            }
            () = ending.end.token.cancelled() => ChannelError::Ended,
        }
    };
    ending.because(error)
}

/// What is to be written.
enum Due {
    Text(String),
    Close(CloseCode),
    Ping,
}

async fn write_loop<W: WireWriter>(
    mut writer: W,
    mut sealer: Sealer,
    outbound: &Outbound,
    ping_every: Option<Duration>,
) -> ChannelError {
    // A side that does not ping gets a clock that never ticks in practice.
    let every = ping_every.unwrap_or(Duration::from_secs(365 * 24 * 3600));
    let mut ping_at = Instant::now() + every;
    loop {
        let due = tokio::select! {
            biased;
            next = outbound.texts().next() => match next {
                Next::Text(text) => Due::Text(text),
                Next::Close(code) => Due::Close(code),
            },
            () = sleep_until(ping_at) => {
                ping_at = Instant::now() + every;
                Due::Ping
            }
        };
        // In a box while something is written: nearly all sessions wait nearly always.
        if let Err(error) = Box::pin(write(&mut writer, &mut sealer, due)).await {
            return error;
        }
    }
}

async fn write<W: WireWriter>(writer: &mut W, sealer: &mut Sealer, due: Due) -> Result<(), ChannelError> {
    let written = match due {
        Due::Text(text) => {
            let message = sealer.seal(&text)?;
            drop(text);
            timeout(WRITE_DEADLINE, writer.send(message)).await
        }
        Due::Ping => timeout(WRITE_DEADLINE, writer.ping()).await,
        Due::Close(code) => {
            let _ = timeout(WRITE_DEADLINE, writer.close(code)).await;
            return Err(ChannelError::ClosedHere(code));
        }
    };
    Ok(written.map_err(|_| ChannelError::Stalled)??)
}

async fn read_loop<R: WireReader>(
    mut reader: R,
    mut opener: Opener,
    demultiplexer: &Demultiplexer,
    lost_after: Duration,
) -> ChannelError {
    loop {
        let text = match timeout(lost_after, reader.next()).await {
            Err(_) => return ChannelError::Silent,
            Ok(None) => return ChannelError::Ended,
            Ok(Some(Err(error))) => return error.into(),
            Ok(Some(Ok(Incoming::Liveness))) => continue,
            Ok(Some(Ok(Incoming::Closed { code, reason }))) => return ChannelError::Closed { code, reason },
            Ok(Some(Ok(Incoming::TooLong))) => return ChannelError::TooLong,
            Ok(Some(Ok(Incoming::Displaced))) => return ChannelError::Displaced,
            Ok(Some(Ok(Incoming::Unexpected))) => return ChannelError::Unexpected,
            Ok(Some(Ok(Incoming::Binary(message)))) => match opener.open(&message) {
                Ok(text) => text,
                Err(error) => return error,
            },
        };
        match demultiplexer.take(text) {
            Ok(None) => {}
            // Whoever asks too much is read no further before it was told.
            Ok(Some(busy)) => {
                if Box::pin(demultiplexer.outbound.texts().send(busy)).await.is_err() {
                    return ChannelError::Ended;
                }
            }
            Err(error) => return error,
        }
    }
}

/// What tells a call from an answer.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

struct Demultiplexer {
    methods: Methods,
    outbound: Arc<Outbound>,
    in_flight: Arc<Semaphore>,
}

impl Demultiplexer {
    /// Serves a call, or delivers an answer. Gives what is to be said where too many calls are served already.
    fn take(&self, text: String) -> Result<Option<String>, ChannelError> {
        let envelope: Envelope<'_> = serde_json::from_str(&text).map_err(|_| ChannelError::Malformed)?;
        if envelope.method.is_none() {
            if let Some(number) = envelope.id.and_then(|id| id.get().parse().ok()) {
                self.outbound.deliver(number, text);
            }
            return Ok(None);
        }
        let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else {
            let id =
                envelope.id.and_then(|id| serde_json::from_str::<Id<'_>>(id.get()).ok()).unwrap_or(Id::Null);
            return Ok(Some(busy(id)));
        };
        let (methods, outbound) = (self.methods.clone(), Arc::clone(&self.outbound));
        tokio::spawn(async move {
            // Only a frame that is no request at all fails here; there is nobody to answer then.
            if let Ok((answer, _)) = methods.raw_json_request(&text, 1).await {
                let _ = outbound.texts().send(Box::<str>::from(answer).into_string()).await;
            }
            drop(permit);
        });
        Ok(None)
    }
}

/// JSON-RPC's answer to a call over the limit.
fn busy(id: Id<'_>) -> String {
    let error = ErrorObject::borrowed(-32_029, "too many calls under way", None);
    let response = jsonrpsee::types::Response::new(ResponsePayload::<()>::error_borrowed(error), id);
    serde_json::to_string(&response).unwrap_or_default()
}

#[cfg(test)]
mod tests;
