//! The repositories of a registry.

use http::StatusCode;

use super::document::Verdict;
use super::list::{List, Walk, walk};
use super::{BrowseError, MAX_ITEMS, Page, is_within};
use crate::connection::Answer;
use crate::diagnosis::DiagnosisCode as Code;
use crate::reference::is_valid_path;
use crate::session::Session;

/// How many pages of the registry one call may ask for where few of the names are of the entry's namespace.
const MAX_PAGES: usize = 10;
/// How many names to ask for at once where most are likely to be left out.
pub(super) const AT_ONCE: usize = 1000;

impl Session<'_> {
    /// Lists up to `limit` repositories (1 to [`MAX_ITEMS`]), those of the entry's namespace where it has one.
    ///
    /// # Errors
    /// [`BrowseError::NotSupported`] where the registry has no catalog, or not for these credentials;
    /// [`BrowseError::Failed`] with `unauthorized` where it is the credentials that are wrong.
    pub async fn catalog(&mut self, cursor: Option<&str>, limit: usize) -> Result<Page, BrowseError> {
        let namespace = self.target.address.namespace.clone();
        let keep = |name: &str| match &namespace {
            _ if !is_valid_path(name) => Verdict::Improper,
            Some(namespace) if !is_within(name, namespace) => Verdict::Skip,
            _ => Verdict::Keep,
        };
        let limit = limit.clamp(1, MAX_ITEMS);
        let at_once = if namespace.is_some() { AT_ONCE } else { limit };
        self.catalog_of(&keep, cursor, limit, at_once, MAX_PAGES).await
    }

    /// The part of the catalog that `keep` wants.
    pub(super) async fn catalog_of(
        &mut self,
        keep: &(dyn Fn(&str) -> Verdict + Sync),
        cursor: Option<&str>,
        limit: usize,
        at_once: usize,
        pages: usize,
    ) -> Result<Page, BrowseError> {
        if let Some(advice) = self.kind().without_catalog() {
            return Err(self.no_catalog(advice));
        }
        let list = List {
            path: "/v2/_catalog".to_owned(),
            scope: "registry:catalog:*".to_owned(),
            key: "repositories",
            at_once,
            what: "its repositories".to_owned(),
            keep,
        };
        match walk(self, &list, cursor, limit, pages).await {
            Ok(Walk::Page(page)) => Ok(page),
            Ok(Walk::Refused(answer)) => Err(self.catalog_refused(&answer).await),
            // A token server may refuse the scope rather than the password.
            Err(BrowseError::Failed(diagnosis))
                if matches!(
                    diagnosis.code,
                    Code::Unauthorized | Code::InsufficientScope | Code::Forbidden
                ) =>
            {
                match self.check_login().await {
                    Ok(()) => Err(self.no_catalog(self.kind().catalog_refused())),
                    Err(_) => Err(diagnosis.into()),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Tells a catalog that isn't shown from credentials that are wrong.
    async fn catalog_refused(&mut self, answer: &Answer) -> BrowseError {
        match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => match self.check_login().await {
                Ok(()) => self.no_catalog(self.kind().catalog_refused()),
                Err(diagnosis) => diagnosis.into(),
            },
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                self.no_catalog(self.kind().catalog_refused())
            }
            _ => self.refusal(answer, "its repositories").into(),
        }
    }

    fn no_catalog(&self, advice: &str) -> BrowseError {
        BrowseError::NotSupported {
            message: format!("{} doesn't list its repositories", self.host()),
            advice: advice.to_owned(),
        }
    }
}
