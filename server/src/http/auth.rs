//! Who calls, from the headers of a request.

use std::sync::Arc;

use axum::http::{HeaderMap, header};

use super::Doors;
use crate::{
    domain::caller::{self, Caller},
    error::{Error, Result},
};

const API_KEY: &str = "x-api-key";

/// The caller of a request: `x-api-key`, or `Authorization: Bearer`.
///
/// # Errors
/// [`Error::Unauthorized`].
pub(super) async fn caller(doors: &Doors, headers: &HeaderMap) -> Result<Arc<Caller>> {
    let presented = presented_key(headers).ok_or(Error::Unauthorized)?;
    let app = &doors.app;
    let found = caller::authenticate(&app.store, &app.known_keys, &app.refusals, presented).await;
    found.inspect_err(|error| {
        if let Error::Internal { .. } = error {
            tracing::error!(error = %crate::error::chain(error), "a key could not be looked up");
        }
    })
}

fn presented_key(headers: &HeaderMap) -> Option<&str> {
    if let Some(key) = headers.get(API_KEY) {
        return key.to_str().ok().map(str::trim);
    }
    bearer(headers)
}

/// What is shown by `Authorization: Bearer`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}
