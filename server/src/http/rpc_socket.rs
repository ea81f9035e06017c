//! JSON-RPC 2.0 over a WebSocket: one key, presented at the upgrade and looked at again with each
//! message. One that is removed or expires ends the socket, also while nothing is said on it.
//!
//! Calls of a socket run side by side, at most [`IN_FLIGHT`]; then the socket is read no further, so a
//! caller that does not read its answers only slows itself down. When it hangs up nobody waits for its
//! calls any more, and its subscriptions ([`rpc_subscriptions`](super::rpc_subscriptions)) end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{
        WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code},
    },
    http::HeaderMap,
    response::Response,
};
use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Doors, MAX_BODY, auth, rpc,
    rpc_subscriptions::{Notification, Subscriptions},
};
use crate::{
    domain::caller::Caller,
    request::{self, Request},
    traces::Span,
};

/// Calls of one socket under way at once.
const IN_FLIGHT: usize = 32;
/// How often the caller is pinged.
const PING: Duration = Duration::from_secs(30);
/// How long a caller may be silent, pongs included.
const SILENCE: Duration = Duration::from_secs(90);
/// How long calls under way may take that are still answered before the socket is closed.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How long a write may take.
const WRITE: Duration = Duration::from_secs(15);

pub(super) fn upgrade(
    doors: Doors,
    upgrade: WebSocketUpgrade,
    headers: HeaderMap,
    caller: Arc<Caller>,
) -> Response {
    let opened_by = request::current();
    // Known from now on, so that a stop waits until it was told.
    let known = doors.sockets.token();
    upgrade.max_message_size(MAX_BODY).max_frame_size(MAX_BODY).on_upgrade(|socket| async move {
        request::within(opened_by.clone(), serve(doors, socket, headers, caller, opened_by)).await;
        drop(known);
    })
}

async fn serve(
    doors: Doors,
    socket: WebSocket,
    headers: HeaderMap,
    caller: Arc<Caller>,
    opened_by: Option<Request>,
) {
    let open = doors.app.known_keys.hold_open(&caller);
    let key_ended = open.ended();
    tokio::pin!(key_ended);
    let (writer, mut reader) = socket.split();
    let (answers, to_write) = mpsc::channel::<Message>(IN_FLIGHT);
    let broken = CancellationToken::new();
    let (subscriptions, to_tell) = Subscriptions::new(doors.clone(), headers.clone());
    let subscriptions = Arc::new(subscriptions);
    let writing = tokio::spawn(write(writer, to_write, to_tell, doors.stop.clone(), broken.clone()));
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut calls = JoinSet::new();
    let mut number = 0;
    let last = loop {
        let message = tokio::select! {
            () = broken.cancelled() => break None,
            () = &mut key_ended => break Some(key_is_over()),
            message = timeout(SILENCE, reader.next()) => message,
        };
        let text = match message {
            Ok(Some(Ok(Message::Text(text)))) => text,
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
            Ok(Some(Ok(Message::Binary(_)))) => {
                let frame = CloseFrame { code: close_code::UNSUPPORTED, reason: "send text".into() };
                break Some(Message::Close(Some(frame)));
            }
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => break None,
        };
        let place = tokio::select! {
            () = broken.cancelled() => break None,
            () = &mut key_ended => break Some(key_is_over()),
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let Ok(caller) = auth::caller(&doors, &headers).await else {
            break Some(key_is_over());
        };
        while calls.try_join_next().is_some() {}
        let (doors, answers, subscriptions) = (doors.clone(), answers.clone(), Arc::clone(&subscriptions));
        number += 1;
        let message = opened_by.as_ref().map(|socket| socket.message(number));
        let (id, begun) = (message.as_ref().map(|message| message.id.clone()), Instant::now());
        calls.spawn(request::within(message, async move {
            let served = rpc::serve(&doors, text.as_bytes(), Some(&caller), Some(&subscriptions)).await;
            if let Some(answer) = served.answer {
                let _ = answers.send(Message::Text(answer.into())).await;
            }
            served.begun.into_iter().for_each(|begun| subscriptions.start(begun));
            if let Some(id) = id {
                let span = || Span::of_request(&id, "message websocket".to_owned(), begun.elapsed());
                doors.app.traces.tell(span);
            }
            drop(place);
        }));
    };
    if let Some(last) = last {
        // The call that removed the socket's own key is answered.
        let _ = timeout(LAST_ANSWERS, async { while calls.join_next().await.is_some() {} }).await;
        let _ = answers.try_send(last);
    }
    calls.shutdown().await;
    drop(answers);
    let _ = timeout(WRITE, writing).await;
}

/// What ends a socket, or a subscription's telling, whose key is not valid any more.
pub(super) fn key_is_over() -> Message {
    let reason = "the API key is not valid any more".into();
    Message::Close(Some(CloseFrame { code: close_code::POLICY, reason }))
}

async fn write(
    mut writer: SplitSink<WebSocket, Message>,
    mut answers: mpsc::Receiver<Message>,
    mut notifications: mpsc::Receiver<Notification>,
    stop: CancellationToken,
    broken: CancellationToken,
) {
    let _ends_reading = broken.drop_guard();
    let mut pings = interval(PING);
    loop {
        let message = tokio::select! {
            biased;
            () = stop.cancelled() => {
                let frame = CloseFrame { code: close_code::AWAY, reason: "the server is stopping".into() };
                let _ = timeout(WRITE, writer.send(Message::Close(Some(frame)))).await;
                return;
            }
            _ = pings.tick() => Message::Ping(Default::default()),
            // A subscription's number goes out before what it tells.
            answer = answers.recv() => match answer {
                Some(answer) => answer,
                None => return,
            },
            Some(notification) = notifications.recv() => match notification.message() {
                Some(message) => message,
                None => continue,
            },
        };
        let closing = matches!(message, Message::Close(_));
        match timeout(WRITE, writer.send(message)).await {
            Ok(Ok(())) if !closing => {}
            _ => return,
        }
    }
}
