//! `/metrics`: what is counted, as Prometheus reads it. Nothing of any tenant, but how much a company works is not for
//! everybody: on loopback it is open, elsewhere it needs the operator's token, or a listener apart.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use secrecy::ExposeSecret as _;

use super::{Doors, auth};
use crate::{config::Settings, domain::operations, error::chain, metrics::MEDIA, secret_hash};

const HOW: &str = "the metrics need PURSER_METRICS_TOKEN as `Authorization: Bearer`, or --metrics-listen\n";

/// Who may see the metrics.
#[derive(Clone)]
pub(super) enum Access {
    /// Whoever can ask.
    Open,
    /// Whoever shows the token with this hash.
    Token(Arc<str>),
    /// Nobody.
    Closed,
}

impl Access {
    /// At the doors that callers come by. Behind a proxy everybody comes from loopback.
    pub(super) fn at_the_doors(settings: &Settings) -> Self {
        let local = settings.listen.ip().is_loopback() && !settings.behind_tls_proxy;
        Self::by_token(settings).unwrap_or(if local { Self::Open } else { Self::Closed })
    }

    /// At `--metrics-listen`, which only the operator reaches.
    pub(super) fn apart(settings: &Settings) -> Self {
        Self::by_token(settings).unwrap_or(Self::Open)
    }

    fn by_token(settings: &Settings) -> Option<Self> {
        let token = settings.metrics_token.as_ref()?;
        Some(Self::Token(secret_hash::of_random(token.expose_secret()).into()))
    }

    fn allows(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Open => true,
            // What is compared is the hash: how long that takes tells nothing of the token.
            Self::Token(hash) => {
                auth::bearer(headers).is_some_and(|shown| *secret_hash::of_random(shown) == **hash)
            }
            Self::Closed => false,
        }
    }
}

pub(super) async fn handle(State(doors): State<Doors>, headers: HeaderMap) -> Response {
    if !doors.metrics.allows(&headers) {
        // Showing none is no attempt, as with keys; nor is anything where there is none to guess.
        if matches!(doors.metrics, Access::Token(_)) && headers.contains_key(header::AUTHORIZATION) {
            operations::note_wrong_token(&doors.app);
        }
        let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
        return (StatusCode::UNAUTHORIZED, challenge, HOW).into_response();
    }
    match operations::metrics(&doors.app).await {
        Ok(text) => ([(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA))], text).into_response(),
        Err(error) => {
            tracing::error!(error = %chain(&error), "the metrics could not be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n").into_response()
        }
    }
}
