use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::fake::{Fake, answer};

struct Pki {
    ca_pem: String,
    acceptor: TlsAcceptor,
}

/// A certificate for `name`, issued by an authority of its own.
fn issued(name: &str, adjust: impl FnOnce(&mut CertificateParams)) -> Pki {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    adjust(&mut leaf);
    let certificate = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    Pki { ca_pem, acceptor: acceptor(certificate.der().clone(), &key) }
}

/// A certificate authority that is its own server certificate, as `openssl req -x509` makes it.
fn self_signed(name: &str) -> Pki {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    Pki { ca_pem: certificate.pem(), acceptor: acceptor(certificate.der().clone(), &key) }
}

fn acceptor(certificate: CertificateDer<'static>, key: &KeyPair) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn tested(pki: &Pki, ca: Option<&str>, insecure: bool) -> Result<TestOutcome, TestFailure> {
    let fake = Fake::serve(Some(pki.acceptor.clone()), |asked| match asked.authorization {
        None => answer("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"x\""], ""),
        Some(_) => answer("200 OK", &[], "{}"),
    })
    .await;
    let target = Target { insecure, ca_certificate: ca.map(str::to_owned), ..at(fake.address) };
    client().test(&target, Some(&bob(PASSWORD)), None, DEADLINE).await.map_err(failed)
}

async fn code(pki: &Pki, ca: Option<&str>) -> DiagnosisCode {
    tested(pki, ca, false).await.unwrap_err().diagnosis.code
}

#[tokio::test]
async fn an_unknown_authority_is_refused_even_on_loopback_and_trusted_once_entered() {
    for pki in [issued("127.0.0.1", |_| ()), self_signed("127.0.0.1")] {
        assert_eq!(code(&pki, None).await, DiagnosisCode::TlsUnknownAuthority);
        let outcome = tested(&pki, Some(&pki.ca_pem), false).await.unwrap();
        assert_eq!(outcome.credentials, CredentialsVerdict::Verified);
        assert!(outcome.warnings.is_empty());
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_or_time_is_told_apart() {
    for pki in [issued("other.test", |_| ()), self_signed("other.test")] {
        assert_eq!(code(&pki, Some(&pki.ca_pem)).await, DiagnosisCode::TlsName);
    }
    let expired = issued("127.0.0.1", |params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    assert_eq!(code(&expired, Some(&expired.ca_pem)).await, DiagnosisCode::TlsExpired);
}

#[tokio::test]
async fn an_insecure_entry_takes_any_certificate_and_says_so() {
    let outcome = tested(&issued("other.test", |_| ()), None, true).await.unwrap();
    assert_eq!(outcome.credentials, CredentialsVerdict::Verified);
    assert!(outcome.warnings.iter().any(|warning| warning.contains("certificate was not checked")));
}

#[tokio::test]
async fn a_broken_ca_certificate_is_named_as_the_fault() {
    let pki = issued("127.0.0.1", |_| ());
    for ca in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let failure = tested(&pki, Some(ca), false).await.unwrap_err();
        assert!(failure.diagnosis.message.contains("CA certificate"), "{}", failure.diagnosis.message);
        assert!(crate::check_ca_certificate(ca).is_err());
    }
    assert_eq!(crate::check_ca_certificate(&format!("{0}{0}", pki.ca_pem)), Ok(2));
}

#[tokio::test]
async fn plain_http_is_spoken_to_loopback_without_being_asked_and_to_http_urls_with_a_warning() {
    let fake = Fake::start(|_| answer("200 OK", &[], "{}")).await;
    let outcome = client().test(&at(fake.address), None, None, DEADLINE).await.unwrap();
    assert!(outcome.warnings.is_empty(), "{:?}", outcome.warnings);
    assert_eq!(fake.connections(), 1);
    let target = target(&format!("http://{}", fake.address));
    let outcome = client().test(&target, None, None, DEADLINE).await.unwrap();
    assert!(outcome.warnings.iter().any(|warning| warning.contains("http://")));
    assert_eq!(fake.connections(), 2);
}

#[tokio::test]
async fn plain_http_where_tls_is_wanted_is_http_on_https() {
    let fake = Fake::start(|_| answer("200 OK", &[], "{}")).await;
    // Not a loopback literal, though it leads there.
    let target = target(&format!("[::ffff:127.0.0.1]:{}", fake.address.port()));
    let failure = client().test(&target, None, None, DEADLINE).await.map_err(failed).unwrap_err();
    assert_eq!(failure.diagnosis.code, DiagnosisCode::HttpOnHttps);
    let insecure = Target { insecure: true, ..target };
    let outcome = client().test(&insecure, None, None, DEADLINE).await.unwrap();
    assert!(outcome.warnings.iter().any(|warning| warning.contains("plain HTTP")));
}

/// A server of plain HTTP that waits for the end of a line never notices a TLS handshake.
#[tokio::test]
async fn a_plain_registry_that_keeps_silent_to_tls_is_still_reached() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { insecure: true, ..at(listener.local_addr().unwrap()) };
    tokio::spawn(async move {
        let (_silent, _) = listener.accept().await.unwrap();
        let (mut plain, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let _ = plain.read(&mut head).await.unwrap();
        plain.write_all(answer("200 OK", &[], "{}").as_bytes()).await.unwrap();
    });
    let outcome = client().test(&target, None, None, Duration::from_secs(6)).await.unwrap();
    assert_eq!(outcome.auth, AuthScheme::None);
}
