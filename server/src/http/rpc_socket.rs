//! JSON-RPC 2.0 over a WebSocket: one key, presented at the upgrade and looked at again with each
//! message. One that is removed or expires ends the socket, also while nothing is said on it.
//!
//! Calls of a socket run side by side, at most [`IN_FLIGHT`]; then the socket is read no further, so a
//! caller that does not read its answers only slows itself down. Nor is it read while a message over
//! [`SMALL_BODY`] waits for a place among the large inputs ([`large_inputs`](crate::domain::large_inputs)). When it
//! hangs up nobody waits for its calls any more, and its subscriptions
//! ([`rpc_subscriptions`](super::rpc_subscriptions)) end.
//!
//! Most sockets are quiet most of the time: one that says nothing is one task with small buffers and two timers,
//! and keeps nothing of the request that opened it but the key.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    extract::{
        WebSocketUpgrade,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code},
    },
    http::HeaderMap,
    response::Response,
};
use futures_util::{FutureExt as _, SinkExt as _, future::BoxFuture};
use purser_proto_schema::error::PublicError;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{interval, timeout},
};
use tokio_tungstenite::tungstenite;

use super::{
    BATCH_WIDTH, Doors, MAX_BODY, SMALL_BODY, TURN,
    auth::{self, Presented},
    rpc,
    rpc_subscriptions::{Begun, Notification, Subscriptions},
    rpc_text::Text,
};
use crate::{
    domain::{caller::Caller, large_inputs::Place},
    error::Error,
    request::{self, Request},
    rpc::public,
    traces::Span,
};

/// Calls of one socket under way at once, those whose answer is not written yet included.
const IN_FLIGHT: usize = 32;
/// Large messages of an organization's sockets together that may wait, beside those that have a place; of further ones
/// it is said at once that they are too many. Each has been read to its end, so this is what may be in memory of them.
const WAITING: usize = 8;
/// How often the caller is pinged.
const PING: Duration = Duration::from_secs(30);
/// How long a caller may be silent, pongs included; looked at with each ping.
const SILENCE: Duration = Duration::from_secs(85);
/// How long calls under way may take that are still answered before the socket is closed.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How long a write may take.
const WRITE: Duration = Duration::from_secs(15);
/// What one read takes, and what is gathered before a write.
const BUFFER: usize = 1024;

pub(super) fn upgrade(
    doors: Doors,
    upgrade: WebSocketUpgrade,
    headers: &HeaderMap,
    caller: Arc<Caller>,
) -> Response {
    let opened_by = request::current();
    let key = auth::Key::shown_in(headers);
    let upgrade = upgrade.max_message_size(MAX_BODY).max_frame_size(MAX_BODY);
    let upgrade = upgrade.read_buffer_size(BUFFER).write_buffer_size(BUFFER);
    // Known from now on, so that a stop waits until it was told.
    let known = doors.sockets.token();
    upgrade.on_upgrade(|socket| async move {
        let mut talk = Talk {
            doors,
            socket,
            key,
            opened_by: opened_by.clone(),
            waiting: None,
            subscriptions: None,
            calls: JoinSet::new(),
            in_flight: 0,
            number: 0,
            heard: Instant::now(),
        };
        // Boxed, since every future that is around another has it twice: before it runs, and while.
        request::within(opened_by, Box::pin(async move { talk.serve(caller).await })).await;
        drop(known);
    })
}

/// A socket and what is under way on it.
struct Talk {
    doors: Doors,
    socket: WebSocket,
    key: auth::Key,
    opened_by: Option<Request>,
    /// A large message whose turn has not come yet.
    waiting: Option<BoxFuture<'static, Turn>>,
    /// From the first message on.
    subscriptions: Option<(Arc<Subscriptions>, mpsc::Receiver<Box<Notification>>)>,
    calls: JoinSet<Answered>,
    in_flight: usize,
    number: u64,
    heard: Instant,
}

/// A message whose turn has come.
struct Turn {
    bytes: Bytes,
    caller: Arc<Caller>,
    /// Of a large one; or why it has none.
    place: Result<Option<Place>, PublicError>,
}

/// What became of a message.
struct Answered {
    /// Counted until it has been written.
    answer: Option<Bytes>,
    begun: Vec<Begun>,
    weight: usize,
}

/// Why a socket is read no further.
enum End {
    /// Nobody is there any more.
    Gone,
    /// The caller is told why.
    Told(CloseFrame),
}

type Step = Result<(), End>;

impl Talk {
    async fn serve(&mut self, caller: Arc<Caller>) {
        let open = self.doors.app.known_keys.hold_open(&caller);
        drop(caller);
        let key_ended = open.ended();
        tokio::pin!(key_ended);
        let mut pings = interval(PING);
        let end = loop {
            let step = tokio::select! {
                biased;
                () = self.doors.stop.cancelled() => Err(stopping()),
                () = &mut key_ended => Err(key_is_over()),
                // Boxed, as what is done now and then: a quiet socket would have room for it all the time.
                _ = pings.tick() => Box::pin(self.ping()).await,
                Some(answered) = self.calls.join_next() => Box::pin(self.answered(answered)).await,
                Some(turn) = its_turn(&mut self.waiting) => {
                    // Until now it was not listened to.
                    self.heard = Instant::now();
                    self.begin(turn);
                    Ok(())
                }
                message = self.socket.recv(), if self.is_heard() => match message {
                    Some(Ok(message)) => Box::pin(self.received(message)).await,
                    Some(Err(error)) => Err(unreadable(error)),
                    None => Err(End::Gone),
                },
                Some(notification) = next(&mut self.subscriptions) => match notification.message() {
                    Some(message) => Box::pin(self.write(message)).await,
                    None => Ok(()),
                },
            };
            if let Err(end) = step {
                break end;
            }
        };
        if let End::Told(frame) = end {
            if !self.doors.stop.is_cancelled() {
                // The call that removed the socket's own key is answered.
                let _ = timeout(LAST_ANSWERS, Box::pin(self.last_answers())).await;
            }
            let is_unread = frame.code == close_code::SIZE;
            let _ = Box::pin(self.write(Message::Close(Some(frame)))).await;
            if is_unread {
                // What it still sends would else be answered by a reset, which may come before the reason.
                tokio::time::sleep(LAST_ANSWERS).await;
            }
        }
        self.calls.shutdown().await;
    }

    /// Whether the socket is read.
    fn is_heard(&self) -> bool {
        self.in_flight < IN_FLIGHT && self.waiting.is_none()
    }

    async fn received(&mut self, message: Message) -> Step {
        self.heard = Instant::now();
        let text = match message {
            Message::Text(text) => text,
            Message::Ping(_) | Message::Pong(_) => return Ok(()),
            Message::Binary(_) => {
                return Err(End::Told(CloseFrame {
                    code: close_code::UNSUPPORTED,
                    reason: "send text".into(),
                }));
            }
            Message::Close(_) => {
                // The answer to it is made by now, and on its way with this.
                let _ = timeout(LAST_ANSWERS, self.socket.flush()).await;
                return Err(End::Gone);
            }
        };
        let bytes = Bytes::from(text);
        // While the database is away this may take long, and a stop does not wait for it.
        let found = self.doors.stop.run_until_cancelled(auth::caller_of(&self.doors, &self.key)).await;
        let caller = match found.ok_or_else(stopping)? {
            Ok(caller) => caller,
            Err(Error::Unauthorized) => return Err(key_is_over()),
            Err(error) => return self.refuse(bytes, &error).await,
        };
        if bytes.len() <= SMALL_BODY {
            self.begin(Turn { bytes, caller, place: Ok(None) });
        } else {
            let inputs = self.doors.large_inputs.clone();
            let turn = async move {
                let place = timeout(TURN, inputs.place(&caller, Some(WAITING))).await;
                let place = place.unwrap_or(Err(Error::TooManyLargeInputs)).map(Some);
                Turn { bytes, caller, place: place.map_err(|error| public(&error)) }
            };
            self.waiting = Some(turn.boxed());
        }
        Ok(())
    }

    fn begin(&mut self, Turn { bytes, caller, place }: Turn) {
        let (subscriptions, _) = self.subscriptions.get_or_insert_with(|| {
            let (subscriptions, told) = Subscriptions::new(self.doors.clone(), self.key.clone());
            (Arc::new(subscriptions), told)
        });
        let (doors, subscriptions) = (self.doors.clone(), Arc::clone(subscriptions));
        let presented = Presented::for_each(Ok(Arc::clone(&caller)), self.key.clone());
        // So many of a batch's calls are under way at once.
        let weight = if bytes.trim_ascii_start().starts_with(b"[") { BATCH_WIDTH } else { 1 };
        self.in_flight += weight;
        self.number += 1;
        let message = self.opened_by.as_ref().map(|socket| socket.message(self.number));
        let (id, begun) = (message.as_ref().map(|message| message.id.clone()), Instant::now());
        self.calls.spawn(request::within(message, async move {
            let (place, refusal) = match place {
                Ok(place) => (place.map(Arc::new), None),
                Err(error) => (None, Some(error)),
            };
            let text = Text { bytes, place };
            let served = match refusal {
                Some(error) => rpc::refuse_all(&text, &error),
                None => rpc::serve(&doors, text, &presented, Some(&subscriptions)).await,
            };
            if let Some(id) = id {
                let span = || Span::of_request(&id, "message websocket".to_owned(), begun.elapsed());
                doors.app.traces.tell(span);
            }
            let answer = served.answer.map(|answer| doors.unread.hold_any(Some(&caller), answer));
            Answered { answer, begun: served.begun, weight }
        }));
    }

    /// Answers a message of whom nobody can say now whether the key is valid.
    async fn refuse(&mut self, bytes: Bytes, error: &Error) -> Step {
        let refused = rpc::refuse_all(&Text { bytes, place: None }, &public(error));
        match refused.answer {
            Some(answer) => self.write(Message::Text(answer.into())).await,
            None => Ok(()),
        }
    }

    async fn answered(&mut self, answered: Result<Answered, JoinError>) -> Step {
        // Panics are caught around each procedure, and nobody else ends a call.
        let Answered { answer, begun, weight } = answered.map_err(|_| End::Gone)?;
        if let Some(answer) = answer {
            // It was made of a string.
            let text = Utf8Bytes::try_from(answer.clone()).map_err(|_| End::Gone)?;
            self.write(Message::Text(text)).await?;
        }
        if let Some((subscriptions, _)) = &self.subscriptions {
            begun.into_iter().for_each(|begun| subscriptions.start(begun));
        }
        if self.in_flight >= IN_FLIGHT {
            // Until now it was not listened to.
            self.heard = Instant::now();
        }
        self.in_flight -= weight;
        Ok(())
    }

    async fn last_answers(&mut self) {
        while let Some(answered) = self.calls.join_next().await {
            if self.answered(answered).await.is_err() {
                return;
            }
        }
    }

    async fn ping(&mut self) -> Step {
        if self.is_heard() && self.heard.elapsed() > SILENCE {
            return Err(End::Gone);
        }
        self.write(Message::Ping(Default::default())).await
    }

    async fn write(&mut self, message: Message) -> Step {
        let writing = timeout(WRITE, self.socket.send(message));
        tokio::pin!(writing);
        let stop = &self.doors.stop;
        let written = tokio::select! {
            biased;
            written = &mut writing => written,
            // One that does not read does not hold a stop.
            () = stop.cancelled() => match timeout(LAST_ANSWERS, writing).await {
                Ok(written) => written,
                Err(_) => return Err(End::Gone),
            },
        };
        match written {
            Ok(Ok(())) => Ok(()),
            _ => Err(End::Gone),
        }
    }
}

/// The large message that waits, when it does no longer; nothing where none does.
async fn its_turn(waiting: &mut Option<BoxFuture<'static, Turn>>) -> Option<Turn> {
    let turn = waiting.as_mut()?.await;
    *waiting = None;
    Some(turn)
}

/// What the next subscription tells; nothing where there is none.
async fn next(
    subscriptions: &mut Option<(Arc<Subscriptions>, mpsc::Receiver<Box<Notification>>)>,
) -> Option<Box<Notification>> {
    match subscriptions {
        Some((_, told)) => told.recv().await,
        None => None,
    }
}

fn unreadable(error: axum::Error) -> End {
    match error.into_inner().downcast_ref::<tungstenite::Error>() {
        Some(tungstenite::Error::Capacity(_)) => {
            End::Told(CloseFrame { code: close_code::SIZE, reason: "a message has at most 1 MiB".into() })
        }
        _ => End::Gone,
    }
}

fn key_is_over() -> End {
    End::Told(key_is_over_frame())
}

/// What ends a socket, or a subscription's telling, whose key is not valid any more.
pub(super) fn key_is_over_frame() -> CloseFrame {
    CloseFrame { code: close_code::POLICY, reason: "the API key is not valid any more".into() }
}

fn stopping() -> End {
    End::Told(CloseFrame { code: close_code::AWAY, reason: "the server is stopping".into() })
}
