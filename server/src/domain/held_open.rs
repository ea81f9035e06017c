//! What keys hold open, such as a WebSocket or a stream of events: it ends when its key stops being valid.
//!
//! At once where the key is removed on this control plane or its time is over; where it was removed on
//! another, within [`LOOK`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use purser_proto_schema::ids::ApiKeyId;
use tokio_util::sync::CancellationToken;

use super::caller::Caller;
use crate::{error::chain, store::Store};

/// How often the database is asked which keys were removed elsewhere.
const LOOK: Duration = Duration::from_secs(8);
/// Keys that are asked for by one statement.
const AT_ONCE: usize = 1_000;
/// The longest single wait for an expiry; a timer cannot be set for any time to come.
const LONG: Duration = Duration::from_secs(60 * 60);

/// What is open, by key. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct HeldOpen(Arc<Mutex<HashMap<ApiKeyId, Held>>>);

#[derive(Debug, Default)]
struct Held {
    count: usize,
    ended: CancellationToken,
}

/// Something open, until this is dropped.
#[derive(Debug)]
pub struct Open {
    by: Arc<Caller>,
    ended: CancellationToken,
    all: HeldOpen,
}

impl HeldOpen {
    /// Notes that a caller holds something open.
    pub fn open(&self, by: &Arc<Caller>) -> Open {
        let mut held = self.lock();
        let of_key = held.entry(by.api_key_id.clone()).or_default();
        of_key.count += 1;
        Open { by: Arc::clone(by), ended: of_key.ended.clone(), all: self.clone() }
    }

    /// Ends what a key holds open.
    pub fn end(&self, key: &ApiKeyId) {
        if let Some(held) = self.lock().get(key) {
            held.ended.cancel();
        }
    }

    /// Ends what keys hold open that were removed elsewhere, until `stop`.
    pub async fn watch(self, store: Store, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            let keys: Vec<ApiKeyId> = self.lock().keys().cloned().collect();
            for keys in keys.chunks(AT_ONCE) {
                match store.api_keys_ended(keys).await {
                    Ok(ended) => ended.iter().for_each(|key| self.end(key)),
                    Err(error) => {
                        tracing::error!(error = %chain(&error), "the keys of open sockets could not be looked at");
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ApiKeyId, Held>> {
        // Every change leaves the table whole, so a panic elsewhere does not matter here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Waits until the key is not valid any more.
    pub async fn ended(&self) {
        tokio::select! {
            () = self.ended.cancelled() => {}
            () = expired(self.by.expires_at()) => {}
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut held = self.all.lock();
        let Some(of_key) = held.get_mut(&self.by.api_key_id) else { return };
        of_key.count -= 1;
        if of_key.count == 0 {
            held.remove(&self.by.api_key_id);
        }
    }
}

async fn expired(at: Option<DateTime<Utc>>) {
    let Some(at) = at else { return std::future::pending().await };
    // Again and again, since the wall clock may be set.
    while let Ok(left) = (at - Utc::now()).to_std()
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(LONG)).await;
    }
}
