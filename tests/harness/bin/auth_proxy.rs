//! Basic authentication for passwords that bcrypt cannot hold.
//!
//! bcrypt looks at 72 bytes, so an htpasswd registry accepts a 4 KiB password of which only the
//! beginning survived. This proxy compares every byte and forwards to the registry without
//! authentication: together they are a registry with Basic authentication for all users.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, client, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use purser_tests::user::{User, from_basic};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

type Body = BoxBody<Bytes, hyper::Error>;

/// What the Distribution specification wants with a 401.
pub(crate) const UNAUTHORIZED: &str =
    r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}"#;

/// Serves on `runtime`; gives the address.
pub(crate) fn start(runtime: &Runtime, upstream: String, users: Arc<[User]>) -> Result<String, String> {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?.to_string();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (upstream, users) = (upstream.clone(), users.clone());
            let service = service_fn(move |request| {
                let (upstream, users) = (upstream.clone(), users.clone());
                async move { Ok::<_, Infallible>(answer(request, &upstream, &users).await) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(address)
}

/// Whom the `Authorization` header names and whether the password is right; `None` without one.
pub(crate) fn login<'a>(headers: &HeaderMap, users: &'a [User]) -> Option<Result<&'a User, String>> {
    let header = headers.get(header::AUTHORIZATION)?;
    let (username, password) = header.to_str().ok().and_then(from_basic).unwrap_or_default();
    let found = users.iter().find(|user| user.username == username && user.password == password);
    Some(found.ok_or(username))
}

async fn answer(mut request: Request<Incoming>, upstream: &str, users: &[User]) -> Response<Body> {
    if !matches!(login(request.headers(), users), Some(Ok(_))) {
        return refusal();
    }
    request.headers_mut().remove(header::AUTHORIZATION);
    forward(request, upstream).await.unwrap_or_else(|error| {
        let body = Full::new(Bytes::from(error)).map_err(|never: Infallible| match never {});
        let mut response = Response::new(body.boxed());
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    })
}

/// The `Host` header stays, so that the registry's `Location`s lead back here.
async fn forward(request: Request<Incoming>, upstream: &str) -> Result<Response<Body>, String> {
    let stream = TcpStream::connect(upstream).await.map_err(|error| error.to_string())?;
    let shaken = client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, driver) = shaken.map_err(|error| error.to_string())?;
    tokio::spawn(driver);
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    Ok(response.map(BodyExt::boxed))
}

fn refusal() -> Response<Body> {
    let body =
        Full::new(Bytes::from_static(UNAUTHORIZED.as_bytes())).map_err(|never: Infallible| match never {});
    Response::builder()
        .status(StatusCode::UNAUTHORIZED)
        .header(header::WWW_AUTHENTICATE, r#"Basic realm="purser-testbed""#)
        .header(header::CONTENT_TYPE, "application/json")
        .header("docker-distribution-api-version", "registry/2.0")
        .body(body.boxed())
        .expect("a constant response is well-formed")
}
