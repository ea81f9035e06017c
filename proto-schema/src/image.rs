//! `image.*`: images on Docker hosts, pulled and pushed with the organization's credentials.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{RegistryId, ServerId},
    job::Job,
    limits,
    procedure::procedures,
    secret::Secret,
    strict,
    time::Timestamp,
};

procedures! {
    /// Pulls an image onto one host or several. The credential is `auth`, else the entry that
    /// `registryId` names, else the entry whose namespace or host fits best, else the default for
    /// names without a registry, else none; the job says which. What may heal by itself (the network, a
    /// registry's 5xx, a rate limit) is tried up to three times.
    Mutation "image.pull" [ImagePull] Pull(PullInput) -> Job;
    /// Pushes a local image of a host to a registry entry, under the entry's prefix.
    Mutation "image.push" [ImagePush] Push(PushInput) -> Job;
    /// The images on a host, as its engine lists them now.
    Query "image.all" [ImageRead] All(AllInput) -> Vec<Image>, asks "a host", fails [PreconditionFailed];
}

/// A credential for one operation. It is erased when the operation ends.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(feature = "client", derive(Serialize))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OneTimeAuth {
    /// The user name.
    #[schemars(length(max = limits::ONE_TIME_USERNAME_CHARS), regex(pattern = limits::ONE_TIME_USERNAME))]
    pub username: String,
    /// The password; kept byte for byte.
    pub password: Secret,
}

/// Input of `image.pull`. Exactly one of `serverId`, `serverIds` and `labels` is needed.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ImagePullInput")]
pub struct PullInput {
    /// A reference as Docker takes it. No tag means `latest`, never all tags.
    pub image: String,
    /// Onto this host.
    pub server_id: Option<ServerId>,
    /// Onto these hosts, at most 10000.
    #[schemars(length(min = 1, max = limits::TARGETS))]
    pub server_ids: Option<Vec<ServerId>>,
    /// Onto every host that has all of these labels.
    #[schemars(extend("minProperties" = 1))]
    pub labels: Option<BTreeMap<String, String>>,
    /// With this entry's credential; its host must be the image's.
    pub registry_id: Option<RegistryId>,
    /// With this credential.
    #[serde(default, deserialize_with = "strict::object_or_null")]
    pub auth: Option<OneTimeAuth>,
    /// Such as `linux/arm64`; the host's own when absent.
    #[schemars(regex(pattern = limits::PLATFORM))]
    pub platform: Option<String>,
    /// How many hosts at once, 1 to 10000; all when absent.
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

/// Input of `image.push`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ImagePushInput")]
pub struct PushInput {
    /// A local image of the host.
    pub image: String,
    /// From this host.
    pub server_id: ServerId,
    /// To this entry.
    pub registry_id: RegistryId,
    /// The repository below the registry's host, in place of the computed one.
    pub repository: Option<String>,
    /// The tag, in place of the image's own.
    #[schemars(regex(pattern = limits::TAG))]
    pub tag: Option<String>,
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

/// Input of `image.all`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(feature = "client", derive(Serialize))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ImageAllInput")]
pub struct AllInput {
    /// Which host.
    pub server_id: ServerId,
}

/// An image on a host.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "HostImage")]
pub struct Image {
    /// The engine's id of it: `sha256:…`.
    pub image_id: String,
    /// Its names with tags.
    pub tags: Vec<String>,
    /// Its names with digests.
    pub digests: Vec<String>,
    /// Its size on the host.
    pub size_bytes: u64,
    /// When it was built.
    pub created_at: Timestamp,
}
