//! Pulls. The engine's answer is a stream behind a 200: only its last lines say how it ended.
//!
//! Docker ends with the digest and a status. Podman ends with the image's short id, in a line that looks
//! like a layer's; so that is believed of a Podman alone, and the image that has this id must be there.

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
    /// Pulls exactly one tag or digest, and returns what the engine names at the end. Dropping the future
    /// aborts the download in the engine.
    ///
    /// Without a login no credential is sent; with one, a refusal is the end: it is never repeated without.
    pub(crate) async fn pull(
        &self,
        image: &Reference,
        platform: Option<&str>,
        login: Option<&Login<'_>>,
        report: impl Fn(Progress),
    ) -> Result<Pulled, Diagnosis> {
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
            end.take(line);
            report(progress.take(line));
        }
        match end.result() {
            Ok(Pulled::Image(_)) if !self.is_podman().await? => Err(cut_short()),
            result => result,
        }
    }
}

/// How an engine said that a pull succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pulled {
    /// Docker: the digest of what was asked for.
    Digest(String),
    /// Podman: the beginning of the image's id, without `sha256:`.
    Image(String),
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

/// What Podman calls an image at the end.
const SHORT_ID: usize = 12;

/// The lines that a pull must have ended with.
#[derive(Debug, Default)]
struct PullEnd {
    digest: Option<String>,
    said_so: bool,
    /// Of the last line, where it could be Podman's.
    image: Option<String>,
}

impl PullEnd {
    fn take(&mut self, line: Line<'_>) {
        self.image =
            line.id.filter(|id| line.status == "Download complete" && is_short_id(id)).map(str::to_owned);
        if let Some(digest) = line.status.strip_prefix("Digest: ") {
            self.digest = Some(digest.trim().to_owned());
        } else if line.status.starts_with("Status: ") {
            self.said_so = true;
        }
    }

    fn result(self) -> Result<Pulled, Diagnosis> {
        let digest = self.digest.filter(|_| self.said_so).map(Pulled::Digest);
        digest.or(self.image.map(Pulled::Image)).ok_or_else(cut_short)
    }
}

fn is_short_id(id: &str) -> bool {
    id.len() == SHORT_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn cut_short() -> Diagnosis {
    Diagnosis::new(
        DiagnosisCode::EngineError,
        "the engine ended the pull without saying that it succeeded",
        "Try again; if it happens again, look at the engine's log.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(lines: &[(Option<&str>, &str)]) -> Result<Pulled, Diagnosis> {
        let mut end = PullEnd::default();
        lines.iter().for_each(|&(id, status)| end.take(Line { id, status, ..Line::default() }));
        end.result()
    }

    #[test]
    fn only_digest_and_status_together_are_success() {
        let done = "Status: Image is up to date for h/a:1";
        assert_eq!(
            end(&[(None, "Digest: sha256:aa"), (None, done)]).unwrap(),
            Pulled::Digest("sha256:aa".to_owned())
        );
        for lines in [
            &[][..],
            &[(None, "Digest: sha256:aa")],
            &[(None, "Status: Downloaded newer image for h/a:1")],
            &[(Some("56061a272712"), "Pull complete")],
        ] {
            assert_eq!(end(lines).unwrap_err().code, DiagnosisCode::EngineError);
        }
    }

    #[test]
    fn a_podman_names_the_image_in_its_last_line() {
        let done = (Some("20affae3e7cf"), "Download complete");
        let image = Pulled::Image("20affae3e7cf".to_owned());
        assert_eq!(end(&[(Some("56061a272712"), "Pulling fs layer"), done]).unwrap(), image);
        for after in [
            (Some("56061a272712"), "Downloading"),
            (None, "Download complete"),
            (Some("v1"), "Download complete"),
        ] {
            assert!(end(&[done, after]).is_err(), "{after:?}");
        }
    }
}
