//! What this control plane tells the others, over a connection of its own: nobody waits for it, what is
//! said twice before it is sent is sent once, and where no other lives only that this one does is said.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::{
    dispatch::{Shared, lock},
    error::chain,
    store::Signal,
};

/// Signals that wait at most. Beyond it the others are told to look everywhere.
const MOST: usize = 4_096;
/// How long telling may take before the connection is given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before it is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// What is to be told next.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: Mutex<HashSet<Signal>>,
    more: Notify,
}

impl Outbox {
    pub(super) fn put(&self, signal: Signal) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() >= MOST {
            waiting.clear();
            waiting.insert(Signal::All {});
        }
        waiting.insert(signal);
        drop(waiting);
        self.more.notify_one();
    }

    fn take(&self) -> Vec<Signal> {
        std::mem::take(&mut *lock(&self.waiting)).into_iter().collect()
    }
}

impl Shared {
    /// Tells the other control planes, where there are some.
    pub(in crate::dispatch) fn tell(&self, signal: Signal) {
        if self.store.is_shared() && !self.replicas.is_alone() {
            self.replicas.outbox.put(signal);
        }
    }
}

/// Tells until this control plane stops.
pub(in crate::dispatch) async fn tell_all(shared: Arc<Shared>) {
    let mut mouth = shared.store.replica_mouth();
    let outbox = &shared.replicas.outbox;
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = outbox.more.notified() => {}
        }
        let signals = outbox.take();
        if signals.is_empty() {
            continue;
        }
        let failed = match timeout(PATIENCE, mouth.tell(shared.replicas.own(), &signals)).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => chain(&error),
            Err(_) => "no answer in time".to_owned(),
        };
        // What was to be said is lost: whoever missed it looks everywhere.
        tracing::warn!(error = failed, "the other replicas could not be told; they will poll");
        outbox.put(Signal::All {});
        mouth = shared.store.replica_mouth();
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = sleep(AGAIN) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use purser_proto_schema::ids::{JobId, ServerId};

    use super::*;

    #[test]
    fn what_is_said_twice_is_sent_once_and_what_does_not_fit_is_one_word() {
        let outbox = Outbox::default();
        let job = |n: usize| Signal::Job { job_id: JobId::from_stored(format!("job_{n}")) };
        for _ in 0..1_000 {
            outbox.put(job(1));
            outbox.put(Signal::Queue { server_id: ServerId::from_stored("srv_1".into()) });
        }
        assert_eq!(outbox.take().len(), 2);
        assert_eq!(outbox.take(), []);
        (0..=MOST).for_each(|n| outbox.put(job(n)));
        let told = outbox.take();
        assert!(told.len() <= 2 && told.contains(&Signal::All {}), "{} wait", told.len());
    }
}
