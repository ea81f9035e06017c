//! Token servers, and whether they may see a registry's secret.

use http::Uri;

use crate::address::{AddressError, Authority, Host, RegistryAddress};
use crate::diagnosis::{Diagnosis, DiagnosisCode as Code, presentable};

/// Registries whose token server is known to be in another domain: the end of the registry's host, and the token server.
/// (Docker Hub needs no entry: registry-1.docker.io and auth.docker.io share their domain.)
const KNOWN_PAIRS: [(&str, &str); 1] = [(".scw.cloud", "api.scaleway.com")];

/// A token server that was found to belong to the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Realm {
    pub(crate) https: bool,
    pub(crate) authority: Authority,
    /// Path and query, with at least a slash.
    pub(crate) path: String,
    /// The host is the registry's own, whatever the port.
    pub(crate) same_host: bool,
}

impl Realm {
    /// The port that is dialled.
    pub(crate) fn port(&self) -> u16 {
        self.authority.port.unwrap_or(if self.https { 443 } else { 80 })
    }

    /// Judges what a registry named as its token server; `registry_is_plain` says that it was itself reached without
    /// TLS, `allow` names token servers that the entry's owner trusts besides. The same rule holds without a secret,
    /// since the Engine would go where it is sent.
    pub(crate) fn judge(
        realm: &str,
        registry: &RegistryAddress,
        registry_is_plain: bool,
        allow: &[String],
    ) -> Result<Self, Diagnosis> {
        let uri: Uri = realm.parse().map_err(|_| unreadable())?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(unreadable()),
        };
        let authority = uri.authority().ok_or_else(unreadable)?;
        // `Authority::parse` refuses user information, odd IPv4 spellings and whatever else isn't a host.
        let authority = Authority::parse(authority.as_str()).map_err(|_| unreadable())?;
        if !https && !registry_is_plain {
            return Err(without_tls(&authority));
        }
        let own = Authority::parse(&registry.api_authority()).map_err(|_| unreadable())?;
        let same_host = own.host == authority.host;
        let port = authority.port.unwrap_or(if https { 443 } else { 80 });
        if !same_host && !belongs(&own.host, &authority.host) && !is_allowed(allow, &authority, port) {
            return Err(foreign(&authority));
        }
        let path = match uri.path_and_query().map_or("/", |path| path.as_str()) {
            path if path.starts_with('/') => path.to_owned(),
            query => format!("/{query}"),
        };
        Ok(Self { https, authority, path, same_host })
    }
}

/// The host that a registry named as its token server, as our texts name it; not yet judged.
pub(crate) fn named_host(realm: &str) -> Option<String> {
    let uri: Uri = realm.parse().ok()?;
    Some(Authority::parse(uri.authority()?.as_str()).ok()?.host.to_string())
}

/// Whether `realm` is run by whoever runs `registry`, as far as names tell: loopback both, or the same registrable
/// domain, or a known pair. Addresses belong only to themselves.
pub(crate) fn belongs(registry: &Host, realm: &Host) -> bool {
    if registry.is_loopback_literal() && realm.is_loopback_literal() {
        return true;
    }
    let (Host::Name(registry), Host::Name(realm)) = (registry, realm) else { return false };
    let domain = psl::domain_str(registry);
    (domain.is_some() && domain == psl::domain_str(realm))
        || KNOWN_PAIRS.iter().any(|(end, token_server)| registry.ends_with(end) && realm == token_server)
}

fn unreadable() -> Diagnosis {
    Diagnosis::new(
        Code::RealmDenied,
        "the registry names a token server that isn't a proper https:// URL",
        "Check the registry's token settings (realm).",
    )
}

fn without_tls(authority: &Authority) -> Diagnosis {
    let host = presentable(&authority.to_string());
    Diagnosis::new(
        Code::RealmDenied,
        format!(
            "the registry wants the credentials sent to {host}, without TLS, although the registry itself has it; \
             nothing was sent there"
        ),
        "Check the registry's external URL and token settings (realm): the token server must have TLS.",
    )
}

fn foreign(authority: &Authority) -> Diagnosis {
    let host = presentable(&authority.to_string());
    let advice = format!(
        "Check the registry's external URL and token settings (realm): the token server should be on the registry's own \
         host or domain. If {host} is known to be its token server, add `{host}` to realmAllow of the entry."
    );
    Diagnosis::new(
        Code::RealmDenied,
        format!(
            "the registry wants the credentials sent to {host}, which doesn't belong to the registry's domain; \
             nothing was sent there"
        ),
        advice,
    )
}

/// Reads one entry of [`Target::realm_allow`](crate::Target::realm_allow) as typed (`Auth.Example.com`,
/// `auth.example.com:8443`) and writes it in canonical form. Without a port, every port of the host is meant. There are
/// no wildcards.
///
/// # Errors
/// [`AddressError`] for whatever isn't `host[:port]`, without repeating it.
pub fn check_realm_host(text: &str) -> Result<String, AddressError> {
    let text = text.trim();
    match text {
        "" => Err(AddressError::Empty),
        _ if text.contains('@') => Err(AddressError::UserInfo),
        _ => Authority::parse(text).map(|authority| authority.to_string()),
    }
}

pub(crate) fn is_allowed(allow: &[String], authority: &Authority, port: u16) -> bool {
    allow.iter().filter_map(|entry| Authority::parse(entry.trim()).ok()).any(|allowed| {
        allowed.host == authority.host && allowed.port.is_none_or(|allowed_port| allowed_port == port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(registry: &str, realm: &str) -> Result<Realm, Code> {
        let registry = RegistryAddress::parse(registry).unwrap();
        let plain = registry.plain_http || registry.is_loopback_literal();
        Realm::judge(realm, &registry, plain, &[]).map_err(|diagnosis| diagnosis.code)
    }

    #[test]
    fn the_owner_of_an_entry_may_trust_a_host_by_name_and_nothing_else() {
        let registry = RegistryAddress::parse("registry.example.com").unwrap();
        let judge = |realm: &str, allow: &[&str]| {
            let allow: Vec<String> = allow.iter().map(|entry| (*entry).to_owned()).collect();
            Realm::judge(realm, &registry, false, &allow).map_err(|diagnosis| diagnosis.code)
        };
        assert!(judge("https://auth.other.test/token", &["auth.other.test"]).is_ok());
        assert!(judge("https://auth.other.test:8443/token", &["AUTH.other.test"]).is_ok());
        assert!(judge("https://auth.other.test/token", &["auth.other.test:443"]).is_ok());
        for (realm, allow) in [
            ("https://auth.other.test:8443/token", "auth.other.test:443"),
            ("https://auth.other.test/token", "other.test"),
            ("https://auth.other.test/token", "*.other.test"),
            ("https://auth.other.test/token", ""),
            ("http://auth.other.test/token", "auth.other.test"),
            ("https://auth.other.test.evil.test/token", "auth.other.test"),
        ] {
            assert_eq!(judge(realm, &[allow]), Err(Code::RealmDenied), "{realm} {allow}");
        }
        let denied = Realm::judge("https://auth.other.test/t", &registry, false, &[]).unwrap_err();
        assert!(denied.message.contains("auth.other.test") && denied.advice.contains("realmAllow"));
    }

    #[test]
    fn an_allowed_token_server_is_written_as_host_and_port() {
        assert_eq!(check_realm_host(" Auth.Example.com:8443 ").as_deref(), Ok("auth.example.com:8443"));
        for wrong in ["", "https://a.test", "a.test/token", "u:p@a.test", "*.a.test", "2130706433"] {
            assert!(check_realm_host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn token_servers_of_the_same_host_or_domain_are_trusted() {
        for (registry, realm) in [
            ("docker.io", "https://auth.docker.io/token"),
            ("ghcr.io", "https://ghcr.io/token"),
            ("registry.gitlab.com", "https://gitlab.com/jwt/auth"),
            ("registry.example.co.uk:5000", "https://auth.example.co.uk:8443/token?x=y"),
            ("rg.fr-par.scw.cloud", "https://api.scaleway.com/registry-internal/v1/regions/fr-par/tokens"),
            ("registry.example.com:5000", "https://registry.example.com:5001/token"),
            ("10.0.0.5:5000", "https://10.0.0.5/service/token"),
            ("http://10.0.0.5:5000", "http://10.0.0.5:5001/token"),
            ("localhost:5000", "http://127.0.0.1:5001/token"),
            ("[::1]:5000", "http://localhost:5001/token"),
            ("registry:5000", "https://registry:5001/token"),
        ] {
            assert!(judge(registry, realm).is_ok(), "{registry} {realm}");
        }
        let realm = judge("ghcr.io", "https://GHCR.io?a=b").unwrap();
        assert_eq!((realm.authority.to_string().as_str(), realm.path.as_str()), ("ghcr.io", "/?a=b"));
        assert_eq!((realm.port(), realm.same_host), (443, true));
    }

    #[test]
    fn every_other_token_server_is_denied() {
        for (registry, realm) in [
            ("ghcr.io", "https://evil.test/token"),
            ("ghcr.io", "https://ghcr.io.evil.test/token"),
            ("ghcr.io", "https://evilghcr.io/token"),
            ("ghcr.io", "https://ghcr.io@evil.test/token"),
            ("ghcr.io", "http://ghcr.io/token"),
            ("ghcr.io", "https://169.254.169.254/latest"),
            ("ghcr.io", "https://localhost/token"),
            ("ghcr.io", "/token"),
            ("ghcr.io", "ghcr.io/token"),
            ("ghcr.io", "file:///etc/passwd"),
            ("ghcr.io", "https://2130706433/token"),
            ("a.github.io", "https://b.github.io/token"),
            ("registry.co.uk", "https://evil.co.uk/token"),
            ("10.0.0.5:5000", "https://10.0.0.6/token"),
            ("evil-docker.io", "https://auth.docker.io.evil.test/token"),
            ("localhost:5000", "http://example.com/token"),
            ("registry:5000", "https://auth:5001/token"),
            ("scw.cloud.evil.test", "https://api.scaleway.com/token"),
        ] {
            assert_eq!(judge(registry, realm), Err(Code::RealmDenied), "{registry} {realm}");
        }
    }
}
