//! The calls of the agent channel, one trait each way. Every call has a deadline of
//! [`CALL_DEADLINE`](super::CALL_DEADLINE); work itself is a target and ends with a verdict.

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use serde::{Deserialize, Serialize};

use super::command::{Command, Verdict};
use crate::{ids::TargetId, image::Image, job::Progress, server::Engine};

/// What the server asks of an agent.
#[rpc(client, server)]
pub trait AgentCalls {
    /// Takes a target, or refuses it at once. Taking the same target and attempt twice is harmless.
    #[method(name = "target.start", param_kind = map)]
    async fn target_start(&self, request: StartTarget) -> RpcResult<StartReply>;

    /// Stops a target. Its verdict still comes.
    #[method(name = "target.cancel", param_kind = map)]
    async fn target_cancel(&self, request: Attempt) -> RpcResult<()>;

    /// The images on the host. A small read, no target.
    #[method(name = "engine.images", param_kind = map)]
    async fn engine_images(&self) -> RpcResult<Vec<Image>>;
}

/// What an agent tells the server.
#[rpc(client, server)]
pub trait ServerCalls {
    /// How far a target is; the newest wins. Dropped when the link is slow.
    #[method(name = "target.progress", param_kind = map)]
    async fn target_progress(&self, report: ProgressReport) -> RpcResult<()>;

    /// How a target ended. Repeated until the answer says that it is stored.
    #[method(name = "target.verdict", param_kind = map)]
    async fn target_verdict(&self, report: VerdictReport) -> RpcResult<VerdictReceipt>;

    /// What the host runs, when it changed.
    #[method(name = "agent.status", param_kind = map)]
    async fn agent_status(&self, status: AgentStatus) -> RpcResult<()>;
}

/// One try at one target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The target.
    pub target_id: TargetId,
    /// From 1; raised whenever the target is given out again.
    pub attempt: u32,
}

/// A target handed over.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartTarget {
    /// Which target and try.
    #[serde(flatten)]
    pub attempt: Attempt,
    /// The job it belongs to, for logs.
    pub job_id: String,
    /// The request that asked for it, for logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// How long it may run, in milliseconds; the agent ends it by itself then.
    pub deadline_ms: u64,
    /// How long it may go on without progress, in milliseconds; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_ms: Option<u64>,
    /// The work.
    pub command: Command,
}

/// Whether an agent took a target.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "camelCase")]
pub enum StartReply {
    /// It runs: the verdict comes.
    Accepted,
    /// This very try has ended here, and its verdict was not acknowledged yet.
    Duplicate {
        /// How it ended. It is told by `target.verdict`, too.
        verdict: Verdict,
    },
    /// Too much under way: try again later.
    Busy,
    /// The agent's version does not know the command.
    Unsupported,
}

impl StartReply {
    /// The reply's name, for logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate { .. } => "duplicate",
            Self::Busy => "busy",
            Self::Unsupported => "unsupported",
        }
    }
}

/// Progress of a target.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgressReport {
    /// Which target and try.
    #[serde(flatten)]
    pub attempt: Attempt,
    /// Raised with every report of a try.
    pub seq: u64,
    /// The whole state.
    pub snapshot: Progress,
}

/// A verdict on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerdictReport {
    /// Which target and try.
    #[serde(flatten)]
    pub attempt: Attempt,
    /// How it ended.
    pub verdict: Verdict,
}

/// What became of a verdict. Either way the agent may forget it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "receipt", rename_all = "camelCase")]
pub enum VerdictReceipt {
    /// In the database.
    Stored,
    /// The try is no longer current, or the target has ended: dropped.
    Stale,
}

/// What a host runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// The engine; null while it does not answer.
    pub engine: Option<Engine>,
}
