//! Work of which there may be a thousand pieces at once, and which nobody minds waiting a moment for: its pieces take
//! turns at the processor. A thousand that begin or end together would otherwise all stand in the runtime's queue, and
//! every other call behind them.
//!
//! What a piece waits for (a registry, a timer) it waits for beside the others; only its steps in between are taken
//! one by one.

use std::{future::poll_fn, sync::Arc, task::ready};

use tokio::sync::Semaphore;
use tokio_util::sync::PollSemaphore;

/// The turn: one for all pieces. Whoever comes first is first.
#[derive(Debug)]
pub struct OneByOne(Arc<Semaphore>);

impl Default for OneByOne {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl OneByOne {
    /// Does a piece of work. It has to be polled when it is woken, since its turn holds up the others.
    pub fn take<T>(&self, work: impl Future<Output = T>) -> impl Future<Output = T> {
        let mut turns = PollSemaphore::new(Arc::clone(&self.0));
        // In a box, and before anything waits: whoever waits for it would else hold it as often as it is handed on.
        let mut work = Box::pin(work);
        poll_fn(move |context| {
            // Nobody closes it.
            let _turn = ready!(turns.poll_acquire(context));
            work.as_mut().poll(context)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{sync::Barrier, task::JoinSet};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn steps_are_taken_one_by_one_and_waits_together() {
        const PIECES: usize = 50;
        let crowd = Arc::new((OneByOne::default(), Barrier::new(PIECES), AtomicUsize::new(0)));
        let mut pieces = JoinSet::new();
        for _ in 0..PIECES {
            let crowd = Arc::clone(&crowd);
            pieces.spawn(async move {
                let (turns, all_here, under_way) = &*crowd;
                let work = async {
                    all_here.wait().await;
                    for _ in 0..20 {
                        assert_eq!(under_way.fetch_add(1, Ordering::SeqCst), 0, "two steps at once");
                        std::thread::yield_now();
                        under_way.fetch_sub(1, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                    }
                };
                turns.take(work).await;
            });
        }
        while let Some(ended) = pieces.join_next().await {
            ended.unwrap();
        }
    }
}
