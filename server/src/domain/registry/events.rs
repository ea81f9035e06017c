//! `registry.events`: what happens to the organization's entries, each change once and in order.
//!
//! The database is the queue: a reader has the number of the event that it was told last, and reads on from
//! there when it is woken. One that comes back with a number misses nothing, whichever control plane it comes
//! to, as long as the store keeps what came after.

use std::{collections::VecDeque, future::pending, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use purser_proto_schema::{
    ids::EventId,
    registry::{EventsInput, RegistryEvent},
};
use tokio::{sync::watch, time::sleep};

use crate::{
    app::App,
    domain::{
        caller::Call,
        tracked::{Begun, Tracked},
    },
    error::{Error, Result},
    store::RegistryEventRow,
};

/// Events that are read at once, and the most that wait in memory for a reader.
const PAGE: u64 = 100;
/// How often a reader looks without a sign, where other control planes write, too: a connection to the
/// database can be dead for long before that is noticed.
const SLOW_POLL: Duration = Duration::from_secs(10);

/// `registry.events`: what comes after `lastEventId`, or from now on.
pub async fn events(app: Arc<App>, call: Arc<Call>, input: EventsInput) -> Result<Begun<RegistryEvent>> {
    // Before anything is read, so that no event is missed.
    let to_come = app.store.registry_events_to_come(call.organization());
    let number = match &input.last_event_id {
        Some(id) => number(id)?,
        None => app.store.registry_events_newest(call.organization()).await?,
    };
    let mut reader = Reader { app, call, to_come, number, page: VecDeque::new(), ended: false };
    // Whoever cannot go on is told so at once.
    reader.read().await?;
    Ok(Begun { since: Some(number.to_string()), events: stream::unfold(reader, Reader::next).boxed() })
}

/// An id as it was told: a number of the organization's.
fn number(id: &EventId) -> Result<i64> {
    let digits = Some(id.as_str()).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| Error::field("lastEventId", "must be the id of an event of registry.events"))
}

struct Reader {
    app: Arc<App>,
    call: Arc<Call>,
    to_come: watch::Receiver<()>,
    /// Of the event that was read last.
    number: i64,
    /// Read and not told yet.
    page: VecDeque<RegistryEventRow>,
    ended: bool,
}

impl Reader {
    async fn next(mut self) -> Option<(Result<Tracked<RegistryEvent>>, Self)> {
        if self.ended {
            return None;
        }
        let dispatch = self.app.dispatch.clone();
        let told = tokio::select! {
            biased;
            () = dispatch.stopping() => return None,
            told = self.tell() => told,
        };
        self.ended = told.is_err();
        Some((told, self))
    }

    async fn tell(&mut self) -> Result<Tracked<RegistryEvent>> {
        loop {
            if let Some(row) = self.page.pop_front() {
                let data =
                    RegistryEvent { change: row.change()?, registry_id: row.registry(), at: row.at.into() };
                return Ok(Tracked { id: row.number.to_string(), data });
            }
            // A full page may not be the last.
            if self.read().await? == 0 {
                self.sign().await;
            }
        }
    }

    /// Reads on; gives how many events there were.
    async fn read(&mut self) -> Result<usize> {
        let store = &self.app.store;
        let page = store.registry_events_after(self.call.organization(), self.number, PAGE).await?;
        self.page.extend(page.ok_or(Error::Precondition(
            "what came after this lastEventId is not kept: read registry.all, and subscribe without it",
        ))?);
        self.number = self.page.back().map_or(self.number, |row| row.number);
        Ok(self.page.len())
    }

    /// Waits until there may be more to read.
    async fn sign(&mut self) {
        let poll =
            async { if self.app.store.is_shared() { sleep(SLOW_POLL).await } else { pending().await } };
        tokio::select! {
            // The other end is kept as long as this one is.
            _ = self.to_come.changed() => {}
            () = poll => tracing::debug!("registry events are looked for without a word"),
        }
    }
}
