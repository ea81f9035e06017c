//! `job.watch`: snapshots of a job until it is final.
//!
//! A watcher is told the newest state whenever it is ready for one, so one that reads slowly is told
//! less and holds nothing up: no event waits anywhere for it. Progress is read from memory; the database
//! is asked only when a row has changed.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use futures_util::{StreamExt, stream};
use purser_proto_schema::{
    ids::JobId,
    job::{Job, JobStatus, WatchInput},
};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{SLOW_POLL, view};
use crate::{
    app::App,
    dispatch::{Change, Watch},
    domain::{
        caller::Call,
        tracked::{Begun, Tracked},
    },
    error::Result,
};

/// Between two snapshots: five a second, and so no more of any target.
const EVERY: Duration = Duration::from_millis(200);
/// As much again as each target of a large job takes to read and to tell, many times over: whoever watches
/// ten thousand is told every five seconds, and of the end at once.
const EVERY_TARGET: Duration = Duration::from_micros(500);

/// `job.watch`: the job as it is now, then whenever it has changed. The last one is final.
pub async fn watch(app: Arc<App>, call: Arc<Call>, input: WatchInput) -> Result<Begun<Job>> {
    // Before the job is read, so that no change is missed.
    let changes = app.dispatch.watch(&input.job_id);
    let (job, targets) = app.store.job_one(call.organization(), &input.job_id).await?;
    let job = view(&app, job, targets)?;
    let watcher = Watcher { app, call, id: input.job_id, changes, job, told: None, ended: false };
    // The first event is the job as it is, so nothing is missed by whoever comes back without an id.
    Ok(Begun { since: None, events: stream::unfold(watcher, Watcher::next).boxed() })
}

/// Between two snapshots of a job of so many targets.
fn pace(targets: usize) -> Duration {
    EVERY.max(EVERY_TARGET.saturating_mul(u32::try_from(targets).unwrap_or(u32::MAX)))
}

struct Watcher {
    app: Arc<App>,
    call: Arc<Call>,
    id: JobId,
    changes: Watch,
    /// As it was told last, or is about to be told first.
    job: Job,
    /// When, and under which id, it was told last.
    told: Option<(Instant, i64)>,
    ended: bool,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<Tracked<Job>>, Self)> {
        if self.ended {
            return None;
        }
        if let Some((at, _)) = self.told {
            let dispatch = self.app.dispatch.clone();
            let renewed = tokio::select! {
                biased;
                () = dispatch.stopping() => return None,
                renewed = self.renewed(at) => renewed,
            };
            if let Err(error) = renewed {
                self.ended = true;
                return Some((Err(error), self));
            }
        }
        self.ended = self.job.status.is_final();
        let id = self.next_id();
        self.told = Some((Instant::now(), id));
        Some((Ok(Tracked { id: id.to_string(), data: self.job.clone() }), self))
    }

    /// Waits until the job looks otherwise than it was told at `told`, and long enough for one of its size.
    async fn renewed(&mut self, told: Instant) -> Result<()> {
        sleep_until(told + EVERY).await;
        let due = told + pace(self.job.targets.len());
        let mut early = None;
        loop {
            let until = if early.is_some() { due } else { due.max(Instant::now() + SLOW_POLL) };
            let change = timeout_at(until, self.changes.changed()).await.ok();
            if Instant::now() < due && !(change == Some(Change::Rows) && self.has_ended().await?) {
                early = if change == Some(Change::Rows) { change } else { early.or(change) };
                sleep_until(due.min(Instant::now() + EVERY)).await;
                continue;
            }
            let job = match (early.take(), change) {
                (None | Some(Change::Progress), Some(Change::Progress)) | (Some(Change::Progress), None) => {
                    self.with_progress()
                }
                _ => {
                    let (job, targets) = self.app.store.job_one(self.call.organization(), &self.id).await?;
                    view(&self.app, job, targets)?
                }
            };
            if job != self.job {
                self.job = job;
                return Ok(());
            }
        }
    }

    async fn has_ended(&self) -> Result<bool> {
        Ok(self.app.store.job_status(self.call.organization(), &self.id).await?.is_final())
    }

    fn with_progress(&self) -> Job {
        let mut job = self.job.clone();
        for target in job.targets.iter_mut().filter(|target| target.status == JobStatus::Running) {
            // What another control plane holds is known from its row only, and stays as it was.
            if let Some(here) = self.app.dispatch.progress(&target.server_id, &target.target_id) {
                target.progress = Some(here);
            }
        }
        job
    }

    /// Rises with every snapshot of a job, also over reconnects, as far as clocks do.
    fn next_id(&self) -> i64 {
        let now = Utc::now().timestamp_micros();
        self.told.map_or(now, |(_, id)| now.max(id + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_told_the_less_often_the_larger_it_is() {
        assert_eq!(pace(1), EVERY);
        assert_eq!(pace(400), EVERY);
        assert_eq!(pace(10_000), Duration::from_secs(5));
    }
}
