//! Pushes. bollard drops the line's `aux`, so the digest is read from the status line.

use bollard::query_parameters::PushImageOptionsBuilder;
use futures_util::TryStreamExt as _;
use purser_proto_schema::job::Progress;
use purser_registry_client::{Diagnosis, DiagnosisCode, Reference};

use super::{Engine, Login, TRANSFER_PATIENCE, diagnose, progress::PushProgress};

impl Engine {
    /// Pushes one tag, and returns the digest that the engine names at the end. The engine repeats a
    /// refused login for most of a minute, so try the login before.
    pub(crate) async fn push(
        &self,
        image: &Reference,
        login: Option<&Login<'_>>,
        report: impl Fn(Progress),
    ) -> Result<String, Diagnosis> {
        let options = PushImageOptionsBuilder::new().tag(image.version()).build();
        let docker = self.docker(TRANSFER_PATIENCE)?;
        let mut lines =
            docker.push_image(&image.familiar_name(), Some(options), login.map(Login::to_bollard));
        let mut progress = PushProgress::default();
        let mut digest = None;
        while let Some(line) = lines.try_next().await.map_err(diagnose)? {
            let status = line.status.unwrap_or_default();
            digest = pushed_digest(&status, image.version()).or(digest);
            report(progress.take(&status));
        }
        digest.ok_or_else(|| {
            Diagnosis::new(
                DiagnosisCode::EngineError,
                "the Docker Engine ended the push without saying that it succeeded",
                "Try again; if it happens again, look at the engine's log.",
            )
        })
    }
}

/// The digest in `TAG: digest: sha256:… size: N`.
fn pushed_digest(status: &str, tag: &str) -> Option<String> {
    let rest = status.strip_prefix(tag)?.strip_prefix(": digest: ")?;
    let (digest, size) = rest.split_once(" size: ")?;
    let whole = digest.starts_with("sha256:") && size.parse::<u64>().is_ok();
    whole.then(|| digest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_stands_in_the_line_of_the_tag() {
        let digest = |line| pushed_digest(line, "v1");
        assert_eq!(digest("v1: digest: sha256:aa size: 528").as_deref(), Some("sha256:aa"));
        for other in [
            "",
            "v2: digest: sha256:aa size: 528",
            "v1: digest: sha256:aa",
            "v1: digest: x size: 1",
            "Pushed",
        ] {
            assert_eq!(digest(other), None, "{other}");
        }
    }
}
