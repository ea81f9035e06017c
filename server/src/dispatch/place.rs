//! A place on a host for a target that is about to be stored: what is accepted for an agent that is
//! connected and free goes to it at once, without a turn through the queue; but never past one that waits
//! there.

use std::sync::Arc;

use purser_proto_schema::ids::TargetId;

use super::{Dispatch, Session, Shared, pump};
use crate::{
    error::Result,
    store::{Fence, TargetRow},
};

/// A place at a session of this process. Given back when it is dropped without being filled.
pub struct Place {
    shared: Arc<Shared>,
    session: Arc<Session>,
    target: Option<TargetId>,
}

impl Dispatch {
    /// A place for `target`, if its agent is connected to this process and free for its kind of work.
    ///
    /// # Errors
    /// [`Error::Internal`](crate::Error::Internal) for a kind that there is not.
    pub fn place(&self, target: &TargetRow) -> Result<Option<Place>> {
        let Some(session) = self.shared.session(&target.server()) else { return Ok(None) };
        let (id, kind) = (target.id(), target.job_kind()?);
        let free = session.enter_if_free(target, kind);
        Ok(free.then(|| Place { shared: Arc::clone(&self.shared), session, target: Some(id) }))
    }
}

impl Place {
    /// As whom the session takes the target.
    pub fn fence(&self) -> &Fence {
        &self.session.fence
    }

    /// Hands the target over, which is stored as the session's by now.
    pub fn fill(mut self, target: TargetRow) {
        self.target = None;
        let handing =
            pump::hand_over_completed(Arc::clone(&self.shared), Arc::clone(&self.session), Box::new(target));
        self.shared.tasks.spawn(handing);
    }
}

impl Place {
    /// For when nobody knows whether the target was stored: if it was, it is the session's, and only the next
    /// handshake gives it out.
    pub fn doubt(self) {
        self.session.peer().cut();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(target) = self.target.take() {
            self.shared.leave(&self.session, &target);
        }
    }
}

#[cfg(test)]
mod tests {
    use purser_proto_schema::job::{JobKind, JobStatus};

    use super::super::scene::Scene;

    #[tokio::test]
    async fn what_is_accepted_for_a_session_in_force_is_stored_as_its_own() {
        let scene = Scene::set().await;
        let fence = scene.session().await;
        let target = scene.target("pull");
        let given = scene.accept_by(target.clone(), Some(&fence)).await.unwrap();
        let now = scene.now(&target).await;
        assert_eq!((given.status.as_str(), given.attempt), ("dispatched", 1));
        assert_eq!((now.status, now.attempt, now.run_deadline), (given.status, 1, given.run_deadline));
        let status = scene.shared.store.job_status(&scene.organization, &target.job()).await.unwrap();
        assert_eq!(status, JobStatus::Running);
    }

    #[tokio::test]
    async fn what_is_accepted_for_a_session_that_is_not_in_force_waits_for_the_next() {
        let scene = Scene::set().await;
        let earlier = scene.session().await;
        let present = scene.session().await;
        let target = scene.target("pull");
        assert_eq!(scene.accept_by(target.clone(), Some(&earlier)).await, None);
        let now = scene.now(&target).await;
        assert_eq!((now.status.as_str(), now.attempt, now.run_deadline), ("queued", 0, None));
        let (job, _) = scene.shared.store.job_one(&scene.organization, &target.job()).await.unwrap();
        assert_eq!((job.status.as_str(), job.started_at), ("queued", None));
        let claimed = scene.claimed(&present, JobKind::Pull).await;
        assert_eq!((claimed.target_id, claimed.attempt), (target.target_id, 1));
    }
}
