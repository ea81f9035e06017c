//! Who waits for which job. Marking a job is one look into a table, whoever watches, and nothing at all
//! where nobody does; what a watcher has not looked at yet is one number further, never a queue.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use purser_proto_schema::{agent::command::Verdict, ids::JobId};
use tokio::sync::watch;

use super::lock;
use crate::store::TargetRow;

/// What has changed since the first of a job's present watchers came.
#[derive(Clone, Debug, Default)]
struct Changes {
    /// How often something may have ended.
    ends: u64,
    /// How often a row changed otherwise.
    moves: u64,
    /// How often a target got on.
    progress: u64,
    /// The target that ended last, if it was by its agent's verdict.
    ended: Option<Arc<TargetRow>>,
    /// A test's verdict, from before it is stored.
    told: Option<Arc<Verdict>>,
}

/// What whoever waits for a test may hear.
#[derive(Debug)]
pub enum Heard {
    /// How it ended, as its agent says.
    Verdict(Arc<Verdict>),
    /// That it may have ended, with the target that did, where it is known.
    End(Option<Arc<TargetRow>>),
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A row in the database; maybe the progress, too.
    Rows,
    /// Only how far a target is.
    Progress,
}

/// The watched jobs.
#[derive(Default)]
pub(super) struct Watches(Mutex<HashMap<JobId, watch::Sender<Changes>>>);

impl Watches {
    /// Watches a job from now on.
    pub(super) fn watch(self: &Arc<Self>, job: &JobId) -> Watch {
        let mut table = lock(&self.0);
        let changes = table.entry(job.clone()).or_default().subscribe();
        let seen = changes.borrow().clone();
        Watch { job: job.clone(), changes: Some(changes), seen, watches: Arc::clone(self) }
    }

    /// Says that the job may have ended, or one of its targets: this one, if it is known.
    pub(super) fn may_have_ended(&self, job: &JobId, ended: Option<Arc<TargetRow>>) {
        self.mark(job, |changes| {
            changes.ends += 1;
            changes.ended = ended;
        });
    }

    /// Tells a test's verdict before it is stored.
    pub(super) fn told(&self, job: &JobId, verdict: &Verdict) {
        self.mark(job, |changes| changes.told = Some(Arc::new(verdict.clone())));
    }

    /// Says that a row changed, and nothing ended.
    pub(super) fn moved(&self, job: &JobId) {
        self.mark(job, |changes| changes.moves += 1);
    }

    /// Says that a target got on.
    pub(super) fn progressed(&self, job: &JobId) {
        self.mark(job, |changes| changes.progress += 1);
    }

    /// Says that nothing is known of what happened meanwhile.
    pub(super) fn all_may_have_ended(&self) {
        for changes in lock(&self.0).values() {
            changes.send_modify(|changes| {
                changes.ends += 1;
                changes.ended = None;
            });
        }
    }

    fn mark(&self, job: &JobId, change: impl FnOnce(&mut Changes)) {
        if let Some(changes) = lock(&self.0).get(job) {
            changes.send_modify(change);
        }
    }
}

/// One watcher of a job. The last one takes the job out of the table.
pub struct Watch {
    job: JobId,
    /// `None` only while this is dropped.
    changes: Option<watch::Receiver<Changes>>,
    seen: Changes,
    watches: Arc<Watches>,
}

impl Watch {
    /// Waits until something has changed since the last call. Take the watch before reading the job.
    pub async fn changed(&mut self) -> Change {
        let (rows, progress) = ((self.seen.ends, self.seen.moves), self.seen.progress);
        self.until(|now| (now.ends, now.moves) != rows || now.progress != progress).await;
        if (self.seen.ends, self.seen.moves) == rows { Change::Progress } else { Change::Rows }
    }

    /// Waits until something may have ended since the last call, and gives the target that did, where
    /// it is known.
    pub async fn ended(&mut self) -> Option<Arc<TargetRow>> {
        let ends = self.seen.ends;
        self.until(|now| now.ends != ends).await;
        self.seen.ended.clone()
    }

    /// Waits like [`Self::ended`], or until a test's verdict is told.
    pub async fn heard(&mut self) -> Heard {
        let ends = self.seen.ends;
        self.until(|now| now.ends != ends || now.told.is_some()).await;
        match &self.seen.told {
            Some(verdict) => Heard::Verdict(Arc::clone(verdict)),
            None => Heard::End(self.seen.ended.clone()),
        }
    }

    async fn until(&mut self, wanted: impl Fn(&Changes) -> bool) {
        let found = match &mut self.changes {
            Some(changes) => changes.wait_for(|now| wanted(now)).await.ok().map(|now| now.clone()),
            None => None,
        };
        match found {
            Some(now) => self.seen = now,
            // The sender is in the table as long as this lives.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut table = lock(&self.watches.0);
        // Within the lock, so that of two that go at once the second sees that it is the last.
        drop(self.changes.take());
        if table.get(&self.job).is_some_and(|changes| changes.receiver_count() == 0) {
            table.remove(&self.job);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn job() -> JobId {
        JobId::from_stored("job_1".to_owned())
    }

    #[test]
    fn a_watch_tells_each_kind_of_change_once_and_only_the_newest_state() {
        let watches = Arc::new(Watches::default());
        let mut watch = watches.watch(&job());
        assert_eq!(watch.changed().now_or_never(), None);
        for _ in 0..1_000 {
            watches.progressed(&job());
        }
        assert_eq!(watch.changed().now_or_never(), Some(Change::Progress));
        assert_eq!(watch.changed().now_or_never(), None, "a thousand changes are one");
        watches.moved(&job());
        watches.progressed(&job());
        assert_eq!(watch.changed().now_or_never(), Some(Change::Rows), "progress does not hide a row");
        watches.progressed(&job());
        watches.moved(&job());
        assert_eq!(watch.ended().now_or_never(), None, "who waits for an end sleeps on");
        watches.may_have_ended(&job(), None);
        assert_eq!(watch.ended().now_or_never(), Some(None));
        assert!(watch.heard().now_or_never().is_none());
        watches.told(&job(), &Verdict::Cancelled);
        assert!(matches!(watch.heard().now_or_never(), Some(Heard::Verdict(_))));
    }

    #[test]
    fn a_job_that_nobody_watches_any_more_takes_no_room() {
        let watches = Arc::new(Watches::default());
        let (first, mut second) = (watches.watch(&job()), watches.watch(&job()));
        drop(first);
        watches.moved(&job());
        assert_eq!(second.changed().now_or_never(), Some(Change::Rows));
        drop(second);
        assert!(lock(&watches.0).is_empty());
        watches.moved(&job());
        assert!(lock(&watches.0).is_empty());
    }
}
