//! How long a job's targets may take, and how many at once.

use std::time::Duration;

use purser_proto_schema::limits::{QUEUE_SECONDS, RUN_SECONDS, TARGETS};

use crate::error::Issues;

/// How long a target may wait for its agent.
const QUEUE: Duration = Duration::from_secs(15 * 60);
/// How long an attempt may go on without progress.
const STALL: Duration = Duration::from_secs(10 * 60);
/// How long a target may run in all, its repetitions after what heals included.
const RUN: Duration = Duration::from_secs(60 * 60);

/// The limits of each of a job's targets.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In the queue.
    pub queue: Duration,
    /// Without progress.
    pub stall: Duration,
    /// On the host, in all.
    pub run: Duration,
}

impl Limits {
    /// As a caller asked, in seconds; what was not asked is as usual.
    pub fn asked(issues: &mut Issues, queue: Option<u32>, stall: Option<u32>, run: Option<u32>) -> Self {
        let mut seconds = |field, asked: Option<u32>, most, usual| match asked {
            Some(seconds) if seconds == 0 || seconds > most => {
                issues.add(field, format!("must be from 1 to {most} seconds"));
                usual
            }
            Some(seconds) => Duration::from_secs(seconds.into()),
            None => usual,
        };
        Self {
            queue: seconds("queueTimeoutSeconds", queue, QUEUE_SECONDS, QUEUE),
            stall: seconds("stallTimeoutSeconds", stall, RUN_SECONDS, STALL),
            run: seconds("timeoutSeconds", run, RUN_SECONDS, RUN),
        }
    }
}

/// How a job spreads over its targets.
#[derive(Clone, Copy, Debug, Default)]
pub struct FanOut {
    /// How many may be under way at once; any number when absent.
    pub max_parallel: Option<u32>,
    /// Whether the first failure ends what has not started.
    pub fail_fast: bool,
}

impl FanOut {
    /// As a caller asked.
    pub fn asked(issues: &mut Issues, max_parallel: Option<u32>, fail_fast: Option<bool>) -> Self {
        if max_parallel.is_some_and(|limit| limit == 0 || limit as usize > TARGETS) {
            issues.add("maxParallel", "must be from 1 to 10000");
        }
        Self { max_parallel, fail_fast: fail_fast.unwrap_or_default() }
    }
}
