//! Causes and advice, in one vocabulary for probes, logins, pulls and pushes.

mod engine_messages;
mod secrets;
mod text;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use engine_messages::classify_engine_message;
pub(crate) use engine_messages::recognise;
pub use secrets::Secrets;
pub use text::{MAX_TEXT_BYTES, presentable};

/// The stable code of a cause; the strings are part of the API contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DiagnosisCode {
    /// The name doesn't resolve, there.
    Dns,
    /// Nothing listens, or the connection was cut.
    Connect,
    /// The deadline passed.
    Timeout,
    /// The certificate was issued by nobody who is trusted.
    TlsUnknownAuthority,
    /// The certificate is for another name.
    TlsName,
    /// The certificate has expired or isn't valid yet.
    TlsExpired,
    /// The port speaks plain HTTP where TLS was expected.
    HttpOnHttps,
    /// Something answers, but not a registry.
    NotARegistry,
    /// Credentials are wrong or missing.
    Unauthorized,
    /// Credentials were right once.
    TokenExpired,
    /// Credentials are right but too weak for what was asked.
    InsufficientScope,
    /// Refused whoever asks, or refused by policy.
    Forbidden,
    /// The repository, tag or platform doesn't exist.
    NotFound,
    /// Too many requests.
    RateLimited,
    /// The address is one that Purser does not dial.
    EgressDenied,
    /// The registry wanted the secret sent to a host that it doesn't belong to.
    RealmDenied,
    /// The Docker host isn't connected.
    ServerOffline,
    /// The Docker Engine itself failed.
    EngineError,
    /// Anything else; the message says what.
    Other,
}

impl DiagnosisCode {
    /// Every code, in the order of the API contract.
    pub const ALL: [Self; 19] = [
        Self::Dns,
        Self::Connect,
        Self::Timeout,
        Self::TlsUnknownAuthority,
        Self::TlsName,
        Self::TlsExpired,
        Self::HttpOnHttps,
        Self::NotARegistry,
        Self::Unauthorized,
        Self::TokenExpired,
        Self::InsufficientScope,
        Self::Forbidden,
        Self::NotFound,
        Self::RateLimited,
        Self::EgressDenied,
        Self::RealmDenied,
        Self::ServerOffline,
        Self::EngineError,
        Self::Other,
    ];

    /// Whether what has this code may pass by itself: the network and rate limits, and never what a
    /// registry says of a credential or a name.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Dns | Self::Connect | Self::Timeout | Self::RateLimited)
    }

    /// The code as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::TlsUnknownAuthority => "tls_unknown_authority",
            Self::TlsName => "tls_name",
            Self::TlsExpired => "tls_expired",
            Self::HttpOnHttps => "http_on_https",
            Self::NotARegistry => "not_a_registry",
            Self::Unauthorized => "unauthorized",
            Self::TokenExpired => "token_expired",
            Self::InsufficientScope => "insufficient_scope",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::RateLimited => "rate_limited",
            Self::EgressDenied => "egress_denied",
            Self::RealmDenied => "realm_denied",
            Self::ServerOffline => "server_offline",
            Self::EngineError => "engine_error",
            Self::Other => "other",
        }
    }
}

impl std::fmt::Display for DiagnosisCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What went wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// For programs.
    pub code: DiagnosisCode,
    /// One sentence for people.
    pub message: String,
    /// What to try next; empty when nothing useful can be said.
    pub advice: String,
    /// What the Engine or the registry said, stripped of control characters and cut at [`MAX_TEXT_BYTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_message: Option<String>,
    /// Set where the same may succeed later without anybody's doing, such as after a rate limit: not to
    /// be tried again sooner than this, as far as the other side said. No part of the public answer.
    #[serde(skip)]
    pub passes_after: Option<Duration>,
}

impl Diagnosis {
    /// A diagnosis without the words of the other side. `message` is made [`presentable`].
    pub fn new(code: DiagnosisCode, message: impl AsRef<str>, advice: impl Into<String>) -> Self {
        Self {
            code,
            message: presentable(message.as_ref()),
            advice: advice.into(),
            engine_message: None,
            passes_after: code.may_pass().then_some(Duration::ZERO),
        }
    }

    /// The same, as something that may pass by itself, but not sooner than after `wait`.
    #[must_use]
    pub fn passing_after(mut self, wait: Duration) -> Self {
        self.passes_after = Some(wait);
        self
    }

    /// Adds what the other side said, made [`presentable`]; nothing when it said nothing.
    #[must_use]
    pub fn with_engine_message(mut self, message: &str) -> Self {
        let message = presentable(message);
        self.engine_message = (!message.is_empty()).then_some(message);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_written_as_the_contract_says() {
        for code in DiagnosisCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), serde_json::json!(code.as_str()));
        }
    }

    #[test]
    fn a_newer_peer_may_send_fields_this_one_does_not_know() {
        let text = r#"{"code":"dns","message":"m","advice":"a","engineMessage":"e","invented":1}"#;
        let diagnosis: Diagnosis = serde_json::from_str(text).unwrap();
        assert_eq!(diagnosis.engine_message.as_deref(), Some("e"));
    }
}
