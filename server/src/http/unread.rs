//! Answers that have been made and not been read: of a key and of an organization together, whatever they were asked by.
//!
//! An answer is in memory until the system has taken all of it for its caller. One that reads nothing is cut off after a
//! while, and until then each of its connections holds one, each of its WebSockets many. So who has too much of that is
//! not served before some of it has been read. It is looked at before a call and not after it, so that none is made
//! whose answer is then withheld: those under way then go beyond it.
//!
//! What a subscription tells and the pages of an export are not counted: of each there is one in memory for each
//! connection, or for each subscription.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::body::Bytes;
use purser_proto_schema::ids::{ApiKeyId, OrganizationId};

use crate::{
    domain::caller::Caller,
    error::{Error, Result},
};

/// The most of one key, in bytes; and of all who show none.
const OF_A_KEY: usize = 8 * 1024 * 1024;
/// The most of one organization, in bytes.
const OF_AN_ORGANIZATION: usize = 32 * 1024 * 1024;
/// Shorter answers are not counted on connections that hold one at a time.
const COUNTED: usize = 4 * 1024;

/// Who has how much. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Unread(Arc<Counted>);

#[derive(Default)]
struct Counted {
    /// A look at this spares most calls the lock.
    all: AtomicUsize,
    by_holder: Mutex<HashMap<Holder, usize>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Holder {
    /// Of a key; `None` where none is shown.
    Key(Option<ApiKeyId>),
    Organization(OrganizationId),
}

/// An answer's text, counted until it is dropped.
struct Answer {
    text: String,
    _held: Held,
}

/// Bytes that are counted until this is dropped.
pub(super) struct Held {
    bytes: AtomicUsize,
    holders: Vec<Holder>,
    of: Unread,
}

impl Unread {
    /// Whether a caller, or one that shows no key, may make a call.
    ///
    /// # Errors
    /// [`Error::TooMuchUnread`].
    pub(super) fn room_for(&self, caller: Option<&Caller>) -> Result<()> {
        if self.0.all.load(Ordering::Relaxed) < OF_A_KEY {
            return Ok(());
        }
        let counted = self.lock();
        let is_full = |holder: &&Holder| counted.get(holder).is_some_and(|held| *held >= holder.most());
        match holders(caller).iter().find(is_full) {
            Some(full) => Err(Error::TooMuchUnread { of: full.word(), mib: full.most() / 1024 / 1024 }),
            None => Ok(()),
        }
    }

    /// An answer that is its connection's only one.
    pub(super) fn hold(&self, caller: Option<&Caller>, text: String) -> Bytes {
        if text.len() < COUNTED { text.into() } else { self.hold_any(caller, text) }
    }

    /// An answer of any length.
    pub(super) fn hold_any(&self, caller: Option<&Caller>, text: String) -> Bytes {
        let held = self.nothing(caller);
        held.more(text.capacity());
        Bytes::from_owner(Answer { text, _held: held })
    }

    /// For what is still being gathered.
    pub(super) fn nothing(&self, caller: Option<&Caller>) -> Held {
        Held { bytes: AtomicUsize::new(0), holders: holders(caller), of: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Holder, usize>> {
        // Every change leaves the numbers whole, so a panic elsewhere does not matter here.
        self.0.by_holder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder {
    fn most(&self) -> usize {
        match self {
            Self::Key(_) => OF_A_KEY,
            Self::Organization(_) => OF_AN_ORGANIZATION,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Key(_) => "API key",
            Self::Organization(_) => "organization",
        }
    }
}

fn holders(caller: Option<&Caller>) -> Vec<Holder> {
    let key = Holder::Key(caller.map(|caller| caller.api_key_id.clone()));
    let organization = caller.map(|caller| Holder::Organization(caller.organization_id.clone()));
    std::iter::once(key).chain(organization).collect()
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl Held {
    /// Counts so many more.
    pub(super) fn more(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.of.0.all.fetch_add(bytes, Ordering::Relaxed);
        let mut counted = self.of.lock();
        for holder in &self.holders {
            *counted.entry(holder.clone()).or_default() += bytes;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        if bytes == 0 {
            return;
        }
        self.of.0.all.fetch_sub(bytes, Ordering::Relaxed);
        let mut counted = self.of.lock();
        for holder in &self.holders {
            if let Some(held) = counted.get_mut(holder) {
                *held -= bytes;
                if *held == 0 {
                    counted.remove(holder);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_nothing_is_not_served_and_others_are() {
        let unread = Unread::default();
        let organization = OrganizationId::generate();
        let of =
            |organization: &OrganizationId| Caller::of_a_test(ApiKeyId::generate(), organization.clone());
        let (keys, other) = ([(); 5].map(|()| of(&organization)), of(&OrganizationId::generate()));
        let answer = || "x".repeat(OF_A_KEY / 4);
        let served = |caller: &Caller| unread.room_for(Some(caller)).is_ok();
        let mut held = Vec::new();
        for _ in 0..4 {
            assert!(served(&keys[0]));
            held.push(unread.hold(Some(&keys[0]), answer()));
        }
        assert!(!served(&keys[0]) && served(&keys[1]) && served(&other) && unread.room_for(None).is_ok());
        assert!(served(&keys[4]));
        for key in &keys[1..4] {
            held.extend((0..4).map(|_| unread.hold(Some(key), answer())));
        }
        assert!(!served(&keys[4]) && served(&other));
        // A part of an answer is all of it.
        let part = held.remove(0).slice(5..6);
        assert!(!served(&keys[0]));
        drop(part);
        assert!(served(&keys[0]) && !served(&keys[1]) && served(&keys[4]));
        held.extend((0..4).map(|_| unread.hold(None, answer())));
        assert!(unread.room_for(None).is_err() && served(&other));
        let gathered = unread.nothing(Some(&other));
        gathered.more(OF_A_KEY - 1);
        assert!(served(&other));
        gathered.more(1);
        assert!(!served(&other));
        drop((gathered, held));
        assert!(unread.lock().is_empty() && unread.0.all.load(Ordering::Relaxed) == 0);
    }
}
