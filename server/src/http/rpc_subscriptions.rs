//! The subscriptions of one `/rpc` socket.
//!
//! The answer to `job.watch` is a number; every event is a notification
//! `{"method":"job.watch","params":{"subscription":<number>,"id":<text>,"result":…}}`, and one that ends in
//! an error says so in `error` in the place of `id` and `result`. The id is the `lastEventId` of whoever
//! begins anew after the socket was lost. `job.unwatch` with `{"subscription":<number>}`, or with `[<number>]`
//! as jsonrpsee's clients send it, ends one early and answers whether there was one.
//!
//! All of a socket's subscriptions share a queue of one message, so one that is not read holds each of
//! them where it is, and nothing grows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::extract::ws::Message;
use futures_util::StreamExt;
use jsonrpsee::types::ErrorObjectOwned;
use purser_proto_schema::{error::Code, procedure::ProcedureInfo};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Doors, around, auth, in_process, rpc_socket::key_is_over_frame};
use crate::{
    domain::{caller::Caller, tracked::Tracked},
    error::Error,
    request, rpc,
};

/// The most of one socket.
const AT_ONCE: usize = 64;

/// What a subscription has to say.
pub(super) struct Notification {
    message: Message,
    of: CancellationToken,
}

impl Notification {
    /// What to write; nothing where the subscription was ended meanwhile.
    pub(super) fn message(self) -> Option<Message> {
        (!self.of.is_cancelled()).then_some(self.message)
    }
}

/// The table. Dropping it ends what is in it.
pub(super) struct Subscriptions {
    doors: Doors,
    key: auth::Key,
    notifications: mpsc::Sender<Box<Notification>>,
    table: Arc<Mutex<Table>>,
    all: CancellationToken,
    _end: DropGuard,
}

#[derive(Default)]
struct Table {
    newest: u64,
    live: HashMap<u64, Live>,
}

struct Live {
    of: &'static ProcedureInfo,
    ended: CancellationToken,
}

/// A subscription that was answered with its number; it tells nothing before it is started.
pub(super) struct Begun {
    /// Its number.
    pub(super) id: u64,
    info: &'static ProcedureInfo,
    events: rpc::WireEvents,
    place: Place,
}

/// A place in the table, given back when this is dropped.
struct Place {
    id: u64,
    ended: CancellationToken,
    table: Arc<Mutex<Table>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.table).live.remove(&self.id);
    }
}

impl Subscriptions {
    /// None yet, of a socket that was opened with a key.
    pub(super) fn new(doors: Doors, key: auth::Key) -> (Self, mpsc::Receiver<Box<Notification>>) {
        let (notifications, to_write) = mpsc::channel(1);
        let all = CancellationToken::new();
        let end = all.clone().drop_guard();
        (Self { doors, key, notifications, table: Arc::default(), all, _end: end }, to_write)
    }

    /// Begins one, or says why not.
    pub(super) async fn begin(
        &self,
        info: &'static ProcedureInfo,
        params: Option<&RawValue>,
        caller: Option<&Arc<Caller>>,
    ) -> Result<Begun, ErrorObjectOwned> {
        let Some(place) = self.place(info) else { return Err(self.too_many(info, caller)) };
        let begun = in_process::subscribe(&self.doors, info.name, params, caller).await?;
        Ok(Begun { id: place.id, info, events: begun.events, place })
    }

    /// A call all the same, of a key that may make it.
    fn too_many(&self, info: &ProcedureInfo, caller: Option<&Arc<Caller>>) -> ErrorObjectOwned {
        let let_in = |caller: &Arc<Caller>| rpc::let_in(&self.doors.app, info, caller, false);
        let refused = caller.ok_or(Error::Unauthorized).and_then(let_in).err();
        let error =
            refused.unwrap_or(Error::TooManySubscriptions { holder: "this WebSocket", most: AT_ONCE });
        around::turned_away(&self.doors, Some(info), rpc::public(&error).data.code);
        rpc::wire(info.name, error)
    }

    fn place(&self, of: &'static ProcedureInfo) -> Option<Place> {
        let mut table = lock(&self.table);
        if table.live.len() >= AT_ONCE {
            return None;
        }
        table.newest += 1;
        let (id, ended) = (table.newest, self.all.child_token());
        table.live.insert(id, Live { of, ended: ended.clone() });
        Some(Place { id, ended, table: Arc::clone(&self.table) })
    }

    /// Ends the one of the method's procedure that the parameters name, and says whether there was one.
    pub(super) fn end(&self, method: &str, params: Option<&RawValue>) -> Result<bool, ErrorObjectOwned> {
        #[derive(Deserialize)]
        struct Named {
            subscription: u64,
        }
        let named = params.and_then(|params| match serde_json::from_str::<(u64,)>(params.get()) {
            Ok((id,)) => Some(id),
            Err(_) => serde_json::from_str::<Named>(params.get()).ok().map(|named| named.subscription),
        });
        let Some(id) = named else {
            let error =
                Error::field("subscription", "must be the number that the subscription was answered with");
            return Err(rpc::wire(method, error));
        };
        let mut table = lock(&self.table);
        // One of another procedure is none.
        let is_its = table.live.get(&id).is_some_and(|live| live.of.unsubscribe().as_deref() == Some(method));
        let live = if is_its { table.live.remove(&id) } else { None };
        drop(table);
        if let Some(live) = &live {
            live.ended.cancel();
        }
        Ok(live.is_some())
    }

    /// Lets one tell. Its answer must be on its way.
    pub(super) fn start(&self, begun: Begun) {
        let (doors, key) = (self.doors.clone(), self.key.clone());
        let notifications = self.notifications.clone();
        let of = request::current();
        tokio::spawn(async move {
            let ended = begun.place.ended.clone();
            let telling = request::within(of, tell(doors, key, begun, notifications));
            ended.run_until_cancelled(telling).await;
        });
    }
}

async fn tell(doors: Doors, key: auth::Key, begun: Begun, notifications: mpsc::Sender<Box<Notification>>) {
    let Begun { id, info, mut events, place } = begun;
    while let Some(event) = events.next().await {
        // As with each call: a key that was revoked or has expired is told nothing more.
        let is_over = matches!(&event, Err(error) if error.code() == Code::Unauthorized.number());
        let (message, is_last) = match auth::caller_of(&doors, &key).await {
            Ok(_) if !is_over => (Message::Text(notification(info.name, id, event).into()), false),
            Ok(_) | Err(Error::Unauthorized) => (Message::Close(Some(key_is_over_frame())), true),
            // Nobody can say now: it comes back with the last id that it was told.
            Err(error) => {
                let error = Err(rpc::wire(info.name, error));
                (Message::Text(notification(info.name, id, error).into()), true)
            }
        };
        let notification = Notification { message, of: place.ended.clone() };
        if notifications.send(Box::new(notification)).await.is_err() || is_last {
            return;
        }
    }
}

fn notification(
    method: &str,
    subscription: u64,
    event: Result<Tracked<Box<RawValue>>, ErrorObjectOwned>,
) -> String {
    // Numbers, strings and JSON: writing them does not fail.
    let told = match event {
        Ok(Tracked { id, data }) => {
            format!(r#""id":{},"result":{data}"#, serde_json::to_string(&id).unwrap_or_default())
        }
        Err(error) => format!(r#""error":{}"#, serde_json::to_string(&error).unwrap_or_default()),
    };
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"subscription":{subscription},{told}}}}}"#)
}

/// A poisoned lock only means that another task panicked between two map operations.
fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}
