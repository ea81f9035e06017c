//! Exact envelopes: what an answer must be, to the last member.

use http::Method;
use purser_tests::{Answer, Client};
use serde_json::{Value, json};

/// tRPC's code table, as `trpc-protocol.md` has it; not taken from the program that is tested.
pub const CODES: &[(&str, i64, u16)] = &[
    ("PARSE_ERROR", -32700, 400),
    ("BAD_REQUEST", -32600, 400),
    ("UNAUTHORIZED", -32001, 401),
    ("FORBIDDEN", -32003, 403),
    ("NOT_FOUND", -32004, 404),
    ("NOT_IMPLEMENTED", -32603, 501),
    ("METHOD_NOT_SUPPORTED", -32005, 405),
    ("CONFLICT", -32009, 409),
    ("PRECONDITION_FAILED", -32012, 412),
    ("PAYLOAD_TOO_LARGE", -32013, 413),
    ("UNSUPPORTED_MEDIA_TYPE", -32015, 415),
    ("TOO_MANY_REQUESTS", -32029, 429),
];

/// Number and HTTP status of a code.
#[track_caller]
pub fn code(name: &str) -> (i64, u16) {
    let found = CODES.iter().find(|(other, ..)| *other == name);
    let (_, number, status) = found.unwrap_or_else(|| panic!("{name} is not in the table"));
    (*number, *status)
}

/// An answer is this tRPC error and nothing else: number, name, `httpStatus`, `path`, HTTP status.
/// Gives the error.
#[track_caller]
pub fn refused(answer: &Answer, name: &str, path: Option<&str>) -> Value {
    assert_eq!(answer.status.as_u16(), code(name).1, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json", "{answer:?}");
    let envelope = answer.json();
    assert_eq!(members(&envelope), ["error"], "{answer:?}");
    is_error(&envelope["error"], name, path);
    envelope["error"].clone()
}

/// As [`refused`], of a body that was not read: plain, and for those who speak superjson as its member `json`.
#[track_caller]
pub fn refused_unread(answer: &Answer, name: &str, path: Option<&str>) {
    assert_eq!(answer.status.as_u16(), code(name).1, "{answer:?}");
    let mut envelope = answer.json();
    let in_superjson = envelope["error"].as_object_mut().and_then(|error| error.remove("json"));
    is_error(&envelope["error"], name, path);
    assert_eq!(in_superjson.as_ref(), Some(&envelope["error"]), "{answer:?}");
}

/// The error object of a tRPC envelope.
#[track_caller]
pub fn is_error(error: &Value, name: &str, path: Option<&str>) {
    let (number, status) = code(name);
    assert_eq!(members(error), ["code", "data", "message"], "{error}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
    assert_eq!(error["code"], number, "{error}");
    assert_eq!(error["data"]["code"], name, "{error}");
    assert_eq!(error["data"]["httpStatus"], status, "{error}");
    assert_eq!(error["data"].get("path"), path.map(|path| json!(path)).as_ref(), "{error}");
    for member in members(&error["data"]) {
        let known = ["code", "httpStatus", "path", "zodError", "diagnosis", "usedBy", "retryAfter"];
        assert!(known.contains(&member.as_str()), "{member} in {error}");
    }
}

/// The member names of an object, sorted.
pub fn members(value: &Value) -> Vec<String> {
    value.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default()
}

/// A request that must be answered, with `Content-Type: application/json` unless headers say otherwise.
pub async fn send(
    client: &Client,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut all = headers.to_vec();
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        all.push(("content-type", "application/json"));
    }
    all.retain(|(_, value)| !value.is_empty());
    let answer = client.send(method, path, &all, body.to_owned()).await;
    answer.unwrap_or_else(|error| panic!("{path} was not answered: {error}"))
}

/// What `registry.create` needs at least, with a name of its own.
pub fn registry(name: &str) -> Value {
    json!({"registryName": name, "registryUrl": "registry.example.com:5000"})
}
