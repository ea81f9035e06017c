//! `/api/<procedure>`: queries by GET with query parameters ([`parameters`](super::parameters)), mutations by POST with
//! JSON, and POST on a query too. The answer is the bare value, or `{"message","code","data"}` with the code's HTTP
//! status; [`openapi`](super::openapi) describes it.
//!
//! Order of checks, as at the tRPC door: media type 415, procedure 404, method 405, key 401, permission 403, input 400.
//! Only a POST is asked for its media type: nobody else's body is looked at.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::Response,
};
use percent_encoding::percent_decode_str;
use purser_proto_schema::{
    error::{Code, PlainError, PublicError},
    procedure::{Kind, ProcedureInfo},
};
use serde_json::value::RawValue;

use super::{Doors, auth, body, envelope, in_process, parameters};
use crate::{error::Error, rpc};

/// What the paths of this door begin with.
pub(super) const MOUNT: &str = "/api/";

/// A refusal, and where the method was wrong the right ones.
pub(super) struct Refusal {
    error: PublicError,
    allow: Option<HeaderValue>,
}

impl Refusal {
    /// For another method than those that there are.
    pub(super) fn by_method(error: PublicError, methods: &'static str) -> Self {
        Self { error, allow: Some(HeaderValue::from_static(methods)) }
    }
}

impl From<PublicError> for Refusal {
    fn from(error: PublicError) -> Self {
        Self { error, allow: None }
    }
}

pub(super) async fn handle(State(doors): State<Doors>, request: Request) -> Response {
    match answer(&doors, request).await {
        Ok(value) => json(StatusCode::OK, value),
        Err(refusal) => refused(refusal),
    }
}

async fn answer(doors: &Doors, request: Request) -> Result<Bytes, Refusal> {
    let path = request.uri().path().strip_prefix(MOUNT).unwrap_or_default();
    let name = percent_decode_str(path).decode_utf8_lossy().into_owned();
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let info = asked_for(doors, &name, &method);
    let body = match method {
        Method::POST => body::read_json_if(info.is_ok(), doors, request).await?,
        _ => None,
    };
    let info = info.map_err(|refusal| *refusal)?;
    let of_call = |error: PublicError| error.at(info.name);
    let caller = auth::caller(doors, &headers).await.map_err(|error| of_call(rpc::public(&error)))?;
    let (input, place) = match body {
        Some(body) if body.bytes.is_empty() => (Ok(None), None),
        Some(body) => (read(&body.bytes), body.place),
        None => (parameters::read(info.name, &query), None),
    };
    let input = match input {
        Ok(input) => input,
        Err(error) => {
            let error = rpc::let_in(&doors.app, info, &caller, false).err().unwrap_or(error);
            return Err(of_call(rpc::public(&error)).into());
        }
    };
    if info.kind == Kind::Subscription {
        rpc::let_in(&doors.app, info, &caller, false).map_err(|error| of_call(rpc::public(&error)))?;
        let message = format!(
            "{0} goes on telling: subscribe to it at /api/trpc/{0} or on a WebSocket at /rpc",
            info.name
        );
        return Err(of_call(PublicError::new(Code::NotImplemented, message)).into());
    }
    doors.unread.room_for(Some(&caller)).map_err(|error| of_call(rpc::public(&error)))?;
    let calling = in_process::call(doors, info.name, input.as_deref(), Some(Arc::clone(&caller)), place);
    drop(input);
    let answer = calling.await.map_err(|error| envelope::public(&error, info.name))?;
    Ok(doors.unread.hold(Some(&caller), String::from(Box::<str>::from(answer))))
}

/// tRPC writes an absent input as null; here it is one that is no object.
fn read(body: &[u8]) -> Result<Option<Box<RawValue>>, Error> {
    match serde_json::from_slice::<Box<RawValue>>(body) {
        Ok(input) if input.get() == "null" => Err(Error::form("the input must be an object of named fields")),
        Ok(input) => Ok(Some(input)),
        Err(_) => Err(Error::form("the input is not JSON")),
    }
}

/// The procedure of a name that may be called by a method.
fn asked_for(doors: &Doors, name: &str, method: &Method) -> Result<&'static ProcedureInfo, Box<Refusal>> {
    let refusal = match doors.procedures.info(name) {
        Some(info) if allows(info, method) => return Ok(info),
        Some(info) => not_allowed(info),
        None => PublicError::new(Code::NotFound, "no procedure of this name").into(),
    };
    Err(Box::new(refusal))
}

fn allows(info: &ProcedureInfo, method: &Method) -> bool {
    let reads = [Method::GET, Method::HEAD].contains(method);
    match info.kind {
        Kind::Query | Kind::Subscription => reads || method == Method::POST,
        Kind::Mutation => method == Method::POST,
    }
}

fn not_allowed(info: &ProcedureInfo) -> Refusal {
    let name = info.name;
    let message = match info.kind {
        Kind::Mutation => format!("{name} is a mutation: call it by POST"),
        Kind::Query | Kind::Subscription => format!("call {name} by GET or POST"),
    };
    let error = PublicError::new(Code::MethodNotSupported, message).at(name);
    Refusal { error, allow: Some(envelope::methods(info.kind)) }
}

pub(super) fn refused(Refusal { error, allow }: Refusal) -> Response {
    let status = StatusCode::from_u16(error.data.http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, "");
    let headers = response.headers_mut();
    headers.extend(allow.map(|methods| (header::ALLOW, methods)));
    envelope::tell_how(headers, &error);
    // Plain structs of strings and numbers: writing them does not fail.
    *response.body_mut() = serde_json::to_string(&PlainError::from(error)).unwrap_or_default().into();
    response
}

fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
