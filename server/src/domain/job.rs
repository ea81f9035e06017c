//! `job.*`: accepting work, waiting for it, showing it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chrono::Utc;
use purser_proto_schema::{
    agent::command::{Outcome, Verdict},
    ids::{ApiKeyId, JobId, RegistryId, ServerId, TargetId},
    job::{
        AllInput, CredentialSource, Job, JobKind, JobPage, JobStatus, OneInput, Progress, Target,
        TargetError, TargetResult,
    },
    limits::PAGE,
    secret::Secret,
};
use serde_json::Value;

mod limits;
mod retry;
mod wait;
mod watch;

pub use limits::{FanOut, Limits};
pub use retry::retry;
pub use wait::wait_for_verdict;
pub use watch::watch;

use super::{audit, caller::Call};
use crate::{
    app::App,
    dispatch::{
        Place, Watch,
        plan::{self, Plan},
    },
    error::{Error, Result},
    store::{AuditEntry, JobFilter, JobRow, NewJob, Stored, TargetRow, TargetState},
};

/// The audit's word for a job that was stored.
const ACCEPTED: &str = "accepted";
const DEFAULT_PAGE: u32 = 50;
/// Targets in a page, unless its only job has more: a page of the largest jobs would fill the memory.
const MAX_PAGE_TARGETS: u64 = 10_000;
/// How often a waiter looks without a sign: another process may have ended the job.
const SLOW_POLL: Duration = Duration::from_secs(2);

/// A job as it is asked for.
#[derive(Debug)]
pub struct Request {
    /// What it does.
    pub kind: JobKind,
    /// What the caller asked, without secrets.
    pub asked: Value,
    /// How long each target may take.
    pub limits: Limits,
    /// How it spreads over them.
    pub fan_out: FanOut,
    /// Whether its call goes on when it has ended, and has an outcome of its own for the audit.
    pub goes_on: bool,
}

/// One server's part of it.
#[derive(Debug)]
pub struct NewTarget {
    /// Where.
    pub server_id: ServerId,
    /// The image, fully qualified; none for a test.
    pub image: Option<String>,
    /// What to do there.
    pub plan: Plan,
    /// The entry that it uses.
    pub registry_id: Option<String>,
    /// Which credential it uses.
    pub credentials: CredentialSource,
    /// The credential of [`CredentialSource::OneTime`].
    pub one_time: Option<(String, Secret)>,
}

/// A job that is stored, and how to hear of it.
pub struct Accepted {
    id: JobId,
    changes: Watch,
    /// As it was stored. Its targets without what only a dispatch needs.
    job: JobRow,
    targets: Vec<TargetRow>,
}

/// Stores a job and wakes its servers. From here on it ends with the truth, whatever dies.
pub async fn accept(app: &App, call: &Call, request: Request, targets: Vec<NewTarget>) -> Result<Accepted> {
    let id = JobId::generate();
    call.about_job(&id);
    // From before the first agent can know of it, so that no change is missed.
    let changes = app.dispatch.watch(&id);
    let now = Utc::now();
    let servers: Vec<ServerId> = targets.iter().map(|target| target.server_id.clone()).collect();
    let job = JobRow {
        job_id: id.to_string(),
        organization_id: call.organization().to_string(),
        kind: text_of(&request.kind)?,
        status: TargetState::Queued.as_str().to_owned(),
        created_by: call.caller.api_key_id.to_string(),
        request: request.asked.to_string(),
        created_at: now,
        started_at: None,
        finished_at: None,
    };
    let mut shown = Vec::with_capacity(targets.len());
    let rows = targets.into_iter().map(|target| {
        let target_id = TargetId::generate().to_string();
        let sealed_auth = target
            .one_time
            .map(|(username, password)| {
                plan::seal_one_time(&app.vault, call.organization(), &target_id, username, password)
            })
            .transpose()?;
        let kind = text_of(&target.plan.work.kind())?;
        let row = TargetRow {
            target_id,
            job_id: id.to_string(),
            organization_id: call.organization().to_string(),
            server_id: target.server_id.into(),
            kind,
            image: target.image,
            plan: String::new(),
            registry_id: target.registry_id,
            credentials: text_of(&target.credentials)?,
            sealed_auth: None,
            status: TargetState::Queued.as_str().to_owned(),
            attempt: 0,
            cancel_requested: false,
            queue_deadline: now + request.limits.queue,
            run_limit_ms: millis(request.limits.run),
            run_deadline: None,
            finished_at: None,
            verdict: None,
            progress: None,
            not_before: None,
            attempts_before: 0,
            queue_limit_ms: millis(request.limits.queue),
            stall_limit_ms: millis(request.limits.stall),
            max_parallel: request.fan_out.max_parallel.and_then(|limit| i32::try_from(limit).ok()),
            fail_fast: request.fan_out.fail_fast,
            request_id: call.request_id.as_ref().map(ToString::to_string),
        };
        shown.push(row.clone());
        let plan = serde_json::to_string(&target.plan).map_err(Error::internal("writing a target's plan"))?;
        Ok(TargetRow { plan, sealed_auth, ..row })
    });
    let targets = rows.collect::<Result<Vec<_>>>()?;
    let place = match targets.as_slice() {
        [only] => app.dispatch.place(only)?,
        _ => None,
    };
    let taker = place.as_ref().map(Place::fence);
    let uses = uses(call, &targets);
    let stored = app.store.job_insert(NewJob { job, targets }, uses, taker).await;
    let Stored { job, taken } = match stored {
        Ok(stored) => stored,
        Err(error) => {
            if let (Error::Internal { .. }, Some(place)) = (&error, place) {
                place.doubt();
            }
            return Err(error.unsure(&id));
        }
    };
    if !request.goes_on {
        call.mark_audited();
    }
    match (place, taken) {
        (Some(place), Some(target)) => {
            shown = vec![TargetRow { plan: String::new(), sealed_auth: None, ..target.clone() }];
            place.fill(target);
        }
        _ => servers.iter().for_each(|server| app.dispatch.wake(server)),
    }
    Ok(Accepted { id, changes, job, targets: shown })
}

/// The job as it goes into the audit: an event for each entry on each server that its targets use it on, so that
/// each use is found by both.
fn uses<'a>(call: &'a Call, targets: &[TargetRow]) -> Vec<AuditEntry<'a>> {
    let asked = call.audit_entry(ACCEPTED);
    let own = |target: &TargetRow| match target.registry_id.clone().map(RegistryId::from_stored) {
        None if !target.is_anonymous() => asked.registry_id.clone(),
        used => used,
    };
    let used: HashSet<_> = targets.iter().map(|target| (own(target), target.server())).collect();
    let on = |(registry_id, server)| AuditEntry { registry_id, server_id: Some(server), ..asked.clone() };
    used.into_iter().map(on).collect()
}

/// The job as it was accepted, or when `wait` says so as it ended. That may be long: nothing of the call's input may be
/// kept meanwhile.
pub async fn answer(app: &App, call: &Call, accepted: Accepted, wait_for_end: Option<bool>) -> Result<Job> {
    let Accepted { id, changes, job, targets } = accepted;
    if !wait_for_end.unwrap_or_default() {
        // Not read again: a failure of that would say that nothing was accepted.
        return view(app, job, targets);
    }
    drop((job, targets));
    call.is_done_with_its_input();
    let (job, targets) = wait::wait(app, call, id, changes).await?;
    view(app, job, targets)
}

/// `job.one`
pub async fn one(app: Arc<App>, call: Arc<Call>, input: OneInput) -> Result<Job> {
    let (job, targets) = app.store.job_one(call.organization(), &input.job_id).await?;
    view(&app, job, targets)
}

/// `job.all`
pub async fn all(app: Arc<App>, call: Arc<Call>, input: AllInput) -> Result<JobPage> {
    let limit = input.limit.unwrap_or(DEFAULT_PAGE);
    if limit == 0 || limit > PAGE {
        return Err(Error::field("limit", "must be from 1 to 100"));
    }
    // Any other text would sort somewhere, too, and leave jobs out unsaid.
    if input.cursor.as_ref().is_some_and(|cursor| !is_whole(cursor)) {
        return Err(Error::field("cursor", "must be the nextCursor of a page before"));
    }
    let filter = JobFilter {
        status: input.status,
        kind: input.kind,
        server_id: input.server_id,
        before: input.cursor,
    };
    let (found, more) = app.store.job_page(call.organization(), filter, limit, MAX_PAGE_TARGETS).await?;
    let next_cursor = found.last().filter(|_| more).map(|(job, _)| job.job_id.clone());
    let items = found.into_iter().map(|(job, targets)| view(&app, job, targets)).collect::<Result<_>>()?;
    Ok(JobPage { items, next_cursor })
}

/// Whether an id has the form that is generated here.
fn is_whole(id: &JobId) -> bool {
    id.uuid().is_some_and(|uuid| JobId::from_uuid(uuid) == *id)
}

/// `job.cancel`
pub async fn cancel(app: Arc<App>, call: Arc<Call>, input: OneInput) -> Result<Job> {
    let event = AuditEntry { job_id: Some(input.job_id.clone()), ..call.audit_entry(audit::OK) };
    let cancelled = app.store.job_cancel(call.organization(), &input.job_id, &event).await;
    let running = call.changed(&event, cancelled)?;
    app.dispatch.changed(&input.job_id);
    app.dispatch.cancel(running).await?;
    let id = input.job_id.clone();
    one(app, call, input).await.map_err(|error| error.unread(&id))
}

/// The verdict that is stored with a target.
fn verdict(target: &TargetRow) -> Result<Option<Verdict>> {
    let parsed = target.verdict.as_deref().map(serde_json::from_str).transpose();
    parsed.map_err(Error::internal("reading a verdict"))
}

fn view(app: &App, job: JobRow, targets: Vec<TargetRow>) -> Result<Job> {
    Ok(Job {
        kind: job.job_kind()?,
        status: job.job_status()?,
        job_id: JobId::from_stored(job.job_id),
        created_at: job.created_at.into(),
        started_at: job.started_at.map(Into::into),
        finished_at: job.finished_at.map(Into::into),
        created_by: ApiKeyId::from_stored(job.created_by),
        request: serde_json::from_str(&job.request).map_err(Error::internal("reading a job's request"))?,
        targets: targets.into_iter().map(|target| view_target(app, target)).collect::<Result<_>>()?,
    })
}

fn view_target(app: &App, target: TargetRow) -> Result<Target> {
    let status = TargetState::shown(&target.status)?;
    let progress = if status == JobStatus::Running { progress(app, &target)? } else { None };
    let (result, error) = match verdict(&target)? {
        // An earlier attempt's.
        _ if status == JobStatus::Running => (None, None),
        Some(Verdict::Succeeded { outcome, duration_ms }) => (Some(result(outcome, duration_ms)), None),
        Some(Verdict::Failed { failure, .. }) => {
            let diagnosis = failure.diagnosis;
            let error = TargetError {
                code: diagnosis.code.as_str().to_owned(),
                message: diagnosis.message,
                advice: diagnosis.advice,
                engine_message: diagnosis.engine_message,
            };
            (None, Some(error))
        }
        Some(Verdict::Cancelled) | None => (None, None),
    };
    Ok(Target {
        target_id: target.id(),
        server_id: target.server(),
        image: target.image,
        status,
        attempts: u32::try_from(target.attempt).unwrap_or_default(),
        registry_id: target.registry_id.map(RegistryId::from_stored),
        credentials: serde_json::from_value(target.credentials.into())
            .map_err(Error::internal("reading a target's credential source"))?,
        progress,
        result,
        error,
        next_attempt_at: target
            .not_before
            .filter(|at| status == JobStatus::Queued && *at > Utc::now())
            .map(Into::into),
    })
}

/// How far a target is: as its agent said here, else as another control plane kept it.
fn progress(app: &App, target: &TargetRow) -> Result<Option<Progress>> {
    let here = app.dispatch.progress(&target.server(), &target.id());
    let kept = || target.progress.as_deref().map(serde_json::from_str).transpose();
    here.map_or_else(|| kept().map_err(Error::internal("reading a target's progress")), |here| Ok(Some(here)))
}

fn result(outcome: Outcome, duration_ms: u64) -> TargetResult {
    match outcome {
        Outcome::Tested(_) => TargetResult { digest: None, size_bytes: None, duration_ms },
        Outcome::Image { digest, size_bytes } => {
            TargetResult { digest: Some(digest), size_bytes, duration_ms }
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A wire enum as its column's text.
fn text_of<T: serde::Serialize>(value: &T) -> Result<String> {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => Ok(text),
        Ok(_) => Err(Error::Internal { what: "writing a column", source: "not a plain enum".into() }),
        Err(error) => Err(Error::internal("writing a column")(error)),
    }
}
