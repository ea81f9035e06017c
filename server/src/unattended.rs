//! Work that goes on though nobody may wait for it any more: what changes something must not be left half done, and of
//! a credential that was used the audit has to hear, also when its caller hangs up and when the process stops.
//!
//! A stop waits for all of it. For what asks a registry, which may answer late or never, it waits [`PATIENCE`]; then
//! the question is given up, while there is time left to note that and to tell whoever asked.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

/// How long registries that are being asked have once a stop has begun.
const PATIENCE: Duration = Duration::from_secs(4);

/// What is under way. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Unattended {
    tasks: TaskTracker,
    given_up: CancellationToken,
}

impl Unattended {
    /// Does a piece of work, whether its caller stays or not. It belongs to the caller's request.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.tasks.spawn(work.in_current_span())
    }

    /// Asks somebody elsewhere. `None` where a stop gave up waiting for the answer.
    pub fn ask<T>(&self, question: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
        // In a box, and before anything waits: a test of 23 KB would else be held three times.
        let question = Box::pin(question);
        async move { self.given_up.run_until_cancelled(question).await }
    }

    /// Waits for all that is under way. What begins after this asks nobody any more, and is to be waited for once
    /// more, by [`ended`](Self::ended).
    pub async fn stop(&self) {
        let _ = tokio::time::timeout(PATIENCE, self.ended()).await;
        self.given_up.cancel();
        self.ended().await;
    }

    /// Waits for the end of what is under way now.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_what_is_under_way_and_gives_up_what_nobody_answers() {
        let unattended = Unattended::default();
        let quick = unattended.spawn(tokio::time::sleep(PATIENCE / 2));
        let asking = unattended.clone();
        let unanswered = unattended.spawn(async move {
            let answer = asking.ask(pending::<()>()).await;
            // There is time to note it.
            tokio::time::sleep(PATIENCE / 2).await;
            answer
        });
        let begun = tokio::time::Instant::now();
        unattended.stop().await;
        assert_eq!(begun.elapsed(), PATIENCE + PATIENCE / 2);
        assert!(quick.is_finished());
        assert_eq!(unanswered.await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_begins_after_a_stop_asks_nobody_and_is_waited_for() {
        let unattended = Unattended::default();
        unattended.stop().await;
        assert_eq!(unattended.ask(pending::<()>()).await, None);
        let late = unattended.spawn(tokio::time::sleep(PATIENCE));
        unattended.ended().await;
        assert!(late.is_finished());
    }
}
