//! `job.*`: everything that is done on a host, from accepted to final.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ids::{ApiKeyId, EventId, JobId, RegistryId, ServerId, TargetId},
    limits,
    procedure::procedures,
    strict,
    time::Timestamp,
};

procedures! {
    /// One job with the live progress of its targets.
    Query "job.one" [JobRead] One(OneInput) -> Job;
    /// Jobs, newest first, a page at a time.
    Query "job.all" [JobRead] All(AllInput) -> JobPage;
    /// Repeats the failed targets of an ended job, and those that `failFast` held back, with the entry's
    /// newest credential: the same job, with one more attempt each. Needs the permission of what it
    /// repeats, too.
    Mutation "job.retry" [JobWrite] Retry(OneInput) -> Job, fails [PreconditionFailed];
    /// Cancels what has not ended: queued targets at once, running ones when the engine has stopped.
    Mutation "job.cancel" [JobWrite] Cancel(OneInput) -> Job;
    /// The job as it is now, then as it becomes, at most five times a second. A slow reader is told the
    /// newest and not everything between. Ends after the job has: the last one told is final.
    Subscription "job.watch" [JobRead] Watch(WatchInput) -> Job;
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum JobKind {
    /// A connection test on a host.
    TestRegistry,
    /// Pulls.
    Pull,
    /// A push.
    Push,
    /// The pulls of a Compose file; each target is a pull.
    StackPull,
}

/// Where a job or a target stands. `dispatched` is shown as `running`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum JobStatus {
    /// Accepted and stored; not with an agent yet.
    Queued,
    /// With an agent.
    Running,
    /// Ended well: the engine said so, and the digest was read back.
    Succeeded,
    /// Ended with an error.
    Failed,
    /// Ended by a person.
    Cancelled,
}

impl JobStatus {
    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// Which credential a target uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CredentialSource {
    /// A stored entry's.
    Entry,
    /// One given with the call.
    OneTime,
    /// None.
    Anonymous,
}

/// A job as callers see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its id.
    pub job_id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// `failed` if any target failed.
    pub status: JobStatus,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When the first target started.
    pub started_at: Option<Timestamp>,
    /// When the last target ended.
    pub finished_at: Option<Timestamp>,
    /// The key that asked for it.
    pub created_by: ApiKeyId,
    /// What was asked, without secrets; of a stack pull the images, and the services that need none.
    #[schemars(with = "BTreeMap<String, Value>")]
    pub request: Value,
    /// One per server and image.
    pub targets: Vec<Target>,
}

/// One server's part of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Its id.
    pub target_id: TargetId,
    /// On which server.
    pub server_id: ServerId,
    /// The image, fully qualified; null for a test.
    pub image: Option<String>,
    /// Where it stands.
    pub status: JobStatus,
    /// How often it was given to an agent.
    pub attempts: u32,
    /// The entry used; null where none is.
    pub registry_id: Option<RegistryId>,
    /// Which credential it uses.
    pub credentials: CredentialSource,
    /// How far it is; null before it starts and after it ended.
    pub progress: Option<Progress>,
    /// What came out; null unless it succeeded.
    pub result: Option<TargetResult>,
    /// What went wrong; null unless it failed, was held back by `failFast`, or waits to be tried again.
    pub error: Option<TargetError>,
    /// When it is tried again; only while it waits for that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_attempt_at: Option<Timestamp>,
}

/// How far a pull or push is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "TargetProgress")]
pub struct Progress {
    /// The engine's word for what it does: `downloading`, `extracting`, `pushing`, ….
    pub phase: String,
    /// 0 to 99 while running, never backwards; null while the total is unknown.
    pub percent: Option<u8>,
    /// Bytes moved.
    pub downloaded_bytes: u64,
    /// Bytes to move, once known.
    pub total_bytes: Option<u64>,
    /// Layers done.
    pub layers_done: u32,
    /// Layers seen so far.
    pub layers_total: u32,
}

/// What a successful target brought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetResult {
    /// The image's digest, read back from the engine; null for a test.
    pub digest: Option<String>,
    /// The image's size on the host.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size_bytes: Option<u64>,
    /// How long it took on the host, in milliseconds.
    pub duration_ms: u64,
}

/// Why a target failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetError {
    /// A diagnosis code, such as `unauthorized`.
    pub code: String,
    /// For people.
    pub message: String,
    /// What to do.
    pub advice: String,
    /// The engine's own words.
    pub engine_message: Option<String>,
}

/// Input that names one job.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(feature = "client", derive(Serialize))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "JobOneInput")]
pub struct OneInput {
    /// Which job.
    pub job_id: JobId,
}

/// Input of `job.watch`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "JobWatchInput")]
pub struct WatchInput {
    /// Which job.
    pub job_id: JobId,
    /// Sent by a caller that lost the stream. What comes first is the job as it is now in any case.
    pub last_event_id: Option<EventId>,
}

/// Input of `job.all`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "JobAllInput")]
pub struct AllInput {
    /// 1 to 100; 50 when absent.
    #[schemars(range(min = 1, max = limits::PAGE))]
    #[serde(default, deserialize_with = "strict::whole_or_null")]
    pub limit: Option<u32>,
    /// `nextCursor` of the page before.
    pub cursor: Option<JobId>,
    /// Only these.
    #[serde(default, deserialize_with = "strict::word_or_null")]
    pub status: Option<JobStatus>,
    /// Only these.
    #[serde(default, deserialize_with = "strict::word_or_null")]
    pub kind: Option<JobKind>,
    /// Only jobs with a target on this server.
    pub server_id: Option<ServerId>,
}

/// A page of jobs.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobPage {
    /// Newest first.
    pub items: Vec<Job>,
    /// For the next page; null on the last.
    pub next_cursor: Option<String>,
}
