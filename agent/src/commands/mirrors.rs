//! The engine's mirrors of Docker Hub, and the Hub's secret.
//!
//! The Docker Engine asks the mirrors of its settings (`registry-mirrors`) before the Hub, for pulls only. Seen of 20.10:
//! a mirror that answers 401 is offered the credential that the pull came with, by Basic as by Bearer, where it goes to
//! whatever token server the mirror names; a mirror that asks for nothing is sent nothing. `POST /auth` and pushes ask
//! no mirror. So before an engine is given the Hub's secret for a pull, each of its mirrors is asked, without the
//! secret, whether it would want one.
//!
//! Podman names no mirrors here, and (by its source, not seen) gives them no other host's credentials.

use std::time::Duration;

use purser_proto_schema::agent::command::Failure;
use purser_registry_client::{AuthScheme, DiagnosisCode, RegistryAddress, Target, TestError};

use super::{Commands, access::Access, too_busy};

/// For asking one mirror.
const DEADLINE: Duration = Duration::from_secs(5);

impl Commands {
    /// Whether a pull may be given its secret, as far as the engine's mirrors go.
    ///
    /// # Errors
    /// [`DiagnosisCode::RealmDenied`] where the engine would show it to a mirror that the entry's `realmAllow` does not
    /// name.
    pub(super) async fn vet_mirrors(&self, access: &Access) -> Result<(), Failure> {
        if !access.target().address.is_docker_hub() {
            return Ok(());
        }
        for mirror in self.engine.hub_mirrors().await? {
            let Ok(address) = RegistryAddress::parse(&mirror) else {
                return Err(denied("that has no plain URL"));
            };
            if access.target().allows(&address) {
                continue;
            }
            let name = address.host.clone();
            if address.namespace.is_some() || !self.asks_for_nothing(address, access).await? {
                return Err(denied(&name));
            }
        }
        Ok(())
    }

    /// Whether a mirror gives what it has to everybody, or is not there: then the engine goes on to the next.
    async fn asks_for_nothing(&self, mirror: RegistryAddress, access: &Access) -> Result<bool, Failure> {
        // It is sent nothing that verified TLS would protect.
        let target = Target { insecure: true, ..Target::new(mirror) };
        match self.registries.probe(&target, access.credentials(), DEADLINE).await {
            Ok(found) => Ok(found.auth == AuthScheme::None),
            Err(TestError::Failed(failed)) => Ok(matches!(
                failed.diagnosis.code,
                DiagnosisCode::Dns | DiagnosisCode::Connect | DiagnosisCode::Timeout
            )),
            Err(TestError::Busy(busy)) => Err(too_busy(busy).into()),
        }
    }
}

fn denied(mirror: &str) -> Failure {
    Failure::new(
        DiagnosisCode::RealmDenied,
        format!("this host's engine would show Docker Hub's credentials to its mirror {mirror}"),
        "It is one of the registry-mirrors in that host's daemon.json, and asks for credentials, or could not be asked \
         whether it does. Let it serve without, or take it out there; or, if it may see these credentials, add its \
         host to the entry's realmAllow.",
    )
}
