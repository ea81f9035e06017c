//! What a new session makes of the work that the last one left.

use std::{collections::HashSet, sync::Arc};

use chrono::{DateTime, Utc};
use purser_proto_schema::{
    agent::{calls::Attempt, command::Failure, handshake::Resume},
    job::JobKind,
};
use purser_registry_client::DiagnosisCode;

use super::{ATTEMPTS, Session, Shared, attempt_of, pump::end_failed};
use crate::{
    error::Result,
    store::{Fence, TargetRow},
};

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

/// Compares what the agent says it has with what the database says it should have. A session that is not
/// in force any more changes nothing: what it knows nothing of may be the newer one's.
pub(super) async fn reconcile(shared: &Arc<Shared>, fence: &Fence, resume: &Resume) -> Result<Reconciled> {
    let mut mentioned: HashSet<Attempt> =
        resume.running_targets.iter().chain(&resume.unacknowledged_verdicts).cloned().collect();
    let mut reconciled = Reconciled::default();
    for target in shared.store.targets_with_agent(&fence.server_id).await? {
        if mentioned.remove(&attempt_of(&target)) {
            if target.cancel_requested && resume.running_targets.contains(&attempt_of(&target)) {
                // Dropping stops it; nobody waits for a verdict then.
                reconciled.drop.push(attempt_of(&target));
                shared.changed(shared.store.target_cancelled(&target.id(), Some(fence)).await?);
            } else {
                reconciled.going_on.push(target);
            }
        } else {
            lost(shared, fence, &target).await?;
            if target.max_parallel.is_some() {
                shared.let_next_begin(target.job());
            }
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
async fn lost(shared: &Arc<Shared>, fence: &Fence, target: &TargetRow) -> Result<()> {
    let attempt = attempt_of(target);
    if target.cancel_requested {
        shared.changed(shared.store.target_cancelled(&target.id(), Some(fence)).await?);
        return Ok(());
    }
    // Somebody waits for a test, and has stopped waiting by now.
    let again = target.job_kind()? != JobKind::TestRegistry && target.attempts_of_round() < ATTEMPTS;
    if again {
        let end = target.run_deadline.unwrap_or(DateTime::<Utc>::MAX_UTC);
        let deadline = end.min(Utc::now() + QUEUED_AGAIN);
        match shared.store.target_requeue(&attempt, fence, deadline).await? {
            // Somebody did just now, and it has ended.
            Some(put_back) if put_back.cancel_requested => shared.changed(Some(target.job())),
            Some(_) => {
                tracing::warn!(job = %target.job_id, target = %target.target_id, server = %target.server_id,
                    attempt = attempt.attempt, request_id = target.request_id, "the agent lost a target; queued again");
                shared.moved(&target.job());
            }
            None => {}
        }
        return Ok(());
    }
    let failure = Failure::new(
        DiagnosisCode::ServerOffline,
        format!("the agent stopped while it worked on this, {} time(s)", target.attempts_of_round()),
        "Look at the log of purser-agent on that host, then start the job again.",
    );
    shared.changed(end_failed(shared, target, Some(fence), failure).await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::scene::Scene, *};

    /// A handshake that hung, in a slow database perhaps, while the agent dialled again and was given work
    /// that it does not know of.
    #[tokio::test]
    async fn a_session_that_is_not_in_force_any_more_calls_nothing_lost() {
        let scene = Scene::set().await;
        let (stale, newest) = (scene.session().await, scene.session().await);
        let again = scene.given(&newest, "pull").await;
        let failed = scene.given(&newest, "testRegistry").await;
        let cancelled = scene.given(&newest, "push").await;
        scene.shared.store.job_cancel(&scene.organization, &cancelled.job(), &scene.event()).await.unwrap();
        let mentioned = scene.given(&newest, "pull").await;
        let resume = Resume { running_targets: vec![attempt_of(&mentioned)], ..Resume::default() };
        reconcile(&scene.shared, &stale, &resume).await.unwrap();
        for target in [&again, &failed, &cancelled, &mentioned] {
            let now = scene.now(target).await;
            assert_eq!((now.status.as_str(), now.attempt), ("dispatched", 1), "{} changed", target.kind);
        }
        reconcile(&scene.shared, &newest, &resume).await.unwrap();
        for (target, status) in
            [(&again, "queued"), (&failed, "failed"), (&cancelled, "cancelled"), (&mentioned, "dispatched")]
        {
            assert_eq!(scene.now(target).await.status, status, "{}", target.kind);
        }
    }

    /// After the session had looked.
    #[tokio::test]
    async fn a_lost_target_that_somebody_asked_to_stop_just_now_is_not_given_out_again() {
        let scene = Scene::set().await;
        let first = scene.session().await;
        let target = scene.given(&first, "pull").await;
        let fence = scene.session().await;
        scene.shared.store.job_cancel(&scene.organization, &target.job(), &scene.event()).await.unwrap();
        lost(&scene.shared, &fence, &target).await.unwrap();
        assert_eq!(scene.now(&target).await.status, "cancelled");
        let job = scene.shared.store.job_status(&scene.organization, &target.job()).await.unwrap();
        assert!(job.is_final());
    }

    /// Its call said how long it may run in all.
    #[tokio::test]
    async fn a_lost_target_gets_no_new_time() {
        let scene = Scene::set().await;
        let first = scene.session().await;
        let mut target = scene.given(&first, "pull").await;
        let end = target.run_deadline.expect("the clock runs");
        for attempt in 2..=3 {
            let fence = scene.session().await;
            reconcile(&scene.shared, &fence, &Resume::default()).await.unwrap();
            let waiting = scene.now(&target).await;
            assert_eq!((waiting.status.as_str(), waiting.run_deadline), ("queued", Some(end)));
            assert!(waiting.queue_deadline <= end);
            target = scene.claimed(&fence, JobKind::Pull).await;
            assert_eq!((target.attempt, target.run_deadline), (attempt, Some(end)));
            // An agent that is busy takes none of it either.
            scene.shared.store.target_put_back(&attempt_of(&target), &fence).await.unwrap();
            assert_eq!(scene.now(&target).await.run_deadline, Some(end));
            target = scene.claimed(&fence, JobKind::Pull).await;
        }
        // One that was never taken has all of its time.
        let fence = scene.session().await;
        let fresh = scene.given(&fence, "push").await;
        scene.shared.store.target_put_back(&attempt_of(&fresh), &fence).await.unwrap();
        assert_eq!(scene.now(&fresh).await.run_deadline, None);
    }
}
