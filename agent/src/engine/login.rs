//! `POST /auth`: what `docker login` asks of the engine. bollard has no call for it.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use purser_registry_client::{Diagnosis, DiagnosisCode, classify_engine_message};
use secrecy::{ExposeSecret as _, zeroize::Zeroizing};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{Login, no_answer, wire};
use crate::config::DockerHost;

#[derive(Serialize)]
struct Body<'a> {
    username: &'a str,
    password: &'a str,
    serveraddress: &'a str,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

/// Asks the engine to log in.
pub(super) async fn login(host: &DockerHost, login: &Login<'_>, deadline: Duration) -> Result<(), Diagnosis> {
    let body = Body {
        username: login.username,
        password: login.password.expose_secret(),
        serveraddress: &login.server_address,
    };
    let body = serde_json::to_vec(&body).map_err(|error| no_answer(&error.to_string()))?;
    let body = Bytes::from_owner(Zeroizing::new(body));
    let answer = timeout(deadline, wire::ask(host, Method::POST, "/auth", body)).await.map_err(|_| {
        Diagnosis::new(
            DiagnosisCode::Timeout,
            "the Docker Engine did not end the login in time",
            "The engine waits for the registry: check the network between this host and the registry.",
        )
    })?;
    let answer = answer.map_err(|error| no_answer(&error.to_string()))?;
    if matches!(answer.status(), StatusCode::OK | StatusCode::NO_CONTENT) {
        return Ok(());
    }
    let text = answer.body();
    let message = serde_json::from_slice::<Refusal>(text)
        .map_or_else(|_| String::from_utf8_lossy(text).into_owned(), |refusal| refusal.message);
    Err(classify_engine_message(&message))
}
