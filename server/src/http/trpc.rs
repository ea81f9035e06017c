//! `/api/trpc/<procedure>`: tRPC over HTTP as v10 and v11 clients speak it, and as `curl` does in
//! Dokploy's documents (POST on a query).
//!
//! Order of checks, as in tRPC: media type 415, procedure 404, method 405, key 401, permission 403,
//! input 400. The input of a batch is one for all: where it is no JSON, each call is refused by itself, with its own
//! 403 before the 400. A batch answers each call by itself: all at once, with 207 where the statuses differ, or line
//! by line ([`jsonl`]). Subscriptions are told as server-sent events ([`sse`]).

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::Bytes,
    extract::{Query, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::Response,
};
use futures_util::{StreamExt, stream};
use purser_proto_schema::{
    error::{Code, PublicError},
    procedure::{Kind, ProcedureInfo},
};
use serde_json::value::RawValue;

use super::{
    BATCH_WIDTH, Doors, MAX_BATCH, around,
    auth::{self, Presented},
    batch::{Room, Turn, no_room},
    body,
    envelope::{self, Outcome, public, refusal, respond, single},
    in_process, jsonl, sse, superjson,
};
use crate::{
    domain::{caller::Caller, large_inputs::Place},
    error::Error,
    rpc::{self, Aside},
};

const MOUNT: &str = "/api/trpc/";

/// What the query string says. Other parameters are not looked at.
#[derive(Default)]
struct Options {
    batch: Option<String>,
    input: Option<String>,
    last_event_id: Option<String>,
    connection_params: Option<String>,
    /// Nobody knows what is meant by one that is given twice.
    unreadable: Option<PublicError>,
}

impl Options {
    fn of(uri: &Uri) -> Self {
        let given =
            Query::<Vec<(String, String)>>::try_from_uri(uri).map_or_else(|_| Vec::new(), |all| all.0);
        let mut options = Self::default();
        for (name, value) in given {
            let (name, option) = match name.as_str() {
                "batch" => ("batch", &mut options.batch),
                "input" => ("input", &mut options.input),
                "lastEventId" | "Last-Event-Id" => ("lastEventId", &mut options.last_event_id),
                "connectionParams" => ("connectionParams", &mut options.connection_params),
                _ => continue,
            };
            if option.replace(value).is_some() {
                options.unreadable = Some(rpc::public(&Error::field(name, "is given twice")));
            }
        }
        options
    }

    fn is_batch(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| !batch.is_empty())
    }
}

pub(super) async fn handle(State(doors): State<Doors>, request: Request) -> Response {
    if request.method() == Method::HEAD {
        return respond(StatusCode::NO_CONTENT, "");
    }
    // A v10 client whose base URL ends with a slash sends two of them.
    let path =
        request.uri().path().strip_prefix(MOUNT).unwrap_or_default().trim_start_matches('/').to_owned();
    let path = percent_decode(&path);
    match prepare(&doors, &path, request).await {
        Ok(prepared) => serve(&doors, &path, prepared).await,
        Err(refused) => with_methods(refused, || methods(&doors, &[path.as_ref()], false)),
    }
}

/// A request whose media type is right and whose body has been read.
struct Prepared {
    method: Method,
    headers: HeaderMap,
    batch: bool,
    asked: sse::Asked,
    /// Of its body, where that is large.
    place: Option<Arc<Place>>,
}

async fn prepare(doors: &Doors, path: &str, request: Request) -> std::result::Result<Prepared, Response> {
    let options = Options::of(request.uri());
    let batch = options.is_batch();
    let (method, headers, body) = if request.method() == Method::GET {
        let (head, _) = request.into_parts();
        (head.method, head.headers, None)
    } else if body::is_json(request.headers()) {
        let (method, headers) = (request.method().clone(), request.headers().clone());
        // Of a batch some calls may be right.
        let wrong = if batch { None } else { asked_for(doors, path, &method).err() };
        let body = body::read_json_if(wrong.is_none(), doors, request).await.map_err(refusal)?;
        if let (None, Some(wrong)) = (&body, wrong) {
            return Err(refusal(*wrong));
        }
        (method, headers, body)
    } else {
        return Err(single(&Outcome::refused(body::not_json()), Bytes::from));
    };
    let (text, place) = body.map_or((None, None), |body| (Some(body.bytes), body.place));
    let text = text.or(options.input.map(Bytes::from)).filter(|text| !text.is_empty());
    // Read lazily: without a key even malformed JSON is a 401.
    let input = text.map(|text| serde_json::from_slice(&text)).transpose().map_err(|_| not_json());
    let input = options.unreadable.map_or(input, Err);
    let Options { last_event_id, connection_params, .. } = options;
    Ok(Prepared {
        method,
        headers,
        batch,
        asked: sse::Asked { input, last_event_id, connection_params },
        place,
    })
}

fn not_json() -> PublicError {
    rpc::public(&Error::form("the input is not JSON"))
}

async fn serve(doors: &Doors, path: &str, request: Prepared) -> Response {
    let Prepared { method, headers, batch, asked, place } = request;
    if !batch && let Some(info) = doors.procedures.info(path).filter(|info| begins(info, &method)) {
        if let Some(place) = place {
            place.has_been_read();
        }
        return sse::serve(doors, info, headers, asked).await;
    }
    let caller = auth::caller(doors, &headers).await;
    if !batch {
        let input = asked.input.map(|json| Input { json, place });
        let presented = Presented::once(caller);
        let outcome = call(doors, path, &method, &presented, input, 1, false).await;
        let caller = presented.caller().map(AsRef::as_ref);
        let answer = single(&outcome, |text| doors.unread.hold(caller, text));
        return with_methods(answer, || methods(doors, &[path], false));
    }
    let names: Vec<String> = path.split(',').take(MAX_BATCH + 1).map(ToOwned::to_owned).collect();
    if names.len() > MAX_BATCH {
        let inputs = asked.input.ok().and_then(|input| Inputs::split(input.as_deref(), MAX_BATCH, place));
        let superjson = inputs.is_some_and(|inputs| inputs.speak_superjson());
        let result = Err(PublicError::new(Code::PayloadTooLarge, "a batch has at most 100 calls"));
        return single(&Outcome { result, superjson }, Bytes::from);
    }
    let inputs = match asked.input.map(|input| Inputs::split(input.as_deref(), names.len(), place)) {
        Ok(Some(inputs)) => Ok(inputs),
        Ok(None) => Err(rpc::public(&Error::form(
            "the input of a batch is an object whose keys are the calls' positions",
        ))),
        Err(error) => Err(error),
    };
    let superjson = inputs.as_ref().is_ok_and(Inputs::speak_superjson);
    let inputs = inputs.map(Mutex::new);
    let in_lines = jsonl::is_wanted(&headers);
    // The first call of lines, too, begins only when they are read.
    let presented = match in_lines || names.len() > 1 {
        true => Presented::for_each(caller, auth::Key::shown_in(&headers)),
        false => Presented::once(caller),
    };
    let mut batch = Batch { doors: doors.clone(), method, presented, names, inputs, superjson, beyond: None };
    if in_lines {
        batch.count();
        return jsonl::answer(Arc::new(batch));
    }
    let room = Room::of(doors, batch.caller(), batch.len());
    let calls = stream::iter(0..batch.len()).map(async |at| {
        if !room.is_left() {
            return batch.refuse(at, no_room());
        }
        let outcome = batch.call(at).await;
        room.take(outcome.result.as_ref().map_or(0, |data| data.get().len()));
        outcome
    });
    let outcomes: Vec<Outcome> = calls.buffered(BATCH_WIDTH).collect().await;
    let answer = envelope::batch(outcomes, |text| batch.hold(text));
    with_methods(answer, || methods(doors, &batch.names, true))
}

/// An answer that names the methods there are, where it says that there is no such one.
fn with_methods(mut answer: Response, methods: impl FnOnce() -> HeaderValue) -> Response {
    if answer.status() == StatusCode::METHOD_NOT_ALLOWED {
        answer.headers_mut().insert(header::ALLOW, methods());
    }
    answer
}

/// By which methods all of these can be called: by none in a batch where one is a subscription.
fn methods(doors: &Doors, names: &[impl AsRef<str>], batch: bool) -> HeaderValue {
    let info = |name: &str| doors.procedures.info(name);
    let has = |kind| names.iter().any(|name| info(name.as_ref()).is_some_and(|info| info.kind == kind));
    match () {
        () if batch && has(Kind::Subscription) => HeaderValue::from_static(""),
        () if has(Kind::Mutation) => envelope::methods(Kind::Mutation),
        () => envelope::methods(Kind::Query),
    }
}

/// A call's input, and its place where it came in a large body.
#[derive(Default)]
struct Input {
    json: Option<Box<RawValue>>,
    place: Option<Arc<Place>>,
}

/// The inputs of a batch that none of its calls has taken yet, by their positions.
struct Inputs {
    left: Vec<Option<Box<RawValue>>>,
    /// Kept as long as there are any.
    place: Option<Arc<Place>>,
}

impl Inputs {
    /// Those of so many calls; none where they have another form.
    fn split(input: Option<&RawValue>, calls: usize, place: Option<Arc<Place>>) -> Option<Self> {
        let mut by_position: HashMap<String, Box<RawValue>> = match input {
            None => HashMap::new(),
            Some(raw) => serde_json::from_str(raw.get()).ok()?,
        };
        let left: Vec<_> = (0..calls).map(|at| by_position.remove(&at.to_string())).collect();
        if let Some(place) = &place {
            place.has_been_read();
        }
        let place = place.filter(|_| left.iter().any(Option::is_some));
        Some(Self { left, place })
    }

    /// A client does so in each call or in none.
    fn speak_superjson(&self) -> bool {
        self.left.iter().flatten().any(|raw| superjson::read(Some(raw)).superjson)
    }

    fn take(&mut self, at: usize) -> Input {
        let json = self.left.get_mut(at).and_then(Option::take);
        let place = self.place.clone().filter(|_| json.is_some());
        if self.left.iter().all(Option::is_none) {
            self.place = None;
        }
        Input { json, place }
    }
}

/// Calls that came together, by their positions.
pub(super) struct Batch {
    doors: Doors,
    method: Method,
    presented: Presented,
    names: Vec<String>,
    inputs: std::result::Result<Mutex<Inputs>, PublicError>,
    superjson: bool,
    /// Where its calls have been counted: those that are beyond their key's limit, and for how long.
    beyond: Option<HashMap<usize, Duration>>,
}

impl Batch {
    /// Counts its calls before the first is made, so that an answer whose head goes out before can say what is left. What
    /// would be no call of the key's is not counted.
    fn count(&mut self) {
        let Some(caller) = self.presented.caller() else { return };
        let mut beyond = HashMap::new();
        for (at, name) in self.names.iter().enumerate() {
            let is_call =
                asked_for(&self.doors, name, &self.method).is_ok_and(|info| info.kind != Kind::Subscription);
            if is_call && let Err(Error::TooManyCalls(wait)) = caller.count_call() {
                beyond.insert(at, wait);
            }
        }
        self.beyond = Some(beyond);
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether its caller does.
    pub(super) fn speaks_superjson(&self) -> bool {
        self.superjson
    }

    fn caller(&self) -> Option<&Caller> {
        self.presented.caller().map(AsRef::as_ref)
    }

    /// An answer of its, or a part of one, for its caller.
    pub(super) fn hold(&self, text: String) -> Bytes {
        self.doors.unread.hold(self.caller(), text)
    }

    /// Refuses a call that is not made: nothing of its input is kept.
    fn refuse(&self, at: usize, error: PublicError) -> Outcome {
        if let Ok(inputs) = &self.inputs {
            inputs.lock().unwrap_or_else(PoisonError::into_inner).take(at);
        }
        let name = &self.names[at];
        around::turned_away(&self.doors, self.doors.procedures.info(name), error.data.code);
        Outcome { result: Err(error.at(name)), superjson: self.superjson }
    }

    /// Makes a call, once.
    pub(super) async fn call(&self, at: usize) -> Outcome {
        if let Some(wait) = self.beyond.as_ref().and_then(|beyond| beyond.get(&at)) {
            return self.refuse(at, rpc::public(&Error::TooManyCalls(*wait)));
        }
        let input = match &self.inputs {
            Ok(inputs) => Ok(inputs.lock().unwrap_or_else(PoisonError::into_inner).take(at)),
            Err(error) => Err(error.clone()),
        };
        let (calls, is_counted) = (self.len(), self.beyond.is_some());
        call(&self.doors, &self.names[at], &self.method, &self.presented, input, calls, is_counted).await
    }
}

/// Makes a call, one of so many that came together, which may have been counted against its key's limit.
async fn call(
    doors: &Doors,
    name: &str,
    method: &Method,
    presented: &Presented,
    input: std::result::Result<Input, PublicError>,
    calls: usize,
    is_counted: bool,
) -> Outcome {
    let (input, unread) = input.map_or_else(|error| (Input::default(), Some(error)), |input| (input, None));
    let superjson::Input { json, superjson } = superjson::read(input.json.as_deref());
    let result = match admit(doors, name, method, presented, unread, calls, is_counted).await {
        Ok((info, caller, turn)) => {
            let aside = Aside::with_place(input.place, is_counted);
            let calling = in_process::call_with(doors, info.name, json.as_deref(), Some(caller), aside);
            drop((json, input.json));
            turn.take(calling).await.map_err(|error| public(&error, info.name))
        }
        Err(error) => {
            around::turned_away(doors, doors.procedures.info(name), error.data.code);
            Err(error)
        }
    };
    Outcome { result, superjson }
}

/// The procedure, who calls it, and the call's turn, or why this door refuses it.
async fn admit(
    doors: &Doors,
    name: &str,
    method: &Method,
    presented: &Presented,
    unread: Option<PublicError>,
    calls: usize,
    is_counted: bool,
) -> std::result::Result<(&'static ProcedureInfo, Arc<Caller>, Turn), PublicError> {
    let info = match asked_for(doors, name, method) {
        Ok(info) if info.kind != Kind::Subscription => info,
        Ok(info) => return Err(not_allowed(info)),
        Err(error) => return Err(*error),
    };
    let refused = |error: &Error| rpc::public(error).at(info.name);
    if let Some(error) = unread {
        let caller = presented.now(doors).await.map_err(|unknown| unknown.at(info.name))?;
        return Err(unreadable(doors, &caller, info, is_counted, &error));
    }
    if let Some(error) = presented.unknown() {
        return Err(refused(error));
    }
    let turn = doors.large_batches.turn(calls, Some(info), presented.caller()).await;
    // Only now: its turn may have come late.
    let caller = presented.now(doors).await.map_err(|error| error.at(info.name))?;
    // Before, those that made others wait may have had too little unread to be refused.
    let turn = turn.and_then(|turn| doors.unread.room_for(Some(&caller)).map(|()| turn));
    Ok((info, caller, turn.map_err(|error| refused(&error))?))
}

/// What is said of an input that is no JSON: what stands before any input, or that.
pub(super) fn unreadable(
    doors: &Doors,
    caller: &Caller,
    info: &ProcedureInfo,
    is_counted: bool,
    error: &PublicError,
) -> PublicError {
    let refused = rpc::let_in(&doors.app, info, caller, is_counted).err().map(|error| rpc::public(&error));
    refused.unwrap_or_else(|| error.clone()).at(info.name)
}

/// The procedure of a name that may be called by a method; or begun, where it is a subscription.
fn asked_for(
    doors: &Doors,
    name: &str,
    method: &Method,
) -> std::result::Result<&'static ProcedureInfo, Box<PublicError>> {
    let Some(info) = doors.procedures.info(name) else {
        let message =
            format!("no procedure found on path \"{}\"", name.chars().take(100).collect::<String>());
        return Err(Box::new(PublicError::new(Code::NotFound, message).at(name)));
    };
    let is_called = method == Method::POST || (method == Method::GET && info.kind != Kind::Mutation);
    if is_called { Ok(info) } else { Err(Box::new(not_allowed(info))) }
}

fn not_allowed(info: &ProcedureInfo) -> PublicError {
    let name = info.name;
    let message = match info.kind {
        Kind::Query => format!("call {name} by GET or POST"),
        Kind::Mutation => format!("{name} is a mutation: call it by POST"),
        Kind::Subscription => {
            format!("{name} is a subscription: call it by GET and in no batch, or on a WebSocket at /rpc")
        }
    };
    PublicError::new(Code::MethodNotSupported, message).at(name)
}

/// Whether the request begins a subscription.
fn begins(info: &ProcedureInfo, method: &Method) -> bool {
    info.kind == Kind::Subscription && (method == Method::GET || method == Method::POST)
}

fn percent_decode(text: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::large_inputs::LargeInputs;

    #[tokio::test]
    async fn a_batch_has_been_read_when_it_was_taken_apart_and_keeps_its_place_for_its_inputs_only() {
        let inputs = LargeInputs::default();
        let split = async |text: &str| {
            let place = Arc::new(inputs.place_of_a_test().await);
            let raw: Box<RawValue> = serde_json::from_str(text).unwrap();
            (Inputs::split(Some(&raw), 3, Some(Arc::clone(&place))).unwrap(), place)
        };
        let (mut left, place) = split(r#"{"0": 1, "2": 2, "7": 3}"#).await;
        assert!(!place.is_being_read());
        let mut kept = Vec::new();
        for (at, is_given, users) in [(1, false, 2), (0, true, 3), (0, false, 3), (2, true, 3), (2, false, 3)]
        {
            let input = left.take(at);
            assert_eq!((input.json.is_some(), input.place.is_some()), (is_given, is_given), "{at}");
            kept.push(input.place);
            assert_eq!(Arc::strong_count(&place), users, "{at}");
        }
        let (_left, place) = split(r#"{"3": 1}"#).await;
        assert_eq!(Arc::strong_count(&place), 1);
    }
}
