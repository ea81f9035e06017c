//! Turns at the database. A server belongs to one organization, and each has its own queue, so what a
//! host does is never shared. The database is: an organization whose ten thousand targets are all
//! claimed at once would keep its connections for itself. So each organization has a few claims under
//! way, and the rest of them wait in line behind their own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

use purser_proto_schema::ids::OrganizationId;
use tokio::sync::Semaphore;

use super::lock;

/// Claims of one organization under way at once: fewer than the store has connections.
const AT_ONCE: usize = 3;

/// The organizations with a session.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<OrganizationId, Weak<Semaphore>>>);

impl Turns {
    /// The line of an organization; it stands as long as a session holds it.
    pub(super) fn of(&self, organization: &OrganizationId) -> Arc<Semaphore> {
        let mut lines = lock(&self.0);
        if let Some(line) = lines.get(organization).and_then(Weak::upgrade) {
            return line;
        }
        lines.retain(|_, line| line.strong_count() > 0);
        let line = Arc::new(Semaphore::new(AT_ONCE));
        lines.insert(organization.clone(), Arc::downgrade(&line));
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_organization_waits_behind_its_own_only() {
        let turns = Turns::default();
        let of = |name: &str| turns.of(&OrganizationId::from_stored(name.to_owned()));
        let (busy, same, other) = (of("busy"), of("busy"), of("other"));
        let _taken: Vec<_> = (0..AT_ONCE).map(|_| busy.try_acquire().unwrap()).collect();
        assert!(same.try_acquire().is_err());
        assert!(other.try_acquire().is_ok());
    }
}
