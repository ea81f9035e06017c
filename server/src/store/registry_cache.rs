//! The registry entries of an organization as they were last read, while SQLite is the database: then
//! this process holds the data folder and is the only writer, and every write to an entry comes by
//! here. (`purser-server reencrypt` beside it changes only how passwords are sealed; this process opens
//! the earlier sealing as long as it lives.)
//!
//! With PostgreSQL other replicas write too, and nothing is kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::Entries;

/// Organizations that are kept; beyond it all are forgotten at once.
const MAX_ORGANIZATIONS: usize = 1_000;

/// What is kept, and how often it was forgotten.
#[derive(Debug, Default)]
pub(super) struct RegistryCache {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    generation: u64,
    entries: HashMap<String, Arc<Entries>>,
}

impl RegistryCache {
    /// What is kept of an organization, or the generation under which it may be kept once it is read.
    pub(super) fn get(&self, organization: &str) -> Result<Arc<Entries>, u64> {
        let state = self.lock();
        state.entries.get(organization).cloned().ok_or(state.generation)
    }

    /// Keeps what was read, unless something was written since `generation`.
    pub(super) fn keep(&self, organization: &str, generation: u64, rows: &Arc<Entries>) {
        let mut state = self.lock();
        if state.generation == generation {
            if state.entries.len() >= MAX_ORGANIZATIONS {
                state.entries.clear();
            }
            state.entries.insert(organization.to_owned(), Arc::clone(rows));
        }
    }

    /// Forgets everything. Called after each commit, before its caller is answered.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        state.generation += 1;
        state.entries.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change leaves the state whole, so a panic elsewhere does not matter here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read() -> Arc<Entries> {
        Arc::new(vec![crate::store::RegistryRow::of_host("ghcr.io")].into())
    }

    #[test]
    fn what_was_read_before_a_write_is_not_kept_after_it() {
        let cache = RegistryCache::default();
        let Err(generation) = cache.get("org") else { panic!("nothing was read yet") };
        cache.forget();
        cache.keep("org", generation, &read());
        assert!(cache.get("org").is_err());
    }

    #[test]
    fn a_write_forgets_what_was_kept() {
        let cache = RegistryCache::default();
        let Err(generation) = cache.get("org") else { panic!("nothing was read yet") };
        cache.keep("org", generation, &read());
        assert!(cache.get("org").is_ok());
        cache.forget();
        assert!(cache.get("org").is_err());
    }
}
