//! The upper rungs: what the registry asks for, and whether it takes what it is given.

use http::{HeaderMap, HeaderValue, StatusCode};
use secrecy::SecretString;

use crate::address::RegistryAddress;
use crate::answer::{Speaker, diagnose, none_given, not_a_registry};
use crate::challenge::{Challenge, choose};
use crate::client::{Credentials, Shared, Target};
use crate::connection::{Answer, Ask, Channel, Endpoint, Transport};
use crate::diagnosis::{Diagnosis, DiagnosisCode as Code};
use crate::dial::resolve;
use crate::kind::RegistryKind;
use crate::ladder::Ladder;
use crate::outcome::{AuthScheme, CredentialsVerdict, StepName};
use crate::realm::{Realm, named_host};
use crate::token;
use crate::transport::{is_same_place, open, to_token_server};

/// What the registry asks for, judged.
pub(crate) enum Login {
    /// Nothing.
    Open,
    /// Credentials for itself.
    Basic,
    /// A token from there.
    Bearer { realm: Realm, service: Option<String> },
}

impl Login {
    pub(crate) fn scheme(&self) -> AuthScheme {
        match self {
            Self::Open => AuthScheme::None,
            Self::Basic => AuthScheme::Basic,
            Self::Bearer { .. } => AuthScheme::Bearer,
        }
    }
}

/// A registry that was reached, and what it wants.
pub(crate) struct Reached<'a> {
    shared: &'a Shared,
    target: &'a Target,
    pub(crate) credentials: Option<&'a Credentials>,
    /// As it appears in messages.
    pub(crate) host: String,
    pub(crate) registry: Channel,
    token_server: Option<Channel>,
    pub(crate) login: Login,
    /// Whose registry it seems to be.
    pub(crate) kind: RegistryKind,
}

impl<'a> Reached<'a> {
    /// Climbs as far as it goes without credentials.
    pub(crate) async fn begin(
        ladder: &mut Ladder,
        shared: &'a Shared,
        target: &'a Target,
    ) -> Result<Self, Diagnosis> {
        let (mut registry, first) = open(ladder, shared, target).await?;
        let host = registry.endpoint.authority.to_string();
        let (challenge, kind) =
            ladder.step(StepName::Ping, ping(&mut registry, first, &target.address)).await?;
        let login = match challenge {
            None => Login::Open,
            Some(challenge) => {
                note_host(ladder, &challenge);
                ladder.step(StepName::Challenge, judge(shared, target, &registry.endpoint, challenge)).await?
            }
        };
        Ok(Self { shared, target, credentials: None, host, registry, token_server: None, login, kind })
    }

    /// `host[:port]` of the token server, where there is one.
    pub(crate) fn realm_host(&self) -> Option<String> {
        match &self.login {
            Login::Bearer { realm, .. } => Some(realm.authority.to_string()),
            Login::Open | Login::Basic => None,
        }
    }

    /// Logs in, with credentials where there are any. An open registry is not shown them.
    pub(crate) async fn log_in(
        &mut self,
        ladder: &mut Ladder,
        credentials: Option<&'a Credentials>,
    ) -> Result<CredentialsVerdict, Diagnosis> {
        self.credentials = credentials;
        let verdict = match (&self.login, credentials) {
            (Login::Open, given) => {
                if given.is_some() {
                    ladder.warn(
                        "The registry never asked for credentials, so they were neither sent nor verified.",
                    );
                }
                return Ok(CredentialsVerdict::NotRequired);
            }
            (Login::Basic, None) => {
                let refused = async { Err::<((), String), _>(none_given(&self.host)) };
                ladder.step(StepName::Authenticate, refused).await?;
                return Ok(CredentialsVerdict::Anonymous);
            }
            (Login::Bearer { .. }, None) => CredentialsVerdict::Anonymous,
            (Login::Basic | Login::Bearer { .. }, Some(_)) => CredentialsVerdict::Verified,
        };
        let authorization = self.authorize_login(ladder).await?;
        ladder.step(StepName::Authenticate, self.authenticate(authorization)).await?;
        Ok(verdict)
    }

    async fn authorize_login(&mut self, ladder: &mut Ladder) -> Result<Option<HeaderValue>, Diagnosis> {
        if let Login::Bearer { realm, .. } = &self.login {
            let issued = format!("token issued by {}", realm.authority);
            let fetch = async { Ok((self.token(&[]).await?, issued)) };
            let token = ladder.step(StepName::Token, fetch).await?;
            ladder.secrets.add_token(&token);
            return Ok(Some(token::bearer(&token)?));
        }
        self.credentials.map(token::basic).transpose()
    }

    /// What to send for access to a repository: a token of that scope, the credentials themselves, or nothing.
    pub(crate) async fn authorize(&mut self, scope: String) -> Result<Option<HeaderValue>, Diagnosis> {
        match self.login {
            Login::Open => Ok(None),
            Login::Basic => self.credentials.map(token::basic).transpose(),
            Login::Bearer { .. } => token::bearer(&self.token(&[scope]).await?).map(Some),
        }
    }

    /// Asks the judged token server; over the registry's own connection where it is the same place.
    pub(crate) async fn token(&mut self, scopes: &[String]) -> Result<SecretString, Diagnosis> {
        let Login::Bearer { realm, service } = &self.login else {
            return Err(Diagnosis::new(Code::Other, "the registry has no token server", ""));
        };
        let account = self.credentials.map(|credentials| credentials.username.as_str());
        let path = token::request_path(&realm.path, service.as_deref(), account, scopes);
        let channel = if is_same_place(realm, &self.registry.endpoint) {
            &mut self.registry
        } else {
            match &mut self.token_server {
                Some(channel) => channel,
                none => none.insert(to_token_server(self.shared, self.target, realm).await?),
            }
        };
        token::fetch(channel, path, self.credentials).await
    }

    /// Reads a challenge that came later than on `/v2/`, and judges it in the same way.
    pub(crate) async fn adopt(&mut self, ladder: &mut Ladder, headers: &HeaderMap) -> Result<(), Diagnosis> {
        let challenge = choose(headers)?;
        note_host(ladder, &challenge);
        let judged = judge(self.shared, self.target, &self.registry.endpoint, challenge);
        self.login = ladder.within(judged).await?.0;
        Ok(())
    }

    /// `GET /v2/` with what the registry wanted.
    pub(crate) async fn authenticate(
        &mut self,
        authorization: Option<HeaderValue>,
    ) -> Result<((), String), Diagnosis> {
        let answer = self.registry.ask(&Ask::get("/v2/").authorized(authorization)).await?;
        if answer.status != StatusCode::OK {
            return Err(diagnose(&answer, Speaker::Registry, &self.host, self.credentials.is_some()));
        }
        if !answer.is_registry() {
            return Err(not_a_registry(&answer, &self.host));
        }
        let who = if self.credentials.is_some() {
            "the credentials were accepted"
        } else {
            "anonymous callers are let in"
        };
        Ok(((), who.to_owned()))
    }
}

/// `GET /v2/` without credentials, unless that was asked already; the challenge, where there is one, and whose registry
/// that looks like.
async fn ping(
    registry: &mut Channel,
    first: Option<Answer>,
    address: &RegistryAddress,
) -> Result<((Option<Challenge>, RegistryKind), String), Diagnosis> {
    let host = registry.endpoint.authority.to_string();
    let answer = match first {
        Some(answer) => answer,
        None => registry.ask(&Ask::get("/v2/")).await?,
    };
    let (challenge, detail) = match answer.status {
        StatusCode::OK if answer.is_registry() => (None, "200, open to everybody"),
        StatusCode::OK => return Err(not_a_registry(&answer, &host)),
        StatusCode::UNAUTHORIZED => (Some(choose(&answer.headers)?), "401, credentials are asked for"),
        // Not `none were given`: nobody was asked for any.
        _ => return Err(diagnose(&answer, Speaker::RegistryUnasked, &host, true)),
    };
    let kind = RegistryKind::recognise(&address.host, &answer.headers, challenge.as_ref());
    Ok(((challenge, kind), detail.to_owned()))
}

/// A registry that was given the secret before may have named its token server after it.
fn note_host(ladder: &mut Ladder, challenge: &Challenge) {
    if let Challenge::Bearer { realm, .. } = challenge
        && let Some(host) = named_host(realm)
    {
        ladder.secrets.add_host(&host);
    }
}

/// Judges where a secret would go, down to the token server's addresses.
async fn judge(
    shared: &Shared,
    target: &Target,
    registry: &Endpoint,
    challenge: Challenge,
) -> Result<(Login, String), Diagnosis> {
    match challenge {
        Challenge::Basic => Ok((Login::Basic, "Basic: credentials go to the registry itself".to_owned())),
        Challenge::Bearer { realm, service } => {
            let plain = matches!(registry.transport, Transport::Plain);
            let realm = Realm::judge(&realm, shared.address_of(target), plain, &target.realm_allow)?;
            if !is_same_place(&realm, registry) {
                resolve(&shared.policy, &realm.authority.host, realm.port()).await?;
            }
            let detail = format!("Bearer: credentials go to the token server {}", realm.authority);
            Ok((Login::Bearer { realm, service }, detail))
        }
    }
}
