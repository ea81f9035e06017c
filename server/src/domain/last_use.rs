//! When each key was last used: noted at most once a minute per key, and never on the way of a call.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use purser_proto_schema::ids::ApiKeyId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{error::chain, store::Store};

/// How far apart two notes of one key are at least.
const APART: TimeDelta = TimeDelta::minutes(1);
/// Notes that may wait for the database. What finds no place is noted by a later use.
const WAITING: usize = 1_024;
/// How long to leave a database alone that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// When a use of one key was last noted, in milliseconds since 1970.
#[derive(Debug)]
pub struct Noted(AtomicI64);

impl Noted {
    /// As the database has it.
    pub fn at(last: Option<DateTime<Utc>>) -> Self {
        Self(AtomicI64::new(last.map_or(i64::MIN, |at| at.timestamp_millis())))
    }

    /// The time that stood before, for the one of several callers that is to note `now`.
    fn take_turn(&self, now: i64) -> Option<i64> {
        let before = self.0.load(Ordering::Relaxed);
        if now.saturating_sub(before) < APART.num_milliseconds() {
            return None;
        }
        self.0.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).ok()
    }
}

/// A use that is to be noted.
#[derive(Debug)]
pub struct Use {
    api_key_id: ApiKeyId,
    at: DateTime<Utc>,
}

/// Where uses are told.
#[derive(Debug)]
pub struct Uses(mpsc::Sender<Use>);

impl Uses {
    /// Where uses are told, and what [`write`] reads.
    pub fn channel() -> (Self, mpsc::Receiver<Use>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Tells of a use, if one is due.
    pub fn tell(&self, api_key_id: &ApiKeyId, noted: &Noted) {
        let at = Utc::now();
        let Some(before) = noted.take_turn(at.timestamp_millis()) else { return };
        if self.0.try_send(Use { api_key_id: api_key_id.clone(), at }).is_err() {
            noted.0.store(before, Ordering::Relaxed);
        }
    }
}

/// Writes what is told, until `stop`.
pub async fn write(store: Store, mut told: mpsc::Receiver<Use>, stop: CancellationToken) {
    while let Some(Some(used)) = stop.run_until_cancelled(told.recv()).await {
        // Other replicas, and look-ups that went on side by side, may have noted one meanwhile.
        if let Err(error) = store.api_key_used(&used.api_key_id, used.at, APART).await {
            tracing::error!(key = %used.api_key_id, error = %chain(&error), "a key's last use could not be noted");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_noted_once_a_minute_however_often_it_is_used() {
        let (uses, mut told) = Uses::channel();
        let id = ApiKeyId::generate();
        let noted = Noted::at(None);
        for _ in 0..1_000 {
            uses.tell(&id, &noted);
        }
        assert!(told.try_recv().is_ok() && told.try_recv().is_err());
        uses.tell(&id, &Noted::at(Some(Utc::now() - TimeDelta::seconds(59))));
        assert!(told.try_recv().is_err());
        uses.tell(&id, &Noted::at(Some(Utc::now() - TimeDelta::seconds(61))));
        assert!(told.try_recv().is_ok());
    }

    #[test]
    fn what_finds_no_place_is_told_by_a_later_use() {
        let (uses, mut told) = Uses::channel();
        let (id, last) = (ApiKeyId::generate(), Noted::at(None));
        for _ in 0..WAITING {
            uses.tell(&id, &Noted::at(None));
        }
        uses.tell(&id, &last);
        while told.try_recv().is_ok() {}
        uses.tell(&id, &last);
        assert!(told.try_recv().is_ok());
    }
}
