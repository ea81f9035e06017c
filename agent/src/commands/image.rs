//! `pull` and `push`: done only when the engine said so and the digest was read back from it.

use std::{sync::Arc, time::Duration};

use purser_proto_schema::{
    agent::command::{Failure, Outcome},
    job::Progress,
};
use purser_registry_client::{
    AuthScheme, Diagnosis, DiagnosisCode, Reference, RegistryKind, browse::BrowseError,
};
use tokio::sync::watch;

use super::{Commands, access::Access, too_busy};
use crate::{
    engine::{Engine, LocalImage, Pulled},
    targets::ProgressSink,
};

/// For asking the registry before the engine is given a secret.
const VET_DEADLINE: Duration = Duration::from_secs(15);
/// For asking a registry what it has, where the engine does not say.
const READ_BACK_DEADLINE: Duration = Duration::from_secs(15);
/// For trying a login before a push.
const LOGIN_DEADLINE: Duration = Duration::from_secs(30);

impl Commands {
    /// Pulls one image. With a credential it is pulled with that credential or not at all.
    pub(super) async fn pull(
        &self,
        image: &str,
        platform: Option<&str>,
        access: &Access,
        progress: &watch::Sender<Progress>,
    ) -> Result<Outcome, Failure> {
        let image = access.reference(image)?;
        let login = access.login();
        let kind = match login {
            Some(_) => {
                let kind = self.vet(access, VET_DEADLINE).await?.kind;
                self.vet_mirrors(access).await?;
                kind
            }
            None => RegistryKind::of_host(&access.target().address.host),
        };
        let report = |state| drop(progress.send_replace(state));
        let pulled = self.engine.pull(&image, platform, login.as_ref(), report).await;
        let pulled = pulled.map_err(|refusal| {
            let refusal = if login.is_some() { refusal } else { without_credentials(refusal) };
            kind.advise(refusal, access.username())
        })?;
        let (digest, pulled) = match pulled {
            Pulled::Digest(digest) => {
                let pulled = self.read_back(&image, &digest).await?;
                (digest, pulled)
            }
            Pulled::Image(id) => self.read_back_image(&image, &id, access).await?,
        };
        if let Some(wanted) = platform.filter(|wanted| !runs_on(&pulled, wanted)) {
            return Err(other_platform(&pulled, wanted));
        }
        Ok(Outcome::Image { digest, size_bytes: pulled.size_bytes })
    }

    /// Pushes a local image under another name. The name stays on the host if the push succeeded or the
    /// name was there before.
    pub(super) async fn push(
        &self,
        source: &str,
        target: &str,
        access: &Access,
        progress: &ProgressSink,
    ) -> Result<Outcome, Failure> {
        let target = access.reference(target)?;
        if target.digest().is_some() {
            return Err(Failure::new(
                DiagnosisCode::Other,
                "an image is pushed under a tag, not under a digest",
                "Leave the digest out of the target's name.",
            ));
        }
        let source = Reference::parse(source).map_err(|error| {
            Failure::new(DiagnosisCode::Other, error.to_string(), "Correct the local image's name.")
        })?;
        let image = self.engine.image(&source).await?.ok_or_else(|| no_such_image(&source))?;

        // The engine repeats a refused login for most of a minute, so it is tried once before.
        let login = access.login();
        let mut kind = RegistryKind::of_host(&access.target().address.host);
        if let Some(login) = &login {
            let vetted = self.vet(access, VET_DEADLINE).await?;
            kind = vetted.kind;
            if vetted.auth != AuthScheme::None {
                let logged_in = self.log_in(access, login, LOGIN_DEADLINE).await;
                logged_in.map_err(|refusal| Failure {
                    diagnosis: kind.advise(refusal.diagnosis, access.username()),
                    ..refusal
                })?;
            }
        }
        let name = Name::give(&self.engine, &image, &target).await?;
        let pushed = self.engine.push(&target, login.as_ref(), |state| progress.report(state)).await;
        let digest = pushed.map_err(|refusal| kind.advise(refusal, access.username()))?;
        let pushed = match self.read_back(&target, &digest).await {
            // The image on the host keeps the digest that it had; only the registry has the new one.
            Err(_) if self.engine.is_podman().await? => {
                self.read_back_push(&image, &target, &digest, access).await?
            }
            pushed => pushed?,
        };
        name.keep();
        Ok(Outcome::Image { digest, size_bytes: pushed.size_bytes })
    }

    /// The image that Podman says it pulled, and its digest: the only one that it has under this name, or
    /// else the one that the registry names.
    async fn read_back_image(
        &self,
        image: &Reference,
        id: &str,
        access: &Access,
    ) -> Result<(String, LocalImage), Failure> {
        let changed =
            || gone(format!("the engine pulled an image {id}, but does not have it under this name"));
        let local = self.engine.image(image).await?;
        let local = local
            .filter(|local| local.id.trim_start_matches("sha256:").starts_with(id))
            .ok_or_else(changed)?;
        let known = local.digests(&image.name());
        let digest = match (image.digest(), known.as_slice()) {
            (Some(asked), _) => asked.to_owned(),
            (None, [only]) => only.clone(),
            (None, _) => self.digest_at_registry(image, image.version(), access).await?,
        };
        if known.contains(&digest) { Ok((digest, local)) } else { Err(changed()) }
    }

    /// The image that a Podman pushed, if it still bears the name here, and the registry has it by its digest.
    async fn read_back_push(
        &self,
        image: &LocalImage,
        target: &Reference,
        digest: &str,
        access: &Access,
    ) -> Result<LocalImage, Failure> {
        let local = self.engine.image(target).await?.filter(|local| local.id == image.id);
        let local =
            local.ok_or_else(|| gone(format!("the image is not called {} any more", target.familiar())))?;
        if self.digest_at_registry(target, digest, access).await? == digest {
            return Ok(local);
        }
        Err(gone(format!("the engine named the digest {digest}, but the registry has another under it")))
    }

    /// What the registry has under a tag or digest now.
    async fn digest_at_registry(
        &self,
        image: &Reference,
        version: &str,
        access: &Access,
    ) -> Result<String, Failure> {
        let session = self.registries.open(access.target(), access.credentials(), READ_BACK_DEADLINE);
        let mut session = session.await.map_err(too_busy)?;
        let manifest = session.manifest(image.repository(), version).await;
        manifest.map(|manifest| manifest.digest).map_err(|error| match error {
            BrowseError::Failed(failed) => failed.into(),
            error => gone(format!("the registry does not say which digest it has: {error}")),
        })
    }

    /// The image as the engine has it now, if its digest is the one that the engine named.
    async fn read_back(&self, image: &Reference, digest: &str) -> Result<LocalImage, Failure> {
        let named = image.digest().is_none_or(|asked| asked == digest);
        let local = self.engine.image(image).await?;
        local.filter(|local| named && local.has_digest(&image.name(), digest)).ok_or_else(|| {
            gone(format!("the Docker Engine named the digest {digest}, but does not have the image under it"))
        })
    }
}

/// A name that was given to a local image for a push. Dropped without [`Name::keep`], by an error, by a
/// cancel or by a deadline alike, the host's names are put back as they were.
struct Name {
    engine: Arc<Engine>,
    name: Reference,
    before: Before,
}

/// What bore the name before.
enum Before {
    /// Nothing.
    Nothing,
    /// Another image, with this id.
    Another(String),
    /// The same image, or the name is to stay.
    Settled,
}

impl Name {
    async fn give(engine: &Arc<Engine>, image: &LocalImage, name: &Reference) -> Result<Self, Diagnosis> {
        let before = match engine.image(name).await? {
            None => Before::Nothing,
            Some(bearer) if bearer.id == image.id => Before::Settled,
            Some(bearer) => Before::Another(bearer.id),
        };
        if !matches!(before, Before::Settled) {
            engine.tag(&image.id, name).await?;
        }
        Ok(Self { engine: Arc::clone(engine), name: name.clone(), before })
    }

    fn keep(mut self) {
        self.before = Before::Settled;
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let before = std::mem::replace(&mut self.before, Before::Settled);
        if matches!(before, Before::Settled) {
            return;
        }
        let (engine, name) = (Arc::clone(&self.engine), self.name.clone());
        self.engine.afterwards().spawn(async move {
            let restored = match before {
                Before::Another(id) => engine.tag(&id, &name).await,
                Before::Nothing | Before::Settled => engine.untag(&name).await,
            };
            if let Err(diagnosis) = restored {
                tracing::warn!(%name, error = diagnosis.message, "a name for a push could not be put back");
            }
        });
    }
}

/// Whether an image is of a platform such as `linux/arm64/v8`, `linux/arm64` or `arm64`.
fn runs_on(image: &LocalImage, wanted: &str) -> bool {
    let mut parts = wanted.split('/');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    match second {
        Some(architecture) => same(first, &image.os) && same_architecture(architecture, &image.architecture),
        None => same(first, &image.os) || same_architecture(first, &image.architecture),
    }
}

fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

fn same_architecture(one: &str, other: &str) -> bool {
    let canonical = |name: &str| match name.to_ascii_lowercase().as_str() {
        "x86_64" | "x86-64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        "i386" => "386".to_owned(),
        other => other.to_owned(),
    };
    canonical(one) == canonical(other)
}

fn other_platform(image: &LocalImage, wanted: &str) -> Failure {
    // Older engines take what there is from a tag of a single platform, and say nothing.
    Failure::new(
        DiagnosisCode::NotFound,
        format!("the image is for {}/{}, not for {wanted}", image.os, image.architecture),
        "Ask for a platform that the image is built for. The engine has pulled the other one.",
    )
}

/// The refusal of a pull without credentials. What engines and registries say of it reads as if some had been refused.
fn without_credentials(refusal: Diagnosis) -> Diagnosis {
    // A proxy that shows a page of its own minds no credentials.
    let by_registry = matches!(refusal.code, DiagnosisCode::Unauthorized | DiagnosisCode::InsufficientScope)
        || refusal.code == DiagnosisCode::Forbidden && !refusal.message.contains("in front of the registry");
    if !by_registry {
        return refusal;
    }
    Diagnosis {
        message: "the registry does not let the image be pulled without credentials, or does not have it"
            .to_owned(),
        advice:
            "No entry with credentials fits the image's registry and namespace: registry.match says what \
                 became of each. Store one, widen one's namespace, or name one by registryId; and check the \
                 image's name."
                .to_owned(),
        ..refusal
    }
}

/// The engine said that it succeeded, and cannot show it.
fn gone(message: String) -> Failure {
    Failure::new(
        DiagnosisCode::EngineError,
        message,
        "Someone may have changed or removed the image meanwhile; try again.",
    )
}

fn no_such_image(image: &Reference) -> Failure {
    Failure::new(
        DiagnosisCode::NotFound,
        format!("this host has no image {}", image.familiar()),
        "Pull or build it on this host first; image.all lists what is there.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_compared_by_what_the_image_says() {
        let image = LocalImage::of_platform("linux", "amd64");
        for same in ["linux/amd64", "linux/x86_64", "amd64", "linux", "Linux/AMD64", "linux/amd64/v1"] {
            assert!(runs_on(&image, same), "{same}");
        }
        for other in ["linux/arm64", "windows/amd64", "arm64", "linux/zzz", "", "linux/"] {
            assert!(!runs_on(&image, other), "{other}");
        }
    }
}
