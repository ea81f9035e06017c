//! How many subscriptions keys hold at once, over all doors: each costs memory, a task, and mostly a connection.
//!
//! It is counted in memory, as rate limits are: several control planes count each for itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use purser_proto_schema::ids::ApiKeyId;

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
    by_key: HashMap<ApiKeyId, usize>,
}

/// A subscription's place, given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    key: ApiKeyId,
    of: Subscribers,
}

impl Subscribers {
    /// None yet, in a process that may have so many files open: a quarter of them at most are for these.
    pub fn within(open_files: usize) -> Self {
        let of_all = (open_files / 4).clamp(1, OF_ALL);
        Self { held: Arc::default(), of_all }
    }

    /// A place for one more of a key.
    ///
    /// # Errors
    /// [`Error::TooManySubscriptions`], with the bound that is met.
    pub fn place(&self, key: &ApiKeyId) -> Result<Place> {
        let mut held = self.lock();
        if held.by_key.get(key).is_some_and(|count| *count >= OF_A_KEY) {
            return Err(Error::TooManySubscriptions { holder: "this API key", most: OF_A_KEY });
        }
        if held.all >= self.of_all {
            return Err(Error::TooManySubscriptions { holder: "this control plane", most: self.of_all });
        }
        held.all += 1;
        *held.by_key.entry(key.clone()).or_default() += 1;
        Ok(Place { key: key.clone(), of: self.clone() })
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
        if let Some(count) = held.by_key.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                held.by_key.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_full(subscribers: &Subscribers, key: &ApiKeyId, of: &str) -> bool {
        matches!(subscribers.place(key), Err(Error::TooManySubscriptions { holder, .. }) if holder == of)
    }

    #[test]
    fn a_key_has_its_places_and_takes_nobody_elses() {
        let subscribers = Subscribers::within(4 * (OF_A_KEY + 10));
        let (one, other) = (ApiKeyId::generate(), ApiKeyId::generate());
        let mut ones: Vec<_> = (0..OF_A_KEY).map(|_| subscribers.place(&one).unwrap()).collect();
        assert!(is_full(&subscribers, &one, "this API key"));
        let others: Vec<_> = (0..10).map(|_| subscribers.place(&other).unwrap()).collect();
        assert!(is_full(&subscribers, &other, "this control plane"));
        ones.pop();
        drop(subscribers.place(&other).unwrap());
        ones.push(subscribers.place(&one).unwrap());
        drop((ones, others));
        let held = subscribers.lock();
        assert!(held.all == 0 && held.by_key.is_empty(), "{held:?}");
    }

    #[test]
    fn some_are_let_in_whatever_the_limit_of_open_files() {
        assert_eq!(Subscribers::within(0).of_all, 1);
        assert_eq!(Subscribers::within(1024).of_all, 256);
        assert_eq!(Subscribers::within(usize::MAX).of_all, OF_ALL);
    }
}
