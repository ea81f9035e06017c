//! `registry.search`: one registry, or all of the organization's side by side.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use purser_proto_schema::{
    ids::RegistryId,
    limits,
    registry::{Found, SearchAnswer, SearchError, SearchInput, SearchWarning},
};
use purser_registry_client::{
    Diagnosis, DiagnosisCode,
    browse::{BrowseError, SearchHit, SearchResult},
};
use tokio::time::Instant;

use super::browse::{DEADLINE, Place, limit, refused};
use crate::{
    app::App,
    domain::caller::Call,
    error::{Error, Result},
    store::RegistryRow,
};

/// How many registries are asked at once for one call.
const SIDE_BY_SIDE: usize = 8;
/// How many hits a call wants that does not say.
const USUAL_LIMIT: usize = 25;

/// `registry.search`
pub async fn search(app: Arc<App>, call: Arc<Call>, input: SearchInput) -> Result<SearchAnswer> {
    let limit = limit(input.limit, USUAL_LIMIT)?;
    check(&input.query)?;
    let until = Instant::now() + DEADLINE;
    if let Some(id) = &input.registry_id {
        let row = app.store.registry_one(call.organization(), id).await?;
        let found = search_one(&app, &call, &row, &Arc::from(input.query), limit, until).await?;
        let mut gathered = Gathered::new(limit);
        gathered.add(0, &row, found);
        return Ok(gathered.finish());
    }
    let rows = app.store.registry_all(call.organization()).await?;
    let query: Arc<str> = input.query.into();
    let each = stream::iter(0..rows.len()).map(|at| {
        let (app, call, rows, query) =
            (Arc::clone(&app), Arc::clone(&call), Arc::clone(&rows), Arc::clone(&query));
        async move { (at, search_one(&app, &call, &rows[at], &query, limit, until).await) }
    });
    let mut each = each.buffer_unordered(SIDE_BY_SIDE);
    let mut gathered = Gathered::new(limit);
    while let Some((at, found)) = each.next().await {
        match found {
            Ok(found) => gathered.add(at, &rows[at], found),
            Err(Error::TestFailed(failed)) => gathered.fail(at, &rows[at], failed.diagnosis),
            Err(Error::Unavailable(why)) => gathered.skip(at, &rows[at], why),
            // Everything else is the caller's or ours, and the same for every registry.
            Err(error) => return Err(error),
        }
    }
    Ok(gathered.finish())
}

/// What each registry would say of the query, also where there is none.
fn check(query: &str) -> Result<()> {
    let is_long = query.chars().count() > limits::QUERY_CHARS;
    if is_long || query.trim().is_empty() || query.trim().chars().any(char::is_control) {
        return Err(refused(BrowseError::Query));
    }
    Ok(())
}

async fn search_one(
    app: &Arc<App>,
    call: &Arc<Call>,
    row: &RegistryRow,
    query: &Arc<str>,
    limit: usize,
    until: Instant,
) -> Result<SearchResult> {
    let place = Place::of_entry(&app.vault, call.organization(), row)?;
    let query = Arc::clone(query);
    let asked = place.ask(app, call, until.saturating_duration_since(Instant::now()), move |session| {
        Box::pin(async move {
            let mut found = session.search(&query, limit).await?;
            found.warnings.extend_from_slice(session.warnings());
            Ok(found)
        })
    });
    asked.await.map_err(refused)
}

/// Where a hit stands: exact ones first, then each registry's first, each registry's second, and so on.
type Order = (bool, usize, usize);

/// The best hits so far, and what else there is to say, in the order of the entries.
struct Gathered {
    limit: usize,
    hits: Vec<(Order, Found)>,
    cut: bool,
    incomplete: bool,
    warnings: Vec<(usize, SearchWarning)>,
    errors: Vec<(usize, SearchError)>,
}

impl Gathered {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            hits: Vec::new(),
            cut: false,
            incomplete: false,
            warnings: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn add(&mut self, at: usize, row: &RegistryRow, found: SearchResult) {
        let id = RegistryId::from_stored(row.registry_id.clone());
        self.incomplete |= !found.complete;
        let of_entry =
            |hit: SearchHit| Found { registry_id: id.clone(), registry_name: row.registry_name.clone(), hit };
        let hits = found.items.into_iter().enumerate();
        self.hits.extend(hits.map(|(nth, hit)| ((!hit.exact, nth, at), of_entry(hit))));
        self.hits.sort_by_key(|(order, _)| *order);
        self.cut |= self.hits.len() > self.limit;
        self.hits.truncate(self.limit);
        let warnings = found.warnings.into_iter();
        self.warnings
            .extend(warnings.map(|message| (at, SearchWarning { registry_id: id.clone(), message })));
    }

    /// A registry that was not asked.
    fn skip(&mut self, at: usize, row: &RegistryRow, why: &'static str) {
        self.fail(at, row, Diagnosis::new(DiagnosisCode::Other, why, "Search again in a moment."));
    }

    fn fail(&mut self, at: usize, row: &RegistryRow, diagnosis: Diagnosis) {
        let error = SearchError {
            registry_id: RegistryId::from_stored(row.registry_id.clone()),
            registry_name: row.registry_name.clone(),
            code: DiagnosisCode::as_str(diagnosis.code).to_owned(),
            message: diagnosis.message,
            advice: diagnosis.advice,
        };
        self.errors.push((at, error));
    }

    fn finish(mut self) -> SearchAnswer {
        self.warnings.sort_by_key(|(at, _)| *at);
        self.errors.sort_by_key(|(at, _)| *at);
        SearchAnswer {
            complete: !self.incomplete && !self.cut && self.errors.is_empty(),
            items: self.hits.into_iter().map(|(_, found)| found).collect(),
            warnings: self.warnings.into_iter().map(|(_, warning)| warning).collect(),
            errors: self.errors.into_iter().map(|(_, error)| error).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(names: &[(&str, bool)]) -> SearchResult {
        let hit = |(name, exact): &(&str, bool)| SearchHit {
            repository: (*name).to_owned(),
            image: (*name).to_owned(),
            exact: *exact,
            description: None,
            stars: None,
            pulls: None,
            official: false,
        };
        SearchResult { items: names.iter().map(hit).collect(), complete: true, warnings: Vec::new() }
    }

    #[test]
    fn registries_take_turns_and_exact_hits_come_first() {
        let (one, two) = (RegistryRow::of_host("a"), RegistryRow::of_host("b"));
        let mut gathered = Gathered::new(4);
        gathered.add(1, &two, hits(&[("b1", true), ("b2", false)]));
        gathered.add(0, &one, hits(&[("a1", false), ("a2", false), ("a3", false)]));
        let answer = gathered.finish();
        let names: Vec<_> = answer.items.iter().map(|found| found.hit.repository.as_str()).collect();
        assert_eq!(names, ["b1", "a1", "a2", "b2"]);
        assert!(!answer.complete, "a3 was cut");
    }

    #[test]
    fn a_registry_that_failed_leaves_the_answer_incomplete() {
        let row = RegistryRow::of_host("a");
        let mut gathered = Gathered::new(4);
        gathered.fail(0, &row, Diagnosis::new(DiagnosisCode::Connect, "no", "try"));
        let answer = gathered.finish();
        assert!(!answer.complete);
        assert_eq!((answer.errors[0].code.as_str(), answer.errors[0].advice.as_str()), ("connect", "try"));
    }
}
