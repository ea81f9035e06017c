//! Which registry entry a reference is pulled with: the one resolver, for every road that pulls.
//!
//! An entry that the call names wins, if its host is the image's. A name without a registry goes to
//! the organization's default entry, under its namespace; with none, to Docker Hub. Of the entries of
//! the image's host the one with the longest namespace wins, on `/` boundaries; of equals the
//! default, else the oldest. None: anonymous, and the job says so.

use purser_proto_schema::{ids::RegistryId, registry::Fate};
use purser_registry_client::{Reference, canonical_registry_host};

use crate::{
    error::{Error, Result},
    store::{Entries, RegistryRow},
};

const DOCKER_HUB: &str = "docker.io";

/// What a reference comes to.
#[derive(Debug)]
pub struct Match<'a> {
    /// The reference, fully qualified, below the default registry where that applies.
    pub reference: Reference,
    /// The canonical host of its registry.
    pub host: String,
    /// The default entry that a name without a registry went below.
    pub default: Option<&'a RegistryRow>,
    /// The entry, or none: anonymous.
    pub entry: Option<&'a RegistryRow>,
}

impl Match<'_> {
    /// What became of an entry.
    pub fn fate(&self, entry: &RegistryRow) -> Fate {
        if entry.registry_host != self.host {
            return Fate::OtherHost;
        }
        if !in_namespace(&self.reference, entry.namespace.as_deref()) {
            return Fate::OtherNamespace;
        }
        let length = |entry: &RegistryRow| entry.namespace.as_ref().map_or(0, String::len);
        match self.entry {
            Some(chosen) if chosen.registry_id == entry.registry_id => Fate::Chosen,
            Some(chosen) if length(chosen) > length(entry) => Fate::ShorterNamespace,
            Some(chosen) if chosen.is_default => Fate::NotDefault,
            _ => Fate::Newer,
        }
    }
}

/// The entry that a call names.
///
/// # Errors
/// [`Error::NotFound`] when it is none of the organization's.
pub fn named<'a>(entries: &'a Entries, id: &RegistryId) -> Result<&'a RegistryRow> {
    entries.iter().find(|entry| entry.registry_id == id.as_str()).ok_or(Error::NotFound("Registry"))
}

/// Whether an entry is for the registry that a reference names.
pub fn is_of_registry(entry: &RegistryRow, reference: &Reference) -> bool {
    canonical_registry_host(reference.registry()) == entry.registry_host
}

/// Resolves a reference among the organization's entries.
///
/// # Errors
/// [`Error::Invalid`] naming `registryId` when the named entry's host is not the image's, or `image`
/// when it cannot stand below the default registry.
pub fn resolve<'a>(
    entries: &'a Entries,
    reference: Reference,
    named: Option<&'a RegistryRow>,
) -> Result<Match<'a>> {
    if let Some(entry) = named {
        if !is_of_registry(entry, &reference) {
            return Err(Error::field(
                "registryId",
                "is an entry of another registry than the image's: write the image with its registry, or leave \
                 registryId out",
            ));
        }
        let host = entry.registry_host.clone();
        return Ok(Match { reference, host, default: None, entry: Some(entry) });
    }
    let default = if reference.explicit_registry() { None } else { default_of(entries) };
    let reference = match default {
        Some(entry) => reference
            .with_registry_and_prefix(&entry.registry_host, entry.namespace.as_deref())
            .map_err(|error| Error::field("image", error.to_string()))?,
        None => reference,
    };
    let host = canonical_registry_host(reference.registry());
    let entry = best(entries, &host, &reference);
    Ok(Match { reference, host, default, entry })
}

/// Where names without a registry go, other than to Docker Hub.
fn default_of(entries: &Entries) -> Option<&RegistryRow> {
    entries.default_entry().filter(|entry| entry.registry_host != DOCKER_HUB)
}

/// The best entry for a reference, looked up: an organization may have thousands.
fn best<'a>(entries: &'a Entries, host: &str, reference: &Reference) -> Option<&'a RegistryRow> {
    let of_host = entries.of_host(host);
    let default = entries.default_entry().filter(|entry| entry.registry_host == host);
    namespaces(reference.repository()).find_map(|namespace| {
        let oldest = of_host.oldest_in(namespace)?;
        Some(default.filter(|entry| entry.namespace.as_deref() == namespace).unwrap_or(oldest))
    })
}

/// The namespaces that a repository is in, longest first; the last is the whole registry.
fn namespaces(repository: &str) -> impl Iterator<Item = Option<&str>> {
    let parents = repository.rmatch_indices('/').map(|(slash, _)| Some(&repository[..slash]));
    std::iter::once(Some(repository)).chain(parents).chain([None])
}

fn in_namespace(reference: &Reference, namespace: Option<&str>) -> bool {
    let Some(namespace) = namespace else { return true };
    let rest = reference.repository().strip_prefix(namespace);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, host: &str, namespace: Option<&str>, is_default: bool) -> RegistryRow {
        let namespace = namespace.map(ToOwned::to_owned);
        RegistryRow { registry_id: id.to_owned(), namespace, is_default, ..RegistryRow::of_host(host) }
    }

    fn resolved(entries: &[RegistryRow], image: &str) -> (Option<String>, String) {
        let entries = Entries::from(entries.to_vec());
        let found = resolve(&entries, Reference::parse(image).unwrap(), None).unwrap();
        (found.entry.map(|entry| entry.registry_id.clone()), found.reference.to_string())
    }

    #[test]
    fn the_longest_namespace_wins_on_slash_boundaries() {
        let entries = [
            entry("host", "ghcr.io", None, false),
            entry("org", "ghcr.io", Some("myorg"), false),
            entry("team", "ghcr.io", Some("myorg/team"), false),
        ];
        let found = |image| resolved(&entries, image).0.unwrap();
        assert_eq!(found("ghcr.io/myorg/team/app"), "team");
        assert_eq!(found("ghcr.io/myorg/app"), "org");
        assert_eq!(found("ghcr.io/myorganization/app"), "host");
        assert_eq!(found("GHCR.io/other/app"), "host");
    }

    #[test]
    fn of_equals_the_default_wins_else_the_oldest() {
        let two = |second| [entry("a", "ghcr.io", None, false), entry("b", "ghcr.io", None, second)];
        assert_eq!(resolved(&two(false), "ghcr.io/x").0.unwrap(), "a");
        assert_eq!(resolved(&two(true), "ghcr.io/x").0.unwrap(), "b");
    }

    #[test]
    fn a_name_without_a_registry_goes_to_the_default() {
        let entries = [entry("hub", "docker.io", None, false), entry("own", "ghcr.io", Some("myorg"), true)];
        assert_eq!(resolved(&entries, "app:1"), (Some("own".into()), "ghcr.io/myorg/app:1".into()));
        assert_eq!(
            resolved(&entries, "docker.io/library/nginx"),
            (Some("hub".into()), "docker.io/library/nginx:latest".into())
        );
    }

    #[test]
    fn without_a_default_it_goes_to_docker_hub() {
        let entries = [entry("ghcr", "ghcr.io", None, false), entry("hub", "docker.io", None, false)];
        assert_eq!(
            resolved(&entries, "nginx"),
            (Some("hub".into()), "docker.io/library/nginx:latest".into())
        );
        assert_eq!(resolved(&entries[..1], "nginx").0, None);
    }

    #[test]
    fn every_entry_has_a_fate_and_the_chosen_one_is_the_resolvers() {
        let entries = [
            entry("hub", "docker.io", None, false),
            entry("host", "ghcr.io", None, true),
            entry("old", "ghcr.io", Some("myorg"), false),
            entry("new", "ghcr.io", Some("myorg"), false),
            entry("other", "ghcr.io", Some("my"), false),
        ];
        let fates = |entries: &[RegistryRow]| {
            let reference = Reference::parse("ghcr.io/myorg/app").unwrap();
            let entries = Entries::from(entries.to_vec());
            let found = resolve(&entries, reference, None).unwrap();
            entries.iter().map(|entry| found.fate(entry)).collect::<Vec<_>>()
        };
        use Fate::{Chosen, Newer, NotDefault, OtherHost, OtherNamespace, ShorterNamespace};
        assert_eq!(fates(&entries), [OtherHost, ShorterNamespace, Chosen, Newer, OtherNamespace]);
        let mut entries = entries;
        (entries[1].is_default, entries[3].is_default) = (false, true);
        assert_eq!(fates(&entries), [OtherHost, ShorterNamespace, NotDefault, Chosen, OtherNamespace]);
    }

    /// What the rule says, by looking at every entry.
    fn looked_through<'a>(entries: &'a Entries, found: &Match<'_>) -> Option<&'a RegistryRow> {
        let rank = |entry: &RegistryRow| (entry.namespace.as_ref().map_or(0, String::len), entry.is_default);
        let fits = |entry: &&RegistryRow| {
            entry.registry_host == found.host && in_namespace(&found.reference, entry.namespace.as_deref())
        };
        entries.iter().filter(fits).reduce(|best, next| if rank(next) > rank(best) { next } else { best })
    }

    #[test]
    fn looking_up_finds_what_looking_through_finds_and_one_fate_is_chosen() {
        let hosts = ["docker.io", "ghcr.io", "ghcr.io:443"];
        let namespaces = [None, Some("a"), Some("a-b"), Some("a/b"), Some("library"), Some("a/b/c")];
        let rows = |twist: usize| (0..40).map(move |n| (n * 7 + twist * 13) * (n + twist + 3));
        let images =
            ["a", "a/b", "a/b/c/d", "a-b/c", "ghcr.io/a", "ghcr.io/a/b", "ghcr.io/a/bc", "ghcr.io:443/x"];
        for twist in 0..60 {
            let row = |(n, pick): (usize, usize)| {
                let is_default = n == twist;
                entry(&n.to_string(), hosts[pick % 3], namespaces[pick / 3 % 6], is_default)
            };
            let entries = Entries::from(rows(twist).enumerate().map(row).collect::<Vec<_>>());
            for image in images {
                let found = resolve(&entries, Reference::parse(image).unwrap(), None).unwrap();
                assert_eq!(found.entry, looked_through(&entries, &found), "{image} {twist}");
                let chosen = entries.iter().filter(|entry| found.fate(entry) == Fate::Chosen).count();
                assert_eq!(chosen, usize::from(found.entry.is_some()), "{image} {twist}");
            }
        }
    }

    #[test]
    fn a_named_entry_of_another_host_is_refused() {
        let entries = Entries::from(vec![entry("ghcr", "ghcr.io", None, false)]);
        let reference = Reference::parse("registry.example.com/app").unwrap();
        assert!(matches!(resolve(&entries, reference, Some(&entries[0])), Err(Error::Invalid(_))));
    }
}
