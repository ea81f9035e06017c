//! `host[:port]`, the part of a URL that is dialled.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{AddressError, idn};

/// A host: what is looked up, or dialled as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// A lower-case ASCII name.
    Name(String),
    /// An address, written in its usual form.
    Ip(IpAddr),
}

impl Host {
    /// Reads a host without a port; IPv6 in brackets. Other letters than ASCII's become ASCII here, so nothing behind
    /// this sees them.
    pub(crate) fn parse(text: &str) -> Result<Self, AddressError> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(AddressError::Host)?;
            return inner.parse::<Ipv6Addr>().map(|ip| Self::Ip(ip.into())).map_err(|_| AddressError::Host);
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(ip.into()));
        }
        let mut name = text.to_ascii_lowercase();
        if !name.is_ascii() || name.split('.').any(|label| label.starts_with("xn--")) {
            name = idn::to_ascii(&name).ok_or(AddressError::Letters)?;
        }
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(AddressError::Host);
        }
        // `127.1`, `2130706433` and `0x7f.1` are addresses to every C library, whatever they look like.
        if name.rsplit('.').next().is_some_and(is_number) {
            Err(AddressError::OddIpv4)
        } else {
            Ok(Self::Name(name))
        }
    }

    /// `localhost`, 127.0.0.0/8 or `::1`, as written.
    pub(crate) fn is_loopback_literal(&self) -> bool {
        match self {
            Self::Name(name) => name == "localhost",
            Self::Ip(ip) => ip.is_loopback(),
        }
    }
}

/// IPv6 in brackets.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// A host and the port that was written after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    pub(crate) host: Host,
    pub(crate) port: Option<u16>,
}

impl Authority {
    /// Reads `host[:port]`; nothing else may be there.
    pub(crate) fn parse(text: &str) -> Result<Self, AddressError> {
        let (host, port) = match text.rfind(':') {
            // The last colon of `[::1]` belongs to the address, that of `[::1]:5000` doesn't.
            Some(colon) if !text[colon..].contains(']') => (&text[..colon], Some(&text[colon + 1..])),
            _ => (text, None),
        };
        if !host.starts_with('[') && host.contains(':') {
            return Err(AddressError::Host);
        }
        let host = Host::parse(host)?;
        let port = port.map(parse_port).transpose()?;
        Ok(Self { host, port })
    }

    pub(super) fn is_hub_website(&self) -> bool {
        matches!(&self.host, Host::Name(name)
            if matches!(name.as_str(), "hub.docker.com" | "docker.com" | "www.docker.com" | "app.docker.com"))
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    if text.is_empty() || text.len() > 5 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AddressError::Port);
    }
    text.parse().ok().filter(|port| *port != 0).ok_or(AddressError::Port)
}

fn is_label(label: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = label.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

fn is_number(label: &str) -> bool {
    match label.strip_prefix("0x") {
        Some(hex) => hex.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    }
}
