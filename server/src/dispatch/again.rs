//! Which failures are worth another attempt, and when.
//!
//! Only what its agent says may pass by itself: the network, a registry's 5xx, a rate limit. A refused
//! credential is refused again, and asking again may lock the account. A test is never repeated: somebody
//! waits for it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use purser_proto_schema::{agent::command::Failure, job::JobKind};
use purser_registry_client::DiagnosisCode;

use super::ATTEMPTS;
use crate::store::TargetRow;

/// Before the second attempt; four times that before the third.
const FIRST: Duration = Duration::from_secs(1);
/// The least after a rate limit that does not say how long.
const RATE_LIMITED: Duration = Duration::from_secs(15);

/// When the target is to be tried again, if it is.
pub(super) fn when(target: &TargetRow, failure: &Failure, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let asked = Duration::from_millis(failure.retry_after_ms?);
    let attempts = target.attempts_of_round();
    if !matches!(target.job_kind(), Ok(JobKind::Pull | JobKind::Push)) || attempts >= ATTEMPTS {
        return None;
    }
    let mut wait = FIRST * 4_u32.saturating_pow(attempts.saturating_sub(1));
    if failure.diagnosis.code == DiagnosisCode::RateLimited && asked.is_zero() {
        wait = wait.max(RATE_LIMITED);
    }
    // Up to half as long again, or a fleet that failed together would come back together.
    let jitter = f64::from(uuid::Uuid::now_v7().as_bytes()[15]) / 255.0;
    let wait = wait.max(asked).mul_f64(1.0 + jitter / 2.0);
    let at = now + chrono::Duration::from_std(wait).ok()?;
    // What cannot begin before its time is over has failed now.
    target.run_deadline.is_none_or(|end| at < end).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(kind: &str, attempt: i32) -> TargetRow {
        let now = Utc::now();
        TargetRow {
            target_id: "tgt_1".into(),
            job_id: "job_1".into(),
            organization_id: "org_1".into(),
            server_id: "srv_1".into(),
            kind: kind.into(),
            image: None,
            plan: String::new(),
            registry_id: None,
            credentials: "anonymous".into(),
            sealed_auth: None,
            status: "dispatched".into(),
            attempt,
            cancel_requested: false,
            queue_deadline: now,
            run_limit_ms: 60_000,
            run_deadline: Some(now + chrono::Duration::minutes(1)),
            finished_at: None,
            verdict: None,
            progress: None,
            not_before: None,
            attempts_before: 0,
            queue_limit_ms: 60_000,
            stall_limit_ms: 60_000,
            max_parallel: None,
            fail_fast: false,
            request_id: None,
        }
    }

    fn wait(target: &TargetRow, code: DiagnosisCode, asked: Option<u64>) -> Option<f64> {
        let now = Utc::now();
        let mut failure = Failure::new(code, "m", "a");
        failure.retry_after_ms = asked;
        when(target, &failure, now).map(|at| (at - now).as_seconds_f64())
    }

    #[test]
    fn waits_grow_and_end_with_the_third_attempt() {
        let seconds = |attempt| wait(&target("pull", attempt), DiagnosisCode::Connect, Some(0));
        assert!((1.0..=1.5).contains(&seconds(1).unwrap()));
        assert!((4.0..=6.0).contains(&seconds(2).unwrap()));
        assert_eq!(seconds(3), None);
        // A person's retry begins a new round.
        let retried = TargetRow { attempts_before: 3, ..target("pull", 4) };
        assert!((1.0..=1.5).contains(&wait(&retried, DiagnosisCode::Connect, Some(0)).unwrap()));
    }

    #[test]
    fn what_does_not_heal_and_tests_are_not_repeated() {
        assert_eq!(wait(&target("pull", 1), DiagnosisCode::Unauthorized, None), None);
        assert_eq!(wait(&target("testRegistry", 1), DiagnosisCode::Connect, Some(0)), None);
    }

    #[test]
    fn a_rate_limit_is_waited_out_as_long_as_it_says_and_the_time_allows() {
        let seconds = |asked| wait(&target("push", 1), DiagnosisCode::RateLimited, Some(asked));
        assert!((15.0..=22.5).contains(&seconds(0).unwrap()));
        assert!((30.0..=45.0).contains(&seconds(30_000).unwrap()));
        assert_eq!(seconds(61_000), None, "longer than the target has");
    }
}
