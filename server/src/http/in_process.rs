//! Calling a procedure's JSON-RPC method in process: what every door ends in.

use std::sync::Arc;

use jsonrpsee::{
    ConnectionId, Extensions, MethodCallback,
    types::{ErrorObjectOwned, Id, Params},
};
use serde_json::value::RawValue;

use crate::{
    domain::caller::Caller,
    error::Error,
    rpc::{self, Answer, AnswerSlot, WireSubscription},
};

use super::Doors;

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
    let (slot, mut extensions) = (AnswerSlot::default(), Extensions::new());
    extensions.insert(slot.clone());
    if let Some(caller) = caller {
        extensions.insert(caller);
    }
    let params = Params::new(params.map(RawValue::get)).into_owned();
    // What comes back this way is empty.
    method(Id::Number(0), params, ConnectionId(0), usize::MAX, extensions).await;
    let none = || Error::Internal { what: "taking a method's answer", source: "there is none".into() };
    slot.take().unwrap_or_else(|| Err(rpc::wire(name, none())))
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
