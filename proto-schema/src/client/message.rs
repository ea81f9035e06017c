//! What goes over the wire: JSON-RPC calls, answers and notifications.

use http::StatusCode;
use serde::{Deserialize, Serialize, de::Error as _};
use serde_json::value::RawValue;

use super::ClientError;
use crate::error::{ErrorData, PublicError};

/// The id of every call: each has a connection to itself while it lasts.
const ID: u32 = 1;

#[derive(Serialize)]
struct Call<'a, T> {
    jsonrpc: &'static str,
    id: u32,
    method: &'static str,
    params: &'a T,
}

#[derive(Deserialize)]
struct Answer {
    result: Option<Box<RawValue>>,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    message: String,
    data: ErrorData,
}

#[derive(Deserialize)]
struct Notification {
    params: Told,
}

/// What a notification tells.
#[derive(Deserialize)]
pub(super) struct Told {
    pub(super) subscription: u64,
    pub(super) id: Option<String>,
    result: Option<Box<RawValue>>,
    error: Option<Failure>,
}

impl Told {
    pub(super) fn result(self) -> Result<Box<RawValue>, ClientError> {
        one_of(StatusCode::SWITCHING_PROTOCOLS, self.result, self.error)
    }
}

/// The text of a call.
pub(super) fn call<T: Serialize>(method: &'static str, params: &T) -> Result<String, ClientError> {
    serde_json::to_string(&Call { jsonrpc: "2.0", id: ID, method, params }).map_err(ClientError::Input)
}

/// The result in an answer, or the failure.
pub(super) fn result(status: StatusCode, text: &[u8]) -> Result<Box<RawValue>, ClientError> {
    let answer: Answer = read(status, text)?;
    one_of(status, answer.result, answer.error)
}

/// What a notification tells.
pub(super) fn told(text: &[u8]) -> Result<Told, ClientError> {
    Ok(read::<Notification>(StatusCode::SWITCHING_PROTOCOLS, text)?.params)
}

fn read<'a, T: Deserialize<'a>>(status: StatusCode, text: &'a [u8]) -> Result<T, ClientError> {
    serde_json::from_slice(text).map_err(|error| ClientError::unreadable(status, error))
}

fn one_of(
    status: StatusCode,
    result: Option<Box<RawValue>>,
    error: Option<Failure>,
) -> Result<Box<RawValue>, ClientError> {
    match (result, error) {
        (_, Some(Failure { message, data })) => {
            Err(ClientError::Refused(Box::new(PublicError { message, data })))
        }
        (Some(result), None) => Ok(result),
        (None, None) => {
            let error = serde_json::Error::custom("neither a result nor an error");
            Err(ClientError::unreadable(status, error))
        }
    }
}
