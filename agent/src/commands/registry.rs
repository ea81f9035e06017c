//! `testRegistry`: what does the registry ask for, and can this host's engine log in?

use std::{mem, time::Duration};

use purser_proto_schema::agent::command::{Failure, TestReport};
use purser_registry_client::{
    AuthScheme, CredentialsVerdict, DiagnosisCode, ProbeOutcome, ScopeProbe, Step, StepName, TestOutcome,
};
use tokio::time::Instant;

use super::{Commands, access::Access, failure};
use crate::engine::Login;

/// For the whole test. A caller is promised a verdict within 15 s, and the way there takes time too.
const BUDGET: Duration = Duration::from_secs(12);

impl Commands {
    /// Tests a registry from this host. The engine is shown the secret only when the registry asks for one
    /// and would not have it sent elsewhere.
    pub(super) async fn test_registry(
        &self,
        access: &Access,
        scope: Option<&ScopeProbe>,
    ) -> Result<TestReport, Failure> {
        let until = Instant::now() + BUDGET;
        let left = || until.saturating_duration_since(Instant::now());
        let Some(login) = access.login() else {
            // Without a secret there is nothing for the engine to prove.
            let tested = self.registries.test(access.target(), None, scope, left()).await;
            return tested.map(report).map_err(failure);
        };
        let ProbeOutcome { auth, kind, mut steps, mut warnings, .. } = self.vet(access, left()).await?;
        let credentials = if auth == AuthScheme::None {
            warnings.push(
                "The registry never asked for credentials, so they were neither sent nor verified."
                    .to_owned(),
            );
            CredentialsVerdict::NotRequired
        } else {
            let (step, result) = self.engine_login(access, &login, left()).await;
            steps.push(step);
            if let Err(Failure { diagnosis, .. }) = result {
                let diagnosis = kind.advise(diagnosis, Some(login.username));
                return Err(Failure { steps, warnings, ..Failure::from(diagnosis) });
            }
            CredentialsVerdict::Verified
        };
        let mut access_verdict = None;
        if let Some(scope) = scope {
            let tested =
                self.registries.test(access.target(), access.credentials(), Some(scope), left()).await;
            let (result, more_steps, more_warnings) = match tested.map_err(failure) {
                Ok(outcome) => (Ok(outcome.access), outcome.steps, outcome.warnings),
                Err(mut failed) => {
                    let (steps, warnings) = (mem::take(&mut failed.steps), mem::take(&mut failed.warnings));
                    (Err(failed), steps, warnings)
                }
            };
            steps.extend(more_steps);
            warnings.extend(more_warnings);
            warnings.sort();
            warnings.dedup();
            match result {
                Ok(access) => access_verdict = access,
                Err(failed) => return Err(Failure { steps, warnings, ..failed }),
            }
        }
        Ok(TestReport { auth, credentials, kind, access: access_verdict, steps, warnings })
    }

    /// The login, as a step.
    async fn engine_login(
        &self,
        access: &Access,
        login: &Login<'_>,
        deadline: Duration,
    ) -> (Step, Result<LoggedIn, Failure>) {
        let begun = Instant::now();
        let result = self.log_in(access, login, deadline).await;
        // The engine's words are in the diagnosis, where a secret that is repeated is taken out.
        let detail = match &result {
            Ok(LoggedIn::Engine) => "the Docker Engine logged in",
            Ok(LoggedIn::Agent) => {
                "the agent logged in: Podman does so by verified TLS only, though it pulls and pushes without"
            }
            Err(_) => "the Docker Engine could not log in",
        };
        let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        (
            Step { step: StepName::EngineLogin, ok: result.is_ok(), duration_ms, detail: detail.to_owned() },
            result,
        )
    }

    /// Lets the engine log in, or the agent in place of a Podman that would not speak to this registry as
    /// it does for a pull. Where the secret may go was asked before, and is the same for both.
    pub(super) async fn log_in(
        &self,
        access: &Access,
        login: &Login<'_>,
        deadline: Duration,
    ) -> Result<LoggedIn, Failure> {
        let until = Instant::now() + deadline;
        let diagnosis = match self.engine.login(login, deadline).await {
            Ok(()) => return Ok(LoggedIn::Engine),
            Err(diagnosis) => diagnosis,
        };
        let for_want_of_tls = matches!(
            diagnosis.code,
            DiagnosisCode::HttpOnHttps | DiagnosisCode::TlsUnknownAuthority | DiagnosisCode::TlsName
        );
        if !for_want_of_tls || !self.engine.is_lax_podman(&access.target().address.host).await? {
            return Err(diagnosis.into());
        }
        let left = until.saturating_duration_since(Instant::now());
        // Under the same rules: plain HTTP to loopback and insecure entries only.
        let tested = self.registries.test(access.target(), access.credentials(), None, left).await;
        match tested.map_err(failure)?.credentials {
            CredentialsVerdict::Verified => Ok(LoggedIn::Agent),
            CredentialsVerdict::NotRequired | CredentialsVerdict::Anonymous => Err(diagnosis.into()),
        }
    }
}

/// Who proved that the credentials are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoggedIn {
    /// The engine.
    Engine,
    /// The agent itself.
    Agent,
}

fn report(outcome: TestOutcome) -> TestReport {
    let TestOutcome { auth, credentials, kind, access, steps, warnings } = outcome;
    TestReport { auth, credentials, kind, access, steps, warnings }
}
