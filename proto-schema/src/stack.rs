//! `stack.*`: the images of a Compose file.
//!
//! A Compose file is read as the Compose specification says. `${…}` is taken from `variables` only,
//! never from the environment of the server. What a pull does not need (environments, ports, volumes) is not
//! looked at, and the file is kept nowhere: it may hold secrets.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::{
    ids::{RegistryId, ServerId},
    image::OneTimeAuth,
    job::Job,
    limits,
    procedure::procedures,
    registry::MatchedReference,
    strict,
};

procedures! {
    /// The images of a Compose file, each with the entry that it would be pulled with, and the services
    /// that need no pull.
    Query "stack.images" [RegistryRead] Images(ImagesInput) -> StackImages;
    /// Pulls the images of a Compose file onto one host or several: one target per host and image, an image
    /// that several services share once. The credential of each is found as by `image.pull`; one that is
    /// refused fails its own targets only. The services that need no pull are in the job's request, and why.
    Mutation "stack.pull" [ImagePull] Pull(PullInput) -> Job;
}

/// The longest Compose file taken, in bytes.
pub const MAX_COMPOSE_FILE_BYTES: usize = 512 * 1024;
/// The variables of a call, at most.
pub const MAX_VARIABLES: usize = 1_000;
/// The longest value of a variable, in bytes.
pub const MAX_VARIABLE_BYTES: usize = 64 * 1024;

/// The text of a Compose file: bounded, and without `Debug` of its text.
pub struct ComposeFile(SecretString);

impl ComposeFile {
    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for ComposeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ComposeFile(…)")
    }
}

impl<'de> Deserialize<'de> for ComposeFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = SecretString::from(String::deserialize(deserializer)?);
        if text.expose_secret().trim().is_empty() {
            return Err(D::Error::custom("must not be empty"));
        }
        if text.expose_secret().len() > MAX_COMPOSE_FILE_BYTES {
            return Err(D::Error::custom("is longer than 524288 bytes"));
        }
        Ok(Self(text))
    }
}

#[cfg(feature = "client")]
impl Serialize for ComposeFile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

#[cfg(feature = "client")]
impl From<String> for ComposeFile {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl JsonSchema for ComposeFile {
    fn schema_name() -> Cow<'static, str> {
        "ComposeFile".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The text of a Compose file, at most 512 KiB of UTF-8.",
            "type": "string",
            "writeOnly": true,
            "pattern": limits::NOT_BLANK,
            "maxLength": MAX_COMPOSE_FILE_BYTES,
        })
    }
}

/// Values by variable: bounded, and without `Debug` of the values.
#[derive(Default)]
pub struct Variables(BTreeMap<String, SecretString>);

impl Variables {
    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(ExposeSecret::expose_secret)
    }
}

impl FromIterator<(String, String)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name, SecretString::from(value))).collect())
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Variables({} of them)", self.0.len())
    }
}

impl<'de> Deserialize<'de> for Variables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values: Self = BTreeMap::<String, String>::deserialize(deserializer)?.into_iter().collect();
        if values.0.len() > MAX_VARIABLES {
            return Err(D::Error::custom("must be at most 1000"));
        }
        if values.0.values().any(|value| value.expose_secret().len() > MAX_VARIABLE_BYTES) {
            return Err(D::Error::custom("has a value that is longer than 65536 bytes"));
        }
        Ok(values)
    }
}

#[cfg(feature = "client")]
impl Serialize for Variables {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value.expose_secret())))
    }
}

impl JsonSchema for Variables {
    fn schema_name() -> Cow<'static, str> {
        "Variables".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Values by variable, each at most 64 KiB of UTF-8.",
            "type": "object",
            "writeOnly": true,
            "maxProperties": MAX_VARIABLES,
            "additionalProperties": {"type": "string", "maxLength": MAX_VARIABLE_BYTES},
        })
    }
}

/// Input of `stack.images`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "StackImagesInput")]
pub struct ImagesInput {
    /// The text of one Compose file, at most 512 KiB and 500 services. What it includes or extends from
    /// other files cannot be seen: send the output of `docker compose config --no-interpolate` then.
    pub compose_file: ComposeFile,
    /// For `$NAME` and `${NAME…}` in it. A variable that an image name needs, that is not here and has no
    /// default, is an error: Docker would leave it empty, and pull something else.
    pub variables: Option<Variables>,
    /// Services with profiles are in only when one of theirs is here; `*` is every profile.
    #[schemars(length(max = limits::PROFILES), inner(regex(pattern = limits::PROFILE)))]
    pub profiles: Option<Vec<String>>,
    /// Use this entry for the images of its registry; the others are matched as ever.
    pub registry_id: Option<RegistryId>,
}

/// What a Compose file comes to.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StackImages {
    /// Each once per platform, in the order of the names of the services.
    pub images: Vec<StackImage>,
    /// The services without a pull, by name.
    pub skipped: Vec<SkippedService>,
}

/// An image of a Compose file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StackImage {
    /// The services that use it.
    pub services: Vec<String>,
    /// What would be pulled, fully qualified.
    pub image: String,
    /// The same, taken apart.
    pub reference: MatchedReference,
    /// The services' platform; null: the host's own.
    pub platform: Option<String>,
    /// With which entry; null: without credentials.
    pub registry_id: Option<RegistryId>,
    /// Why, in words.
    pub reason: String,
}

/// A service without a pull.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SkippedService {
    /// Its name.
    pub service: String,
    /// Why, for programs.
    pub why: Skip,
    /// Why, in words.
    pub reason: String,
}

/// Why a service is not pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SkipReason")]
pub enum Skip {
    /// It is built, and names no image.
    Build,
    /// Its `pull_policy` is `never` or `build`.
    PullPolicy,
    /// None of its profiles was asked for.
    Profile,
    /// Something else than an engine provides it.
    Provider,
}

/// Input of `stack.pull`. Exactly one of `serverId`, `serverIds` and `labels` is needed. Hosts times images
/// are at most 10000.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "StackPullInput")]
pub struct PullInput {
    /// As of `stack.images`.
    pub compose_file: ComposeFile,
    /// As of `stack.images`.
    pub variables: Option<Variables>,
    /// As of `stack.images`.
    #[schemars(length(max = limits::PROFILES), inner(regex(pattern = limits::PROFILE)))]
    pub profiles: Option<Vec<String>>,
    /// Onto this host.
    pub server_id: Option<ServerId>,
    /// Onto these hosts.
    #[schemars(length(min = 1, max = limits::TARGETS))]
    pub server_ids: Option<Vec<ServerId>>,
    /// Onto every host that has all of these labels.
    #[schemars(extend("minProperties" = 1))]
    pub labels: Option<BTreeMap<String, String>>,
    /// Use this entry for the images of its registry; the others are matched as ever.
    pub registry_id: Option<RegistryId>,
    /// With this credential. Only where all images are of one registry: it is sent to no other.
    #[serde(default, deserialize_with = "strict::object_or_null")]
    pub auth: Option<OneTimeAuth>,
    /// For services that name none, such as `linux/arm64`; the host's own when absent.
    #[schemars(regex(pattern = limits::PLATFORM))]
    pub platform: Option<String>,
    /// How many pulls at once, over all hosts, 1 to 10000; all when absent.
    #[schemars(range(min = 1, max = limits::TARGETS))]
    #[serde(default, deserialize_with = "strict::whole_or_null")]
    pub max_parallel: Option<u32>,
    /// After the first failure, cancel what has not started.
    pub fail_fast: Option<bool>,
    /// How long a target may wait for its host, in seconds, at most a week; 15 minutes when absent.
    #[schemars(range(min = 1, max = limits::QUEUE_SECONDS))]
    #[serde(default, deserialize_with = "strict::whole_or_null")]
    pub queue_timeout_seconds: Option<u32>,
    /// How long it may go on without progress, in seconds, at most a day; 10 minutes when absent.
    #[schemars(range(min = 1, max = limits::RUN_SECONDS))]
    #[serde(default, deserialize_with = "strict::whole_or_null")]
    pub stall_timeout_seconds: Option<u32>,
    /// How long it may run in all, in seconds, at most a day; an hour when absent.
    #[schemars(range(min = 1, max = limits::RUN_SECONDS))]
    #[serde(default, deserialize_with = "strict::whole_or_null")]
    pub timeout_seconds: Option<u32>,
    /// Answer when the job has ended, or after 15 minutes.
    pub wait: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_the_file_nor_a_value_shows_in_debug() {
        let text = r#"{"composeFile":"hunter2","variables":{"NAME":"hunter2"}}"#;
        let input: ImagesInput = serde_json::from_str(text).unwrap();
        assert_eq!(input.variables.as_ref().and_then(|values| values.get("NAME")), Some("hunter2"));
        assert!(!format!("{input:?}").contains("hunter2"), "{input:?}");
    }

    #[test]
    fn a_file_and_values_are_bounded() {
        let error = |value: serde_json::Value| match serde_json::from_value::<ImagesInput>(value) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        };
        let file = |bytes: usize| "x".repeat(bytes);
        let values = |count: usize, bytes: usize| -> serde_json::Value {
            (0..count)
                .map(|n| (format!("V{n}"), file(bytes).into()))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        assert_eq!(error(serde_json::json!({"composeFile": file(MAX_COMPOSE_FILE_BYTES)})), "accepted");
        assert!(
            error(serde_json::json!({"composeFile": file(MAX_COMPOSE_FILE_BYTES + 1)})).contains("524288")
        );
        for (count, bytes, said) in [
            (MAX_VARIABLES, 1, "accepted"),
            (MAX_VARIABLES + 1, 1, "1000"),
            (1, MAX_VARIABLE_BYTES, "accepted"),
            (1, MAX_VARIABLE_BYTES + 1, "65536"),
        ] {
            let said_of = error(serde_json::json!({"composeFile": "x", "variables": values(count, bytes)}));
            assert!(said_of.contains(said), "{count} of {bytes}: {said_of}");
        }
    }
}
