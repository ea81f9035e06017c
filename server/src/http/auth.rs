//! Who calls, from the headers of a request.

use std::{collections::BTreeMap, sync::Arc};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use secrecy::{ExposeSecret as _, SecretString};

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
    find(doors, presented_key(headers)).await
}

/// What a request showed as its key. A copy: the headers themselves would keep all of what was read with them in
/// memory, for as long as a socket or a stream lasts.
#[derive(Clone)]
pub(super) struct Key(Option<Arc<SecretString>>);

impl Key {
    /// The key in these headers, if there is one.
    pub(super) fn shown_in(headers: &HeaderMap) -> Self {
        Self(presented_key(headers).map(|key| Arc::new(SecretString::from(key))))
    }
}

/// The caller of a key, as [`caller`].
///
/// # Errors
/// [`Error::Unauthorized`].
pub(super) async fn caller_of(doors: &Doors, key: &Key) -> Result<Arc<Caller>> {
    find(doors, key.0.as_ref().map(|key| key.expose_secret())).await
}

async fn find(doors: &Doors, presented: Option<&str>) -> Result<Arc<Caller>> {
    let presented = presented.ok_or(Error::Unauthorized)?;
    let app = &doors.app;
    let found = caller::authenticate(&app.store, &app.known_keys, &app.refusals, presented).await;
    found.inspect_err(|error| {
        if let Error::Internal { .. } | Error::NotBegun { .. } = error {
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
