//! Connections to one control plane: HTTP/1.1 over TCP or TLS, pooled, and their upgrade to a WebSocket.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header, request, uri::Scheme};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use purser_registry_client::certificate_verifier;
use rustls::{ClientConfig, crypto::ring};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

use super::{ClientError, MAX_ANSWER, message};

const API_KEY: &str = "x-api-key";
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A WebSocket to the control plane.
pub(super) type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// One control plane and the key for it.
#[derive(Clone)]
pub(super) struct Connection {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    door: Uri,
    key: Arc<SecretString>,
}

impl Connection {
    pub(super) fn new(url: &str, key: SecretString, ca: Option<&str>) -> Result<Self, ClientError> {
        let door = door(url)?;
        if key.expose_secret().is_empty() {
            return Err(ClientError::Key);
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls(ca)?).https_or_http().enable_http1();
        let pool = Pool::builder(TokioExecutor::new()).build(connector.wrap_connector(tcp));
        let connection = Self { pool, door, key: Arc::new(key) };
        connection.header().map(|_| connection)
    }

    /// What is called, without the key.
    pub(super) fn url(&self) -> impl fmt::Debug + '_ {
        &self.door
    }

    /// A call's answer, whatever its status.
    pub(super) async fn post(&self, body: String) -> Result<(StatusCode, Bytes), ClientError> {
        let request = self.request(Method::POST)?.header(header::CONTENT_TYPE, JSON);
        let response = self.send(request, body.into()).await?;
        let status = response.status();
        Ok((status, read(response).await?))
    }

    /// A new WebSocket.
    pub(super) async fn upgrade(&self) -> Result<Socket, ClientError> {
        let nonce = generate_key();
        let request = self
            .request(Method::GET)?
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &nonce);
        let response = self.send(request, Bytes::new()).await?;
        let status = response.status();
        let accept = derive_accept_key(nonce.as_bytes());
        let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        if status != StatusCode::SWITCHING_PROTOCOLS
            || accepted.is_none_or(|with| with.as_bytes() != accept.as_bytes())
        {
            let answer = read(response).await?;
            message::result(status, &answer)?;
            return Err(ClientError::connection("the upgrade to a WebSocket was not accepted"));
        }
        let stream = hyper::upgrade::on(response).await.map_err(ClientError::connection)?;
        let limits =
            WebSocketConfig::default().max_message_size(Some(MAX_ANSWER)).max_frame_size(Some(MAX_ANSWER));
        Ok(WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Client, Some(limits)).await)
    }

    async fn send(&self, request: request::Builder, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let request = request.body(Full::new(body)).map_err(ClientError::connection)?;
        self.pool.request(request).await.map_err(ClientError::connection)
    }

    fn request(&self, method: Method) -> Result<request::Builder, ClientError> {
        Ok(Request::builder().method(method).uri(self.door.clone()).header(API_KEY, self.header()?))
    }

    fn header(&self) -> Result<HeaderValue, ClientError> {
        let mut key = HeaderValue::from_str(self.key.expose_secret()).map_err(|_| ClientError::Key)?;
        key.set_sensitive(true);
        Ok(key)
    }
}

/// The door below a control plane's URL.
fn door(url: &str) -> Result<Uri, ClientError> {
    let uri: Uri = url.parse().map_err(|_| ClientError::Url)?;
    let scheme = uri.scheme().filter(|scheme| [&Scheme::HTTP, &Scheme::HTTPS].contains(scheme));
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
    let (Some(scheme), Some(authority), None) = (scheme, authority, uri.query()) else {
        return Err(ClientError::Url);
    };
    let path = format!("{}/rpc", uri.path().trim_end_matches('/'));
    let door = Uri::builder().scheme(scheme.clone()).authority(authority.clone()).path_and_query(path);
    door.build().map_err(|_| ClientError::Url)
}

fn tls(ca: Option<&str>) -> Result<ClientConfig, ClientError> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Tls(error.into()))?;
    // The verifier is the one that registries are judged by: it verifies.
    Ok(config.dangerous().with_custom_certificate_verifier(certificate_verifier(ca)?).with_no_client_auth())
}

async fn read(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| {
        if error.is::<LengthLimitError>() { ClientError::TooLarge } else { ClientError::Connection(error) }
    })?;
    Ok(body.to_bytes())
}
