//! Ends what is over its deadline.

use std::{sync::Arc, time::Duration};

use purser_proto_schema::agent::command::Failure;
use purser_registry_client::DiagnosisCode;

use super::{Shared, attempt_of, pump::end_failed};
use crate::{
    error::Result,
    store::{TargetRow, TargetState},
};

/// How often the deadlines are looked at.
const EVERY: Duration = Duration::from_secs(2);
/// How long an agent has to say by itself that a target ran out of time.
const GRACE: chrono::Duration = chrono::Duration::seconds(30);
/// How many are ended in one go.
const AT_ONCE: u64 = 200;

/// Runs until the control plane stops.
pub(super) async fn keep(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = sweep(&shared).await {
            tracing::error!(error = %crate::error::chain(&error), "looking for overdue targets");
        }
    }
}

async fn sweep(shared: &Shared) -> Result<()> {
    for target in shared.store.targets_overdue(GRACE, AT_ONCE).await? {
        let session = shared.session(&target.server());
        let job = end_failed(&shared.store, &target, failure(&target)).await?;
        shared.changed(job);
        if let Some(session) = session {
            session.leave(&target.id());
            if target.status != TargetState::Queued.as_str() {
                shared.tasks.spawn(async move { session.cancel(attempt_of(&target)).await });
            }
        }
    }
    Ok(())
}

fn failure(target: &TargetRow) -> Failure {
    if target.status == TargetState::Queued.as_str() {
        return Failure::new(
            DiagnosisCode::ServerOffline,
            "the server did not take this before its time in the queue was over",
            "Is purser-agent running and connected there? Start the job again when the server is online.",
        );
    }
    Failure::new(
        DiagnosisCode::Timeout,
        "no verdict came from the host in time",
        "Look at the log of purser-agent and at the engine on that host, then start the job again.",
    )
}
