//! Reading a request's body: bounded in size and time.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use purser_proto_schema::error::{Code, PublicError};
use tokio::time::timeout;

use super::BODY;

const JSON: &str = "application/json";

/// Whether the request says that its body is JSON. Parameters and case do not matter.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(JSON)
}

/// The answer to a body that is not.
pub(super) fn not_json() -> PublicError {
    let message = "send the input as JSON, with `Content-Type: application/json`";
    PublicError::new(Code::UnsupportedMediaType, message)
}

/// The body that [`is_json`] promises.
///
/// # Errors
/// UNSUPPORTED_MEDIA_TYPE, PAYLOAD_TOO_LARGE, TIMEOUT, or BAD_REQUEST for a body that breaks off.
pub(super) async fn read_json(request: Request) -> Result<Bytes, PublicError> {
    if !is_json(request.headers()) {
        return Err(not_json());
    }
    match timeout(BODY, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(PublicError::new(Code::PayloadTooLarge, "the body is larger than 1 MiB"))
        }
        Ok(Err(_)) => Err(PublicError::new(Code::BadRequest, "the body broke off")),
        Err(_) => Err(PublicError::new(Code::Timeout, "the body took longer than 15 s")),
    }
}
