//! Hashes of secrets that are only ever compared: API keys and join secrets.
//!
//! Both are 256 random bits, so one pass of HMAC-SHA-256 is enough; a slow hash is for passwords that
//! people choose. An operator's own `PURSER_ADMIN_API_KEY` is required to be long instead.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{digest, hmac};

/// The hash of an API key under its public prefix.
pub fn of_key(prefix: &str, key: &str) -> String {
    URL_SAFE_NO_PAD.encode(hmac::sign(&hmac_key(prefix), key.as_bytes()))
}

/// Whether a presented key has this hash, in constant time.
pub fn key_matches(prefix: &str, key: &str, hash: &str) -> bool {
    let Ok(hash) = URL_SAFE_NO_PAD.decode(hash) else { return false };
    hmac::verify(&hmac_key(prefix), key.as_bytes(), &hash).is_ok()
}

/// The hash of a join secret, by which it is looked up.
pub fn of_random(secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, secret.as_bytes()))
}

fn hmac_key(prefix: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, prefix.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_matches_its_own_hash_only() {
        let hash = of_key("prefix", "key");
        assert!(key_matches("prefix", "key", &hash));
        assert!(!key_matches("prefix", "kez", &hash));
        assert!(!key_matches("prefiy", "key", &hash));
        assert!(!key_matches("prefix", "key", "not base64!"));
    }
}
