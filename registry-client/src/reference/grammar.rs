//! The grammar's parts: which texts are a registry, a path, a tag, a digest.

use super::{MAX_PATH_BYTES, ReferenceError};

/// Splits off the first component where it names a registry.
pub(super) fn split_registry(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest)) if looks_like_registry(first) => (Some(first), rest),
        _ => (None, text),
    }
}

/// Docker's rule for a first component followed by a slash.
pub(super) fn looks_like_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|b| b.is_ascii_uppercase())
}

/// Splits `name[:tag][@digest]`. An empty tag or digest is kept, to be refused as such.
pub(super) fn split_version(text: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    match rest.split_once(':') {
        Some((name, tag)) => (name, Some(tag), digest),
        None => (rest, None, digest),
    }
}

/// An image id as `docker images --no-trunc` prints it, without the algorithm.
pub(super) fn is_image_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(is_lower_hex)
}

/// `host[:port]` as the grammar has it: any number of digits is a port, names may be in upper case.
pub(super) fn is_valid_registry(text: &str) -> bool {
    let (host, port) = match text.rfind(':') {
        Some(colon) if !text[colon..].contains(']') => (&text[..colon], Some(&text[colon + 1..])),
        _ => (text, None),
    };
    let port_is_valid = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    port_is_valid && (is_bracketed_ipv6(host) || host.split('.').all(is_host_label))
}

/// Docker looks at the characters only.
fn is_bracketed_ipv6(host: &str) -> bool {
    host.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'))
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Whether `path` is one or more valid components and not too long.
pub(crate) fn is_valid_path(path: &str) -> bool {
    check_path(path).is_ok()
}

pub(super) fn check_path(path: &str) -> Result<(), ReferenceError> {
    if !path.split('/').all(is_component) {
        Err(ReferenceError::Format)
    } else if path.len() > MAX_PATH_BYTES {
        Err(ReferenceError::TooLong)
    } else {
        Ok(())
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut separator = 0..0;
    let bytes = text.as_bytes();
    for (at, &b) in bytes.iter().enumerate() {
        if !alphanumeric(b) {
            separator.end = at + 1;
            continue;
        }
        if !separator.is_empty() && !is_separator(&bytes[separator.clone()]) {
            return false;
        }
        separator = at + 1..at + 1;
    }
    // The text neither begins with a separator nor ends with one.
    separator.is_empty() && bytes.first().is_some_and(|b| alphanumeric(*b))
}

fn is_separator(bytes: &[u8]) -> bool {
    matches!(bytes, b"." | b"_" | b"__") || bytes.iter().all(|b| *b == b'-')
}

/// Whether `tag` is a tag.
pub(crate) fn is_valid_tag(tag: &str) -> bool {
    check_tag(tag).is_ok()
}

/// Whether `digest` is a digest of an algorithm that Docker knows.
pub(crate) fn is_valid_digest(digest: &str) -> bool {
    check_digest(digest).is_ok()
}

pub(super) fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let valid = tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if valid { Ok(()) } else { Err(ReferenceError::Tag) }
}

pub(super) fn check_digest(digest: &str) -> Result<(), ReferenceError> {
    let (algorithm, hex) = digest.split_once(':').ok_or(ReferenceError::Digest)?;
    if hex.len() < 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(ReferenceError::Digest);
    }
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(ReferenceError::DigestAlgorithm),
    };
    if hex.len() != length {
        Err(ReferenceError::DigestLength)
    } else if hex.bytes().all(is_lower_hex) {
        Ok(())
    } else {
        Err(ReferenceError::Digest)
    }
}

fn is_lower_hex(b: u8) -> bool {
    b.is_ascii_digit() || (b'a'..=b'f').contains(&b)
}
