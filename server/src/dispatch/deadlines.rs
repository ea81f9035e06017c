//! Ends what is over its deadline.

use std::{collections::HashSet, sync::Arc, time::Duration};

use purser_proto_schema::agent::command::{Failure, Verdict};
use purser_registry_client::DiagnosisCode;

use super::{Shared, attempt_of, pump::end_failed};
use crate::{
    error::Result,
    store::{Signal, TargetRow, TargetState},
};

/// How often the deadlines are looked at.
const EVERY: Duration = Duration::from_secs(2);
/// How long an agent has to say by itself that a target ran out of time.
const GRACE: chrono::Duration = chrono::Duration::seconds(30);
/// How many are looked for in one go; the next go follows at once as long as there are so many, so ten
/// thousand of one organization do not keep another's waiting.
const AT_ONCE: usize = 200;

/// Runs until the control plane stops.
pub(super) async fn keep(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        loop {
            match sweep(&shared).await {
                Ok(AT_ONCE..) if !shared.stop.is_cancelled() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::error!(error = %crate::error::chain(&error), "looking for overdue targets");
                    break;
                }
            }
        }
    }
}

/// Ends what is overdue, the longest first; gives how many there were.
async fn sweep(shared: &Arc<Shared>) -> Result<usize> {
    for job in shared.store.targets_of_removed_cancel().await? {
        shared.changed(Some(job));
    }
    let overdue = shared.store.targets_overdue(GRACE, AT_ONCE as u64).await?;
    let found = overdue.len();
    let mut held = HashSet::new();
    for target in overdue {
        if target.status == TargetState::Queued.as_str()
            && (held.contains(&target.job_id) || shared.store.targets_held(&target).await?)
        {
            held.insert(target.job_id);
            continue;
        }
        let session = shared.session(&target.server());
        let Some(job) = end_failed(shared, &target, None, failure(&target, session.is_some())).await? else {
            // It ended or began meanwhile.
            continue;
        };
        shared.changed(Some(job.clone()));
        if target.max_parallel.is_some() && target.status != TargetState::Queued.as_str() {
            shared.let_next_begin(job);
        }
        if let Some(session) = session {
            shared.leave(&session, &target.id());
            if target.status != TargetState::Queued.as_str() {
                shared.tasks.spawn(async move { session.cancel(attempt_of(&target)).await });
            }
        } else {
            shared.tell(Signal::Stop { server_id: target.server(), attempt: attempt_of(&target) });
        }
    }
    stop_what_nobody_holds(shared).await?;
    Ok(found)
}

/// Ends what somebody asked to stop while its agent could not be asked, and no control plane has that by now.
async fn stop_what_nobody_holds(shared: &Arc<Shared>) -> Result<()> {
    let servers = shared.store.servers_to_stop().await?;
    let without = servers.into_iter().filter(|server| shared.session(server).is_none());
    for server in without.take(AT_ONCE) {
        for target in shared.store.targets_with_agent(&server).await? {
            if target.cancel_requested && !shared.held_elsewhere(&target).await? {
                shared.changed(shared.store.target_cancelled(&target.id(), None).await?);
                // One that has just come back may be taken for dead still.
                shared.tell(Signal::Stop { server_id: target.server(), attempt: attempt_of(&target) });
            }
        }
    }
    Ok(())
}

/// Why it ends: what went wrong with it last, if its agent is here and it waited for another try.
fn failure(target: &TargetRow, is_here: bool) -> Failure {
    let last = target.verdict.as_deref().filter(|_| is_here && target.not_before.is_some());
    if target.status == TargetState::Queued.as_str() {
        if let Some(Ok(Verdict::Failed { failure, .. })) = last.map(serde_json::from_str) {
            return failure;
        }
        return Failure::new(
            DiagnosisCode::ServerOffline,
            "the server did not take this before its time in the queue was over",
            "Is purser-agent running and connected there? Start the job again when the server is online.",
        );
    }
    Failure::new(
        DiagnosisCode::Timeout,
        "no verdict came from the host in time",
        "Look at the log of purser-agent and at the engine on that host, then start the job again.",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::scene::Scene, *};

    /// It was told to a session that had ended without knowing it yet, say.
    #[tokio::test]
    async fn what_somebody_asked_to_stop_ends_although_its_agent_does_not_come_back() {
        let scene = Scene::set().await;
        let fence = scene.session().await;
        let (target, other) = (scene.given(&fence, "pull").await, scene.given(&fence, "push").await);
        scene.shared.store.job_cancel(&scene.organization, &target.job(), &scene.event()).await.unwrap();
        sweep(&scene.shared).await.unwrap();
        assert_eq!(scene.now(&target).await.status, "cancelled");
        assert_eq!(scene.now(&other).await.status, "dispatched", "nobody asked for that");
    }

    /// With its agent here it is that which says how it ends.
    #[tokio::test]
    async fn what_somebody_asked_to_stop_is_left_to_an_agent_that_is_here() {
        let scene = Scene::set().await;
        let agent = scene.agent().await;
        let target = scene.given(&agent.session.fence, "pull").await;
        scene.shared.store.job_cancel(&scene.organization, &target.job(), &scene.event()).await.unwrap();
        sweep(&scene.shared).await.unwrap();
        assert_eq!(scene.now(&target).await.status, "dispatched");
    }

    /// Its server was looked up before the removal, and it was stored after it.
    #[tokio::test]
    async fn what_was_accepted_while_its_server_was_removed_does_not_wait() {
        let scene = Scene::set().await;
        scene.shared.store.server_revoke(&scene.organization, &scene.server, &scene.event()).await.unwrap();
        let target = scene.target("pull");
        scene.accept(target.clone()).await;
        sweep(&scene.shared).await.unwrap();
        assert_eq!(scene.now(&target).await.status, "cancelled");
    }
}
