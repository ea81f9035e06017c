//! Places that each holder has of its own, in memory: whoever wants more than those waits behind its own, and keeps none
//! of anybody else's.

use std::{
    collections::HashMap,
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::Semaphore;

/// So many places of each holder. Clones share them.
#[derive(Clone, Debug)]
pub struct Shares<K> {
    most: usize,
    /// Of holders that have places, or wait for one.
    held: Arc<Mutex<HashMap<K, Weak<Semaphore>>>>,
}

impl<K: Clone + Debug + Eq + Hash> Shares<K> {
    /// At least one place each.
    pub fn of(most: usize) -> Self {
        Self { most: most.max(1), held: Arc::default() }
    }

    /// The places of a holder. Permits keep it, and so does who waits for one.
    pub fn share(&self, holder: &K) -> Arc<Semaphore> {
        // Every change leaves the map whole, so a panic elsewhere does not matter here.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = held.get(holder).and_then(Weak::upgrade) {
            return share;
        }
        held.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.most));
        held.insert(holder.clone(), Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_has_its_places_and_is_forgotten_without_any() {
        let shares = Shares::of(1);
        let one = shares.share(&"one").try_acquire_owned().unwrap();
        assert!(shares.share(&"one").try_acquire_owned().is_err());
        let other = shares.share(&"other").try_acquire_owned().unwrap();
        drop(one);
        let again = shares.share(&"one").try_acquire_owned();
        drop((other, again));
        drop(shares.share(&"third"));
        assert_eq!(shares.held.lock().unwrap().len(), 1, "only the third");
    }
}
