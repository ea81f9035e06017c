//! Whether the server's certificate is good enough for the road below the sealed channel.
//!
//! Verified as anywhere else where it can be. A server with a certificate of its own making must be
//! reachable with a join token and nothing more, so without `--ca-file` another certificate is taken: a
//! man in the middle of the TLS below is refused by the pinned key above, and sees who talks to whom.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use purser_registry_client::certificate_verifier;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{config::Trust, error::AgentError};

/// How the agent speaks TLS with its server.
///
/// # Errors
/// [`AgentError::CaFile`] when the authorities cannot be loaded.
pub(crate) fn client(trust: &Trust) -> Result<Arc<ClientConfig>, AgentError> {
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::File(path) => strict(path)?,
        Trust::System => Arc::new(Lenient { verifier: by_system()?, quiet: AtomicBool::new(false) }),
        Trust::Pinned => Arc::new(Lenient { verifier: by_system()?, quiet: AtomicBool::new(true) }),
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| AgentError::Tls(Box::new(error)))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn strict(path: &Path) -> Result<Arc<dyn ServerCertVerifier>, AgentError> {
    let failed = |source| AgentError::CaFile { path: path.to_owned(), source };
    let pem = fs::read_to_string(path).map_err(|error| failed(error.into()))?;
    certificate_verifier(Some(&pem)).map_err(|error| failed(error.into()))
}

fn by_system() -> Result<Arc<dyn ServerCertVerifier>, AgentError> {
    certificate_verifier(None).map_err(|error| AgentError::Tls(Box::new(error)))
}

/// Takes any certificate, though the handshake must still be signed with its key.
#[derive(Debug)]
struct Lenient {
    verifier: Arc<dyn ServerCertVerifier>,
    /// Whether all that there is to say was said.
    quiet: AtomicBool,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if self.quiet.load(Ordering::Relaxed) {
            return Ok(ServerCertVerified::assertion());
        }
        let verified = self.verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        if let Err(error) = verified
            && !self.quiet.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                %error,
                "the server's certificate cannot be verified; going on, since the server's key is pinned and nothing \
                 is said before it was seen. With --ca-file only a verified certificate is taken"
            );
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
