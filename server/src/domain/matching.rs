//! Which registry entry a reference is pulled with: the one resolver, for every road that pulls.
//!
//! An entry that the call names wins, if its host is the image's. A name without a registry goes to
//! the organization's default entry, under its namespace; with none, to Docker Hub. Of the entries of
//! the image's host the one with the longest namespace wins, on `/` boundaries; of equals the
//! default, else the oldest. None: anonymous, and the job says so.

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
    /// The entry, or none: anonymous.
    pub entry: Option<&'a RegistryRow>,
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
        if canonical_registry_host(reference.registry()) != entry.registry_host {
            return Err(Error::field(
                "registryId",
                "is an entry of another registry than the image's: write the image with its registry, or leave \
                 registryId out",
            ));
        }
        return Ok(Match { reference, entry: Some(entry) });
    }
    let is_default = |entry: &&RegistryRow| entry.is_default && entry.registry_host != DOCKER_HUB;
    let default = if reference.explicit_registry() { None } else { entries.iter().find(is_default) };
    let reference = match default {
        Some(entry) => reference
            .with_registry_and_prefix(&entry.registry_host, entry.namespace.as_deref())
            .map_err(|error| Error::field("image", error.to_string()))?,
        None => reference,
    };
    let entry = best(entries, &reference);
    Ok(Match { reference, entry })
}

fn best<'a>(entries: &'a [RegistryRow], reference: &Reference) -> Option<&'a RegistryRow> {
    let host = canonical_registry_host(reference.registry());
    let fitting = entries
        .iter()
        .filter(|entry| in_namespace(reference, entry.namespace.as_deref()) && entry.registry_host == host);
    // The entries come oldest first, and the first of equals stays.
    fitting.reduce(|best, entry| if rank(entry) > rank(best) { entry } else { best })
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

fn rank(entry: &RegistryRow) -> (usize, bool) {
    (entry.namespace.as_ref().map_or(0, String::len), entry.is_default)
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
    fn a_named_entry_of_another_host_is_refused() {
        let entries = [entry("ghcr", "ghcr.io", None, false)];
        let reference = Reference::parse("registry.example.com/app").unwrap();
        assert!(matches!(resolve(&entries, reference, Some(&entries[0])), Err(Error::Invalid(_))));
    }
}
