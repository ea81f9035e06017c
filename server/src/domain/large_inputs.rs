//! How many large inputs are in memory at once: of a key, of an organization, of all callers together.
//!
//! A place of all is needed while an input is read from a caller and until it is taken apart, which does not wait for
//! anything. A place of its key and of its organization it keeps until nothing of it is left: the last call of a batch
//! has begun, and each call has ended or waits for a job, which keeps none of it
//! ([`job::answer`](super::job::answer)). So whoever makes calls that take long keeps others of its own organization
//! out, and nobody else; to keep all others out for as long as a body may take, four organizations must send slowly
//! together.
//!
//! It is counted in memory, as rate limits are: several control planes count each for itself.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use purser_proto_schema::ids::{ApiKeyId, OrganizationId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::caller::Caller;
use crate::error::{Error, Result};

/// The most of one key.
const OF_A_KEY: usize = 2;
/// The most of one organization.
const OF_AN_ORGANIZATION: usize = 4;
/// The most that are being read, of all: four organizations that do their worst leave nothing for a fifth, for as long
/// as a body may take.
const OF_ALL: usize = 16;

/// Who has how many. Clones share it.
#[derive(Clone)]
pub struct LargeInputs {
    reading: Arc<Semaphore>,
    shares: Shares,
}

type Shares = Arc<Mutex<HashMap<Holder, Share>>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Key(ApiKeyId),
    Organization(OrganizationId),
}

/// The places of one holder; forgotten when nobody has one or waits for one.
struct Share {
    places: Arc<Semaphore>,
    users: usize,
    /// Of these, how many came with an input that was whole already.
    wholes: usize,
}

/// Somebody who has a place of a share, or waits for one.
struct User {
    places: Arc<Semaphore>,
    whole: bool,
    /// How many such users the share had with this one.
    wholes: usize,
    holder: Holder,
    shares: Shares,
}

/// The places of one large input, given back when this is dropped.
pub struct Place {
    reading: Mutex<Option<OwnedSemaphorePermit>>,
    // Given back before it is looked whether the share is used any more.
    _permits: [OwnedSemaphorePermit; 2],
    _users: [User; 2],
}

impl Default for LargeInputs {
    fn default() -> Self {
        Self { reading: Arc::new(Semaphore::new(OF_ALL)), shares: Shares::default() }
    }
}

impl LargeInputs {
    /// Waits for the places of one more of a caller's. Where it is whole in memory meanwhile, `queue` is how many of
    /// its organization's that are may be beyond those that have a place; else it is said at once that they are too
    /// many. It is for the caller of this to lose patience.
    ///
    /// # Errors
    /// [`Error::TooManyLargeInputs`].
    pub async fn place(&self, caller: &Caller, queue: Option<usize>) -> Result<Place> {
        let key = self.user(Holder::Key(caller.api_key_id.clone()), OF_A_KEY, queue.is_some());
        let organization = self.user(
            Holder::Organization(caller.organization_id.clone()),
            OF_AN_ORGANIZATION,
            queue.is_some(),
        );
        if queue.is_some_and(|queue| organization.wholes > OF_AN_ORGANIZATION + queue) {
            return Err(Error::TooManyLargeInputs);
        }
        // In this order nobody waits in one queue and keeps more of another from its followers than its own share.
        let of_key = take(&key.places).await?;
        let of_organization = take(&organization.places).await?;
        let reading = take(&self.reading).await?;
        Ok(Place {
            reading: Mutex::new(Some(reading)),
            _permits: [of_key, of_organization],
            _users: [key, organization],
        })
    }

    /// A place of somebody.
    #[cfg(test)]
    pub async fn place_of_a_test(&self) -> Place {
        let caller = Caller::of_a_test(ApiKeyId::generate(), OrganizationId::generate());
        self.place(&caller, None).await.unwrap_or_else(|error| panic!("{error}"))
    }

    fn user(&self, holder: Holder, most: usize, whole: bool) -> User {
        let mut shares = lock(&self.shares);
        let new = || Share { places: Arc::new(Semaphore::new(most)), users: 0, wholes: 0 };
        let share = shares.entry(holder.clone()).or_insert_with(new);
        share.users += 1;
        share.wholes += usize::from(whole);
        let (places, wholes) = (Arc::clone(&share.places), share.wholes);
        User { places, whole, wholes, holder, shares: Arc::clone(&self.shares) }
    }
}

impl Place {
    /// Gives back what is needed only until the input has been read and taken apart.
    pub fn has_been_read(&self) {
        drop(lock(&self.reading).take());
    }

    /// Whether nobody said so yet.
    #[cfg(test)]
    pub fn is_being_read(&self) -> bool {
        lock(&self.reading).is_some()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut shares = lock(&self.shares);
        if let Some(share) = shares.get_mut(&self.holder) {
            share.users -= 1;
            share.wholes -= usize::from(self.whole);
            if share.users == 0 {
                shares.remove(&self.holder);
            }
        }
    }
}

async fn take(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    // None of them is ever closed.
    Arc::clone(places).acquire_owned().await.map_err(Error::internal("waiting for a large input's turn"))
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change leaves them whole, so a panic elsewhere does not matter here.
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn place(inputs: &LargeInputs, caller: &Caller) -> Option<Place> {
        inputs.place(caller, None).now_or_never().map(Result::unwrap)
    }

    /// Two keys of each of so many organizations.
    fn callers(organizations: usize) -> Vec<[Caller; 2]> {
        let pair = |_| {
            let organization = OrganizationId::generate();
            [(); 2].map(|()| Caller::of_a_test(ApiKeyId::generate(), organization.clone()))
        };
        (0..organizations).map(pair).collect()
    }

    #[test]
    fn a_key_and_an_organization_have_their_places_and_take_nobody_elses() {
        let (inputs, callers) = (LargeInputs::default(), callers(2));
        let [[one, two], [other, _]] = callers.as_slice() else { unreachable!() };
        let mut held: Vec<_> = (0..OF_A_KEY).map(|_| place(&inputs, one).unwrap()).collect();
        assert!(place(&inputs, one).is_none());
        held.extend((OF_A_KEY..OF_AN_ORGANIZATION).map(|_| place(&inputs, two).unwrap()));
        let third = Caller::of_a_test(ApiKeyId::generate(), one.organization_id.clone());
        assert!(place(&inputs, &third).is_none());
        held.push(place(&inputs, other).unwrap());
        held.remove(0);
        held.push(place(&inputs, &third).unwrap());
        drop(held);
        assert!(lock(&inputs.shares).is_empty());
        assert_eq!(inputs.reading.available_permits(), OF_ALL);
    }

    #[test]
    fn what_has_been_read_keeps_nobody_else_from_being_read() {
        let (inputs, callers) = (LargeInputs::default(), callers(OF_ALL + 1));
        let mut keys = callers.iter().map(|[key, _]| key);
        let held: Vec<_> = keys.by_ref().take(OF_ALL).map(|key| place(&inputs, key).unwrap()).collect();
        let last = keys.next().unwrap();
        assert!(place(&inputs, last).is_none());
        held[0].has_been_read();
        held[0].has_been_read();
        let of_last = place(&inputs, last).unwrap();
        assert_eq!(inputs.reading.available_permits(), 0);
        drop((held, of_last));
        assert!(lock(&inputs.shares).is_empty());
    }

    #[test]
    fn a_queue_has_an_end_and_whoever_loses_patience_leaves_it() {
        let (inputs, callers) = (LargeInputs::default(), callers(1));
        let [key, _] = &callers[0];
        let held: Vec<_> = (0..OF_A_KEY).map(|_| place(&inputs, key).unwrap()).collect();
        // Those that are not whole take none of its places.
        let mut waiting: Vec<_> =
            (0..2 + OF_AN_ORGANIZATION).map(|_| Box::pin(inputs.place(key, Some(2)))).collect();
        assert!(waiting.iter_mut().all(|place| place.now_or_never().is_none()));
        let refused = inputs.place(key, Some(2)).now_or_never();
        assert!(matches!(refused, Some(Err(Error::TooManyLargeInputs))));
        waiting.pop();
        assert!(inputs.place(key, Some(2)).now_or_never().is_none());
        drop((waiting, held));
        assert!(lock(&inputs.shares).is_empty());
    }
}
