//! `audit.*`: who did what, to what, and how it ended.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{ApiKeyId, AuditEventId, JobId, OrganizationId, RegistryId, ServerId},
    limits,
    procedure::procedures,
    strict,
    time::Timestamp,
};

procedures! {
    /// What happened in the organization, newest first, a page at a time: every change, every use of a
    /// credential, every key of the organization that was refused, every agent that joined or was not let
    /// in. An event is in the organization that it changes, whichever key did it. With `instance`, which needs
    /// `instance:admin`, what belongs to none: organizations that were made, keys that nobody has, agents that
    /// nobody knows. `GET /api/audit.jsonl` takes the same filters as query parameters and gives all of it, one JSON
    /// object a line.
    Query "audit.all" [AuditRead] All(AllInput) -> AuditPage;
}

/// Something that happened. It is written once and never changed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// The id.
    pub audit_event_id: AuditEventId,
    /// When.
    pub at: Timestamp,
    /// The procedure that was called; or `key.refused`, `metrics.refused`, `many.refused`, `agent.enrolled`,
    /// `agent.refused`.
    pub action: String,
    /// `ok`, `accepted` for a job that ends later, or why not: an error's code such as `FORBIDDEN`, a
    /// diagnosis such as `unauthorized`, of a refused key or agent what was wrong with it.
    pub outcome: String,
    /// Who called; null for what an agent or the control plane did by itself.
    pub api_key_id: Option<ApiKeyId>,
    /// The registry entry that it was about, or whose credential was used.
    pub registry_id: Option<RegistryId>,
    /// The server that it was about.
    pub server_id: Option<ServerId>,
    /// The job that came of it.
    pub job_id: Option<JobId>,
    /// The key that was made or removed; `apiKeyId` is who did it.
    pub subject_api_key_id: Option<ApiKeyId>,
    /// The organization that was made or changed.
    pub subject_organization_id: Option<OrganizationId>,
    /// The `x-request-id` of the request that it came by.
    pub request_id: Option<String>,
    /// Of what was refused, the network address that it came from: a proxy's, where one is between.
    pub source: Option<String>,
    /// How often it happened. Above 1 it stands for what one source repeated within a minute.
    pub count: u32,
}

/// Input of `audit.all`. Filters join: an event fits all of them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "AuditAllInput")]
pub struct AllInput {
    /// 1 to 100; 50 when absent.
    #[schemars(range(min = 1, max = limits::PAGE))]
    #[serde(default, deserialize_with = "strict::whole_or_null")]
    pub limit: Option<u32>,
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// Only of this registry entry, which may be gone by now.
    pub registry_id: Option<RegistryId>,
    /// Only of this server, which may be gone by now.
    pub server_id: Option<ServerId>,
    /// Only by this key.
    pub api_key_id: Option<ApiKeyId>,
    /// Only of this job.
    pub job_id: Option<JobId>,
    /// Only what made or removed this key.
    pub subject_api_key_id: Option<ApiKeyId>,
    /// Only what made or changed this organization.
    pub subject_organization_id: Option<OrganizationId>,
    /// Only this action.
    #[schemars(regex(pattern = limits::WORD))]
    pub action: Option<String>,
    /// Only with this outcome.
    #[schemars(regex(pattern = limits::WORD))]
    pub outcome: Option<String>,
    /// From this moment on.
    pub from: Option<Timestamp>,
    /// Before this moment.
    pub to: Option<Timestamp>,
    /// What belongs to no organization, in place of what belongs to the key's own. Needs `instance:admin`.
    pub instance: Option<bool>,
}

/// A page of events.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditPage {
    /// Newest first.
    pub items: Vec<AuditEvent>,
    /// For the next page; null on the last.
    pub next_cursor: Option<String>,
}
