//! Identifiers: opaque strings with a prefix that tells what they name (`reg_…`, `srv_…`).
//!
//! A received id is only checked for size and control characters. Whether it names anything is the store's to say, so that
//! a malformed, a missing and a foreign id are answered alike.

use std::{borrow::Cow, fmt};

use chrono::{DateTime, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::limits;

/// The longest id that is accepted, in characters. Longer text is a malformed field, not an unknown id.
pub const MAX_ID_CHARS: usize = 64;

fn check(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("must not be empty");
    }
    if text.chars().count() > MAX_ID_CHARS {
        return Err("is longer than any id");
    }
    // PostgreSQL takes no NUL in a text, not even to look for it.
    if text.chars().any(char::is_control) {
        return Err("must not have control characters");
    }
    Ok(())
}

macro_rules! id {
    ($(#[doc = $doc:literal])* $name:ident, $prefix:literal) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// A new id: the prefix and a UUIDv7 without dashes, so ids sort by age.
            #[must_use]
            pub fn generate() -> Self {
                Self(format!(concat!($prefix, "_{}"), Uuid::now_v7().simple()))
            }

            /// Text that sorts behind every id generated before this moment, and before all others.
            #[must_use]
            pub fn floor_of(at: DateTime<Utc>) -> String {
                let millis = u64::try_from(at.timestamp_millis()).unwrap_or_default();
                format!(concat!($prefix, "_{:012x}"), millis)
            }

            /// Wraps text that is already known to be an id, such as a column's value.
            #[must_use]
            pub fn from_stored(text: String) -> Self {
                Self(text)
            }

            /// Received text as an id. Whether it names anything is not asked here.
            ///
            /// # Errors
            /// The rule that the text breaks.
            pub fn from_received(text: String) -> Result<Self, &'static str> {
                check(&text).map(|()| Self(text))
            }

            /// The id from its UUID, as a join token carries it.
            #[must_use]
            pub fn from_uuid(uuid: Uuid) -> Self {
                Self(format!(concat!($prefix, "_{}"), uuid.simple()))
            }

            /// The UUID inside, where the text has the generated form.
            #[must_use]
            pub fn uuid(&self) -> Option<Uuid> {
                self.0.strip_prefix(concat!($prefix, "_")).and_then(|hex| Uuid::try_parse(hex).ok())
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::from_received(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "description": concat!($($doc, "\n",)* "\nOpaque: `", $prefix, "_…`.").trim(),
                    "type": "string",
                    "minLength": 1,
                    "maxLength": MAX_ID_CHARS,
                    "pattern": limits::NO_CONTROL_CHARACTERS,
                })
            }
        }
    };
}

id!(
    /// An organization: the wall around everything else.
    OrganizationId,
    "org"
);
id!(
    /// An API key.
    ApiKeyId,
    "key"
);
id!(
    /// A registry entry.
    RegistryId,
    "reg"
);
id!(
    /// A Docker host and its agent.
    ServerId,
    "srv"
);
id!(
    /// A job.
    JobId,
    "job"
);
id!(
    /// One server's part of a job.
    TargetId,
    "tgt"
);
id!(
    /// An audit event.
    AuditEventId,
    "aud"
);
id!(
    /// A one-time join token.
    JoinTokenId,
    "jnt"
);

/// The id that an event of a subscription was told with: `lastEventId` in an input. Opaque to callers, and
/// without a prefix, since each subscription counts in its own way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventId(String);

impl EventId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(feature = "client")]
impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl JsonSchema for EventId {
    fn schema_name() -> Cow<'static, str> {
        "EventId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The id that an event of a subscription was told with. Opaque.",
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_ID_CHARS,
            "pattern": limits::NO_CONTROL_CHARACTERS,
        })
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        check(&text).map_err(serde::de::Error::custom)?;
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_id_carries_its_uuid() {
        let id = ServerId::generate();
        assert!(id.as_str().starts_with("srv_"));
        assert_eq!(ServerId::from_uuid(id.uuid().unwrap()), id);
    }

    #[test]
    fn ids_sort_by_the_moment_they_were_made() {
        let before = Utc::now() - chrono::Duration::milliseconds(1);
        let id = JobId::generate();
        let after = Utc::now() + chrono::Duration::milliseconds(1);
        assert!(
            JobId::floor_of(before).as_str() < id.as_str() && id.as_str() < JobId::floor_of(after).as_str()
        );
    }

    #[test]
    fn text_of_any_form_is_an_id_but_not_an_endless_one() {
        assert!(serde_json::from_str::<RegistryId>(r#""registry-123""#).is_ok());
        assert!(serde_json::from_str::<RegistryId>(r#""""#).is_err());
        assert!(serde_json::from_str::<RegistryId>(r#""reg_\u0000""#).is_err());
        let long = serde_json::to_string(&"r".repeat(MAX_ID_CHARS + 1)).unwrap();
        assert!(serde_json::from_str::<RegistryId>(&long).is_err());
    }
}
