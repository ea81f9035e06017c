//! How long to wait before the next dial.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(30);
/// Full jitter may draw nothing; a dial is never repeated sooner than this.
const LEAST: Duration = Duration::from_millis(100);

/// Full jitter under a ceiling that doubles, so that a fleet that lost its server does not return as one.
#[derive(Debug)]
pub(crate) struct Backoff {
    ceiling: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { ceiling: FIRST }
    }
}

impl Backoff {
    /// The next wait, never below `at_least`; the jitter comes on top of it.
    pub(crate) fn next(&mut self, at_least: Duration) -> Duration {
        let wait = at_least + self.ceiling.mul_f64(fraction());
        self.ceiling = (self.ceiling * 2).min(LAST);
        wait.max(LEAST)
    }

    /// Begins anew, after a healthy session.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// From 0 to 1. Where the system gives no randomness, agents still wait, only in step.
fn fraction() -> f64 {
    let mut bytes = [u8::MAX; 4];
    let _ = SystemRandom::new().fill(&mut bytes);
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_half_a_minute_and_are_never_nothing() {
        let mut backoff = Backoff::default();
        for round in 0..20_u32 {
            let ceiling = (FIRST * 2_u32.pow(round.min(10))).min(LAST);
            let wait = backoff.next(Duration::ZERO);
            assert!(wait >= LEAST && wait <= ceiling, "{wait:?} in round {round}");
        }
        backoff.reset();
        assert!(backoff.next(Duration::ZERO) <= FIRST);
    }

    #[test]
    fn a_least_wait_is_kept() {
        let mut backoff = Backoff::default();
        assert!((0..20).all(|_| backoff.next(Duration::from_secs(5)) >= Duration::from_secs(5)));
    }
}
