//! Reading a request's body: bounded in size, in time, and in how much of all bodies is in memory at once.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::Request,
    http::{HeaderMap, header},
};
use http_body_util::BodyExt as _;
use purser_proto_schema::error::{Code, PublicError};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{BODY, Doors, MAX_BODY, SMALL_BODY, auth};
use crate::rpc;

/// How long what is too large is read on.
const DRAINING: Duration = Duration::from_secs(2);
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

/// A body that was read.
pub(super) struct Read {
    pub(super) bytes: Bytes,
    /// Given back when the call has been answered: until then parts of the body are in memory.
    _place: Option<OwnedSemaphorePermit>,
}

/// The body that [`is_json`] promises. What is larger than [`SMALL_BODY`] is read only for who has a key, and a few
/// at a time, so that whoever sends much, or slowly, can take only so much memory.
///
/// # Errors
/// UNSUPPORTED_MEDIA_TYPE, PAYLOAD_TOO_LARGE, TIMEOUT, UNAUTHORIZED for a large one without a key, or BAD_REQUEST for a
/// body that breaks off.
pub(super) async fn read_json(doors: &Doors, request: Request) -> Result<Read, PublicError> {
    if !is_json(request.headers()) {
        return Err(not_json());
    }
    match timeout(BODY, read(doors, request)).await {
        Ok(read) => read,
        Err(_) => Err(PublicError::new(Code::Timeout, "the body took longer than 15 s")),
    }
}

async fn read(doors: &Doors, request: Request) -> Result<Read, PublicError> {
    let (parts, mut body) = request.into_parts();
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > MAX_BODY {
        // Whoever sends much more hears it before.
        if announced <= 2 * MAX_BODY {
            drain(&mut body).await;
        }
        return Err(too_large());
    }
    let (mut bytes, mut place) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| PublicError::new(Code::BadRequest, "the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > MAX_BODY {
            drop(bytes);
            drain(&mut body).await;
            return Err(too_large());
        }
        if length > SMALL_BODY && place.is_none() {
            auth::caller(doors, &parts.headers).await.map_err(|error| rpc::public(&error))?;
            let taken = Arc::clone(&doors.large_bodies).acquire_owned().await;
            place = Some(taken.map_err(|_| too_large())?);
            bytes.reserve_exact(announced.saturating_sub(bytes.len()));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Read { bytes: bytes.into(), _place: place })
}

/// Reads on, and keeps nothing, so that the caller has sent what it has before the connection is closed: many look for
/// an answer only then. Not for long.
async fn drain(body: &mut Body) {
    let reading = async {
        let mut left = MAX_BODY;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            let Some(less) = left.checked_sub(length) else { return };
            left = less;
        }
    };
    let _ = timeout(DRAINING, reading).await;
}

fn too_large() -> PublicError {
    PublicError::new(Code::PayloadTooLarge, "the body is larger than 1 MiB")
}
