//! What a climb carries from rung to rung: its deadline, what was seen, and the secrets to keep out of it.

use std::future::Future;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use crate::diagnosis::{Diagnosis, DiagnosisCode as Code, Secrets, presentable};
use crate::outcome::{Busy, Step, StepName, TestFailure};

/// One climb.
pub(crate) struct Ladder {
    deadline: Instant,
    steps: Vec<Step>,
    warnings: Vec<String>,
    pub(crate) secrets: Secrets,
}

impl Ladder {
    /// A climb that ends when `deadline` has passed.
    pub(crate) fn new(deadline: Duration) -> Self {
        let now = Instant::now();
        let deadline = now.checked_add(deadline).unwrap_or_else(|| now + Duration::from_secs(3600));
        Self { deadline, steps: Vec::new(), warnings: Vec::new(), secrets: Secrets::default() }
    }

    /// Waits for room among all that is asked at once, for half of the time that is left; whoever came first goes first.
    pub(crate) async fn admit<'s>(&self, at_once: &'s Semaphore) -> Result<SemaphorePermit<'s>, Busy> {
        match timeout(self.remaining() / 2, at_once.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }

    fn note(&mut self, step: StepName, ok: bool, begun: Instant, detail: String) {
        let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(step = step.as_str(), ok, duration_ms, "registry probe");
        self.steps.push(Step { step, ok, duration_ms, detail });
    }

    /// The time that is left.
    pub(crate) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Tries one rung: times it, ends it at the deadline, and notes what was seen. Words of the other
    /// side reach an outcome only as a diagnosis' `engine_message`, and it is here that secrets are scrubbed from it.
    pub(crate) fn step<T>(
        &mut self,
        step: StepName,
        work: impl Future<Output = Result<(T, String), Diagnosis>>,
    ) -> impl Future<Output = Result<T, Diagnosis>> {
        let begun = Instant::now();
        // In a box, and before anything waits: all rungs of a climb would else be held at once, several times each.
        let work = Box::pin(work);
        async move {
            let result = timeout_at(self.deadline, work).await.unwrap_or_else(|_| Err(too_late(step)));
            let (result, detail) = match result {
                Ok((value, detail)) => (Ok(value), self.secrets.hide_hosts(presentable(&detail))),
                Err(diagnosis) => {
                    let diagnosis = self.scrub(diagnosis);
                    let detail = diagnosis.message.clone();
                    (Err(diagnosis), detail)
                }
            };
            self.note(step, result.is_ok(), begun, detail);
            result
        }
    }

    /// Does something outside the ladder that ends at its deadline all the same, scrubbed likewise.
    pub(crate) fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Diagnosis>>,
    ) -> impl Future<Output = Result<T, Diagnosis>> {
        // In a box, as a rung is.
        let work = Box::pin(work);
        async move {
            let result =
                timeout_at(self.deadline, work).await.unwrap_or_else(|_| Err(too_late(StepName::Ping)));
            result.map_err(|diagnosis| self.scrub(diagnosis))
        }
    }

    /// What was noted so far.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Takes the secrets out of what the other side said, and out of our own text the hosts that it named after them.
    pub(crate) fn scrub(&self, diagnosis: Diagnosis) -> Diagnosis {
        Diagnosis {
            message: self.secrets.hide_hosts(diagnosis.message),
            advice: self.secrets.hide_hosts(diagnosis.advice),
            engine_message: diagnosis.engine_message.map(|text| self.secrets.scrub(&text)),
            ..diagnosis
        }
    }

    /// Notes something that a person should know; once.
    pub(crate) fn warn(&mut self, warning: impl Into<String>) {
        let warning = self.secrets.hide_hosts(warning.into());
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// What was seen.
    pub(crate) fn finish(self) -> (Vec<Step>, Vec<String>) {
        (self.steps, self.warnings)
    }

    /// What was seen until `diagnosis` ended it.
    pub(crate) fn fail(self, diagnosis: Diagnosis) -> TestFailure {
        TestFailure { diagnosis, steps: self.steps, warnings: self.warnings }
    }
}

fn too_late(step: StepName) -> Diagnosis {
    let what = match step {
        StepName::Resolve => "looking up the registry's name",
        StepName::Connect => "connecting to the registry",
        StepName::Tls => "the TLS handshake",
        StepName::Ping | StepName::Authenticate => "the registry's answer",
        StepName::Challenge => "looking up the token server",
        StepName::Token => "the token server's answer",
        StepName::EngineLogin => "the Engine's login",
        StepName::Pull | StepName::Push => "proving access to the repository",
    };
    Diagnosis::new(
        Code::Timeout,
        format!("{what} took longer than the time given"),
        "Look for a firewall that drops packets, or an overloaded registry.",
    )
}
