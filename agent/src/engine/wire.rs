//! The agent's own connection to the engine, for what bollard has no call for. One request each.

use std::io;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_util::task::AbortOnDropHandle;

use crate::config::DockerHost;

/// More than any answer that is asked for here.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Why there was no answer.
pub(super) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Asks the engine; a body is JSON. The caller sets the deadline.
pub(super) async fn ask(
    host: &DockerHost,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Response<Bytes>, Failed> {
    let stream = connect(host).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "docker")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
    Ok(Response::from_parts(head, body))
}

/// A byte stream of any kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(host: &DockerHost) -> io::Result<Box<dyn Stream>> {
    Ok(match host {
        DockerHost::Unix(path) => Box::new(UnixStream::connect(path).await?),
        DockerHost::Tcp(address) => Box::new(TcpStream::connect(address).await?),
    })
}
