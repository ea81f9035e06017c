//! What this host works on, and what has ended but is not acknowledged.
//!
//! A target is known by its id. The same try again is taken without running twice, a newer try replaces
//! the older one. Work runs in its own task, so a broken link never stops it. No more runs at once than the
//! server said in its welcome that it would ask for, whatever it asks for then. Running and ended targets
//! together are bounded by [`MAX_TARGETS_PER_AGENT`], so nothing here can grow and no verdict is ever
//! thrown away for want of room. Verdicts that take their time to be acknowledged are kept on disk, too
//! (`keeping`), and outlive the process.
//!
//! It may know no registry and no engine: work comes as a future.

mod keeping;
mod outbox;

use std::{
    collections::HashMap,
    future::{Future, pending},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use purser_proto_schema::{
    agent::{
        MAX_TARGETS_PER_AGENT,
        calls::{Attempt, ProgressReport, StartReply, VerdictReport},
        command::{Failure, Outcome, Verdict},
        handshake::{Limits as Agreed, Resume},
    },
    ids::TargetId,
    job::Progress,
};
use purser_registry_client::DiagnosisCode;
use tokio::{
    sync::{Notify, watch},
    task::JoinError,
    time::{Instant, timeout},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

pub(crate) use self::keeping::Keeping;
use self::outbox::Outbox;

/// The table.
#[derive(Default)]
pub(crate) struct Targets {
    table: Mutex<Table>,
    /// Something was put into the outbox.
    ended: Notify,
    /// Something was put into the outbox, or taken out.
    changed: Notify,
    /// Some target has progress to report.
    moved: Notify,
    tasks: TaskTracker,
}

#[derive(Default)]
struct Table {
    running: HashMap<TargetId, Running>,
    outbox: Outbox,
    /// What the server said that it asks for at most.
    agreed: Agreed,
}

struct Running {
    attempt: u32,
    cancel: CancellationToken,
    /// Counts the reports of this try.
    seq: u64,
    /// The newest state.
    progress: Progress,
    /// Whether `progress` is newer than the last report.
    moved: bool,
    /// Marked with every sign that the work goes on.
    alive: watch::Sender<()>,
}

/// How long a target may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// In all.
    pub(crate) deadline: Duration,
    /// Without progress.
    pub(crate) stall: Option<Duration>,
}

impl From<Duration> for Limits {
    fn from(deadline: Duration) -> Self {
        Self { deadline, stall: None }
    }
}

/// Where a command says how far it is. Never waits for the link.
pub(crate) struct ProgressSink {
    targets: Arc<Targets>,
    attempt: Attempt,
}

impl ProgressSink {
    /// Replaces the state of the target.
    pub(crate) fn report(&self, progress: Progress) {
        let mut table = self.targets.table();
        let Some(running) = table.running_try(&self.attempt) else { return };
        // The engine reports what moved, so a report is a sign of life even where nothing of it is
        // counted, as in unpacking; but not that it waits to begin anew.
        if progress.phase != "retrying" {
            running.alive.send_replace(());
        }
        if running.progress != progress {
            running.progress = progress;
            running.moved = true;
            self.targets.moved.notify_one();
        }
    }
}

impl Table {
    /// The running target, if it runs under this very try.
    fn running_try(&mut self, attempt: &Attempt) -> Option<&mut Running> {
        self.running.get_mut(&attempt.target_id).filter(|running| running.attempt == attempt.attempt)
    }
}

impl Targets {
    /// A table with the verdicts that an earlier run could not tell.
    pub(crate) fn with_verdicts(reports: Vec<VerdictReport>) -> Self {
        let table = Table { outbox: Outbox::restored(reports), ..Table::default() };
        Self { table: Mutex::new(table), ..Self::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a target and begins `work` in its own task, unless the try is known already. The task ends
    /// the work at the deadline, and when it is cancelled.
    pub(crate) fn start<F, W>(
        self: &Arc<Self>,
        attempt: Attempt,
        limits: impl Into<Limits>,
        work: F,
    ) -> StartReply
    where
        F: FnOnce(ProgressSink) -> W,
        W: Future<Output = Result<Outcome, Failure>> + Send + 'static,
    {
        let mut table = self.table();
        if let Some(verdict) = table.outbox.verdict(&attempt) {
            return StartReply::Duplicate { verdict: verdict.clone() };
        }
        if let Some(running) = table.running.get(&attempt.target_id) {
            if running.attempt >= attempt.attempt {
                return StartReply::Accepted;
            }
            running.cancel.cancel();
        } else if table.running.len() >= table.agreed.targets()
            || table.running.len() + table.outbox.len() >= MAX_TARGETS_PER_AGENT
        {
            return StartReply::Busy;
        }
        let cancel = CancellationToken::new();
        let running = Running {
            attempt: attempt.attempt,
            cancel: cancel.clone(),
            seq: 0,
            progress: Progress::default(),
            moved: false,
            alive: watch::Sender::new(()),
        };
        let alive = running.alive.subscribe();
        table.running.insert(attempt.target_id.clone(), running);
        drop(table);

        let work = work(ProgressSink { targets: Arc::clone(self), attempt: attempt.clone() });
        let (targets, limits) = (Arc::clone(self), limits.into());
        self.tasks.spawn(async move {
            let mut verdict = see_through(work, limits, cancel, alive).await;
            if let Verdict::Failed { failure, .. } = &mut verdict
                && failure.diagnosis.code == DiagnosisCode::Timeout
            {
                failure.diagnosis.message.push_str(&targets.standing(&attempt));
            }
            targets.end(attempt, verdict);
        });
        StartReply::Accepted
    }

    /// Takes what a server said that it asks for at most. What runs already goes on.
    pub(crate) fn limit(&self, agreed: Agreed) {
        self.table().agreed = agreed;
    }

    /// What the server asks for and takes at most.
    pub(crate) fn agreed(&self) -> Agreed {
        self.table().agreed
    }

    /// Where a try stands, to be put behind what stopped it.
    fn standing(&self, attempt: &Attempt) -> String {
        let mut table = self.table();
        let Some(progress) = table.running_try(attempt).map(|running| &running.progress) else {
            return String::new();
        };
        let Progress { phase, downloaded_bytes, total_bytes, layers_done, layers_total, .. } = progress;
        match total_bytes {
            _ if phase.is_empty() => String::new(),
            Some(total) => format!("; it stood at {phase}, {downloaded_bytes} of {total} bytes"),
            None => format!("; it stood at {phase}, {layers_done} of {layers_total} layers"),
        }
    }

    /// Stops a try. Its verdict still comes; a try that is not running is left alone.
    pub(crate) fn cancel(&self, attempt: &Attempt) {
        if let Some(running) = self.table().running_try(attempt) {
            running.cancel.cancel();
        }
    }

    /// What a new session has to hear of.
    pub(crate) fn resume(&self) -> Resume {
        let table = self.table();
        let running_targets = table
            .running
            .iter()
            .map(|(target_id, running)| Attempt { target_id: target_id.clone(), attempt: running.attempt })
            .collect();
        Resume { running_targets, unacknowledged_verdicts: table.outbox.attempts() }
    }

    /// The server has no use for these: stops them and forgets their verdicts.
    pub(crate) fn forget(&self, attempts: &[Attempt]) {
        let mut table = self.table();
        for attempt in attempts {
            if let Some(running) = table.running_try(attempt) {
                running.cancel.cancel();
                table.running.remove(&attempt.target_id);
            }
            if table.outbox.remove(attempt) {
                self.changed.notify_one();
            }
        }
    }

    /// The server has no use for anything that this host does.
    pub(crate) fn forget_all(&self) {
        let Resume { running_targets, unacknowledged_verdicts } = self.resume();
        self.forget(&running_targets);
        self.forget(&unacknowledged_verdicts);
    }

    /// Stops everything without verdicts, and waits until it has stopped.
    pub(crate) async fn stop(&self) {
        let running = mem::take(&mut self.table().running);
        for running in running.values() {
            running.cancel.cancel();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The verdicts that the server has not acknowledged, oldest first.
    pub(crate) fn unacknowledged(&self) -> Vec<VerdictReport> {
        self.table().outbox.reports()
    }

    /// The server has stored or dropped the verdict.
    pub(crate) fn acknowledged(&self, attempt: &Attempt) {
        if self.table().outbox.remove(attempt) {
            self.changed.notify_one();
        }
    }

    /// Waits until [`unacknowledged`](Self::unacknowledged) has changed since the last call.
    pub(crate) async fn until_changed(&self) {
        self.changed.notified().await;
    }

    /// Waits until a target has ended since the last call.
    pub(crate) async fn until_ended(&self) {
        self.ended.notified().await;
    }

    /// The states that changed since the last call, and counts them as reported.
    pub(crate) fn progress(&self) -> Vec<ProgressReport> {
        let mut table = self.table();
        let moved = table.running.iter_mut().filter(|(_, running)| running.moved);
        moved
            .map(|(target_id, running)| {
                running.moved = false;
                running.seq += 1;
                let attempt = Attempt { target_id: target_id.clone(), attempt: running.attempt };
                ProgressReport { attempt, seq: running.seq, snapshot: running.progress.clone() }
            })
            .collect()
    }

    /// A new session knows nothing of what was reported before.
    pub(crate) fn tell_all_again(&self) {
        for running in self.table().running.values_mut() {
            running.moved = running.progress != Progress::default();
        }
        self.moved.notify_one();
    }

    /// Waits until a target has progressed since the last call.
    pub(crate) async fn until_moved(&self) {
        self.moved.notified().await;
    }

    /// A try that was replaced or forgotten meanwhile leaves nothing behind.
    fn end(&self, attempt: Attempt, verdict: Verdict) {
        let mut table = self.table();
        if table.running_try(&attempt).is_some() {
            table.running.remove(&attempt.target_id);
            table.outbox.put(attempt, verdict);
            self.ended.notify_one();
            self.changed.notify_one();
        }
    }
}

/// Runs work to its verdict, whatever happens to it.
async fn see_through<W>(
    work: W,
    Limits { deadline, stall }: Limits,
    cancel: CancellationToken,
    alive: watch::Receiver<()>,
) -> Verdict
where
    W: Future<Output = Result<Outcome, Failure>> + Send + 'static,
{
    let started = Instant::now();
    let mut task = AbortOnDropHandle::new(tokio::spawn(work));
    let result = tokio::select! {
        biased;
        result = timeout(deadline, &mut task) => result,
        () = cancel.cancelled() => {
            // The verdict means that the work has stopped, so wait for that.
            task.abort();
            let _ = task.await;
            return Verdict::Cancelled;
        }
        stall = stalled(stall.filter(|stall| *stall < deadline), alive) => {
            task.abort();
            let _ = task.await;
            return Verdict::Failed { failure: no_progress(stall), duration_ms: millis(started) };
        }
    };
    let failure = match result {
        Ok(Ok(Ok(outcome))) => return Verdict::Succeeded { outcome, duration_ms: millis(started) },
        Ok(Ok(Err(failure))) => failure,
        Ok(Err(broken)) => fault(&broken),
        Err(_) => {
            task.abort();
            let _ = task.await;
            overdue(deadline)
        }
    };
    Verdict::Failed { failure, duration_ms: millis(started) }
}

/// Waits until there was no sign of life for so long. Never ends without a limit, or when nobody could
/// give a sign any more.
async fn stalled(stall: Option<Duration>, mut alive: watch::Receiver<()>) -> Duration {
    let Some(stall) = stall else { return pending().await };
    loop {
        match timeout(stall, alive.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return pending().await,
            Err(_) => return stall,
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn overdue(deadline: Duration) -> Failure {
    Failure::new(
        DiagnosisCode::Timeout,
        format!("the work was not done within {} s", deadline.as_secs()),
        "Look at the registry's and the host's network and load, then try again.",
    )
}

fn no_progress(stall: Duration) -> Failure {
    Failure::new(
        DiagnosisCode::Timeout,
        format!("there was no progress for {} s", stall.as_secs()),
        "Look at the registry and at the network between it and this host, or give a longer stallTimeoutSeconds.",
    )
}

fn fault(broken: &JoinError) -> Failure {
    // The panic's text is in the log, by the panic hook; it could quote anything and goes no further.
    tracing::error!(panicked = broken.is_panic(), "a command broke");
    Failure::new(
        DiagnosisCode::Other,
        "the agent failed at this command by a fault of its own",
        "Report it with the agent's log of that time.",
    )
}

#[cfg(test)]
mod tests;
