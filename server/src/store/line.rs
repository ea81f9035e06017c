//! The line of SQLite's writers. It has one at a time, and the others look again after a while, up to a tenth of a
//! second later, with a connection each that nobody reads by meanwhile. Those that come in crowds, for each agent of
//! a fleet, stand in a line instead; the few others need not.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Store;

/// One at a time, in the order in which they came.
#[derive(Debug)]
pub(super) struct Line(Arc<Semaphore>);

impl Default for Line {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Store {
    /// Waits for a turn to write, and has it until it is dropped. PostgreSQL has many writers and no line. Whoever
    /// has a turn takes no second one.
    pub(super) async fn turn_to_write(&self) -> Option<OwnedSemaphorePermit> {
        let line = Arc::clone(&self.kept.as_ref()?.line.0);
        // Nobody closes it.
        line.acquire_owned().await.ok()
    }
}
