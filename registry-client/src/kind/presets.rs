//! What a form may offer for each kind.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::RegistryKind;

/// Who runs a registry. It says nothing about the protocol; callers use it to sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum RegistryType {
    /// A service of somebody else.
    Cloud,
    /// Run by its users.
    SelfHosted,
}

/// A proposal for an entry of one kind. Every text is ours and fit to be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "RegistryPreset"))]
#[serde(rename_all = "camelCase")]
pub struct Preset {
    /// Which kind.
    pub kind: RegistryKind,
    /// Its name for people.
    pub name: Cow<'static, str>,
    /// The address where there is only one, else an example; always one that
    /// [`RegistryAddress::parse`](crate::RegistryAddress::parse) accepts.
    pub registry_url: Cow<'static, str>,
    /// What to enter as user name.
    pub username_hint: Cow<'static, str>,
    /// What to enter as password.
    pub password_hint: Cow<'static, str>,
    /// Who runs it.
    pub registry_type: RegistryType,
    /// What else to know; empty for nothing.
    pub notes: Cow<'static, str>,
}

/// One for each kind but [`RegistryKind::Other`], the usual ones first.
pub fn presets() -> &'static [Preset] {
    &PRESETS
}

impl RegistryKind {
    /// The proposal for this kind; that of a plain registry for [`Self::Other`].
    pub fn preset(self) -> &'static Preset {
        let plain = &PRESETS[PRESETS.len() - 1];
        PRESETS.iter().find(|preset| preset.kind == self).unwrap_or(plain)
    }
}

const fn preset(
    kind: RegistryKind,
    registry_type: RegistryType,
    [name, registry_url, username_hint, password_hint, notes]: [&'static str; 5],
) -> Preset {
    Preset {
        kind,
        name: Cow::Borrowed(name),
        registry_url: Cow::Borrowed(registry_url),
        username_hint: Cow::Borrowed(username_hint),
        password_hint: Cow::Borrowed(password_hint),
        registry_type,
        notes: Cow::Borrowed(notes),
    }
}

static PRESETS: [Preset; 14] = {
    use RegistryKind as Kind;
    use RegistryType::{Cloud, SelfHosted};
    [
        preset(
            Kind::DockerHub,
            Cloud,
            [
                "Docker Hub",
                "docker.io",
                "Docker ID",
                "Personal access token",
                "Without credentials, pulls are limited per address. Repositories aren't listed; search works.",
            ],
        ),
        preset(
            Kind::Ghcr,
            Cloud,
            [
                "GitHub Container Registry",
                "ghcr.io",
                "GitHub user name",
                "Classic personal access token with read:packages (write:packages to push)",
                "Add your organization to the address (ghcr.io/myorg) to use the entry for its images only. An expired \
                 token also breaks public pulls.",
            ],
        ),
        preset(
            Kind::Gitlab,
            Cloud,
            [
                "GitLab Container Registry",
                "registry.gitlab.com",
                "User name, or the deploy token's user name",
                "Access or deploy token with read_registry (and write_registry to push)",
                "Self-managed GitLab has an address of its own, such as registry.gitlab.example.com.",
            ],
        ),
        preset(
            Kind::GoogleArtifactRegistry,
            Cloud,
            [
                "Google Artifact Registry",
                "europe-west1-docker.pkg.dev",
                "_json_key",
                "The whole JSON key file of a service account",
                "gcr.io, eu.gcr.io and alike work in the same way. The repository must exist before a push.",
            ],
        ),
        preset(
            Kind::Ecr,
            Cloud,
            [
                "Amazon ECR",
                "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
                "AWS",
                "What `aws ecr get-login-password` prints",
                "The password lasts 12 hours and holds for one region. Repositories must exist before a push.",
            ],
        ),
        preset(
            Kind::EcrPublic,
            Cloud,
            [
                "Amazon ECR Public",
                "public.ecr.aws",
                "AWS",
                "What `aws ecr-public get-login-password --region us-east-1` prints",
                "Pulling needs no credentials. The password lasts 12 hours.",
            ],
        ),
        preset(
            Kind::Acr,
            Cloud,
            [
                "Azure Container Registry",
                "myregistry.azurecr.io",
                "Application id of a service principal, or the registry's name for the admin user",
                "The principal's secret, or the admin password",
                "The admin user is off by default.",
            ],
        ),
        preset(
            Kind::DigitalOcean,
            Cloud,
            [
                "DigitalOcean",
                "registry.digitalocean.com",
                "API token",
                "The same API token",
                "Add your registry's name to the address (registry.digitalocean.com/name).",
            ],
        ),
        preset(
            Kind::Quay,
            Cloud,
            [
                "Quay",
                "quay.io",
                "Robot account, such as myorg+puller",
                "The robot's token",
                "Quay may also be self-hosted, under an address of its own.",
            ],
        ),
        preset(
            Kind::Harbor,
            SelfHosted,
            [
                "Harbor",
                "harbor.example.com",
                "robot$name or robot$project+name, or a user name",
                "The robot's secret, or the CLI secret of the user's profile",
                "Robot accounts expire unless told otherwise. The project must exist before a push.",
            ],
        ),
        preset(
            Kind::Nexus,
            SelfHosted,
            [
                "Sonatype Nexus",
                "nexus.example.com:8082",
                "User name or user token name",
                "Password or user token",
                "Each Docker repository has a port or host of its own. Enable the Docker Bearer Token Realm.",
            ],
        ),
        preset(
            Kind::Artifactory,
            SelfHosted,
            [
                "JFrog Artifactory",
                "mycompany.jfrog.io",
                "User name",
                "Identity or access token",
                "With repositories in the path, add their key (mycompany.jfrog.io/docker-local).",
            ],
        ),
        preset(
            Kind::Gitea,
            SelfHosted,
            [
                "Gitea or Forgejo",
                "git.example.com",
                "User name",
                "Access token with package rights",
                "A login proves little here: public packages are open to everybody.",
            ],
        ),
        preset(
            Kind::Distribution,
            SelfHosted,
            [
                "Other registry",
                "registry.example.com:5000",
                "User name",
                "Password or token",
                "Anything that speaks the Docker Registry HTTP API v2. Leave both empty where it is open.",
            ],
        ),
    ]
};
