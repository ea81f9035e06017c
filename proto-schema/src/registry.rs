//! `registry.*`: an organization's registry entries and their credentials.
//!
//! A password goes in and never comes out: no output type has a field for it.

use purser_registry_client::{
    AccessVerdict, AuthScheme, CredentialsVerdict, Preset, RegistryKind, Step,
    browse::{Page, RateLimit as PullAllowance},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{self, OrganizationId, RegistryId, ServerId},
    limits,
    patch::Patch,
    procedure::{NoInput, procedures},
    secret::Secret,
    strict,
    time::Timestamp,
};

mod browse;
mod events;

pub use browse::{
    Candidate, CatalogInput, Fate, Found, Manifest, ManifestInput, MatchInput, MatchResult, MatchedReference,
    RateLimitInput, SearchAnswer, SearchError, SearchInput, SearchWarning, TagsInput,
};
pub use events::{Change, EventsInput, RegistryEvent};
pub use purser_registry_client::RegistryType;

procedures! {
    /// Stores a registry entry, its password encrypted. The credential is not tested unless `test`
    /// is true, which needs `registry:test`, too; then a failed test stores nothing.
    Mutation "registry.create" [RegistryWrite] Create(CreateInput) -> Registry, fails [PreconditionFailed];
    /// All registry entries of the organization, oldest first. Passwords are never returned.
    Query "registry.all" [RegistryRead] All(NoInput) -> Vec<Registry>;
    /// One registry entry of the organization, without its password.
    Query "registry.one" [RegistryRead] One(OneInput) -> Registry;
    /// Changes a registry entry. An absent field stays, null clears a nullable one. Another host in
    /// `registryUrl`, `insecure` turned on, another `caCertificate` and a host added to `realmAllow` need the
    /// `password` in the same call: a secret goes only to where it was entered for, and only as safely. With `test`
    /// it needs `registry:test`, too.
    Mutation "registry.update" [RegistryWrite] Update(UpdateInput) -> Registry, fails [PreconditionFailed];
    /// Removes a registry entry. CONFLICT while jobs under way use it, listed in `data.usedBy`, unless `force`.
    Mutation "registry.remove" [RegistryDelete] Remove(RemoveInput) -> Registry;
    /// Tests a connection and its credentials without storing them: from the control plane, or with
    /// `serverId` from that Docker host.
    Mutation "registry.testRegistry" [RegistryTest] TestRegistry(TestRegistryInput) -> TestResult
        , fails [PreconditionFailed];
    /// Tests a stored entry: from the control plane, or with `serverId` from that Docker host.
    Mutation "registry.testRegistryById" [RegistryTest] TestRegistryById(TestRegistryByIdInput) -> TestResult
        , fails [PreconditionFailed];
    /// Which entry an image is pulled with, and what became of each other entry. Asks no registry.
    Query "registry.match" [RegistryRead] MatchImage(MatchInput) -> MatchResult;
    /// The repositories of a registry, within the entry's namespace, page by page. What a registry answered
    /// is remembered for 5 minutes. NOT_IMPLEMENTED where a registry lists none, with what to do instead.
    Query "registry.catalog" [RegistryRead] Catalog(CatalogInput) -> Page, asks "a registry", fails [NotImplemented];
    /// The tags of a repository, page by page.
    Query "registry.tags" [RegistryRead] Tags(TagsInput) -> Page, asks "a registry", fails [NotImplemented];
    /// Finds repositories by a part of their name: at one registry, or at all of the organization's side by
    /// side, where one that fails is an item of `errors`.
    Query "registry.search" [RegistryRead] Search(SearchInput) -> SearchAnswer, asks "a registry", fails [NotImplemented];
    /// What an image is: digest, platforms, sizes, labels, attachments. Either `image`, for which the entry is
    /// found as by `image.pull`, or `registryId` with `repository` and `reference`. Without an entry only
    /// registries that are publicly known are asked. Counts as a pull at Docker Hub.
    Query "registry.manifest" [RegistryRead] ReadManifest(ManifestInput) -> Manifest, asks "a registry", fails [NotImplemented];
    /// How many pulls Docker Hub still allows. NOT_IMPLEMENTED for every other registry.
    Query "registry.rateLimit" [RegistryRead] RateLimit(RateLimitInput) -> PullAllowance, asks "a registry", fails [NotImplemented];
    /// Each change of a registry entry, from now on or after `lastEventId`: an organization's newest 10,000 are
    /// kept for those who lost the stream. PRECONDITION_FAILED where more is missing: read `registry.all`, and
    /// subscribe without it.
    Subscription "registry.events" [RegistryRead] Events(EventsInput) -> RegistryEvent, fails [PreconditionFailed];
    /// The kinds of registries that are known, with what a form may propose for each.
    Query "registry.presets" [RegistryRead] Presets(NoInput) -> Vec<Preset>;
}

/// A registry entry as callers see it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Registry {
    /// Its id.
    pub registry_id: RegistryId,
    /// Its name for people.
    pub registry_name: String,
    /// The URL as entered, trimmed.
    pub registry_url: String,
    /// The canonical host: lower case, `docker.io` for every alias of Docker Hub, port kept.
    pub registry_host: String,
    /// The path of the URL, or null.
    pub namespace: Option<String>,
    /// The user name, or null for an entry without credentials.
    pub username: Option<String>,
    /// What pushed names are prefixed with, as entered.
    pub image_prefix: Option<String>,
    /// Who runs it.
    pub registry_type: RegistryType,
    /// Whose registry it is by its host, as `registry.presets` names the kinds; `other` where the host doesn't
    /// tell. A test, which hears the registry's answer, may know more.
    pub kind: RegistryKind,
    /// Whether names without a registry go here.
    pub is_default: bool,
    /// Whether plain HTTP and unverified TLS are accepted.
    pub insecure: bool,
    /// Whether a CA certificate of its own is stored.
    pub has_ca_certificate: bool,
    /// Token servers that the secret may be sent to besides those that the registry's own name vouches for.
    pub realm_allow: Vec<String>,
    /// Whether a password is stored.
    pub has_credentials: bool,
    /// When the password was last set.
    pub credentials_updated_at: Option<Timestamp>,
    /// How the last test of the stored entry ended.
    pub last_test: Option<LastTest>,
    /// When the entry was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Whose it is.
    pub organization_id: OrganizationId,
}

/// How a stored entry's last test ended.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastTest {
    /// When.
    pub at: Timestamp,
    /// Whether it succeeded.
    pub ok: bool,
    /// The diagnosis code of a failure.
    pub code: Option<String>,
    /// From which server; null for the control plane.
    pub server_id: Option<ServerId>,
}

/// Input of `registry.create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "RegistryCreateInput")]
pub struct CreateInput {
    /// A name for people, 1 to 255 characters.
    #[schemars(length(max = limits::NAME_CHARS), regex(pattern = limits::NAME))]
    pub registry_name: String,
    /// Host, host and port, or URL, with an optional namespace: `ghcr.io/myorg`.
    #[schemars(length(min = 1, max = limits::ADDRESS_CHARS))]
    pub registry_url: String,
    /// Needed with a password.
    #[schemars(length(max = limits::USERNAME_CHARS), regex(pattern = limits::USERNAME))]
    pub username: Option<String>,
    /// At most 64 KiB; kept byte for byte.
    pub password: Option<Secret>,
    /// Absent: what is usual for the registry's kind; `selfHosted` for a host that tells nothing.
    #[serde(default, deserialize_with = "strict::word_or_null")]
    pub registry_type: Option<RegistryType>,
    /// Such as `mycompany/` or `ghcr.io/myorg/`.
    pub image_prefix: Option<String>,
    /// Makes this the default of the organization; another loses the mark.
    pub is_default: Option<bool>,
    /// Accept plain HTTP and unverified TLS.
    pub insecure: Option<bool>,
    /// PEM, at most 64 KiB.
    #[schemars(length(max = limits::CERTIFICATE_CHARS))]
    pub ca_certificate: Option<String>,
    /// Further token servers that the secret may be sent to, as `host` (any port) or `host:port`; at most 32.
    #[schemars(length(max = limits::REALM_HOSTS))]
    pub realm_allow: Option<Vec<String>>,
    /// Where to run the test that `test` asks for; null, `""` and `"none"` are the control plane.
    #[schemars(length(max = ids::MAX_ID_CHARS), regex(pattern = limits::NO_CONTROL_CHARACTERS))]
    pub server_id: Option<String>,
    /// Test first, and store nothing when the test fails. Needs `registry:test`.
    pub test: Option<bool>,
}

/// Input of `registry.one`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(feature = "client", derive(Serialize))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "RegistryOneInput")]
pub struct OneInput {
    /// Which entry.
    pub registry_id: RegistryId,
}

/// Input of `registry.update`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "RegistryUpdateInput")]
pub struct UpdateInput {
    /// Which entry.
    pub registry_id: RegistryId,
    /// A new name.
    #[schemars(length(max = limits::NAME_CHARS), regex(pattern = limits::NAME))]
    pub registry_name: Option<String>,
    /// A new URL; another host needs `password` too.
    #[schemars(length(min = 1, max = limits::ADDRESS_CHARS))]
    pub registry_url: Option<String>,
    /// A new user name; null clears, together with the password.
    #[serde(default, skip_serializing_if = "Patch::is_keep")]
    #[cfg_attr(feature = "client", builder(default))]
    #[schemars(length(max = limits::USERNAME_CHARS), regex(pattern = limits::USERNAME))]
    pub username: Patch<String>,
    /// A new password; null clears.
    #[serde(default, skip_serializing_if = "Patch::is_keep")]
    #[cfg_attr(feature = "client", builder(default))]
    pub password: Patch<Secret>,
    /// A new type.
    #[serde(default, deserialize_with = "strict::word_or_null")]
    pub registry_type: Option<RegistryType>,
    /// A new prefix; null clears.
    #[serde(default, skip_serializing_if = "Patch::is_keep")]
    #[cfg_attr(feature = "client", builder(default))]
    pub image_prefix: Patch<String>,
    /// Makes this the default, or takes the mark away.
    pub is_default: Option<bool>,
    /// Accept plain HTTP and unverified TLS, or no longer. Turning it on needs `password` too, where one is
    /// stored.
    pub insecure: Option<bool>,
    /// A new CA certificate; null clears. Another one needs `password` too, where one is stored.
    #[serde(default, skip_serializing_if = "Patch::is_keep")]
    #[cfg_attr(feature = "client", builder(default))]
    #[schemars(length(max = limits::CERTIFICATE_CHARS))]
    pub ca_certificate: Patch<String>,
    /// Other token servers; null clears. One that was not there before needs `password` too, where one is
    /// stored.
    #[serde(default, skip_serializing_if = "Patch::is_keep")]
    #[cfg_attr(feature = "client", builder(default))]
    #[schemars(length(max = limits::REALM_HOSTS))]
    pub realm_allow: Patch<Vec<String>>,
    /// Where to run the test that `test` asks for.
    #[schemars(length(max = ids::MAX_ID_CHARS), regex(pattern = limits::NO_CONTROL_CHARACTERS))]
    pub server_id: Option<String>,
    /// Test the changed entry first, and change nothing when the test fails. Needs `registry:test`.
    pub test: Option<bool>,
    /// As it was last read: CONFLICT, and no change, where it was changed since.
    pub updated_at: Option<Timestamp>,
}

/// Input of `registry.remove`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "RegistryRemoveInput")]
pub struct RemoveInput {
    /// Which entry.
    pub registry_id: RegistryId,
    /// Remove it although jobs under way use it; they finish with what they started with.
    pub force: Option<bool>,
}

/// What a test may try beyond logging in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Access {
    /// May an image be pulled from `repository`?
    Pull,
    /// May an image be pushed to `repository`? Starts an upload there and deletes it.
    Push,
}

/// One access or several: `"pull"` and `["pull", "push"]` are both accepted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[cfg_attr(feature = "client", derive(Serialize))]
#[serde(untagged, expecting = "expected \"pull\", \"push\" or a list of them")]
pub enum AccessList {
    /// One.
    #[serde(deserialize_with = "strict::word")]
    One(Access),
    /// Several.
    #[serde(deserialize_with = "strict::words")]
    Many(Vec<Access>),
}

impl AccessList {
    /// Whether the access is asked for.
    #[must_use]
    pub fn contains(&self, access: Access) -> bool {
        match self {
            Self::One(one) => *one == access,
            Self::Many(many) => many.contains(&access),
        }
    }
}

/// Input of `registry.testRegistry`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestRegistryInput {
    /// Host, host and port, or URL.
    #[schemars(length(min = 1, max = limits::ADDRESS_CHARS))]
    pub registry_url: String,
    /// Needed with a password.
    #[schemars(length(max = limits::USERNAME_CHARS), regex(pattern = limits::USERNAME))]
    pub username: Option<String>,
    /// At most 64 KiB; kept byte for byte.
    pub password: Option<Secret>,
    /// Taken for compatibility; a test does not depend on it.
    #[serde(default, deserialize_with = "strict::word_or_null")]
    pub registry_type: Option<RegistryType>,
    /// Taken for compatibility.
    pub registry_name: Option<String>,
    /// Taken for compatibility.
    pub image_prefix: Option<String>,
    /// Accept plain HTTP and unverified TLS.
    pub insecure: Option<bool>,
    /// PEM, at most 64 KiB.
    #[schemars(length(max = limits::CERTIFICATE_CHARS))]
    pub ca_certificate: Option<String>,
    /// Further token servers that the secret may be sent to, as `host` (any port) or `host:port`; at most 32.
    #[schemars(length(max = limits::REALM_HOSTS))]
    pub realm_allow: Option<Vec<String>>,
    /// A repository to try `access` on, such as `myorg/app`.
    pub repository: Option<String>,
    /// What to try on `repository`; pull when absent.
    pub access: Option<AccessList>,
    /// From where; null, `""` and `"none"` are the control plane.
    #[schemars(length(max = ids::MAX_ID_CHARS), regex(pattern = limits::NO_CONTROL_CHARACTERS))]
    pub server_id: Option<String>,
}

/// Input of `registry.testRegistryById`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestRegistryByIdInput {
    /// Which entry.
    pub registry_id: RegistryId,
    /// From where; null, `""` and `"none"` are the control plane.
    #[schemars(length(max = ids::MAX_ID_CHARS), regex(pattern = limits::NO_CONTROL_CHARACTERS))]
    pub server_id: Option<String>,
    /// A repository to try `access` on.
    pub repository: Option<String>,
    /// What to try on `repository`; pull when absent.
    pub access: Option<AccessList>,
}

/// From where a test ran.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestedFrom {
    /// The server; null for the control plane.
    pub server_id: Option<ServerId>,
    /// Its name; `control plane` for the control plane.
    pub server_name: String,
}

/// A test that succeeded. A failed one is an error with `data.diagnosis`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestResult {
    /// Always true.
    #[schemars(extend("const" = true))]
    pub success: bool,
    /// Who asked the registry.
    pub tested_from: TestedFrom,
    /// What the test says about the credentials. `notRequired`: the registry never asked for them.
    pub credentials: CredentialsVerdict,
    /// The canonical host.
    pub registry_host: String,
    /// Whose registry it is, by its host or else by its answer, as `registry.presets` names the kinds; `other`
    /// where neither tells.
    pub kind: RegistryKind,
    /// What the registry asks for.
    pub auth: AuthScheme,
    /// What was tried on `repository`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub access: Option<AccessVerdict>,
    /// What was done, in order.
    pub steps: Vec<Step>,
    /// What works but should not stay so, such as plain HTTP.
    pub warnings: Vec<String>,
}
