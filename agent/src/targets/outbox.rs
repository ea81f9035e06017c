//! Verdicts until the server has them. What is here is told from here; `keeping` writes a copy to the disk.

use purser_proto_schema::agent::{
    calls::{Attempt, VerdictReport},
    command::Verdict,
};

/// Unacknowledged verdicts, oldest first. The table bounds how many there are.
#[derive(Default)]
pub(super) struct Outbox(Vec<VerdictReport>);

impl Outbox {
    /// The verdicts that an earlier run could not tell.
    pub(super) fn restored(reports: Vec<VerdictReport>) -> Self {
        Self(reports)
    }

    /// Keeps a verdict. One of an earlier try of the target is of no use any more.
    pub(super) fn put(&mut self, attempt: Attempt, verdict: Verdict) {
        self.0.retain(|report| report.attempt.target_id != attempt.target_id);
        self.0.push(VerdictReport { attempt, verdict });
    }

    /// How the try has ended here, if it has.
    pub(super) fn verdict(&self, attempt: &Attempt) -> Option<&Verdict> {
        self.0.iter().find(|report| report.attempt == *attempt).map(|report| &report.verdict)
    }

    /// Forgets a try's verdict. Whether there was one.
    pub(super) fn remove(&mut self, attempt: &Attempt) -> bool {
        let before = self.0.len();
        self.0.retain(|report| report.attempt != *attempt);
        self.0.len() < before
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
