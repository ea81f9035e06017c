//! Looking into a registry: its repositories, their tags, a search, one image, and how much may still be pulled.
//!
//! Lists are paged: a page holds at most as many items as were asked for, and a cursor where there may be more. A page may
//! be short, even empty, and yet not the last; only a missing cursor is the end. Cursors are opaque, hold no secret, and
//! are good for the same list of the same registry only; a cursor that was tampered with can at most skip about in it.
//!
//! Names that no registry should hand out (control characters, upper case, endless ones) are left out and counted in a
//! warning.

mod attachments;
mod catalog;
mod cursor;
mod document;
mod hub_search;
mod image;
mod list;
mod manifest;
mod rate;
mod search;
mod tags;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::answer::{none_given, rate_limited, recognised};
use crate::connection::Answer;
use crate::diagnosis::{Diagnosis, DiagnosisCode as Code};
use crate::kind::RegistryKind;
use crate::outcome::Busy;
use crate::reference::is_valid_path;
use crate::session::Session;

pub use attachments::{Attachments, Referrer};
pub use image::{Image, Platform};
pub use rate::RateLimit;
pub use search::{SearchHit, SearchResult};

/// The most items of one page, and the most hits of a search.
pub const MAX_ITEMS: usize = 100;

/// Why something couldn't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BrowseError {
    /// This registry doesn't offer it, to nobody or not to these credentials.
    #[error("{message}")]
    NotSupported {
        /// One sentence for people.
        message: String,
        /// What to do instead.
        advice: String,
    },
    /// The cursor is none of this list.
    #[error("the cursor does not belong to this list; begin again without one")]
    Cursor,
    /// The repository isn't a valid path.
    #[error("the repository must be a path such as team/app, in lower case, without registry, tag or digest")]
    Repository,
    /// The repository is outside the entry's namespace.
    #[error("this registry entry is for the namespace {namespace} only")]
    OutsideNamespace {
        /// The entry's namespace.
        namespace: String,
    },
    /// Neither a tag nor a digest.
    #[error("the version must be a tag such as 1.27, or a digest such as sha256:…")]
    Version,
    /// The query of a search is blank, or longer than 256 characters.
    #[error("the search must have 1 to 256 characters")]
    Query,
    /// The registry wasn't asked.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The registry couldn't be asked, or didn't answer as hoped.
    #[error("{}", .0.message)]
    Failed(Diagnosis),
}

impl From<Diagnosis> for BrowseError {
    fn from(diagnosis: Diagnosis) -> Self {
        Self::Failed(diagnosis)
    }
}

/// A part of a list of names, in the registry's order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "NamePage"))]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// The names; each is valid in Docker's grammar.
    pub items: Vec<String>,
    /// Where to go on; `None` at the end.
    pub next_cursor: Option<String>,
    /// What a person should know about this page.
    pub warnings: Vec<String>,
}

impl Session<'_> {
    /// The repository as the registry's API wants it: `library/nginx` for Docker Hub's `nginx`.
    fn repository(&self, repository: &str) -> Result<String, BrowseError> {
        if !is_valid_path(repository) {
            return Err(BrowseError::Repository);
        }
        let official = self.target.address.is_docker_hub() && !repository.contains('/');
        let repository = if official { format!("library/{repository}") } else { repository.to_owned() };
        match self.target.address.namespace.as_deref() {
            Some(namespace) if !is_within(&repository, namespace) => {
                Err(BrowseError::OutsideNamespace { namespace: namespace.to_owned() })
            }
            _ => Ok(repository),
        }
    }

    /// What an answer means that isn't the hoped-for one; `what` is the thing that was asked for.
    fn refusal(&self, answer: &Answer, what: &str) -> Diagnosis {
        let host = self.host();
        let said = answer.message();
        let diagnosis = match answer.status {
            StatusCode::TOO_MANY_REQUESTS => rate_limited(answer, host),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.credentials.is_none() => {
                none_given(host)
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => recognised(&said).unwrap_or_else(|| {
                Diagnosis::new(
                    Code::Forbidden,
                    format!("{host} doesn't show {what} to these credentials"),
                    "Check the name, and that the credentials may read it; many registries answer so for what doesn't \
                     exist.",
                )
            }),
            StatusCode::NOT_FOUND => Diagnosis::new(
                Code::NotFound,
                format!("{host} has no {what}, or doesn't show it to these credentials"),
                "Check the name and the namespace.",
            ),
            StatusCode::BAD_REQUEST
                if matches!(self.kind(), RegistryKind::Ecr | RegistryKind::EcrPublic) =>
            {
                Diagnosis::new(Code::TokenExpired, format!("{host} refused the login with 400"), "")
            }
            status if status.is_redirection() => Diagnosis::new(
                Code::Other,
                format!("{host} sends questions about {what} to another place, which is not followed"),
                "Enter the address that the registry itself answers at.",
            ),
            status => Diagnosis::new(
                Code::Other,
                format!("{host} answered {} when asked for {what}", status.as_u16()),
                "The registry or a proxy in front of it has a fault; look at its log.",
            ),
        };
        self.advise(diagnosis.with_engine_message(&said))
    }

    /// An answer that isn't what it should be.
    fn nonsense(&self, answer: &Answer, what: &str) -> Diagnosis {
        let kind = if answer.is_page() { "a web page" } else { "something else" };
        Diagnosis::new(
            Code::NotARegistry,
            format!("{} answered with {kind} when asked for {what}", self.host()),
            "Look at the proxy in front of the registry: it must pass everything under /v2/.",
        )
    }
}

/// Whether `repository` is `namespace` or below it.
fn is_within(repository: &str, namespace: &str) -> bool {
    repository.strip_prefix(namespace).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests;
