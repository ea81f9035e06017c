//! How often a key may call: a bucket of calls per key, kept in the memory of this process.
//!
//! Whoever carries a call from its door may ask what the bucket said ([`observed`]), for the answer's
//! headers; no call knows its door. Several control planes count each for itself.

use std::{cell::Cell, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};
use moka::sync::Cache;
use purser_proto_schema::{
    api_key::RateLimit,
    limits::{RATE_REQUESTS, RATE_WINDOW_SECONDS},
};

use crate::error::{Error, Issues, Result};

/// Buckets that are kept; of more the least used are forgotten, and full when they come again.
const BUCKETS: u64 = 10_000;

tokio::task_local! {
    static OBSERVED: Cell<Option<Allowance>>;
}

/// What a key may still do.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// The key's limit.
    pub limit: RateLimit,
    /// Calls that it may make at once.
    pub remaining: u32,
    /// Until all of the limit is there again.
    pub full_in: Duration,
    /// For a call that was refused: until the next may be made.
    pub retry_in: Option<Duration>,
}

/// Does `work`, and tells what was left of the key's calls after the last one that it made in this task.
pub async fn observed<F: Future>(work: F) -> (F::Output, Option<Allowance>) {
    let observing = async move {
        let output = work.await;
        (output, OBSERVED.with(Cell::take))
    };
    OBSERVED.scope(Cell::new(None), observing).await
}

/// Notes what is wrong with a limit.
pub fn check(issues: &mut Issues, limit: RateLimit) {
    if !(1..=RATE_REQUESTS).contains(&limit.requests) {
        issues.add("rateLimit", "rateLimit.requests: must be 1 to 1000000");
    }
    if !(1..=RATE_WINDOW_SECONDS).contains(&limit.window_seconds) {
        issues.add("rateLimit", "rateLimit.windowSeconds: must be 1 to 86400");
    }
}

/// Whether a limit lets nothing through that `bound` would stop, at once or in the long run.
pub fn is_within(limit: RateLimit, bound: RateLimit) -> bool {
    let rate =
        |calls: RateLimit, window: RateLimit| u64::from(calls.requests) * u64::from(window.window_seconds);
    limit.requests <= bound.requests && rate(limit, bound) <= rate(bound, limit)
}

/// The buckets of the keys that are in use.
pub struct Buckets(Cache<String, Arc<Bucket>>);

impl Buckets {
    /// None yet.
    pub fn new() -> Self {
        // A bucket that nobody touched for its window is full, as a new one is.
        let untouched = Duration::from_secs(u64::from(RATE_WINDOW_SECONDS));
        Self(Cache::builder().max_capacity(BUCKETS).time_to_idle(untouched).build())
    }

    /// The bucket of a key: the same for all its calls. `None` for a limit that no key can have.
    pub fn of(&self, api_key_id: &str, limit: RateLimit) -> Option<Arc<Bucket>> {
        if let Some(bucket) = self.0.get(api_key_id) {
            return Some(bucket);
        }
        let new = Arc::new(Bucket::new(limit)?);
        Some(self.0.get_with_by_ref(api_key_id, || new))
    }
}

/// The bucket of one key.
#[derive(Debug)]
pub struct Bucket {
    limit: RateLimit,
    calls: RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>,
}

impl Bucket {
    fn new(limit: RateLimit) -> Option<Self> {
        let requests = NonZeroU32::new(limit.requests)?;
        let window = Duration::from_secs(u64::from(limit.window_seconds));
        let quota = Quota::with_period(window / limit.requests)?.allow_burst(requests);
        Some(Self { limit, calls: RateLimiter::direct(quota).with_middleware() })
    }

    /// Takes one call out.
    ///
    /// # Errors
    /// [`Error::TooManyCalls`] where there is none.
    pub fn take(&self) -> Result<()> {
        let (remaining, retry_in) = match self.calls.check() {
            Ok(left) => (left.remaining_burst_capacity(), None),
            Err(until) => (0, Some(until.wait_time_from(DefaultClock::default().now()))),
        };
        let window = Duration::from_secs(u64::from(self.limit.window_seconds));
        let missing = self.limit.requests.saturating_sub(remaining);
        let full_in = window.mul_f64(f64::from(missing) / f64::from(self.limit.requests));
        note(Allowance { limit: self.limit, remaining, full_in, retry_in });
        retry_in.map_or(Ok(()), |wait| Err(Error::TooManyCalls(wait)))
    }
}

/// Of several calls the last one's, and of a refusal that it was one.
fn note(allowance: Allowance) {
    // Outside of any request, such as on a socket, there is nobody to tell.
    let _ = OBSERVED.try_with(|observed| {
        let earlier = observed.take().and_then(|earlier| earlier.retry_in);
        observed.set(Some(Allowance { retry_in: allowance.retry_in.or(earlier), ..allowance }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(requests: u32, window_seconds: u32) -> RateLimit {
        RateLimit { requests, window_seconds }
    }

    #[test]
    fn a_bucket_gives_what_it_holds_and_then_says_when_there_is_more() {
        let bucket = Bucket::new(limit(3, 3600)).unwrap();
        for _ in 0..3 {
            bucket.take().unwrap();
        }
        let Err(Error::TooManyCalls(wait)) = bucket.take() else { panic!("a fourth call of three") };
        assert!(wait > Duration::from_secs(1190) && wait <= Duration::from_secs(1200), "{wait:?}");
    }

    #[test]
    fn every_limit_that_is_accepted_makes_a_bucket() {
        for requests in [1, 2, 7, RATE_REQUESTS] {
            for window in [1, 59, RATE_WINDOW_SECONDS] {
                let mut issues = Issues::default();
                check(&mut issues, limit(requests, window));
                assert!(issues.into_result(()).is_ok());
                assert!(Bucket::new(limit(requests, window)).unwrap().take().is_ok());
            }
        }
        assert!(Bucket::new(limit(0, 1)).is_none() && Bucket::new(limit(1, 0)).is_none());
    }

    #[test]
    fn a_limit_within_another_has_no_larger_burst_and_no_faster_rate() {
        let bound = limit(100, 60);
        for inside in [limit(100, 60), limit(50, 30), limit(1, 1), limit(100, 61)] {
            assert!(is_within(inside, bound), "{inside:?}");
        }
        for outside in [limit(101, 600), limit(100, 59), limit(2, 1)] {
            assert!(!is_within(outside, bound), "{outside:?}");
        }
    }

    #[tokio::test]
    async fn a_request_is_told_of_its_last_call_and_of_any_refusal() {
        let bucket = Bucket::new(limit(2, 3600)).unwrap();
        let ((), first) = observed(async { bucket.take().unwrap() }).await;
        let first = first.unwrap();
        assert_eq!((first.remaining, first.retry_in), (1, None));
        let other = Bucket::new(limit(9, 9)).unwrap();
        let ((), last) = observed(async {
            bucket.take().unwrap();
            assert!(bucket.take().is_err());
            other.take().unwrap();
        })
        .await;
        let last = last.unwrap();
        assert!(last.remaining == 8 && last.retry_in.is_some());
        assert!(observed(async {}).await.1.is_none());
    }
}
