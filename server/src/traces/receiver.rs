//! The receiver of traces: where it is, and one POST to it. It is the operator's choice and no caller's, so no egress
//! policy stands before it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, Uri,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use purser_registry_client::certificate_verifier;
use rustls::{ClientConfig, crypto::ring, pki_types::ServerName};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::error::{Error, Result};

/// How long one export may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// More of an answer is not read.
const MAX_ANSWER: usize = 64 * 1024;
const PATH: &str = "/v1/traces";
const PROTOCOL: &str = "http/json";
const SERVICE: &str = "purser-server";
const WHAT: &str = "sending traces";

/// The settings, by the names that OpenTelemetry gives them everywhere.
#[derive(Debug, Default)]
pub struct Settings {
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`: traces go to `/v1/traces` below it.
    pub endpoint: Option<String>,
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`: traces go there.
    pub traces_endpoint: Option<String>,
    /// `OTEL_EXPORTER_OTLP_HEADERS`, such as `authorization=Bearer%20…`: a secret may be in them.
    pub headers: Option<SecretString>,
    /// `OTEL_EXPORTER_OTLP_PROTOCOL`; only JSON over HTTP is spoken.
    pub protocol: Option<String>,
    /// `OTEL_SERVICE_NAME`.
    pub service: Option<String>,
}

/// Where traces are sent to.
pub struct Receiver {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    headers: Vec<(HeaderName, HeaderValue)>,
    service: String,
}

impl Receiver {
    /// The receiver that is set; none where none is.
    ///
    /// # Errors
    /// One line that says what to change.
    pub fn of(settings: &Settings) -> std::result::Result<Option<Self>, String> {
        let below = settings.endpoint.as_ref().map(|base| format!("{}{PATH}", base.trim_end_matches('/')));
        let Some(url) = settings.traces_endpoint.clone().or(below) else { return Ok(None) };
        if settings.protocol.as_deref().is_some_and(|protocol| protocol != PROTOCOL) {
            return Err(format!("OTEL_EXPORTER_OTLP_PROTOCOL must be {PROTOCOL}: nothing else is spoken"));
        }
        let bad = || "OTEL_EXPORTER_OTLP_ENDPOINT must be a URL such as http://127.0.0.1:4318".to_owned();
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let host = uri.host().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
        let (tls, port) = match uri.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => (Some(tls()?), 443),
            _ => return Err(bad()),
        };
        let port = uri.port_u16().unwrap_or(port);
        let headers = settings.headers.as_ref().map(headers).transpose()?.unwrap_or_default();
        let service = settings.service.clone().unwrap_or_else(|| SERVICE.to_owned());
        Ok(Some(Self { uri, host, port, tls, headers, service }))
    }

    /// What this program calls itself there.
    pub(super) fn service(&self) -> &str {
        &self.service
    }

    /// Sends one text.
    pub(super) async fn send(&self, text: String) -> Result<()> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(Error::internal(WHAT))?;
        match &self.tls {
            None => self.post(tcp, text).await,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).map_err(Error::internal(WHAT))?;
                self.post(tls.connect(name, tcp).await.map_err(Error::internal(WHAT))?, text).await
            }
        }
    }

    async fn post(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        text: String,
    ) -> Result<()> {
        let path = self.uri.path_and_query().map_or(PATH, |path| path.as_str());
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        let mut request = Request::post(path)
            .header(HOST, authority)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("purser-server/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(text))).map_err(Error::internal(WHAT))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(Error::internal(WHAT))?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(Error::internal(WHAT))?;
            let status = answer.status();
            // Read to its end, or the receiver is cut off while it speaks.
            let _ = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            if status.is_success() { Ok(()) } else { Err(refused(status.as_u16())) }
        };
        tokio::select! {
            biased;
            exchanged = exchange => exchanged,
            ended = connection => Err(ended.err().map_or_else(cut_off, Error::internal(WHAT))),
        }
    }
}

fn refused(status: u16) -> Error {
    Error::internal(WHAT)(format!("the receiver answered {status}"))
}

fn cut_off() -> Error {
    Error::internal(WHAT)("the receiver hung up")
}

/// The receiver did not answer in time.
pub(super) fn too_slow() -> Error {
    Error::internal(WHAT)("no answer in time")
}

fn tls() -> std::result::Result<TlsConnector, String> {
    let failed = |error: &dyn std::error::Error| format!("no TLS for OTEL_EXPORTER_OTLP_ENDPOINT: {error}");
    let verifier = certificate_verifier(None).map_err(|error| failed(&error))?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// `name=value,name=value`, percent-encoded. What is wrong with them is not repeated.
fn headers(text: &SecretString) -> std::result::Result<Vec<(HeaderName, HeaderValue)>, String> {
    let bad = || "OTEL_EXPORTER_OTLP_HEADERS must be name=value pairs, separated by commas".to_owned();
    let pairs = text.expose_secret().split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or_else(bad)?;
            let value =
                percent_encoding::percent_decode_str(value.trim()).decode_utf8().map_err(|_| bad())?;
            let name = name.trim().parse::<HeaderName>().map_err(|_| bad())?;
            let mut value = HeaderValue::from_str(&value).map_err(|_| bad())?;
            value.set_sensitive(true);
            Ok((name, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoint: &str) -> Settings {
        Settings { endpoint: Some(endpoint.to_owned()), ..Settings::default() }
    }

    #[test]
    fn traces_go_below_the_endpoint_or_to_their_own() {
        let uri = |settings: &Settings| Receiver::of(settings).unwrap().unwrap().uri.to_string();
        for endpoint in ["http://h:4318", "http://h:4318/"] {
            assert_eq!(uri(&settings(endpoint)), "http://h:4318/v1/traces");
        }
        let own = Settings { traces_endpoint: Some("http://h/x".to_owned()), ..settings("http://other") };
        assert_eq!(uri(&own), "http://h/x");
        assert!(Receiver::of(&Settings::default()).unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_used_is_refused_and_not_repeated() {
        for endpoint in ["", "h:4318", "grpc://h", "http://", "/x"] {
            let refused = Receiver::of(&settings(endpoint)).err().unwrap();
            assert!(refused.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{endpoint}: {refused}");
        }
        let protocol = Settings { protocol: Some("grpc".to_owned()), ..settings("http://h") };
        assert!(Receiver::of(&protocol).err().unwrap().contains("http/json"));
        for bad in ["hunter2", "a b=hunter2", "x=hunter2%0a"] {
            let headers = Settings { headers: Some(bad.into()), ..settings("http://h") };
            let refused = Receiver::of(&headers).err().unwrap();
            assert!(
                refused.contains("OTEL_EXPORTER_OTLP_HEADERS") && !refused.contains("hunter2"),
                "{refused}"
            );
        }
        let good =
            Settings { headers: Some("authorization=Bearer%20x, x-a = b".into()), ..settings("http://h") };
        let receiver = Receiver::of(&good).unwrap().unwrap();
        assert_eq!(receiver.headers[0].1.to_str().unwrap(), "Bearer x");
        assert_eq!(receiver.headers[1].0, "x-a");
    }
}
