//! Writes behind an answer: notes of what has happened already, for which no caller has to wait.
//!
//! Only where this process is the one writer, and keeps in memory what it is about to write: then every
//! later read is given the note all the same, from memory or after [settling](Behind::settle), and a later
//! change of the same things settles first.

use std::{future::Future, sync::Arc};

use tokio::sync::Semaphore;

/// The write under way: one at a time, in the order in which they were begun. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Behind(Arc<Semaphore>);

impl Default for Behind {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Behind {
    /// Begins a write, in a task of its own, as soon as the one before has ended.
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
        let _ = self.0.acquire().await;
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn writes_keep_their_order_and_settling_waits_for_them() {
        let (behind, written) = (Behind::default(), Arc::new(Mutex::new(Vec::new())));
        for (number, takes) in [3, 1, 2].into_iter().enumerate() {
            let written = Arc::clone(&written);
            let write = async move {
                tokio::time::sleep(Duration::from_secs(takes)).await;
                written.lock().unwrap().push(number);
            };
            behind.begin(write).await;
        }
        behind.settle().await;
        assert_eq!(*written.lock().unwrap(), [0, 1, 2]);
    }
}
