//! How many subscriptions are held at once, over all doors: each costs memory, a task, and mostly a connection. A key
//! has its bound, and an organization takes half of all at most, so that none ends what others live on.
//!
//! It is counted in memory, as rate limits are: several control planes count each for itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use purser_proto_schema::ids::{ApiKeyId, OrganizationId};

use super::caller::Caller;
use crate::error::{Error, Result};

/// The most of one key.
pub const OF_A_KEY: usize = 100;
/// The most of one process, however many files it may have open.
const OF_ALL: usize = 10_000;

/// Who holds how many. Clones share it.
#[derive(Clone, Debug)]
pub struct Subscribers {
    held: Arc<Mutex<Held>>,
    of_all: usize,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by: HashMap<Holder, usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Key(ApiKeyId),
    Organization(OrganizationId),
}

/// A subscription's place, given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    holders: [Holder; 2],
    of: Subscribers,
}

impl Subscribers {
    /// None yet, in a process that may have so many files open: a quarter of them at most are for these.
    pub fn within(open_files: usize) -> Self {
        let of_all = (open_files / 4).clamp(1, OF_ALL);
        Self { held: Arc::default(), of_all }
    }

    /// A place for one more of a caller's.
    ///
    /// # Errors
    /// [`Error::TooManySubscriptions`], with the bound that is met.
    pub fn place(&self, caller: &Caller) -> Result<Place> {
        let full = |holder, most| Err(Error::TooManySubscriptions { holder, most });
        let key = Holder::Key(caller.api_key_id.clone());
        let organization = Holder::Organization(caller.organization_id.clone());
        let mut held = self.lock();
        let count = |holder| held.by.get(holder).copied().unwrap_or_default();
        if count(&key) >= OF_A_KEY {
            return full("this API key", OF_A_KEY);
        }
        if count(&organization) >= self.of_an_organization() {
            return full("this organization", self.of_an_organization());
        }
        if held.all >= self.of_all {
            return full("this control plane", self.of_all);
        }
        held.all += 1;
        let holders = [key, organization];
        for holder in &holders {
            *held.by.entry(holder.clone()).or_default() += 1;
        }
        Ok(Place { holders, of: self.clone() })
    }

    fn of_an_organization(&self) -> usize {
        self.of_all.div_ceil(2)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Every change leaves the numbers whole, so a panic elsewhere does not matter here.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.of.lock();
        held.all = held.all.saturating_sub(1);
        for holder in &self.holders {
            if let Some(count) = held.by.get_mut(holder) {
                *count -= 1;
                if *count == 0 {
                    held.by.remove(holder);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(organization: &OrganizationId) -> Caller {
        Caller::of_a_test(ApiKeyId::generate(), organization.clone())
    }

    fn is_full(subscribers: &Subscribers, caller: &Caller, of: &str) -> bool {
        matches!(subscribers.place(caller), Err(Error::TooManySubscriptions { holder, .. }) if holder == of)
    }

    #[test]
    fn a_key_and_an_organization_have_their_places_and_take_nobody_elses() {
        let half = OF_A_KEY + 10;
        let subscribers = Subscribers::within(4 * 2 * half);
        let organizations = [(); 3].map(|()| OrganizationId::generate());
        let [one, second] = [(); 2].map(|()| caller(&organizations[0]));
        let [other, third] = [1, 2].map(|at| caller(&organizations[at]));
        let mut ones: Vec<_> = (0..OF_A_KEY).map(|_| subscribers.place(&one).unwrap()).collect();
        assert!(is_full(&subscribers, &one, "this API key"));
        let seconds: Vec<_> = (OF_A_KEY..half).map(|_| subscribers.place(&second).unwrap()).collect();
        assert!(is_full(&subscribers, &second, "this organization"));
        let others: Vec<_> = (0..OF_A_KEY).map(|_| subscribers.place(&other).unwrap()).collect();
        let thirds: Vec<_> = (OF_A_KEY..half).map(|_| subscribers.place(&third).unwrap()).collect();
        assert!(is_full(&subscribers, &third, "this control plane"));
        ones.pop();
        drop(subscribers.place(&third).unwrap());
        ones.push(subscribers.place(&second).unwrap());
        drop((ones, seconds, others, thirds));
        let held = subscribers.lock();
        assert!(held.all == 0 && held.by.is_empty(), "{held:?}");
    }

    #[test]
    fn some_are_let_in_whatever_the_limit_of_open_files() {
        assert_eq!(Subscribers::within(0).of_all, 1);
        assert_eq!(Subscribers::within(1024).of_all, 256);
        assert_eq!(Subscribers::within(usize::MAX).of_all, OF_ALL);
    }
}
