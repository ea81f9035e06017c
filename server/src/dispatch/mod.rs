//! Dispatch: the only road to a host.
//!
//! It holds the live sessions, gives queued targets to agents, stores their verdicts, ends what is
//! over its deadline, and wakes whoever waits for a job. What is to be done is in the database before
//! it comes here, and ends only by a verdict, a deadline or a person; what is held in memory may be
//! lost at any moment.
//!
//! It calls the store and the vault. It never resolves which credential to use (that was decided when
//! the job was made), and it never answers a caller.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock, atomic::AtomicUsize},
    time::Duration,
};

use futures_util::future::join_all;
use purser_proto_schema::{
    agent::{calls::Attempt, close::CloseCode, noise::StaticKey},
    ids::{JobId, OrganizationId, ServerId, TargetId},
    image::Image,
    job::Progress,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    error::{Error, Result},
    metrics::Metrics,
    refusals::Refusals,
    store::{ServerRow, Signal, Store, TargetRow},
    traces::{Span, Traces},
    vault::Vault,
    waiting_room::WaitingRoom,
};

mod admission;
mod again;
mod deadlines;
mod fleet;
mod inbound;
mod limited;
mod place;
pub mod plan;
mod pump;
mod replicas;
mod resume;
#[cfg(test)]
mod scene;
mod session;
mod storing;
mod turns;
mod watches;

pub use place::Place;
pub use replicas::Name;
use replicas::Replicas;
use session::Session;
use storing::Storing;
use turns::Turns;
use watches::Watches;
pub use watches::{Change, Heard, Watch};

/// Agents that are looked up at once; more wait.
const ADMISSIONS: usize = 64;
/// Of those with a long hello, which is held meanwhile, so many are looked up at once beside them, so that none of
/// them waits behind a whole fleet; and so many may wait, or strangers could fill the memory with it.
const LONG_ADMISSIONS: usize = 8;
const LONG_WAITING: usize = 256;

/// How often a target is given out in one round: after its agent died with it, and after what heals.
const ATTEMPTS: u32 = 3;
/// The outcome of a target that ended well.
const OK: &str = "ok";

/// Who is told what happens here.
pub struct Told {
    /// Of agents that are not let in.
    pub refusals: Refusals,
    /// How targets end.
    pub metrics: Arc<Metrics>,
    /// And when.
    pub traces: Traces,
}

/// A handle to the sessions. Cheap to clone.
#[derive(Clone)]
pub struct Dispatch {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    vault: Arc<Vault>,
    channel_key: StaticKey,
    sessions: RwLock<HashMap<ServerId, Arc<Session>>>,
    watches: Arc<Watches>,
    turns: Turns,
    storing: Storing,
    told: Told,
    replicas: Replicas,
    waiting: Arc<WaitingRoom>,
    /// That were not removed, when they were last counted.
    servers: AtomicUsize,
    admissions: Semaphore,
    long_admissions: Semaphore,
    long_waiting: Semaphore,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Dispatch {
    /// Starts with no session, as one of the control planes over this database. At most `places` sockets
    /// are in their handshake at once. `stop` ends everything.
    ///
    /// # Errors
    /// [`Error::NotBegun`] or [`Error::Internal`] when the database is away.
    pub async fn start(
        store: Store,
        vault: Arc<Vault>,
        channel_key: StaticKey,
        name: Name,
        told: Told,
        places: usize,
        stop: CancellationToken,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            store,
            vault,
            channel_key,
            sessions: RwLock::default(),
            watches: Arc::default(),
            turns: Turns::default(),
            storing: Storing::default(),
            told,
            replicas: Replicas::new(name),
            waiting: Arc::new(WaitingRoom::new(places)),
            servers: AtomicUsize::new(0),
            admissions: Semaphore::new(ADMISSIONS),
            long_admissions: Semaphore::new(LONG_ADMISSIONS),
            long_waiting: Semaphore::new(LONG_WAITING),
            stop,
            tasks: TaskTracker::new(),
        });
        shared.count_servers().await?;
        shared.tasks.spawn(fleet::keep_counted(Arc::clone(&shared)));
        shared.tasks.spawn(deadlines::keep(Arc::clone(&shared)));
        if shared.store.is_shared() {
            replicas::join(&shared).await?;
            shared.tasks.spawn(replicas::live(Arc::clone(&shared)));
            shared.tasks.spawn(replicas::listen(Arc::clone(&shared)));
            shared.tasks.spawn(replicas::telling::tell_all(Arc::clone(&shared)));
        }
        Ok(Self { shared })
    }

    /// The key that agents pin.
    pub fn channel_key(&self) -> &StaticKey {
        &self.shared.channel_key
    }

    /// Whether the server's agent is connected, to this control plane or to another one over the same
    /// database.
    pub fn is_online(&self, server: &ServerRow) -> bool {
        let id = ServerId::from_stored(server.server_id.clone());
        self.shared.session(&id).is_some() || self.shared.replicas.another_holds(server)
    }

    /// How many agents are connected to this control plane.
    pub fn online(&self) -> usize {
        self.shared.sessions.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Says that a server has something new in its queue.
    pub fn wake(&self, server: &ServerId) {
        if let Some(session) = self.shared.session(server) {
            session.wake();
        }
        // A session here may be over without knowing it yet.
        self.shared.tell(Signal::Queue { server_id: server.clone() });
    }

    /// Asks the agents to stop targets. Those that no agent can be asked about end at once.
    ///
    /// # Errors
    /// [`Error::NotBegun`] or [`Error::Internal`] when the database is away. What needs none of it is done by then, and the
    /// rest a moment after it is back.
    pub async fn cancel(&self, targets: Vec<TargetRow>) -> Result<()> {
        let mut without = Vec::new();
        for target in targets {
            match self.shared.session(&target.server()) {
                Some(session) => {
                    // This session may be over without knowing it yet.
                    let (server_id, attempt) = (target.server(), attempt_of(&target));
                    self.shared.tell(Signal::Stop { server_id, attempt: attempt.clone() });
                    self.shared.tasks.spawn(async move { session.cancel(attempt).await });
                }
                None => without.push(target),
            }
        }
        for target in without {
            self.shared.stop_without_session(&target).await?;
        }
        Ok(())
    }

    /// Ends a removed server's session at once.
    pub fn revoke(&self, server: &ServerId, jobs: Vec<JobId>) {
        self.shared.end_session(server, None, CloseCode::Removed);
        self.shared.tell(Signal::Removed { server_id: server.clone() });
        for job in jobs {
            self.shared.changed(Some(job.clone()));
            self.shared.let_next_begin(job);
        }
    }

    /// The images on a host: a small read, no job.
    ///
    /// # Errors
    /// [`Error::ServerOffline`] when its agent is not connected or does not answer.
    pub async fn images(&self, server: &ServerRow) -> Result<Vec<Image>> {
        let id = ServerId::from_stored(server.server_id.clone());
        match self.shared.session(&id) {
            Some(session) => replicas::questions::images(&session.client()).await,
            None if self.shared.replicas.another_holds(server) => self.shared.images_elsewhere(server).await,
            None => Err(plan::offline(&server.name)),
        }
    }

    /// How far a target is, where its agent has said.
    pub fn progress(&self, server: &ServerId, target: &TargetId) -> Option<Progress> {
        self.shared.session(server)?.progress(target)
    }

    /// A watch that is marked whenever the job changes. Take it before reading the job.
    pub fn watch(&self, job: &JobId) -> Watch {
        self.shared.watches.watch(job)
    }

    /// Says that a job's targets were ended elsewhere.
    pub fn changed(&self, job: &JobId) {
        self.shared.changed(Some(job.clone()));
    }

    /// Whether the control plane is stopping.
    pub fn is_stopping(&self) -> bool {
        self.shared.stop.is_cancelled()
    }

    /// Waits until the control plane is stopping.
    pub async fn stopping(&self) {
        self.shared.stop.cancelled().await;
    }

    /// Says goodbye to every session and waits until their tasks have ended, at most `within`.
    pub async fn stop(&self, within: Duration) {
        let until = Instant::now() + within;
        self.shared.stop.cancel();
        let sessions: Vec<_> = write(&self.shared.sessions).drain().map(|(_, session)| session).collect();
        let closing = sessions.iter().map(|session| session.close(CloseCode::ServerStops));
        let _ = timeout_at(until - within / 2, join_all(closing)).await;
        for session in &sessions {
            session.peer().cut();
        }
        self.shared.tasks.close();
        let _ = timeout_at(until, self.shared.tasks.wait()).await;
    }
}

impl Shared {
    fn session(&self, server: &ServerId) -> Option<Arc<Session>> {
        self.sessions.read().unwrap_or_else(PoisonError::into_inner).get(server).cloned()
    }

    /// Asks the agent of a server that has no session here to stop a target, which ends at once where no agent can be
    /// asked.
    async fn stop_without_session(self: &Arc<Self>, target: &TargetRow) -> Result<()> {
        if self.held_elsewhere(target).await? {
            self.tell(Signal::Stop { server_id: target.server(), attempt: attempt_of(target) });
        } else {
            self.changed(self.store.target_cancelled(&target.id(), None).await?);
        }
        Ok(())
    }

    async fn held_elsewhere(&self, target: &TargetRow) -> Result<bool> {
        if !self.store.is_shared() {
            return Ok(false);
        }
        let organization = OrganizationId::from_stored(target.organization_id.clone());
        let server = self.store.server_one(&organization, &target.server()).await?;
        Ok(self.replicas.another_holds(&server))
    }

    /// Gives back a target's place, and lets the next one of its job begin where that has a limit.
    fn leave(self: &Arc<Self>, session: &Session, target: &TargetId) {
        if let Some(job) = session.leave(target) {
            self.let_next_begin(job);
        }
    }

    /// Lets a server's queue be looked at when a target in it may be tried again.
    fn wake_at(self: &Arc<Self>, server: ServerId, at: chrono::DateTime<chrono::Utc>) {
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            let wait = (at - chrono::Utc::now()).to_std().unwrap_or_default();
            tokio::select! {
                () = shared.stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {
                    if let Some(session) = shared.session(&server) {
                        session.wake();
                    }
                }
            }
        });
    }

    /// Says that a job may have ended, or one of its targets.
    fn changed(self: &Arc<Self>, job: Option<JobId>) {
        if let Some(job) = job {
            self.watches.may_have_ended(&job, None);
            self.tell(Signal::Job { job_id: job });
        }
    }

    /// Tells how a target ended: with what outcome, and after how long on its host.
    fn ended_so(&self, target: &TargetRow, outcome: &'static str, took: Duration) {
        self.told.metrics.target_ended(&target.kind, outcome);
        self.told.traces.tell(|| {
            // Targets of an older version know no request.
            let of = target.request_id.as_deref().unwrap_or(&target.job_id);
            let failed = Some(outcome).filter(|outcome| *outcome != OK);
            Span::within_request(of, format!("target {}", target.kind), took)
                .with("purser.job_id", target.job_id.as_str())
                .with("purser.target_id", target.target_id.as_str())
                .with("purser.server_id", target.server_id.as_str())
                .with("purser.outcome", outcome)
                .failed(failed)
        });
    }

    /// Says that a target has ended by its agent's verdict.
    fn ended(self: &Arc<Self>, target: TargetRow) {
        let job_id = target.job();
        self.watches.may_have_ended(&job_id, Some(Arc::new(target)));
        self.tell(Signal::Job { job_id });
    }

    /// Says that a target stands elsewhere than before, and has not ended.
    fn moved(self: &Arc<Self>, job: &JobId) {
        self.watches.moved(job);
        self.tell(Signal::Job { job_id: job.clone() });
    }
}

fn attempt_of(target: &TargetRow) -> Attempt {
    Attempt { target_id: target.id(), attempt: u32::try_from(target.attempt).unwrap_or_default() }
}

/// A poisoned lock only means that another task panicked between two map operations, each of which
/// leaves the map whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(rwlock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    rwlock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Logs a failure that no caller waits for, with its chain.
fn report(what: &'static str, server: &ServerId, error: &Error) {
    tracing::error!(server = %server, error = %crate::error::chain(error), "{what}");
}
