//! Who calls, from the headers of a request.

use std::{collections::BTreeMap, sync::Arc};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

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

/// Takes the key that a client which cannot send headers puts into the URL as `connectionParams`: a JSON
/// object of strings. A header that is there stays.
///
/// # Errors
/// [`Error::Invalid`] where it is none.
pub(super) fn take_connection_params(headers: &mut HeaderMap, text: &str) -> Result<()> {
    let params: Option<BTreeMap<String, String>> = serde_json::from_str(text)
        .map_err(|_| Error::field("connectionParams", "must be a JSON object of strings"))?;
    for (name, value) in params.into_iter().flatten() {
        let own = [HeaderName::from_static(API_KEY), header::AUTHORIZATION];
        let Some(name) = own.into_iter().find(|own| name.eq_ignore_ascii_case(own.as_str())) else {
            continue;
        };
        // One with bytes that no header has is no key.
        if let Ok(mut value) = HeaderValue::from_str(&value) {
            value.set_sensitive(true);
            headers.entry(name).or_insert(value);
        }
    }
    Ok(())
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
