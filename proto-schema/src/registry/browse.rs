//! `registry.match` and the procedures that look into registries: what goes in and what comes out.

use purser_registry_client::browse::{Image, SearchHit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ids::RegistryId, limits, strict};

/// Input of `registry.match`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(feature = "client", derive(Serialize))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "RegistryMatchInput")]
pub struct MatchInput {
    /// An image as `image.pull` takes it.
    pub image: String,
}

/// Which entry an image is pulled with, and why.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RegistryMatchResult")]
pub struct MatchResult {
    /// What would be pulled.
    pub reference: MatchedReference,
    /// With which entry; null: without credentials.
    pub registry_id: Option<RegistryId>,
    /// Why, in words.
    pub reason: String,
    /// The oldest of the entries as good as the chosen one, which is the default or older; at most 100.
    pub rivals: Vec<RegistryId>,
    /// Every entry of the organization and what became of it, oldest first.
    pub candidates: Vec<Candidate>,
}

/// An image reference, taken apart.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MatchedReference {
    /// The canonical host.
    pub registry: String,
    /// The path below it.
    pub repository: String,
    /// `latest` where neither tag nor digest was written.
    pub tag: Option<String>,
    /// It decides where there is a tag, too.
    pub digest: Option<String>,
}

/// What became of one entry.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "MatchCandidate")]
pub struct Candidate {
    /// The entry.
    pub registry_id: RegistryId,
    /// Its name.
    pub registry_name: String,
    /// Whether it is the one.
    pub chosen: bool,
    /// What became of it, for programs.
    pub fate: Fate,
    /// What became of it, in words.
    pub reason: String,
}

/// How an entry fared against an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "MatchFate")]
pub enum Fate {
    /// It is the one.
    Chosen,
    /// It is for another registry.
    OtherHost,
    /// The image is outside its namespace.
    OtherNamespace,
    /// An entry with a longer namespace fits, too.
    ShorterNamespace,
    /// As good as the chosen one, which is the organization's default.
    NotDefault,
    /// As good as the chosen one, and newer.
    Newer,
}

/// Input of `registry.catalog`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "RegistryCatalogInput")]
pub struct CatalogInput {
    /// Which entry.
    pub registry_id: RegistryId,
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// 1 to 100; 100 when absent.
    #[schemars(range(min = 1, max = limits::PAGE))]
    #[serde(default, deserialize_with = "strict::whole_or_null")]
    pub limit: Option<u32>,
    /// Ask the registry although its answer of the last 5 minutes is known.
    pub refresh: Option<bool>,
}

/// Input of `registry.tags`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "RegistryTagsInput")]
pub struct TagsInput {
    /// Which entry.
    pub registry_id: RegistryId,
    /// The path below the registry, such as `myorg/app`.
    pub repository: String,
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// 1 to 100; 100 when absent.
    #[schemars(range(min = 1, max = limits::PAGE))]
    #[serde(default, deserialize_with = "strict::whole_or_null")]
    pub limit: Option<u32>,
}

/// Input of `registry.search`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "RegistrySearchInput")]
pub struct SearchInput {
    /// A part of a repository's path, or all of it; 1 to 256 characters.
    #[schemars(length(max = limits::QUERY_CHARS), regex(pattern = limits::NAME))]
    pub query: String,
    /// Only there; everywhere when absent.
    pub registry_id: Option<RegistryId>,
    /// 1 to 100 hits in all; 25 when absent.
    #[schemars(range(min = 1, max = limits::PAGE))]
    #[serde(default, deserialize_with = "strict::whole_or_null")]
    pub limit: Option<u32>,
}

/// What a search found.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SearchAnswer {
    /// Exact hits first, then each registry's best in turn.
    pub items: Vec<Found>,
    /// Whether every registry was looked through and every hit is listed.
    pub complete: bool,
    /// What a person should know.
    pub warnings: Vec<SearchWarning>,
    /// The registries that could not be searched.
    pub errors: Vec<SearchError>,
}

/// A hit and where it is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SearchFound")]
pub struct Found {
    /// Found with this entry.
    pub registry_id: RegistryId,
    /// Its name.
    pub registry_name: String,
    /// What was found.
    #[serde(flatten)]
    pub hit: SearchHit,
}

/// What a person should know of one registry's part.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SearchWarning {
    /// The entry.
    pub registry_id: RegistryId,
    /// One sentence or two.
    pub message: String,
}

/// Why one registry could not be searched. The others were.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SearchError {
    /// The entry.
    pub registry_id: RegistryId,
    /// Its name.
    pub registry_name: String,
    /// The diagnosis code.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do.
    pub advice: String,
}

/// Input of `registry.manifest`: an `image` as `image.pull` takes it, which `registryId` may add the
/// entry to; or `registryId` with `repository`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "RegistryManifestInput")]
pub struct ManifestInput {
    /// The image; its entry is found as a pull finds it. Excludes `repository` and `reference`.
    pub image: Option<String>,
    /// The entry to ask with. Needed without `image`.
    pub registry_id: Option<RegistryId>,
    /// The path below the registry. Needed without `image`.
    pub repository: Option<String>,
    /// A tag or a digest; `latest` when absent.
    pub reference: Option<String>,
}

/// An image as its registry describes it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The entry that was asked with; null: without credentials.
    pub registry_id: Option<RegistryId>,
    /// What the registry says, proven by its digest.
    #[serde(flatten)]
    pub image: Image,
}

/// Input of `registry.rateLimit`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(feature = "client", derive(Serialize))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "RegistryRateLimitInput")]
pub struct RateLimitInput {
    /// Which entry.
    pub registry_id: RegistryId,
}
