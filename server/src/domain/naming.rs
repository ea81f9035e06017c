//! Under which name an image is pushed: `<host>/<prefix or namespace or username>/<last component>:<tag>`.

use purser_registry_client::{Reference, canonical_registry_host};

use crate::{
    error::{Error, Result},
    store::RegistryRow,
};

const DOCKER_HUB: &str = "docker.io";
/// User names that stand for a way to log in and never for a namespace.
const NO_NAMESPACE: [&str; 5] =
    ["aws", "_json_key", "_json_key_base64", "oauth2accesstoken", "00000000-0000-0000-0000-000000000000"];

/// The name to push a local image under.
///
/// # Errors
/// [`Error::Invalid`] naming `repository` or `tag` when the result is no valid reference.
pub fn push_target(
    entry: &RegistryRow,
    source: &Reference,
    repository: Option<&str>,
    tag: Option<&str>,
) -> Result<Reference> {
    let path = match repository {
        Some(repository) => repository.to_owned(),
        None => below_namespace(entry, source)?,
    };
    let tag = tag.or(source.tag()).unwrap_or("latest");
    let text = format!("{}/{path}:{tag}", entry.registry_host);
    let target = Reference::parse(&text).map_err(|error| {
        let field = if tag_is_bad(tag) { "tag" } else { "repository" };
        Error::field(field, error.to_string())
    })?;
    // A tag or digest inside `repository`, or a path that Docker reads as something else.
    if target.tag() != Some(tag) || target.digest().is_some() || !same_path(&target, &path) {
        return Err(Error::field(
            "repository",
            "must be a repository path such as `myorg/app`, without registry and tag",
        ));
    }
    Ok(target)
}

fn tag_is_bad(tag: &str) -> bool {
    Reference::parse(&format!("registry.invalid/app:{tag}")).is_err()
}

fn same_path(target: &Reference, path: &str) -> bool {
    target.repository() == path || target.repository().strip_prefix("library/") == Some(path)
}

fn below_namespace(entry: &RegistryRow, source: &Reference) -> Result<String> {
    let last = source.repository().rsplit('/').next().unwrap_or(source.repository());
    let namespace = match &entry.image_prefix {
        Some(prefix) => prefix_path(prefix, &entry.registry_host)
            .map_err(|rule| Error::field("registryId", format!("the entry's imagePrefix {rule}")))?,
        None => entry.namespace.clone().or_else(|| username_path(entry.username.as_deref())),
    };
    Ok(match namespace {
        Some(namespace) => format!("{namespace}/{last}"),
        None => last.to_owned(),
    })
}

/// The path of an image prefix: without the registry's own host and without slashes at its ends.
/// `None` for a prefix of the host alone.
///
/// # Errors
/// The rule that it breaks, for people.
pub fn prefix_path(prefix: &str, host: &str) -> std::result::Result<Option<String>, &'static str> {
    const RULE: &str =
        "must be a path such as `mycompany/` or the registry's host and a path such as `ghcr.io/myorg/`";
    let prefix = prefix.trim().trim_matches('/');
    let (first, rest) = prefix.split_once('/').unwrap_or((prefix, ""));
    let path = if canonical_registry_host(first) == host {
        rest.trim_matches('/')
    } else if first.contains(['.', ':'])
        && Reference::parse(&format!("{first}/x")).is_ok_and(|r| r.registry() == first)
    {
        return Err("names another registry than registryUrl");
    } else {
        prefix
    };
    if path.is_empty() {
        return Ok(None);
    }
    let stands = Reference::parse(&format!("{host}/{path}/x"));
    match stands {
        Ok(reference) if reference.repository() == format!("{path}/x") => Ok(Some(path.to_owned())),
        _ => Err(RULE),
    }
}

/// A user name stands in for a namespace only where it is one path component.
fn username_path(username: Option<&str>) -> Option<String> {
    let name = username?.to_lowercase();
    let stands = Reference::parse(&format!("{DOCKER_HUB}/{name}/x"));
    let is_component = stands.is_ok_and(|reference| reference.repository() == format!("{name}/x"));
    (is_component && !name.contains('/') && !NO_NAMESPACE.contains(&name.as_str())).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(host: &str, namespace: Option<&str>, username: &str, prefix: Option<&str>) -> RegistryRow {
        RegistryRow {
            namespace: namespace.map(ToOwned::to_owned),
            username: Some(username.to_owned()),
            image_prefix: prefix.map(ToOwned::to_owned),
            ..RegistryRow::of_host(host)
        }
    }

    fn pushed(entry: &RegistryRow, image: &str) -> String {
        push_target(entry, &Reference::parse(image).unwrap(), None, None).unwrap().familiar()
    }

    #[test]
    fn the_documented_prefixes_give_no_doubled_host_and_no_double_slash() {
        let ecr = "123456789.dkr.ecr.us-east-1.amazonaws.com";
        for (entry, expected) in [
            (entry("docker.io", None, "dockerhubuser", Some("mycompany/")), "mycompany/app:1"),
            (entry("ghcr.io", None, "github-username", Some("ghcr.io/myorg/")), "ghcr.io/myorg/app:1"),
            (entry("gcr.io", None, "_json_key", Some("gcr.io/my-project/")), "gcr.io/my-project/app:1"),
            (entry(ecr, None, "AWS", Some(&format!("{ecr}/"))), &format!("{ecr}/app:1")),
            (
                entry("registry.example.com:5000", None, "admin", None),
                "registry.example.com:5000/admin/app:1",
            ),
            (entry("ghcr.io", Some("myorg"), "someone", None), "ghcr.io/myorg/app:1"),
            (entry("docker.io", None, "someone", Some("docker.io/org")), "org/app:1"),
        ] {
            assert_eq!(pushed(&entry, "anything/below/app:1"), expected);
        }
    }

    #[test]
    fn a_login_that_is_no_namespace_never_becomes_one() {
        for username in
            ["AWS", "_json_key", "oauth2accesstoken", "robot$ci", "00000000-0000-0000-0000-000000000000"]
        {
            assert_eq!(
                pushed(&entry("r.example.com", None, username, None), "app"),
                "r.example.com/app:latest"
            );
        }
    }

    #[test]
    fn a_prefix_of_another_registry_is_refused() {
        assert!(prefix_path("quay.io/org", "ghcr.io").is_err());
        assert!(prefix_path("My Org", "ghcr.io").is_err());
        assert_eq!(prefix_path("GHCR.io/org/", "ghcr.io"), Ok(Some("org".to_owned())));
    }

    #[test]
    fn repository_and_tag_are_taken_as_given() {
        let entry = entry("ghcr.io", None, "someone", None);
        let source = Reference::parse("app:1").unwrap();
        let target = push_target(&entry, &source, Some("team/service"), Some("v2")).unwrap();
        assert_eq!(target.to_string(), "ghcr.io/team/service:v2");
        for (repository, tag) in
            [("a:b", None), ("A", None), ("a//b", None), ("a", Some("-x")), ("a@sha256", None)]
        {
            assert!(push_target(&entry, &source, Some(repository), tag).is_err(), "{repository} {tag:?}");
        }
    }
}
