//! Further attempts of a target: by itself after what heals, and when a person asks.

use chrono::{DateTime, Utc};
use purser_proto_schema::{
    agent::{calls::Attempt, command::Verdict},
    ids::JobId,
    job::JobStatus,
};
use sea_orm::{
    ColumnTrait, EntityTrait, QueryFilter, QuerySelect,
    sea_query::{Expr, ExprTrait},
};

use super::{
    AuditEntry, Fence, Store, TargetRow, TargetState, audit,
    deadlock::undisturbed,
    entity::{job, job_target},
    failed,
    job::column_text,
    target::holds,
};
use crate::{
    error::{Error, Result},
    request::RequestId,
};

impl TargetRow {
    /// The attempts since a person last asked.
    pub fn attempts_of_round(&self) -> u32 {
        u32::try_from(self.attempt - self.attempts_before).unwrap_or_default()
    }
}

impl Store {
    /// Puts a target whose attempt failed back into the queue, if `when` gives a time for the next one.
    /// The failure stays with it until that ends. Gives the time; `None` when the attempt is not current,
    /// or the session not the newest, or `when` gives none: then nothing has changed.
    pub async fn target_again(
        &self,
        attempt: &Attempt,
        fence: &Fence,
        verdict: &Verdict,
        when: impl FnOnce(&TargetRow) -> Option<DateTime<Utc>>,
    ) -> Result<Option<DateTime<Utc>>> {
        let transaction = self.write().await?;
        if !holds(&transaction, fence).await? {
            return Ok(None);
        }
        let found = job_target::Entity::find_by_id(attempt.target_id.as_str())
            .filter(job_target::Column::ServerId.eq(fence.server_id.as_str()))
            .filter(job_target::Column::Attempt.eq(attempt.attempt))
            .filter(job_target::Column::Status.is_in(TargetState::WITH_AGENT))
            .filter(job_target::Column::CancelRequested.eq(false))
            .lock_exclusive()
            .one(&transaction)
            .await
            .map_err(failed)?;
        let Some((target, not_before)) = found.and_then(|target| when(&target).map(|at| (target, at))) else {
            return Ok(None);
        };
        let waiting = not_before + chrono::Duration::milliseconds(target.queue_limit_ms);
        let text = serde_json::to_string(verdict).map_err(Error::internal("writing a verdict"))?;
        job_target::Entity::update_many()
            .col_expr(job_target::Column::Status, Expr::value(TargetState::Queued.as_str()))
            .col_expr(job_target::Column::NotBefore, Expr::value(not_before))
            .col_expr(job_target::Column::Verdict, Expr::value(text))
            .col_expr(
                job_target::Column::QueueDeadline,
                Expr::value(target.run_deadline.map_or(waiting, |end| Ord::min(waiting, end))),
            )
            .filter(job_target::Column::TargetId.eq(&target.target_id))
            .exec(&transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(Some(not_before))
    }

    /// Puts ended targets of an ended job back into the queue, with new clocks, and notes who asked.
    /// False when the job is not ended any more, and then nothing has changed.
    pub async fn job_retry(
        &self,
        id: &JobId,
        targets: &[TargetRow],
        queue_deadline: DateTime<Utc>,
        request_id: Option<&RequestId>,
        asked: Vec<AuditEntry<'_>>,
    ) -> Result<bool> {
        undisturbed(|| self.retry_once(id, targets, queue_deadline, request_id, asked.clone())).await
    }

    async fn retry_once(
        &self,
        id: &JobId,
        targets: &[TargetRow],
        queue_deadline: DateTime<Utc>,
        request_id: Option<&RequestId>,
        asked: Vec<AuditEntry<'_>>,
    ) -> Result<bool> {
        let transaction = self.write().await?;
        // Everyone locks targets before their job.
        job_target::Entity::update_many()
            .col_expr(job_target::Column::Status, Expr::value(TargetState::Queued.as_str()))
            .col_expr(job_target::Column::AttemptsBefore, Expr::col(job_target::Column::Attempt))
            .col_expr(job_target::Column::CancelRequested, Expr::value(false))
            .col_expr(job_target::Column::RequestId, Expr::value(request_id.map(RequestId::as_str)))
            .col_expr(job_target::Column::QueueDeadline, Expr::value(queue_deadline))
            .col_expr(job_target::Column::RunDeadline, Expr::value(Option::<DateTime<Utc>>::None))
            .col_expr(job_target::Column::NotBefore, Expr::value(Option::<DateTime<Utc>>::None))
            .col_expr(job_target::Column::FinishedAt, Expr::value(Option::<DateTime<Utc>>::None))
            .filter(job_target::Column::JobId.eq(id.as_str()))
            .filter(job_target::Column::TargetId.is_in(targets.iter().map(|target| &target.target_id)))
            .filter(job_target::Column::FinishedAt.is_not_null())
            .exec(&transaction)
            .await
            .map_err(failed)?;
        let status = Expr::case(Expr::col(job::Column::StartedAt).is_null(), column_text(&JobStatus::Queued))
            .finally(column_text(&JobStatus::Running));
        let reopened = job::Entity::update_many()
            .col_expr(job::Column::Status, status.into())
            .col_expr(job::Column::FinishedAt, Expr::value(Option::<DateTime<Utc>>::None))
            .filter(job::Column::JobId.eq(id.as_str()))
            .filter(job::Column::FinishedAt.is_not_null())
            .exec(&transaction)
            .await
            .map_err(failed)?;
        if reopened.rows_affected == 0 {
            return Ok(false);
        }
        for events in audit::insert_all(asked) {
            events.exec(&transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(true)
    }
}
