//! Jobs: what was asked, by whom, and how it ended as a whole.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, SubsecRound, Utc};
use purser_proto_schema::{
    ids::{JobId, OrganizationId, ServerId, TargetId},
    job::{CredentialSource, JobKind, JobStatus},
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseBackend, EntityTrait, IntoActiveModel, Iterable,
    QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select, UpdateMany,
    sea_query::{Expr, ExprTrait, Query, SelectStatement, UpdateStatement},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    AuditEntry, Fence, JobRow, Store, TargetRow, TargetState, audit,
    batch::{Batch, chunks},
    deadlock::undisturbed,
    entity::{job, job_target},
    failed, target,
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

/// A job as it was stored.
#[derive(Debug)]
pub struct Stored {
    /// The job.
    pub job: JobRow,
    /// Its only target, if the session that was to take it has done so.
    pub taken: Option<TargetRow>,
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
    /// Keeps a job, its targets, and who asked for what in it: from here on it is accepted. A session with a
    /// place for its only target takes that at once, if it is in force.
    pub async fn job_insert(
        &self,
        new: NewJob,
        asked: Vec<AuditEntry<'_>>,
        taker: Option<&Fence>,
    ) -> Result<Stored> {
        let NewJob { job: waiting, mut targets } = new;
        let mut job = waiting.clone();
        let taken = match (taker, targets.as_mut_slice()) {
            (Some(fence), [only]) => {
                target::dispatched(only);
                job.status = column_text(&JobStatus::Running);
                job.started_at = Some(job.created_at);
                Some((only.clone(), fence))
            }
            _ => None,
        };
        let mut batch = self.batch();
        batch.then(&job::Entity::insert(job.clone().into_active_model()).into_query());
        let mut targets = targets.into_iter().map(IntoActiveModel::into_active_model);
        for size in chunks(targets.len()) {
            let chunk: Vec<_> = targets.by_ref().take(size).collect();
            batch.then(&job_target::Entity::insert_many(chunk).into_query());
        }
        for events in audit::insert_all(asked) {
            batch.then(&events.into_query());
        }
        let Some((target, fence)) = taken else {
            self.run(batch).await?;
            return Ok(Stored { job, taken: None });
        };
        // Stored as the session's, and put into the queue where it is not in force.
        batch.then_show(target::not_given(&target, fence).into_query().returning_all());
        batch.then(&not_started(&target.job_id).into_query());
        Ok(if self.run(batch).await?.is_empty() {
            Stored { job, taken: Some(target) }
        } else {
            Stored { job: waiting, taken: None }
        })
    }

    /// Where a job of the organization stands.
    pub async fn job_status(&self, organization: &OrganizationId, id: &JobId) -> Result<JobStatus> {
        let status: Option<String> = job::Entity::find_by_id(id.as_str())
            .filter(job::Column::OrganizationId.eq(organization.as_str()))
            .select_only()
            .column(job::Column::Status)
            .into_tuple()
            .one(&self.db)
            .await
            .map_err(failed)?;
        from_column(&status.ok_or(NOT_FOUND)?)
    }

    /// One job of the organization with its targets, but for their plans and sealed credentials.
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
        let targets = shown()
            .filter(job_target::Column::JobId.eq(id.as_str()))
            .order_by_asc(job_target::Column::TargetId)
            .all(&self.db)
            .await
            .map_err(failed)?;
        Ok((job, targets))
    }

    /// A page of the organization's jobs, newest first, with their targets as [`Self::job_one`] gives them:
    /// at most `limit` jobs, and fewer where they have more than `most_targets` together. And whether there
    /// are more.
    pub async fn job_page(
        &self,
        organization: &OrganizationId,
        filter: JobFilter,
        limit: u32,
        most_targets: u64,
    ) -> Result<(Vec<(JobRow, Vec<TargetRow>)>, bool)> {
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
        // One more than asked tells whether there is another page.
        let mut jobs = job::Entity::find()
            .filter(condition)
            .order_by_desc(job::Column::JobId)
            .limit(u64::from(limit) + 1)
            .all(&self.db)
            .await
            .map_err(failed)?;
        let found = jobs.len();
        jobs.truncate(limit as usize);
        jobs.truncate(self.fitting(&jobs, most_targets).await?);
        let more = jobs.len() < found;
        let targets = shown()
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
        Ok((page.collect(), more))
    }

    /// How many of the first of these jobs have so many targets together at most; one at least.
    async fn fitting(&self, jobs: &[JobRow], most_targets: u64) -> Result<usize> {
        let counted: Vec<(String, i64)> = job_target::Entity::find()
            .select_only()
            .column(job_target::Column::JobId)
            .column_as(job_target::Column::TargetId.count(), "targets")
            .filter(job_target::Column::JobId.is_in(jobs.iter().map(|job| &job.job_id)))
            .group_by(job_target::Column::JobId)
            .into_tuple()
            .all(&self.db)
            .await
            .map_err(failed)?;
        let counted: HashMap<String, i64> = counted.into_iter().collect();
        let mut together = 0;
        let fits = |job: &&JobRow| {
            let own = counted.get(&job.job_id).copied().unwrap_or_default();
            together += u64::try_from(own).unwrap_or_default();
            together <= most_targets
        };
        Ok(jobs.iter().take_while(fits).count().max(1))
    }

    /// The number of jobs that have not ended, by state, whoever's they are. No more than `most` are counted.
    pub async fn jobs_open(&self, most: u64) -> Result<Vec<(String, u64)>> {
        let open = job::Entity::find()
            .select_only()
            .column(job::Column::Status)
            .filter(job::Column::FinishedAt.is_null())
            .limit(most)
            .into_query();
        let counted = Query::select()
            .column(job::Column::Status)
            .expr(Expr::col(job::Column::Status).count())
            .from_subquery(open, "open")
            .group_by_col(job::Column::Status)
            .to_owned();
        let rows = self.db.query_all(&counted).await.map_err(failed)?;
        let mut counts =
            BTreeMap::from([JobStatus::Queued, JobStatus::Running].map(|state| (column_text(&state), 0)));
        for row in rows {
            let state: String = row.try_get_by_index(0).map_err(failed)?;
            let count: i64 = row.try_get_by_index(1).map_err(failed)?;
            counts.insert(state, u64::try_from(count).unwrap_or_default());
        }
        Ok(counts.into_iter().collect())
    }

    /// Forgets the oldest jobs that ended before this moment, with their targets, at most `limit`, and gives how
    /// many. Several control planes may do so at once.
    pub async fn job_forget(&self, before: DateTime<Utc>, limit: u64) -> Result<u64> {
        let transaction = self.write().await?;
        let over = |jobs: Select<job::Entity>| {
            jobs.filter(job::Column::JobId.lt(JobId::floor_of(before)))
                .filter(job::Column::FinishedAt.lt(before))
        };
        let oldest: Vec<String> = over(job::Entity::find())
            .select_only()
            .column(job::Column::JobId)
            .order_by_asc(job::Column::JobId)
            .limit(limit)
            .into_tuple()
            .all(&transaction)
            .await
            .map_err(failed)?;
        // Everyone locks targets before their job: whoever retries one at this moment has done so, or cannot.
        if self.is_shared() {
            let targets = job_target::Entity::find().select_only().column(job_target::Column::TargetId);
            let targets = targets.filter(job_target::Column::JobId.is_in(&oldest)).lock_exclusive();
            transaction.execute(&targets.into_query()).await.map_err(failed)?;
        }
        let forgotten = job::Entity::delete_many()
            .filter(job::Column::JobId.is_in(&oldest))
            .filter(job::Column::FinishedAt.lt(before))
            .exec(&transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(forgotten.rows_affected)
    }

    /// Cancels what has not started and marks what has. Gives the targets that an agent must stop.
    pub async fn job_cancel(
        &self,
        organization: &OrganizationId,
        id: &JobId,
        event: &AuditEntry<'_>,
    ) -> Result<Vec<TargetRow>> {
        undisturbed(|| self.cancel_once(organization, id, event)).await
    }

    async fn cancel_once(
        &self,
        organization: &OrganizationId,
        id: &JobId,
        event: &AuditEntry<'_>,
    ) -> Result<Vec<TargetRow>> {
        let transaction = self.write().await?;
        let found = job::Entity::find_by_id(id.as_str())
            .filter(job::Column::OrganizationId.eq(organization.as_str()))
            .one(&transaction)
            .await
            .map_err(failed)?;
        // Not locked yet: everyone locks targets before their job, or two would wait for each other.
        let job = found.ok_or(NOT_FOUND)?;
        if job.job_status()?.is_final() {
            audit::append(&transaction, event).await?;
            return transaction.commit().await.map(|()| Vec::new()).map_err(failed);
        }
        // All of them first, which locks them: one that goes back to the queue between two statements would be missed
        // by both.
        job_target::Entity::update_many()
            .col_expr(job_target::Column::CancelRequested, Expr::value(true))
            .filter(job_target::Column::JobId.eq(id.as_str()))
            .filter(job_target::Column::Status.is_in(TargetState::OPEN))
            .exec(&transaction)
            .await
            .map_err(failed)?;
        ended(TargetState::Cancelled, None, this_moment())
            .filter(job_target::Column::JobId.eq(id.as_str()))
            .filter(job_target::Column::Status.eq(TargetState::Queued.as_str()))
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
        // Last, as everywhere: its time is not long before it can be seen.
        audit::append(&transaction, event).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(running)
    }
}

/// Targets without what only a dispatch needs: a page of jobs may have a hundred thousand.
fn shown() -> Select<job_target::Entity> {
    use job_target::Column;
    let kept = Column::iter().filter(|column| !matches!(column, Column::Plan | Column::SealedAuth));
    job_target::Entity::find()
        .select_only()
        .columns(kept)
        .column_as(Expr::cust("''"), Column::Plan)
        .column_as(Expr::cust("CAST(NULL AS TEXT)"), Column::SealedAuth)
}

/// Now, as exactly as both databases keep it, so that it can be compared with what they kept.
pub(super) fn this_moment() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// Targets as they are when they have ended: with a verdict or with none, and without their one-time
/// credentials.
pub(super) fn ended(
    state: TargetState,
    verdict: Option<String>,
    now: DateTime<Utc>,
) -> UpdateMany<job_target::Entity> {
    job_target::Entity::update_many()
        .col_expr(job_target::Column::Status, Expr::value(state.as_str()))
        .col_expr(job_target::Column::FinishedAt, Expr::value(now))
        .col_expr(job_target::Column::SealedAuth, Expr::value(Option::<String>::None))
        .col_expr(job_target::Column::Verdict, Expr::value(verdict))
}

/// Marks a job as begun, if one of its targets is with an agent now and it was not marked before.
pub(super) fn started(id: &str) -> UpdateMany<job::Entity> {
    let with_agent = job_target::Entity::find()
        .filter(job_target::Column::JobId.eq(id))
        .filter(job_target::Column::Status.is_in(TargetState::WITH_AGENT));
    job::Entity::update_many()
        .col_expr(job::Column::Status, Expr::value(column_text(&JobStatus::Running)))
        .col_expr(job::Column::StartedAt, Expr::value(Utc::now()))
        .filter(job::Column::JobId.eq(id))
        .filter(job::Column::Status.eq(column_text(&JobStatus::Queued)))
        .filter(Expr::exists(with_agent.into_query()))
}

/// Marks a job that was stored as begun as waiting, if its target is.
fn not_started(id: &str) -> UpdateMany<job::Entity> {
    let queued = job_target::Entity::find()
        .filter(job_target::Column::JobId.eq(id))
        .filter(job_target::Column::Status.eq(TargetState::Queued.as_str()));
    job::Entity::update_many()
        .col_expr(job::Column::Status, Expr::value(column_text(&JobStatus::Queued)))
        .col_expr(job::Column::StartedAt, Expr::value(Option::<DateTime<Utc>>::None))
        .filter(job::Column::JobId.eq(id))
        .filter(Expr::exists(queued.into_query()))
}

/// Ends a job if its last target has ended: failed if any failed, else cancelled if any was cancelled.
/// Whoever calls holds a transaction that changed a target.
pub(super) async fn settle<C: ConnectionTrait>(db: &C, id: &str) -> Result<()> {
    // Of two transactions that each end a target the second must see both. SQLite's write lock does
    // that by itself.
    let this = job::Entity::find_by_id(id).select_only().column(job::Column::JobId);
    if db.get_database_backend() == DatabaseBackend::Postgres {
        db.execute(&this.clone().lock_exclusive().into_query()).await.map_err(failed)?;
    }
    db.execute(&settled(this.into_query())).await.map_err(failed)?;
    Ok(())
}

/// The same for the job of a target, as part of a batch that changed it.
pub(super) fn settle_job_of(batch: &mut Batch, target: &TargetId) {
    let this =
        job_target::Entity::find_by_id(target.as_str()).select_only().column(job_target::Column::JobId);
    if batch.backend() == DatabaseBackend::Postgres {
        let jobs = job::Entity::find().select_only().column(job::Column::JobId);
        let locked = jobs.filter(job::Column::JobId.in_subquery(this.clone().into_query())).lock_exclusive();
        batch.then(&locked.into_query());
    }
    batch.then(&settled(this.into_query()));
}

/// Ends the job that `this` selects the id of, unless it has ended or one of its targets has not.
fn settled(this: SelectStatement) -> UpdateStatement {
    let has = |states: &[&str]| {
        let targets = job_target::Entity::find()
            .select_only()
            .column(job_target::Column::TargetId)
            .filter(job_target::Column::JobId.in_subquery(this.clone()))
            .filter(job_target::Column::Status.is_in(states.iter().copied()));
        Expr::exists(targets.into_query())
    };
    let status = Expr::case(has(&[TargetState::Failed.as_str()]), column_text(&JobStatus::Failed))
        .case(has(&[TargetState::Cancelled.as_str()]), column_text(&JobStatus::Cancelled))
        .finally(column_text(&JobStatus::Succeeded));
    job::Entity::update_many()
        .col_expr(job::Column::Status, status.into())
        .col_expr(job::Column::FinishedAt, Expr::value(Utc::now()))
        .filter(job::Column::JobId.in_subquery(this.clone()))
        .filter(job::Column::FinishedAt.is_null())
        .filter(has(&TargetState::OPEN).not())
        .into_query()
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

    /// Whether it was accepted without a credential.
    pub fn is_anonymous(&self) -> bool {
        self.credentials == column_text(&CredentialSource::Anonymous)
    }
}
