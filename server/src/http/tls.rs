//! TLS for all doors: which certificate is shown, when it is read again, and how a caller is shaken
//! hands with.
//!
//! A certificate is replaced whole ([`Tls::reload`]): connections that stand keep the one they began
//! with, the next ones get the new one, and a broken file changes nothing.

use std::{
    io::Read as _,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use ring::digest;
use rustls::{
    ServerConfig,
    client::verify_server_name,
    crypto,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    server::{Acceptor, ParsedCertificate},
};
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use zeroize::Zeroizing;

use super::own_certificate;
use crate::error::{Error, Result};

/// From the accepted socket to the end of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes whose caller has said hello, at once. One that says nothing holds its socket only.
const HANDSHAKES: usize = 1_024;
/// More than any chain of certificates.
const MAX_FILE: u64 = 1024 * 1024;

/// Whose certificate is shown.
pub enum Source<'a> {
    /// One that the operator gave, as PEM files.
    Given {
        /// The chain, the server's own certificate first.
        certificate: &'a Path,
        /// Its key.
        key: &'a Path,
    },
    /// One of our own making.
    Own {
        /// Where it is kept.
        folder: &'a Path,
        /// What callers may call us.
        names: Vec<String>,
    },
}

impl<'a> Source<'a> {
    /// A certificate of our own, for a listener at this address.
    pub fn own(folder: &'a Path, listen: IpAddr, public_url: Option<&str>) -> Self {
        let uri = public_url.and_then(|url| url.parse::<axum::http::Uri>().ok());
        let host = uri.as_ref().and_then(axum::http::Uri::host);
        Self::Own { folder, names: own_certificate::names(listen, host) }
    }
}

/// The listener's half of TLS.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
    handshakes: Semaphore,
}

impl Tls {
    /// Reads the certificate, or makes one.
    ///
    /// # Errors
    /// When a file cannot be read, holds something else, or does not fit the other.
    pub fn load(source: Source<'_>) -> Result<Self> {
        let (certificate, key, names) = match source {
            Source::Given { certificate, key } => (certificate.to_owned(), key.to_owned(), Vec::new()),
            Source::Own { folder, names } => {
                let files = own_certificate::find_or_make(folder, &names)?;
                (files.certificate, files.key, names)
            }
        };
        let read = read(&certificate, &key).map_err(Error::internal("reading the TLS certificate"))?;
        let (path, sha256) = (certificate.display(), &read.fingerprint);
        tracing::info!(%path, sha256, "serving TLS");
        for name in names.iter().filter(|name| !read.is_for(name)) {
            tracing::warn!(%path, name, "the kept certificate is not for this name; remove both files to have new ones made");
        }
        let current = RwLock::new(read.config);
        Ok(Self { certificate, key, current, handshakes: Semaphore::new(HANDSHAKES) })
    }

    /// Reads the files again. What cannot be used is logged, and the certificate stays as it was.
    pub async fn reload(self: Arc<Self>) {
        let read = tokio::task::spawn_blocking(move || self.read_again()).await;
        if read.is_err() {
            tracing::error!("reading the TLS certificate again failed; the former one stays");
        }
    }

    fn read_again(&self) {
        let path = self.certificate.display();
        match read(&self.certificate, &self.key) {
            Ok(read) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = read.config;
                tracing::info!(%path, sha256 = read.fingerprint, "the TLS certificate was read again");
            }
            Err(error) => {
                tracing::error!(%path, error, "the TLS certificate was not replaced; the former one stays");
            }
        }
    }

    /// Shakes hands with a caller, within 10 s.
    ///
    /// # Errors
    /// When the caller is too slow or does not speak TLS.
    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let handshake = async {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            let _place = self.handshakes.acquire().await.map_err(std::io::Error::other)?;
            hello.into_stream(self.config()).await
        };
        timeout(HANDSHAKE, handshake).await?
    }

    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A certificate that can be shown.
struct Readable {
    config: Arc<ServerConfig>,
    leaf: CertificateDer<'static>,
    /// SHA-256 as browsers and openssl write it.
    fingerprint: String,
}

impl Readable {
    fn is_for(&self, name: &str) -> bool {
        let (Ok(leaf), Ok(name)) = (ParsedCertificate::try_from(&self.leaf), ServerName::try_from(name))
        else {
            return false;
        };
        verify_server_name(&leaf, &name).is_ok()
    }
}

/// Errors say which file, and nothing of what is in it.
fn read(certificate: &Path, key: &Path) -> std::result::Result<Readable, String> {
    let pem = content(certificate)?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<std::result::Result<Vec<_>, _>>();
    let chain = chain.map_err(|_| format!("{} is not valid PEM", certificate.display()))?;
    let Some(leaf) = chain.first().cloned() else {
        return Err(format!("{} holds no certificate in PEM", certificate.display()));
    };
    let pem = content(key)?;
    let private = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| format!("{} holds no private key in PEM (without a passphrase)", key.display()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| unusable(certificate, key, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let digest = digest::digest(&digest::SHA256, &leaf);
    let fingerprint: Vec<_> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    Ok(Readable { config: Arc::new(config), leaf, fingerprint: fingerprint.join(":") })
}

fn content(path: &Path) -> std::result::Result<Zeroizing<Vec<u8>>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut content = Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

fn unusable(certificate: &Path, key: &Path, error: &rustls::Error) -> String {
    let (certificate, key) = (certificate.display(), key.display());
    match error {
        rustls::Error::InconsistentKeys(_) => format!("{key} is not the key of {certificate}"),
        error => format!("{certificate} and {key} cannot be used: {error}"),
    }
}
