//! Verdicts that are about to be stored. An agent tells one again that was not answered in time, which it may not be
//! while a whole fleet's are in line: then it waits for the first to be stored, and not for a turn of its own.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Mutex,
};

use purser_proto_schema::{
    agent::{
        CALL_DEADLINE,
        calls::{Attempt, VerdictReceipt},
    },
    ids::ServerId,
};
use tokio::{sync::watch, time::timeout};

use super::lock;
use crate::store::Fence;

/// What its agent is told of a verdict: what became of it, or why it must be told again.
pub(super) type Answer = Result<VerdictReceipt, &'static str>;

/// An attempt, as a server's session of an epoch speaks of it: what a newer one says, or another server's, must not
/// wait for what counts nothing.
type Of = (ServerId, i64, Attempt);

/// By attempt: what became of its verdict, once that is known.
#[derive(Default)]
pub(super) struct Storing(Mutex<HashMap<Of, watch::Sender<Option<Answer>>>>);

/// A verdict in the table, until this is dropped.
struct First<'a> {
    storing: &'a Storing,
    of: Of,
}

impl Storing {
    /// Stores a verdict by `store`, or waits until that is done for the same attempt.
    pub(super) async fn once(
        &self,
        fence: &Fence,
        attempt: &Attempt,
        store: impl Future<Output = Answer>,
    ) -> Answer {
        let of = (fence.server_id.clone(), fence.epoch, attempt.clone());
        let earlier = match lock(&self.0).entry(of.clone()) {
            Entry::Occupied(entry) => Some(entry.get().subscribe()),
            Entry::Vacant(entry) => {
                entry.insert(watch::Sender::new(None));
                None
            }
        };
        if let Some(mut earlier) = earlier {
            // After that its agent has given up this call.
            let told = timeout(CALL_DEADLINE, earlier.wait_for(Option::is_some)).await;
            return told.ok().and_then(Result::ok).and_then(|told| *told).unwrap_or(Err(NOT_YET));
        }
        let first = First { storing: self, of };
        let told = store.await;
        first.say(told);
        told
    }
}

const NOT_YET: &str = "the verdict is still in line to be stored";

impl First<'_> {
    fn say(&self, told: Answer) {
        if let Some(others) = lock(&self.storing.0).get(&self.of) {
            others.send_replace(Some(told));
        }
    }
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        lock(&self.storing.0).remove(&self.of);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use purser_proto_schema::ids::TargetId;
    use tokio::sync::oneshot;

    use super::*;

    fn session(server: &str, epoch: i64) -> Fence {
        Fence { server_id: ServerId::from_stored(server.into()), epoch }
    }

    #[tokio::test]
    async fn a_verdict_that_is_told_again_waits_for_the_first_and_only_that() {
        let storing = Storing::default();
        let attempt = |attempt| Attempt { target_id: TargetId::from_stored("target_1".into()), attempt };
        let (store, stored) = oneshot::channel();
        let (of, same) = (session("server_1", 1), attempt(1));
        let mut first = Box::pin(storing.once(&of, &same, async { stored.await.unwrap_or(Err("never")) }));
        assert_eq!(first.as_mut().now_or_never(), None);
        let never = || async { panic!("stored twice") };
        let mut again = Box::pin(storing.once(&of, &same, never()));
        assert_eq!(again.as_mut().now_or_never(), None);
        let stored = async || Ok(VerdictReceipt::Stored);
        for (server, epoch, number) in [("server_1", 1, 2), ("server_1", 2, 1), ("server_2", 1, 1)] {
            let (of, attempt) = (session(server, epoch), attempt(number));
            assert!(
                storing.once(&of, &attempt, stored()).now_or_never().is_some(),
                "{of:?} waits for another"
            );
        }
        store.send(Ok(VerdictReceipt::Stale)).unwrap();
        assert_eq!(first.await, Ok(VerdictReceipt::Stale));
        assert_eq!(again.await, Ok(VerdictReceipt::Stale));
        assert_eq!(storing.once(&of, &same, stored()).await, Ok(VerdictReceipt::Stored), "anew");
        assert!(lock(&storing.0).is_empty());
    }

    #[tokio::test]
    async fn who_waits_for_one_that_breaks_off_is_told_so() {
        let storing = Storing::default();
        let attempt = Attempt { target_id: TargetId::from_stored("target_1".into()), attempt: 1 };
        let of = session("server_1", 1);
        let mut first = Box::pin(storing.once(&of, &attempt, std::future::pending()));
        assert_eq!(first.as_mut().now_or_never(), None);
        let mut again = Box::pin(storing.once(&of, &attempt, std::future::pending()));
        assert_eq!(again.as_mut().now_or_never(), None);
        drop(first);
        assert_eq!(again.await, Err(NOT_YET));
    }
}
