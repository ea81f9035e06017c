//! Rows, or all of an organization together, as they were last read or written, while SQLite is the
//! database: then this process holds the data folder and is the only writer, and every write to such a row
//! comes by here. (`purser-server reencrypt` beside it changes only how passwords are sealed; this process
//! opens the earlier sealing as long as it lives.) With PostgreSQL other replicas write too, and nothing is
//! kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Rows that are kept; beyond it all are forgotten at once.
const MAX_ROWS: usize = 1_000;

/// What is kept, and how often something was written.
#[derive(Debug)]
pub(super) struct RowCache<Row> {
    state: Mutex<State<Row>>,
}

#[derive(Debug)]
struct State<Row> {
    generation: u64,
    rows: HashMap<String, Arc<Row>>,
}

/// The state of a cache before something was read or written. What comes of that is kept only if
/// nothing else was written meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Generation(u64);

impl<Row> Default for RowCache<Row> {
    fn default() -> Self {
        Self { state: Mutex::new(State { generation: 0, rows: HashMap::new() }) }
    }
}

impl<Row> RowCache<Row> {
    /// The row with this id.
    pub(super) fn get(&self, id: &str) -> Option<Arc<Row>> {
        self.lock().rows.get(id).cloned()
    }

    /// To be taken before a row is read or written.
    pub(super) fn generation(&self) -> Generation {
        Generation(self.lock().generation)
    }

    /// Keeps a row that was read.
    pub(super) fn keep(&self, id: &str, before: Generation, row: &Arc<Row>) {
        self.lock().keep(id, before, row);
    }

    /// Keeps a row as it was just written, and the others as they are.
    pub(super) fn renew(&self, id: &str, before: Generation, row: &Arc<Row>) {
        let mut state = self.lock();
        state.rows.remove(id);
        state.keep(id, before, row);
        state.generation += 1;
    }

    /// Forgets everything. Called after each other write, before its caller is answered.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        state.generation += 1;
        state.rows.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State<Row>> {
        // Every change leaves the state whole, so a panic elsewhere does not matter here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Row> State<Row> {
    fn keep(&mut self, id: &str, before: Generation, row: &Arc<Row>) {
        if self.generation != before.0 {
            return;
        }
        if self.rows.len() >= MAX_ROWS {
            self.rows.clear();
        }
        self.rows.insert(id.to_owned(), Arc::clone(row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_a_write_is_not_kept_after_it() {
        let cache = RowCache::default();
        let before = cache.generation();
        cache.forget();
        cache.keep("a", before, &Arc::new(1));
        assert!(cache.get("a").is_none());
        let before = cache.generation();
        cache.renew("b", before, &Arc::new(2));
        cache.keep("a", before, &Arc::new(1));
        assert!(cache.get("a").is_none());
    }

    #[test]
    fn of_two_writes_at_once_neither_is_kept_as_the_last() {
        let cache = RowCache::default();
        let (first, second) = (cache.generation(), cache.generation());
        cache.renew("a", second, &Arc::new(2));
        cache.renew("a", first, &Arc::new(1));
        assert!(cache.get("a").is_none());
    }

    #[test]
    fn a_write_keeps_the_other_rows() {
        let cache = RowCache::default();
        cache.keep("a", cache.generation(), &Arc::new(1));
        cache.renew("b", cache.generation(), &Arc::new(2));
        assert_eq!(cache.get("a").as_deref(), Some(&1));
        assert_eq!(cache.get("b").as_deref(), Some(&2));
        cache.forget();
        assert!(cache.get("a").is_none());
    }
}
