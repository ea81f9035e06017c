//! Images without internet: a tar of one file, and images that clean up after themselves.

use std::io::Write as _;

use crate::{
    engine::Engine,
    user::User,
    wait::{random_bytes, random_hex, unique},
};

/// A root file system that no other image has: one file of `payload` random bytes, named at
/// random.
pub fn archive(payload: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload + 4096);
    out.extend(header(&format!("purser-{}", random_hex(8)), payload));
    out.extend(random_bytes(payload));
    out.resize(out.len().next_multiple_of(512) + 1024, 0);
    out
}

/// One ustar header of a plain file.
fn header(name: &str, size: usize) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// An image in a registry that no other test uses; [`in_registry`] puts it there.
#[derive(Clone, Debug)]
pub struct Published {
    /// `127.0.0.1:5000/name`.
    pub repository: String,
    /// The name without its registry.
    pub name: String,
    /// The tag.
    pub tag: String,
    /// The manifest's digest.
    pub digest: String,
}

impl Published {
    /// `repository:tag`.
    pub fn reference(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    /// `repository@digest`.
    pub fn by_digest(&self) -> String {
        format!("{}@{}", self.repository, self.digest)
    }
}

/// Makes an image of `payload` bytes with `engine`, pushes it to `registry` as
/// `<name>-<unique>:v1`, and removes it from the engine again, so that a pull has work to do.
///
/// # Panics
/// Any step failed.
pub async fn in_registry(
    engine: &Engine,
    registry: &str,
    name: &str,
    payload: usize,
    user: Option<&User>,
) -> Published {
    let name = unique(name);
    let repository = format!("{registry}/{name}");
    engine.make_image(&repository, "v1", payload).await;
    let pushed = engine.push(&repository, "v1", user).await;
    let digest = pushed.unwrap_or_else(|error| panic!("{repository} was not pushed: {error}"));
    assert!(engine.remove(&format!("{repository}:v1")).await, "the image was there a moment ago");
    Published { repository, name, tag: "v1".into(), digest }
}

/// An image in an engine that is removed, with every other name it got, when this is dropped.
pub struct Local {
    engine: Engine,
    /// The image's id (`sha256:…`).
    pub id: String,
    /// Its repository name.
    pub repository: String,
}

impl Local {
    /// Makes `<name>-<unique>:latest` with `payload` random bytes.
    ///
    /// # Panics
    /// The engine refused.
    pub async fn make(engine: &Engine, name: &str, payload: usize) -> Self {
        let repository = unique(name);
        let id = engine.make_image(&repository, "latest", payload).await;
        Self { engine: engine.clone(), id, repository }
    }
}

impl Drop for Local {
    /// Needs no running runtime: it writes the request itself.
    fn drop(&mut self) {
        let request = format!(
            "DELETE /images/{}?force=true HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            self.id
        );
        if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(self.engine.socket()) {
            let _ = stream.write_all(request.as_bytes());
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    }
}
