//! Image references, exactly as Docker reads them (`distribution/reference`, `ParseNormalizedNamed` + `TagNameOnly`).

mod grammar;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::address::DOCKER_HUB;

pub(crate) use grammar::{is_valid_digest, is_valid_path, is_valid_tag};

/// The longest repository path in bytes, without the registry.
pub const MAX_PATH_BYTES: usize = 255;

/// The longest text that is looked at, in bytes: the longest host, path, tag and digest with room to spare, so that
/// whatever is accepted can also be read back from its fully qualified form.
const MAX_INPUT_BYTES: usize = 4096;

/// The longest registry, in bytes. DNS ends at 253.
const MAX_REGISTRY_BYTES: usize = 3072;

/// Docker Hub's own images live here.
const OFFICIAL: &str = "library";

/// The tag that is meant when none is written.
const DEFAULT_TAG: &str = "latest";

/// Why a text is no image reference. The messages do not repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// No repository name.
    #[error("the image reference has no repository name")]
    Empty,
    /// Begins with `http://` or `https://`.
    #[error("an image reference takes no scheme; leave out https://")]
    Scheme,
    /// Not of Docker's grammar.
    #[error("invalid image reference format")]
    Format,
    /// Upper case in the repository.
    #[error("invalid image reference: the repository name must be lower case")]
    UpperCase,
    /// The registry isn't a valid `host[:port]`.
    #[error("invalid image reference: the registry host is not valid")]
    Registry,
    /// Longer than [`MAX_PATH_BYTES`].
    #[error("invalid image reference: the repository name must not be longer than 255 characters")]
    TooLong,
    /// A tag outside `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
    #[error("invalid image reference: the tag is not valid")]
    Tag,
    /// A digest that isn't `algorithm:hex` in lower case.
    #[error("invalid image reference: the digest is not valid")]
    Digest,
    /// A digest of the wrong length.
    #[error("invalid image reference: the digest has the wrong length")]
    DigestLength,
    /// A digest other than sha256, sha384 or sha512.
    #[error("invalid image reference: the digest's algorithm is not supported")]
    DigestAlgorithm,
    /// 64 hexadecimal digits alone are an image id.
    #[error("invalid image reference: 64 hexadecimal digits are an image id, not a name")]
    ImageId,
}

/// An image reference.
///
/// `Display` writes it fully qualified, and reading that gives an equal reference again. Whether the registry was
/// written out ([`Reference::explicit_registry`]) is how it was typed, not what it names, and so no part of equality.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
    explicit_registry: bool,
    /// `library/` was put in front of the name that was written.
    implied_official: bool,
}

impl Reference {
    /// Reads a reference as Docker does. White space isn't trimmed, as Docker doesn't either.
    ///
    /// # Errors
    /// [`ReferenceError`], which never repeats the input.
    pub fn parse(input: &str) -> Result<Self, ReferenceError> {
        if input.len() > MAX_INPUT_BYTES {
            return Err(ReferenceError::TooLong);
        }
        if grammar::is_image_id(input) {
            return Err(ReferenceError::ImageId);
        }
        if input.starts_with("https://") || input.starts_with("http://") {
            return Err(ReferenceError::Scheme);
        }
        let (registry, remainder) = grammar::split_registry(input);
        let (name, tag, digest) = grammar::split_version(remainder);
        if name.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ReferenceError::UpperCase);
        }
        let explicit_registry = registry.is_some();
        let registry = match registry {
            None | Some("index.docker.io") => DOCKER_HUB,
            Some(registry) => registry,
        };
        let implied_official = registry == DOCKER_HUB && !name.contains('/');
        let repository = if implied_official { format!("{OFFICIAL}/{name}") } else { name.to_owned() };
        if registry.len() > MAX_REGISTRY_BYTES || !grammar::is_valid_registry(registry) {
            return Err(ReferenceError::Registry);
        }
        grammar::check_path(&repository)?;
        tag.map_or(Ok(()), grammar::check_tag)?;
        digest.map_or(Ok(()), grammar::check_digest)?;
        let tag = tag.or(if digest.is_none() { Some(DEFAULT_TAG) } else { None });
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
            explicit_registry,
            implied_official,
        })
    }

    /// `host[:port]` as written; `docker.io` where none was. Compare it with an entry's host by
    /// [`RegistryAddress::serves`](crate::RegistryAddress::serves): it may be in upper case, and like Docker this leaves
    /// `registry-1.docker.io` as it is.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path below the registry, such as `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` where neither tag nor digest was written. Where there is a digest too, the digest decides.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, such as `sha256:…`.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What to ask the registry for: the digest, else the tag. Never empty.
    pub fn version(&self) -> &str {
        self.digest().or(self.tag()).unwrap_or(DEFAULT_TAG)
    }

    /// Whether the registry was written out. Only names without one are subject to a default registry.
    pub fn explicit_registry(&self) -> bool {
        self.explicit_registry
    }

    /// The same reference as if its registry had been written out, so that no default registry applies to it.
    #[must_use]
    pub fn with_registry_written(self) -> Self {
        Self { explicit_registry: true, ..self }
    }

    /// `registry/repository`, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// As Docker prints it: `nginx:latest`, `user/app:1`, `ghcr.io/o/app:1`.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        self.push_version(&mut text);
        text
    }

    /// [`Self::familiar`] without tag and digest.
    pub fn familiar_name(&self) -> String {
        if self.registry != DOCKER_HUB {
            return self.name();
        }
        match self.repository.split_once('/') {
            Some((OFFICIAL, name)) if !name.contains('/') => name.to_owned(),
            // Written alone, the first component would be read as a registry.
            Some((first, _)) if grammar::looks_like_registry(first) => self.name(),
            _ => self.repository.clone(),
        }
    }

    /// A name without a registry, put below another one: `app` on `ghcr.io` with the prefix `org` is `ghcr.io/org/app`.
    /// The `library/` that Docker Hub implies is dropped elsewhere. A reference that names its registry stays as it is.
    ///
    /// # Errors
    /// When the result isn't a valid reference, because of `registry`, `prefix` or its length.
    pub fn with_registry_and_prefix(
        &self,
        registry: &str,
        prefix: Option<&str>,
    ) -> Result<Self, ReferenceError> {
        if self.explicit_registry {
            return Ok(self.clone());
        }
        let name = match self.repository.split_once('/') {
            Some((_, name)) if self.implied_official => name,
            _ => &self.repository,
        };
        let mut text = match prefix.map(|prefix| prefix.trim_matches('/')).filter(|prefix| !prefix.is_empty())
        {
            Some(prefix) => format!("{registry}/{prefix}/{name}"),
            None => format!("{registry}/{name}"),
        };
        if grammar::split_registry(&text).0 != Some(registry) {
            return Err(ReferenceError::Registry);
        }
        self.push_version(&mut text);
        Self::parse(&text)
    }

    fn push_version(&self, text: &mut String) {
        for (separator, part) in [(':', self.tag()), ('@', self.digest())] {
            if let Some(part) = part {
                text.push(separator);
                text.push_str(part);
            }
        }
    }
}

impl PartialEq for Reference {
    fn eq(&self, other: &Self) -> bool {
        (&self.registry, &self.repository, &self.tag, &self.digest)
            == (&other.registry, &other.repository, &other.tag, &other.digest)
    }
}

impl Eq for Reference {}

impl std::hash::Hash for Reference {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.registry, &self.repository, &self.tag, &self.digest).hash(state);
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name();
        self.push_version(&mut text);
        f.write_str(&text)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

/// Fully qualified.
impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests;
