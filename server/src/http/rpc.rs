//! `/rpc`: JSON-RPC 2.0 over POST, and over WebSocket after an upgrade ([`rpc_socket`](super::rpc_socket)).
//!
//! The envelope is read here and not by jsonrpsee's server, which drops calls with negative or
//! fractional ids, does not run notifications, and quotes received values in errors; the methods
//! behind it are jsonrpsee's. Every id that JSON-RPC allows is answered as it was sent.

use std::{fmt, sync::Arc};

use axum::{
    body::Body,
    extract::{FromRequestParts, Request, State, WebSocketUpgrade},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use jsonrpsee::types::ErrorObjectOwned;
use purser_proto_schema::{
    error::{Code, PublicError},
    procedure::Kind,
};
use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    BATCH_WIDTH, Doors, MAX_BATCH, auth,
    batch::{Room, joined, no_room},
    body, in_process, openrpc, rpc_socket,
    rpc_subscriptions::{Begun, Subscriptions},
};
use crate::{domain::caller::Caller, error::Error, metrics::UNKNOWN, request, rpc};

const PARSE_ERROR: i32 = -32_700;
const INVALID_REQUEST: i32 = -32_600;
const METHOD_NOT_FOUND: i32 = -32_601;

pub(super) async fn handle(State(doors): State<Doors>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    if wants_websocket(&parts.headers) {
        let caller = match auth::caller(&doors, &parts.headers).await {
            Ok(caller) => caller,
            Err(error) => return refuse(&rpc::public(&error)),
        };
        return match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
            Ok(upgrade) => rpc_socket::upgrade(doors, upgrade, &parts.headers, caller),
            Err(rejection) => rejection.into_response(),
        };
    }
    if parts.method != Method::POST {
        return refuse(&PublicError::new(
            Code::MethodNotSupported,
            "call by POST, or upgrade to a WebSocket",
        ));
    }
    let caller = match auth::caller(&doors, &parts.headers).await {
        Ok(caller) => Some(caller),
        Err(Error::Unauthorized) => None,
        Err(error) => return refuse(&rpc::public(&error)),
    };
    let body = match body::read_json(&doors, Request::from_parts(parts, body)).await {
        Ok(body) => body,
        Err(error) => return refuse(&error),
    };
    let served = serve(&doors, &body.bytes, caller.as_ref(), None).await;
    match served.answer {
        Some(answer) if served.too_large => json(StatusCode::PAYLOAD_TOO_LARGE, answer),
        Some(answer) => json(StatusCode::OK, answer),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// Other upgrades, such as the `h2c` that `curl --http2` offers, may be ignored.
fn wants_websocket(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
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

/// Serves a text of one call or a batch. Subscriptions begin where there is a table for them.
pub(super) async fn serve(
    doors: &Doors,
    text: &[u8],
    caller: Option<&Arc<Caller>>,
    subscriptions: Option<&Subscriptions>,
) -> Served {
    let calls = match Text::read(text) {
        Text::NotJson => {
            return Served::answer(failure(None, &protocol_error(PARSE_ERROR, "the text is not JSON")));
        }
        Text::One(call) => return serve_one(doors, call, caller, subscriptions, true).await,
        Text::Batch(calls) if calls.is_empty() => {
            let error = protocol_error(INVALID_REQUEST, "a batch has 1 to 100 calls");
            return Served::answer(failure(None, &error));
        }
        Text::Batch(calls) => calls,
        Text::LongBatch => {
            let error = object(&PublicError::new(Code::PayloadTooLarge, "a batch has at most 100 calls"));
            return Served { too_large: true, ..Served::answer(failure(None, &error)) };
        }
    };
    let room = Room::default();
    let calls: Vec<_> = calls
        .into_iter()
        .map(async |call| {
            let served = serve_one(doors, call, caller, subscriptions, room.is_left()).await;
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

/// What a text is. Of a batch with too many calls no more is looked at than shows that.
enum Text<'a> {
    NotJson,
    One(&'a RawValue),
    Batch(Vec<&'a RawValue>),
    LongBatch,
}

impl<'a> Text<'a> {
    fn read(text: &'a [u8]) -> Self {
        if !text.trim_ascii_start().starts_with(b"[") {
            return serde_json::from_slice(text).map_or(Self::NotJson, Self::One);
        }
        match serde_json::from_slice::<Calls<'_>>(text) {
            Ok(Calls(calls)) => Self::Batch(calls),
            // Nothing but `Calls` itself complains of anything but the syntax.
            Err(error) if error.is_data() => Self::LongBatch,
            Err(_) => Self::NotJson,
        }
    }
}

/// The calls of a batch, at most [`MAX_BATCH`].
struct Calls<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Calls<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Calls<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_BATCH} calls")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut calls: A) -> Result<Self::Value, A::Error> {
                let mut seen = Vec::new();
                while let Some(call) = calls.next_element()? {
                    if seen.len() == MAX_BATCH {
                        return Err(de::Error::invalid_length(MAX_BATCH + 1, &self));
                    }
                    seen.push(call);
                }
                Ok(Calls(seen))
            }
        }
        deserializer.deserialize_seq(Seen)
    }
}

/// A call as it is received. Unknown members are ignored, as JSON-RPC's extensions need.
#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    jsonrpc: &'a RawValue,
    #[serde(borrow)]
    method: &'a RawValue,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
}

/// `null` is an id; only an absent one makes a notification.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

async fn serve_one(
    doors: &Doors,
    raw: &RawValue,
    caller: Option<&Arc<Caller>>,
    subscriptions: Option<&Subscriptions>,
    room: bool,
) -> Served {
    let (call, method) = match read(raw) {
        Ok(read) => read,
        Err(message) => return Served::answer(failure(None, &protocol_error(INVALID_REQUEST, message))),
    };
    let mut begun = Vec::new();
    let answer = match doors.procedures.info(&method) {
        // What is not answered takes no room.
        _ if !room && call.id.is_some() => Err(object(&no_room())),
        Some(info) if info.kind == Kind::Subscription => match (subscriptions, call.id) {
            (Some(subscriptions), Some(_)) => {
                subscriptions.begin(info, call.params, caller).await.map(|subscription| {
                    let id = subscription.id.to_string();
                    begun.push(subscription);
                    id
                })
            }
            // Nobody would know its number.
            (_, None) => return Served::default(),
            (None, _) => Err(only_on_sockets(info.name)),
        },
        Some(info) => {
            let answer = in_process::call(doors, info.name, call.params, caller.cloned()).await;
            answer.map(|result| String::from(Box::<str>::from(result)))
        }
        None if doors.procedures.ends_subscriptions(&method) => match subscriptions {
            Some(subscriptions) => subscriptions.end(&method, call.params).map(|ended| ended.to_string()),
            None => Err(only_on_sockets(&method)),
        },
        None if method == openrpc::DISCOVER => match call.params.map(RawValue::get) {
            None | Some("{}" | "[]") => Ok(openrpc::text().to_owned()),
            Some(_) => Err(rpc::wire(&method, Error::form("takes no parameters"))),
        },
        None => {
            if let Some(request) = request::current() {
                request.reach();
                doors.app.metrics.turned_away(UNKNOWN, request.door, Code::NotFound.as_str());
            }
            let public = PublicError::new(Code::NotFound, "no procedure of this name");
            Err(ErrorObjectOwned::owned(METHOD_NOT_FOUND, public.message, Some(public.data)))
        }
    };
    let answer = call.id.map(|id| match answer {
        Ok(result) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#),
        Err(error) => failure(Some(id), &error),
    });
    Served { answer, begun, too_large: false }
}

/// A call and its method, or what is wrong with its form.
fn read(raw: &RawValue) -> Result<(Call<'_>, String), &'static str> {
    let is_object = raw.get().starts_with('{');
    // serde would read an array as the struct's fields in order.
    let Some(call) = is_object.then(|| serde_json::from_str::<Call<'_>>(raw.get()).ok()).flatten() else {
        return Err("a call is an object with `jsonrpc` and `method`");
    };
    if call.id.is_some_and(|id| !is_id(id)) {
        return Err("an id is a string, a number or null");
    }
    let Ok(method) = serde_json::from_str::<String>(call.method.get()) else {
        return Err("`method` is a string");
    };
    if call.jsonrpc.get() != r#""2.0""# {
        return Err("`jsonrpc` is \"2.0\"");
    }
    if call.params.is_some_and(|params| !params.get().starts_with(['{', '['])) {
        return Err("`params` is an object");
    }
    Ok((call, method))
}

fn only_on_sockets(name: &str) -> ErrorObjectOwned {
    let message = format!("{name} is for subscriptions: call it on a WebSocket at /rpc");
    object(&PublicError::new(Code::MethodNotSupported, message).at(name))
}

fn object(error: &PublicError) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(error.data.code.number(), error.message.clone(), Some(error.data.clone()))
}

fn is_id(id: &RawValue) -> bool {
    let text = id.get();
    text == "null" || text.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit())
}

fn protocol_error(code: i32, message: &str) -> ErrorObjectOwned {
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
    json(status, failure(None, &object(error)))
}

fn json(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let media = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}
