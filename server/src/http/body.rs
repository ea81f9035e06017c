//! Reading a request's body: bounded in size, in time, and in how much of all bodies is in memory at once.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::Request,
    http::{HeaderMap, header},
};
use http_body_util::BodyExt as _;
use purser_proto_schema::error::{Code, PublicError};
use tokio::time::{Instant, timeout, timeout_at};

use super::{BODY, Doors, MAX_BODY, SMALL_BODY, TURN, auth};
use crate::{domain::large_inputs::Place, error::Error, rpc};

/// How long what is too large is read on.
const DRAINING: Duration = Duration::from_secs(2);
/// The longest body that is read on to its end, when its length is announced: what somebody may have taken for a call.
const DRAINED: usize = 16 * MAX_BODY;
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
#[derive(Default)]
pub(super) struct Read {
    pub(super) bytes: Bytes,
    /// Of a large one; it goes with the call, or with each call of a batch.
    pub(super) place: Option<Arc<Place>>,
}

/// The body that [`is_json`] promises. What is larger than [`SMALL_BODY`] is read only for who has a key, and a few
/// at a time ([`large_inputs`](crate::domain::large_inputs)), so that whoever sends much, or slowly, can take only so
/// much memory. Its bytes are for the door to drop once it has taken them apart. What comes of them is bounded by its
/// place for as long as there is anything of it.
///
/// # Errors
/// UNSUPPORTED_MEDIA_TYPE, PAYLOAD_TOO_LARGE, TIMEOUT, UNAUTHORIZED for a large one without a key, TOO_MANY_REQUESTS
/// for one whose turn did not come within 10 s, or BAD_REQUEST for a body that breaks off.
pub(super) async fn read_json(doors: &Doors, request: Request) -> Result<Read, PublicError> {
    Ok(read_json_if(true, doors, request).await?.unwrap_or_default())
}

/// As [`read_json`], where it may be known already that nothing comes of the body: a large one is then thrown away as
/// it comes, whoever sends it, and `None`.
///
/// # Errors
/// As there.
pub(super) async fn read_json_if(
    wanted: bool,
    doors: &Doors,
    request: Request,
) -> Result<Option<Read>, PublicError> {
    if !is_json(request.headers()) {
        return Err(not_json());
    }
    let (parts, mut body) = request.into_parts();
    read(wanted, doors, &parts.headers, &mut body).await
}

async fn read(
    wanted: bool,
    doors: &Doors,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Option<Read>, PublicError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > MAX_BODY {
        // Whoever sends much more hears it before.
        if announced <= DRAINED {
            drain(body, DRAINED).await;
        }
        return Err(too_large());
    }
    let (mut bytes, mut place) = (Vec::new(), None);
    let mut until = Instant::now() + BODY;
    while let Some(frame) = timeout_at(until, body.frame()).await.map_err(|_| too_slow())? {
        let frame = frame.map_err(|_| rpc::public(&Error::form("the body broke off")))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > MAX_BODY {
            drop(bytes);
            drain(body, MAX_BODY).await;
            return Err(too_large());
        }
        if length > SMALL_BODY && !wanted {
            drop(bytes);
            // As long as one that is wanted: whoever sends slowly would else lose the connection before the answer.
            let _ = timeout_at(until, pass_over(body, MAX_BODY)).await;
            return Ok(None);
        }
        if length > SMALL_BODY && place.is_none() {
            let caller = auth::caller(doors, headers).await.map_err(|error| rpc::public(&error))?;
            // What waits is no more than whoever has no key may send.
            let turn = timeout(TURN, doors.large_inputs.place(&caller, None)).await;
            match turn.unwrap_or(Err(Error::TooManyLargeInputs)) {
                Ok(taken) => {
                    place = Some(Arc::new(taken));
                    // It was not read while it waited.
                    until = Instant::now() + BODY;
                }
                Err(error) => {
                    drop(bytes);
                    drain(body, MAX_BODY).await;
                    return Err(rpc::public(&error));
                }
            }
            bytes.reserve_exact(announced.saturating_sub(bytes.len()));
        }
        if length > bytes.capacity() {
            // No more than may come: doubled, it would be up to twice that.
            bytes.reserve_exact((bytes.capacity() * 2).clamp(length, MAX_BODY) - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Some(Read { bytes: bytes.into(), place }))
}

/// Reads on, and keeps nothing, so that the caller has sent what it has before the connection is closed: many look for
/// an answer only then. Not for long.
async fn drain(body: &mut Body, most: usize) {
    let _ = timeout(DRAINING, pass_over(body, most)).await;
}

/// Reads so many bytes at most, and keeps none.
async fn pass_over(body: &mut Body, most: usize) {
    let mut left = most;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(less) = left.checked_sub(length) else { return };
        left = less;
    }
}

fn too_slow() -> PublicError {
    PublicError::new(Code::Timeout, "the body took longer than 15 s")
}

fn too_large() -> PublicError {
    PublicError::new(Code::PayloadTooLarge, "the body is larger than 1 MiB")
}
