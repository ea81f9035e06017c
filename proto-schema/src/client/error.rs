//! How a call can fail, for whoever made it.

use std::{error::Error, time::Duration};

use http::StatusCode;
use purser_registry_client::CaCertificateError;

use crate::error::{Code, PublicError, TestDiagnosis};

/// Why there is no output. Messages hold no secret: neither the key nor an input is ever in them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The URL is of another form.
    #[error("the URL of a control plane is http:// or https://, a host, and perhaps a port and a path")]
    Url,
    /// The key is empty, or has characters that no header carries.
    #[error("the API key is empty or has characters that no key has")]
    Key,
    /// No TLS with these authorities.
    #[error("TLS cannot be set up")]
    Tls(#[source] Cause),
    /// The input has no form on the wire.
    #[error("the input cannot be written")]
    Input(#[source] serde_json::Error),
    /// Nobody could be reached, or the connection broke.
    #[error("the control plane cannot be reached")]
    Connection(#[source] Cause),
    /// No complete answer in time.
    #[error("no complete answer within {0:?}")]
    Timeout(Duration),
    /// The answer is larger than [`MAX_ANSWER`](super::MAX_ANSWER).
    #[error("the answer is larger than 16 MiB")]
    TooLarge,
    /// What answers is no Purser, or one whose outputs this version does not know.
    #[error("the answer (HTTP {status}) is none of a Purser of this version")]
    Unreadable {
        /// The HTTP status.
        status: u16,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A subscription's connection was closed by the other side, which says why.
    #[error("the control plane closed the connection: {0}")]
    Closed(String),
    /// What the control plane answers.
    #[error("{}: {}", .0.data.code.as_str(), .0.message)]
    Refused(Box<PublicError>),
}

/// An error of a library below.
pub type Cause = Box<dyn Error + Send + Sync>;

impl ClientError {
    /// What the control plane answered; `None` where it did not.
    #[must_use]
    pub fn public(&self) -> Option<&PublicError> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }

    /// The code of the answer.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        self.public().map(|error| error.data.code)
    }

    /// Why a registry or an engine refused, where it is that.
    #[must_use]
    pub fn diagnosis(&self) -> Option<&TestDiagnosis> {
        self.public()?.data.diagnosis.as_ref()
    }

    pub(super) fn unreadable(status: StatusCode, source: serde_json::Error) -> Self {
        Self::Unreadable { status: status.as_u16(), source }
    }

    pub(super) fn connection(cause: impl Into<Cause>) -> Self {
        Self::Connection(cause.into())
    }
}

impl From<CaCertificateError> for ClientError {
    fn from(error: CaCertificateError) -> Self {
        Self::Tls(error.into())
    }
}
