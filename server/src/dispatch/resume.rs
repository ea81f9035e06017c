//! What a new session makes of the work that the last one left.

use std::{collections::HashSet, sync::Arc};

use purser_proto_schema::{
    agent::{calls::Attempt, command::Failure, handshake::Resume},
    ids::ServerId,
    job::JobKind,
};
use purser_registry_client::DiagnosisCode;

use super::{ATTEMPTS, Session, Shared, attempt_of, pump::end_failed};
use crate::{error::Result, store::TargetRow};

/// How long a target that was lost may wait for its next attempt.
const QUEUED_AGAIN: chrono::Duration = chrono::Duration::minutes(15);

/// What goes on and what must not.
#[derive(Debug, Default)]
pub(super) struct Reconciled {
    /// Going on under the new session.
    pub(super) going_on: Vec<TargetRow>,
    /// For the agent to stop and forget.
    pub(super) drop: Vec<Attempt>,
}

/// Compares what the agent says it has with what the database says it should have.
pub(super) async fn reconcile(
    shared: &Arc<Shared>,
    server: &ServerId,
    resume: &Resume,
) -> Result<Reconciled> {
    let mut mentioned: HashSet<Attempt> =
        resume.running_targets.iter().chain(&resume.unacknowledged_verdicts).cloned().collect();
    let mut reconciled = Reconciled::default();
    for target in shared.store.targets_with_agent(server).await? {
        if mentioned.remove(&attempt_of(&target)) {
            if target.cancel_requested && resume.running_targets.contains(&attempt_of(&target)) {
                // Dropping stops it; nobody waits for a verdict then.
                reconciled.drop.push(attempt_of(&target));
                shared.changed(shared.store.target_cancelled(&target.id()).await?);
            } else {
                shared.store.target_running(&attempt_of(&target)).await?;
                reconciled.going_on.push(target);
            }
        } else {
            lost(shared, &target).await?;
        }
    }
    reconciled.drop.extend(mentioned);
    Ok(reconciled)
}

/// Stops what goes on although it was ended or asked to stop while the session began: whoever did
/// that found no session to tell.
pub(super) async fn stop_ended(
    shared: &Arc<Shared>,
    session: &Session,
    going_on: &[TargetRow],
) -> Result<()> {
    if going_on.is_empty() {
        return Ok(());
    }
    let still = shared.store.targets_with_agent(&session.fence.server_id).await?;
    for target in going_on {
        let wanted = still.iter().any(|now| now.target_id == target.target_id && !now.cancel_requested);
        if !wanted && !target.cancel_requested {
            session.cancel(attempt_of(target)).await;
        }
    }
    Ok(())
}

/// Stops what goes on although somebody asked to stop it.
pub(super) async fn stop_cancelled(shared: &Shared, session: &Session) -> Result<()> {
    for target in shared.store.targets_with_agent(&session.fence.server_id).await? {
        if target.cancel_requested {
            session.cancel(attempt_of(&target)).await;
        }
    }
    Ok(())
}

/// A target that died with its agent: again, while that may still help.
async fn lost(shared: &Arc<Shared>, target: &TargetRow) -> Result<()> {
    let attempt = attempt_of(target);
    if target.cancel_requested {
        shared.changed(shared.store.target_cancelled(&target.id()).await?);
        return Ok(());
    }
    // Somebody waits for a test, and has stopped waiting by now.
    let again = target.job_kind()? != JobKind::TestRegistry && target.attempts_of_round() < ATTEMPTS;
    if again {
        tracing::warn!(job = %target.job_id, target = %target.target_id, server = %target.server_id,
            attempt = attempt.attempt, request_id = target.request_id, "the agent lost a target; queued again");
        shared.store.target_requeue(&attempt, chrono::Utc::now() + QUEUED_AGAIN).await?;
        shared.moved(&target.job());
        return Ok(());
    }
    let failure = Failure::new(
        DiagnosisCode::ServerOffline,
        format!("the agent stopped while it worked on this, {} time(s)", target.attempts_of_round()),
        "Look at the log of purser-agent on that host, then start the job again.",
    );
    shared.changed(end_failed(shared, target, failure).await?);
    Ok(())
}
