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
    store::RegistryRow,
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
    /// What became of an entry, by the very comparison that chose.
    pub fn fate(&self, entry: &RegistryRow) -> Fate {
        let rank = match standing(entry, &self.host, &self.reference) {
            Standing::OtherHost => return Fate::OtherHost,
            Standing::OtherNamespace => return Fate::OtherNamespace,
            Standing::Fits(rank) => rank,
        };
        match self.entry {
            Some(chosen) if chosen.registry_id == entry.registry_id => Fate::Chosen,
            Some(chosen) if Rank::of(chosen).namespace > rank.namespace => Fate::ShorterNamespace,
            Some(chosen) if Rank::of(chosen).is_default => Fate::NotDefault,
            _ => Fate::Newer,
        }
    }
}

/// The entry that a call names.
///
/// # Errors
/// [`Error::NotFound`] when it is none of the organization's.
pub fn named<'a>(entries: &'a [RegistryRow], id: &RegistryId) -> Result<&'a RegistryRow> {
    entries.iter().find(|entry| entry.registry_id == id.as_str()).ok_or(Error::NotFound("Registry"))
}

/// Resolves a reference. `entries` are the organization's, oldest first.
///
/// # Errors
/// [`Error::Invalid`] naming `registryId` when the named entry's host is not the image's, or `image`
/// when it cannot stand below the default registry.
pub fn resolve<'a>(
    entries: &'a [RegistryRow],
    reference: Reference,
    named: Option<&'a RegistryRow>,
) -> Result<Match<'a>> {
    if let Some(entry) = named {
        let host = canonical_registry_host(reference.registry());
        if host != entry.registry_host {
            return Err(Error::field(
                "registryId",
                "is an entry of another registry than the image's: write the image with its registry, or leave \
                 registryId out",
            ));
        }
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
fn default_of(entries: &[RegistryRow]) -> Option<&RegistryRow> {
    entries.iter().find(|entry| entry.is_default && entry.registry_host != DOCKER_HUB)
}

fn best<'a>(entries: &'a [RegistryRow], host: &str, reference: &Reference) -> Option<&'a RegistryRow> {
    let fitting = entries.iter().filter_map(|entry| match standing(entry, host, reference) {
        Standing::Fits(rank) => Some((rank, entry)),
        Standing::OtherHost | Standing::OtherNamespace => None,
    });
    // The entries come oldest first, and the first of equals stays.
    fitting.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, entry)| entry)
}

/// Whether an entry is for a reference, and how well.
enum Standing {
    OtherHost,
    OtherNamespace,
    Fits(Rank),
}

/// How well an entry fits: the longer namespace first, then the default.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    namespace: usize,
    is_default: bool,
}

impl Rank {
    fn of(entry: &RegistryRow) -> Self {
        Self { namespace: entry.namespace.as_ref().map_or(0, String::len), is_default: entry.is_default }
    }
}

/// The namespace is looked at first: it tells most entries of one host apart, and the choice then has one
/// text to compare of each. The choice does not need the host of an entry whose namespace does not fit, and
/// optimized it is not compared.
fn standing(entry: &RegistryRow, host: &str, reference: &Reference) -> Standing {
    let of_host = || entry.registry_host == host;
    if in_namespace(reference, entry.namespace.as_deref()) {
        if of_host() { Standing::Fits(Rank::of(entry)) } else { Standing::OtherHost }
    } else if of_host() {
        Standing::OtherNamespace
    } else {
        Standing::OtherHost
    }
}

fn in_namespace(reference: &Reference, namespace: Option<&str>) -> bool {
    let Some(namespace) = namespace else { return true };
    let repository = reference.repository();
    // Lengths first: they settle most entries without a look at their texts.
    let on_boundary = match repository.as_bytes().get(namespace.len()) {
        Some(next) => *next == b'/',
        None => repository.len() == namespace.len(),
    };
    on_boundary && repository.starts_with(namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, host: &str, namespace: Option<&str>, is_default: bool) -> RegistryRow {
        let namespace = namespace.map(ToOwned::to_owned);
        RegistryRow { registry_id: id.to_owned(), namespace, is_default, ..RegistryRow::of_host(host) }
    }

    fn resolved(entries: &[RegistryRow], image: &str) -> (Option<String>, String) {
        let found = resolve(entries, Reference::parse(image).unwrap(), None).unwrap();
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
            let found = resolve(entries, reference, None).unwrap();
            entries.iter().map(|entry| found.fate(entry)).collect::<Vec<_>>()
        };
        use Fate::{Chosen, Newer, NotDefault, OtherHost, OtherNamespace, ShorterNamespace};
        assert_eq!(fates(&entries), [OtherHost, ShorterNamespace, Chosen, Newer, OtherNamespace]);
        let mut entries = entries;
        entries[3].is_default = true;
        assert_eq!(fates(&entries), [OtherHost, ShorterNamespace, NotDefault, Chosen, OtherNamespace]);
    }

    #[test]
    fn a_named_entry_of_another_host_is_refused() {
        let entries = [entry("ghcr", "ghcr.io", None, false)];
        let reference = Reference::parse("registry.example.com/app").unwrap();
        assert!(matches!(resolve(&entries, reference, Some(&entries[0])), Err(Error::Invalid(_))));
    }
}
