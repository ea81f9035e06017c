//! The door of this crate: one cheap handle that tests registries.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::access::prove;
use crate::address::{Authority, RegistryAddress};
use crate::diagnosis::{Diagnosis, DiagnosisCode};
use crate::egress::EgressPolicy;
use crate::hub::HubEndpoints;
use crate::ladder::Ladder;
use crate::outcome::{AccessVerdict, Busy, CredentialsVerdict, ProbeOutcome, TestError, TestOutcome};
use crate::probe::Reached;
use crate::realm::is_allowed;
use crate::reference::is_valid_path;
use crate::session::Session;
use crate::tls::Trust;

/// How many tests, probes and sessions of one client ask at the same time, unless [`RegistryClient::at_most`] says less.
/// Each holds a socket or two.
pub const MAX_AT_ONCE: usize = 2048;

/// A registry, and how far its transport is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it is.
    pub address: RegistryAddress,
    /// Accept any certificate, and plain HTTP where TLS isn't spoken. Always warned about.
    pub insecure: bool,
    /// PEM of further certificate authorities (or of the registry's own self-signed certificate) that are trusted for
    /// this registry besides those of the system.
    pub ca_certificate: Option<String>,
    /// Token servers that the owner of the entry trusts with the secret besides those that the registry's name vouches
    /// for: `host` (any port) or `host:port`, as [`check_realm_host`](crate::check_realm_host) writes them. They are
    /// held to TLS and to the egress policy like all others. Blobs are fetched from there as well, without the secret.
    pub realm_allow: Vec<String>,
}

impl Target {
    /// A registry that is trusted as its address says and no further.
    pub fn new(address: RegistryAddress) -> Self {
        Self { address, insecure: false, ca_certificate: None, realm_allow: Vec::new() }
    }

    /// Whether the entry's owner lets its secret be sent to `place`, too ([`Self::realm_allow`]); by TLS, or within this
    /// machine.
    pub fn allows(&self, place: &RegistryAddress) -> bool {
        let Ok(authority) = Authority::parse(&place.host) else { return false };
        let port = authority.port.unwrap_or(if place.plain_http { 80 } else { 443 });
        (!place.plain_http || place.is_loopback_literal()) && is_allowed(&self.realm_allow, &authority, port)
    }
}

/// What a registry is offered when it asks.
#[derive(Clone)]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// Password, token or a whole JSON key file; sent byte for byte.
    pub password: SecretString,
}

/// Only the user name is shown.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    fn is_blank(&self) -> bool {
        self.username.trim().is_empty() || self.password.expose_secret().is_empty()
    }
}

/// Which access to prove after the login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScopeProbe {
    /// A repository path without registry, tag or digest, such as `library/nginx`.
    pub repository: String,
    /// Ask for the manifest `latest`.
    pub pull: bool,
    /// Begin an upload and cancel it. May leave an upload session behind on registries that don't support cancelling.
    pub push: bool,
}

/// Tests registries. Cheap to clone; clones share the loaded root certificates.
#[derive(Clone, Debug)]
pub struct RegistryClient {
    shared: Arc<Shared>,
}

/// What every climb uses.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) policy: EgressPolicy,
    pub(crate) user_agent: HeaderValue,
    pub(crate) trust: Trust,
    pub(crate) hub: HubEndpoints,
    /// How much may still be asked.
    pub(crate) at_once: Semaphore,
}

impl Shared {
    /// Where `target` is dialled: its own address, except that Docker Hub is where the endpoints say.
    pub(crate) fn address_of<'a>(&'a self, target: &'a Target) -> &'a RegistryAddress {
        if target.address.is_docker_hub() { &self.hub.registry } else { &target.address }
    }
}

impl RegistryClient {
    /// A client that dials what `policy` permits and introduces itself as `user_agent` (as `purser` where that is no
    /// valid header). Nothing is loaded or opened before the first use.
    pub fn new(policy: EgressPolicy, user_agent: &str) -> Self {
        Self::with_hub_endpoints(policy, user_agent, HubEndpoints::default())
    }

    /// Like [`Self::new`], with a Docker Hub elsewhere. Meant for tests, which can't reach the real one; entries for
    /// `docker.io` are then sent to these endpoints, secrets included.
    pub fn with_hub_endpoints(policy: EgressPolicy, user_agent: &str, hub: HubEndpoints) -> Self {
        let user_agent = HeaderValue::from_str(user_agent).unwrap_or(HeaderValue::from_static("purser"));
        let at_once = Semaphore::new(MAX_AT_ONCE);
        Self { shared: Arc::new(Shared { policy, user_agent, trust: Trust::new(), hub, at_once }) }
    }

    /// Lowers the number of tests, probes and sessions that ask at the same time, of this client and its clones
    /// together, to `count` (1 to [`MAX_AT_ONCE`]). Whoever comes when there is no room waits for half of its time, in
    /// turn, and is then told [`Busy`]. To be called once, before the first use.
    #[must_use]
    pub fn at_most(self, count: usize) -> Self {
        self.shared.at_once.forget_permits(MAX_AT_ONCE.saturating_sub(count.max(1)));
        self
    }

    /// Climbs the whole ladder: resolve, connect, TLS, `GET /v2/`, challenge, token, `GET /v2/` with it, and access to
    /// the repository of `scope`. It ends when `deadline` has passed, wherever it is.
    ///
    /// An open registry is never shown the credentials. Blank ones count as none, as in Docker. A login that stands
    /// although access is refused is an outcome, whose `access` and `warnings` say so.
    ///
    /// # Errors
    /// [`TestFailure`](crate::TestFailure) with the cause, some advice, and the steps up to the one that broke. Neither
    /// holds the secret, even if the registry repeats it. [`Busy`] where nothing was asked.
    pub async fn test(
        &self,
        target: &Target,
        credentials: Option<&Credentials>,
        scope: Option<&ScopeProbe>,
        deadline: Duration,
    ) -> Result<TestOutcome, TestError> {
        let mut ladder = Ladder::new(deadline);
        let _room = ladder.admit(&self.shared.at_once).await?;
        match self.climb(&mut ladder, target, credentials, scope).await {
            Ok((session, credentials, access)) => {
                let (auth, kind) = (session.login.scheme(), session.kind);
                let (steps, warnings) = ladder.finish();
                Ok(TestOutcome { auth, credentials, kind, access, steps, warnings })
            }
            Err(diagnosis) => Err(ladder.fail(diagnosis).into()),
        }
    }

    /// The unauthenticated part: what does this registry ask for, and where would a secret be sent? The token server is
    /// judged by name and by address, but not asked. For use before an Engine is handed a secret: Engines follow
    /// whatever the registry names. `secret` is not sent, only kept out of the outcome: the registry may know it from
    /// before.
    ///
    /// # Errors
    /// As [`Self::test`], with [`RealmDenied`](DiagnosisCode::RealmDenied) or
    /// [`EgressDenied`](DiagnosisCode::EgressDenied) for a token server that must not see the secret.
    pub async fn probe(
        &self,
        target: &Target,
        secret: Option<&Credentials>,
        deadline: Duration,
    ) -> Result<ProbeOutcome, TestError> {
        let mut ladder = Ladder::new(deadline);
        if let Some(secret) = secret {
            ladder.secrets.add_credentials(&secret.username, &secret.password);
        }
        let _room = ladder.admit(&self.shared.at_once).await?;
        match Reached::begin(&mut ladder, &self.shared, target).await {
            Ok(session) => {
                let realm_host = session.realm_host().map(|host| ladder.secrets.hide_hosts(host));
                let (steps, warnings) = ladder.finish();
                Ok(ProbeOutcome {
                    auth: session.login.scheme(),
                    realm_host,
                    kind: session.kind,
                    steps,
                    warnings,
                })
            }
            Err(diagnosis) => Err(ladder.fail(diagnosis).into()),
        }
    }

    /// Begins to read from a registry: nothing is dialled before the first question. `deadline` is the total time of
    /// everything that is asked through the session. Blank credentials count as none.
    ///
    /// A session belongs to one credential and keeps its tokens to itself. Begin one for each call; it holds its place
    /// among all that is asked at once until it is dropped.
    ///
    /// # Errors
    /// [`Busy`] where there is no place for it.
    pub async fn open<'a>(
        &'a self,
        target: &'a Target,
        credentials: Option<&'a Credentials>,
        deadline: Duration,
    ) -> Result<Session<'a>, Busy> {
        let usable = credentials.filter(|given| !given.is_blank());
        let ladder = Ladder::new(deadline);
        let room = ladder.admit(&self.shared.at_once).await?;
        Ok(Session::new(&self.shared, target, usable, ladder, room))
    }

    async fn climb<'a>(
        &'a self,
        ladder: &mut Ladder,
        target: &'a Target,
        credentials: Option<&'a Credentials>,
        scope: Option<&ScopeProbe>,
    ) -> Result<(Reached<'a>, CredentialsVerdict, Option<AccessVerdict>), Diagnosis> {
        if scope.is_some_and(|scope| !is_valid_path(&scope.repository)) {
            return Err(Diagnosis::new(
                DiagnosisCode::Other,
                "the repository to test is not a valid repository path",
                "Write only the path, in lower case, such as team/app: no registry, tag or digest.",
            ));
        }
        let usable = credentials.filter(|given| !given.is_blank());
        if credentials.is_some() && usable.is_none() {
            ladder.warn("User name or password is blank, so no credentials were used.");
        }
        // Before anything is asked: a registry may repeat what it was sent in an earlier climb.
        if let Some(credentials) = usable {
            ladder.secrets.add_credentials(&credentials.username, &credentials.password);
        }
        let mut session = Reached::begin(ladder, &self.shared, target).await?;
        let kind = session.kind;
        let advise = |diagnosis| kind.advise(diagnosis, usable.map(|given| given.username.as_str()));
        let verdict = session.log_in(ladder, usable).await.map_err(advise)?;
        let access = match scope {
            Some(scope) => Some(prove(ladder, &mut session, scope).await.map_err(advise)?),
            None => None,
        };
        Ok((session, verdict, access))
    }
}

#[cfg(test)]
mod tests;
