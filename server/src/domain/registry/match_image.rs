//! `registry.match`: which entry an image is pulled with, and in words why no other.

use std::sync::Arc;

use purser_proto_schema::{
    ids::RegistryId,
    registry::{Candidate, Fate, MatchInput, MatchResult, MatchedReference},
};
use purser_registry_client::Reference;

use crate::{
    app::App,
    domain::{
        caller::Call,
        matching::{self, Match},
    },
    error::{Error, Result},
    store::RegistryRow,
};

/// How many rivals are listed; each is among the candidates, too.
const MAX_RIVALS: usize = 100;

/// `registry.match`
pub async fn match_image(app: Arc<App>, call: Arc<Call>, input: MatchInput) -> Result<MatchResult> {
    let reference =
        Reference::parse(&input.image).map_err(|error| Error::field("image", error.to_string()))?;
    let entries = app.store.registry_all(call.organization()).await?;
    let found = matching::resolve(&entries, reference, None)?;
    Ok(explain(&entries, &found))
}

fn explain(entries: &[RegistryRow], found: &Match<'_>) -> MatchResult {
    let id = |entry: &RegistryRow| RegistryId::from_stored(entry.registry_id.clone());
    let candidates: Vec<_> = entries
        .iter()
        .map(|entry| {
            let fate = found.fate(entry);
            Candidate {
                registry_id: id(entry),
                registry_name: entry.registry_name.clone(),
                chosen: fate == Fate::Chosen,
                fate,
                reason: fate_in_words(fate, entry, found),
            }
        })
        .collect();
    let rivals =
        candidates.iter().filter(|candidate| matches!(candidate.fate, Fate::NotDefault | Fate::Newer));
    let rivals: Vec<_> = rivals.map(|candidate| candidate.registry_id.clone()).take(MAX_RIVALS).collect();
    MatchResult {
        reference: taken_apart(found),
        registry_id: found.entry.map(id),
        reason: reason(found, rivals.len()),
        rivals,
        candidates,
    }
}

/// What would be pulled, taken apart.
pub fn taken_apart(found: &Match<'_>) -> MatchedReference {
    MatchedReference {
        registry: found.host.clone(),
        repository: found.reference.repository().to_owned(),
        tag: found.reference.tag().map(ToOwned::to_owned),
        digest: found.reference.digest().map(ToOwned::to_owned),
    }
}

/// Why the image is pulled as it is: [`MatchResult::reason`] without the rest.
pub fn reason_among(entries: &[RegistryRow], found: &Match<'_>) -> String {
    let is_rival = |entry: &&RegistryRow| matches!(found.fate(entry), Fate::NotDefault | Fate::Newer);
    reason(found, entries.iter().filter(is_rival).count())
}

fn reason(found: &Match<'_>, rivals: usize) -> String {
    let way = match found.default {
        Some(default) => format!(
            "The name has no registry, so it goes to that of the default entry {}, as {}. ",
            default.registry_name, found.reference
        ),
        None if !found.reference.explicit_registry() => {
            "The name has no registry, and no default entry says otherwise, so it is Docker Hub's. "
                .to_owned()
        }
        None => String::new(),
    };
    let Some(entry) = found.entry else {
        let image = found.reference.repository();
        return format!("{way}No entry is for {image} at {}: it is pulled without credentials.", found.host);
    };
    let which = match &entry.namespace {
        Some(namespace) => format!("whose namespace {namespace} is the longest that holds the image"),
        None => format!("for all of {}", found.host),
    };
    let among = match rivals {
        0 => "",
        _ if entry.is_default => "; of several that are equally good it is the default",
        _ => "; of several that are equally good it is the oldest",
    };
    format!("{way}It is pulled with the entry {}, {which}{among}.", entry.registry_name)
}

fn fate_in_words(fate: Fate, entry: &RegistryRow, found: &Match<'_>) -> String {
    let chosen = found.entry.map_or("", |chosen| chosen.registry_name.as_str());
    let own = entry.namespace.as_deref().unwrap_or_default();
    match fate {
        Fate::Chosen => "chosen".to_owned(),
        Fate::OtherHost => format!("for {}, and the image is kept at {}", entry.registry_host, found.host),
        Fate::OtherNamespace => {
            format!("for the namespace {own}, and the image is {}", found.reference.repository())
        }
        Fate::ShorterNamespace if own.is_empty() => {
            format!("for the whole registry, and {chosen} is for a namespace that holds the image")
        }
        Fate::ShorterNamespace => format!("its namespace {own} is shorter than that of {chosen}"),
        Fate::NotDefault => format!("as good as {chosen}, which is the default"),
        Fate::Newer => format!("as good as {chosen}, which is older"),
    }
}
