//! `/rpc`: JSON-RPC 2.0 over POST, and over WebSocket after an upgrade ([`rpc_socket`](super::rpc_socket)).
//!
//! The envelope is read here and not by jsonrpsee's server, which drops calls with negative or
//! fractional ids, does not run notifications, and quotes received values in errors; the methods
//! behind it are jsonrpsee's. Every id that JSON-RPC allows is answered as it was sent.

use axum::{
    body::Body,
    extract::{FromRequestParts, Request, State, WebSocketUpgrade},
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use jsonrpsee::types::ErrorObjectOwned;
use purser_proto_schema::{
    error::{Code, PublicError},
    procedure::{Kind, NoInput},
};
use serde_json::value::RawValue;

use super::{
    BATCH_WIDTH, Doors, around,
    auth::{self, Presented},
    batch::{Room, joined, no_room},
    body,
    envelope::tell_how,
    in_process, openrpc, rpc_socket,
    rpc_subscriptions::{Begun, Subscriptions},
    rpc_text::{Calls, NoCalls, Text},
};
use crate::{error::Error, request, rpc};

pub(super) const PARSE_ERROR: i32 = -32_700;
pub(super) const INVALID_REQUEST: i32 = -32_600;
const METHOD_NOT_FOUND: i32 = -32_601;

pub(super) async fn handle(State(doors): State<Doors>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    if wants_websocket(&parts) {
        let caller = match auth::caller(&doors, &parts.headers).await {
            Ok(caller) => caller,
            Err(error) => return refuse(&rpc::public(&error)),
        };
        return match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
            Ok(upgrade) => rpc_socket::upgrade(doors, upgrade, &parts.headers, caller),
            Err(rejection) => no_upgrade(&rejection.body_text()),
        };
    }
    if parts.method != Method::POST {
        let message = "call by POST, or upgrade to a WebSocket";
        let mut response = refuse(&PublicError::new(Code::MethodNotSupported, message));
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let key = auth::Key::shown_in(&parts.headers);
    let body = match body::read_json(&doors, Request::from_parts(parts, body)).await {
        Ok(body) => body,
        Err(error) => return refuse(&error),
    };
    // Only now: the body may have taken long.
    let presented = match auth::caller_of(&doors, &key).await {
        Err(error) if !matches!(error, Error::Unauthorized) => return refuse(&rpc::public(&error)),
        caller => Presented::for_each(caller, key),
    };
    let text = Text { bytes: body.bytes, place: body.place };
    let served = serve(&doors, text, &presented, None).await;
    match served.answer {
        Some(answer) => {
            let status = if served.too_large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::OK };
            json(status, doors.unread.hold(presented.caller().map(AsRef::as_ref), answer))
        }
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// Other upgrades, such as the `h2c` that `curl --http2` offers, may be ignored, and so may one by another method.
fn wants_websocket(parts: &Parts) -> bool {
    let to = parts.headers.get(header::UPGRADE);
    parts.method == Method::GET && to.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The answer to an upgrade that is none, with the one version that is spoken.
fn no_upgrade(why: &str) -> Response {
    let mut response = json(StatusCode::BAD_REQUEST, failure(None, &protocol_error(INVALID_REQUEST, why)));
    response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

/// What comes of a text.
#[derive(Default)]
pub(super) struct Served {
    /// `None` where nothing is to be answered.
    pub(super) answer: Option<String>,
    /// It was not looked at further, and HTTP has a status for that.
    too_large: bool,
    /// To be started when the answer is on its way.
    pub(super) begun: Vec<Begun>,
}

impl Served {
    fn answer(text: String) -> Self {
        Self { answer: Some(text), ..Self::default() }
    }
}

/// Serves a text. Subscriptions begin where there is a table for them. The text is dropped when its last call begins.
pub(super) async fn serve(
    doors: &Doors,
    text: Text,
    presented: &Presented,
    subscriptions: Option<&Subscriptions>,
) -> Served {
    let calls = match text.calls() {
        Ok(Calls::One) => return serve_one(doors, text, presented, subscriptions, None).await,
        Ok(Calls::Batch(calls)) => calls,
        Err(NoCalls { error, too_large }) => {
            return Served { too_large, ..Served::answer(failure(None, &error)) };
        }
    };
    drop(text);
    let room = Room::of(doors, presented.caller().map(AsRef::as_ref), calls.len());
    let calls: Vec<_> = calls
        .into_iter()
        .map(async |call| {
            let served = serve_one(doors, call, presented, subscriptions, Some(&room)).await;
            room.take(served.answer.as_ref().map_or(0, String::len));
            served
        })
        .collect();
    let served: Vec<Served> = stream::iter(calls).buffered(BATCH_WIDTH).collect().await;
    let mut all = Served::default();
    let mut answers = Vec::with_capacity(served.len());
    for one in served {
        answers.extend(one.answer);
        all.begun.extend(one.begun);
    }
    if !answers.is_empty() {
        all.answer = Some(joined(answers));
    }
    all
}

/// Answers the calls of a text that is not served, none of which is made.
pub(super) fn refuse_all(text: &Text, error: &PublicError) -> Served {
    let error = object(error);
    let refused = |call: &Text| match call.read() {
        Ok((call, _)) => call.id.map(|id| failure(Some(id), &error)),
        Err(message) => Some(failure(None, &protocol_error(INVALID_REQUEST, message))),
    };
    let answer = match text.calls() {
        Ok(Calls::One) => refused(text),
        Ok(Calls::Batch(calls)) => {
            let answers: Vec<_> = calls.iter().filter_map(refused).collect();
            (!answers.is_empty()).then(|| joined(answers))
        }
        Err(NoCalls { error, .. }) => Some(failure(None, &error)),
    };
    Served { answer, ..Served::default() }
}

/// Serves a call; one of a batch where there is a room.
async fn serve_one(
    doors: &Doors,
    text: Text,
    presented: &Presented,
    subscriptions: Option<&Subscriptions>,
    room: Option<&Room>,
) -> Served {
    let (call, method) = match text.read() {
        Ok(read) => read,
        Err(message) => return Served::answer(failure(None, &protocol_error(INVALID_REQUEST, message))),
    };
    let found = doors.procedures.info(&method);
    // What is not made waits for nobody.
    let calls = room.filter(|room| room.is_left()).map_or(1, |room| room.calls);
    let turn = doors.large_batches.turn(calls, found, presented.caller()).await;
    // What is not answered takes no room.
    let unread = || call.id.map_or(Ok(()), |_| doors.unread.room_for(presented.caller().map(AsRef::as_ref)));
    let turn = match turn.and_then(|turn| unread().map(|()| turn)) {
        Ok(turn) => turn,
        Err(error) => {
            let error = rpc::public(&error);
            around::turned_away(doors, found, error.data.code);
            let failure = |id| failure(Some(id), &object(&error));
            return Served { answer: call.id.map(failure), ..Served::default() };
        }
    };
    // A batch of one begins at once, too.
    let caller = match (found, room) {
        (Some(info), Some(room)) if room.calls > 1 => match presented.now(doors).await {
            Ok(caller) => Some(caller),
            Err(error) if error.data.code == Code::Unauthorized => None,
            Err(error) => {
                around::turned_away(doors, found, error.data.code);
                let failure = |id| failure(Some(id), &object(&error.at(info.name)));
                return Served { answer: call.id.map(failure), ..Served::default() };
            }
        },
        _ => presented.caller().cloned(),
    };
    let id = call.id.map(ToOwned::to_owned);
    let mut begun = Vec::new();
    let answer = match found {
        _ if id.is_some() && !room.is_none_or(Room::is_left) => {
            let error = no_room();
            around::turned_away(doors, found, error.data.code);
            Err(object(&error))
        }
        Some(info) if info.kind == Kind::Subscription => match (subscriptions, call.id) {
            (Some(subscriptions), Some(_)) => {
                if let Some(place) = &text.place {
                    place.has_been_read();
                }
                subscriptions.begin(info, call.params, caller.as_ref()).await.map(|subscription| {
                    let id = subscription.id.to_string();
                    begun.push(subscription);
                    id
                })
            }
            // Nobody would know its number.
            (_, None) => return Served::default(),
            (None, _) => {
                around::turned_away(doors, found, Code::MethodNotSupported);
                Err(only_on_sockets(info.name))
            }
        },
        Some(info) => {
            let place = text.place.clone();
            let calling = in_process::call(doors, info.name, call.params, caller, place);
            // It may take long, and needs nothing more of the text.
            drop(text);
            turn.take(calling).await.map(|result| String::from(Box::<str>::from(result)))
        }
        None if doors.procedures.ends_subscriptions(&method) => match subscriptions {
            Some(subscriptions) => subscriptions.end(&method, call.params).map(|ended| ended.to_string()),
            None => {
                around::turned_away(doors, None, Code::MethodNotSupported);
                Err(only_on_sockets(&method))
            }
        },
        None if method == openrpc::DISCOVER => match call.params.is_none_or(is_nothing) {
            true => {
                // A document, and no call that was refused.
                request::current().inspect(request::Request::reach);
                Ok(openrpc::text().to_owned())
            }
            false => Err(rpc::wire(&method, Error::form("takes no parameters"))),
        },
        None => {
            around::turned_away(doors, None, Code::NotFound);
            let public = PublicError::new(Code::NotFound, "no procedure of this name");
            Err(ErrorObjectOwned::owned(METHOD_NOT_FOUND, public.message, Some(public.data)))
        }
    };
    let answer = id.map(|id| match answer {
        Ok(result) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#),
        Err(error) => failure(Some(&id), &error),
    });
    Served { answer, begun, too_large: false }
}

/// Whether there are none, by name or by position.
fn is_nothing(params: &RawValue) -> bool {
    serde_json::from_str::<NoInput>(params.get()).is_ok()
}

fn only_on_sockets(name: &str) -> ErrorObjectOwned {
    let message = format!("{name} is for subscriptions: call it on a WebSocket at /rpc");
    object(&PublicError::new(Code::MethodNotSupported, message).at(name))
}

pub(super) fn object(error: &PublicError) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(error.data.code.number(), error.message.clone(), Some(error.data.clone()))
}

pub(super) fn protocol_error(code: i32, message: &str) -> ErrorObjectOwned {
    let public = if code == PARSE_ERROR { Code::ParseError } else { Code::BadRequest };
    ErrorObjectOwned::owned(code, message, Some(PublicError::new(public, message).data))
}

fn failure(id: Option<&RawValue>, error: &ErrorObjectOwned) -> String {
    let id = id.map_or("null", RawValue::get);
    // A number, a string and JSON: writing them does not fail.
    let error = serde_json::to_string(error).unwrap_or_default();
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// A failure before there is any call to answer: its HTTP status says it too.
fn refuse(error: &PublicError) -> Response {
    let status = StatusCode::from_u16(error.data.http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, failure(None, &object(error)));
    tell_how(response.headers_mut(), error);
    response
}

fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let media = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}
