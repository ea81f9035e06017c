//! tRPC's envelope: how a call ended, as its callers read it; and the headers that go with a refusal on any door.

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use jsonrpsee::types::ErrorObjectOwned;
use purser_proto_schema::{
    error::{Code, ErrorData, PublicError},
    procedure::Kind,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::batch::joined;

const JSON: &str = "application/json";
/// What an answer depends on besides the URL.
const VARY: &str = "trpc-accept, accept";
/// How to come in.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"purser\"");

/// How one call ended, and in which dialect to say so.
pub(super) struct Outcome {
    pub(super) result: Result<Box<RawValue>, PublicError>,
    pub(super) superjson: bool,
}

impl Outcome {
    /// A failure before any call was looked at.
    pub(super) fn refused(error: PublicError) -> Self {
        Self { result: Err(error), superjson: false }
    }

    pub(super) fn status(&self) -> StatusCode {
        match &self.result {
            Ok(_) => StatusCode::OK,
            Err(error) => {
                StatusCode::from_u16(error.data.http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    /// `{"result":{"data":…}}` or `{"error":…}`.
    pub(super) fn envelope(&self) -> String {
        match &self.result {
            Ok(data) if self.superjson => [r#"{"result":{"data":{"json":"#, data.get(), "}}}"].concat(),
            Ok(data) => [r#"{"result":{"data":"#, data.get(), "}}"].concat(),
            Err(error) => format!(r#"{{"error":{}}}"#, in_dialect(&error_shape(error), self.superjson)),
        }
    }
}

/// JSON, wrapped where the caller speaks superjson.
pub(super) fn in_dialect(json: &str, superjson: bool) -> String {
    if superjson { format!(r#"{{"json":{json}}}"#) } else { json.to_owned() }
}

/// `{"message","code","data"}`.
pub(super) fn error_shape(error: &PublicError) -> String {
    #[derive(Serialize)]
    struct Shape<'a> {
        message: &'a str,
        code: i32,
        data: &'a ErrorData,
    }
    let shape = Shape { message: &error.message, code: error.data.code.number(), data: &error.data };
    // Plain structs of strings and numbers: writing them does not fail.
    serde_json::to_string(&shape).unwrap_or_default()
}

/// A method's error in tRPC's terms: its number follows from `data.code` alone.
pub(super) fn public(error: &ErrorObjectOwned, name: &str) -> PublicError {
    let data = error.data().and_then(|data| serde_json::from_str::<ErrorData>(data.get()).ok());
    match data {
        Some(data) => PublicError { message: error.message().to_owned(), data },
        None => PublicError::new(Code::InternalServerError, error.message()).at(name),
    }
}

/// The answer to one call, whose text the caller of this may want to count.
pub(super) fn single(outcome: &Outcome, count: impl FnOnce(String) -> Bytes) -> Response {
    let mut response = respond(outcome.status(), count(outcome.envelope()));
    if let Err(error) = &outcome.result {
        tell_how(response.headers_mut(), error);
    }
    response
}

/// Of an answer that is a refusal as a whole: how to come in, and when to come again. Which methods there are instead
/// is for the door to say ([`methods`]).
pub(super) fn tell_how(headers: &mut HeaderMap, error: &PublicError) {
    if error.data.code == Code::Unauthorized {
        headers.insert(header::WWW_AUTHENTICATE, CHALLENGE);
    }
    if let Some(seconds) = error.data.retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
}

/// By which methods procedures of a kind are called over HTTP, as `Allow` has it.
pub(super) fn methods(kind: Kind) -> HeaderValue {
    HeaderValue::from_static(match kind {
        Kind::Mutation => "POST",
        Kind::Query | Kind::Subscription => "GET, HEAD, POST",
    })
}

/// The answer to a body that is not read, so that nobody knows its dialect: in both, as each reads what is its own.
pub(super) fn refusal(error: PublicError) -> Response {
    let shape = error_shape(&error);
    let text = format!(r#"{{"error":{{"json":{shape},{}}}"#, shape.trim_start_matches('{'));
    single(&Outcome::refused(error), |_| text.into())
}

/// The answer to a batch, as [`single`]: the common status, or 207.
pub(super) fn batch(outcomes: Vec<Outcome>, count: impl FnOnce(String) -> Bytes) -> Response {
    let first = outcomes.first().map_or(StatusCode::OK, Outcome::status);
    let common = outcomes.iter().all(|outcome| outcome.status() == first);
    let is_unknown = common && first == StatusCode::UNAUTHORIZED;
    let bodies = outcomes.into_iter().map(|outcome| outcome.envelope()).collect();
    let mut response = respond(if common { first } else { StatusCode::MULTI_STATUS }, count(joined(bodies)));
    if is_unknown {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
    }
    response
}

/// Any answer, as JSON.
pub(super) fn respond(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(header::VARY, HeaderValue::from_static(VARY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Takes care that proxies pass an answer on while it is being written.
pub(super) fn unbuffered(mut response: Response) -> Response {
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
