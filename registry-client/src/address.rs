//! Registry URLs as people type them: `ghcr.io`, `https://index.docker.io/v1/`, `registry.example.com:5000/team/`.

mod authority;
mod idn;

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use authority::{Authority, Host};

use crate::reference;

/// The canonical name of Docker Hub.
pub const DOCKER_HUB: &str = "docker.io";

/// Where Docker Hub's API really is.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// What the Engine has called Docker Hub since its first days.
const DOCKER_HUB_ENGINE_ADDRESS: &str = "https://index.docker.io/v1/";

/// The longest accepted input, in bytes.
const MAX_INPUT_BYTES: usize = 1024;

/// Why an address was refused. The messages go to callers and logs, so none of them repeats the input: people paste
/// passwords into the wrong field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Nothing but white space.
    #[error("the registry address is empty")]
    Empty,
    /// Longer than any address.
    #[error("the registry address is longer than 1024 bytes")]
    TooLong,
    /// `@` anywhere.
    #[error(
        "the registry address must not contain `@`: put the user name and password into their own fields, \
         and leave image digests out"
    )]
    UserInfo,
    /// A scheme other than http and https.
    #[error("the registry address must begin with https:// or http://, or with the host itself")]
    Scheme,
    /// `?` anywhere.
    #[error(
        "the registry address must not contain a query; enter only the host, or the host and a namespace"
    )]
    Query,
    /// `#` anywhere.
    #[error(
        "the registry address must not contain a fragment; enter only the host, or the host and a namespace"
    )]
    Fragment,
    /// Spaces, control characters or backslashes inside.
    #[error("the registry address contains a space or another character that no address has")]
    Character,
    /// Letters outside ASCII that make no host name, or one that is easily taken for another; or a wrong `xn--`.
    #[error(
        "the registry host contains characters that host names don't have, letters of several scripts in one word, or a \
         wrong `xn--`; enter its ASCII form (punycode, `xn--…`)"
    )]
    Letters,
    /// No valid host name.
    #[error(
        "the registry host is not valid: it takes letters, digits, hyphens and dots; \
         IPv6 addresses go in square brackets"
    )]
    Host,
    /// A number that some programs read as an IPv4 address.
    #[error("write the registry's IPv4 address as four decimal numbers, such as 192.0.2.1")]
    OddIpv4,
    /// Not a number from 1 to 65535.
    #[error("the port of the registry address must be a number from 1 to 65535")]
    Port,
    /// The path isn't a namespace.
    #[error(
        "the path of the registry address may only be a namespace such as `team` or `team/project`, \
         without a tag, `//` or `..`"
    )]
    Path,
    /// The website of Docker Hub.
    #[error("that is Docker Hub's website, not its registry; use docker.io")]
    HubWebsite,
}

/// Where a registry is, and which part of it is meant.
///
/// Two addresses are of the same registry exactly when their `host` is equal. As in Docker, the port is part of the
/// host and compared as written: `ghcr.io` and `ghcr.io:443` are two registries, because an image reference that says
/// one never uses a login for the other. Unlike in Docker, letter case never matters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryAddress {
    /// Canonical `host[:port]`: lower case, ASCII (`xn--…` for other letters), IPv6 in brackets and shortest form, `docker.io` for every alias of
    /// Docker Hub.
    pub host: String,
    /// The path, where one was given: lower case, without slashes at either end. `v1` and `v2` alone are the API's own
    /// paths and no namespace.
    pub namespace: Option<String>,
    /// The URL said `http://`. Never true for Docker Hub, which nobody reaches without TLS.
    pub plain_http: bool,
}

impl RegistryAddress {
    /// Reads an address as typed: surrounding white space, scheme, path, trailing slash, port and upper case are fine.
    ///
    /// # Errors
    /// [`AddressError`] says which part to correct, without repeating it.
    pub fn parse(input: &str) -> Result<Self, AddressError> {
        let text = input.trim();
        check_characters(text)?;
        let (plain_http, rest) = split_scheme(text)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut authority = Authority::parse(authority)?;
        if authority.is_hub_website() {
            return Err(AddressError::HubWebsite);
        }
        let mut host = authority.to_string();
        if authority.port == Some(443) && !plain_http {
            authority.port = None;
        }
        let hub = is_hub_alias(&authority.to_string());
        if hub {
            host = DOCKER_HUB.to_owned();
        }
        Ok(Self { host, namespace: parse_namespace(path)?, plain_http: plain_http && !hub })
    }

    /// Whether this is Docker Hub, under whichever of its names.
    pub fn is_docker_hub(&self) -> bool {
        self.host == DOCKER_HUB
    }

    /// What the Engine wants in `AuthConfig.serveraddress`: `https://index.docker.io/v1/` for Docker Hub, else the
    /// host. With any other spelling the containerd image store pulls anonymously without saying so.
    pub fn engine_server_address(&self) -> String {
        if self.is_docker_hub() { DOCKER_HUB_ENGINE_ADDRESS.to_owned() } else { self.host.clone() }
    }

    /// `host[:port]` that is really dialled: `registry-1.docker.io` for Docker Hub.
    pub fn api_authority(&self) -> String {
        if self.is_docker_hub() { DOCKER_HUB_API.to_owned() } else { self.host.clone() }
    }

    /// Whether the host is written as `localhost`, an address in 127.0.0.0/8, or `::1`. A name that merely resolves to
    /// such an address is not: what a name resolves to is not the operator's word.
    pub fn is_loopback_literal(&self) -> bool {
        Authority::parse(&self.host).is_ok_and(|authority| authority.host.is_loopback_literal())
    }

    /// Whether a reference whose registry is `reference_registry` (see [`Reference::registry`]) is kept here.
    ///
    /// [`Reference::registry`]: crate::Reference::registry
    pub fn serves(&self, reference_registry: &str) -> bool {
        canonical_registry_host(reference_registry) == self.host
    }
}

/// The host, and the namespace behind a slash where there is one.
impl fmt::Display for RegistryAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        match &self.namespace {
            Some(namespace) => write!(f, "/{namespace}"),
            None => Ok(()),
        }
    }
}

/// The canonical form of the registry part of a reference, comparable with [`RegistryAddress::host`]. Text that is no
/// `host[:port]` that can be dialled is merely lower-cased, and so equals no address.
pub fn canonical_registry_host(host: &str) -> String {
    let canonical =
        Authority::parse(host).map_or_else(|_| host.to_ascii_lowercase(), |parsed| parsed.to_string());
    if is_hub_alias(&canonical) { DOCKER_HUB.to_owned() } else { canonical }
}

fn is_hub_alias(host: &str) -> bool {
    matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io")
}

fn check_characters(text: &str) -> Result<(), AddressError> {
    if text.is_empty() {
        return Err(AddressError::Empty);
    }
    if text.len() > MAX_INPUT_BYTES {
        return Err(AddressError::TooLong);
    }
    // User information first: a password may hold any of the characters below.
    let refused = [('@', AddressError::UserInfo), ('?', AddressError::Query), ('#', AddressError::Fragment)];
    if let Some((_, error)) = refused.into_iter().find(|(c, _)| text.contains(*c)) {
        return Err(error);
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(AddressError::Character);
    }
    Ok(())
}

fn split_scheme(text: &str) -> Result<(bool, &str), AddressError> {
    match text.split_once("://") {
        None => Ok((false, text)),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => Ok((false, rest)),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => Ok((true, rest)),
        Some(_) => Err(AddressError::Scheme),
    }
}

fn parse_namespace(path: &str) -> Result<Option<String>, AddressError> {
    let path = path.trim_end_matches('/').to_ascii_lowercase();
    match path.as_str() {
        "" | "v1" | "v2" => Ok(None),
        _ if reference::is_valid_path(&path) => Ok(Some(path)),
        _ => Err(AddressError::Path),
    }
}

#[cfg(test)]
mod tests;
