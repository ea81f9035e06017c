//! What goes beside a call in process, in its extensions.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::Answer;
use crate::domain::large_inputs::Place;

/// Where a method finds the place of its input and leaves its answer. The caller is spared JSON-RPC's envelope, which
/// jsonrpsee reads twice: once to vouch for it, once to take the answer out.
#[derive(Clone, Debug, Default)]
pub struct Aside(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    answer: OnceLock<Answer>,
    place: Mutex<Option<Arc<Place>>>,
    is_counted: bool,
    goes_on: bool,
}

impl Aside {
    /// For a call whose input has a place, where it needs one, and which may have been counted against its key's limit.
    pub fn with_place(place: Option<Arc<Place>>, is_counted: bool) -> Self {
        Self(Arc::new(Inner { place: Mutex::new(place), is_counted, ..Inner::default() }))
    }

    /// For what goes on with a call that has been counted.
    pub fn going_on() -> Self {
        Self(Arc::new(Inner { is_counted: true, goes_on: true, ..Inner::default() }))
    }

    /// The answer of a method that has ended.
    pub fn take_answer(self) -> Option<Answer> {
        Arc::try_unwrap(self.0)
            .map_or_else(|shared| shared.answer.get().cloned(), |own| own.answer.into_inner())
    }

    pub(super) fn is_counted(&self) -> bool {
        self.0.is_counted
    }

    pub(super) fn goes_on(&self) -> bool {
        self.0.goes_on
    }

    pub(super) fn take_place(&self) -> Option<Arc<Place>> {
        self.0.place.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Once, by the method.
    pub(super) fn answer(&self, answer: Answer) {
        let _ = self.0.answer.set(answer);
    }
}
