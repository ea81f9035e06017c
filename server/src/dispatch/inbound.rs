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

use super::{Session, Shared, again, report, turns::Line};
use crate::store::{Ending, Fence, TargetRow};

/// JSON-RPC's number for "not now": the agent repeats the call.
const TRY_AGAIN: i32 = -32_000;

/// Serves the calls of one session.
pub(super) struct Inbound {
    pub(super) shared: Weak<Shared>,
    pub(super) fence: Fence,
    /// Set once the session stands. It stands before the agent can call.
    pub(super) session: Arc<OnceLock<Weak<Session>>>,
    /// Where its verdicts wait to be stored.
    pub(super) line: Arc<Line>,
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
        let (shared, session) = (self.shared()?, self.session());
        // Whoever waits for a test is told at once, if this is the newest session that this process knows of. The
        // agent keeps the verdict until it is stored, so that the job says the same in the end, whatever dies; only
        // where a newer session stands at another control plane, or the server was just removed, it says otherwise.
        let newest =
            shared.session(&self.fence.server_id).filter(|newest| newest.fence.epoch == self.fence.epoch);
        if let Some(job) = newest.and_then(|session| session.test(&verdict.attempt.target_id)) {
            shared.watches.told(&job, &verdict.verdict);
            // It is woken on this thread, and would else wait until the statements below were made.
            tokio::task::yield_now().await;
        }
        let attempt = verdict.attempt.clone();
        let store = async {
            let _turn = self.line.step().await;
            // Whoever waited that long may be superseded, and what is said by one that is counts nothing.
            if shared
                .session(&self.fence.server_id)
                .is_some_and(|newest| newest.fence.epoch > self.fence.epoch)
            {
                return Err(CloseCode::NotInForce.reason());
            }
            Box::pin(finish(&shared, session.as_ref(), &self.fence, verdict)).await
        };
        shared.storing.once(&self.fence, &attempt, store).await.map_err(try_again)
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use purser_proto_schema::{
        agent::command::{Failure, Outcome},
        job::JobKind,
    };
    use purser_registry_client::DiagnosisCode;

    use super::{super::scene::Scene, *};
    use crate::{
        dispatch::{Heard, attempt_of, turns::STEPS},
        store::Claim,
    };

    fn done() -> Verdict {
        let outcome = Outcome::Image { digest: "sha256:0".to_owned(), size_bytes: None };
        Verdict::Succeeded { outcome, duration_ms: 1 }
    }

    fn failed(retry_after_ms: Option<u64>) -> Verdict {
        let failure = Failure::new(DiagnosisCode::Connect, "nobody listens", "start it");
        Verdict::Failed { failure: Failure { retry_after_ms, ..failure }, duration_ms: 1 }
    }

    /// What a session of this epoch says, which has gone already.
    fn inbound(scene: &Scene, session: &Arc<Session>, epoch: i64) -> Inbound {
        Inbound {
            shared: Arc::downgrade(&scene.shared),
            fence: Fence { epoch, ..session.fence.clone() },
            session: Arc::default(),
            line: Arc::clone(session.line()),
        }
    }

    /// Its agent was not answered in time.
    #[tokio::test]
    async fn a_verdict_that_is_told_again_while_it_is_in_line_is_stored_once() {
        let scene = Scene::set().await;
        let agent = scene.agent().await;
        let target = scene.given(&agent.session.fence, "pull").await;
        let inbound = inbound(&scene, &agent.session, agent.session.fence.epoch);
        let told = VerdictReport { attempt: attempt_of(&target), verdict: done() };
        let mut steps = Vec::new();
        for _ in 0..STEPS {
            steps.push(agent.session.line().step().await.unwrap());
        }
        let (first, again, ()) =
            tokio::join!(inbound.target_verdict(told.clone()), inbound.target_verdict(told), async {
                tokio::task::yield_now().await;
                assert_eq!(scene.now(&target).await.status, "dispatched", "it is in line");
                drop(steps);
            });
        // Each in its turn, the second would have found it ended.
        assert_eq!((first.unwrap(), again.unwrap()), (VerdictReceipt::Stored, VerdictReceipt::Stored));
    }

    /// Its word is refused, and the newer session's may be another.
    #[tokio::test]
    async fn who_waits_for_a_test_hears_nothing_of_a_superseded_session() {
        let scene = Scene::set().await;
        let agent = scene.agent().await;
        let newest = &agent.session;
        let test = scene.given(&newest.fence, "testRegistry").await;
        newest.enter(&test, JobKind::TestRegistry);
        let mut watch = scene.shared.watches.watch(&test.job());
        let told = VerdictReport { attempt: attempt_of(&test), verdict: Verdict::Cancelled };
        let older = inbound(&scene, newest, newest.fence.epoch - 1).target_verdict(told).await;
        assert_eq!(older.unwrap_err().message(), CloseCode::NotInForce.reason());
        assert!(watch.heard().now_or_never().is_none());
        let told = VerdictReport { attempt: attempt_of(&test), verdict: failed(None) };
        // It is told before it has its turn to be stored.
        let mut steps = Vec::new();
        for _ in 0..STEPS {
            steps.push(newest.line().step().await.unwrap());
        }
        let inbound = inbound(&scene, newest, newest.fence.epoch);
        let (stored, heard) = tokio::join!(inbound.target_verdict(told), async {
            let heard = watch.heard().await;
            drop(steps);
            heard
        });
        assert!(matches!(heard, Heard::Verdict(verdict) if matches!(*verdict, Verdict::Failed { .. })));
        assert_eq!(stored.unwrap(), VerdictReceipt::Stored);
    }

    /// A network that was cut and is back may deliver what an older connection still held.
    #[tokio::test]
    async fn the_word_of_a_session_that_is_not_in_force_ends_nothing() {
        let scene = Scene::set().await;
        let stale = scene.session().await;
        let newest = scene.session().await;
        assert!(!scene.shared.store.session_holds(&stale).await.unwrap());
        assert!(scene.shared.store.session_holds(&newest).await.unwrap());
        for (verdict, status) in [
            (done(), "succeeded"),
            (failed(None), "failed"),
            (failed(Some(1)), "queued"),
            (Verdict::Cancelled, "cancelled"),
        ] {
            let target = scene.given(&newest, "pull").await;
            let told = VerdictReport { attempt: attempt_of(&target), verdict };
            let refused = finish(&scene.shared, None, &stale, told.clone()).await;
            assert_eq!(refused, Err(CloseCode::NotInForce.reason()), "told again by the next session");
            assert_eq!(scene.now(&target).await.status, "dispatched", "{told:?}");
            assert_eq!(finish(&scene.shared, None, &newest, told).await, Ok(VerdictReceipt::Stored));
            assert_eq!(scene.now(&target).await.status, status);
        }
    }

    #[tokio::test]
    async fn a_session_that_is_not_in_force_is_given_nothing() {
        let scene = Scene::set().await;
        let (stale, newest) = (scene.session().await, scene.session().await);
        let target = scene.target("pull");
        assert!(scene.accept_by(target.clone(), Some(&stale)).await.is_none(), "not at once");
        let claimed = scene.shared.store.target_claim(&stale, &[JobKind::Pull]).await.unwrap();
        assert!(matches!(claimed, Claim::Fenced), "nor later: {claimed:?}");
        assert_eq!(scene.now(&target).await.status, "queued");
        let at_once = scene.accept_by(scene.target("push"), Some(&newest)).await;
        assert_eq!(at_once.map(|target| target.status).as_deref(), Some("dispatched"));
        assert_eq!(scene.claimed(&newest, JobKind::Pull).await.target_id, target.target_id);
    }
}
