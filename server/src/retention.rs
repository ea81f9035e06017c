//! What is over its time is forgotten: audit events, and jobs that have ended.
//!
//! In batches with a pause between, so that nobody's write waits for more than one of them. Several control planes
//! over one database may do it side by side: what one has forgotten the other does not find.

use std::{future::Future, time::Duration};

use chrono::{DateTime, Utc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Result, chain},
    store::Store,
};

/// How often it is looked for.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// Events that are forgotten at once.
const EVENTS: u64 = 1_000;
/// Jobs that are forgotten at once, with their targets.
const JOBS: u64 = 100;
/// Between two batches.
const PAUSE: Duration = Duration::from_millis(100);

/// How long things are kept, in days; for ever when 0.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Audit events, from when they happened.
    pub audit_days: u32,
    /// Jobs, from when they ended.
    pub job_days: u32,
}

/// Forgets what is over its time, until `stop`.
pub async fn keep(store: Store, retention: Retention, stop: CancellationToken) {
    loop {
        let round = async {
            let events =
                forget(EVENTS, retention.audit_days, |before| store.audit_forget(before, EVENTS)).await;
            let jobs = forget(JOBS, retention.job_days, |before| store.job_forget(before, JOBS)).await;
            for (what, forgotten) in [("audit events", events), ("jobs", jobs)] {
                match forgotten {
                    Ok(0) => {}
                    Ok(count) => tracing::info!(what, count, "over their time, and forgotten"),
                    Err(error) => {
                        tracing::error!(what, error = %chain(&error), "forgetting what is over its time")
                    }
                }
            }
            sleep(EVERY).await;
        };
        if stop.run_until_cancelled(round).await.is_none() {
            return;
        }
    }
}

/// Forgets batch after batch until one is not full, and gives how many there were.
async fn forget<F: Future<Output = Result<u64>>>(
    batch: u64,
    days: u32,
    some: impl Fn(DateTime<Utc>) -> F,
) -> Result<u64> {
    if days == 0 {
        return Ok(0);
    }
    let before = Utc::now() - chrono::Duration::days(days.into());
    let mut all = 0;
    loop {
        let forgotten = some(before).await?;
        all += forgotten;
        if forgotten < batch {
            return Ok(all);
        }
        sleep(PAUSE).await;
    }
}
