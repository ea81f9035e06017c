//! Calling a procedure's JSON-RPC method in process: what every door ends in.

use std::sync::Arc;

use jsonrpsee::{
    ConnectionId, Extensions, MethodCallback,
    types::{ErrorObjectOwned, Id, Params},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    domain::caller::Caller,
    error::Error,
    rpc::{self, WireSubscription},
};

use super::Doors;

/// The largest answer, in bytes: a list of the most that can be asked for fits.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// A method's answer.
pub(super) type Answer = Result<Box<RawValue>, ErrorObjectOwned>;

#[derive(Deserialize)]
struct Response {
    result: Option<Box<RawValue>>,
    error: Option<ErrorObjectOwned>,
}

/// Calls a registered procedure. Without a caller the answer is UNAUTHORIZED.
pub(super) async fn call(
    doors: &Doors,
    name: &'static str,
    params: Option<&RawValue>,
    caller: Option<Arc<Caller>>,
) -> Answer {
    let Some(MethodCallback::Async(method)) = doors.procedures.methods().method(name) else {
        return Err(rpc::wire(name, Error::NotFound("procedure")));
    };
    let mut extensions = Extensions::new();
    if let Some(caller) = caller {
        extensions.insert(caller);
    }
    let params = Params::new(params.map(RawValue::get)).into_owned();
    let response = method(Id::Number(0), params, ConnectionId(0), MAX_ANSWER, extensions).await;
    match serde_json::from_str::<Response>(response.as_json().get()) {
        Ok(Response { error: Some(error), .. }) => Err(error),
        Ok(Response { result: Some(result), .. }) => Ok(result),
        // `result: null` reads as absent.
        Ok(Response { result: None, error: None }) => Ok(RawValue::NULL.to_owned()),
        Err(error) => Err(rpc::wire(name, Error::internal("reading a method's answer")(error))),
    }
}

/// Begins a registered subscription. Its events come as they are read.
pub(super) async fn subscribe(
    doors: &Doors,
    name: &'static str,
    params: Option<&RawValue>,
    caller: Option<&Arc<Caller>>,
) -> Result<WireSubscription, ErrorObjectOwned> {
    doors.procedures.subscribe(name, params.map(RawValue::get), caller).await
}
