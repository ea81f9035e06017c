//! Finding repositories by a part of their name.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::catalog::AT_ONCE;
use super::document::Verdict;
use super::list::{Walk, walk};
use super::tags::list_of;
use super::{BrowseError, MAX_ITEMS, is_within};
use crate::diagnosis::DiagnosisCode as Code;
use crate::reference::is_valid_path;
use crate::session::Session;

/// The longest query, in characters.
const MAX_QUERY_CHARS: usize = 256;
/// How many pages of a catalog one search looks through, of up to [`AT_ONCE`] names each.
const MAX_PAGES: usize = 20;

/// One repository that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SearchHit {
    /// The path below the registry; `library/nginx` for Docker Hub's `nginx`.
    pub repository: String,
    /// What to pull, without a tag: `nginx`, `ghcr.io/org/app`.
    pub image: String,
    /// The query named exactly this repository, and the registry has it.
    pub exact: bool,
    /// Docker Hub's short description, fit to be shown, at most 2 KiB.
    pub description: Option<String>,
    /// Docker Hub's stars.
    pub stars: Option<u64>,
    /// How often it was pulled from Docker Hub.
    pub pulls: Option<u64>,
    /// One of Docker Hub's official images.
    pub official: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SearchResult {
    /// The best first: exact ones, then in the registry's order.
    pub items: Vec<SearchHit>,
    /// Everything was looked through that this search looks through. If not, there may be more, and `warnings` say why.
    pub complete: bool,
    /// What a person should know.
    pub warnings: Vec<String>,
}

impl Session<'_> {
    /// Finds up to `limit` repositories (1 to [`MAX_ITEMS`]), those of the entry's namespace where it has one.
    ///
    /// A query that is a whole path (`org/image`, with or without this registry's host) is looked up first, which works
    /// without a catalog. Then Docker Hub is searched by its website's API (without credentials, so private repositories
    /// are found by their whole path only); everywhere else the catalog is filtered, up to 20 pages of 1,000 names and
    /// three quarters of the time that is left. Letter case doesn't matter.
    ///
    /// # Errors
    /// [`BrowseError::Query`], and [`BrowseError::Failed`] where the registry can't be asked at all. A registry without a
    /// catalog is none: the result is incomplete and says so.
    pub async fn search(&mut self, query: &str, limit: usize) -> Result<SearchResult, BrowseError> {
        let is_long = query.chars().count() > MAX_QUERY_CHARS;
        let query = query.trim().to_lowercase();
        if query.is_empty() || is_long || query.chars().any(char::is_control) {
            return Err(BrowseError::Query);
        }
        let limit = limit.clamp(1, MAX_ITEMS);
        let own = format!("{}/", self.target.address.host);
        let query = query.strip_prefix(&own).unwrap_or(&query).trim_matches('/').to_owned();
        if query.is_empty() {
            return Err(BrowseError::Query);
        }
        let mut result = SearchResult { complete: true, ..SearchResult::default() };
        self.look_up(&query, &mut result).await?;
        if self.target.address.is_docker_hub() {
            match self.search_hub(&query, limit, &mut result).await {
                // What was found is not thrown away.
                Err(BrowseError::Failed(diagnosis)) if !result.items.is_empty() => {
                    result.complete = false;
                    result.warnings.push(diagnosis.message);
                }
                searched => searched?,
            }
        } else {
            self.search_catalog(&query, limit, &mut result).await?;
        }
        result.items.truncate(limit);
        Ok(result)
    }

    /// Looks whether the query is a repository. What is refused here may still be found otherwise.
    async fn look_up(&mut self, query: &str, result: &mut SearchResult) -> Result<(), BrowseError> {
        let hub = self.target.address.is_docker_hub();
        let namespace = self.target.address.namespace.clone();
        let inside = namespace.filter(|namespace| !is_within(query, namespace));
        let candidate = inside.map_or_else(|| query.to_owned(), |namespace| format!("{namespace}/{query}"));
        // A bare word on Docker Hub is better searched for.
        if !is_valid_path(&candidate) || (hub && !candidate.contains('/')) {
            return Ok(());
        }
        match walk(self, &list_of(&candidate, 1), None, 1, 1).await {
            Ok(Walk::Page(_)) => {
                let hit = self.hit(candidate);
                result.items.push(SearchHit { exact: true, ..hit });
                Ok(())
            }
            Ok(Walk::Refused(answer)) if answer.status == StatusCode::TOO_MANY_REQUESTS => {
                Err(self.refusal(&answer, "repositories").into())
            }
            Ok(Walk::Refused(_)) => Ok(()),
            Err(BrowseError::Failed(diagnosis)) if self.is_no_answer(diagnosis.code) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether a look-up that failed says no more than that there is nothing to be seen.
    fn is_no_answer(&self, code: Code) -> bool {
        match code {
            Code::Forbidden | Code::InsufficientScope | Code::NotFound | Code::NotARegistry => true,
            Code::Unauthorized => self.credentials.is_none(),
            _ => false,
        }
    }

    async fn search_catalog(
        &mut self,
        query: &str,
        limit: usize,
        result: &mut SearchResult,
    ) -> Result<(), BrowseError> {
        let namespace = self.target.address.namespace.clone();
        let keep = |name: &str| {
            let foreign = namespace.as_deref().is_some_and(|namespace| !is_within(name, namespace));
            match name {
                _ if !is_valid_path(name) => Verdict::Improper,
                _ if foreign || !name.contains(query) => Verdict::Skip,
                _ => Verdict::Keep,
            }
        };
        let enough = limit + 1;
        let until = tokio::time::Instant::now() + self.ladder.remaining().mul_f64(0.75);
        let mut cursor: Option<String> = None;
        let mut found = Vec::new();
        for _ in 0..MAX_PAGES {
            let room = enough.saturating_sub(found.len());
            let page = match self.catalog_of(&keep, cursor.as_deref(), room, AT_ONCE, 1).await {
                Ok(page) => page,
                Err(BrowseError::NotSupported { message, advice }) => {
                    result.complete = false;
                    result.warnings.push(format!("{message}. {advice}"));
                    break;
                }
                // What was found is not thrown away.
                Err(BrowseError::Failed(diagnosis)) if cursor.is_some() || !result.items.is_empty() => {
                    result.complete = false;
                    result.warnings.push(diagnosis.message);
                    break;
                }
                Err(error) => return Err(error),
            };
            found.extend(page.items);
            for warning in page.warnings {
                result.complete = false;
                if !result.warnings.contains(&warning) {
                    result.warnings.push(warning);
                }
            }
            cursor = page.next_cursor;
            if cursor.is_none() || found.len() >= enough || tokio::time::Instant::now() >= until {
                break;
            }
        }
        if cursor.is_some() || found.len() > limit {
            result.complete = false;
            result.warnings.push("There may be more; write more of the name, or all of it.".to_owned());
        }
        for repository in found {
            if result.items.iter().all(|hit| hit.repository != repository) {
                let hit = self.hit(repository);
                result.items.push(hit);
            }
        }
        Ok(())
    }

    /// A hit about which nothing but its name is known.
    pub(super) fn hit(&self, repository: String) -> SearchHit {
        let host = self.host();
        let name = format!("{host}/{repository}");
        let familiar = crate::Reference::parse(&name).map(|reference| reference.familiar_name());
        SearchHit {
            image: familiar.unwrap_or(name),
            repository,
            exact: false,
            description: None,
            stars: None,
            pulls: None,
            official: false,
        }
    }
}
