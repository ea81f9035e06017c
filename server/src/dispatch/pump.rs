//! Gives a server's queued targets to its agent, oldest first, while there are places.

use std::{sync::Arc, time::Duration};

use purser_proto_schema::{
    agent::{
        calls::{AgentCallsClient, Attempt, StartReply, StartTarget, VerdictReport},
        close::CloseCode,
        command::{Command, Failure, Verdict},
    },
    ids::JobId,
    job::JobKind,
};
use purser_registry_client::DiagnosisCode;

use super::{Session, Shared, attempt_of, inbound, plan, report, resume};
use crate::{
    error::{Error, Result},
    store::{Claim, Fence, TargetRow},
};

/// How often the queue is looked at without a sign, in a small fleet.
const SLOW_POLL: Duration = Duration::from_secs(15);
/// How long to leave an agent alone that said it is busy.
const BUSY: Duration = Duration::from_secs(2);
/// Before a target that could not be prepared is tried again.
const PREPARED_AGAIN: Duration = Duration::from_secs(5);

/// Before what the database could not do is tried again, in a small fleet.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Runs until the session ends.
pub(super) async fn run(shared: Arc<Shared>, session: Arc<Session>) {
    let ended = session.peer().end_token();
    loop {
        // In boxes of their own: this task waits nearly always, and would keep room for them. When a job is for
        // a whole fleet, all its sessions are woken at once, and nearly all wait for this turn.
        let turn = session.line().claim().await;
        let found = Box::pin(next(&shared, &session)).await;
        drop(turn);
        match found {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                report("looking for queued targets", &session.fence.server_id, &error);
                if pause(&shared, &session).await { continue } else { return }
            }
        }
        tokio::select! {
            () = ended.cancelled() => return,
            () = session.woken() => {}
            // A claim tells, too, but there is none as long as the queue is empty.
            () = tokio::time::sleep(shared.at_the_fleets_pace(SLOW_POLL)) => {
                tracing::debug!(server = %session.fence.server_id, "the queue is looked at without a word");
                Box::pin(close_unless_in_force(&shared, &session)).await;
            }
        }
    }
}

async fn close_unless_in_force(shared: &Shared, session: &Session) {
    match shared.store.session_holds(&session.fence).await {
        Ok(true) => {}
        Ok(false) => return session.close(CloseCode::NotInForce).await,
        Err(error) => report("looking whether a session stands", &session.fence.server_id, &error),
    }
    // Another control plane may have asked for it without being heard.
    if shared.store.is_shared()
        && let Err(error) = resume::stop_cancelled(shared, session).await
    {
        report("looking for what was cancelled", &session.fence.server_id, &error);
    }
}

/// Leaves the database alone for a moment. False when the session has ended by then.
async fn pause(shared: &Shared, session: &Session) -> bool {
    let ended = session.peer().end_token();
    tokio::select! {
        () = ended.cancelled() => false,
        () = tokio::time::sleep(shared.at_the_fleets_pace(AFTER_FAILURE)) => true,
    }
}

/// Does what a target of the session needs in the database, in its organization's turn: again and again while it fails so that it `may` be done
/// again, as long as the session lives.
async fn persist<T, Once>(
    shared: &Shared,
    session: &Session,
    may: impl Fn(&Error) -> bool,
    work: impl Fn() -> Once,
) -> Result<T>
where
    Once: Future<Output = Result<T>>,
{
    loop {
        let turn = session.line().step().await;
        let done = work().await;
        drop(turn);
        match done {
            Err(error) if may(&error) => {
                report("waiting for the database", &session.fence.server_id, &error);
                if !pause(shared, session).await {
                    return Err(error);
                }
            }
            done => return done,
        }
    }
}

/// Claims one target and hands it over. False when nothing more can be claimed now.
async fn next(shared: &Arc<Shared>, session: &Arc<Session>) -> Result<bool> {
    let signs = session.signs();
    let free = session.free_kinds();
    if free.is_empty() || session.peer().end_token().is_cancelled() {
        return Ok(false);
    }
    let target = match shared.store.target_claim(&session.fence, &free).await {
        Ok(Claim::Target(target)) => target,
        Ok(Claim::Nothing) => {
            session.found_empty(signs);
            return Ok(false);
        }
        Err(error) => {
            // It may have happened all the same, and only the next handshake gives the target out then.
            if !error.is_not_begun() {
                session.peer().cut();
            }
            return Err(error);
        }
        Ok(Claim::Fenced) => {
            // Not within the turn: one that does not read is waited for.
            let session = Arc::clone(session);
            shared.tasks.spawn(async move { session.close(CloseCode::NotInForce).await });
            return Ok(false);
        }
    };
    session.enter(&target, target.job_kind()?);
    let handing = hand_over_completed(Arc::clone(shared), Arc::clone(session), target);
    shared.tasks.spawn(handing);
    Ok(true)
}

/// Gives a claimed target, which has its place, to the agent: with its credential. A whole fleet may be asked at
/// once, so what is not for the wait until the agent answers is in boxes of its own.
pub(super) async fn hand_over_completed(shared: Arc<Shared>, session: Arc<Session>, target: Box<TargetRow>) {
    shared.moved(&target.job());
    let handed_over = match Box::pin(plan::complete(&shared.store, &shared.vault, &target)).await {
        Ok(Ok(command)) => hand_over(&shared, &session, &target, command).await,
        Ok(Err(failure)) => Box::pin(fail(&shared, &session, &target, failure)).await,
        Err(error) => {
            report("preparing a target", &session.fence.server_id, &error);
            Box::pin(not_prepared(&shared, &session, &target)).await
        }
    };
    if let Err(error) = handed_over {
        // The target may be nobody's now, and only the next handshake gives it out again.
        report("handing a target over", &session.fence.server_id, &error);
        session.peer().cut();
    }
}

/// Puts a target back that the vault or the database could not prepare: it goes on when they can again, as
/// long as it has time. A test ends: somebody waits for it.
async fn not_prepared(shared: &Arc<Shared>, session: &Arc<Session>, target: &TargetRow) -> Result<()> {
    let failure = Failure::new(
        DiagnosisCode::Other,
        "the control plane could not open the credential of this job",
        "The operator finds the cause in the log of purser-server.",
    );
    if target.job_kind()? == JobKind::TestRegistry {
        // As with an agent's verdict: at once, and what is stored says the same.
        let verdict = Verdict::Failed { failure: failure.clone(), duration_ms: 0 };
        shared.watches.told(&target.job(), &verdict);
        return fail(shared, session, target, failure).await;
    }
    let attempt = attempt_of(target);
    let why = Verdict::Failed { failure, duration_ms: 0 };
    let put_back = || async {
        let not_before = chrono::Utc::now() + PREPARED_AGAIN;
        let put_back = shared.store.target_not_prepared(&attempt, &session.fence, &why, not_before).await?;
        Ok((put_back, not_before))
    };
    let (put_back, not_before) = persist(shared, session, Error::is_not_begun, put_back).await?;
    was_put_back(shared, target, put_back);
    shared.wake_at(target.server(), not_before);
    shared.leave(session, &attempt.target_id);
    Ok(())
}

async fn hand_over(
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    target: &TargetRow,
    command: Command,
) -> Result<()> {
    let attempt = attempt_of(target);
    tracing::info!(
        job = %target.job_id, target = %target.target_id, attempt = attempt.attempt,
        server = %target.server_id, request_id = target.request_id, command = command.name(), "target dispatched"
    );
    let request = StartTarget {
        attempt: attempt.clone(),
        job_id: target.job_id.clone(),
        request_id: target.request_id.clone(),
        deadline_ms: remaining_ms(target),
        stall_ms: u64::try_from(target.stall_limit_ms).ok(),
        command,
    };
    let reply = match session.client().target_start(request).await {
        Ok(reply) => reply,
        Err(error) => {
            // Taken or not, nobody knows: the next handshake tells, so this session must end.
            tracing::warn!(server = %target.server_id, target = %target.target_id, error = %error,
                "the agent did not answer a start; ending its session");
            session.peer().cut();
            return Ok(());
        }
    };
    Box::pin(answered(shared, session, target, attempt, reply)).await
}

/// What follows from an agent's answer to a start.
async fn answered(
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    target: &TargetRow,
    attempt: Attempt,
    reply: StartReply,
) -> Result<()> {
    match reply {
        StartReply::Accepted => {
            // Whoever asked before the agent knew the target asked in vain.
            let asked = || shared.store.target_cancel_requested(&attempt);
            // What is only read may be read again whatever was wrong.
            if persist(shared, session, |_| true, asked).await? {
                session.cancel(attempt).await;
            }
            Ok(())
        }
        StartReply::Duplicate { verdict } => {
            let told = VerdictReport { attempt, verdict };
            let _turn = session.line().step().await;
            // What cannot be stored now is told once more by the agent.
            if let Err(why) = inbound::finish(shared, Some(session), &session.fence, told).await {
                tracing::warn!(server = %target.server_id, target = %target.target_id, why,
                    "a verdict was not stored");
            }
            Ok(())
        }
        StartReply::Busy => {
            let put_back = || shared.store.target_put_back(&attempt, &session.fence);
            let put_back = persist(shared, session, Error::is_not_begun, put_back).await?;
            was_put_back(shared, target, put_back);
            // Keeps its place for a moment, which is what leaves the agent alone.
            tokio::time::sleep(BUSY).await;
            shared.leave(session, &attempt.target_id);
            Ok(())
        }
        StartReply::Unsupported => {
            let failure = Failure::new(
                DiagnosisCode::Other,
                "the agent of this server does not know how to do this",
                "Update purser-agent on that host.",
            );
            fail(shared, session, target, failure).await
        }
    }
}

/// Tells of a target that was put back, and has ended where somebody had asked for that.
fn was_put_back(shared: &Arc<Shared>, target: &TargetRow, put_back: Option<TargetRow>) {
    if put_back.is_some_and(|target| target.cancel_requested) {
        shared.changed(Some(target.job()));
    }
    shared.moved(&target.job());
}

async fn fail(shared: &Arc<Shared>, session: &Session, target: &TargetRow, failure: Failure) -> Result<()> {
    let fail = || end_failed(shared, target, Some(&session.fence), failure.clone());
    let failed = persist(shared, session, Error::is_not_begun, fail).await?;
    shared.changed(failed);
    shared.leave(session, &target.id());
    Ok(())
}

/// Ends a target with a failure of the control plane's own, or of a session that must be in force.
pub(super) async fn end_failed(
    shared: &Shared,
    target: &TargetRow,
    fence: Option<&Fence>,
    failure: Failure,
) -> Result<Option<JobId>> {
    let code = failure.diagnosis.code.as_str();
    let verdict = Verdict::Failed { failure, duration_ms: 0 };
    let failed = shared.store.target_fail(&attempt_of(target), fence, &verdict).await?;
    if failed.is_some() {
        tracing::warn!(job = %target.job_id, target = %target.target_id, server = %target.server_id,
            request_id = target.request_id, code, "target failed");
        shared.ended_so(target, code, Duration::ZERO);
    }
    Ok(failed)
}

fn remaining_ms(target: &TargetRow) -> u64 {
    let until = target
        .run_deadline
        .map_or(target.run_limit_ms, |deadline| (deadline - chrono::Utc::now()).num_milliseconds());
    u64::try_from(until).unwrap_or_default()
}

#[cfg(test)]
mod tests;
