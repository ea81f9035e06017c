//! What a target is to do, as it is stored: the command without its credential.
//!
//! The credential joins it only when it is given to an agent: the entry's newest one, or the one-time
//! one from the target's own row. An entry that has moved to another host meanwhile gives none.

use purser_proto_schema::{
    agent::command::{ChannelCredentials, Command, Failure, RegistryAccess},
    error::TestDiagnosis,
    ids::{OrganizationId, RegistryId},
    job::JobKind,
    secret::Secret,
};
use purser_registry_client::{Diagnosis, DiagnosisCode, RegistryAddress, ScopeProbe, Target};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    store::{RegistryRow, Store, TargetRow},
    vault::{Seat, Vault, VaultError},
};

/// The column that holds an entry's password.
pub const PASSWORD: &str = "sealed_password";
/// The column that holds a target's one-time credential.
pub const ONE_TIME: &str = "sealed_auth";

/// A command without its credential.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What to do.
    pub work: Work,
    /// Where.
    pub registry: PlannedRegistry,
}

/// What to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Work {
    /// A connection test.
    TestRegistry {
        /// What to try beyond logging in.
        scope: Option<ScopeProbe>,
    },
    /// A pull.
    Pull {
        /// Fully qualified.
        image: String,
        /// The platform asked for.
        platform: Option<String>,
    },
    /// A push.
    Push {
        /// The local image.
        source: String,
        /// The name to push under.
        target: String,
    },
}

/// Where the work goes. For a stored entry its own settings take the place of these.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedRegistry {
    /// As the agent takes it: `host[:port]`, with `http://` before it where that was chosen.
    pub address: String,
    /// Accept plain HTTP and unverified TLS.
    pub insecure: bool,
    /// PEM.
    pub ca_certificate: Option<String>,
    /// Further hosts that the secret may be sent to.
    #[serde(default)]
    pub realm_allow: Vec<String>,
}

impl Work {
    /// What it is on a host: it decides which places there are for it. Of a stack pull each target is a pull.
    pub fn kind(&self) -> JobKind {
        match self {
            Self::TestRegistry { .. } => JobKind::TestRegistry,
            Self::Pull { .. } => JobKind::Pull,
            Self::Push { .. } => JobKind::Push,
        }
    }
}

impl PlannedRegistry {
    /// The registry as the control plane itself asks it: all of it, whatever the entry's namespace.
    ///
    /// # Errors
    /// [`Error::Internal`] when the address is none: what is stored was checked.
    pub fn target(self) -> Result<Target> {
        let address = RegistryAddress::parse(&self.address)
            .map_err(Error::internal("reading the address of a registry entry"))?;
        let Self { insecure, ca_certificate, realm_allow, .. } = self;
        Ok(Target { address, insecure, ca_certificate, realm_allow })
    }
}

/// A one-time credential as it is sealed.
#[derive(Serialize, Deserialize)]
struct OneTime {
    username: String,
    #[serde(serialize_with = "Secret::serialize_in_clear")]
    password: Secret,
}

/// Seals a one-time credential into its target's row.
///
/// # Errors
/// [`Error::Internal`] when the vault fails.
pub fn seal_one_time(
    vault: &Vault,
    organization: &OrganizationId,
    target: &str,
    username: String,
    password: Secret,
) -> Result<String> {
    let text = serde_json::to_string(&OneTime { username, password }).map(SecretString::from);
    let text = text.map_err(Error::internal("writing a one-time credential"))?;
    let seat = Seat { organization: organization.as_str(), row: target, field: ONE_TIME };
    vault
        .seal(seat, secrecy::ExposeSecret::expose_secret(&text).as_bytes())
        .map_err(Error::internal("sealing a one-time credential"))
}

/// The command of a claimed target with its credential, or why it must fail instead.
///
/// # Errors
/// [`Error::Internal`] when the database or the vault fails.
pub async fn complete(
    store: &Store,
    vault: &Vault,
    target: &TargetRow,
) -> Result<std::result::Result<Command, Failure>> {
    let plan: Plan =
        serde_json::from_str(&target.plan).map_err(Error::internal("reading a target's plan"))?;
    let organization = OrganizationId::from_stored(target.organization_id.clone());
    let access = match (&target.registry_id, &target.sealed_auth) {
        (_, Some(sealed)) => {
            let seat = Seat { organization: organization.as_str(), row: &target.target_id, field: ONE_TIME };
            let one_time = open_one_time(vault, seat, sealed)?;
            access(plan.registry, Some(one_time))
        }
        (Some(id), None) => {
            let id = RegistryId::from_stored(id.clone());
            match store.registry_one(&organization, &id).await {
                Ok(row) if same_host(&row, &plan.registry) => entry_access(vault, &row)?,
                Ok(_) => return Ok(Err(moved())),
                Err(Error::NotFound(_)) => return Ok(Err(removed())),
                Err(error) => return Err(error),
            }
        }
        (None, None) => access(plan.registry, None),
    };
    if access.credentials.is_none() && !target.is_anonymous() {
        return Ok(Err(without_credential()));
    }
    Ok(Ok(match plan.work {
        Work::TestRegistry { scope } => Command::TestRegistry { registry: access, scope },
        Work::Pull { image, platform } => Command::Pull { image, platform, registry: access },
        Work::Push { source, target } => Command::Push { source, target, registry: access },
    }))
}

/// How to reach an entry's registry, with its password opened.
fn entry_access(vault: &Vault, row: &RegistryRow) -> Result<RegistryAccess> {
    let credentials = match (&row.username, &row.sealed_password) {
        (Some(username), Some(sealed)) => {
            let seat = Seat { organization: &row.organization_id, row: &row.registry_id, field: PASSWORD };
            let password =
                vault.open_text(seat, sealed).map_err(Error::internal("opening a registry's password"))?;
            Some(ChannelCredentials { username: username.clone(), password: password.into() })
        }
        _ => None,
    };
    Ok(access(planned(row), credentials))
}

/// An entry's settings as a plan keeps them.
pub fn planned(row: &RegistryRow) -> PlannedRegistry {
    let plain = RegistryAddress::parse(&row.registry_url).is_ok_and(|address| address.plain_http);
    PlannedRegistry {
        address: address_text(&row.registry_host, plain),
        insecure: row.insecure,
        ca_certificate: row.ca_certificate.clone(),
        // What cannot be read allows nothing.
        realm_allow: serde_json::from_str(&row.realm_allow).unwrap_or_default(),
    }
}

/// An address as the agent takes it.
pub fn address_text(host: &str, plain_http: bool) -> String {
    if plain_http { format!("http://{host}") } else { host.to_owned() }
}

fn access(registry: PlannedRegistry, credentials: Option<ChannelCredentials>) -> RegistryAccess {
    RegistryAccess {
        address: registry.address,
        insecure: registry.insecure,
        ca_certificate: registry.ca_certificate,
        realm_allow: registry.realm_allow,
        credentials,
    }
}

fn open_one_time(vault: &Vault, seat: Seat<'_>, sealed: &str) -> Result<ChannelCredentials> {
    let text = vault.open_text(seat, sealed).map_err(Error::internal("opening a one-time credential"))?;
    let one_time: OneTime = serde_json::from_str(secrecy::ExposeSecret::expose_secret(&text))
        // serde's own error could quote the text.
        .map_err(|_| VaultError::Damaged)
        .map_err(Error::internal("reading a one-time credential"))?;
    Ok(ChannelCredentials { username: one_time.username, password: one_time.password })
}

fn same_host(row: &RegistryRow, planned: &PlannedRegistry) -> bool {
    planned.address.strip_prefix("http://").unwrap_or(&planned.address) == row.registry_host
}

fn moved() -> Failure {
    Failure::new(
        DiagnosisCode::Other,
        "the registry entry names another host than when the job was accepted",
        "Start the job again: a secret goes only to the host that it was entered for.",
    )
}

/// It was accepted with one, and must not become an anonymous pull.
fn without_credential() -> Failure {
    Failure::new(
        DiagnosisCode::Other,
        "the registry entry has no password any more, and the job was accepted with one",
        "Enter the entry's password again, or start the job again to go without.",
    )
}

fn removed() -> Failure {
    Failure::new(
        DiagnosisCode::NotFound,
        "the registry entry was removed before the job started",
        "Store the entry again, then start the job again.",
    )
}

/// The error of a server whose agent is not connected.
pub fn offline(name: &str) -> Error {
    let advice = "Start purser-agent on the host and look at its log, or choose another server.";
    let diagnosis =
        Diagnosis::new(DiagnosisCode::ServerOffline, format!("server {name} is not connected"), advice);
    Error::ServerOffline(Box::new(TestDiagnosis { diagnosis, steps: Vec::new() }))
}

/// The error of a call that the agent answered with one, or not at all.
pub fn engine_refused(error: &jsonrpsee::core::ClientError) -> Error {
    let diagnosis = match error {
        jsonrpsee::core::ClientError::Call(object) => Diagnosis::new(
            DiagnosisCode::EngineError,
            "the Docker Engine of the host did not answer the question",
            "Look at the engine on that host: is it running, and may the agent use its socket?",
        )
        .with_engine_message(object.message()),
        _ => Diagnosis::new(
            DiagnosisCode::ServerOffline,
            "the connection to the host broke before it answered",
            "Try again when the server is online.",
        ),
    };
    Error::ServerOffline(Box::new(TestDiagnosis { diagnosis, steps: Vec::new() }))
}
