//! Jobs that may have so many targets under way only: when one of those is under way no more, a host that
//! waits for its turn is told at once.

use std::sync::Arc;

use purser_proto_schema::ids::JobId;

use super::Shared;
use crate::{
    error::{Result, chain},
    store::Signal,
};

/// Waiting targets that are looked at in one go.
const PAGE: u64 = 200;
/// Hosts that are told: of one place, so that one of them takes it although others are quicker elsewhere.
const TOLD: usize = 4;
/// Hosts of other control planes that are told; which of them have a free place is not known here.
const TOLD_ELSEWHERE: usize = 64;

impl Shared {
    /// Lets the next target of a job begin, if it has a limit: one was under way and is no more. Nobody
    /// waits for it.
    pub(super) fn let_next_begin(self: &Arc<Self>, job: JobId) {
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Err(error) = shared.tell_waiting(&job).await {
                tracing::error!(%job, error = %chain(&error), "looking for a job's next target");
            }
        });
    }

    async fn tell_waiting(self: &Arc<Self>, job: &JobId) -> Result<()> {
        let (mut told, mut elsewhere, mut after) = (0, 0, None);
        loop {
            let page = self.store.servers_waiting(job, after.as_ref(), PAGE).await?;
            let is_last = (page.len() as u64) < PAGE;
            for (target, server) in page {
                match self.session(&server) {
                    Some(session) if session.has_free_transfer() => {
                        session.wake();
                        told += 1;
                    }
                    Some(_) => {}
                    None => {
                        self.tell(Signal::Queue { server_id: server });
                        elsewhere += 1;
                    }
                }
                if told == TOLD || (self.store.is_shared() && elsewhere == TOLD_ELSEWHERE) {
                    return Ok(());
                }
                after = Some(target);
            }
            if is_last {
                return Ok(());
            }
        }
    }
}
