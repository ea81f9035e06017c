//! The agent's own connection to the engine: for what bollard has no call for, and for all of bollard's
//! calls where the engine wants a client's certificate. One request each.

use std::{fs, io, path::Path, sync::Arc};

use bollard::BollardRequest;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use purser_registry_client::certificate_verifier;
use rustls::{
    ClientConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use secrecy::zeroize::Zeroizing;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;
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

/// A call of bollard's over TLS. Its answer is a stream, and when that is dropped the connection ends.
pub(super) async fn forward(
    address: String,
    tls: Arc<ClientConfig>,
    mut request: BollardRequest,
) -> Result<Response<Incoming>, bollard::errors::Error> {
    let stream = connect_tls(&address, tls).await?;
    // bollard writes whole URLs, for a pool of connections that would take them apart.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>().map_err(io::Error::other)?;
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("docker"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// TLS to an engine as Docker's own tools set it up: `cert.pem` and `key.pem` say who we are, `ca.pem` says
/// whom to trust, besides the system's authorities. Read for each call, so that renewed files are found.
///
/// # Errors
/// In words: which file cannot be used.
pub(super) fn client_config(folder: &Path) -> Result<Arc<ClientConfig>, String> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map(Zeroizing::new).map_err(|error| format!("{}: {error}", path.display()))
    };
    let bad = |name: &str| format!("{} cannot be used", folder.join(name).display());
    let verifier = certificate_verifier(Some(&read("ca.pem")?)).map_err(|_| bad("ca.pem"))?;
    let chain = CertificateDer::pem_slice_iter(read("cert.pem")?.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| bad("cert.pem"))?;
    let key = PrivateKeyDer::from_pem_slice(read("key.pem")?.as_bytes()).map_err(|_| bad("key.pem"))?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .map_err(|_| bad("key.pem"))?;
    Ok(Arc::new(config))
}

/// A byte stream of any kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(host: &DockerHost) -> io::Result<Box<dyn Stream>> {
    Ok(match host {
        DockerHost::Unix(path) => Box::new(UnixStream::connect(path).await?),
        DockerHost::Tcp(address) => Box::new(TcpStream::connect(address).await?),
        DockerHost::Tls { address, certificates } => {
            let tls = client_config(certificates).map_err(io::Error::other)?;
            Box::new(connect_tls(address, tls).await?)
        }
    })
}

async fn connect_tls(address: &str, tls: Arc<ClientConfig>) -> io::Result<impl Stream + use<>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(tls).connect(name, stream).await
}
