//! Secrets as they arrive: bounded, without `Debug` of their text, and never serialized by default.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serializer};

/// The longest password accepted, in bytes: a cloud's JSON key file fits with room.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// A password or token. It is kept byte for byte: no trimming, no normalization.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// The text. Call it only where the secret is used or sealed.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The inner type, for crates that take it.
    #[must_use]
    pub fn into_inner(self) -> SecretString {
        self.0
    }

    /// Writes the secret in clear. Only fields of the sealed agent channel, and of the one
    /// answer that shows a new API key, name this by `#[serde(serialize_with = …)]`; the type itself has no
    /// `Serialize`.
    ///
    /// # Errors
    /// Whatever the serializer says.
    pub fn serialize_in_clear<S: Serializer>(secret: &Self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }
}

impl From<SecretString> for Secret {
    fn from(secret: SecretString) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = SecretString::from(String::deserialize(deserializer)?);
        let length = text.expose_secret().len();
        if length == 0 {
            return Err(serde::de::Error::custom("must not be empty; leave it out where there is none"));
        }
        if length > MAX_SECRET_BYTES {
            return Err(serde::de::Error::custom("is longer than 65536 bytes"));
        }
        Ok(Self(text))
    }
}

/// A client writes what its user gave it. Nothing else does: the server is built without this feature.
#[cfg(feature = "client")]
impl serde::Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A password or token, kept byte for byte and never shown again. At most 64 KiB of UTF-8.",
            "type": "string",
            "format": "password",
            "writeOnly": true,
            "minLength": 1,
            "maxLength": MAX_SECRET_BYTES,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_no_debug_of_its_text() {
        let secret: Secret = serde_json::from_str(r#""hunter2""#).unwrap();
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn the_error_for_a_long_secret_does_not_hold_it() {
        let long = "s".repeat(MAX_SECRET_BYTES + 1);
        let error = serde_json::from_value::<Secret>(long.clone().into()).unwrap_err().to_string();
        assert!(!error.contains("sss"), "{error}");
    }
}
