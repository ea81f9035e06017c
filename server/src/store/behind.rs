//! Writes behind an answer: notes of what has happened already, for which no caller has to wait.
//!
//! Only where this process is the one writer, and keeps in memory what it is about to write: then every
//! later read is given the note all the same, from memory or after [settling](Behind::settle).

use std::{future::Future, sync::Arc};

use tokio::sync::Semaphore;

/// Writes under way at once; whoever comes with one more waits.
const AT_ONCE: u32 = 32;

/// The writes under way. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Behind(Arc<Semaphore>);

impl Default for Behind {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE as usize)))
    }
}

impl Behind {
    /// Begins a write, in a task of its own.
    pub(super) async fn begin(&self, write: impl Future<Output = ()> + Send + 'static) {
        // Nobody closes it.
        let place = Arc::clone(&self.0).acquire_owned().await;
        tokio::spawn(async move {
            write.await;
            drop(place);
        });
    }

    /// Waits for all writes that were begun before.
    pub(super) async fn settle(&self) {
        if self.0.available_permits() < AT_ONCE as usize {
            let _ = self.0.acquire_many(AT_ONCE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn settling_waits_for_what_was_begun_and_no_more_is_begun_than_may_be() {
        let (behind, ended) = (Behind::default(), Arc::new(AtomicUsize::new(0)));
        let begun = tokio::time::Instant::now();
        for _ in 0..=AT_ONCE {
            let ended = Arc::clone(&ended);
            behind
                .begin(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    ended.fetch_add(1, Ordering::Relaxed);
                })
                .await;
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(1), "the last had to wait for a place");
        behind.settle().await;
        assert_eq!(ended.load(Ordering::Relaxed), AT_ONCE as usize + 1);
    }
}
