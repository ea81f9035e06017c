//! Reading from a registry: one caller, one credential, one deadline.
//!
//! What is read is asked over the same judged connections as the probe ladder uses. Tokens are fetched by scope and kept
//! for this session only. Redirects are followed on the registry's very own place, and with them only does an
//! `Authorization` go along; what is kept in a blob store of the registry's vendor is fetched from there without one.

use std::time::Duration;

use http::header::LOCATION;
use http::{HeaderValue, Method, StatusCode, Uri};
use tokio::sync::SemaphorePermit;

use crate::access::path_on;
use crate::address::Authority;
use crate::answer::rate_limited;
use crate::client::{Credentials, Shared, Target};
use crate::connection::{Answer, Ask, MAX_BODY_BYTES, Transport};
use crate::diagnosis::{Diagnosis, DiagnosisCode as Code};
use crate::kind::RegistryKind;
use crate::ladder::Ladder;
use crate::outcome::StepName;
use crate::probe::{Login, Reached};
use crate::realm::{belongs, is_allowed};
use crate::{token, transport};

/// How many redirects one question may take.
const MAX_REDIRECTS: usize = 3;
/// The longest wait that a registry's `Retry-After` is granted.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// The wait before the second try where the registry doesn't say.
const PAUSE: Duration = Duration::from_millis(500);
/// How many tokens one session keeps.
const MAX_TOKENS: usize = 16;

/// Where vendors keep blobs: part of the registry's kind, and the end of the store's host. (From vendors' firewall lists;
/// a store that is missing here costs an image's labels and nothing else.)
const BLOB_STORES: [(RegistryKind, &str); 9] = [
    (RegistryKind::DockerHub, ".docker.com"),
    (RegistryKind::DockerHub, ".r2.cloudflarestorage.com"),
    (RegistryKind::Ghcr, "pkg-containers.githubusercontent.com"),
    (RegistryKind::Gitlab, ".gitlab-static.net"),
    (RegistryKind::GoogleArtifactRegistry, "storage.googleapis.com"),
    (RegistryKind::Ecr, ".amazonaws.com"),
    (RegistryKind::EcrPublic, ".cloudfront.net"),
    (RegistryKind::Acr, ".blob.core.windows.net"),
    (RegistryKind::DigitalOcean, ".digitaloceanspaces.com"),
];

/// One caller's view of one registry; see [`RegistryClient::open`](crate::RegistryClient::open). What can be asked is in
/// [`browse`](crate::browse).
pub struct Session<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) target: &'a Target,
    pub(crate) credentials: Option<&'a Credentials>,
    pub(crate) ladder: Ladder,
    reached: Option<Reached<'a>>,
    kind: RegistryKind,
    /// By scope.
    tokens: Vec<(String, HeaderValue)>,
    used: bool,
    /// Its place among all that is asked at once.
    _room: SemaphorePermit<'a>,
}

/// One question.
pub(crate) struct Want {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) accept: &'static str,
    /// The most that is read of the body, in bytes.
    pub(crate) max_body: usize,
    /// What a token for it must permit.
    pub(crate) scope: String,
}

impl Want {
    /// `GET` of JSON that is needed to read `repository`.
    pub(crate) fn of_repository(repository: &str, path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            accept: "application/json",
            max_body: MAX_BODY_BYTES,
            scope: format!("repository:{repository}:pull"),
        }
    }
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        target: &'a Target,
        credentials: Option<&'a Credentials>,
        mut ladder: Ladder,
        room: SemaphorePermit<'a>,
    ) -> Self {
        if let Some(credentials) = credentials {
            ladder.secrets.add_credentials(&credentials.username, &credentials.password);
        }
        let kind = RegistryKind::of_host(&target.address.host);
        Self {
            shared,
            target,
            credentials,
            ladder,
            reached: None,
            kind,
            tokens: Vec::new(),
            used: false,
            _room: room,
        }
    }

    /// Whose registry it is: by its host, and once it was asked, by its answer.
    pub fn kind(&self) -> RegistryKind {
        self.kind
    }

    /// Whether the credentials were sent, or would have been had their receiver been there: not to a registry that
    /// doesn't ask for them.
    pub fn has_used_credentials(&self) -> bool {
        self.used
    }

    /// What a person should know about how the registry was reached.
    pub fn warnings(&self) -> &[String] {
        self.ladder.warnings()
    }

    /// `host[:port]` as it appears in messages.
    pub(crate) fn host(&self) -> &str {
        &self.target.address.host
    }

    /// The authority that is asked.
    pub(crate) fn authority(&self) -> Option<&Authority> {
        self.reached.as_ref().map(|reached| &reached.registry.endpoint.authority)
    }

    /// The diagnosis with what is known about this kind of registry.
    pub(crate) fn advise(&self, diagnosis: Diagnosis) -> Diagnosis {
        let diagnosis = self.ladder.scrub(diagnosis);
        self.kind.advise(diagnosis, self.credentials.map(|given| given.username.as_str()))
    }

    /// Asks, with what the registry wants for the scope. Tries once more after 429 and 5xx, where a short wait will do,
    /// and with a new token after 401.
    pub(crate) async fn ask(&mut self, want: &Want) -> Result<Answer, Diagnosis> {
        let asked = self.ask_plainly(want).await;
        asked.map_err(|diagnosis| self.advise(diagnosis))
    }

    async fn ask_plainly(&mut self, want: &Want) -> Result<Answer, Diagnosis> {
        let (mut waited, mut renewed, mut redirects) = (false, false, 0);
        let mut path = want.path.clone();
        loop {
            let authorization = self.authorization(&want.scope).await?;
            let ask = Ask {
                method: want.method.clone(),
                accept: want.accept,
                max_body: want.max_body,
                ..Ask::get(path.clone()).authorized(authorization)
            };
            let Some(reached) = &mut self.reached else { return Err(not_reached()) };
            let answer = self.ladder.within(reached.registry.ask(&ask)).await?;
            if !waited && let Some(pause) = self.pause(&answer) {
                waited = true;
                tokio::time::sleep(pause).await;
            } else if answer.status == StatusCode::UNAUTHORIZED && !renewed {
                renewed = true;
                if !self.renew(&answer, &want.scope).await? {
                    return Ok(answer);
                }
            } else if answer.status.is_redirection()
                && redirects < MAX_REDIRECTS
                && let Some(next) = self.own_path(&answer)
            {
                redirects += 1;
                path = next;
            } else {
                return Ok(answer);
            }
        }
    }

    /// How long to wait before asking again; `None` if that makes no sense, or there is no time.
    fn pause(&self, answer: &Answer) -> Option<Duration> {
        let passing = matches!(answer.status.as_u16(), 429 | 500 | 502 | 503 | 504);
        let pause = answer.retry_after().map_or(PAUSE, |seconds| Duration::from_secs(seconds.into()));
        (passing && pause <= MAX_PAUSE && pause < self.ladder.remaining() / 2).then_some(pause)
    }

    /// Whether a 401 may be another answer with another token.
    async fn renew(&mut self, answer: &Answer, scope: &str) -> Result<bool, Diagnosis> {
        let Some(reached) = &mut self.reached else { return Ok(false) };
        match reached.login {
            // Open at its door (anonymous access is on), but not here.
            Login::Open => {
                reached.adopt(&mut self.ladder, &answer.headers).await?;
                Ok(true)
            }
            Login::Basic => Ok(false),
            Login::Bearer { .. } => {
                let kept = self.tokens.len();
                self.tokens.retain(|(of, _)| of != scope);
                Ok(self.tokens.len() < kept)
            }
        }
    }

    /// Where a redirect leads, if that is the place that was asked. Only the path counts: it is asked for over the
    /// connection that is there, so `http://` in a `Location` takes no TLS away.
    fn own_path(&self, answer: &Answer) -> Option<String> {
        let location = answer.headers.get(LOCATION)?.to_str().ok()?;
        let authority = &self.reached.as_ref()?.registry.endpoint.authority;
        // A host without a scheme, which would be read as a path.
        (!location.starts_with("//")).then(|| path_on(location, &authority.to_string()))?
    }

    /// What to send; fetched once for each scope.
    async fn authorization(&mut self, scope: &str) -> Result<Option<HeaderValue>, Diagnosis> {
        if let Some((_, kept)) = self.tokens.iter().find(|(of, _)| of == scope) {
            return Ok(Some(kept.clone()));
        }
        self.reach().await?;
        let Some(reached) = &mut self.reached else { return Err(not_reached()) };
        self.used |= self.credentials.is_some() && !matches!(reached.login, Login::Open);
        match reached.login {
            Login::Open => Ok(None),
            Login::Basic => self.credentials.map(token::basic).transpose(),
            Login::Bearer { .. } => {
                let scoped = self.ladder.within(reached.token(&[scope.to_owned()])).await;
                let token = match scoped {
                    Ok(token) => token,
                    // Some token servers (GitHub's, Docker Hub's) refuse a scope as they refuse a password.
                    Err(refusal) if refusal.code == Code::Unauthorized && self.credentials.is_some() => {
                        let login = self.ladder.within(reached.token(&[])).await;
                        return Err(if login.is_ok() { self.beyond_rights(refusal) } else { refusal });
                    }
                    Err(diagnosis) => return Err(diagnosis),
                };
                self.ladder.secrets.add_token(&token);
                let header = token::bearer(&token)?;
                if self.tokens.len() < MAX_TOKENS {
                    self.tokens.push((scope.to_owned(), header.clone()));
                }
                Ok(Some(header))
            }
        }
    }

    /// The login stands, so it is what was asked for that is refused.
    fn beyond_rights(&self, refusal: Diagnosis) -> Diagnosis {
        let host = self.host();
        Diagnosis {
            engine_message: refusal.engine_message,
            ..Diagnosis::new(
                Code::Forbidden,
                format!("{host} accepts the credentials, but doesn't let them read this"),
                "Check the name, and that the credentials may read it; many registries answer so for what doesn't exist.",
            )
        }
    }

    /// Climbs as far as the challenge, once.
    async fn reach(&mut self) -> Result<(), Diagnosis> {
        if self.reached.is_none() {
            let mut reached = Reached::begin(&mut self.ladder, self.shared, self.target).await?;
            reached.credentials = self.credentials;
            self.kind = reached.kind;
            self.reached = Some(reached);
        }
        Ok(())
    }

    /// Whether the credentials are good for anything: for telling a wrong password from a list that isn't shown.
    pub(crate) async fn check_login(&mut self) -> Result<(), Diagnosis> {
        self.reach().await?;
        let Some(reached) = &mut self.reached else { return Err(not_reached()) };
        self.used |= self.credentials.is_some() && !matches!(reached.login, Login::Open);
        let checked = match reached.log_in(&mut self.ladder, self.credentials).await {
            Ok(_) => Ok(()),
            Err(diagnosis) => Err(diagnosis),
        };
        checked.map_err(|diagnosis| self.advise(diagnosis))
    }

    /// Fetches a blob; from the vendor's store, without authorization, where the registry says so. `Ok(None)` when it
    /// can't be had.
    pub(crate) async fn blob(
        &mut self,
        repository: &str,
        digest: &str,
        max_body: usize,
    ) -> Result<Option<Answer>, Diagnosis> {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let want = Want { accept: "*/*", max_body, ..Want::of_repository(repository, path) };
        let answer = self.ask(&want).await?;
        let answer = match self.store_of(&answer) {
            Some((https, authority, path)) => self.ask_store(https, authority, path, max_body).await?,
            None => {
                if answer.status.is_redirection() {
                    self.ladder.warn(
                        "The registry keeps blobs in a store that isn't known to belong to it, and that Purser doesn't \
                         ask; labels and dates of its images stay unknown.",
                    );
                }
                answer
            }
        };
        Ok((answer.status == StatusCode::OK && !answer.truncated).then_some(answer))
    }

    /// The store that a redirect leads to, if it is one to be trusted with a question.
    fn store_of(&self, answer: &Answer) -> Option<(bool, Authority, String)> {
        let location = answer.headers.get(LOCATION).filter(|_| answer.status.is_redirection())?;
        let uri: Uri = location.to_str().ok()?.parse().ok()?;
        let authority = Authority::parse(uri.authority()?.as_str()).ok()?;
        let registry = &self.reached.as_ref()?.registry.endpoint;
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" if matches!(registry.transport, Transport::Plain) => false,
            _ => return None,
        };
        let name = authority.host.to_string();
        let known = |(kind, end): &(RegistryKind, &str)| {
            *kind == self.kind && (name == *end || end.starts_with('.') && name.ends_with(end))
        };
        let port = authority.port.unwrap_or(if https { 443 } else { 80 });
        let trusted = belongs(&registry.authority.host, &authority.host)
            || registry.authority.host == authority.host
            || BLOB_STORES.iter().any(known)
            || is_allowed(&self.target.realm_allow, &authority, port);
        let path = uri.path_and_query()?.as_str().to_owned();
        trusted.then_some((https, authority, path))
    }

    async fn ask_store(
        &mut self,
        https: bool,
        authority: Authority,
        path: String,
        max_body: usize,
    ) -> Result<Answer, Diagnosis> {
        let same_host = self.authority().is_some_and(|own| own.host == authority.host);
        let ask = Ask { accept: "*/*", max_body, ..Ask::get(path) };
        let work = async {
            let place = transport::Place { https, same_host, authority: &authority };
            let mut store = transport::to_place(self.shared, self.target, &place).await?;
            store.ask(&ask).await
        };
        self.ladder.within(work).await
    }

    /// Asks Docker Hub's website, which is given neither credentials nor tokens.
    pub(crate) async fn ask_hub_website(
        &mut self,
        path: String,
        max_body: usize,
    ) -> Result<Answer, Diagnosis> {
        let website = Target::new(self.shared.hub.website.clone());
        let (mut channel, _) = transport::open(&mut self.ladder, self.shared, &website).await?;
        let ask = Ask { max_body, ..Ask::get(path) };
        let answer =
            self.ladder.step(StepName::Ping, async { Ok((channel.ask(&ask).await?, String::new())) });
        let answer = answer.await?;
        if answer.status == StatusCode::OK {
            return Ok(answer);
        }
        Err(if answer.status == StatusCode::TOO_MANY_REQUESTS {
            rate_limited(&answer, &website.address.host)
        } else {
            let what = format!("Docker Hub's search answered {}", answer.status.as_u16());
            Diagnosis::new(Code::Other, what, "Try again later, or name the repository.")
        })
    }
}

fn not_reached() -> Diagnosis {
    Diagnosis::new(Code::Other, "the registry was not reached", "")
}
