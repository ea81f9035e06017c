//! What each field of a registry entry must be. Rules name the field, never the value.

use purser_proto_schema::limits;
use purser_registry_client::{RegistryAddress, check_ca_certificate, check_realm_host};

use crate::{domain::naming, error::Issues};

/// A registry's address.
pub fn address(issues: &mut Issues, text: &str) -> Option<RegistryAddress> {
    if text.chars().count() > limits::ADDRESS_CHARS {
        issues.add("registryUrl", "is longer than 1024 characters");
        return None;
    }
    match RegistryAddress::parse(text) {
        Ok(address) => Some(address),
        Err(error) => {
            issues.add("registryUrl", error.to_string());
            None
        }
    }
}

/// A user name: trimmed, case kept, nothing that Basic authentication cannot carry.
pub fn username(issues: &mut Issues, text: Option<&str>) -> Option<String> {
    let text = text?;
    let length = text.chars().count();
    let text = text.trim();
    if text.is_empty() {
        issues.add("username", "must not be empty; leave it out where there is none");
    } else if length > limits::USERNAME_CHARS {
        issues.add("username", "is longer than 255 characters");
    } else if text.contains(':') {
        issues.add("username", "must not have a colon, which ends it in Basic authentication");
    } else if text.chars().any(char::is_control) {
        issues.add("username", "must not have control characters");
    }
    Some(text.to_owned())
}

/// User name and password come together or not at all.
pub fn pair(issues: &mut Issues, has_username: bool, has_password: bool) {
    if has_username && !has_password {
        issues.add("password", "is needed with a username");
    }
    if has_password && !has_username {
        issues.add("username", "is needed with a password");
    }
}

/// What pushed names are prefixed with: empty is none.
pub fn image_prefix(issues: &mut Issues, text: Option<&str>, host: Option<&str>) -> Option<String> {
    let text = text?.trim();
    if text.is_empty() {
        return None;
    }
    if let Some(host) = host
        && let Err(rule) = naming::prefix_path(text, host)
    {
        issues.add("imagePrefix", rule);
    }
    Some(text.to_owned())
}

/// Certificates in PEM form.
pub fn ca_certificate(issues: &mut Issues, text: Option<&str>) -> Option<String> {
    let text = text?;
    let length = text.chars().count();
    let text = text.trim();
    if length > limits::CERTIFICATE_CHARS {
        issues.add("caCertificate", "is longer than 65536 characters");
    } else if text.is_empty() {
        return None;
    } else if text.contains("PRIVATE KEY") {
        issues.add("caCertificate", "holds a private key: give the certificate only");
    } else if let Err(error) = check_ca_certificate(text) {
        issues.add("caCertificate", error.to_string());
    }
    Some(text.to_owned())
}

/// Further token servers that may see the secret: canonical, each once.
pub fn realm_allow(issues: &mut Issues, hosts: Option<&[String]>) -> Vec<String> {
    let hosts = hosts.unwrap_or_default();
    if hosts.len() > limits::REALM_HOSTS {
        issues.add("realmAllow", "has more than 32 hosts");
        return Vec::new();
    }
    let mut checked = Vec::with_capacity(hosts.len());
    for host in hosts {
        match check_realm_host(host) {
            Ok(host) if checked.contains(&host) => {}
            Ok(host) => checked.push(host),
            Err(error) => {
                issues.add("realmAllow", format!("must hold only host or host:port: {error}"));
                break;
            }
        }
    }
    checked
}
