//! How large the fleet is, by which the pace of what is done for each agent is set.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::Shared;
use crate::error::{Result, chain};

/// Agents beyond which what is done for each is done less often, in proportion.
const SMALL_FLEET: usize = 1_000;
/// How often the servers are counted.
const COUNTED_EVERY: Duration = Duration::from_secs(60);

impl Shared {
    /// How often something is done for each agent that is done every `base` in a small fleet: all agents
    /// of a large one together take as much as those of a small one. Those that are about to be let in count, or
    /// the first ones of a fleet that returns would keep a small one's pace; but anyone can prove a key of its own, so
    /// there are never more than servers.
    pub(super) fn at_the_fleets_pace(&self, base: Duration) -> Duration {
        let sessions = self.sessions.read().map_or(0, |sessions| sessions.len());
        let about_to_be = self.servers.load(Ordering::Relaxed).saturating_sub(sessions);
        let fleet = sessions + self.waiting.proven().min(about_to_be);
        base.mul_f64((fleet as f64 / SMALL_FLEET as f64).max(1.0))
    }

    /// Counts the servers that were not removed.
    ///
    /// # Errors
    /// [`Error::NotBegun`](crate::error::Error::NotBegun) or [`Error::Internal`](crate::error::Error::Internal) when the
    /// database is away.
    pub(super) async fn count_servers(&self) -> Result<()> {
        let count = self.store.server_count().await?;
        self.servers.store(usize::try_from(count).unwrap_or(usize::MAX), Ordering::Relaxed);
        Ok(())
    }
}

/// Counts the servers now and then, until the control plane stops.
pub(super) async fn keep_counted(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(COUNTED_EVERY) => {}
        }
        if let Err(error) = shared.count_servers().await {
            tracing::error!(error = %chain(&error), "counting the servers");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::scene::Scene, *};

    #[tokio::test]
    async fn a_crowd_of_strangers_with_keys_does_not_slow_a_small_fleet() {
        let scene = Scene::set().await;
        let base = Duration::from_secs(1);
        scene.shared.count_servers().await.unwrap();
        let crowd: Vec<_> = (0..3 * SMALL_FLEET)
            .map(|_| {
                let mut place = scene.shared.waiting.enter().unwrap();
                assert!(place.keep());
                place
            })
            .collect();
        assert_eq!(scene.shared.at_the_fleets_pace(base), base, "there is one server");
        // A fleet that returns keeps its pace from the first one on.
        scene.shared.servers.store(2 * SMALL_FLEET, Ordering::Relaxed);
        assert_eq!(scene.shared.at_the_fleets_pace(base), base * 2);
        scene.shared.servers.store(10 * SMALL_FLEET, Ordering::Relaxed);
        assert_eq!(scene.shared.at_the_fleets_pace(base), base * 3);
        drop(crowd);
        assert_eq!(scene.shared.at_the_fleets_pace(base), base);
    }

    #[tokio::test]
    async fn only_servers_in_force_are_counted() {
        let scene = Scene::set().await;
        scene.shared.count_servers().await.unwrap();
        assert_eq!(scene.shared.servers.load(Ordering::Relaxed), 1);
        scene.shared.store.server_revoke(&scene.organization, &scene.server, &scene.event()).await.unwrap();
        scene.shared.count_servers().await.unwrap();
        assert_eq!(scene.shared.servers.load(Ordering::Relaxed), 0);
    }
}
