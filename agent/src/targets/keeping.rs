//! The outbox on disk, so that a verdict outlives the process that came to it.
//!
//! A verdict goes to the server at once; this only follows. Nearly always the server has stored it before
//! [`GRACE`] is over and nothing is written, which keeps the disk's flush out of the way of short work. An
//! agent killed within that time loses the verdict, and nothing else: the server knows none, so it gives
//! the target out again, and what was done is done once more. What is never lost is the truth: no verdict
//! is told that was not reached, and the disk is never ahead of the outbox.

use std::{sync::Arc, time::Duration};

use purser_proto_schema::agent::calls::{Attempt, VerdictReport};
use tokio::{
    task,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Targets;
use crate::{error::AgentError, state::VerdictFile};

/// How long the server may take to acknowledge before the disk is troubled.
const GRACE: Duration = Duration::from_millis(100);
/// Before a write that failed, such as for want of room, is tried again without a change.
const RETRY: Duration = Duration::from_secs(30);

/// Keeps the disk's copy.
pub(crate) struct Keeping {
    targets: Arc<Targets>,
    file: VerdictFile,
    /// What the file holds.
    kept: Vec<Attempt>,
    /// Whether the last write failed.
    failing: bool,
}

impl Keeping {
    /// Reads what an earlier run left into a new table.
    pub(crate) fn restore(file: VerdictFile) -> (Arc<Targets>, Self) {
        let reports = file.read();
        if !reports.is_empty() {
            tracing::info!(verdicts = reports.len(), "an earlier run left verdicts to be told");
        }
        let kept = attempts(&reports);
        let targets = Arc::new(Targets::with_verdicts(reports));
        (Arc::clone(&targets), Self { targets, file, kept, failing: false })
    }

    /// Follows the outbox until `stop`, and then once more.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let stopping = tokio::select! {
                () = stop.cancelled() => true,
                () = self.due() => false,
            };
            self.follow().await;
            if stopping {
                return;
            }
        }
    }

    async fn due(&self) {
        if self.failing {
            let _ = timeout(RETRY, self.targets.until_changed()).await;
        } else {
            self.targets.until_changed().await;
        }
        sleep(GRACE).await;
    }

    async fn follow(&mut self) {
        let reports = self.targets.unacknowledged();
        let now = attempts(&reports);
        if now == self.kept {
            return;
        }
        match self.write(reports).await {
            Ok(()) => {
                if self.failing {
                    tracing::info!("verdicts are kept on disk again");
                }
                (self.kept, self.failing) = (now, false);
            }
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::error!(error = %error.chain(), "verdicts are kept in memory only: an agent that dies now does its last work again");
            }
            Err(_) => {}
        }
    }

    async fn write(&self, reports: Vec<VerdictReport>) -> Result<(), AgentError> {
        let file = self.file.clone();
        let written = task::spawn_blocking(move || file.write(&reports)).await;
        // It was cancelled with the runtime, and there is nobody left to keep anything for.
        written.unwrap_or(Ok(()))
    }
}

fn attempts(reports: &[VerdictReport]) -> Vec<Attempt> {
    reports.iter().map(|report| report.attempt.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use purser_proto_schema::{
        agent::{
            command::{Outcome, Verdict},
            join_token::{JoinToken, fingerprint},
        },
        ids::{ServerId, TargetId},
    };

    use super::*;
    use crate::state::State;

    const LONG: Duration = Duration::from_secs(3600);

    fn state(folder: &Path) -> State {
        let token = JoinToken::generate(ServerId::generate(), fingerprint(b"server")).unwrap();
        State::open(folder, Some(token)).unwrap()
    }

    fn attempt(name: &str) -> Attempt {
        Attempt { target_id: TargetId::from_stored(name.to_owned()), attempt: 1 }
    }

    fn end(targets: &Arc<Targets>, name: &str) {
        let done = Outcome::Image { digest: "sha256:0".to_owned(), size_bytes: None };
        targets.start(attempt(name), LONG, |_| async { Ok(done) });
    }

    async fn eventually(what: impl Fn() -> bool) {
        timeout(Duration::from_secs(20), async {
            while !what() {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_verdict_outlives_its_process_until_it_is_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let state = state(folder.path());
        let path = folder.path().join("verdicts.jsonl");
        let (targets, keeping) = Keeping::restore(state.verdicts());
        let running = tokio::spawn(keeping.run(CancellationToken::new()));
        end(&targets, "t");
        eventually(|| path.exists()).await;
        // As a kill does: nothing is said any more.
        running.abort();

        let (targets, keeping) = Keeping::restore(state.verdicts());
        assert_eq!(targets.resume().unacknowledged_verdicts, [attempt("t")]);
        assert!(matches!(targets.unacknowledged()[0].verdict, Verdict::Succeeded { .. }));
        let stop = CancellationToken::new();
        let running = tokio::spawn(keeping.run(stop.clone()));
        targets.acknowledged(&attempt("t"));
        eventually(|| !path.exists()).await;
        // One that came just before the end is kept all the same.
        end(&targets, "u");
        timeout(LONG, targets.until_ended()).await.unwrap();
        stop.cancel();
        running.await.unwrap();
        assert!(path.exists());
    }

    #[tokio::test]
    async fn what_is_acknowledged_at_once_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let state = state(folder.path());
        let (targets, mut keeping) = Keeping::restore(state.verdicts());
        end(&targets, "t");
        targets.until_ended().await;
        targets.acknowledged(&attempt("t"));
        keeping.due().await;
        keeping.follow().await;
        assert!(!folder.path().join("verdicts.jsonl").exists());
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_costs_no_verdict() {
        let folder = tempfile::tempdir().unwrap();
        let state = state(folder.path());
        let obstacle = folder.path().join("verdicts.jsonl.unfinished");
        fs::create_dir(&obstacle).unwrap();
        let (targets, mut keeping) = Keeping::restore(state.verdicts());
        end(&targets, "t");
        targets.until_ended().await;
        keeping.follow().await;
        assert!(keeping.failing);
        assert_eq!(targets.unacknowledged().len(), 1);
        fs::remove_dir(&obstacle).unwrap();
        keeping.follow().await;
        assert!(!keeping.failing);
        assert!(folder.path().join("verdicts.jsonl").exists());
    }
}
