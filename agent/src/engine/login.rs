//! `POST /auth`: what `docker login` asks of the engine. bollard has no call for it.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use purser_registry_client::{Diagnosis, DiagnosisCode, classify_engine_message};
use secrecy::{ExposeSecret as _, zeroize::Zeroizing};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::{Login, no_answer};
use crate::config::DockerHost;

/// More than any answer of an engine.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

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
    let answer = timeout(deadline, post(host, body)).await.map_err(|_| {
        Diagnosis::new(
            DiagnosisCode::Timeout,
            "the Docker Engine did not end the login in time",
            "The engine waits for the registry: check the network between this host and the registry.",
        )
    })?;
    let (status, text) = answer.map_err(|error| no_answer(&error.to_string()))?;
    if matches!(status, StatusCode::OK | StatusCode::NO_CONTENT) {
        return Ok(());
    }
    let message = serde_json::from_slice::<Refusal>(&text)
        .map_or_else(|_| String::from_utf8_lossy(&text).into_owned(), |refusal| refusal.message);
    Err(classify_engine_message(&message))
}

async fn post(
    host: &DockerHost,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let stream: Box<dyn Stream> = connect(host).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::builder()
        .method(Method::POST)
        .uri("/auth")
        .header(header::HOST, "docker")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let text = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await?.to_bytes();
    Ok((status, text))
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(host: &DockerHost) -> io::Result<Box<dyn Stream>> {
    Ok(match host {
        DockerHost::Unix(path) => Box::new(UnixStream::connect(path).await?),
        DockerHost::Tcp(address) => Box::new(TcpStream::connect(address).await?),
    })
}
