//! A bounded number of places for those who dial: to be in a handshake, of which there are enough for a whole
//! fleet, and to send more in it than anyone may.
//!
//! Anyone can dial and then say nothing, so a place is no property: where all are taken, whoever has left its
//! proof owing the longest goes for the one who comes. An agent proves its key within a round trip or two; a
//! crowd of strangers displaces itself. Who has proved a key may keep its place.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::sync::oneshot;

/// The places, and who is in them.
pub struct WaitingRoom {
    places: usize,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    taken: usize,
    last: u64,
    /// Those that owe their proof, oldest first: how to send them away.
    owing: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A place, until this is dropped.
pub struct Place {
    room: Arc<WaitingRoom>,
    number: u64,
    displaced: oneshot::Receiver<()>,
    /// Whether its key is proven.
    kept: bool,
}

impl WaitingRoom {
    pub fn new(places: usize) -> Self {
        Self { places, inside: Mutex::default() }
    }

    /// Takes a place, if need be of whoever has owed its proof the longest. `None` where all are taken by those
    /// that have proved a key.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut inside = self.lock();
        if inside.taken < self.places {
            inside.taken += 1;
        } else {
            let (_, displace) = inside.owing.pop_first()?;
            // Where it has just gone by itself, its place is free all the same.
            let _ = displace.send(());
        }
        inside.last += 1;
        let number = inside.last;
        let (displace, displaced) = oneshot::channel();
        inside.owing.insert(number, displace);
        Some(Place { room: Arc::clone(self), number, displaced, kept: false })
    }

    /// How many have proved a key, and are about to be agents.
    pub fn proven(&self) -> usize {
        let inside = self.lock();
        inside.taken - inside.owing.len()
    }

    /// Every change leaves what is inside whole, so a panic elsewhere does not matter here.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until the place is somebody else's.
    pub async fn displaced(&mut self) {
        poll_fn(|context| self.poll_displaced(context)).await;
    }

    /// Ready when the place is somebody else's.
    pub fn poll_displaced(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.kept {
            return Poll::Pending;
        }
        // Its other end is in the room until then.
        Pin::new(&mut self.displaced).poll(context).map(|_| ())
    }

    /// Keeps the place from now on: the key is proven. False where it is somebody else's already.
    pub fn keep(&mut self) -> bool {
        self.kept = self.room.lock().owing.remove(&self.number).is_some();
        self.kept
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.room.lock();
        // One that was displaced is in neither: its place is taken still.
        if inside.owing.remove(&self.number).is_some() || self.kept {
            inside.taken -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn room(places: usize) -> Arc<WaitingRoom> {
        Arc::new(WaitingRoom::new(places))
    }

    #[test]
    fn who_owes_its_proof_the_longest_goes_for_who_comes() {
        let room = room(3);
        let mut known = room.enter().unwrap();
        assert!(known.keep());
        let mut silent: Vec<_> = (0..2).map(|_| room.enter().unwrap()).collect();
        assert!(silent.iter_mut().all(|place| place.displaced().now_or_never().is_none()));
        assert_eq!(room.proven(), 1);
        let mut next = room.enter().unwrap();
        assert!(silent[0].displaced().now_or_never().is_some());
        assert!(!silent[0].keep(), "it has no place any more");
        assert!(silent[1].displaced().now_or_never().is_none());
        assert!(known.displaced().now_or_never().is_none());
        assert!(next.keep());
    }

    #[test]
    fn who_has_proved_a_key_is_displaced_by_nobody() {
        let room = room(2);
        let mut known: Vec<_> = (0..2).map(|_| room.enter().unwrap()).collect();
        assert!(known.iter_mut().all(Place::keep));
        assert!(room.enter().is_none());
        known.pop();
        assert!(room.enter().is_some());
    }

    #[test]
    fn there_are_never_more_places_nor_fewer() {
        let room = room(2);
        for _ in 0..10 {
            let places: Vec<_> = (0..5).map(|_| room.enter().unwrap()).collect();
            assert_eq!(room.lock().taken, 2);
            drop(places);
            assert_eq!(room.lock().taken, 0);
            assert!(room.lock().owing.is_empty());
        }
    }
}
