//! What a host is asked to do, and what it says of it.

use purser_registry_client::{
    AccessVerdict, AuthScheme, CredentialsVerdict, Diagnosis, DiagnosisCode, RegistryKind, ScopeProbe, Step,
};
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// The work of one target. One road: every command carries its credential in the same
/// [`RegistryAccess`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Command {
    /// Ask the registry from the host, and let the engine log in.
    TestRegistry {
        /// Where, and with which credential.
        registry: RegistryAccess,
        /// What to try beyond logging in.
        scope: Option<ScopeProbe>,
    },
    /// Pull an image.
    Pull {
        /// Fully qualified, with a tag or a digest.
        image: String,
        /// Such as `linux/arm64`; the host's own when absent.
        platform: Option<String>,
        /// Where, and with which credential.
        registry: RegistryAccess,
    },
    /// Push a local image under another name.
    Push {
        /// The local image.
        source: String,
        /// The name to push it under, fully qualified with a tag.
        target: String,
        /// Where, and with which credential.
        registry: RegistryAccess,
    },
    /// Whatever a newer server asks: answered `unsupported`, never sent.
    #[serde(other)]
    Unknown,
}

impl Command {
    /// The command's name, for logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::TestRegistry { .. } => "testRegistry",
            Self::Pull { .. } => "pull",
            Self::Push { .. } => "push",
            Self::Unknown => "unknown",
        }
    }
}

/// How to reach a registry, and as whom. The secret lives in memory for the one operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryAccess {
    /// The canonical address: `host[:port]`, with `http://` before it where plain HTTP was chosen.
    pub address: String,
    /// Accept plain HTTP and unverified TLS when asking the registry directly.
    pub insecure: bool,
    /// PEM of an extra authority.
    pub ca_certificate: Option<String>,
    /// Further hosts that the secret may be sent to when the registry names them as its token server.
    #[serde(default)]
    pub realm_allow: Vec<String>,
    /// None: anonymous, and the verdict says so.
    pub credentials: Option<ChannelCredentials>,
}

/// A credential inside the sealed channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelCredentials {
    /// The user name.
    pub username: String,
    /// The password, byte for byte.
    #[serde(serialize_with = "Secret::serialize_in_clear")]
    pub password: Secret,
}

/// How a target ended, in the agent's words.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Verdict {
    /// It was done.
    Succeeded {
        /// What came out.
        outcome: Outcome,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// It was not done.
    Failed {
        /// Why.
        failure: Failure,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// It was stopped because the server asked.
    Cancelled,
}

/// What a successful command brought.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// Of a test.
    Tested(TestReport),
    /// Of a pull or push: the image is there, and this digest was read back.
    Image {
        /// `sha256:…`
        digest: String,
        /// The image's size on the host.
        size_bytes: Option<u64>,
    },
}

/// What a test found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TestReport {
    /// What the registry asks for.
    pub auth: AuthScheme,
    /// What can be said of the credential.
    pub credentials: CredentialsVerdict,
    /// Whose registry it seems to be. Earlier agents don't say.
    #[serde(default)]
    pub kind: RegistryKind,
    /// What was tried on a repository.
    pub access: Option<AccessVerdict>,
    /// What was done, in order.
    pub steps: Vec<Step>,
    /// What works but should not stay so.
    pub warnings: Vec<String>,
}

/// Why a command failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Code, message, advice, and the engine's own words.
    pub diagnosis: Diagnosis,
    /// What was tried, in order; empty for pulls and pushes that got as far as the engine.
    pub steps: Vec<Step>,
    /// What works but should not stay so.
    pub warnings: Vec<String>,
    /// Set where another attempt may succeed without anybody's doing (the network, a 5xx, a rate limit):
    /// how long to wait at least, in milliseconds, as far as the other side said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A failure that has a code, a message and advice, and no steps.
    #[must_use]
    pub fn new(code: DiagnosisCode, message: impl Into<String>, advice: impl Into<String>) -> Self {
        // Our own words, which need not be made fit to be shown.
        let diagnosis = Diagnosis { message: message.into(), ..Diagnosis::new(code, "", advice) };
        Self::from(diagnosis)
    }
}

impl From<Diagnosis> for Failure {
    fn from(diagnosis: Diagnosis) -> Self {
        let after = diagnosis.passes_after;
        let retry_after_ms = after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        Self { diagnosis, steps: Vec::new(), warnings: Vec::new(), retry_after_ms }
    }
}
