//! `/api/trpc/<procedure>`: tRPC over HTTP as v10 and v11 clients speak it, and as `curl` does in
//! Dokploy's documents (POST on a query).
//!
//! Order of checks, as in tRPC: media type 415, procedure 404, method 405, key 401, permission 403,
//! input 400. A batch answers each call by itself, with 207 where the statuses differ.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Query, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::Response,
};
use futures_util::{StreamExt, stream};
use jsonrpsee::types::ErrorObjectOwned;
use purser_proto_schema::{
    error::{Code, ErrorData, PublicError},
    procedure::{Kind, ProcedureInfo},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{BATCH_WIDTH, Doors, MAX_BATCH, auth, body, in_process, superjson};
use crate::{
    domain::caller::Caller,
    error::{Error, Result},
    rpc,
};

const MOUNT: &str = "/api/trpc/";
const JSON: &str = "application/json";

#[derive(Deserialize)]
struct Options {
    batch: Option<String>,
    input: Option<String>,
}

/// How one call ended, and in which dialect to say so.
struct Outcome {
    result: std::result::Result<Box<RawValue>, PublicError>,
    superjson: bool,
}

pub(super) async fn handle(State(doors): State<Doors>, request: Request) -> Response {
    if request.method() == Method::HEAD {
        return respond(StatusCode::NO_CONTENT, String::new());
    }
    // A v10 client whose base URL ends with a slash sends two of them.
    let path =
        request.uri().path().strip_prefix(MOUNT).unwrap_or_default().trim_start_matches('/').to_owned();
    match prepare(request).await {
        Ok(prepared) => serve(&doors, &path, prepared).await,
        Err(error) => single(Outcome { result: Err(error), superjson: false }),
    }
}

/// A request whose media type is right and whose body has been read.
struct Prepared {
    method: Method,
    headers: HeaderMap,
    batch: bool,
    input: std::result::Result<Option<Box<RawValue>>, PublicError>,
}

async fn prepare(request: Request) -> std::result::Result<Prepared, PublicError> {
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let options = Query::<Options>::try_from_uri(request.uri());
    let text = if method == Method::GET { None } else { Some(body::read_json(request).await?) };
    let Query(options) =
        options.map_err(|_| PublicError::new(Code::BadRequest, "the query string cannot be read"))?;
    let text = text.or(options.input.map(Bytes::from)).filter(|text| !text.is_empty());
    // Read lazily: without a key even malformed JSON is a 401.
    let input = text.map(|text| serde_json::from_slice(&text)).transpose().map_err(|_| not_json());
    Ok(Prepared { method, headers, batch: options.batch.is_some_and(|batch| !batch.is_empty()), input })
}

fn not_json() -> PublicError {
    rpc::public(&Error::form("the input is not JSON"))
}

async fn serve(doors: &Doors, path: &str, request: Prepared) -> Response {
    let path = percent_decode(path);
    let caller = auth::caller(doors, &request.headers).await;
    if !request.batch {
        let input = request.input.as_ref().map(Option::as_deref);
        return single(call(doors, &path, &request.method, &caller, input).await);
    }
    let names: Vec<&str> = path.split(',').collect();
    if names.len() > MAX_BATCH {
        let error = PublicError::new(Code::PayloadTooLarge, "a batch has at most 100 calls");
        return single(Outcome { result: Err(error), superjson: false });
    }
    let inputs = match request.input.map(|input| split_batch(input.as_deref())) {
        Ok(Some(inputs)) => Ok(inputs),
        Ok(None) => Err(PublicError::new(
            Code::BadRequest,
            "the input of a batch is an object whose keys are the calls' positions",
        )),
        Err(error) => Err(error),
    };
    let calls = names.iter().enumerate().map(|(position, name)| {
        let input = inputs.as_ref().map(|inputs| inputs.get(&position.to_string()).map(AsRef::as_ref));
        call(doors, name, &request.method, &caller, input)
    });
    let calls: Vec<_> = calls.collect();
    let outcomes: Vec<Outcome> = stream::iter(calls).buffered(BATCH_WIDTH).collect().await;
    batch(&outcomes)
}

fn split_batch(input: Option<&RawValue>) -> Option<HashMap<String, Box<RawValue>>> {
    match input {
        None => Some(HashMap::new()),
        Some(raw) => serde_json::from_str(raw.get()).ok(),
    }
}

async fn call(
    doors: &Doors,
    name: &str,
    method: &Method,
    caller: &Result<Arc<Caller>>,
    input: std::result::Result<Option<&RawValue>, &PublicError>,
) -> Outcome {
    let read = superjson::read(input.ok().flatten());
    let outcome = |result| Outcome { result, superjson: read.superjson };
    let Some(info) = doors.procedures.info(name) else {
        let message =
            format!("no procedure found on path \"{}\"", name.chars().take(100).collect::<String>());
        return outcome(Err(PublicError::new(Code::NotFound, message).at(name)));
    };
    if !allows(info, method) {
        let name = info.name;
        let message = match info.kind {
            Kind::Query => format!("call {name} by GET or POST"),
            Kind::Mutation => format!("{name} is a mutation: call it by POST"),
            Kind::Subscription => format!("{name} is a subscription: call it on a WebSocket at /rpc"),
        };
        return outcome(Err(PublicError::new(Code::MethodNotSupported, message).at(info.name)));
    }
    let caller = match caller {
        Ok(caller) => Arc::clone(caller),
        Err(error) => return outcome(Err(rpc::public(error).at(info.name))),
    };
    if let Err(error) = input {
        return outcome(Err(error.clone().at(info.name)));
    }
    let answer = in_process::call(doors, info.name, read.json.as_deref(), Some(caller)).await;
    outcome(answer.map_err(|error| public(&error, info.name)))
}

fn allows(info: &ProcedureInfo, method: &Method) -> bool {
    match info.kind {
        Kind::Query => method == Method::GET || method == Method::POST,
        Kind::Mutation => method == Method::POST,
        Kind::Subscription => false,
    }
}

/// A method's error in tRPC's terms: its number follows from `data.code` alone.
pub(super) fn public(error: &ErrorObjectOwned, name: &str) -> PublicError {
    let data = error.data().and_then(|data| serde_json::from_str::<ErrorData>(data.get()).ok());
    match data {
        Some(data) => PublicError { message: error.message().to_owned(), data },
        None => PublicError::new(Code::InternalServerError, error.message()).at(name),
    }
}

fn single(outcome: Outcome) -> Response {
    respond(status(&outcome), envelope(&outcome))
}

fn batch(outcomes: &[Outcome]) -> Response {
    let first = outcomes.first().map_or(StatusCode::OK, status);
    let common = outcomes.iter().all(|outcome| status(outcome) == first);
    let bodies: Vec<String> = outcomes.iter().map(envelope).collect();
    respond(if common { first } else { StatusCode::MULTI_STATUS }, format!("[{}]", bodies.join(",")))
}

fn status(outcome: &Outcome) -> StatusCode {
    match &outcome.result {
        Ok(_) => StatusCode::OK,
        Err(error) => {
            StatusCode::from_u16(error.data.http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

#[derive(Serialize)]
struct ErrorShape<'a> {
    message: &'a str,
    code: i32,
    data: &'a ErrorData,
}

fn envelope(outcome: &Outcome) -> String {
    let (open, close) = if outcome.superjson { (r#"{"json":"#, "}") } else { ("", "") };
    match &outcome.result {
        Ok(data) => format!(r#"{{"result":{{"data":{open}{data}{close}}}}}"#),
        Err(error) => {
            let shape =
                ErrorShape { message: &error.message, code: error.data.code.number(), data: &error.data };
            // Plain structs of strings and numbers: writing them does not fail.
            let shape = serde_json::to_string(&shape).unwrap_or_default();
            format!(r#"{{"error":{open}{shape}{close}}}"#)
        }
    }
}

fn respond(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(JSON));
    headers.insert(header::VARY, header::HeaderValue::from_static("trpc-accept, accept"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

fn percent_decode(text: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy()
}
