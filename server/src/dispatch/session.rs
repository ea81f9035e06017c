//! One agent's session on the server's side.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use purser_proto_schema::{
    agent::{
        MAX_TEXT_BYTES,
        calls::{AgentCallsClient, Attempt},
        close::CloseCode,
        handshake::Limits,
        outbound::Outbound,
        peer::Peer,
    },
    ids::{JobId, TargetId},
    job::{JobKind, Progress},
};
use tokio::sync::Notify;

use super::{lock, turns::Line};
use crate::store::{Fence, TargetRow};

/// Pulls and pushes that a host works on at once.
const TRANSFERS: usize = 3;
/// Tests that a host works on at once. They are short and somebody waits, so they have places of
/// their own.
const TESTS: usize = 16;
/// How often a target's progress is kept for other control planes.
const KEPT_EVERY: Duration = Duration::from_secs(1);
/// The most that a target can say of itself before its verdict, in percent.
const ALMOST: u8 = 99;

/// What an agent may expect.
pub(super) const LIMITS: Limits =
    Limits { tests: TESTS as u32, transfers: TRANSFERS as u32, text_bytes: MAX_TEXT_BYTES as u32 };

/// A live session: the newest of its server in this process.
pub(super) struct Session {
    /// Whose, and of which epoch.
    pub(super) fence: Fence,
    /// The server's name, for messages.
    pub(super) name: String,
    peer: Peer,
    under_way: Mutex<HashMap<TargetId, UnderWay>>,
    more: Notify,
    /// Signs that the queue may hold something, so far, and how many there were when it was last found to
    /// hold nothing for the places that were free.
    signs: AtomicU64,
    empty_after: AtomicU64,
    line: Arc<Line>,
}

/// A target that has a place.
struct UnderWay {
    kind: JobKind,
    /// Whose watchers are told of it.
    job: JobId,
    /// Whether its job may have so many under way only.
    limited: bool,
    /// The newest that its agent said, with its number; goes with the place, so that no more is kept
    /// than places.
    progress: Option<(u64, Progress)>,
    /// When it was last kept for other control planes, and whether it is about to be.
    kept: Option<Instant>,
    keeping: bool,
}

impl UnderWay {
    fn new(target: &TargetRow, kind: JobKind) -> Self {
        Self {
            kind,
            job: target.job(),
            limited: target.max_parallel.is_some(),
            progress: None,
            kept: None,
            keeping: false,
        }
    }
}

impl Session {
    pub(super) fn new(fence: Fence, name: String, peer: Peer, line: Arc<Line>) -> Self {
        Self {
            fence,
            name,
            peer,
            under_way: Mutex::default(),
            more: Notify::new(),
            signs: AtomicU64::new(0),
            // Nobody has looked yet.
            empty_after: AtomicU64::new(u64::MAX),
            line,
        }
    }

    /// Says that the queue may hold something.
    pub(super) fn wake(&self) {
        self.signs.fetch_add(1, Ordering::SeqCst);
        self.more.notify_one();
    }

    /// To be taken before the free places are looked at, and the queue.
    pub(super) fn signs(&self) -> u64 {
        self.signs.load(Ordering::SeqCst)
    }

    /// Notes that the queue held nothing for the free places, after so many signs.
    pub(super) fn found_empty(&self, signs: u64) {
        self.empty_after.store(signs, Ordering::SeqCst);
    }

    /// Whether the queue held nothing when it was last looked at, and there was no sign since.
    pub(super) fn nobody_waits(&self) -> bool {
        self.empty_after.load(Ordering::SeqCst) == self.signs()
    }

    /// Waits until the queue may hold something.
    pub(super) async fn woken(&self) {
        self.more.notified().await;
    }

    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(super) fn client(&self) -> Arc<Outbound> {
        self.peer.client()
    }

    /// Says why and ends.
    pub(super) async fn close(&self, code: CloseCode) {
        self.peer.close(code).await;
    }

    /// Takes a place for a target.
    pub(super) fn enter(&self, target: &TargetRow, kind: JobKind) {
        lock(&self.under_way).insert(target.id(), UnderWay::new(target, kind));
    }

    /// Takes a place for a target, if there is one for its kind, and nobody who came before waits for it.
    pub(super) fn enter_if_free(&self, target: &TargetRow, kind: JobKind) -> bool {
        let mut under_way = lock(&self.under_way);
        let free = self.nobody_waits() && free_kinds(&under_way).contains(&kind);
        if free {
            under_way.insert(target.id(), UnderWay::new(target, kind));
        }
        free
    }

    /// Gives a target's place back. Gives its job where that has a limit: another server's target may
    /// begin now.
    #[must_use]
    pub(super) fn leave(&self, target: &TargetId) -> Option<JobId> {
        let left = {
            let mut under_way = lock(&self.under_way);
            let left = under_way.remove(target)?;
            if under_way.is_empty() {
                // A fleet is idle nearly always.
                under_way.shrink_to_fit();
            }
            // Before anybody sees the free place: who has waited for it comes first.
            self.wake();
            left
        };
        left.limited.then_some(left.job)
    }

    /// Whether a pull or push could begin.
    pub(super) fn has_free_transfer(&self) -> bool {
        self.free_kinds().contains(&JobKind::Pull)
    }

    /// Where it waits for its organization's turn at the database.
    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Keeps how far a target is, while it has a place, and gives its job. Calls may overtake each other:
    /// the newest stays. Whatever an agent says, a percentage does not fall, and only an end is 100.
    pub(super) fn note(&self, target: &TargetId, seq: u64, mut progress: Progress) -> Option<JobId> {
        let mut under_way = lock(&self.under_way);
        let under_way = under_way.get_mut(target)?;
        let before = under_way.progress.as_ref();
        if before.is_some_and(|(newest, _)| *newest >= seq) {
            return None;
        }
        let reached = before.and_then(|(_, before)| before.percent);
        progress.percent = progress.percent.map(|percent| percent.min(ALMOST)).max(reached);
        under_way.progress = Some((seq, progress));
        Some(under_way.job.clone())
    }

    /// The job of a target that is a test and has a place.
    pub(super) fn test(&self, target: &TargetId) -> Option<JobId> {
        let under_way = lock(&self.under_way);
        let test = under_way.get(target).filter(|under_way| under_way.kind == JobKind::TestRegistry)?;
        Some(test.job.clone())
    }

    /// How far a target is, where its agent has said.
    pub(super) fn progress(&self, target: &TargetId) -> Option<Progress> {
        lock(&self.under_way).get(target)?.progress.as_ref().map(|(_, progress)| progress.clone())
    }

    /// After what time a target's progress is to be kept for other control planes; `None` while that is
    /// waited for already.
    pub(super) fn keep_progress_after(&self, target: &TargetId) -> Option<Duration> {
        let mut under_way = lock(&self.under_way);
        let under_way = under_way.get_mut(target).filter(|under_way| !under_way.keeping)?;
        under_way.keeping = true;
        Some(under_way.kept.map_or(Duration::ZERO, |at| KEPT_EVERY.saturating_sub(at.elapsed())))
    }

    /// The progress to be kept for other control planes now, while the target has a place.
    pub(super) fn progress_to_keep(&self, target: &TargetId) -> Option<Progress> {
        let mut under_way = lock(&self.under_way);
        let under_way = under_way.get_mut(target)?;
        (under_way.keeping, under_way.kept) = (false, Some(Instant::now()));
        under_way.progress.as_ref().map(|(_, progress)| progress.clone())
    }

    /// The kinds that have a free place.
    pub(super) fn free_kinds(&self) -> Vec<JobKind> {
        free_kinds(&lock(&self.under_way))
    }

    /// Asks the agent to stop a target. If it cannot be asked, the session is over and the next one
    /// drops the target.
    pub(super) async fn cancel(&self, attempt: Attempt) {
        if self.client().target_cancel(attempt).await.is_err() {
            self.peer.cut();
        }
    }
}

fn free_kinds(under_way: &HashMap<TargetId, UnderWay>) -> Vec<JobKind> {
    let tests = under_way.values().filter(|target| target.kind == JobKind::TestRegistry).count();
    let mut free = Vec::with_capacity(3);
    if tests < TESTS {
        free.push(JobKind::TestRegistry);
    }
    if under_way.len() - tests < TRANSFERS {
        free.extend([JobKind::Pull, JobKind::Push]);
    }
    free
}
