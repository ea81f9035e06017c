//! `apiKey.*`: the keys that act in an organization, each with as little as it needs.
//!
//! A key is shown once, by `apiKey.create`, and never again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{ApiKeyId, OrganizationId},
    limits,
    permission::{Permission, Role},
    procedure::{NoInput, procedures},
    secret::Secret,
    strict,
    time::Timestamp,
};

procedures! {
    /// Creates an API key and shows it once. It may do no more and last no longer than the key that makes it, and its
    /// rate limit is no wider. That limit is its own: what it calls is not counted against the key that makes it.
    Mutation "apiKey.create" [ApiKeyWrite] Create(CreateInput) -> CreatedApiKey;
    /// The API keys of the organization, oldest first, expired ones included.
    Query "apiKey.all" [ApiKeyRead] All(NoInput) -> Vec<ApiKey>;
    /// Removes an API key. It stops at once, and what it holds open ends. A key may remove itself. CONFLICT
    /// for the last valid key of the organization with the role `admin`; FORBIDDEN for an instance-admin key, except
    /// to another one.
    Mutation "apiKey.remove" [ApiKeyDelete] Remove(RemoveInput) -> ApiKey;
}

/// How often a key may call: a bucket of `requests` that fills again evenly within `windowSeconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// The most calls at once, and in the long run the calls per window: 1 to 1,000,000.
    #[serde(deserialize_with = "strict::whole")]
    #[schemars(range(min = 1, max = limits::RATE_REQUESTS))]
    pub requests: u32,
    /// In seconds: 1 to 86,400.
    #[serde(deserialize_with = "strict::whole")]
    #[schemars(range(min = 1, max = limits::RATE_WINDOW_SECONDS))]
    pub window_seconds: u32,
}

/// An API key as callers see it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// Its id.
    pub api_key_id: ApiKeyId,
    /// Its name for people.
    pub name: String,
    /// How the key begins, to recognize it by; `chosen` for one that the operator chose.
    pub prefix: String,
    /// Its role; null where it has permissions of its own.
    pub role: Option<Role>,
    /// Its permissions; null where it has a role.
    pub permissions: Option<Vec<Permission>>,
    /// When it stops working; null for never.
    pub expires_at: Option<Timestamp>,
    /// How often it may call; null for any number.
    pub rate_limit: Option<RateLimit>,
    /// When it was last used, to the minute; null for never.
    pub last_used_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The organization that it acts in.
    pub organization_id: OrganizationId,
}

/// A key that was just made.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedApiKey {
    /// What is known of it from now on.
    #[serde(flatten)]
    pub api_key: ApiKey,
    /// The key itself, for `x-api-key`. Shown once.
    #[serde(serialize_with = "Secret::serialize_in_clear")]
    #[schemars(with = "String")]
    pub key: Secret,
}

/// Input of `apiKey.create`. Either `role` or `permissions`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ApiKeyCreateInput")]
pub struct CreateInput {
    /// A name for people, 1 to 255 characters.
    #[schemars(length(max = limits::NAME_CHARS), regex(pattern = limits::NAME))]
    pub name: String,
    /// `admin`, `deployer` or `viewer`.
    #[serde(default, deserialize_with = "strict::word_or_null")]
    pub role: Option<Role>,
    /// Exactly these, such as `["registry:read", "image:pull"]`.
    #[schemars(length(min = 1))]
    #[serde(default, deserialize_with = "strict::words_or_null")]
    pub permissions: Option<Vec<Permission>>,
    /// When it stops working; never when absent.
    pub expires_at: Option<Timestamp>,
    /// How often it may call; any number when absent.
    #[serde(default, deserialize_with = "strict::object_or_null")]
    pub rate_limit: Option<RateLimit>,
    /// In which organization; for instance-admin keys. The key's own when absent.
    pub organization_id: Option<OrganizationId>,
}

/// Input of `apiKey.remove`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(feature = "client", derive(Serialize))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ApiKeyRemoveInput")]
pub struct RemoveInput {
    /// Which key.
    pub api_key_id: ApiKeyId,
}
