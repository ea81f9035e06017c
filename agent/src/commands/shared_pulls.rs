//! Identical pulls at once are one pull of the engine: the same image and platform, from the same
//! registry, with the same credential. Who asks for it last ends it last: a target that is cancelled takes
//! nothing from the others, and with the last one the engine stops.
//!
//! Credentials are told apart by a hash under a key that this process made, so nothing is compared in
//! clear and none is kept for it. Different credentials never share: whether one of them may pull is for
//! the registry to say.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared, pending},
};
use purser_proto_schema::{
    agent::command::{Failure, Outcome, RegistryAccess},
    job::Progress,
};
use ring::{hmac, rand::SystemRandom};
use tokio::sync::watch;

use crate::{error::AgentError, targets::ProgressSink};

type Pulled = Result<Outcome, Failure>;
type Work = BoxFuture<'static, Pulled>;

/// What makes pulls the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Likeness {
    image: String,
    platform: Option<String>,
    address: String,
    insecure: bool,
    ca_certificate: Option<String>,
    realm_allow: Vec<String>,
    credential: Option<Vec<u8>>,
}

/// The pulls under way.
pub(crate) struct SharedPulls {
    key: hmac::Key,
    under_way: Mutex<HashMap<Likeness, UnderWay>>,
}

struct UnderWay {
    work: WeakShared<Work>,
    progress: watch::Receiver<Progress>,
}

impl SharedPulls {
    /// None yet.
    ///
    /// # Errors
    /// Where the system gives no random bytes.
    pub(crate) fn new() -> Result<Self, AgentError> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        Ok(Self { key: key.map_err(|_| AgentError::Random)?, under_way: Mutex::default() })
    }

    /// What a pull is told from others by.
    pub(super) fn likeness(
        &self,
        image: &str,
        platform: Option<&str>,
        registry: &RegistryAccess,
    ) -> Likeness {
        let credential = registry.credentials.as_ref().map(|credentials| {
            let mut hash = hmac::Context::with_key(&self.key);
            // The length parts the two: no name that ends as another's password begins is that other.
            hash.update(&(credentials.username.len() as u64).to_be_bytes());
            hash.update(credentials.username.as_bytes());
            hash.update(credentials.password.expose().as_bytes());
            hash.sign().as_ref().to_vec()
        });
        Likeness {
            image: image.to_owned(),
            platform: platform.map(str::to_owned),
            address: registry.address.clone(),
            insecure: registry.insecure,
            ca_certificate: registry.ca_certificate.clone(),
            realm_allow: registry.realm_allow.clone(),
            credential,
        }
    }

    /// Waits for the pull that is like this one and under way, or else for `begin`'s.
    pub(super) async fn pull(
        &self,
        likeness: Likeness,
        sink: &ProgressSink,
        begin: impl FnOnce(watch::Sender<Progress>) -> Work,
    ) -> Pulled {
        let (work, mut progress) = self.join(likeness, begin);
        let telling = async {
            loop {
                sink.report(progress.borrow_and_update().clone());
                if progress.changed().await.is_err() {
                    return pending::<Pulled>().await;
                }
            }
        };
        tokio::select! {
            pulled = work => pulled,
            never = telling => never,
        }
    }

    fn join(
        &self,
        likeness: Likeness,
        begin: impl FnOnce(watch::Sender<Progress>) -> Work,
    ) -> (Shared<Work>, watch::Receiver<Progress>) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // There are no more than targets, so a look at each costs nothing.
        under_way.retain(|_, pull| pull.work.upgrade().is_some());
        if let Some(pull) = under_way.get(&likeness)
            && let Some(work) = pull.work.upgrade()
        {
            tracing::debug!(image = likeness.image, "joins a pull that is under way");
            return (work, pull.progress.clone());
        }
        let (sender, progress) = watch::channel(Progress::default());
        let work = begin(sender).shared();
        if let Some(weak) = work.downgrade() {
            under_way.insert(likeness, UnderWay { work: weak, progress: progress.clone() });
        }
        (work, progress)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use purser_proto_schema::agent::command::ChannelCredentials;
    use secrecy::SecretString;
    use tokio::sync::oneshot;

    use super::*;

    fn access(user: &str, password: &str) -> RegistryAccess {
        RegistryAccess {
            address: "ghcr.io".to_owned(),
            insecure: false,
            ca_certificate: None,
            realm_allow: Vec::new(),
            credentials: Some(ChannelCredentials {
                username: user.to_owned(),
                password: SecretString::from(password).into(),
            }),
        }
    }

    fn done() -> Outcome {
        Outcome::Image { digest: "sha256:0".to_owned(), size_bytes: None }
    }

    #[test]
    fn only_the_same_credential_is_like_itself() {
        let pulls = SharedPulls::new().unwrap();
        let like = |registry: &RegistryAccess| pulls.likeness("ghcr.io/o/app:1", None, registry);
        let bob = like(&access("bob", "secret"));
        assert_eq!(bob, like(&access("bob", "secret")));
        for other in [access("bob", "Secret"), access("bobs", "ecret"), access("eve", "secret")] {
            assert_ne!(bob, like(&other));
        }
        assert_ne!(bob, like(&RegistryAccess { credentials: None, ..access("", "") }));
        assert_ne!(bob, like(&RegistryAccess { insecure: true, ..access("bob", "secret") }));
        assert_ne!(bob, pulls.likeness("ghcr.io/o/app:1", Some("linux/arm64"), &access("bob", "secret")));
        assert_ne!(bob, pulls.likeness("ghcr.io/o/app:2", None, &access("bob", "secret")));
        assert!(!format!("{bob:?}").contains("secret"));
    }

    /// Counts the pulls that begin and those that are dropped before their end.
    #[derive(Clone, Default)]
    struct Counts {
        begun: Arc<AtomicUsize>,
        dropped: Arc<AtomicUsize>,
    }

    struct Dropped(Arc<AtomicUsize>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Counts {
        fn begin(&self, end: oneshot::Receiver<()>) -> Work {
            self.begun.fetch_add(1, Ordering::SeqCst);
            let guard = Dropped(Arc::clone(&self.dropped));
            async move {
                let _guard = guard;
                let _ = end.await;
                Ok(done())
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn one_pull_serves_all_who_ask_and_outlives_whoever_goes() {
        let pulls = SharedPulls::new().unwrap();
        let like = || pulls.likeness("ghcr.io/o/app:1", None, &access("bob", "secret"));
        let counts = Counts::default();
        let (end, ended) = oneshot::channel();
        let (mut first, _) = pulls.join(like(), |_| counts.begin(ended));
        assert!((&mut first).now_or_never().is_none());
        let (second, _) = pulls.join(like(), |_| counts.begin(oneshot::channel().1));
        let other = pulls.likeness("ghcr.io/o/app:1", None, &access("eve", "secret"));
        let (apart, _) = pulls.join(other, |_| counts.begin(oneshot::channel().1));
        assert_eq!(counts.begun.load(Ordering::SeqCst), 2, "another credential is another pull");
        drop((first, apart));
        assert_eq!(counts.dropped.load(Ordering::SeqCst), 1, "only what nobody waits for");
        end.send(()).unwrap();
        assert!(second.await.is_ok());
        // What has ended is not joined: the tag may mean another image by now.
        let (third, _) = pulls.join(like(), |_| counts.begin(oneshot::channel().1));
        assert_eq!(counts.begun.load(Ordering::SeqCst), 3);
        drop(third);
        assert_eq!(counts.dropped.load(Ordering::SeqCst), 3);
    }
}
