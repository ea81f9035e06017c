//! The host's Docker Engine: the only importer of bollard.
//!
//! Its faults are answered here, each in one place: the alphabet of the credentials header ([`header`]),
//! the missing login call ([`login`]), failures inside a 200 ([`pull`], [`push`]), names that go raw into
//! URLs (only a [`Reference`] becomes a name).
//!
//! Podman serves Docker's API with ways of its own: a pull ends without a digest ([`pull`]), a push gives
//! the image a digest that the host does not learn, and the login takes verified TLS alone, whatever
//! `registries.conf` says, but for `localhost`. Whoever meets one asks [`Engine::is_podman`]. It may know no target, no link and no registry protocol.
//!
//! Every answer is a [`Diagnosis`] or the thing itself.

mod header;
mod login;
mod progress;
mod pull;
mod push;
mod wire;

use std::{sync::Arc, time::Duration};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    auth::DockerCredentials,
    errors::Error,
    models::{ImageInspect, ImageSummary, SystemVersion},
    query_parameters::{ListImagesOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder},
};
use bytes::Bytes;
use http::Method;
use purser_proto_schema::{image::Image, server, time::Timestamp};
use purser_registry_client::{Diagnosis, DiagnosisCode, Reference, classify_engine_message};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::{config::DockerHost, error::AgentError};

pub(crate) use pull::Pulled;

/// What bollard builds URLs from where it does not dial.
const ANY_URL: &str = "http://docker";
/// What a Podman says besides with every answer.
const PODMAN_HEADER: &str = "libpod-api-version";
/// For reads that need no registry.
const READ_PATIENCE: Duration = Duration::from_secs(10);
/// Until the engine begins to answer a pull or push; it asks the registry first. The target's own deadline
/// bounds the rest.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(300);

/// A credential for one operation.
pub(crate) struct Login<'a> {
    pub(crate) username: &'a str,
    pub(crate) password: &'a SecretString,
    /// `host[:port]`, or Docker Hub's old URL: what the engine compares.
    pub(crate) server_address: String,
}

impl Login<'_> {
    /// bollard keeps plain strings: make this last, and let it go at once.
    fn to_bollard(&self) -> DockerCredentials {
        DockerCredentials {
            username: Some(self.username.to_owned()),
            password: Some(self.password.expose_secret().to_owned()),
            serveraddress: Some(self.server_address.clone()),
            ..DockerCredentials::default()
        }
    }
}

/// An image as it is on the host.
#[derive(Clone, Debug)]
pub(crate) struct LocalImage {
    /// The engine's id: `sha256:…`.
    pub(crate) id: String,
    pub(crate) os: String,
    pub(crate) architecture: String,
    pub(crate) size_bytes: Option<u64>,
    repo_digests: Vec<String>,
}

impl LocalImage {
    /// The digests under which the engine knows the image by this name.
    pub(crate) fn digests(&self, name: &str) -> Vec<String> {
        let known = self.repo_digests.iter().filter_map(|known| Reference::parse(known).ok());
        known
            .filter(|known| known.name() == name)
            .filter_map(|known| known.digest().map(str::to_owned))
            .collect()
    }

    #[cfg(test)]
    pub(crate) fn of_platform(os: &str, architecture: &str) -> Self {
        let inspected = ImageInspect {
            os: Some(os.to_owned()),
            architecture: Some(architecture.to_owned()),
            ..ImageInspect::default()
        };
        inspected.into()
    }

    /// Whether the engine knows the image under this name and digest.
    pub(crate) fn has_digest(&self, name: &str, digest: &str) -> bool {
        self.digests(name).iter().any(|known| known == digest)
    }
}

impl From<ImageInspect> for LocalImage {
    fn from(image: ImageInspect) -> Self {
        Self {
            id: image.id.unwrap_or_default(),
            os: image.os.unwrap_or_default(),
            architecture: image.architecture.unwrap_or_default(),
            size_bytes: image.size.and_then(|size| u64::try_from(size).ok()),
            repo_digests: image.repo_digests.unwrap_or_default(),
        }
    }
}

/// The engine. It need not run: every call connects anew, so one that is restarted is found again.
#[derive(Debug)]
pub(crate) struct Engine {
    host: DockerHost,
    /// Cleaning up after work that was cut off.
    afterwards: TaskTracker,
}

impl Engine {
    /// Whether all that is needed to reach the engine is there.
    ///
    /// # Errors
    /// [`AgentError::DockerCertificates`].
    pub(crate) fn check(&self) -> Result<(), AgentError> {
        match &self.host {
            DockerHost::Tls { certificates, .. } => {
                wire::client_config(certificates).map(drop).map_err(AgentError::DockerCertificates)
            }
            DockerHost::Unix(_) | DockerHost::Tcp(_) => Ok(()),
        }
    }

    /// The engine at this address.
    pub(crate) fn new(host: DockerHost) -> Self {
        Self { host, afterwards: TaskTracker::new() }
    }

    fn docker(&self, patience: Duration) -> Result<Docker, Diagnosis> {
        let seconds = patience.as_secs();
        let docker = match &self.host {
            DockerHost::Unix(path) => {
                Docker::connect_with_unix(&path.to_string_lossy(), seconds, API_DEFAULT_VERSION)
            }
            DockerHost::Tcp(address) => Docker::connect_with_http(address, seconds, API_DEFAULT_VERSION),
            DockerHost::Tls { address, certificates } => {
                let tls = wire::client_config(certificates).map_err(|error| no_answer(&error))?;
                let address = address.clone();
                let forward = move |request| wire::forward(address.clone(), Arc::clone(&tls), request);
                Docker::connect_with_custom_transport(forward, Some(ANY_URL), seconds, API_DEFAULT_VERSION)
            }
        };
        Ok(docker.map_err(diagnose)?.with_request_modifier(header::correct))
    }

    /// What the engine says of itself.
    pub(crate) async fn describe(&self) -> Result<server::Engine, Diagnosis> {
        let version = self.docker(READ_PATIENCE)?.version().await.map_err(diagnose)?;
        Ok(description(version))
    }

    /// Whether this is Podman, not Docker. Asked anew: an engine may be replaced behind its socket.
    pub(crate) async fn is_podman(&self) -> Result<bool, Diagnosis> {
        // Its version takes it half a second: it starts two programs to ask them for theirs.
        let asked = timeout(READ_PATIENCE, wire::ask(&self.host, Method::GET, "/_ping", Bytes::new())).await;
        let answer = asked.map_err(|error| no_answer(&error.to_string()))?;
        let answer = answer.map_err(|error| no_answer(&error.to_string()))?;
        Ok(answer.headers().contains_key(PODMAN_HEADER))
    }

    /// Whether this is a Podman that goes to a registry without verified TLS, as its `registries.conf` has
    /// it. Its login takes no notice of that.
    pub(crate) async fn is_lax_podman(&self, registry: &str) -> Result<bool, Diagnosis> {
        if !self.is_podman().await? {
            return Ok(false);
        }
        let info = self.docker(READ_PATIENCE)?.info().await.map_err(diagnose)?;
        let registries = info.registry_config.and_then(|config| config.index_configs).unwrap_or_default();
        // To Podman an entry for a host is one for all of its ports.
        let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
        let lax = |name| registries.get(name).is_some_and(|known| known.secure == Some(false));
        Ok(lax(registry) || lax(host))
    }

    /// Where the engine looks for Docker Hub's images before it asks the Hub: URLs as its settings have them.
    pub(crate) async fn hub_mirrors(&self) -> Result<Vec<String>, Diagnosis> {
        let info = self.docker(READ_PATIENCE)?.info().await.map_err(diagnose)?;
        Ok(info.registry_config.and_then(|config| config.mirrors).unwrap_or_default())
    }

    /// The images on the host that have a name.
    pub(crate) async fn images(&self) -> Result<Vec<Image>, Diagnosis> {
        let options = ListImagesOptionsBuilder::new().build();
        let images = self.docker(READ_PATIENCE)?.list_images(Some(options)).await.map_err(diagnose)?;
        Ok(images.into_iter().map(listed).collect())
    }

    /// An image on the host; `None` when there is none of that name.
    pub(crate) async fn image(&self, image: &Reference) -> Result<Option<LocalImage>, Diagnosis> {
        match self.docker(READ_PATIENCE)?.inspect_image(&image.familiar()).await {
            Ok(image) => Ok(Some(image.into())),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(error) => Err(diagnose(error)),
        }
    }

    /// Gives a local image a further name. `source` is a reference's familiar form or an image id.
    pub(crate) async fn tag(&self, source: &str, target: &Reference) -> Result<(), Diagnosis> {
        let options =
            TagImageOptionsBuilder::new().repo(&target.familiar_name()).tag(target.version()).build();
        self.docker(READ_PATIENCE)?.tag_image(source, Some(options)).await.map_err(diagnose)
    }

    /// Takes a name from a local image.
    pub(crate) async fn untag(&self, name: &Reference) -> Result<(), Diagnosis> {
        let options = RemoveImageOptionsBuilder::new().noprune(true).build();
        let removed = self.docker(READ_PATIENCE)?.remove_image(&name.familiar(), Some(options), None).await;
        removed.map(drop).map_err(diagnose)
    }

    /// Lets the engine log in to a registry, as `docker login` does. Nothing is stored.
    pub(crate) async fn login(&self, login: &Login<'_>, deadline: Duration) -> Result<(), Diagnosis> {
        login::login(&self.host, login, deadline).await
    }

    /// Where to put what must be done although its work was cut off.
    pub(crate) fn afterwards(&self) -> &TaskTracker {
        &self.afterwards
    }

    /// Waits until everything of [`Self::afterwards`] is done.
    pub(crate) async fn settle(&self) {
        self.afterwards.close();
        self.afterwards.wait().await;
    }
}

fn description(version: SystemVersion) -> server::Engine {
    let components = version.components.unwrap_or_default();
    let podman = components.iter().any(|component| component.name.contains("Podman"));
    server::Engine {
        name: if podman { "Podman" } else { "Docker" }.to_owned(),
        version: version.version.unwrap_or_default(),
        api_version: version.api_version.unwrap_or_default(),
        os: version.os.unwrap_or_default(),
        arch: version.arch.unwrap_or_default(),
    }
}

fn listed(image: ImageSummary) -> Image {
    // The engine writes `<none>` where a name or digest is missing.
    let named = |names: Vec<String>| names.into_iter().filter(|name| !name.contains("<none>")).collect();
    Image {
        image_id: image.id,
        tags: named(image.repo_tags),
        digests: named(image.repo_digests),
        size_bytes: u64::try_from(image.size).unwrap_or_default(),
        created_at: Timestamp::from_unix_seconds(image.created),
    }
}

/// bollard's errors in our vocabulary.
fn diagnose(error: Error) -> Diagnosis {
    match error {
        Error::DockerResponseServerError { message, .. } | Error::DockerStreamError { error: message } => {
            classify_engine_message(&message)
        }
        Error::JsonDataError { .. } | Error::JsonSerdeError { .. } => Diagnosis::new(
            DiagnosisCode::EngineError,
            "the Docker Engine's answer was not understood",
            "Check that the agent's DOCKER_HOST is a Docker Engine of version 20.10 or newer.",
        ),
        error => no_answer(&error.to_string()),
    }
}

fn no_answer(reason: &str) -> Diagnosis {
    Diagnosis::new(
        DiagnosisCode::EngineError,
        "the Docker Engine of this host does not answer",
        "Check that the engine runs (`systemctl status docker`) and that the agent may use its socket.",
    )
    .with_engine_message(reason)
}
