//! Docker Hub's own search, which its website answers and its registry doesn't.

use serde::Deserialize;
use serde_json::Number;

use super::search::{SearchHit, SearchResult};
use super::{BrowseError, is_within};
use crate::diagnosis::{Diagnosis, DiagnosisCode as Code, presentable};
use crate::reference::is_valid_path;
use crate::session::Session;
use crate::token::push_encoded;

/// The most that is read of the website's answer, in bytes: 100 hits with their descriptions, and much room.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

#[derive(Deserialize)]
struct Found {
    results: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    repo_name: String,
    #[serde(default)]
    short_description: Option<String>,
    #[serde(default)]
    star_count: Option<Number>,
    #[serde(default)]
    pull_count: Option<Number>,
    #[serde(default)]
    is_official: bool,
}

impl Session<'_> {
    /// Adds what Docker Hub's website finds. `query` was checked.
    pub(super) async fn search_hub(
        &mut self,
        query: &str,
        limit: usize,
        result: &mut SearchResult,
    ) -> Result<(), BrowseError> {
        let namespace = self.target.address.namespace.clone();
        let mut path = "/v2/search/repositories/?query=".to_owned();
        match &namespace {
            Some(namespace) if !is_within(query, namespace) => {
                push_encoded(&mut path, &format!("{namespace}/{query}"));
            }
            _ => push_encoded(&mut path, query),
        }
        path.push_str(&format!("&page_size={limit}"));
        let answer = self.ask_hub_website(path, MAX_ANSWER_BYTES).await?;
        let found: Found = serde_json::from_slice(&answer.body).map_err(|_| {
            Diagnosis::new(Code::Other, "Docker Hub's search answered something else", "Try again later.")
        })?;
        if found.results.len() >= limit {
            result.complete = false;
            result.warnings.push("There may be more; write more of the name, or all of it.".to_owned());
        }
        for hit in found.results.into_iter().take(limit) {
            // Official images come without their namespace.
            let official = hit.is_official || !hit.repo_name.contains('/');
            let repository = if hit.repo_name.contains('/') {
                hit.repo_name
            } else {
                format!("library/{}", hit.repo_name)
            };
            let foreign = namespace.as_deref().is_some_and(|namespace| !is_within(&repository, namespace));
            if foreign || !is_valid_path(&repository) {
                continue;
            }
            let description = hit.short_description.map(|text| presentable(&text));
            let known = SearchHit {
                description: description.filter(|text| !text.is_empty()),
                stars: hit.star_count.and_then(|count| count.as_u64()),
                pulls: hit.pull_count.and_then(|count| count.as_u64()),
                official,
                ..self.hit(repository)
            };
            match result.items.iter_mut().find(|hit| hit.repository == known.repository) {
                Some(exact) => *exact = SearchHit { exact: true, ..known },
                None => result.items.push(known),
            }
        }
        Ok(())
    }
}
