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
        let handing = pump::hand_over_completed(Arc::clone(&self.shared), Arc::clone(&self.session), target);
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
