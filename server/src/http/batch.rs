//! What calls that came in a batch share: the room for their answers, which are all in memory before the first is
//! written, and, of large batches, what their calls leave to everybody else's.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use purser_proto_schema::{
    error::{Code, PublicError},
    ids::OrganizationId,
    procedure::{Kind, ProcedureInfo},
};
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{BATCH_ANSWERS, BATCH_WIDTH, Doors, TURN, unread::Held};
use crate::{
    domain::caller::Caller,
    error::{Error, Result},
    one_by_one::OneByOne,
    shares::Shares,
};

/// Queries of large batches that are under way at once, of all callers: half as many as the database serves.
const QUERIES: usize = 4;
/// Of these, the most of one organization.
const OF_AN_ORGANIZATION: usize = 2;

/// The room for a batch's answers. It is looked at before a call and not after it, so that none is made whose
/// answer is then withheld: those under way when it is used up go beyond it. What is gathered here has not been read, and
/// one call may keep all others waiting.
pub(super) struct Room {
    /// How many they are.
    pub(super) calls: usize,
    taken: AtomicUsize,
    unread: Held,
}

impl Room {
    pub(super) fn of(doors: &Doors, caller: Option<&Caller>, calls: usize) -> Self {
        Self { calls, taken: AtomicUsize::new(0), unread: doors.unread.nothing(caller) }
    }

    pub(super) fn is_left(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < BATCH_ANSWERS
    }

    pub(super) fn take(&self, bytes: usize) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        self.unread.more(bytes);
    }
}

/// What the calls of all large batches, those of more than [`BATCH_WIDTH`], share. Clones share it.
///
/// Their calls take turns at the processor: whoever asks for much at once leaves one to everybody else. Their queries
/// leave half of the database, too, and what has been read for one is in memory for few of them at once. What may take
/// long, a mutation that waits for a job or a query that asks a registry, keeps none of them waiting.
#[derive(Clone)]
pub(super) struct LargeBatches {
    turns: Arc<OneByOne>,
    queries: Arc<Semaphore>,
    shares: Shares<OrganizationId>,
}

/// What a call has once it may be made.
pub(super) struct Turn {
    turns: Option<Arc<OneByOne>>,
    _query: Option<[OwnedSemaphorePermit; 2]>,
}

impl Default for LargeBatches {
    fn default() -> Self {
        let (queries, shares) = (Arc::new(Semaphore::new(QUERIES)), Shares::of(OF_AN_ORGANIZATION));
        Self { turns: Arc::default(), queries, shares }
    }
}

impl LargeBatches {
    /// Waits until a call, one of so many that came together, may be made; of nothing where no procedure has its name.
    ///
    /// # Errors
    /// [`Error::TooManyLargeBatches`] where it may not for 10 s.
    pub(super) async fn turn(
        &self,
        calls: usize,
        of: Option<&ProcedureInfo>,
        caller: Option<&Arc<Caller>>,
    ) -> Result<Turn> {
        // Who shows no key makes no call.
        let Some(caller) = caller.filter(|_| calls > BATCH_WIDTH) else {
            return Ok(Turn { turns: None, _query: None });
        };
        let query = if of.is_some_and(|info| info.kind == Kind::Query && info.asks.is_none()) {
            let own = self.shares.share(&caller.organization_id);
            // In this order nobody who waits behind others of its own keeps any place from the rest.
            let places = async {
                let own = own.acquire_owned().await?;
                Ok([own, Arc::clone(&self.queries).acquire_owned().await?])
            };
            let places: std::result::Result<_, AcquireError> =
                timeout(TURN, places).await.map_err(|_| Error::TooManyLargeBatches)?;
            Some(places.map_err(Error::internal("waiting for a large batch's turn"))?)
        } else {
            None
        };
        Ok(Turn { turns: Some(Arc::clone(&self.turns)), _query: query })
    }
}

impl Turn {
    /// Makes the call.
    pub(super) async fn take<T>(self, call: impl Future<Output = T>) -> T {
        match &self.turns {
            Some(turns) => turns.take(call).await,
            None => call.await,
        }
    }
}

/// The answers as one text, `[…]`. What has been copied is given back at once: together they may be large.
pub(super) fn joined(answers: Vec<String>) -> String {
    let mut text = String::with_capacity(answers.iter().map(|answer| answer.len() + 1).sum::<usize>() + 2);
    text.push('[');
    for (at, answer) in answers.into_iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&answer);
    }
    text.push(']');
    text
}

/// The answer to a call that there is no room for.
pub(super) fn no_room() -> PublicError {
    let message = "not called: the answers of this batch are over 2 MiB by now; ask for less at once";
    PublicError::new(Code::PayloadTooLarge, message)
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use futures_util::FutureExt as _;
    use purser_proto_schema::{audit, ids::ApiKeyId, procedure::Procedure as _, registry};

    use super::*;

    const LARGE: usize = BATCH_WIDTH + 1;
    const QUERY: ProcedureInfo = audit::All::INFO;
    const LONG_QUERY: ProcedureInfo = registry::Tags::INFO;
    const MUTATION: ProcedureInfo = registry::Create::INFO;

    /// One of each organization.
    fn callers() -> [Arc<Caller>; 3] {
        [(); 3].map(|()| Arc::new(Caller::of_a_test(ApiKeyId::generate(), OrganizationId::generate())))
    }

    fn turn(batches: &LargeBatches, calls: usize, of: ProcedureInfo, by: &Arc<Caller>) -> Option<Turn> {
        batches.turn(calls, Some(&of), Some(by)).now_or_never().map(Result::unwrap)
    }

    #[tokio::test]
    async fn queries_of_large_batches_wait_for_each_other_and_keep_nothing_else_waiting() {
        let (batches, [one, other, third]) = (LargeBatches::default(), callers());
        let mut under_way = Vec::new();
        for by in [&one, &other] {
            under_way.extend((0..OF_AN_ORGANIZATION).map(|_| turn(&batches, LARGE, QUERY, by).unwrap()));
            assert!(turn(&batches, LARGE, QUERY, by).is_none());
        }
        assert_eq!(under_way.len(), QUERIES);
        assert!(turn(&batches, LARGE, QUERY, &third).is_none());
        for by in [&one, &third] {
            assert!(turn(&batches, BATCH_WIDTH, QUERY, by).is_some());
            assert!(turn(&batches, LARGE, LONG_QUERY, by).is_some());
            assert!(turn(&batches, LARGE, MUTATION, by).is_some());
        }
        assert!(under_way.pop().unwrap().take(ready(())).now_or_never().is_some());
        assert!(
            turn(&batches, LARGE, QUERY, &third).is_some() && turn(&batches, LARGE, QUERY, &one).is_none()
        );
        drop(under_way);
        assert!(turn(&batches, LARGE, QUERY, &third).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_whose_turn_does_not_come_is_told_so() {
        let (batches, [one, ..]) = (LargeBatches::default(), callers());
        let query = || turn(&batches, LARGE, QUERY, &one).unwrap();
        let _under_way = [(); OF_AN_ORGANIZATION].map(|()| query());
        let told = batches.turn(LARGE, Some(&QUERY), Some(&one)).await;
        assert!(matches!(told, Err(Error::TooManyLargeBatches)));
    }

    #[test]
    fn calls_of_large_batches_leave_a_processor_to_others() {
        let (batches, [by, ..]) = (LargeBatches::default(), callers());
        let [one, another] = [(); 2].map(|()| turn(&batches, LARGE, MUTATION, &by).unwrap());
        let small = turn(&batches, BATCH_WIDTH, MUTATION, &by).unwrap();
        // What others see while a step of one is taken.
        let seen = one.take(async {
            (another.take(ready(())).now_or_never().is_some(), small.take(ready(())).now_or_never().is_some())
        });
        assert_eq!(seen.now_or_never(), Some((false, true)));
    }
}
