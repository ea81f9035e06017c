//! Jobs: what was asked, by whom, and how it ended as a whole.

use std::collections::HashMap;

use chrono::Utc;
use purser_proto_schema::{
    ids::{JobId, OrganizationId, ServerId, TargetId},
    job::{JobKind, JobStatus},
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseBackend, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait,
    sea_query::{Expr, ExprTrait},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    AuditEntry, JobRow, Store, TargetRow, TargetState, audit,
    entity::{job, job_target},
    failed,
};
use crate::error::{Error, Result};

const NOT_FOUND: Error = Error::NotFound("Job");

/// A job to keep, with its targets.
#[derive(Debug)]
pub struct NewJob {
    /// The job.
    pub job: JobRow,
    /// One per server and image.
    pub targets: Vec<TargetRow>,
}

/// Which jobs a page holds.
#[derive(Debug, Default)]
pub struct JobFilter {
    /// Only this status.
    pub status: Option<JobStatus>,
    /// Only this kind.
    pub kind: Option<JobKind>,
    /// Only jobs with a target on this server.
    pub server_id: Option<ServerId>,
    /// Only jobs before this one.
    pub before: Option<JobId>,
}

/// A wire enum as its column's text: the name it has on the wire.
pub(super) fn column_text<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

fn from_column<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(Error::internal("reading a column's value"))
}

impl JobRow {
    /// The row's kind.
    pub fn job_kind(&self) -> Result<JobKind> {
        from_column(&self.kind)
    }

    /// The row's status.
    pub fn job_status(&self) -> Result<JobStatus> {
        from_column(&self.status)
    }
}

impl Store {
    /// Keeps a job, its targets, and who asked for it: from here on it is accepted.
    pub async fn job_insert(&self, new: NewJob, asked: AuditEntry<'_>) -> Result<()> {
        let transaction = self.write().await?;
        job::Entity::insert(new.job.into_active_model())
            .exec_without_returning(&transaction)
            .await
            .map_err(failed)?;
        let targets = new.targets.into_iter().map(IntoActiveModel::into_active_model);
        job_target::Entity::insert_many(targets)
            .exec_without_returning(&transaction)
            .await
            .map_err(failed)?;
        audit::append(&transaction, asked).await?;
        transaction.commit().await.map_err(failed)
    }

    /// One job of the organization with its targets.
    pub async fn job_one(
        &self,
        organization: &OrganizationId,
        id: &JobId,
    ) -> Result<(JobRow, Vec<TargetRow>)> {
        // The job first: if it is final, its targets, read later, are too.
        let job = job::Entity::find_by_id(id.as_str())
            .filter(job::Column::OrganizationId.eq(organization.as_str()))
            .one(&self.db)
            .await
            .map_err(failed)?
            .ok_or(NOT_FOUND)?;
        let targets = job_target::Entity::find()
            .filter(job_target::Column::JobId.eq(id.as_str()))
            .order_by_asc(job_target::Column::TargetId)
            .all(&self.db)
            .await
            .map_err(failed)?;
        Ok((job, targets))
    }

    /// A page of the organization's jobs, newest first, with their targets.
    pub async fn job_page(
        &self,
        organization: &OrganizationId,
        filter: JobFilter,
        limit: u64,
    ) -> Result<Vec<(JobRow, Vec<TargetRow>)>> {
        let mut condition = Condition::all().add(job::Column::OrganizationId.eq(organization.as_str()));
        if let Some(status) = filter.status {
            condition = condition.add(job::Column::Status.eq(column_text(&status)));
        }
        if let Some(kind) = filter.kind {
            condition = condition.add(job::Column::Kind.eq(column_text(&kind)));
        }
        if let Some(before) = filter.before {
            condition = condition.add(job::Column::JobId.lt(before.as_str()));
        }
        if let Some(server) = filter.server_id {
            let on_server = job_target::Entity::find()
                .select_only()
                .column(job_target::Column::JobId)
                .filter(job_target::Column::ServerId.eq(server.as_str()))
                .into_query();
            condition = condition.add(job::Column::JobId.in_subquery(on_server));
        }
        let jobs = job::Entity::find()
            .filter(condition)
            .order_by_desc(job::Column::JobId)
            .limit(limit)
            .all(&self.db)
            .await
            .map_err(failed)?;
        let targets = job_target::Entity::find()
            .filter(job_target::Column::JobId.is_in(jobs.iter().map(|job| &job.job_id)))
            .order_by_asc(job_target::Column::TargetId)
            .all(&self.db)
            .await
            .map_err(failed)?;
        let mut by_job: HashMap<String, Vec<TargetRow>> = HashMap::new();
        for target in targets {
            by_job.entry(target.job_id.clone()).or_default().push(target);
        }
        let page = jobs.into_iter().map(|job| {
            let own = by_job.remove(&job.job_id).unwrap_or_default();
            (job, own)
        });
        Ok(page.collect())
    }

    /// Cancels what has not started and marks what has. Gives the targets that an agent must stop.
    pub async fn job_cancel(&self, organization: &OrganizationId, id: &JobId) -> Result<Vec<TargetRow>> {
        let transaction = self.write().await?;
        let found = job::Entity::find_by_id(id.as_str())
            .filter(job::Column::OrganizationId.eq(organization.as_str()))
            .one(&transaction)
            .await
            .map_err(failed)?;
        // Not locked yet: everyone locks targets before their job, or two would wait for each other.
        let job = found.ok_or(NOT_FOUND)?;
        if job.job_status()?.is_final() {
            return Ok(Vec::new());
        }
        end_targets(&transaction, TargetState::Cancelled, |targets| {
            targets
                .filter(job_target::Column::JobId.eq(id.as_str()))
                .filter(job_target::Column::Status.eq(TargetState::Queued.as_str()))
        })
        .await?;
        job_target::Entity::update_many()
            .col_expr(job_target::Column::CancelRequested, Expr::value(true))
            .filter(job_target::Column::JobId.eq(id.as_str()))
            .filter(job_target::Column::Status.is_in(TargetState::WITH_AGENT))
            .exec(&transaction)
            .await
            .map_err(failed)?;
        let running = job_target::Entity::find()
            .filter(job_target::Column::JobId.eq(id.as_str()))
            .filter(job_target::Column::Status.is_in(TargetState::WITH_AGENT))
            .all(&transaction)
            .await
            .map_err(failed)?;
        settle(&transaction, id.as_str()).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(running)
    }
}

/// Ends the chosen targets without a verdict, and erases their one-time credentials.
pub(super) async fn end_targets<C: ConnectionTrait>(
    db: &C,
    state: TargetState,
    choose: impl FnOnce(sea_orm::UpdateMany<job_target::Entity>) -> sea_orm::UpdateMany<job_target::Entity>,
) -> Result<()> {
    let update = job_target::Entity::update_many()
        .col_expr(job_target::Column::Status, Expr::value(state.as_str()))
        .col_expr(job_target::Column::FinishedAt, Expr::value(Utc::now()))
        .col_expr(job_target::Column::SealedAuth, Expr::value(Option::<String>::None));
    choose(update).exec(db).await.map_err(failed)?;
    Ok(())
}

/// Ends a job if its last target has ended: failed if any failed, else cancelled if any was cancelled.
/// Whoever calls holds a transaction that changed a target.
pub(super) async fn settle<C: ConnectionTrait>(db: &C, id: &str) -> Result<()> {
    // Of two transactions that each end a target the second must see both. SQLite's write lock does
    // that by itself.
    if db.get_database_backend() == DatabaseBackend::Postgres {
        job::Entity::find_by_id(id).lock_exclusive().one(db).await.map_err(failed)?;
    }
    let has = |states: &[&str]| {
        let targets = job_target::Entity::find()
            .select_only()
            .column(job_target::Column::TargetId)
            .filter(job_target::Column::JobId.eq(id))
            .filter(job_target::Column::Status.is_in(states.iter().copied()));
        Expr::exists(targets.into_query())
    };
    let status = Expr::case(has(&[TargetState::Failed.as_str()]), column_text(&JobStatus::Failed))
        .case(has(&[TargetState::Cancelled.as_str()]), column_text(&JobStatus::Cancelled))
        .finally(column_text(&JobStatus::Succeeded));
    job::Entity::update_many()
        .col_expr(job::Column::Status, status.into())
        .col_expr(job::Column::FinishedAt, Expr::value(Utc::now()))
        .filter(job::Column::JobId.eq(id))
        .filter(job::Column::FinishedAt.is_null())
        .filter(has(&TargetState::OPEN).not())
        .exec(db)
        .await
        .map_err(failed)?;
    Ok(())
}

/// The target's typed ids, for logs and calls.
impl TargetRow {
    /// Its id.
    pub fn id(&self) -> TargetId {
        TargetId::from_stored(self.target_id.clone())
    }

    /// Its job's id.
    pub fn job(&self) -> JobId {
        JobId::from_stored(self.job_id.clone())
    }

    /// Its server's id.
    pub fn server(&self) -> ServerId {
        ServerId::from_stored(self.server_id.clone())
    }

    /// Its kind.
    pub fn job_kind(&self) -> Result<JobKind> {
        from_column(&self.kind)
    }
}
