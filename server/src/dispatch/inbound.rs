//! What agents tell the control plane.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use jsonrpsee::{
    core::{RpcResult, async_trait},
    types::ErrorObjectOwned,
};
use purser_proto_schema::agent::{
    calls::{AgentStatus, Attempt, ProgressReport, ServerCallsServer, VerdictReceipt, VerdictReport},
    close::CloseCode,
    command::Verdict,
};

use super::{Session, Shared, again, report};
use crate::store::{Ending, Fence, TargetRow};

/// JSON-RPC's number for "not now": the agent repeats the call.
const TRY_AGAIN: i32 = -32_000;

/// Serves the calls of one session.
pub(super) struct Inbound {
    pub(super) shared: Weak<Shared>,
    pub(super) fence: Fence,
    /// Set once the session stands. It stands before the agent can call.
    pub(super) session: Arc<OnceLock<Weak<Session>>>,
}

impl Inbound {
    fn shared(&self) -> RpcResult<Arc<Shared>> {
        self.shared.upgrade().ok_or_else(|| try_again("the server is stopping"))
    }

    fn session(&self) -> Option<Arc<Session>> {
        self.session.get().and_then(Weak::upgrade)
    }
}

#[async_trait]
impl ServerCallsServer for Inbound {
    async fn target_progress(&self, progress: ProgressReport) -> RpcResult<()> {
        let ProgressReport { attempt, seq, snapshot } = progress;
        let Some(session) = self.session() else { return Ok(()) };
        let Some(job) = session.note(&attempt.target_id, seq, snapshot) else { return Ok(()) };
        let shared = self.shared()?;
        shared.watches.progressed(&job);
        shared.keep_progress(session, job, attempt);
        Ok(())
    }

    async fn target_verdict(&self, verdict: VerdictReport) -> RpcResult<VerdictReceipt> {
        let shared = self.shared()?;
        let _turn = shared.steps.acquire().await;
        let session = self.session();
        Box::pin(finish(&shared, session.as_ref(), &self.fence, verdict)).await.map_err(try_again)
    }

    async fn agent_status(&self, status: AgentStatus) -> RpcResult<()> {
        let shared = self.shared()?;
        shared
            .store
            .server_seen(&self.fence.server_id, self.fence.epoch, status.engine.as_ref())
            .await
            .map_err(|error| {
                report("noting an agent's status", &self.fence.server_id, &error);
                try_again("the status could not be stored")
            })
    }
}

/// Stores what a session says of a target's end, or says why it must be told again.
pub(super) async fn finish(
    shared: &Arc<Shared>,
    session: Option<&Arc<Session>>,
    fence: &Fence,
    told: VerdictReport,
) -> std::result::Result<VerdictReceipt, &'static str> {
    let VerdictReport { attempt, verdict } = told;
    if tries_again(shared, session, fence, &attempt, &verdict).await? {
        return Ok(VerdictReceipt::Stored);
    }
    let receipt = match shared.store.target_finish(&attempt, fence, &verdict).await {
        Ok(Ending::Stored(target)) => {
            tracing::info!(job = %target.job_id, target = %attempt.target_id, server = %fence.server_id,
                request_id = target.request_id, verdict = verdict_name(&verdict), code = verdict_code(&verdict), "target ended");
            let (outcome, took) = match &verdict {
                Verdict::Succeeded { duration_ms, .. } => (super::OK, *duration_ms),
                Verdict::Failed { failure, duration_ms } => (failure.diagnosis.code.as_str(), *duration_ms),
                Verdict::Cancelled => ("cancelled", 0),
            };
            shared.ended_so(&target, outcome, Duration::from_millis(took));
            shared.ended(*target);
            VerdictReceipt::Stored
        }
        Ok(Ending::Stale) => VerdictReceipt::Stale,
        Ok(Ending::Fenced) => {
            // It may be that only the database knows of the newer one.
            if let Some(session) = session.cloned() {
                shared.tasks.spawn(async move { session.close(CloseCode::NotInForce).await });
            }
            return Err(CloseCode::NotInForce.reason());
        }
        Err(error) => {
            report("storing a verdict", &fence.server_id, &error);
            return Err("the verdict could not be stored");
        }
    };
    if let Some(session) = session {
        shared.leave(session, &attempt.target_id);
    }
    Ok(receipt)
}

/// Puts a failed target back into the queue where another attempt may succeed. False where the verdict is
/// its end.
async fn tries_again(
    shared: &Arc<Shared>,
    session: Option<&Arc<Session>>,
    fence: &Fence,
    attempt: &Attempt,
    verdict: &Verdict,
) -> std::result::Result<bool, &'static str> {
    let Verdict::Failed { failure, .. } = verdict else { return Ok(false) };
    if failure.retry_after_ms.is_none() {
        return Ok(false);
    }
    let (mut job, mut request_id) = (None, None);
    let when = |target: &TargetRow| {
        job = Some(target.job());
        request_id.clone_from(&target.request_id);
        again::when(target, failure, chrono::Utc::now())
    };
    let at = shared.store.target_again(attempt, fence, verdict, when).await.map_err(|error| {
        report("putting a target back", &fence.server_id, &error);
        "the verdict could not be stored"
    })?;
    let Some(at) = at else { return Ok(false) };
    tracing::info!(target = %attempt.target_id, server = %fence.server_id, attempt = attempt.attempt,
        request_id, code = verdict_code(verdict), "target failed; tried again later");
    if let Some(job) = &job {
        shared.moved(job);
    }
    shared.wake_at(fence.server_id.clone(), at);
    if let Some(session) = session {
        shared.leave(session, &attempt.target_id);
    }
    Ok(true)
}

fn verdict_name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Succeeded { .. } => "succeeded",
        Verdict::Failed { .. } => "failed",
        Verdict::Cancelled => "cancelled",
    }
}

fn verdict_code(verdict: &Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Failed { failure, .. } => Some(failure.diagnosis.code.as_str()),
        Verdict::Succeeded { .. } | Verdict::Cancelled => None,
    }
}

fn try_again(why: &'static str) -> ErrorObjectOwned {
    ErrorObjectOwned::borrowed(TRY_AGAIN, why, None)
}
