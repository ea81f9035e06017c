//! Waiting for a job that was accepted: for its end, or for a test's verdict. What an agent does goes on while the
//! database is away, and so does the wait.

use std::{future::pending, sync::Arc, time::Duration};

use purser_proto_schema::{agent::command::Verdict, ids::JobId};
use tokio::time::{Instant, timeout_at};

use super::{Accepted, SLOW_POLL, verdict};
use crate::{
    app::App,
    dispatch::{Heard, Watch},
    domain::caller::Call,
    error::{Error, Result, chain},
    store::{JobRow, TargetRow},
};

/// How long `wait: true` holds an answer.
const MAX_WAIT: Duration = Duration::from_secs(15 * 60);

/// Waits until a job is final, at most 15 minutes and no longer than the caller does, and gives it as it is then.
///
/// # Errors
/// [`Error::Unread`]
pub(super) async fn wait(
    app: &App,
    call: &Call,
    id: JobId,
    mut changes: Watch,
) -> Result<(JobRow, Vec<TargetRow>)> {
    let mut wait = Wait::begin(app, call, id, MAX_WAIT);
    loop {
        // Woken, polled or out of patience: in any case the job is looked at again; its targets, which may be
        // many and end one by one, only at the end.
        wait.until_sign(changes.ended()).await;
        if let Some(found) = wait.look().await? {
            return Ok(found);
        }
    }
}

/// Waits for a job with one target, at most `patience` and no longer than the caller does, and gives its verdict, if
/// there is one by then.
///
/// # Errors
/// [`Error::Unread`]
pub async fn wait_for_verdict(
    app: &App,
    call: &Call,
    accepted: Accepted,
    patience: Duration,
) -> Result<Option<Verdict>> {
    let Accepted { id, mut changes, .. } = accepted;
    let mut wait = Wait::begin(app, call, id, patience);
    loop {
        match wait.until_sign(changes.heard()).await {
            Some(Heard::Verdict(told)) => return Ok(Some(Arc::unwrap_or_clone(told))),
            // The only target is the whole job, which need not be read again.
            Some(Heard::End(Some(target))) => return verdict(&target),
            Some(Heard::End(None)) | None => {}
        }
        if let Some((_, targets)) = wait.look().await? {
            return Ok(targets.first().map(verdict).transpose()?.flatten());
        }
    }
}

struct Wait<'a> {
    app: &'a App,
    call: &'a Call,
    id: JobId,
    until: Instant,
    /// Whether the log has been told that the job cannot be read.
    is_told: bool,
}

impl<'a> Wait<'a> {
    fn begin(app: &'a App, call: &'a Call, id: JobId, patience: Duration) -> Self {
        Self { app, call, id, until: Instant::now() + patience, is_told: false }
    }

    /// Waits for a sign that the job may have ended, until it is time to look without one.
    async fn until_sign<T>(&self, sign: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            sign = timeout_at(self.until.min(Instant::now() + SLOW_POLL), sign) => sign.ok(),
            () = self.call.gone.cancelled() => None,
            () = self.app.dispatch.stopping() => None,
        }
    }

    /// Whether nobody waits any longer: out of patience, gone, or stopping.
    fn is_over(&self) -> bool {
        Instant::now() >= self.until || self.call.gone.is_cancelled() || self.app.dispatch.is_stopping()
    }

    /// The job, if it has ended or nobody waits any longer.
    async fn look(&mut self) -> Result<Option<(JobRow, Vec<TargetRow>)>> {
        let is_over = self.is_over();
        match self.read(is_over).await {
            Ok(found) => Ok(found),
            Err(error @ (Error::NotBegun { .. } | Error::Internal { .. })) if !is_over => {
                if !self.is_told {
                    tracing::warn!(job = %self.id, error = %chain(&error), "a job that is waited for cannot be read");
                }
                self.is_told = true;
                // Signs that come one after the other are not each worth a look in vain.
                self.until_sign(pending::<()>()).await;
                Ok(None)
            }
            Err(error) => Err(error.unread(&self.id)),
        }
    }

    async fn read(&self, is_over: bool) -> Result<Option<(JobRow, Vec<TargetRow>)>> {
        let (store, organization) = (&self.app.store, self.call.organization());
        if !is_over && !store.job_status(organization, &self.id).await?.is_final() {
            return Ok(None);
        }
        store.job_one(organization, &self.id).await.map(Some)
    }
}
