//! One image, as far as its manifests tell.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::BrowseError;
use super::attachments::Attachments;
use super::manifest::{Descriptor, Manifest, PlatformDocument, is_media_type, total};
use crate::diagnosis::{Diagnosis, DiagnosisCode as Code, presentable};
use crate::digest;
use crate::kind::RegistryKind;
use crate::reference::{is_valid_digest, is_valid_tag};
use crate::session::Session;

/// The largest configuration that is read for labels, in bytes.
const MAX_CONFIG_BYTES: usize = 1024 * 1024;
/// The most platforms that are listed.
const MAX_PLATFORMS: usize = 64;
/// Of how many platforms the manifest is read for its size.
const MAX_SIZED: usize = 12;
/// The most labels.
const MAX_LABELS: usize = 128;
/// The longest name of a platform's part, in bytes.
const MAX_PART_BYTES: usize = 64;

/// One platform that an image was built for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub arch: String,
    /// Such as `v7`.
    pub variant: Option<String>,
    /// Of the platform's own manifest.
    pub digest: String,
    /// What is downloaded for it (configuration and compressed layers), in bytes; `None` where it wasn't looked up:
    /// on Docker Hub each look would count as a pull, so only one platform is.
    pub size_bytes: Option<u64>,
}

/// An image. Everything from the registry is checked or made fit to be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "RegistryImage"))]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// The path below the registry.
    pub repository: String,
    /// The hash of what the registry handed out, proven.
    pub digest: String,
    /// Of the manifest or index.
    pub media_type: String,
    /// What it is, if it is something other than an image.
    pub artifact_type: Option<String>,
    /// What it was built for; at most 64.
    pub platforms: Vec<Platform>,
    /// All distinct blobs of all platforms, in bytes; `None` where one isn't known.
    pub total_size_bytes: Option<u64>,
    /// When it was built, as the builder says (RFC 3339, often a made-up constant), of the platform in `described`.
    pub created: Option<String>,
    /// Its labels, at most 128, of the platform in `described`.
    pub labels: BTreeMap<String, String>,
    /// Of which platform `created` and `labels` are, as `linux/amd64`.
    pub described: Option<String>,
    /// Signatures and attestations.
    pub attachments: Attachments,
    /// What a person should know.
    pub warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    created: Option<String>,
    #[serde(flatten)]
    platform: PlatformDocument,
    #[serde(default)]
    config: Option<RunConfiguration>,
}

#[derive(Deserialize)]
struct RunConfiguration {
    #[serde(default, rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

impl Session<'_> {
    /// Reads what a tag or digest of a repository is. Costs one pull on Docker Hub, two where it is for several
    /// platforms.
    ///
    /// # Errors
    /// [`BrowseError::Failed`] with `not_found` where there is no such version, and with `other` where what the registry
    /// hands out doesn't hash to its digest. What is missing besides (labels, sizes) is `None` and said in `warnings`.
    pub async fn manifest(&mut self, repository: &str, version: &str) -> Result<Image, BrowseError> {
        let repository = self.repository(repository)?;
        if !is_valid_tag(version) && !is_valid_digest(version) {
            return Err(BrowseError::Version);
        }
        let manifest = self.fetch_manifest(&repository, version).await?.ok_or_else(|| {
            Diagnosis::new(
                Code::NotFound,
                format!("{} has no {version} in {repository}, or doesn't show it", self.host()),
                "List the repository's tags.",
            )
        })?;
        let mut image = Image {
            repository,
            digest: manifest.digest.clone(),
            media_type: manifest.media_type.clone(),
            artifact_type: None,
            platforms: Vec::new(),
            total_size_bytes: None,
            created: None,
            labels: BTreeMap::new(),
            described: None,
            attachments: Attachments::default(),
            warnings: Vec::new(),
        };
        match &manifest.document.manifests {
            Some(entries) => self.read_index(&mut image, entries).await,
            None => self.read_single(&mut image, &manifest).await,
        }
        self.find_attachments(&image.repository, &image.digest, &mut image.attachments).await;
        Ok(image)
    }

    async fn read_single(&mut self, image: &mut Image, manifest: &Manifest) {
        let document = &manifest.document;
        image.total_size_bytes = document.blobs().and_then(|blobs| total(blobs.into_values()));
        let config = document.config.as_ref();
        let kind = config.and_then(|config| config.media_type.as_deref()).unwrap_or_default();
        if !is_image_config(kind) {
            let kind = document.artifact_type.as_deref().unwrap_or(kind);
            image.artifact_type = Some(kind.to_owned()).filter(|kind| is_media_type(kind));
            image.warnings.push("This isn't an image that Docker can run.".to_owned());
            return;
        }
        let Some(platform) = self.read_config(image, config).await else { return };
        if let Some(platform) = platform_of(&platform, &image.digest, image.total_size_bytes) {
            image.described = Some(name_of(&platform));
            image.platforms.push(platform);
        }
    }

    async fn read_index(&mut self, image: &mut Image, entries: &[Descriptor]) {
        for entry in entries {
            if entry.annotation("vnd.docker.reference.type") == Some("attestation-manifest") {
                image.attachments.attested = Some(true);
                continue;
            }
            let platform =
                entry.platform.as_ref().and_then(|platform| platform_of(platform, &entry.digest, None));
            match platform {
                Some(platform) if image.platforms.len() < MAX_PLATFORMS => image.platforms.push(platform),
                Some(_) => {
                    image.warnings.push("It is for more platforms than are listed.".to_owned());
                    break;
                }
                None => {}
            }
        }
        let usual = |platform: &Platform| platform.os == "linux" && platform.arch == "amd64";
        let Some(first) =
            image.platforms.iter().position(usual).or((!image.platforms.is_empty()).then_some(0))
        else {
            return;
        };
        let others = (0..image.platforms.len()).filter(|at| *at != first);
        let sized = if self.kind() == RegistryKind::DockerHub { 1 } else { MAX_SIZED };
        let order: Vec<usize> = std::iter::once(first).chain(others).take(sized).collect();
        self.read_platforms(image, &order).await;
    }

    /// Reads the manifests of some platforms for their sizes, the first of them for labels too, in half of the time that
    /// is left.
    async fn read_platforms(&mut self, image: &mut Image, order: &[usize]) {
        let enough = self.ladder.remaining() / 2;
        let mut blobs: BTreeMap<String, u64> = BTreeMap::new();
        let mut read = BTreeSet::new();
        for (nth, &at) in order.iter().enumerate() {
            let digest = image.platforms[at].digest.clone();
            let repository = image.repository.clone();
            let Ok(Some(child)) = self.fetch_manifest(&repository, &digest).await else { continue };
            if let Some(own) = child.document.blobs() {
                image.platforms[at].size_bytes = total(own.values().copied());
                blobs.extend(own.into_iter().map(|(digest, size)| (digest.to_owned(), size)));
                read.insert(digest);
            }
            if nth == 0 && self.read_config(image, child.document.config.as_ref()).await.is_some() {
                image.described = Some(name_of(&image.platforms[at]));
            }
            if self.ladder.remaining() < enough {
                break;
            }
        }
        if image.platforms.iter().all(|platform| read.contains(&platform.digest)) {
            image.total_size_bytes = total(blobs.into_values());
        } else {
            image.warnings.push("The sizes of some platforms were not looked up.".to_owned());
        }
    }

    /// Reads `created` and labels out of a configuration that hashes to its digest.
    async fn read_config(
        &mut self,
        image: &mut Image,
        config: Option<&Descriptor>,
    ) -> Option<PlatformDocument> {
        let read = self.fetch_config(&image.repository, config).await;
        let Some(configuration) = read else {
            image
                .warnings
                .push("The image's configuration couldn't be read, so its labels aren't known.".to_owned());
            return None;
        };
        let date = configuration.created.map(|created| presentable(&created));
        image.created = date.filter(|date| is_date(date));
        let labels = configuration.config.and_then(|config| config.labels).unwrap_or_default();
        if labels.len() > MAX_LABELS {
            image.warnings.push("It has more labels than are listed.".to_owned());
        }
        let shown = labels.iter().take(MAX_LABELS);
        image.labels = shown.map(|(name, value)| (presentable(name), presentable(value))).collect();
        Some(configuration.platform)
    }

    async fn fetch_config(&mut self, repository: &str, config: Option<&Descriptor>) -> Option<Configuration> {
        let config = config.filter(|config| is_valid_digest(&config.digest))?;
        if config.size.is_some_and(|size| size > MAX_CONFIG_BYTES as u64) {
            return None;
        }
        let answer = self.blob(repository, &config.digest, MAX_CONFIG_BYTES).await.ok()??;
        if digest::is_of(&config.digest, &answer.body) != Some(true) {
            return None;
        }
        serde_json::from_slice(&answer.body).ok()
    }
}

fn is_image_config(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
    )
}

/// `None` for what isn't one: buildkit's `unknown/unknown`, and names that no platform has.
fn platform_of(platform: &PlatformDocument, digest: &str, size_bytes: Option<u64>) -> Option<Platform> {
    let part = |text: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        (!text.is_empty() && text.len() <= MAX_PART_BYTES && text.bytes().all(plain)).then(|| text.to_owned())
    };
    let (os, arch) = (part(&platform.os)?, part(&platform.architecture)?);
    let variant = platform.variant.as_deref().and_then(part);
    let known = is_valid_digest(digest) && (os != "unknown" || arch != "unknown");
    known.then(|| Platform { os, arch, variant, digest: digest.to_owned(), size_bytes })
}

fn name_of(platform: &Platform) -> String {
    let Platform { os, arch, .. } = platform;
    platform
        .variant
        .as_ref()
        .map_or_else(|| format!("{os}/{arch}"), |variant| format!("{os}/{arch}/{variant}"))
}

/// Whether it looks like RFC 3339.
fn is_date(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_digit() || b"-:.+TZtz".contains(&b);
    (20..=40).contains(&text.len()) && text.bytes().all(plain)
}
