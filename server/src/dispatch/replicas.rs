//! The other control planes over the same PostgreSQL: who lives, and what is said among them.
//!
//! An agent is connected to one of them, and a call may arrive at another. Whatever is said here only
//! makes things quicker: it may be lost, and the polls find what it was about. With SQLite there is one
//! control plane, and nothing is said.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use purser_proto_schema::{
    agent::{calls::Attempt, close::CloseCode},
    ids::{JobId, ServerId},
};
use tokio::time::{MissedTickBehavior, interval, timeout};

pub(super) mod questions;
pub(super) mod telling;

use super::{Session, Shared, write};
use crate::{
    error::{Result, chain},
    store::{Fence, Heard, ServerRow, Signal},
};
use questions::Questions;
use telling::Outbox;

/// How often a control plane says that it lives. It is taken for dead after three times that.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// Before it is noted anew who holds a session, while the database is away.
const NOTED_AGAIN: Duration = Duration::from_secs(2);
/// Before listening is tried again while the database is away.
const DEAF: Duration = Duration::from_secs(2);

/// After what silence this control plane takes itself for deaf: it hears itself, too, as often as it says
/// that it lives.
const SILENCE: Duration = ALIVE_EVERY.saturating_mul(3);

/// Under which name a run of a control plane holds sessions.
#[derive(Clone, Debug)]
pub struct Name {
    /// Its own, of this run.
    pub own: String,
    /// That of the run before it in the same data folder, which is over.
    pub before: Option<String>,
}

impl Name {
    /// A name that nobody else has.
    pub fn new(before: Option<String>) -> Self {
        Self { own: uuid::Uuid::now_v7().simple().to_string(), before }
    }
}

/// This control plane among the others.
pub(super) struct Replicas {
    name: Name,
    living: RwLock<HashSet<String>>,
    outbox: Outbox,
    questions: Questions,
}

impl Replicas {
    pub(super) fn new(name: Name) -> Self {
        Self { name, living: RwLock::default(), outbox: Outbox::default(), questions: Questions::default() }
    }

    /// Under which name this control plane holds sessions.
    pub(super) fn own(&self) -> &str {
        &self.name.own
    }

    /// Whether no other control plane lives, as far as this one knows. One that has just started says so.
    fn is_alone(&self) -> bool {
        let living = self.living.read().unwrap_or_else(PoisonError::into_inner);
        living.iter().all(|name| *name == self.name.own)
    }

    /// Notes that another one lives, and maybe that it took the place of one before it.
    fn hear_of(&self, another: String, instead_of: Option<&String>) {
        let known = |living: &HashSet<String>| {
            living.contains(&another) && !instead_of.is_some_and(|before| living.contains(before))
        };
        if known(&self.living.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let mut living = write(&self.living);
        if let Some(before) = instead_of {
            living.remove(before);
        }
        living.insert(another);
    }

    /// Whether another living control plane holds the server's session.
    pub(super) fn another_holds(&self, server: &ServerRow) -> bool {
        let living = self.living.read().unwrap_or_else(PoisonError::into_inner);
        server.holder.as_ref().is_some_and(|holder| *holder != self.name.own && living.contains(holder))
    }
}

impl Shared {
    /// Notes that this control plane holds a session, and ends older ones elsewhere.
    pub(super) async fn hold(&self, fence: &Fence) -> Result<()> {
        if self.store.is_shared() {
            self.store.server_held(fence, Some(self.replicas.own())).await?;
            self.tell(Signal::Began { server_id: fence.server_id.clone(), epoch: fence.epoch });
        }
        Ok(())
    }

    /// Notes that this control plane does not hold a session any more.
    pub(super) async fn let_go(&self, fence: &Fence) -> Result<()> {
        if self.store.is_shared() { self.store.server_held(fence, None).await } else { Ok(()) }
    }

    /// Notes later whether this control plane holds a session, where that failed: the others would have its host
    /// offline, or online, for as long as nothing else changes.
    pub(super) fn note_later(self: &Arc<Self>, fence: Fence) {
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = shared.stop.cancelled() => return,
                    () = tokio::time::sleep(shared.at_the_fleets_pace(NOTED_AGAIN)) => {}
                }
                let is_held = shared.holds(&fence);
                let noted = if is_held { shared.hold(&fence).await } else { shared.let_go(&fence).await };
                // It may have ended meanwhile.
                if noted.is_ok() && shared.holds(&fence) == is_held {
                    return;
                }
            }
        });
    }

    fn holds(&self, fence: &Fence) -> bool {
        self.session(&fence.server_id).is_some_and(|session| session.fence.epoch == fence.epoch)
    }

    /// Keeps how far a target is, for watchers at other control planes: the newest, once a second. Only
    /// news: if it is lost, the next comes in a second.
    pub(super) fn keep_progress(self: &Arc<Self>, session: Arc<Session>, job: JobId, attempt: Attempt) {
        if !self.store.is_shared() {
            return;
        }
        let Some(after) = session.keep_progress_after(&attempt.target_id) else { return };
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::time::sleep(after).await;
            let Some(progress) = session.progress_to_keep(&attempt.target_id) else { return };
            let Ok(text) = serde_json::to_string(&progress) else { return };
            match shared.store.target_progress(&attempt, text).await {
                Ok(()) => shared.tell(Signal::Job { job_id: job }),
                Err(error) => tracing::warn!(%job, error = %chain(&error), "progress could not be kept"),
            }
        });
    }

    /// Does what another control plane says.
    fn heed(self: &Arc<Self>, from: String, signal: Signal) {
        let instead_of = match &signal {
            Signal::Alive { instead_of } => instead_of.as_ref(),
            _ => None,
        };
        self.replicas.hear_of(from, instead_of);
        match signal {
            Signal::Alive { .. } => {}
            Signal::All {} => self.look_everywhere(),
            Signal::Question { question_id, server_id } => self.answer(question_id, &server_id),
            Signal::Answer { question_id } => self.replicas.questions.answered(&question_id),
            Signal::Queue { server_id } => {
                if let Some(session) = self.session(&server_id) {
                    session.wake();
                }
            }
            Signal::Job { job_id } => self.watches.may_have_ended(&job_id, None),
            Signal::Stop { server_id, attempt } => self.stop(&server_id, attempt),
            Signal::Began { server_id, epoch } => {
                self.end_session(&server_id, Some(epoch), CloseCode::Superseded)
            }
            Signal::Removed { server_id } => self.end_session(&server_id, None, CloseCode::Removed),
            Signal::RegistryEvents { organization_id } => {
                self.store.registry_events_heard(Some(&organization_id))
            }
        }
    }

    /// Stops a target of a session that this control plane holds.
    fn stop(self: &Arc<Self>, server: &ServerId, attempt: Attempt) {
        if let Some(session) = self.session(server) {
            self.tasks.spawn(async move { session.cancel(attempt).await });
        }
    }

    /// Ends a server's session, if there is one here, and it is older than `newer`.
    pub(super) fn end_session(self: &Arc<Self>, server: &ServerId, newer: Option<i64>, why: CloseCode) {
        let over = {
            let mut sessions = write(&self.sessions);
            let is_over = |epoch: i64| newer.is_none_or(|newer| epoch < newer);
            match sessions.get(server) {
                Some(session) if is_over(session.fence.epoch) => sessions.remove(server),
                _ => None,
            }
        };
        if let Some(session) = over {
            // Not waited for: an agent that does not read must not hold anybody.
            self.tasks.spawn(async move { session.close(why).await });
        }
    }
}

/// Takes the place of the run before this one, whose sessions nobody holds any more, and learns who else
/// lives.
pub(super) async fn join(shared: &Shared) -> Result<()> {
    if let Some(before) = &shared.replicas.name.before {
        shared.store.replica_end(before).await?;
    }
    live_on(shared).await
}

/// Says in the database and by a word that this control plane lives, and learns who else does.
async fn live_on(shared: &Shared) -> Result<()> {
    let Replicas { name, living, outbox, .. } = &shared.replicas;
    *write(living) = shared.store.replica_live_on(&name.own).await?.into_iter().collect();
    // Also where it is alone: it listens to itself.
    outbox.put(Signal::Alive { instead_of: name.before.clone() });
    Ok(())
}

/// Says that this control plane lives, and learns who else does, until it stops.
pub(super) async fn live(shared: Arc<Shared>) {
    let mut ticks = interval(ALIVE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        if let Err(error) = live_on(&shared).await {
            tracing::error!(error = %chain(&error), "saying that this replica lives");
        }
    }
    if let Err(error) = shared.store.replica_end(shared.replicas.own()).await {
        tracing::warn!(error = %chain(&error), "saying that this replica has ended");
    }
}

/// Listens to the other control planes until this one stops.
pub(super) async fn listen(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = hear_all(&shared) => {}
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(DEAF) => {}
        }
    }
}

/// Listens as long as the database lets.
async fn hear_all(shared: &Arc<Shared>) {
    let mut ears = match shared.store.replica_ears(shared.replicas.own()).await {
        Ok(ears) => ears,
        Err(error) => {
            tracing::error!(error = %chain(&error), "listening to other replicas");
            return;
        }
    };
    shared.look_everywhere();
    loop {
        match timeout(SILENCE, ears.hear()).await {
            Ok(Ok(Heard::Signal { from, signal })) => shared.heed(from, signal),
            Ok(Ok(Heard::Echo)) => {}
            Ok(Ok(Heard::Gap)) => shared.look_everywhere(),
            Ok(Err(error)) => {
                tracing::error!(error = %chain(&error), "listening to other replicas");
                return;
            }
            // Its connection may be open at this end only.
            Err(_) => {
                tracing::warn!("this replica does not hear itself any more; listening anew");
                return;
            }
        }
    }
}

impl Shared {
    /// Something may have been said while nobody listened.
    fn look_everywhere(&self) {
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        sessions.values().for_each(|session| session.wake());
        drop(sessions);
        self.watches.all_may_have_ended();
        self.store.registry_events_heard(None);
    }
}
