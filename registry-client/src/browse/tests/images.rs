use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::digest::sha256;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// What a registry holds, by path below `/v2/team/app/`.
#[derive(Clone, Default)]
struct Store(BTreeMap<String, String>);

impl Store {
    /// Adds a document under its digest, and under a tag where one is given.
    fn manifest(&mut self, tag: &str, document: &Value) -> String {
        let text = document.to_string();
        let digest = sha256(text.as_bytes());
        for version in [tag, &digest].into_iter().filter(|version| !version.is_empty()) {
            self.0.insert(format!("manifests/{version}"), text.clone());
        }
        digest
    }

    fn config(&mut self, arch: &str) -> Value {
        let text = json!({"created": "2026-01-15T10:30:00Z", "architecture": arch, "os": "linux",
            "config": {"Labels": {"org.opencontainers.image.source": "https://x.test/r", "evil": "a\u{1b}b"}}})
        .to_string();
        let digest = sha256(text.as_bytes());
        self.0.insert(format!("blobs/{digest}"), text.clone());
        json!({"mediaType": CONFIG, "digest": digest, "size": 100})
    }

    fn image(&mut self, tag: &str, arch: &str) -> String {
        let config = self.config(arch);
        let layer = |n: u8, size: i64| json!({"mediaType": "x/y", "digest": sha256(&[n]), "size": size});
        // One layer is there twice, and downloaded once.
        let layers = json!([layer(1, 1000), layer(1, 1000), layer(2, 30)]);
        self.manifest(
            tag,
            &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}),
        )
    }

    async fn serve(self) -> Fake {
        basic_registry(move |path| {
            let found = path.strip_prefix("/v2/team/app/").and_then(|path| self.0.get(path));
            found.map_or_else(
                || answer("404 Not Found", &[], ""),
                |text| answer("200 OK", &[&format!("Content-Type: {MANIFEST}")], text),
            )
        })
        .await
    }
}

async fn read(fake: &Fake, version: &str) -> Result<Image, BrowseError> {
    client()
        .open(&at(fake.address, ""), Some(&bob()), DEADLINE)
        .await
        .unwrap()
        .manifest("team/app", version)
        .await
}

#[tokio::test]
async fn a_single_image_is_described_with_sizes_and_labels() {
    let mut store = Store::default();
    let digest = store.image("1", "arm64");
    let fake = store.serve().await;
    for version in ["1", &digest] {
        let image = read(&fake, version).await.unwrap();
        assert_eq!((image.digest.as_str(), image.media_type.as_str()), (digest.as_str(), MANIFEST));
        assert_eq!((image.total_size_bytes, image.platforms[0].size_bytes), (Some(1130), Some(1130)));
        assert_eq!(image.described.as_deref(), Some("linux/arm64"));
        assert_eq!(image.created.as_deref(), Some("2026-01-15T10:30:00Z"));
        assert_eq!(image.labels["evil"], "ab");
        assert_eq!((image.attachments.signed, image.attachments.attested), (Some(false), Some(false)));
        assert_eq!(image.warnings, [""; 0]);
    }
}

#[tokio::test]
async fn an_index_lists_platforms_with_their_sizes_and_tells_attestations_from_them() {
    let mut store = Store::default();
    let (arm, amd) = (store.image("", "arm64"), store.image("", "amd64"));
    let entry = |digest: &str, os: &str, arch: &str| {
        json!({"mediaType": MANIFEST, "digest": digest, "size": 500,
        "platform": {"os": os, "architecture": arch, "variant": if arch == "arm64" { "v8" } else { "" }}})
    };
    let mut attestation = entry(&sha256(b"att"), "unknown", "unknown");
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let entries = json!([entry(&arm, "linux", "arm64"), attestation, entry(&amd, "linux", "amd64")]);
    store.manifest("1", &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}));
    let fake = store.serve().await;
    let image = read(&fake, "1").await.unwrap();
    let platforms: Vec<_> =
        image.platforms.iter().map(|p| (p.arch.as_str(), p.variant.as_deref(), p.size_bytes)).collect();
    assert_eq!(platforms, [("arm64", Some("v8"), Some(1130)), ("amd64", None, Some(1130))]);
    // The layers are shared, the configurations are not.
    assert_eq!(image.total_size_bytes, Some(1230));
    assert_eq!(image.described.as_deref(), Some("linux/amd64"));
    assert_eq!(image.attachments.attested, Some(true));
    let json = serde_json::to_value(&image).unwrap();
    assert_eq!(json["platforms"][0]["sizeBytes"], 1130);
}

#[tokio::test]
async fn what_does_not_hash_to_its_digest_is_refused() {
    let mut store = Store::default();
    let digest = store.image("1", "amd64");
    store.0.insert(format!("manifests/{digest}"), json!({"schemaVersion": 2, "layers": []}).to_string());
    let config = store.0.iter_mut().find(|(path, _)| path.starts_with("blobs/")).unwrap();
    config.1.push(' ');
    let fake = store.serve().await;
    let diagnosis = failed(read(&fake, &digest).await.unwrap_err());
    assert!(diagnosis.message.contains("doesn't hash to its digest"), "{}", diagnosis.message);
    // A changed configuration costs the labels only, and says so.
    let image = read(&fake, "1").await.unwrap();
    assert!(image.labels.is_empty() && image.warnings.len() == 1);

    let said = format!("Docker-Content-Digest: {}", sha256(b"another"));
    let fake =
        basic_registry(move |_| answer("200 OK", &[&said], r#"{"schemaVersion":2,"layers":[]}"#)).await;
    assert!(failed(read(&fake, "1").await.unwrap_err()).message.contains("doesn't hash"));
}

#[tokio::test]
async fn odd_numbers_and_names_are_unknown_rather_than_wrong() {
    let digest = sha256(b"x");
    for size in [json!(-1), json!(1.5), json!(18_446_744_073_709_551_615_u64), json!(null)] {
        let mut store = Store::default();
        let config = store.config("amd64");
        let layers = json!([{"digest": digest, "size": size}]);
        store.manifest("1", &json!({"schemaVersion": 2, "config": config, "layers": layers}));
        assert_eq!(read(&store.serve().await, "1").await.unwrap().total_size_bytes, None, "{size}");
    }
    let mut store = Store::default();
    let platform = |os: &str, digest: &str| json!({"digest": digest, "size": 1, "platform": {"os": os, "architecture": "a"}});
    let entries =
        json!([platform("li\u{1b}nux", &digest), platform("", &digest), platform("linux", "sha256:../x")]);
    store.manifest("1", &json!({"schemaVersion": 2, "mediaType": "a\u{1b}/b", "manifests": entries}));
    let image = read(&store.serve().await, "1").await.unwrap();
    assert!(image.platforms.is_empty());
    assert_eq!(image.media_type, INDEX);
}

#[tokio::test]
async fn manifests_that_are_absent_too_large_too_old_or_no_manifests_are_told_apart() {
    let fake = Store::default().serve().await;
    assert_eq!(failed(read(&fake, "1").await.unwrap_err()).code, Code::NotFound);
    for version in ["", "a b", "sha256:abc", "a/b", "../x"] {
        assert_eq!(read(&fake, version).await.unwrap_err(), BrowseError::Version);
    }
    let table = [
        (format!("{{\"x\":\"{}\"}}", "x".repeat(5 << 20)), "larger than 4 MiB"),
        (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), "schema 1"),
        ("<html>".to_owned(), "web page"),
        ("[]".to_owned(), "something else"),
        ("{}".to_owned(), "something else"),
    ];
    for (body, expected) in table {
        let fake = basic_registry(move |_| answer("200 OK", &[], &body)).await;
        let message = failed(read(&fake, "1").await.unwrap_err()).message;
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn signatures_are_found_by_the_referrers_api_its_fallback_tag_and_cosigns_tags() {
    let signature = json!({"mediaType": MANIFEST, "digest": sha256(b"s"), "size": 7,
        "artifactType": "application/vnd.dev.cosign.artifact.sig.v1+json"});
    let sbom = json!({"mediaType": MANIFEST, "digest": sha256(b"b"), "size": 8,
        "artifactType": "application/spdx+json"});
    let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [signature, sbom]}).to_string();
    let mut plain = Store::default();
    let digest = plain.image("1", "amd64");
    let tag = digest.replace(':', "-");
    for path in [format!("referrers/{digest}"), format!("manifests/{tag}")] {
        let mut store = plain.clone();
        store.0.insert(path, list.clone());
        let attachments = read(&store.serve().await, "1").await.unwrap().attachments;
        assert_eq!((attachments.signed, attachments.attested), (Some(true), Some(true)));
        assert_eq!(attachments.referrers.len(), 2);
    }
    let mut store = plain.clone();
    store.0.insert(format!("manifests/{tag}.sig"), String::new());
    let attachments = read(&store.serve().await, "1").await.unwrap().attachments;
    assert_eq!((attachments.signed, attachments.attested), (Some(true), Some(false)));
}

#[tokio::test]
async fn a_registry_that_will_not_tell_leaves_attachments_unknown() {
    let mut store = Store::default();
    let digest = store.image("", "amd64");
    let text = store.0[&format!("manifests/{digest}")].clone();
    let fake = basic_registry(move |path| match path {
        path if path.ends_with("/manifests/1") => answer("200 OK", &[], &text),
        _ => answer("403 Forbidden", &[], ""),
    })
    .await;
    let image = read(&fake, "1").await.unwrap();
    assert_eq!((image.attachments.signed, image.attachments.attested), (None, None));
    assert_eq!(image.warnings.len(), 1);
    // One that says 200 to everything tells nothing either.
    let fake = open_registry(|_| answer("200 OK", &[], r#"{"schemaVersion":2,"layers":[]}"#)).await;
    let attachments = read(&fake, "1").await.unwrap().attachments;
    assert_eq!((attachments.signed, attachments.attested), (None, None));
}

#[tokio::test]
async fn a_configuration_in_another_store_is_fetched_without_the_secret_if_the_store_is_trusted() {
    let mut store = Store::default();
    store.image("1", "amd64");
    let blobs = store.clone();
    let blob_store = Fake::start(move |asked| {
        let digest = path_of(asked).strip_prefix("/signed/").unwrap().split('?').next().unwrap();
        answer("200 OK", &[], &blobs.0[&format!("blobs/{digest}")])
    })
    .await;
    // Loopback trusts loopback; another name isn't trusted, and not dialled.
    for (place, labels) in [(blob_store.address.to_string(), 2), ("evil.test".to_owned(), 0)] {
        let manifests = store.clone();
        let fake = basic_registry(move |path| match path.strip_prefix("/v2/team/app/") {
            Some(path) if path.starts_with("blobs/") => {
                let location = format!("Location: http://{place}/signed/{}?sig=x", &path[6..]);
                answer("307 Temporary Redirect", &[&location], "")
            }
            Some(path) if manifests.0.contains_key(path) => answer("200 OK", &[], &manifests.0[path]),
            _ => answer("404 Not Found", &[], ""),
        })
        .await;
        assert_eq!(read(&fake, "1").await.unwrap().labels.len(), labels);
    }
    assert_eq!(blob_store.asked().len(), 1);
    assert!(blob_store.asked().iter().all(|asked| asked.authorization.is_none()));
}
