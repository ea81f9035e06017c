//! Calling a procedure's JSON-RPC method in process: what every door ends in.

use std::sync::Arc;

use jsonrpsee::{
    ConnectionId, Extensions, MethodCallback,
    types::{ErrorObjectOwned, Id, Params},
};
use serde_json::value::RawValue;

use crate::{
    domain::{caller::Caller, large_inputs::Place},
    error::Error,
    rpc::{self, Answer, Aside, WireSubscription},
};

use super::Doors;

/// Calls a registered procedure, with the place of its input where that came in a large one. Without a caller the
/// answer is UNAUTHORIZED. The parameters are copied here and now, and the copy is gone when they have been parsed:
/// whoever calls should keep none of its own while it waits for the answer, which may be long.
pub(super) fn call(
    doors: &Doors,
    name: &'static str,
    params: Option<&RawValue>,
    caller: Option<Arc<Caller>>,
    place: Option<Arc<Place>>,
) -> impl Future<Output = Answer> + Send + use<> {
    call_with(doors, name, params, caller, Aside::with_place(place, false))
}

/// As [`call`], where this goes on with an earlier one: it does not count against its key's limit again.
pub(super) fn go_on(
    doors: &Doors,
    name: &'static str,
    params: Option<&RawValue>,
    caller: Option<Arc<Caller>>,
) -> impl Future<Output = Answer> + Send + use<> {
    call_with(doors, name, params, caller, Aside::going_on())
}

/// As [`call`], with what goes beside it.
pub(super) fn call_with(
    doors: &Doors,
    name: &'static str,
    params: Option<&RawValue>,
    caller: Option<Arc<Caller>>,
    aside: Aside,
) -> impl Future<Output = Answer> + Send + use<> {
    let answering = match doors.procedures.methods().method(name) {
        Some(MethodCallback::Async(method)) => {
            let mut extensions = Extensions::new();
            extensions.insert(aside.clone());
            if let Some(caller) = caller {
                extensions.insert(caller);
            }
            let params = Params::new(params.map(RawValue::get)).into_owned();
            Some(method(Id::Number(0), params, ConnectionId(0), usize::MAX, extensions))
        }
        _ => None,
    };
    async move {
        let Some(answering) = answering else {
            return Err(rpc::wire(name, Error::NotFound("procedure")));
        };
        // What comes back this way is empty.
        answering.await;
        let none = || Error::Internal { what: "taking a method's answer", source: "there is none".into() };
        aside.take_answer().unwrap_or_else(|| Err(rpc::wire(name, none())))
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
