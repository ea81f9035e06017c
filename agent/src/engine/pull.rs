//! Pulls. The engine's answer is a stream behind a 200: only its last lines say how it ended.

use bollard::{
    models::{CreateImageInfo, ProgressDetail},
    query_parameters::CreateImageOptionsBuilder,
};
use futures_util::TryStreamExt as _;
use purser_proto_schema::job::Progress;
use purser_registry_client::{Diagnosis, DiagnosisCode, Reference};

use super::{
    Engine, Login, TRANSFER_PATIENCE, diagnose,
    progress::{Line, PullProgress},
};

impl Engine {
    /// Pulls exactly one tag or digest, and returns the digest that the engine names at the end. Dropping
    /// the future aborts the download in the engine.
    ///
    /// Without a login no credential is sent; with one, a refusal is the end: it is never repeated without.
    pub(crate) async fn pull(
        &self,
        image: &Reference,
        platform: Option<&str>,
        login: Option<&Login<'_>>,
        report: impl Fn(Progress),
    ) -> Result<String, Diagnosis> {
        // `version` is never empty: an empty tag would pull every tag.
        let options = CreateImageOptionsBuilder::new()
            .from_image(&image.familiar_name())
            .tag(image.version())
            .platform(platform.unwrap_or_default())
            .build();
        let docker = self.docker(TRANSFER_PATIENCE)?;
        let mut lines = docker.create_image(Some(options), None, login.map(Login::to_bollard));
        let mut progress = PullProgress::default();
        let mut end = PullEnd::default();
        while let Some(line) = lines.try_next().await.map_err(diagnose)? {
            let line = read(&line);
            end.take(line.status);
            report(progress.take(line));
        }
        end.digest()
    }
}

fn read(line: &CreateImageInfo) -> Line<'_> {
    let bytes = |of: fn(&ProgressDetail) -> Option<i64>| {
        line.progress_detail.as_ref().and_then(of).and_then(|bytes| u64::try_from(bytes).ok())
    };
    Line {
        id: line.id.as_deref(),
        status: line.status.as_deref().unwrap_or_default(),
        current: bytes(|detail| detail.current),
        total: bytes(|detail| detail.total),
    }
}

/// The lines that a pull must have ended with.
#[derive(Debug, Default)]
struct PullEnd {
    digest: Option<String>,
    said_so: bool,
}

impl PullEnd {
    fn take(&mut self, status: &str) {
        if let Some(digest) = status.strip_prefix("Digest: ") {
            self.digest = Some(digest.trim().to_owned());
        } else if status.starts_with("Status: ") {
            self.said_so = true;
        }
    }

    fn digest(self) -> Result<String, Diagnosis> {
        self.digest.filter(|_| self.said_so).ok_or_else(|| {
            Diagnosis::new(
                DiagnosisCode::EngineError,
                "the Docker Engine ended the pull without saying that it succeeded",
                "Try again; if it happens again, look at the engine's log.",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(lines: &[&str]) -> Result<String, Diagnosis> {
        let mut end = PullEnd::default();
        lines.iter().for_each(|line| end.take(line));
        end.digest()
    }

    #[test]
    fn only_digest_and_status_together_are_success() {
        assert_eq!(
            end(&["Digest: sha256:aa", "Status: Image is up to date for h/a:1"]).unwrap(),
            "sha256:aa"
        );
        for lines in [
            &[][..],
            &["Digest: sha256:aa"],
            &["Status: Downloaded newer image for h/a:1"],
            &["Pull complete"],
        ] {
            assert_eq!(end(lines).unwrap_err().code, DiagnosisCode::EngineError);
        }
    }
}
