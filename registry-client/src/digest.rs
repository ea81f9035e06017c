//! Content digests: what a registry hands out is what it says only if it hashes to its digest.

use std::fmt::Write as _;

use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};

/// `sha256:…` of `content`.
pub(crate) fn sha256(content: &[u8]) -> String {
    text("sha256", &SHA256, content)
}

/// Whether `content` hashes to `expected`; `None` for a digest of an algorithm that isn't known.
pub(crate) fn is_of(expected: &str, content: &[u8]) -> Option<bool> {
    let (name, _) = expected.split_once(':')?;
    let algorithm = match name {
        "sha256" => &SHA256,
        "sha384" => &SHA384,
        "sha512" => &SHA512,
        _ => return None,
    };
    Some(text(name, algorithm, content) == expected)
}

fn text(name: &str, algorithm: &'static Algorithm, content: &[u8]) -> String {
    let hash = digest(algorithm, content);
    let mut text = String::with_capacity(name.len() + 1 + 2 * hash.as_ref().len());
    text.push_str(name);
    text.push(':');
    for byte in hash.as_ref() {
        // Writing to a String never fails.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_of_its_content_only() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), empty);
        assert_eq!((is_of(empty, b""), is_of(empty, b"x")), (Some(true), Some(false)));
        assert_eq!(is_of("md5:d41d8cd98f00b204e9800998ecf8427e", b""), None);
        assert!(text("sha512", &SHA512, b"").starts_with("sha512:cf83e1357eefb8bd"));
    }
}
