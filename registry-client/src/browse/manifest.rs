//! Manifests as registries hand them out, and the proof that they are what was asked for.

use std::collections::BTreeMap;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Deserializer};
use serde_json::Number;

use super::BrowseError;
use crate::access::MANIFESTS;
use crate::diagnosis::{Diagnosis, DiagnosisCode as Code};
use crate::digest;
use crate::reference::is_valid_digest;
use crate::session::{Session, Want};

/// The largest manifest, in bytes; what registries themselves accept.
const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;
/// The longest media type, in bytes.
const MAX_MEDIA_TYPE_BYTES: usize = 255;

/// A manifest or an index.
pub(super) struct Manifest {
    /// What the body was proven to hash to.
    pub(super) digest: String,
    pub(super) media_type: String,
    pub(super) document: Document,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    #[serde(default)]
    schema_version: Option<Number>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    pub(super) artifact_type: Option<String>,
    #[serde(default)]
    pub(super) config: Option<Descriptor>,
    #[serde(default)]
    pub(super) layers: Option<Vec<Descriptor>>,
    /// Only an index has them.
    #[serde(default)]
    pub(super) manifests: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: Option<String>,
    #[serde(default)]
    pub(super) artifact_type: Option<String>,
    pub(super) digest: String,
    /// `None` for what is no size: negative, broken, or too large for JSON's readers.
    #[serde(default, deserialize_with = "size")]
    pub(super) size: Option<u64>,
    #[serde(default)]
    pub(super) platform: Option<PlatformDocument>,
    #[serde(default)]
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
pub(super) struct PlatformDocument {
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) variant: Option<String>,
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let number = Option::<Number>::deserialize(deserializer)?;
    Ok(number.and_then(|number| number.as_u64()).filter(|size| *size < 1 << 53))
}

impl Descriptor {
    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }
}

impl Document {
    /// Reads an object that is a manifest or an index of some kind; nesting beyond 128 levels is none.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let object = body.trim_ascii_start().starts_with(b"{");
        let document: Self = serde_json::from_slice(body).ok().filter(|_| object)?;
        let something = document.manifests.is_some()
            || document.layers.is_some()
            || document.config.is_some()
            || document.schema_version.is_some();
        something.then_some(document)
    }

    /// The distinct blobs and their sizes; `None` if a size is missing.
    pub(super) fn blobs(&self) -> Option<BTreeMap<&str, u64>> {
        let blobs = self.config.iter().chain(self.layers.iter().flatten());
        blobs.map(|blob| blob.size.map(|size| (blob.digest.as_str(), size))).collect()
    }
}

/// The sum, unless it is absurd.
pub(super) fn total(sizes: impl IntoIterator<Item = u64>) -> Option<u64> {
    sizes.into_iter().try_fold(0_u64, u64::checked_add).filter(|sum| *sum < 1 << 53)
}

impl Session<'_> {
    /// Fetches a manifest by tag or digest; `Ok(None)` when there is none. Both parts were checked.
    pub(super) async fn fetch_manifest(
        &mut self,
        repository: &str,
        version: &str,
    ) -> Result<Option<Manifest>, BrowseError> {
        let path = format!("/v2/{repository}/manifests/{version}");
        let want =
            Want { accept: MANIFESTS, max_body: MAX_MANIFEST_BYTES, ..Want::of_repository(repository, path) };
        let answer = self.ask(&want).await?;
        let what = format!("image {repository}, {version}");
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.refusal(&answer, &what).into()),
        }
        if answer.truncated {
            let message = format!("the manifest of {what} is larger than 4 MiB");
            return Err(Diagnosis::new(Code::Other, message, "Docker doesn't read it either.").into());
        }
        let document: Document = Document::read(&answer.body).ok_or_else(|| self.nonsense(&answer, &what))?;
        if document.schema_version.as_ref().and_then(Number::as_u64) == Some(1) {
            let message = "the image has a format (schema 1) that Docker no longer reads";
            let advice = "Build and push it again with a current Docker.";
            return Err(Diagnosis::new(Code::Other, message, advice).into());
        }
        let digest = proven(&answer.headers, &answer.body, version).ok_or_else(|| {
            Diagnosis::new(
                Code::Other,
                format!("what {} hands out as {what} doesn't hash to its digest", self.host()),
                "Don't use it: the registry is damaged, or something on the way changed the answer.",
            )
        })?;
        let media_type = media_type(&document, &answer.headers);
        Ok(Some(Manifest { digest, media_type, document }))
    }
}

/// The digest of the body, if it is what the caller asked for and what the registry says.
fn proven(headers: &HeaderMap, body: &[u8], version: &str) -> Option<String> {
    if is_valid_digest(version) {
        return (digest::is_of(version, body) == Some(true)).then(|| version.to_owned());
    }
    let said = headers.get("docker-content-digest").and_then(|digest| digest.to_str().ok());
    match said.filter(|said| is_valid_digest(said)) {
        Some(said) => (digest::is_of(said, body) == Some(true)).then(|| said.to_owned()),
        None => Some(digest::sha256(body)),
    }
}

/// As the document says, else the header, else what its form says.
fn media_type(document: &Document, headers: &HeaderMap) -> String {
    let header = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let header = header.map(|kind| kind.split(';').next().unwrap_or_default().trim());
    let said = document.media_type.as_deref().or(header).filter(|kind| is_media_type(kind));
    let form = if document.manifests.is_some() { "index" } else { "manifest" };
    said.map_or_else(|| format!("application/vnd.oci.image.{form}.v1+json"), str::to_owned)
}

/// `type/subtype`, in the characters that media types have.
pub(super) fn is_media_type(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    text.len() <= MAX_MEDIA_TYPE_BYTES
        && text.split_once('/').is_some_and(|(kind, subtype)| part(kind) && part(subtype))
}
