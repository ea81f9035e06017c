//! Who calls, from the headers of a request.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use purser_proto_schema::error::PublicError;
use secrecy::{ExposeSecret as _, SecretString};

use super::Doors;
use crate::{
    domain::caller::{self, Caller},
    error::{Error, Result},
    rpc,
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

/// Who makes the calls of a request or a message: its caller when it came, and of calls that may begin later the key,
/// which each of them is made with. A key may be removed or expire while they wait for each other.
pub(super) struct Presented {
    caller: Result<Arc<Caller>>,
    /// `None` where a call begins at once.
    key: Option<Key>,
    /// The key was valid and is not any more: nothing needs to be asked again.
    is_over: AtomicBool,
}

impl Presented {
    /// For a call that begins at once.
    pub(super) fn once(caller: Result<Arc<Caller>>) -> Self {
        Self { caller, key: None, is_over: AtomicBool::new(false) }
    }

    /// For calls that may begin later.
    pub(super) fn for_each(caller: Result<Arc<Caller>>, key: Key) -> Self {
        Self { key: Some(key), ..Self::once(caller) }
    }

    /// The caller when they came, if there was one.
    pub(super) fn caller(&self) -> Option<&Arc<Caller>> {
        self.caller.as_ref().ok()
    }

    /// Why there was none.
    pub(super) fn unknown(&self) -> Option<&Error> {
        self.caller.as_ref().err()
    }

    /// The caller of a call that begins now. Who was none when it came stays none.
    ///
    /// # Errors
    /// UNAUTHORIZED, or what kept the key from being looked up.
    pub(super) async fn now(&self, doors: &Doors) -> std::result::Result<Arc<Caller>, PublicError> {
        let caller = self.caller.as_ref().map_err(rpc::public)?;
        let Some(key) = &self.key else { return Ok(Arc::clone(caller)) };
        let found = match self.is_over.load(Ordering::Relaxed) {
            true => Err(Error::Unauthorized),
            false => caller_of(doors, key).await,
        };
        found.map_err(|error| {
            self.is_over.fetch_or(matches!(error, Error::Unauthorized), Ordering::Relaxed);
            rpc::public(&error)
        })
    }
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
