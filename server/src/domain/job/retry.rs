//! `job.retry`: the failed targets of an ended job, once more.

use std::{collections::HashSet, sync::Arc};

use chrono::Utc;
use purser_proto_schema::{
    agent::command::Verdict,
    ids::{RegistryId, ServerId},
    job::{CredentialSource, Job, JobKind, OneInput},
    permission::Permission,
};

use super::{one, text_of, uses, verdict};
use crate::{
    app::App,
    domain::caller::Call,
    error::{Error, Result},
    store::{TargetRow, TargetState},
};

/// `job.retry`
pub async fn retry(app: Arc<App>, call: Arc<Call>, input: OneInput) -> Result<Job> {
    let (job, targets) = app.store.job_one(call.organization(), &input.job_id).await?;
    call.about_job(&input.job_id);
    call.caller.require(match job.job_kind()? {
        JobKind::Pull | JobKind::StackPull => Permission::ImagePull,
        JobKind::Push => Permission::ImagePush,
        JobKind::TestRegistry => {
            return Err(conflict("a test is not repeated by its job: call registry.testRegistry again"));
        }
    })?;
    if !job.job_status()?.is_final() {
        return Err(conflict(UNDER_WAY));
    }
    let again = repeatable(&app, &call, targets).await?;
    let Some(first) = again.first() else {
        return Err(conflict("no target of this job has failed on a server that is still there"));
    };
    if let Some(registry) = &first.registry_id {
        call.about_registry(&RegistryId::from_stored(registry.clone()));
    }
    let deadline = Utc::now() + chrono::Duration::milliseconds(first.queue_limit_ms);
    let uses = uses(&call, &again);
    let request_id = call.request_id.as_ref();
    let stored = app.store.job_retry(&input.job_id, &again, deadline, request_id, uses).await;
    if !stored.map_err(|error| error.unsure(&input.job_id))? {
        return Err(conflict(UNDER_WAY));
    }
    call.mark_audited();
    app.dispatch.changed(&input.job_id);
    let servers: HashSet<ServerId> = again.iter().map(TargetRow::server).collect();
    for server in &servers {
        app.dispatch.wake(server);
    }
    let id = input.job_id.clone();
    one(app, call, input).await.map_err(|error| error.unread(&id))
}

const UNDER_WAY: &str = "this job is still under way: wait for its end, or end it with job.cancel";

/// What failed, and what was held back because something failed; not what a person cancelled.
async fn repeatable(app: &App, call: &Call, targets: Vec<TargetRow>) -> Result<Vec<TargetRow>> {
    let live: HashSet<String> =
        app.store.server_all(call.organization()).await?.into_iter().map(|row| row.server_id).collect();
    let one_time = text_of(&CredentialSource::OneTime)?;
    let mut again = Vec::new();
    for target in targets.into_iter().filter(|target| live.contains(&target.server_id)) {
        let ended_badly = [TargetState::Failed.as_str(), TargetState::Cancelled.as_str()];
        if !ended_badly.contains(&target.status.as_str())
            || !matches!(verdict(&target)?, Some(Verdict::Failed { .. }))
        {
            continue;
        }
        if target.credentials == one_time {
            return Err(Error::Precondition(
                "the one-time credential of this job was erased when it ended: start a new job, with auth",
            ));
        }
        again.push(target);
    }
    Ok(again)
}

fn conflict(message: &'static str) -> Error {
    Error::Conflict(message.to_owned())
}
