//! Waiting for a job that was accepted: for its end, or for a test's verdict. What an agent does goes on while the
//! database is away, and so does the wait.

use std::{future::pending, sync::Arc, time::Duration};

use purser_proto_schema::{agent::command::Verdict, ids::JobId};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

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
/// How long a last look at a job may take, whose targets may be many.
const LAST_LOOK: Duration = Duration::from_secs(30);
/// And at a test, of which a verdict is promised within a time.
const LAST_LOOK_AT_A_TEST: Duration = Duration::from_secs(1);
/// And while the control plane stops, which takes no longer than its callers' answers may.
const LAST_LOOK_AT_A_STOP: Duration = Duration::from_secs(3);

/// Waits until a job is final, at most 15 minutes and no longer than the caller does, and gives it as it is then.
///
/// # Errors
/// [`Error::Unread`] where it cannot be read then; [`Error::NotFound`] for one that was forgotten meanwhile.
pub(super) async fn wait(
    app: &App,
    call: &Call,
    id: JobId,
    mut changes: Watch,
) -> Result<(JobRow, Vec<TargetRow>)> {
    let mut wait = Wait::begin(app, call, &id, MAX_WAIT, LAST_LOOK);
    loop {
        // Woken, polled or out of patience: in any case the job is looked at again; its targets, which may be
        // many and end one by one, only at the end.
        wait.until_sign(changes.ended()).await;
        if let Some(found) = wait.look().await.map_err(|error| error.unread(&id))? {
            return Ok(found);
        }
    }
}

/// Waits for a job with one target, at most `patience` and no longer than the caller does, and gives its verdict, if
/// there is one by then. It is heard while the database does not answer, too.
///
/// # Errors
/// [`Error::NotBegun`] or [`Error::Internal`] where no verdict was heard, and none could be read: a test has changed
/// nothing, and may be repeated.
pub async fn wait_for_verdict(
    app: &App,
    call: &Call,
    accepted: Accepted,
    patience: Duration,
) -> Result<Option<Verdict>> {
    let Accepted { id, mut changes, job, targets } = accepted;
    drop((job, targets));
    let sign = Notify::new();
    let hearing = async {
        loop {
            match changes.heard().await {
                Heard::Verdict(told) => return Ok(Some(Arc::unwrap_or_clone(told))),
                // The only target is the whole job, which need not be read again.
                Heard::End(Some(target)) => return verdict(&target),
                Heard::End(None) => sign.notify_one(),
            }
        }
    };
    let looking = async {
        let mut wait = Wait::begin(app, call, &id, patience, LAST_LOOK_AT_A_TEST);
        loop {
            wait.until_sign(sign.notified()).await;
            if let Some((_, targets)) = wait.look().await? {
                return Ok(targets.first().map(verdict).transpose()?.flatten());
            }
        }
    };
    tokio::select! {
        biased;
        heard = hearing => heard,
        found = looking => found,
    }
}

struct Wait<'a> {
    app: &'a App,
    call: &'a Call,
    id: &'a JobId,
    until: Instant,
    last_look: Duration,
    /// Why the job could not be read when it was last looked at.
    failed: Option<Error>,
}

impl<'a> Wait<'a> {
    fn begin(app: &'a App, call: &'a Call, id: &'a JobId, patience: Duration, last_look: Duration) -> Self {
        Self { app, call, id, until: Instant::now() + patience, last_look, failed: None }
    }

    /// Waits for a sign that the job may have ended, until it is time to look without one.
    async fn until_sign<T>(&self, sign: impl Future<Output = T>) {
        tokio::select! {
            _ = timeout_at(self.until.min(Instant::now() + SLOW_POLL), sign) => {}
            () = self.nobody_waits() => {}
        }
    }

    /// Until nobody waits any longer: out of patience, gone, or stopping.
    async fn over(&self) {
        tokio::select! {
            () = tokio::time::sleep_until(self.until) => {}
            () = self.nobody_waits() => {}
        }
    }

    async fn nobody_waits(&self) {
        tokio::select! {
            () = self.call.gone.cancelled() => {}
            () = self.app.dispatch.stopping() => {}
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until || self.call.gone.is_cancelled() || self.app.dispatch.is_stopping()
    }

    /// The job, if it has ended or nobody waits any longer.
    async fn look(&mut self) -> Result<Option<(JobRow, Vec<TargetRow>)>> {
        if !self.is_over() {
            let read = tokio::select! {
                read = self.read() => read,
                () = self.over() => Ok(None),
            };
            match read {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => self.failed = None,
                Err(error @ (Error::NotBegun { .. } | Error::Internal { .. })) => {
                    if self.failed.is_none() {
                        let error = chain(&error);
                        tracing::warn!(job = %self.id, error, "a job that is waited for cannot be read");
                    }
                    self.failed = Some(error);
                    // Signs that come one after the other are not each worth a look in vain.
                    self.until_sign(pending::<()>()).await;
                }
                Err(error) => return Err(error),
            }
            if !self.is_over() {
                return Ok(None);
            }
        }
        let stops = self.app.dispatch.is_stopping();
        let within = if stops { self.last_look.min(LAST_LOOK_AT_A_STOP) } else { self.last_look };
        let last = self.app.store.job_one(self.call.organization(), self.id);
        match tokio::time::timeout(within, last).await {
            Ok(found) => found.map(Some),
            Err(late) => Err(self.failed.take().unwrap_or_else(|| Error::NotBegun { source: late.into() })),
        }
    }

    async fn read(&self) -> Result<Option<(JobRow, Vec<TargetRow>)>> {
        let (store, organization) = (&self.app.store, self.call.organization());
        if !store.job_status(organization, self.id).await?.is_final() {
            return Ok(None);
        }
        store.job_one(organization, self.id).await.map(Some)
    }
}
