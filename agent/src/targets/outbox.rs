//! Verdicts until the server has them. They live in memory; an agent that ends loses them, and the server
//! gives their targets out again. A store on disk goes in here.

use purser_proto_schema::agent::{
    calls::{Attempt, VerdictReport},
    command::Verdict,
};

/// Unacknowledged verdicts, oldest first. The table bounds how many there are.
#[derive(Default)]
pub(super) struct Outbox(Vec<VerdictReport>);

impl Outbox {
    /// Keeps a verdict. One of an earlier try of the target is of no use any more.
    pub(super) fn put(&mut self, attempt: Attempt, verdict: Verdict) {
        self.0.retain(|report| report.attempt.target_id != attempt.target_id);
        self.0.push(VerdictReport { attempt, verdict });
    }

    /// Whether the try has ended here.
    pub(super) fn holds(&self, attempt: &Attempt) -> bool {
        self.0.iter().any(|report| report.attempt == *attempt)
    }

    /// Forgets a try's verdict.
    pub(super) fn remove(&mut self, attempt: &Attempt) {
        self.0.retain(|report| report.attempt != *attempt);
    }

    /// Which tries have ended.
    pub(super) fn attempts(&self) -> Vec<Attempt> {
        self.0.iter().map(|report| report.attempt.clone()).collect()
    }

    /// All of them.
    pub(super) fn reports(&self) -> Vec<VerdictReport> {
        self.0.clone()
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
