//! The certificate that the control plane makes for itself where nobody gave it one: self-signed, kept
//! in the data folder, for the names that this machine goes by. Agents rely on the key pinned inside
//! their channel; other callers are given the certificate or its fingerprint.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};

use crate::{
    error::{Error, Result},
    private_file,
};

const CERTIFICATE: &str = "tls-cert.pem";
const KEY: &str = "tls-key.pem";

/// The two files of a certificate of one's own.
pub struct Files {
    /// The certificate, for whoever shall trust it.
    pub certificate: PathBuf,
    /// Its key, mode 0600.
    pub key: PathBuf,
}

/// The certificate in `folder`, made for `names` if there is none.
///
/// # Errors
/// When it cannot be made or written.
pub fn find_or_make(folder: &Path, names: &[String]) -> Result<Files> {
    let files = Files { certificate: folder.join(CERTIFICATE), key: folder.join(KEY) };
    // The certificate is written last: without it a key is a leftover that nobody has seen in use.
    if !files.certificate.try_exists().map_err(Error::internal("looking for the TLS certificate"))? {
        let (certificate, key) = make(names).map_err(Error::internal("making a TLS certificate"))?;
        let written = private_file::write(&files.key, key.as_bytes())
            .and_then(|()| private_file::write(&files.certificate, certificate.as_bytes()));
        written.map_err(Error::internal("keeping the TLS certificate"))?;
        tracing::info!(path = %files.certificate.display(), ?names, "a self-signed TLS certificate was made");
    }
    Ok(files)
}

/// Certificate and key in PEM.
fn make(names: &[String]) -> std::result::Result<(String, zeroize::Zeroizing<String>), rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "Purser");
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    // It is trusted by itself or not at all, so an end would only break hosts one day. RFC 5280, 4.1.2.5,
    // has this date for "no end"; the beginning is before any clock that is not set at all.
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem().into()))
}

/// What a control plane that listens at `listen` is called: what is certain, and what callers may use.
pub fn names(listen: IpAddr, public_host: Option<&str>) -> Vec<String> {
    let mut names = vec!["localhost".to_owned()];
    let hostname = hostname().unwrap_or_default();
    let given = [hostname.trim(), public_host.unwrap_or_default()];
    names.extend(given.into_iter().filter(|name| is_name(name)).map(str::to_lowercase));
    let addresses = if listen.is_unspecified() {
        vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
    } else {
        vec![listen]
    };
    names.extend(addresses.iter().map(IpAddr::to_string));
    names.sort();
    names.dedup();
    names
}

fn is_name(text: &str) -> bool {
    rustls::pki_types::ServerName::try_from(text).is_ok()
}

fn hostname() -> io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_callers_may_use() {
        let at = |listen: &str, public| names(listen.parse().unwrap(), public);
        let everywhere = at("0.0.0.0", Some("Purser.Example.com"));
        for name in ["localhost", "127.0.0.1", "::1", "purser.example.com"] {
            assert!(everywhere.iter().any(|known| known == name), "{name}: {everywhere:?}");
        }
        assert!(!everywhere.iter().any(|name| name == "0.0.0.0"));
        let one = at("192.0.2.7", Some("not a name"));
        assert!(one.contains(&"192.0.2.7".to_owned()) && !one.contains(&"127.0.0.1".to_owned()), "{one:?}");
        assert!(!one.iter().any(|name| name.contains(' ')));
    }

    #[test]
    fn it_is_made_once() {
        let folder = std::env::temp_dir().join(format!("purser-own-certificate-{}", std::process::id()));
        private_file::make_folder(&folder).unwrap();
        let read = || {
            let files = find_or_make(&folder, &["localhost".to_owned()]).unwrap();
            (std::fs::read(files.certificate).unwrap(), std::fs::read(files.key).unwrap())
        };
        assert_eq!(read(), read());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
