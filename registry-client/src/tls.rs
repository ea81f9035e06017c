//! How a registry's certificate is judged, and what a failed handshake means.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};
use rustls_platform_verifier::Verifier;
use thiserror::Error;

use crate::diagnosis::{Diagnosis, DiagnosisCode as Code};

/// Why the text given as further certificate authorities can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CaCertificateError {
    /// No `-----BEGIN CERTIFICATE-----` block.
    #[error("the CA certificate holds no PEM block `-----BEGIN CERTIFICATE-----`")]
    Empty,
    /// A block that isn't a certificate.
    #[error("the CA certificate isn't valid PEM, or what is in it isn't an X.509 certificate")]
    Invalid,
}

/// How many certificates a PEM text holds; for checking input before it is stored.
///
/// # Errors
/// When it holds none, or something else in one's place.
pub fn check_ca_certificate(pem: &str) -> Result<usize, CaCertificateError> {
    let certificates = parse_pem(pem)?;
    roots_of(&certificates)?;
    Ok(certificates.len())
}

fn parse_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>, CaCertificateError> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| CaCertificateError::Invalid)?;
    if certificates.is_empty() { Err(CaCertificateError::Empty) } else { Ok(certificates) }
}

fn roots_of(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, CaCertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).map_err(|_| CaCertificateError::Invalid)?;
    }
    Ok(roots)
}

/// Judges servers as registries are judged: by the system's authorities, and by those in `extra_pem`, where a
/// self-signed certificate stands for itself.
///
/// # Errors
/// When `extra_pem` holds no certificate, or something else in one's place.
pub fn certificate_verifier(
    extra_pem: Option<&str>,
) -> Result<Arc<dyn ServerCertVerifier>, CaCertificateError> {
    Trust::new().verifier(extra_pem)
}

/// What all connections of a client share: the crypto provider and the system's roots.
#[derive(Debug)]
pub(crate) struct Trust {
    provider: Arc<CryptoProvider>,
    system: Arc<SystemRoots>,
}

impl Trust {
    /// Loads nothing yet.
    pub(crate) fn new() -> Self {
        let provider = Arc::new(ring::default_provider());
        let system = Arc::new(SystemRoots { provider: Arc::clone(&provider), verifier: OnceLock::new() });
        Self { provider, system }
    }

    /// Trusts the system's authorities, and those in `extra_pem`.
    pub(crate) fn verified(&self, extra_pem: Option<&str>) -> Result<Arc<ClientConfig>, Diagnosis> {
        let verifier = self.verifier(extra_pem).map_err(|error| {
            Diagnosis::new(Code::Other, error.to_string(), "Enter the authority's certificate in PEM form.")
        })?;
        self.config(verifier)
    }

    fn verifier(&self, extra_pem: Option<&str>) -> Result<Arc<dyn ServerCertVerifier>, CaCertificateError> {
        let extra = extra_pem.map(|pem| self.extra_roots(pem)).transpose()?;
        Ok(self.judge(Taken::Vouched { system: Arc::clone(&self.system), extra }))
    }

    /// Trusts whoever answers.
    pub(crate) fn unverified(&self) -> Result<Arc<ClientConfig>, Diagnosis> {
        self.config(self.judge(Taken::All))
    }

    fn judge(&self, taken: Taken) -> Arc<Judge> {
        Arc::new(Judge { provider: Arc::clone(&self.provider), taken })
    }

    fn extra_roots(&self, pem: &str) -> Result<ExtraRoots, CaCertificateError> {
        let certificates = parse_pem(pem)?;
        let roots = roots_of(&certificates)?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
                .build()
                .map_err(|_| CaCertificateError::Invalid)?;
        Ok(ExtraRoots { verifier, certificates })
    }

    fn config(&self, verifier: Arc<dyn ServerCertVerifier>) -> Result<Arc<ClientConfig>, Diagnosis> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Diagnosis::new(Code::Other, error.to_string(), ""))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A test has to see the certificate that is presented now.
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// The system's certificate authorities, read when the first certificate is to be judged (some 10 ms, once).
#[derive(Debug)]
struct SystemRoots {
    provider: Arc<CryptoProvider>,
    verifier: OnceLock<Option<Verifier>>,
}

impl SystemRoots {
    fn verifier(&self) -> Result<&Verifier, TlsError> {
        let load = || {
            Verifier::new(Arc::clone(&self.provider))
                .inspect_err(
                    |error| tracing::warn!(%error, "the system's certificate authorities can't be loaded"),
                )
                .ok()
        };
        self.verifier
            .get_or_init(load)
            .as_ref()
            .ok_or(TlsError::InvalidCertificate(CertificateError::UnknownIssuer))
    }
}

/// The authorities of one registry entry.
#[derive(Debug)]
struct ExtraRoots {
    verifier: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl ExtraRoots {
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let verdict = self.verifier.verify_server_cert(end_entity, intermediates, name, &[], now);
        match verdict {
            // Docker takes a self-signed certificate as its own authority. webpki refuses that only after it found the
            // certificate valid at this time, so the name is all that is left to check.
            Err(error)
                if is_self_signed_leaf(&error)
                    && self.certificates.iter().any(|known| known == end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }
}

/// The certificate is a certificate authority's, as `openssl req -x509` makes them.
fn is_self_signed_leaf(error: &TlsError) -> bool {
    matches!(error, TlsError::InvalidCertificate(CertificateError::Other(other))
        if other.to_string().contains("CaUsedAsEndEntity"))
}

fn is_unknown_issuer(error: &TlsError) -> bool {
    matches!(error, TlsError::InvalidCertificate(CertificateError::UnknownIssuer))
        || is_self_signed_leaf(error)
}

/// Whose certificates are taken.
#[derive(Debug)]
enum Taken {
    /// Those that an authority vouches for.
    Vouched { system: Arc<SystemRoots>, extra: Option<ExtraRoots> },
    /// Anybody's, for entries marked insecure.
    All,
}

/// Judges certificates. That the handshake is signed with a certificate's key is checked of all of them.
#[derive(Debug)]
struct Judge {
    provider: Arc<CryptoProvider>,
    taken: Taken,
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Taken::Vouched { system, extra } = &self.taken else {
            return Ok(ServerCertVerified::assertion());
        };
        let by_extra = extra.as_ref().map(|extra| extra.verify(end_entity, intermediates, name, now));
        match by_extra {
            // The entry's authority issued it, so its objection (name, time) is the one that helps.
            Some(Err(error)) if !is_unknown_issuer(&error) => Err(error),
            Some(Ok(verified)) => Ok(verified),
            _ => system.verifier()?.verify_server_cert(end_entity, intermediates, name, ocsp, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a failed handshake with `host` means.
pub(crate) fn diagnose_handshake(host: &str, error: &io::Error) -> Diagnosis {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) else {
        return Diagnosis::new(
            Code::Connect,
            format!("{host} cut the connection during the TLS handshake"),
            "Check that the port speaks TLS, and look at the proxies on the way.",
        );
    };
    match tls {
        TlsError::InvalidMessage(_) => Diagnosis::new(
            Code::HttpOnHttps,
            format!("{host} doesn't speak TLS on this port; it seems to speak plain HTTP"),
            "Put TLS in front of it, or mark the entry insecure (the Docker hosts then need it under insecure-registries).",
        ),
        TlsError::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => Diagnosis::new(
            Code::TlsExpired,
            format!("the certificate of {host} has expired or isn't valid yet"),
            "Renew the certificate, and check the clock of the machine that tested.",
        ),
        TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Diagnosis::new(
            Code::TlsName,
            format!("the certificate of {host} is for another name"),
            "Use the name that the certificate is for, or have one issued for this name.",
        ),
        error if is_unknown_issuer(error) => Diagnosis::new(
            Code::TlsUnknownAuthority,
            format!("the certificate of {host} was issued by an authority that isn't trusted"),
            "Enter the authority's certificate; Docker hosts need it in /etc/docker/certs.d/HOST/ca.crt.",
        ),
        error => Diagnosis::new(
            Code::Other,
            format!("the TLS handshake with {host} failed"),
            "Check the registry's TLS settings; Purser speaks TLS 1.2 and 1.3.",
        )
        .with_engine_message(&error.to_string()),
    }
}
