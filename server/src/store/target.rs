//! Targets: one server's part of a job, from queued to final.
//!
//! Every step is one conditional statement (this state, this attempt, this epoch), so a late or
//! repeated message changes nothing.

use chrono::{DateTime, Utc};
use purser_proto_schema::{
    agent::{calls::Attempt, command::Verdict},
    ids::{JobId, ServerId, TargetId},
    job::{JobKind, JobStatus},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QueryResult,
    QuerySelect, QueryTrait, Select, UpdateMany,
    sea_query::{Expr, ExprTrait, Func},
};

use super::{
    Store, TargetRow,
    deadlock::undisturbed,
    entity::{job_target, server},
    failed,
    fan_out::{hold_back, may_start, still_may_start},
    job::{column_text, ended, settle, settle_job_of, started, this_moment},
    not_begun,
};
use crate::error::{Error, Result};

/// Where a target stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// Stored, with no agent yet.
    Queued,
    /// Given to an agent. Whether that took it, it says at the next handshake.
    Dispatched,
    /// Ended well.
    Succeeded,
    /// Ended with an error.
    Failed,
    /// Ended by a person.
    Cancelled,
}

impl TargetState {
    /// The states that are not final, as column values.
    pub const OPEN: [&'static str; 3] = ["queued", "dispatched", "running"];
    /// The states in which an agent may be at work, as column values. `running` is what version 0.1.0 writes when its
    /// agent has taken a target; one may be at work beside this version, over the same database.
    pub const WITH_AGENT: [&'static str; 2] = ["dispatched", "running"];

    /// The column's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Dispatched => "dispatched",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// What callers are shown of a column's value.
    ///
    /// # Errors
    /// [`Error::Internal`] for a value that no version wrote.
    pub fn shown(column: &str) -> Result<JobStatus> {
        Ok(match column {
            "queued" => JobStatus::Queued,
            "dispatched" | "running" => JobStatus::Running,
            "succeeded" => JobStatus::Succeeded,
            "failed" => JobStatus::Failed,
            "cancelled" => JobStatus::Cancelled,
            _ => {
                return Err(Error::Internal {
                    what: "reading a target's state",
                    source: "unknown state".into(),
                });
            }
        })
    }
}

/// What a session may do in the database: nothing once it is not the newest of a server in force.
#[derive(Clone, Debug)]
pub struct Fence {
    /// The server.
    pub server_id: ServerId,
    /// The session's epoch.
    pub epoch: i64,
}

/// What a session finds in its server's queue.
#[derive(Debug)]
pub enum Claim {
    /// This target, which is its agent's from now on.
    Target(Box<TargetRow>),
    /// Nothing of the kinds asked for.
    Nothing,
    /// No right to look: a newer session stands, or the server was removed.
    Fenced,
}

/// What became of a verdict.
#[derive(Debug)]
pub enum Ending {
    /// It was current, and is stored. With the target as it is now, for those who wait for it.
    Stored(Box<TargetRow>),
    /// The target had ended, or another attempt is current.
    Stale,
    /// The session is not the newest.
    Fenced,
}

impl Store {
    /// Whether the session is its server's newest and the server was not removed. Takes no lock, so it may
    /// have changed by now.
    pub async fn session_holds(&self, fence: &Fence) -> Result<bool> {
        let found = server::Entity::find_by_id(fence.server_id.as_str())
            .filter(server::Column::SessionEpoch.eq(fence.epoch))
            .filter(server::Column::RevokedAt.is_null())
            .one(&self.db)
            .await
            .map_err(failed)?;
        Ok(found.is_some())
    }

    /// Takes the server's oldest queued target of one of the kinds, counts the attempt and starts its
    /// clock. Takes no lock where there is none.
    pub async fn target_claim(&self, fence: &Fence, kinds: &[JobKind]) -> Result<Claim> {
        loop {
            // What fails to be read has changed nothing.
            let found = oldest_queued(&fence.server_id, kinds).one(&self.db).await.map_err(not_begun)?;
            let Some(queued) = found else { return Ok(Claim::Nothing) };
            if queued.max_parallel.is_some() {
                match self.claim_in_turn(fence, kinds).await? {
                    Some(claim) => return Ok(claim),
                    // It has to wait for its siblings now; another one is the oldest that may begin.
                    None => continue,
                }
            }
            let mut batch = self.batch();
            batch.then_show(
                dispatching(&queued.target_id, queued.run_limit_ms, fence).into_query().returning_all(),
            );
            batch.then(&started(&queued.job_id).into_query());
            if let Some(target) = first(self.run(batch).await?)? {
                return Ok(Claim::Target(Box::new(target)));
            }
            let in_force = self.session_holds(fence).await;
            if !in_force.map_err(|error| Error::NotBegun { source: error.into() })? {
                return Ok(Claim::Fenced);
            }
            // Somebody ended it meanwhile; another one is the oldest.
        }
    }

    /// As [`target_claim`](Self::target_claim), for a target that may have to wait for its siblings: nobody
    /// begins one of them meanwhile. `None` where it has to, by now, or has ended.
    async fn claim_in_turn(&self, fence: &Fence, kinds: &[JobKind]) -> Result<Option<Claim>> {
        let transaction = self.write().await?;
        if !holds(&transaction, fence).await? {
            return Ok(Some(Claim::Fenced));
        }
        let queued = oldest_queued(&fence.server_id, kinds).lock_exclusive();
        let found = queued.one(&transaction).await.map_err(failed)?;
        let Some(queued) = found else { return Ok(Some(Claim::Nothing)) };
        if !still_may_start(&transaction, &queued).await? {
            return Ok(None);
        }
        let taken = dispatching(&queued.target_id, queued.run_limit_ms, fence);
        let taken = taken.exec_with_returning(&transaction).await.map_err(failed)?;
        let Some(row) = taken.into_iter().next() else { return Ok(None) };
        started(&row.job_id).exec(&transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(Some(Claim::Target(Box::new(row))))
    }

    /// Whether somebody asked to stop a target, of which this attempt is the present one. Takes no lock.
    pub async fn target_cancel_requested(&self, attempt: &Attempt) -> Result<bool> {
        let asked: Option<bool> = job_target::Entity::find_by_id(attempt.target_id.as_str())
            .select_only()
            .column(job_target::Column::CancelRequested)
            .filter(job_target::Column::Attempt.eq(attempt.attempt))
            .filter(job_target::Column::Status.is_in(TargetState::WITH_AGENT))
            .into_tuple()
            .one(&self.db)
            .await
            .map_err(failed)?;
        Ok(asked.unwrap_or_default())
    }

    /// Puts a target back that its agent did not take: not now, not lost, and not an attempt. It is cancelled
    /// where somebody asked to stop it meanwhile. Gives it as it was put back.
    pub async fn target_put_back(&self, attempt: &Attempt, fence: &Fence) -> Result<Option<TargetRow>> {
        self.put_back(put_back(), &[TargetState::Dispatched.as_str()], attempt, fence).await
    }

    /// As [`target_put_back`](Self::target_put_back), for a target that could not be prepared for its agent, until
    /// `not_before`. What was wrong stays with it, for when its time is over before it can be.
    pub async fn target_not_prepared(
        &self,
        attempt: &Attempt,
        fence: &Fence,
        why: &Verdict,
        not_before: DateTime<Utc>,
    ) -> Result<Option<TargetRow>> {
        let text = serde_json::to_string(why).map_err(Error::internal("writing a verdict"))?;
        let put_back = put_back()
            .col_expr(job_target::Column::Verdict, Expr::value(text))
            .col_expr(job_target::Column::NotBefore, Expr::value(not_before));
        self.put_back(put_back, &[TargetState::Dispatched.as_str()], attempt, fence).await
    }

    async fn put_back(
        &self,
        put_back: UpdateMany<job_target::Entity>,
        from: &[&str],
        attempt: &Attempt,
        fence: &Fence,
    ) -> Result<Option<TargetRow>> {
        let put_back = put_back
            .filter(job_target::Column::TargetId.eq(attempt.target_id.as_str()))
            .filter(job_target::Column::Attempt.eq(attempt.attempt))
            .filter(job_target::Column::Status.is_in(from.iter().copied()))
            .filter(in_force(fence));
        let cancelled = ended(TargetState::Cancelled, None, this_moment())
            .filter(job_target::Column::TargetId.eq(attempt.target_id.as_str()))
            .filter(job_target::Column::Status.eq(TargetState::Queued.as_str()))
            .filter(job_target::Column::CancelRequested.eq(true))
            .filter(in_force(fence));
        let mut batch = self.batch();
        batch.then_show(put_back.into_query().returning_all());
        batch.then(&cancelled.into_query());
        settle_job_of(&mut batch, &attempt.target_id);
        first(self.run(batch).await?)
    }

    /// Stores a verdict, if its attempt is current and its session the newest, and ends the job with
    /// its last target. Storing a verdict twice changes nothing.
    pub async fn target_finish(&self, attempt: &Attempt, fence: &Fence, verdict: &Verdict) -> Result<Ending> {
        let state = match verdict {
            Verdict::Succeeded { .. } => TargetState::Succeeded,
            Verdict::Failed { .. } => TargetState::Failed,
            Verdict::Cancelled => TargetState::Cancelled,
        };
        let now = this_moment();
        let stored = ending(attempt, state, verdict, now)?
            .filter(job_target::Column::Status.is_in(TargetState::WITH_AGENT))
            .filter(in_force(fence));
        let mut batch = self.batch();
        batch.then_show(stored.into_query().returning_all());
        if state == TargetState::Failed {
            hold_back(&mut batch, attempt, now)?;
        }
        settle_job_of(&mut batch, &attempt.target_id);
        if let Some(target) = first(self.run(batch).await?)? {
            return Ok(Ending::Stored(Box::new(target)));
        }
        Ok(if holds(&self.db, fence).await? { Ending::Stale } else { Ending::Fenced })
    }

    /// Ends a target with a failure of the control plane's own, unless it has ended or another attempt
    /// is current by now, or it is a session that says so (`fence`) and not in force.
    pub async fn target_fail(
        &self,
        attempt: &Attempt,
        fence: Option<&Fence>,
        verdict: &Verdict,
    ) -> Result<Option<JobId>> {
        let now = this_moment();
        let mut stored = ending(attempt, TargetState::Failed, verdict, now)?
            .filter(job_target::Column::Status.is_in(TargetState::OPEN));
        if let Some(fence) = fence {
            stored = stored.filter(in_force(fence));
        }
        let mut batch = self.batch();
        batch.then_show(stored.into_query().returning_all());
        hold_back(&mut batch, attempt, now)?;
        settle_job_of(&mut batch, &attempt.target_id);
        Ok(first(self.run(batch).await?)?.map(|target| target.job()))
    }

    /// Cancels a target that was asked to stop and that no agent works on any more, unless it is a
    /// session that says so (`fence`) and not in force. Gives the job, if that changed.
    pub async fn target_cancelled(&self, id: &TargetId, fence: Option<&Fence>) -> Result<Option<JobId>> {
        let mut cancelled = ended(TargetState::Cancelled, None, this_moment())
            .filter(job_target::Column::TargetId.eq(id.as_str()))
            .filter(job_target::Column::Status.is_in(TargetState::OPEN));
        if let Some(fence) = fence {
            cancelled = cancelled.filter(in_force(fence));
        }
        let mut batch = self.batch();
        batch.then_show(cancelled.into_query().returning_all());
        settle_job_of(&mut batch, id);
        Ok(first(self.run(batch).await?)?.map(|target| target.job()))
    }

    /// Puts a target that died with its agent back into the queue, if the session that says so is in
    /// force. The time that it may run in all goes on. It is cancelled where somebody asked to stop it meanwhile.
    /// Gives it as it was put back.
    pub async fn target_requeue(
        &self,
        attempt: &Attempt,
        fence: &Fence,
        queue_deadline: DateTime<Utc>,
    ) -> Result<Option<TargetRow>> {
        let requeued = job_target::Entity::update_many()
            .col_expr(job_target::Column::Status, Expr::value(TargetState::Queued.as_str()))
            .col_expr(job_target::Column::QueueDeadline, Expr::value(queue_deadline));
        self.put_back(requeued, &TargetState::WITH_AGENT, attempt, fence).await
    }

    /// The server's targets that an agent may be working on.
    pub async fn targets_with_agent(&self, id: &ServerId) -> Result<Vec<TargetRow>> {
        job_target::Entity::find()
            .filter(job_target::Column::ServerId.eq(id.as_str()))
            .filter(job_target::Column::Status.is_in(TargetState::WITH_AGENT))
            .all(&self.db)
            .await
            .map_err(failed)
    }

    /// Cancels what was accepted for a server in the moment in which it was removed: whoever removed it did
    /// not see it yet. Gives the jobs that changed.
    pub async fn targets_of_removed_cancel(&self) -> Result<Vec<JobId>> {
        let removed = server::Entity::find().select_only().column(server::Column::ServerId);
        let removed = removed.filter(server::Column::RevokedAt.is_not_null());
        let servers: Vec<String> = job_target::Entity::find()
            .select_only()
            .column(job_target::Column::ServerId)
            .distinct()
            .filter(job_target::Column::Status.eq(TargetState::Queued.as_str()))
            .filter(job_target::Column::ServerId.in_subquery(removed.into_query()))
            .into_tuple()
            .all(&self.db)
            .await
            .map_err(failed)?;
        let mut jobs = Vec::new();
        for server in servers.into_iter().map(ServerId::from_stored) {
            jobs.extend(undisturbed(|| self.cancel_all_once(&server)).await?);
        }
        Ok(jobs)
    }

    async fn cancel_all_once(&self, server: &ServerId) -> Result<Vec<JobId>> {
        let transaction = self.write().await?;
        let jobs = cancel_all_of(&transaction, server).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(jobs)
    }

    /// Servers whose agents may be working on targets that somebody asked to stop.
    pub async fn servers_to_stop(&self) -> Result<Vec<ServerId>> {
        let found: Vec<String> = job_target::Entity::find()
            .select_only()
            .column(job_target::Column::ServerId)
            .distinct()
            .filter(job_target::Column::Status.is_in(TargetState::WITH_AGENT))
            .filter(job_target::Column::CancelRequested.eq(true))
            .into_tuple()
            .all(&self.db)
            .await
            .map_err(failed)?;
        Ok(found.into_iter().map(ServerId::from_stored).collect())
    }

    /// Targets over a deadline: queued too long, or still with an agent although their time and
    /// `grace` are over.
    pub async fn targets_overdue(&self, grace: chrono::Duration, limit: u64) -> Result<Vec<TargetRow>> {
        let now = Utc::now();
        let queued = job_target::Column::Status
            .eq(TargetState::Queued.as_str())
            .and(job_target::Column::QueueDeadline.lt(now));
        let running = job_target::Column::Status
            .is_in(TargetState::WITH_AGENT)
            .and(job_target::Column::RunDeadline.lt(now - grace));
        job_target::Entity::find()
            .filter(queued.or(running))
            .order_by_asc(job_target::Column::QueueDeadline)
            .limit(limit)
            .all(&self.db)
            .await
            .map_err(failed)
    }

    /// Every target that still has a sealed one-time credential, for re-encryption.
    pub async fn targets_sealed(&self) -> Result<Vec<TargetRow>> {
        job_target::Entity::find()
            .filter(job_target::Column::SealedAuth.is_not_null())
            .all(&self.db)
            .await
            .map_err(failed)
    }

    /// Puts another sealing of the same one-time credential in place, unless it was erased meanwhile.
    pub async fn target_reseal(&self, row: &TargetRow, renewed: String) -> Result<()> {
        job_target::Entity::update_many()
            .col_expr(job_target::Column::SealedAuth, Expr::value(renewed))
            .filter(job_target::Column::TargetId.eq(&row.target_id))
            .filter(job_target::Column::SealedAuth.eq(row.sealed_auth.clone()))
            .exec(&self.writer)
            .await
            .map_err(failed)?;
        Ok(())
    }
}

fn oldest_queued(id: &ServerId, kinds: &[JobKind]) -> Select<job_target::Entity> {
    job_target::Entity::find()
        .filter(job_target::Column::ServerId.eq(id.as_str()))
        .filter(job_target::Column::Status.eq(TargetState::Queued.as_str()))
        .filter(job_target::Column::Kind.is_in(kinds.iter().map(column_text)))
        .filter(may_start(Utc::now()))
        .order_by_asc(job_target::Column::TargetId)
        .limit(1)
}

/// Targets in the queue again as if they had not been given out. A clock that runs since an earlier attempt
/// goes on.
fn put_back() -> UpdateMany<job_target::Entity> {
    use job_target::Column;
    let is_first = Expr::col(Column::Attempt).sub(Expr::col(Column::AttemptsBefore)).lte(1);
    let clock = Expr::case(is_first, Option::<DateTime<Utc>>::None).finally(Expr::col(Column::RunDeadline));
    job_target::Entity::update_many()
        .col_expr(Column::Status, Expr::value(TargetState::Queued.as_str()))
        .col_expr(Column::Attempt, Expr::col(Column::Attempt).sub(1))
        .col_expr(Column::RunDeadline, clock.into())
}

/// A new target as it is with a session: its first attempt, and its clock runs.
pub(super) fn dispatched(new: &mut TargetRow) {
    TargetState::Dispatched.as_str().clone_into(&mut new.status);
    new.attempt += 1;
    new.run_deadline = Some(this_moment() + chrono::Duration::milliseconds(new.run_limit_ms));
}

/// Puts a target into the queue that was stored as a session's, if that is not in force.
pub(super) fn not_given(target: &TargetRow, fence: &Fence) -> UpdateMany<job_target::Entity> {
    put_back().filter(job_target::Column::TargetId.eq(&target.target_id)).filter(in_force(fence).not())
}

/// Gives a queued target to a session: counts the attempt, and starts its clock unless that runs.
fn dispatching(target: &str, run_limit_ms: i64, fence: &Fence) -> UpdateMany<job_target::Entity> {
    use job_target::Column;
    let in_time = Utc::now() + chrono::Duration::milliseconds(run_limit_ms);
    let clock = Func::coalesce([Expr::col(Column::RunDeadline), Expr::value(in_time)]);
    job_target::Entity::update_many()
        .col_expr(Column::Status, Expr::value(TargetState::Dispatched.as_str()))
        .col_expr(Column::Attempt, Expr::col(Column::Attempt).add(1))
        .col_expr(Column::Progress, Expr::value(Option::<String>::None))
        .col_expr(Column::RunDeadline, clock.into())
        .filter(Column::TargetId.eq(target))
        .filter(Column::Status.eq(TargetState::Queued.as_str()))
        .filter(in_force(fence))
}

/// Ends a target with a verdict, and erases its one-time credential, if the attempt is current.
fn ending(
    attempt: &Attempt,
    state: TargetState,
    verdict: &Verdict,
    now: DateTime<Utc>,
) -> Result<UpdateMany<job_target::Entity>> {
    let text = serde_json::to_string(verdict).map_err(Error::internal("writing a verdict"))?;
    Ok(ended(state, Some(text), now)
        .filter(job_target::Column::TargetId.eq(attempt.target_id.as_str()))
        .filter(job_target::Column::Attempt.eq(attempt.attempt)))
}

/// The target that a batch shows, where it changed one.
fn first(rows: Vec<QueryResult>) -> Result<Option<TargetRow>> {
    rows.first().map(|row| TargetRow::from_query_result(row, "")).transpose().map_err(failed)
}

/// That a target's server is the session's, and [`holds`].
fn in_force(fence: &Fence) -> Expr {
    let server = session_of(fence).select_only().column(server::Column::ServerId);
    job_target::Column::ServerId.in_subquery(server.into_query())
}

/// Whether the session is its server's newest and the server was not removed. It stays so until the
/// end of the transaction: whoever raises the epoch or removes the server waits for that.
pub(super) async fn holds<C: ConnectionTrait>(db: &C, fence: &Fence) -> Result<bool> {
    Ok(session_of(fence).one(db).await.map_err(failed)?.is_some())
}

fn session_of(fence: &Fence) -> Select<server::Entity> {
    server::Entity::find_by_id(fence.server_id.as_str())
        .filter(server::Column::SessionEpoch.eq(fence.epoch))
        .filter(server::Column::RevokedAt.is_null())
        .lock_shared()
}

/// Cancels every target of a server that has not ended, in the caller's transaction. Gives their jobs.
pub(super) async fn cancel_all_of<C: ConnectionTrait>(db: &C, id: &ServerId) -> Result<Vec<JobId>> {
    // By the same statement: what another one finds before it may be less.
    let cancelled = ended(TargetState::Cancelled, None, this_moment())
        .filter(job_target::Column::ServerId.eq(id.as_str()))
        .filter(job_target::Column::Status.is_in(TargetState::OPEN))
        .into_query()
        .returning_col(job_target::Column::JobId)
        .to_owned();
    let mut jobs = Vec::new();
    for row in db.query_all(&cancelled).await.map_err(failed)? {
        jobs.push(JobId::from_stored(row.try_get_by_index(0).map_err(failed)?));
    }
    jobs.sort();
    jobs.dedup();
    for job in &jobs {
        settle(db, job.as_str()).await?;
    }
    Ok(jobs)
}
