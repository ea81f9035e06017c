//! What an agent tells the server during a session: verdicts until they are stored, progress while it is
//! news, and the engine when it changed. Nothing here is waited for by the work itself.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use purser_proto_schema::agent::{
    calls::{AgentStatus, ServerCallsClient as _},
    outbound::Outbound,
};
use tokio::time::{sleep, timeout};

use crate::{engine::Engine, targets::Targets};

/// Before a verdict that the server did not take is told again.
const RETRY: Duration = Duration::from_secs(2);
/// Between two reports of one target.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Progress calls that wait for an answer at once; the rest is news later.
const PROGRESS_AT_ONCE: usize = 8;
/// Between two looks at the engine.
const ENGINE_EVERY: Duration = Duration::from_secs(60);

/// Reports as long as the session lives; never ends by itself. `engine_known` is what the handshake said.
pub(crate) async fn run(
    targets: &Targets,
    engine: &Engine,
    client: Arc<Outbound>,
    engine_known: AgentStatus,
) {
    tokio::join!(
        verdicts(targets, &client),
        progress(targets, &client),
        status(engine, &client, engine_known)
    );
}

async fn verdicts(targets: &Targets, client: &Outbound) {
    loop {
        let mut all_taken = true;
        for report in targets.unacknowledged() {
            let attempt = report.attempt.clone();
            match client.target_verdict(report).await {
                Ok(receipt) => {
                    tracing::debug!(target_id = %attempt.target_id, attempt = attempt.attempt, ?receipt, "verdict told");
                    targets.acknowledged(&attempt);
                }
                Err(error) => {
                    all_taken = false;
                    tracing::debug!(target_id = %attempt.target_id, %error, "a verdict was not taken");
                }
            }
        }
        if all_taken {
            targets.until_ended().await;
        } else {
            // Another verdict may be taken where this one was not.
            let _ = timeout(RETRY, targets.until_ended()).await;
        }
    }
}

async fn progress(targets: &Targets, client: &Outbound) {
    targets.tell_all_again();
    loop {
        targets.until_moved().await;
        stream::iter(targets.progress())
            .for_each_concurrent(PROGRESS_AT_ONCE, |report| async {
                if let Err(error) = client.target_progress(report).await {
                    tracing::debug!(%error, "progress was not taken");
                }
            })
            .await;
        sleep(PROGRESS_EVERY).await;
    }
}

async fn status(engine: &Engine, client: &Outbound, mut known: AgentStatus) {
    loop {
        sleep(ENGINE_EVERY).await;
        let now = AgentStatus { engine: engine.describe().await.ok() };
        if now.engine != known.engine && client.agent_status(now.clone()).await.is_ok() {
            known = now;
        }
    }
}
