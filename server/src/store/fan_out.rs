//! Targets of one job on many servers: how many at once, and what becomes of the rest when one fails.

use chrono::{DateTime, Utc};
use purser_proto_schema::{
    agent::{
        calls::Attempt,
        command::{Failure, Verdict},
    },
    ids::{JobId, ServerId, TargetId},
};
use purser_registry_client::DiagnosisCode;
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseBackend, EntityTrait, PaginatorTrait, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait,
    sea_query::{Expr, ExprTrait},
};

use super::{
    Store, TargetRow, TargetState,
    batch::Batch,
    deadlock::undisturbed,
    entity::{job, job_target, server},
    failed,
    job::ended,
};
use crate::error::{Error, Result};

/// Of the queued targets, those that may be given out at `now`: not waiting for another try, and of a
/// job that is below its `maxParallel`.
pub(super) fn may_start(now: DateTime<Utc>) -> Condition {
    // Few jobs have a limit; the count is made for those only, along the index by job and status.
    let below_limit = Expr::cust(
        "(SELECT COUNT(*) FROM job_target AS sibling WHERE sibling.job_id = job_target.job_id \
         AND sibling.status IN ('dispatched', 'running')) < job_target.max_parallel",
    );
    let due = job_target::Column::NotBefore.is_null().or(job_target::Column::NotBefore.lte(now));
    Condition::all().add(due).add(job_target::Column::MaxParallel.is_null().or(below_limit))
}

/// Whether a target that [`may_start`] still may: on PostgreSQL another session may have claimed a
/// sibling at the same moment, so the job is locked before the siblings are counted. SQLite has one
/// writer.
pub(super) async fn still_may_start<C: ConnectionTrait>(db: &C, target: &TargetRow) -> Result<bool> {
    let Some(limit) = target.max_parallel else { return Ok(true) };
    if db.get_database_backend() != DatabaseBackend::Postgres {
        return Ok(true);
    }
    job::Entity::find_by_id(&target.job_id).lock_exclusive().one(db).await.map_err(failed)?;
    let under_way = job_target::Entity::find()
        .filter(job_target::Column::JobId.eq(&target.job_id))
        .filter(job_target::Column::Status.is_in(TargetState::WITH_AGENT))
        .count(db)
        .await
        .map_err(failed)?;
    Ok(under_way < u64::try_from(limit).unwrap_or_default())
}

/// As part of a batch that failed a target of a `failFast` job at `now`: ends the job's queued targets with
/// that reason. What an agent works on goes on. Nothing happens where the batch changed nothing: what has
/// failed before has held back what it could.
pub(super) fn hold_back(batch: &mut Batch, failed_attempt: &Attempt, now: DateTime<Utc>) -> Result<()> {
    let failure = Failure::new(
        DiagnosisCode::Other,
        "not started: another target of this job failed, and failFast was asked",
        "Mend what the failed target says, then job.retry repeats both.",
    );
    let verdict = serde_json::to_string(&Verdict::Failed { failure, duration_ms: 0 })
        .map_err(Error::internal("writing a verdict"))?;
    let job = job_target::Entity::find_by_id(failed_attempt.target_id.as_str())
        .select_only()
        .column(job_target::Column::JobId)
        .filter(job_target::Column::FailFast.eq(true))
        .filter(job_target::Column::Attempt.eq(failed_attempt.attempt))
        .filter(job_target::Column::Status.eq(TargetState::Failed.as_str()))
        .filter(job_target::Column::FinishedAt.eq(now));
    let held_back = ended(TargetState::Cancelled, Some(verdict), now)
        .filter(job_target::Column::JobId.in_subquery(job.into_query()))
        .filter(job_target::Column::Status.eq(TargetState::Queued.as_str()));
    batch.then(&held_back.into_query());
    Ok(())
}

impl Store {
    /// Whether a target that is over its time in the queue waited for its siblings and not for its host,
    /// since its job had as many under way as it may; then all of the job's waiting targets get their
    /// time anew. They have it once more after the last sibling ended.
    pub async fn targets_held(&self, target: &TargetRow) -> Result<bool> {
        let Some(limit) = target.max_parallel else { return Ok(false) };
        let siblings = || job_target::Entity::find().filter(job_target::Column::JobId.eq(&target.job_id));
        let under_way = siblings()
            .filter(job_target::Column::Status.is_in(TargetState::WITH_AGENT))
            .count(&self.db)
            .await
            .map_err(failed)?;
        let last_ended: Option<DateTime<Utc>> = siblings()
            .select_only()
            .column_as(job_target::Column::FinishedAt.max(), "last_ended")
            // One that was never given out took no turn.
            .filter(Expr::col(job_target::Column::Attempt).gt(Expr::col(job_target::Column::AttemptsBefore)))
            .into_tuple::<Option<DateTime<Utc>>>()
            .one(&self.db)
            .await
            .map_err(failed)?
            .flatten();
        let now = Utc::now();
        let full = under_way >= u64::try_from(limit).unwrap_or_default();
        let since = if full { Some(now) } else { last_ended };
        let until = since.map(|since| since + chrono::Duration::milliseconds(target.queue_limit_ms));
        let Some(until) = until.filter(|until| *until > now) else { return Ok(false) };
        let renewed = job_target::Entity::update_many()
            .col_expr(job_target::Column::QueueDeadline, Expr::value(until))
            .filter(job_target::Column::JobId.eq(&target.job_id))
            .filter(job_target::Column::Status.eq(TargetState::Queued.as_str()))
            .filter(job_target::Column::QueueDeadline.lt(until));
        undisturbed(|| async { renewed.clone().exec(&self.writer).await.map_err(failed) }).await?;
        Ok(true)
    }

    /// Of a job with a limit: its targets that could begin now but for that, oldest first and with their
    /// servers, those after `after`, at most `limit`. Where several control planes share the database, only
    /// those whose agents one of them holds.
    pub async fn servers_waiting(
        &self,
        job: &JobId,
        after: Option<&TargetId>,
        limit: u64,
    ) -> Result<Vec<(TargetId, ServerId)>> {
        use job_target::Column;
        let due = Column::NotBefore.is_null().or(Column::NotBefore.lte(Utc::now()));
        let mut waiting = job_target::Entity::find()
            .select_only()
            .columns([Column::TargetId, Column::ServerId])
            .filter(Column::JobId.eq(job.as_str()))
            .filter(Column::Status.eq(TargetState::Queued.as_str()))
            .filter(Column::MaxParallel.is_not_null())
            .filter(due);
        if let Some(after) = after {
            waiting = waiting.filter(Column::TargetId.gt(after.as_str()));
        }
        if self.is_shared() {
            let held = server::Entity::find().select_only().column(server::Column::ServerId);
            let held = held.filter(server::Column::Holder.is_not_null());
            waiting = waiting.filter(Column::ServerId.in_subquery(held.into_query()));
        }
        let found: Vec<(String, String)> = waiting
            .order_by_asc(Column::TargetId)
            .limit(limit)
            .into_tuple()
            .all(&self.db)
            .await
            .map_err(failed)?;
        let ids = |(target, server)| (TargetId::from_stored(target), ServerId::from_stored(server));
        Ok(found.into_iter().map(ids).collect())
    }
}
