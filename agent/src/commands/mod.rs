//! The work of a host: one exhaustive match, a file per namespace.
//!
//! Every command that carries a credential goes the same way: the agent asks the registry itself what it
//! wants and where a secret would be sent ([`Commands::vet`]), and only then is the engine given the
//! secret, for the one operation. It may know no link, no session and no other target.

mod access;
mod image;
mod mirrors;
mod registry;
mod shared_pulls;

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use purser_proto_schema::{
    agent::command::{Command, Failure, Outcome},
    job::Progress,
};
use purser_registry_client::{
    Busy, Diagnosis, DiagnosisCode, ProbeOutcome, RegistryClient, TestError, TestFailure,
};
use tokio::sync::watch;

pub(crate) use self::shared_pulls::SharedPulls;

use self::access::Access;
use crate::{engine::Engine, targets::ProgressSink};

/// What commands work with.
pub(crate) struct Commands {
    pub(crate) engine: Arc<Engine>,
    pub(crate) registries: RegistryClient,
    pub(crate) pulls: SharedPulls,
}

impl Commands {
    /// Does the work of one target.
    pub(crate) async fn run(
        self: &Arc<Self>,
        command: Command,
        progress: ProgressSink,
    ) -> Result<Outcome, Failure> {
        match command {
            Command::TestRegistry { registry, scope } => {
                let access = Access::new(registry)?;
                let tested = self.test_registry(&access, scope.as_ref()).await;
                tested.map(Outcome::Tested).map_err(|failure| access.scrub(failure))
            }
            Command::Pull { image, platform, registry } => {
                let likeness = self.pulls.likeness(&image, platform.as_deref(), &registry);
                let access = Access::new(registry)?;
                let commands = Arc::clone(self);
                let begin = |progress: watch::Sender<Progress>| {
                    async move {
                        let pulled = commands.pull(&image, platform.as_deref(), &access, &progress).await;
                        pulled.map_err(|failure| access.scrub(failure))
                    }
                    .boxed()
                };
                self.pulls.pull(likeness, &progress, begin).await
            }
            Command::Push { source, target, registry } => {
                let access = Access::new(registry)?;
                let pushed = self.push(&source, &target, &access, &progress).await;
                pushed.map_err(|failure| access.scrub(failure))
            }
            Command::Unknown => Err(Failure::new(
                DiagnosisCode::Other,
                "the agent does not know this command",
                "Update the agent of this host.",
            )),
        }
    }

    /// What the registry asks for, and whether its token server may see the secret.
    async fn vet(&self, access: &Access, deadline: Duration) -> Result<ProbeOutcome, Failure> {
        let vetted = self.registries.probe(access.target(), access.credentials(), deadline).await;
        vetted.map_err(failure)
    }
}

/// A failed climb as a target's failure.
fn failure(error: TestError) -> Failure {
    match error {
        TestError::Busy(busy) => too_busy(busy).into(),
        TestError::Failed(TestFailure { diagnosis, steps, warnings }) => {
            Failure { steps, warnings, ..Failure::from(diagnosis) }
        }
    }
}

/// Nothing is known of the registry.
fn too_busy(busy: Busy) -> Diagnosis {
    Diagnosis::new(DiagnosisCode::Other, busy.to_string(), "Nothing was sent. Try again in a minute.")
        .passing_after(Duration::ZERO)
}
