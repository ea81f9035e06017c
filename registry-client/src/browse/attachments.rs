//! Signatures and attestations that somebody attached to an image.

use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::manifest::{Descriptor, Document, is_media_type};
use crate::access::MANIFESTS;
use crate::reference::is_valid_digest;
use crate::session::{Session, Want};

/// The most referrers that are listed.
const MAX_REFERRERS: usize = 50;
/// The largest list of referrers, in bytes.
const MAX_INDEX_BYTES: usize = 4 * 1024 * 1024;

/// Something that says that it is about an image. Nothing of it was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// What it is.
    pub artifact_type: String,
    /// Of its manifest.
    pub digest: String,
    /// Of its manifest, in bytes.
    pub size_bytes: Option<u64>,
}

/// What is attached to an image. It is there, which says nothing about whether it is any good: signatures aren't
/// verified here. `None` is unknown: the registry didn't tell, or there was no time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Attachments {
    /// Whether there is a signature (cosign, Sigstore bundle or Notary).
    pub signed: Option<bool>,
    /// Whether there is an attestation (buildkit's, cosign's, in-toto or an SBOM).
    pub attested: Option<bool>,
    /// What the registry lists as attached, at most 50.
    pub referrers: Vec<Referrer>,
}

impl Session<'_> {
    /// Looks for what is attached to `digest`: by the referrers API, else by its fallback tag, and by cosign's tags.
    pub(super) async fn find_attachments(&mut self, repository: &str, digest: &str, found: &mut Attachments) {
        let tag = digest.replace(':', "-");
        let api = format!("/v2/{repository}/referrers/{digest}");
        let listed = match self.list(repository, api).await {
            Listed::Absent => self.list(repository, format!("/v2/{repository}/manifests/{tag}")).await,
            listed => listed,
        };
        let mut certain = true;
        match listed {
            Listed::Some(entries) => found.referrers = entries,
            Listed::Absent => {}
            Listed::Unknown => certain = false,
        }
        let has =
            |test: fn(&str) -> bool| found.referrers.iter().any(|referrer| test(&referrer.artifact_type));
        let (signed, attested) = (has(is_signature), has(is_attestation) || found.attested == Some(true));
        found.signed = self.settle(signed, certain, repository, format!("{tag}.sig")).await;
        found.attested = self.settle(attested, certain, repository, format!("{tag}.att")).await;
    }

    /// What is known already, else whether cosign's tag exists.
    async fn settle(&mut self, known: bool, certain: bool, repository: &str, tag: String) -> Option<bool> {
        if known {
            return Some(true);
        }
        let path = format!("/v2/{repository}/manifests/{tag}");
        let want = Want { method: Method::HEAD, accept: MANIFESTS, ..Want::of_repository(repository, path) };
        let answer = self.ask(&want).await.ok()?;
        match answer.status {
            StatusCode::OK if is_manifest(&answer.headers) => Some(true),
            StatusCode::NOT_FOUND if certain => Some(false),
            _ => None,
        }
    }

    async fn list(&mut self, repository: &str, path: String) -> Listed {
        let want =
            Want { accept: MANIFESTS, max_body: MAX_INDEX_BYTES, ..Want::of_repository(repository, path) };
        let Ok(answer) = self.ask(&want).await else { return Listed::Unknown };
        match answer.status {
            StatusCode::OK if !answer.truncated => {
                match Document::read(&answer.body).and_then(|document| document.manifests) {
                    Some(entries) => {
                        let entries = entries.iter().filter_map(referrer).take(MAX_REFERRERS);
                        Listed::Some(entries.collect())
                    }
                    // Some answer 200 to everything.
                    _ => Listed::Absent,
                }
            }
            // Registries without the API answer all sorts of things to it.
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::BAD_REQUEST => {
                Listed::Absent
            }
            _ => Listed::Unknown,
        }
    }
}

enum Listed {
    Some(Vec<Referrer>),
    Absent,
    Unknown,
}

/// Whether a 200 is about a manifest: some servers answer 200 to everything.
fn is_manifest(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    is_valid_digest(text("docker-content-digest")) || text("content-type").contains("manifest")
}

fn referrer(entry: &Descriptor) -> Option<Referrer> {
    let kind = entry.artifact_type.as_deref().or(entry.media_type.as_deref())?;
    (is_valid_digest(&entry.digest) && is_media_type(kind)).then(|| Referrer {
        artifact_type: kind.to_owned(),
        digest: entry.digest.clone(),
        size_bytes: entry.size,
    })
}

fn is_signature(kind: &str) -> bool {
    let lower = kind.to_ascii_lowercase();
    lower.contains("cosign.artifact.sig")
        || lower.contains("cosign.simplesigning")
        || lower.contains("sigstore.bundle")
        || lower.contains("notary.signature")
}

fn is_attestation(kind: &str) -> bool {
    let lower = kind.to_ascii_lowercase();
    ["in-toto", "cosign.artifact.att", "spdx", "cyclonedx", "syft", "dsse"]
        .iter()
        .any(|part| lower.contains(part))
}
