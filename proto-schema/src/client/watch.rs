//! Subscriptions, each on a WebSocket of its own.

use std::{fmt, marker::PhantomData, time::Duration};

use futures_util::{SinkExt as _, Stream, StreamExt as _, stream};
use http::StatusCode;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes, error::CapacityError};

use super::{ClientError, connection::Socket, message, read};
use crate::procedure::Procedure;

/// How long the other side may be silent: it pings every 30 s.
const SILENCE: Duration = Duration::from_secs(90);

/// An event of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<T> {
    /// Its id, where the control plane tells one: the `lastEventId` of whoever begins anew after the connection was
    /// lost.
    pub id: Option<String>,
    /// What it tells.
    pub data: T,
}

/// A subscription that has begun. Dropping it ends it. Whoever does not read it is told the newest later on.
pub struct Watch<P> {
    socket: Socket,
    subscription: u64,
    procedure: PhantomData<fn() -> P>,
}

impl<P> fmt::Debug for Watch<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}

impl<P: Procedure> Watch<P> {
    /// Calls the subscription on a fresh socket.
    pub(super) async fn begin(mut socket: Socket, call: String) -> Result<Self, ClientError> {
        socket.send(Message::text(call)).await.map_err(broken)?;
        let status = StatusCode::SWITCHING_PROTOCOLS;
        let number = message::result(status, text(&mut socket).await?.as_bytes())?;
        let subscription =
            serde_json::from_str(number.get()).map_err(|error| ClientError::unreadable(status, error))?;
        Ok(Self { socket, subscription, procedure: PhantomData })
    }

    /// The next event. It waits as long as the control plane gives a sign of life. There is no end but an error: a job
    /// that is final is told no further, and is there to stop at.
    ///
    /// # Errors
    /// The subscription is over: [`ClientError::Refused`] where the control plane says why,
    /// [`ClientError::Closed`] or [`ClientError::Connection`] where it may be begun anew.
    pub async fn next(&mut self) -> Result<Event<P::Output>, ClientError> {
        loop {
            let told = message::told(text(&mut self.socket).await?.as_bytes())?;
            if told.subscription == self.subscription {
                let id = told.id.clone();
                let data = read::<P>(StatusCode::SWITCHING_PROTOCOLS, &told.result()?)?;
                return Ok(Event { id, data });
            }
        }
    }

    /// The events as a stream, whose last item is the error that ended it.
    pub fn into_stream(self) -> impl Stream<Item = Result<Event<P::Output>, ClientError>> {
        stream::unfold(Some(self), |watch| async {
            let mut watch = watch?;
            let event = watch.next().await;
            let goes_on = event.is_ok();
            Some((event, goes_on.then_some(watch)))
        })
    }
}

async fn text(socket: &mut Socket) -> Result<Utf8Bytes, ClientError> {
    loop {
        let message = timeout(SILENCE, socket.next()).await.map_err(|_| ClientError::Timeout(SILENCE))?;
        match message.transpose().map_err(broken)? {
            Some(Message::Text(text)) => return Ok(text),
            // Answered by the library.
            Some(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_)) => {}
            Some(Message::Close(frame)) => {
                return Err(ClientError::Closed(
                    frame.map(|frame| frame.reason.to_string()).unwrap_or_default(),
                ));
            }
            None => return Err(ClientError::Closed(String::new())),
        }
    }
}

fn broken(error: Error) -> ClientError {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => ClientError::TooLarge,
        error => ClientError::connection(error),
    }
}
