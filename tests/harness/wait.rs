//! Waiting for a state, never for a time; and names that no other test uses.

use std::{
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// Asks `probe` every 20 ms until it answers `Some`, and gives that.
///
/// # Panics
/// After `timeout`, naming the caller's line.
#[track_caller]
pub fn eventually<T, F>(timeout: Duration, mut probe: impl FnMut() -> F) -> impl Future<Output = T>
where
    F: Future<Output = Option<T>>,
{
    let caller = std::panic::Location::caller();
    let deadline = Instant::now() + timeout;
    async move {
        loop {
            // A probe that hangs is a failure of the wait, too.
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left.max(Duration::from_millis(20)), probe()).await {
                Ok(Some(found)) => return found,
                _ if Instant::now() >= deadline => panic!("not within {timeout:?}, waited for at {caller}"),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

/// A lower-case name that no other test of this run uses, fit for a repository or a database.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{}-{count}-{}", process::id(), random_hex(4))
}

/// `bytes` random bytes as lower-case hex.
pub fn random_hex(bytes: usize) -> String {
    random_bytes(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `length` random bytes.
pub fn random_bytes(length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut out).expect("the system gives random bytes");
    out
}
