//! One session of the channel: calls out through [`Outbound`], calls in to a method table, told apart per
//! frame.
//!
//! Three bounds keep a peer from harming the other: [`IN_FLIGHT`] calls are served at once and the
//! rest is answered `busy`; at most [`OUTGOING`] texts wait to be written; and a write that takes
//! longer than [`WRITE_DEADLINE`] ends the session, since pings alone do not notice a reader that
//! stalls.

use std::{pin::pin, sync::Arc, time::Duration};

use jsonrpsee::{
    core::server::Methods,
    types::{ErrorObject, Id, ResponsePayload},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    close::CloseCode,
    noise::{ChannelError, Opener, Sealer},
    outbound::Outbound,
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
    closing: mpsc::Sender<CloseCode>,
    ended: watch::Receiver<Option<Arc<ChannelError>>>,
    token: CancellationToken,
}

impl Peer {
    /// Starts the session's tasks over a socket whose handshake is done. `methods` serves the other
    /// side's calls; each runs in its own task and is not stopped by a broken socket.
    pub fn start<R: WireReader, W: WireWriter>(
        reader: R,
        writer: W,
        sealer: Sealer,
        opener: Opener,
        methods: Methods,
        liveness: Liveness,
    ) -> Self {
        let (outgoing, to_write) = mpsc::channel(OUTGOING);
        let (closing, close_requests) = mpsc::channel(1);
        let (end, ended) = watch::channel(None);
        let token = CancellationToken::new();
        let outbound = Arc::new(Outbound::new(outgoing.clone()));
        let demultiplexer = Demultiplexer {
            methods,
            outbound: Arc::clone(&outbound),
            outgoing,
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
            served: TaskTracker::new(),
        };
        let write = write_loop(writer, sealer, to_write, close_requests, liveness.ping_every);
        let read = read_loop(reader, opener, demultiplexer, liveness.lost_after);
        let (stop, farewell, calls) = (token.clone(), closing.clone(), Arc::clone(&outbound));
        tokio::spawn(async move {
            let mut write = pin!(write);
            let error = tokio::select! {
                error = &mut write => error,
                error = read => {
                    if let Some(code) = CloseCode::about(&error) {
                        // If something is being said already, that is said.
                        let _ = farewell.try_send(code);
                        let _ = timeout(FAREWELL, write).await;
                    }
                    error
                }
                () = stop.cancelled() => ChannelError::Ended,
            };
            end.send_replace(Some(Arc::new(error)));
            stop.cancel();
            calls.end();
        });
        Self { outbound, closing, ended, token }
    }

    /// For calls to the other side.
    #[must_use]
    pub fn client(&self) -> Arc<Outbound> {
        Arc::clone(&self.outbound)
    }

    /// Says a reason to the other side and ends the session, within [`WRITE_DEADLINE`].
    pub async fn close(&self, code: CloseCode) {
        if self.closing.try_send(code).is_ok() {
            let _ = timeout(WRITE_DEADLINE, self.token.cancelled()).await;
        }
        self.token.cancel();
    }

    /// Ends the session at once, saying nothing.
    pub fn cut(&self) {
        self.token.cancel();
    }

    /// Cancelled when the session has ended.
    #[must_use]
    pub fn end_token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Waits for the end of the session, and says why it ended.
    pub async fn ended(&self) -> Arc<ChannelError> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_else(|| Arc::new(ChannelError::Ended)),
            Err(_) => Arc::new(ChannelError::Ended),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

async fn write_loop<W: WireWriter>(
    mut writer: W,
    mut sealer: Sealer,
    mut texts: mpsc::Receiver<String>,
    mut closing: mpsc::Receiver<CloseCode>,
    ping_every: Option<Duration>,
) -> ChannelError {
    // A side that does not ping gets a clock that never ticks in practice.
    let every = ping_every.unwrap_or(Duration::from_secs(365 * 24 * 3600));
    let mut pings = interval_at(Instant::now() + every, every);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let written = tokio::select! {
            biased;
            Some(code) = closing.recv() => {
                let _ = timeout(WRITE_DEADLINE, writer.close(code)).await;
                return ChannelError::ClosedHere(code);
            }
            text = texts.recv() => {
                let Some(text) = text else { return ChannelError::Ended };
                match sealer.seal(&text) {
                    Ok(message) => timeout(WRITE_DEADLINE, writer.send(message)).await,
                    Err(error) => return error,
                }
            }
            _ = pings.tick() => timeout(WRITE_DEADLINE, writer.ping()).await,
        };
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return ChannelError::Stalled,
        }
    }
}

async fn read_loop<R: WireReader>(
    mut reader: R,
    mut opener: Opener,
    demultiplexer: Demultiplexer,
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
            Ok(Some(Ok(Incoming::Unexpected))) => return ChannelError::Unexpected,
            Ok(Some(Ok(Incoming::Binary(message)))) => match opener.open(&message) {
                Ok(text) => text,
                Err(error) => return error,
            },
        };
        if let Err(error) = demultiplexer.take(text).await {
            return error;
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
    outgoing: mpsc::Sender<String>,
    in_flight: Arc<Semaphore>,
    served: TaskTracker,
}

impl Demultiplexer {
    async fn take(&self, text: String) -> Result<(), ChannelError> {
        let envelope: Envelope<'_> = serde_json::from_str(&text).map_err(|_| ChannelError::Malformed)?;
        if envelope.method.is_none() {
            if let Some(number) = envelope.id.and_then(|id| id.get().parse().ok()) {
                self.outbound.deliver(number, text);
            }
            return Ok(());
        }
        let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else {
            let id =
                envelope.id.and_then(|id| serde_json::from_str::<Id<'_>>(id.get()).ok()).unwrap_or(Id::Null);
            return self.outgoing.send(busy(id)).await.map_err(|_| ChannelError::Ended);
        };
        let (methods, outgoing) = (self.methods.clone(), self.outgoing.clone());
        self.served.spawn(async move {
            // Only a frame that is no request at all fails here; there is nobody to answer then.
            if let Ok((answer, _)) = methods.raw_json_request(&text, 1).await {
                let _ = outgoing.send(Box::<str>::from(answer).into_string()).await;
            }
            drop(permit);
        });
        Ok(())
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
