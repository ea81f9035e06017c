//! Subscriptions as server-sent events, for tRPC's `httpSubscriptionLink`, `EventSource` and `curl -N`.
//!
//! First comes `connected` with what the client should know; then the events, each with its id, and a `ping`
//! whenever there was nothing else for a while. `return` says that there is no more to tell, and
//! `serialized-error` why it ended. All of that is status 200, also a wrong key: a client reads the error only
//! there. When the server stops the stream just ends, and clients come back by themselves, with the id of
//! the last event (`Last-Event-ID`, `lastEventId` in the URL or in the input).
//!
//! An event is asked for when there is room to write it, so whoever reads slowly holds nothing up.

use std::{collections::BTreeMap, convert::Infallible, fmt::Write, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use futures_util::{StreamExt, future::ready, stream};
use purser_proto_schema::{error::PublicError, procedure::ProcedureInfo};
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::timeout;

use super::{
    Doors, around, auth,
    envelope::{error_shape, in_dialect, public, respond, unbuffered},
    in_process, superjson, trpc,
};
use crate::{
    domain::caller::Caller,
    rpc::{self, WireEvents, WireSubscription},
};

/// After how long without an event a ping is sent.
const PING: Duration = Duration::from_secs(10);
/// After how long without any a client takes the connection for lost: three pings.
const LOST: Duration = Duration::from_secs(30);
const LAST_EVENT_ID: &str = "last-event-id";

/// What is asked for.
pub(super) struct Asked {
    /// As the URL or the body has it.
    pub(super) input: Result<Option<Box<RawValue>>, PublicError>,
    /// As the URL has it.
    pub(super) last_event_id: Option<String>,
    /// What a browser cannot send as headers: a JSON object of strings.
    pub(super) connection_params: Option<String>,
}

/// Serves a subscription.
pub(super) async fn serve(
    doors: &Doors,
    info: &'static ProcedureInfo,
    mut headers: HeaderMap,
    asked: Asked,
) -> Response {
    let input = superjson::read(asked.input.as_ref().ok().and_then(Option::as_deref));
    let begun = begin(doors, info, &mut headers, input.json, &asked).await;
    let options = format!(r#"{{"reconnectAfterInactivityMs":{}}}"#, LOST.as_millis());
    let connected = |since: Option<&str>| message(Some("connected"), &options, since);
    let messages = match begun {
        Ok(WireSubscription { since, events }) => {
            // With an id, so that who loses the stream before the first event misses none.
            let first = connected(since.as_deref());
            let telling = Telling {
                doors: doors.clone(),
                info,
                key: auth::Key::shown_in(&headers),
                superjson: input.superjson,
                events,
                over: false,
            };
            stream::once(ready(first)).chain(stream::unfold(telling, Telling::next)).boxed()
        }
        Err(error) => stream::iter([connected(None), failure(&error, input.superjson)]).boxed(),
    };
    let body = Body::from_stream(messages.map(|message| Ok::<_, Infallible>(Bytes::from(message))));
    let mut response = unbuffered(respond(StatusCode::OK, body));
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    response
}

async fn begin(
    doors: &Doors,
    info: &'static ProcedureInfo,
    headers: &mut HeaderMap,
    input: Option<Box<RawValue>>,
    asked: &Asked,
) -> Result<WireSubscription, PublicError> {
    let caller = admit(doors, info, headers, asked).await;
    let caller = caller.inspect_err(|error| around::turned_away(doors, Some(info), error.data.code))?;
    let from_header = headers.get(LAST_EVENT_ID).map(|id| String::from_utf8_lossy(id.as_bytes()));
    let last = from_header.as_deref().or(asked.last_event_id.as_deref()).filter(|id| !id.is_empty());
    let input = match last {
        Some(id) => with_last_event_id(input, id),
        None => input,
    };
    let begun = in_process::subscribe(doors, info.name, input.as_deref(), Some(&caller)).await;
    begun.map_err(|error| public(&error, info.name))
}

async fn admit(
    doors: &Doors,
    info: &ProcedureInfo,
    headers: &mut HeaderMap,
    asked: &Asked,
) -> Result<Arc<Caller>, PublicError> {
    let refused = |error| rpc::public(&error).at(info.name);
    if let Some(params) = &asked.connection_params {
        auth::take_connection_params(headers, params).map_err(refused)?;
    }
    let caller = auth::caller(doors, headers).await.map_err(refused)?;
    match &asked.input {
        Ok(_) => Ok(caller),
        Err(error) => Err(trpc::unreadable(doors, &caller, info, false, error)),
    }
}

/// The input with the id that the client came back with: newer than the one that it may have in there.
fn with_last_event_id(input: Option<Box<RawValue>>, id: &str) -> Option<Box<RawValue>> {
    let mut fields: BTreeMap<String, Box<RawValue>> = match &input {
        Some(raw) if raw.get() != "null" => match serde_json::from_str(raw.get()) {
            Ok(fields) => fields,
            // What is wrong with it is the procedure's to say.
            Err(_) => return input,
        },
        _ => BTreeMap::new(),
    };
    fields.insert("lastEventId".to_owned(), to_raw_value(id).ok()?);
    to_raw_value(&fields).ok()
}

/// A subscription under way.
struct Telling {
    doors: Doors,
    info: &'static ProcedureInfo,
    key: auth::Key,
    superjson: bool,
    events: WireEvents,
    over: bool,
}

impl Telling {
    async fn next(mut self) -> Option<(String, Self)> {
        if self.over {
            return None;
        }
        let event = tokio::select! {
            biased;
            () = self.doors.stop.cancelled() => return None,
            event = timeout(PING, self.events.next()) => event,
        };
        let message = match event {
            Err(_) => message(Some("ping"), "", None),
            // As with each call: a key that was revoked or has expired is told nothing more.
            Ok(Some(Ok(event))) => match auth::caller_of(&self.doors, &self.key).await {
                Ok(_) => message(None, &in_dialect(event.data.get(), self.superjson), Some(&event.id)),
                Err(error) => self.end(&rpc::public(&error).at(self.info.name)),
            },
            Ok(Some(Err(error))) => self.end(&public(&error, self.info.name)),
            // It ended because the server stops.
            Ok(None) if self.doors.stop.is_cancelled() => return None,
            Ok(None) => {
                self.over = true;
                message(Some("return"), "", None)
            }
        };
        Some((message, self))
    }

    fn end(&mut self, error: &PublicError) -> String {
        self.over = true;
        failure(error, self.superjson)
    }
}

fn failure(error: &PublicError, superjson: bool) -> String {
    message(Some("serialized-error"), &in_dialect(&error_shape(error), superjson), None)
}

/// One event of a stream. `data` has no line breaks: it is compact JSON.
fn message(event: Option<&str>, data: &str, id: Option<&str>) -> String {
    let mut text = String::with_capacity(data.len() + 64);
    // Writing to a string does not fail.
    if let Some(event) = event {
        let _ = writeln!(text, "event: {event}");
    }
    let _ = writeln!(text, "data: {data}");
    if let Some(id) = id {
        let _ = writeln!(text, "id: {id}");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_id(input: Option<&str>) -> String {
        let input = input.map(|text| serde_json::from_str(text).unwrap());
        with_last_event_id(input, "7").unwrap().get().to_owned()
    }

    #[test]
    fn the_id_that_a_client_came_back_with_is_put_into_its_input() {
        assert_eq!(with_id(None), r#"{"lastEventId":"7"}"#);
        assert_eq!(with_id(Some("null")), r#"{"lastEventId":"7"}"#);
        assert_eq!(with_id(Some(r#"{"jobId":"j"}"#)), r#"{"jobId":"j","lastEventId":"7"}"#);
        assert_eq!(with_id(Some(r#"{"lastEventId":"3"}"#)), r#"{"lastEventId":"7"}"#);
        assert_eq!(with_id(Some("[1]")), "[1]");
    }

    #[test]
    fn an_event_is_lines_and_an_empty_one() {
        assert_eq!(message(Some("ping"), "", None), "event: ping\ndata: \n\n");
        assert_eq!(message(None, "1", Some("2")), "data: 1\nid: 2\n\n");
    }
}
