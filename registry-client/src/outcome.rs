//! What the probe ladder answers: values that travel over the agent channel and into API answers.
//!
//! All of them are camelCase in JSON and ignore fields they don't know, so that an older server understands a newer agent.

use serde::{Deserialize, Serialize};

use crate::diagnosis::Diagnosis;
use crate::kind::RegistryKind;

/// How a registry asks for credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum AuthScheme {
    /// `/v2/` answered without asking for anything.
    None,
    /// User name and password go to the registry itself.
    Basic,
    /// User name and password go to a token server, the token to the registry.
    Bearer,
}

/// A rung of the ladder, in the order in which they are climbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum StepName {
    /// The name was looked up and every address judged by the egress policy.
    Resolve,
    /// A TCP connection was opened.
    Connect,
    /// The TLS handshake, and the check of the certificate.
    Tls,
    /// `GET /v2/` without credentials.
    Ping,
    /// The registry's challenge was understood and its token server judged.
    Challenge,
    /// The token server was asked.
    Token,
    /// `GET /v2/` with credentials or token.
    Authenticate,
    /// A manifest of the repository was asked for.
    Pull,
    /// An upload to the repository was begun and cancelled.
    Push,
    /// The host's Docker Engine logged in. Only agents take this one.
    EngineLogin,
}

impl StepName {
    /// The name as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Ping => "ping",
            Self::Challenge => "challenge",
            Self::Token => "token",
            Self::Authenticate => "authenticate",
            Self::Pull => "pull",
            Self::Push => "push",
            Self::EngineLogin => "engineLogin",
        }
    }
}

/// One rung that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Which rung.
    pub step: StepName,
    /// Whether it held. A failed rung may be followed by others (TLS, then plain HTTP where that is permitted).
    pub ok: bool,
    /// How long it took, in whole milliseconds.
    pub duration_ms: u64,
    /// What was seen, for people. Never holds a secret or a control character; at most 2 KiB.
    pub detail: String,
}

/// What became of the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum CredentialsVerdict {
    /// They were sent, and the registry accepted them.
    Verified,
    /// The registry never asked for any, so none were sent and nothing is known about them.
    NotRequired,
    /// None were given, and the registry let an anonymous caller in.
    Anonymous,
}

/// Which access to one repository was proven. `None`: not asked, or the registry's answer was inconclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AccessVerdict {
    /// Whether manifests may be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<bool>,
    /// Whether uploads may be begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<bool>,
}

/// What [`RegistryClient::probe`](crate::RegistryClient::probe) found out without any credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeOutcome {
    /// What the registry asks for.
    pub auth: AuthScheme,
    /// `host[:port]` of the token server; only for [`AuthScheme::Bearer`], and only after it was judged fit for a secret.
    #[serde(default)]
    pub realm_host: Option<String>,
    /// Whose registry it seems to be.
    #[serde(default)]
    pub kind: RegistryKind,
    /// The rungs climbed.
    pub steps: Vec<Step>,
    /// What a person should know although nothing failed.
    pub warnings: Vec<String>,
}

/// What a passed [`RegistryClient::test`](crate::RegistryClient::test) found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TestOutcome {
    /// What the registry asked for.
    pub auth: AuthScheme,
    /// What became of the credentials.
    pub credentials: CredentialsVerdict,
    /// Whose registry it seems to be.
    #[serde(default)]
    pub kind: RegistryKind,
    /// What a [`ScopeProbe`](crate::ScopeProbe) found; `None` when there was none.
    #[serde(default)]
    pub access: Option<AccessVerdict>,
    /// The rungs climbed.
    pub steps: Vec<Step>,
    /// What a person should know although nothing failed.
    pub warnings: Vec<String>,
}

/// Everybody who may ask at once is asking, and the turn of one more did not come in its time. Nothing was sent, and
/// nothing is known of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("so many registries are being asked from here that the turn of one more did not come")]
pub struct Busy;

/// Why a test or probe has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TestError {
    /// It was not begun.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// It failed on the way.
    #[error(transparent)]
    Failed(#[from] TestFailure),
}

/// Why a test or probe failed, and how far it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{}", diagnosis.message)]
pub struct TestFailure {
    /// Cause and advice.
    pub diagnosis: Diagnosis,
    /// The rungs climbed; the last one is the one that broke.
    pub steps: Vec<Step>,
    /// What a person should know besides.
    pub warnings: Vec<String>,
}
