//! The join token: all that a host needs besides the server's URL.
//!
//! `purser_join_<base64url(version, server id, 32-byte secret, SHA-256 of the server's public key)>`.
//! It works once, for 15 minutes, for one server row; it pins the server's key, so a man in the
//! middle is refused at the very first dial.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use secrecy::SecretString;
use uuid::Uuid;

use crate::{ids::ServerId, secret::Secret};

const PREFIX: &str = "purser_join_";
const VERSION: u8 = 1;
const SECRET_BYTES: usize = 32;
const LENGTH: usize = 1 + 16 + SECRET_BYTES + FINGERPRINT_BYTES;

/// Bytes of a key fingerprint: SHA-256.
pub const FINGERPRINT_BYTES: usize = 32;

/// SHA-256 of a public key.
pub type Fingerprint = [u8; FINGERPRINT_BYTES];

/// The fingerprint of a public key.
#[must_use]
pub fn fingerprint(public_key: &[u8]) -> Fingerprint {
    let mut out = [0; FINGERPRINT_BYTES];
    out.copy_from_slice(digest::digest(&digest::SHA256, public_key).as_ref());
    out
}

/// A fingerprint as people compare it.
#[must_use]
pub fn display_fingerprint(fingerprint: &Fingerprint) -> String {
    format!("SHA256:{}", URL_SAFE_NO_PAD.encode(fingerprint))
}

/// A join token taken apart.
#[derive(Debug)]
pub struct JoinToken {
    /// The server row it enrols for.
    pub server_id: ServerId,
    /// What the agent shows to be enrolled: base64url of 32 random bytes.
    pub secret: Secret,
    /// Whose server it is.
    pub server_key: Fingerprint,
}

/// Why a text is no join token.
#[derive(Debug, thiserror::Error)]
pub enum JoinTokenError {
    /// It does not have the form. The text is not repeated.
    #[error("not a Purser join token: it starts with `purser_join_` and is copied whole from server.create")]
    Malformed,
    /// A newer server made it.
    #[error("the join token is of version {0}, which this agent does not know: use a newer agent")]
    Version(u8),
    /// The id has no UUID to carry, or the system has no randomness.
    #[error("a join token could not be made")]
    Unavailable,
}

impl JoinToken {
    /// A fresh token for a server.
    ///
    /// # Errors
    /// [`JoinTokenError::Unavailable`] where the system gives no random bytes.
    pub fn generate(server_id: ServerId, server_key: Fingerprint) -> Result<Self, JoinTokenError> {
        let mut secret = [0; SECRET_BYTES];
        SystemRandom::new().fill(&mut secret).map_err(|_| JoinTokenError::Unavailable)?;
        let secret = Secret::from(SecretString::from(URL_SAFE_NO_PAD.encode(secret)));
        Ok(Self { server_id, secret, server_key })
    }

    /// The token as text: a secret, shown once.
    ///
    /// # Errors
    /// [`JoinTokenError::Unavailable`] where the server id was not made by this program.
    pub fn encode(&self) -> Result<SecretString, JoinTokenError> {
        let uuid = self.server_id.uuid().ok_or(JoinTokenError::Unavailable)?;
        let secret = URL_SAFE_NO_PAD.decode(self.secret.expose()).map_err(|_| JoinTokenError::Malformed)?;
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.push(VERSION);
        bytes.extend_from_slice(uuid.as_bytes());
        bytes.extend_from_slice(&secret);
        bytes.extend_from_slice(&self.server_key);
        Ok(SecretString::from(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`JoinTokenError`], without the text.
    pub fn decode(text: &str) -> Result<Self, JoinTokenError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(JoinTokenError::Malformed)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| JoinTokenError::Malformed)?;
        let (&version, rest) = bytes.split_first().ok_or(JoinTokenError::Malformed)?;
        if version != VERSION {
            return Err(JoinTokenError::Version(version));
        }
        let (uuid, rest) = rest.split_first_chunk::<16>().ok_or(JoinTokenError::Malformed)?;
        let (secret, key) = rest.split_first_chunk::<SECRET_BYTES>().ok_or(JoinTokenError::Malformed)?;
        Ok(Self {
            server_id: ServerId::from_uuid(Uuid::from_bytes(*uuid)),
            secret: Secret::from(SecretString::from(URL_SAFE_NO_PAD.encode(secret))),
            server_key: key.try_into().map_err(|_| JoinTokenError::Malformed)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_token_carries_id_secret_and_fingerprint() {
        let token = JoinToken::generate(ServerId::generate(), fingerprint(b"key")).unwrap();
        let read = JoinToken::decode(token.encode().unwrap().expose_secret()).unwrap();
        assert_eq!(read.server_id, token.server_id);
        assert_eq!(read.secret.expose(), token.secret.expose());
        assert_eq!(read.server_key, token.server_key);
    }

    #[test]
    fn other_texts_are_refused_without_being_repeated() {
        for text in ["", "purser_join_", "purser_join_AQhunter2", "purser_join_!!hunter2", "hunter2"] {
            let error = JoinToken::decode(text).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
