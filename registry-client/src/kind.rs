//! Whose registry it is: recognised by its host, else by what it answers. Used for hints and advice, never for trust.

mod presets;

use http::HeaderMap;
use http::header::{SERVER, WWW_AUTHENTICATE};
use serde::{Deserialize, Serialize};

use crate::challenge::Challenge;
use crate::diagnosis::{Diagnosis, DiagnosisCode as Code};

pub use presets::{Preset, RegistryType, presets};

/// The registries that Purser knows something about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum RegistryKind {
    /// Docker Hub.
    DockerHub,
    /// GitHub Container Registry.
    Ghcr,
    /// GitLab's container registry, on GitLab.com or elsewhere.
    Gitlab,
    /// Google Artifact Registry, `gcr.io` among its hosts.
    GoogleArtifactRegistry,
    /// Amazon Elastic Container Registry.
    Ecr,
    /// Amazon's public gallery.
    EcrPublic,
    /// Azure Container Registry.
    Acr,
    /// Harbor.
    Harbor,
    /// Quay, on quay.io or elsewhere.
    Quay,
    /// Sonatype Nexus Repository.
    Nexus,
    /// JFrog Artifactory.
    Artifactory,
    /// DigitalOcean Container Registry.
    DigitalOcean,
    /// Gitea or Forgejo.
    Gitea,
    /// It speaks the protocol and doesn't say what it is: CNCF Distribution, most likely.
    Distribution,
    /// Nothing is known. Also what a newer peer's kind is read as.
    #[default]
    #[serde(other)]
    Other,
}

impl RegistryKind {
    /// By the canonical host ([`RegistryAddress::host`](crate::RegistryAddress::host)) alone; [`Self::Other`] where it
    /// doesn't tell. Self-hosted registries can be anywhere.
    pub fn of_host(host: &str) -> Self {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let amazon = name.ends_with(".amazonaws.com") || name.ends_with(".amazonaws.com.cn");
        let azure = [".azurecr.io", ".azurecr.cn", ".azurecr.us", ".azurecr.de"];
        match name {
            "docker.io" => Self::DockerHub,
            "ghcr.io" => Self::Ghcr,
            "registry.gitlab.com" => Self::Gitlab,
            "gcr.io" => Self::GoogleArtifactRegistry,
            "public.ecr.aws" => Self::EcrPublic,
            "quay.io" => Self::Quay,
            "registry.digitalocean.com" => Self::DigitalOcean,
            "gitea.com" | "codeberg.org" | "code.forgejo.org" => Self::Gitea,
            _ if name.ends_with(".gcr.io") || name.ends_with("-docker.pkg.dev") => {
                Self::GoogleArtifactRegistry
            }
            _ if amazon && name.contains(".dkr.ecr") => Self::Ecr,
            _ if name.contains(".dkr-ecr") && name.ends_with(".on.aws") => Self::Ecr,
            _ if azure.iter().any(|end| name.ends_with(end)) => Self::Acr,
            _ if name.ends_with(".jfrog.io") => Self::Artifactory,
            _ => Self::Other,
        }
    }

    /// By host, else by the answer to `GET /v2/`.
    pub(crate) fn recognise(host: &str, headers: &HeaderMap, challenge: Option<&Challenge>) -> Self {
        match Self::of_host(host) {
            Self::Other => {
                let by_header = Self::of_headers(headers);
                let by_realm = challenge.and_then(Self::of_challenge);
                let speaks = headers.contains_key("docker-distribution-api-version");
                by_header.or(by_realm).unwrap_or(if speaks { Self::Distribution } else { Self::Other })
            }
            known => known,
        }
    }

    fn of_headers(headers: &HeaderMap) -> Option<Self> {
        if headers.contains_key("x-jfrog-version") || headers.contains_key("x-artifactory-id") {
            return Some(Self::Artifactory);
        }
        let lower = |name| {
            let value = headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
            value.map(str::to_ascii_lowercase).unwrap_or_default()
        };
        let server = lower(SERVER);
        if server.starts_with("nexus/") || lower(WWW_AUTHENTICATE).contains("sonatype nexus") {
            Some(Self::Nexus)
        } else if server.starts_with("artifactory/") {
            Some(Self::Artifactory)
        } else {
            None
        }
    }

    fn of_challenge(challenge: &Challenge) -> Option<Self> {
        let Challenge::Bearer { realm, service } = challenge else { return None };
        let uri: http::Uri = realm.parse().ok()?;
        let service = service.as_deref().unwrap_or_default();
        match uri.path().trim_end_matches('/') {
            "/service/token" => Some(Self::Harbor),
            "/jwt/auth" => Some(Self::Gitlab),
            "/v2/auth" => Some(Self::Quay),
            "/v2/token" if service == "container_registry" => Some(Self::Gitea),
            "/v2/token" if service.ends_with("/v2/token") => Some(Self::Nexus),
            path if path.contains("/api/docker/") => Some(Self::Artifactory),
            _ => None,
        }
    }

    /// What helps with a login that was refused: nothing for most, one sentence or two for those with rules of their own.
    fn login_hint(self, username: Option<&str>) -> Option<&'static str> {
        let named = |names: &[&str]| username.is_some_and(|username| names.contains(&username));
        Some(match self {
            Self::DockerHub => {
                "Use your Docker ID and a personal access token; e-mail addresses and, with two-factor login, passwords \
                 don't work."
            }
            Self::Ghcr => {
                "Use your GitHub user name and a classic personal access token with read:packages (write:packages to \
                 push), authorized for the organization where it uses SSO."
            }
            Self::Gitlab => {
                "Use a personal, project or deploy token with read_registry (and write_registry to push); passwords \
                 fail with two-factor login."
            }
            Self::GoogleArtifactRegistry
                if !named(&["_json_key", "_json_key_base64", "oauth2accesstoken"]) =>
            {
                "The user name is _json_key, and the password the whole JSON key file of a service account."
            }
            Self::GoogleArtifactRegistry if named(&["oauth2accesstoken"]) => {
                "Access tokens last one hour; use _json_key with a service account's key file instead."
            }
            Self::GoogleArtifactRegistry => {
                "The password is the whole JSON key file, unchanged (or its base64 with _json_key_base64)."
            }
            Self::Ecr if !named(&["AWS"]) => {
                "The user name for Amazon ECR is AWS, the password what `aws ecr get-login-password` prints; it lasts 12 \
                 hours and holds for one region."
            }
            Self::Ecr | Self::EcrPublic => {
                "Amazon's passwords last 12 hours and hold for one region (public.ecr.aws: us-east-1): mint a new one, \
                 without a trailing newline."
            }
            Self::Acr => {
                "Use a service principal's application id and secret, or the admin user (the registry's name), which must \
                 be enabled first."
            }
            Self::Harbor => {
                "Robot accounts are written in full, robot$name or robot$project+name (a shell swallows the $), and \
                 expire; people who log in by OIDC use the CLI secret of their profile."
            }
            Self::Quay => "Use a robot account, namespace+name, with its token.",
            Self::Nexus => {
                "Nexus needs the Docker Bearer Token Realm enabled, and one login per connector port."
            }
            Self::Artifactory => "Use an identity or access token as the password.",
            Self::DigitalOcean => {
                "Enter the API token as user name and as password; `doctl registry login` tokens last 30 days."
            }
            Self::Gitea => "Use an access token with package rights as the password.",
            Self::Distribution | Self::Other => return None,
        })
    }

    /// A warning about a user name that no login to this kind has; it may be tried all the same.
    pub fn doubts_username(self, username: &str) -> Option<&'static str> {
        let (names, warning): (&[&str], _) = match self {
            Self::Ecr | Self::EcrPublic => (&["AWS"], "The user name for Amazon ECR is always AWS."),
            Self::GoogleArtifactRegistry => (
                &["_json_key", "_json_key_base64", "oauth2accesstoken"],
                "The user name for Google's registries is _json_key with a service account's key file as the password \
                 (_json_key_base64 with its base64), or oauth2accesstoken with an access token.",
            ),
            Self::DockerHub if username.contains('@') => {
                (&[], "The user name for Docker Hub is your Docker ID, not an e-mail address.")
            }
            _ => return None,
        };
        (!names.contains(&username)).then_some(warning)
    }

    /// Adds what is known about logging in to this kind to a refusal's advice.
    pub fn advise(self, mut diagnosis: Diagnosis, username: Option<&str>) -> Diagnosis {
        let about_login =
            matches!(diagnosis.code, Code::Unauthorized | Code::TokenExpired | Code::InsufficientScope);
        if about_login && let Some(hint) = self.login_hint(username) {
            diagnosis.advice = match diagnosis.code {
                // The general advice says no more than the hint.
                Code::Unauthorized if username.is_some() => hint.to_owned(),
                _ => format!("{} {hint}", diagnosis.advice).trim().to_owned(),
            };
        }
        diagnosis
    }

    /// Where repositories can't be listed by anybody: what to do instead.
    pub(crate) fn without_catalog(self) -> Option<&'static str> {
        Some(match self {
            Self::DockerHub => "Docker Hub lists no repositories; search, or name the repository.",
            Self::Ghcr => {
                "GitHub's registry lists no repositories; name the repository (owner/image), or look under Packages."
            }
            Self::EcrPublic => "Amazon's public gallery lists no repositories; name the repository.",
            _ => return None,
        })
    }

    /// Where a catalog was refused: what to do instead.
    pub(crate) fn catalog_refused(self) -> &'static str {
        match self {
            Self::Gitlab => {
                "GitLab shows its catalog to administrators only; name the repository (group/project), or look at the \
                 project's container registry."
            }
            Self::Harbor => {
                "Harbor shows its catalog to administrators, and to system robots with the permission to list it; name \
                 the repository (project/name)."
            }
            Self::Quay => {
                "Quay shows the catalog only to OAuth tokens and robots that see something; name the repository."
            }
            Self::DigitalOcean => "Name the repository, or look at DigitalOcean's control panel.",
            _ => {
                "The registry lists its repositories to nobody, or not with these credentials; name the repository \
                 (org/image), which works without a catalog."
            }
        }
    }
}

#[cfg(test)]
mod tests;
