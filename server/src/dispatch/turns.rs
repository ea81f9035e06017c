//! Turns at the database. A server belongs to one organization, and each has its own queue, so what a
//! host does is never shared. The database is: an organization whose ten thousand targets are all
//! claimed at once, or all end at once, would keep its connections for itself. So each organization has a few
//! claims under way and writes a few steps of its targets, and the rest of them wait in line behind their own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

use purser_proto_schema::ids::OrganizationId;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use super::lock;

/// Claims of one organization under way at once: with its steps fewer than the store has connections.
const CLAIMS: usize = 3;
/// Steps of one organization's targets that are written at once. More wait, and take little memory until it is their
/// turn: a job for a fleet has a step of each target to take at once.
pub(super) const STEPS: usize = 4;
/// Steps of all organizations' targets that are written at once.
const ALL_STEPS: usize = 64;

/// The organizations with a session.
pub(super) struct Turns {
    lines: Mutex<HashMap<OrganizationId, Weak<Line>>>,
    all_steps: Arc<Semaphore>,
}

/// Where an organization's work waits for its turn.
pub(super) struct Line {
    claims: Semaphore,
    steps: Semaphore,
    all_steps: Arc<Semaphore>,
}

/// A turn to write a step of a target, until this is dropped.
pub(super) struct Step<'a> {
    _of_its_own: SemaphorePermit<'a>,
    _of_all: SemaphorePermit<'a>,
}

impl Default for Turns {
    fn default() -> Self {
        Self::with(ALL_STEPS)
    }
}

impl Turns {
    fn with(all_steps: usize) -> Self {
        Self { lines: Mutex::default(), all_steps: Arc::new(Semaphore::new(all_steps)) }
    }

    /// The line of an organization; it stands as long as a session holds it.
    pub(super) fn of(&self, organization: &OrganizationId) -> Arc<Line> {
        let mut lines = lock(&self.lines);
        if let Some(line) = lines.get(organization).and_then(Weak::upgrade) {
            return line;
        }
        lines.retain(|_, line| line.strong_count() > 0);
        let line = Arc::new(Line {
            claims: Semaphore::new(CLAIMS),
            steps: Semaphore::new(STEPS),
            all_steps: Arc::clone(&self.all_steps),
        });
        lines.insert(organization.clone(), Arc::downgrade(&line));
        line
    }
}

impl Line {
    /// Waits for a turn to claim a target. Nobody ends a line, so it comes.
    pub(super) async fn claim(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.claims.acquire().await
    }

    /// Waits for a turn to write a step of a target: behind the organization's own, and behind a few of each other.
    pub(super) async fn step(&self) -> Result<Step<'_>, AcquireError> {
        let own = self.steps.acquire().await?;
        Ok(Step { _of_its_own: own, _of_all: self.all_steps.acquire().await? })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::task::{JoinSet, yield_now};

    use super::*;

    fn named(name: &str) -> OrganizationId {
        OrganizationId::from_stored(name.to_owned())
    }

    #[test]
    fn an_organization_waits_behind_its_own_only() {
        let turns = Turns::default();
        let (busy, same, other) =
            (turns.of(&named("busy")), turns.of(&named("busy")), turns.of(&named("other")));
        let _claims: Vec<_> = (0..CLAIMS).map(|_| busy.claim().now_or_never().unwrap()).collect();
        assert!(same.claim().now_or_never().is_none());
        assert!(other.claim().now_or_never().is_some());
        let _steps: Vec<_> = (0..STEPS).map(|_| busy.step().now_or_never().unwrap()).collect();
        assert!(same.step().now_or_never().is_none());
        assert!(other.step().now_or_never().is_some());
    }

    #[test]
    fn all_together_take_no_more_than_so_many_steps() {
        let turns = Turns::with(STEPS);
        let (busy, other) = (turns.of(&named("busy")), turns.of(&named("other")));
        let mut steps: Vec<_> = (0..STEPS).map(|_| busy.step().now_or_never().unwrap()).collect();
        assert!(other.step().now_or_never().is_none());
        steps.pop();
        assert!(other.step().now_or_never().is_some());
    }

    /// Where there is one turn for all, even.
    #[tokio::test]
    async fn behind_a_whole_fleets_steps_another_organization_waits_for_a_few() {
        let turns = Turns::with(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let mut take = |name: &'static str| {
            let (line, order) = (turns.of(&named(name)), Arc::clone(&order));
            tasks.spawn(async move {
                let _step = line.step().await;
                lock(&order).push(name);
                yield_now().await;
            });
        };
        (0..1_000).for_each(|_| take("fleet"));
        // All are in line.
        while lock(&order).is_empty() {
            yield_now().await;
        }
        let before = lock(&order).len();
        take("other");
        tasks.join_all().await;
        let place = lock(&order).iter().position(|name| *name == "other").unwrap();
        // One more began in the moment in which it came.
        assert!(place - before <= STEPS + 1, "behind {} of 1,000", place - before);
    }
}
