//! The lower rungs: resolve, connect, TLS, and where plain HTTP is permitted.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rustls::ClientConfig;

use crate::address::{Authority, RegistryAddress};
use crate::client::{Shared, Target};
use crate::connection::{Answer, Ask, Channel, Connection, Endpoint, Transport};
use crate::diagnosis::{Diagnosis, DiagnosisCode as Code};
use crate::dial::resolve;
use crate::ladder::Ladder;
use crate::outcome::StepName;
use crate::realm::Realm;

/// How long a server may take to show that it speaks TLS where plain HTTP would do as well. Some servers of plain HTTP
/// wait for the end of a line that never comes.
const TLS_TRIAL: Duration = Duration::from_secs(3);

/// How long a server may take to show that it speaks plain HTTP where that is tried first.
const PLAIN_TRIAL: Duration = Duration::from_secs(3);

/// Which protocols may be spoken, the one that is tried first in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permitted {
    Tls,
    TlsElsePlain,
    PlainElseTls,
    Plain,
}

/// As in Docker: TLS; plain HTTP as well where the entry is insecure or the registry is on loopback. An address that
/// says `http://` means it. On loopback nobody listens in, so what is likelier there goes first, unless a certificate
/// was given.
fn permitted(target: &Target, address: &RegistryAddress) -> Permitted {
    if address.plain_http {
        Permitted::Plain
    } else if address.is_loopback_literal() && !target.insecure && target.ca_certificate.is_none() {
        Permitted::PlainElseTls
    } else if target.insecure || address.is_loopback_literal() {
        Permitted::TlsElsePlain
    } else {
        Permitted::Tls
    }
}

/// Climbs resolve, connect and TLS, and leaves an open channel to the registry. With it the registry's first answer to
/// `GET /v2/`, where it was asked to learn what it speaks.
pub(crate) async fn open(
    ladder: &mut Ladder,
    shared: &Shared,
    target: &Target,
) -> Result<(Channel, Option<Answer>), Diagnosis> {
    let address = shared.address_of(target);
    let authority = Authority::parse(&address.api_authority())
        .map_err(|error| Diagnosis::new(Code::Other, error.to_string(), "Correct the registry's address."))?;
    let permitted = permitted(target, address);
    let port = authority.port.unwrap_or(if permitted == Permitted::Plain { 80 } else { 443 });
    let addresses = ladder
        .step(StepName::Resolve, async {
            let addresses = resolve(&shared.policy, &authority.host, port).await?;
            let list: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            Ok((addresses, format!("{} is {}", authority.host, list.join(", "))))
        })
        .await?;
    let transport = match permitted {
        Permitted::Plain => Transport::Plain,
        _ => Transport::Tls(tls_config(shared, target, target.insecure)?),
    };
    let endpoint = Endpoint { authority, addresses, transport };
    if permitted == Permitted::PlainElseTls
        && endpoint.authority.port.is_some()
        && let Some(spoken) = plain_trial(ladder, shared, &endpoint).await?
    {
        return Ok(spoken);
    }
    let (endpoint, connection) = match permitted {
        Permitted::TlsElsePlain | Permitted::PlainElseTls => tls_else_plain(ladder, endpoint).await?,
        Permitted::Tls | Permitted::Plain => {
            let connection = climb(ladder, &endpoint).await?;
            (endpoint, connection)
        }
    };
    warn_of_insecurity(ladder, target, &endpoint);
    Ok((Channel::new(endpoint, shared.user_agent.clone(), Some(connection)), None))
}

/// Asks `GET /v2/` in plain HTTP, without credentials. `None` where the answer is none, or the 400 that servers of TLS
/// give to plain HTTP.
async fn plain_trial(
    ladder: &mut Ladder,
    shared: &Shared,
    endpoint: &Endpoint,
) -> Result<Option<(Channel, Option<Answer>)>, Diagnosis> {
    let plain = Endpoint { transport: Transport::Plain, ..endpoint.clone() };
    let trial = PLAIN_TRIAL.min(ladder.remaining() / 3);
    let spoken = async {
        let (stream, peer) = connect(&plain).await?;
        let connection = plain.secure(stream).await?.0;
        let mut channel = Channel::new(plain, shared.user_agent.clone(), Some(connection));
        match tokio::time::timeout(trial, channel.ask(&Ask::get("/v2/"))).await {
            Ok(Ok(answer)) if answer.status != StatusCode::BAD_REQUEST => {
                Ok((Some((channel, Some(answer))), format!("{peer}, plain HTTP")))
            }
            _ => Ok((None, format!("{peer}, which does not speak plain HTTP"))),
        }
    };
    ladder.step(StepName::Connect, spoken).await
}

fn tls_config(shared: &Shared, target: &Target, insecure: bool) -> Result<Arc<ClientConfig>, Diagnosis> {
    if insecure { shared.trust.unverified() } else { shared.trust.verified(target.ca_certificate.as_deref()) }
}

/// Connect, and the handshake where there is one.
async fn climb(ladder: &mut Ladder, endpoint: &Endpoint) -> Result<Connection, Diagnosis> {
    let stream = ladder.step(StepName::Connect, connect(endpoint)).await?;
    if matches!(endpoint.transport, Transport::Plain) {
        return Ok(endpoint.secure(stream).await?.0);
    }
    let handshake = async {
        let (connection, version) = endpoint.secure(stream).await?;
        Ok((connection, version.to_owned()))
    };
    ladder.step(StepName::Tls, handshake).await
}

async fn connect(endpoint: &Endpoint) -> Result<(tokio::net::TcpStream, String), Diagnosis> {
    let stream = endpoint.connect().await?;
    let peer =
        stream.peer_addr().map_or_else(|_| "connected".to_owned(), |peer| format!("connected to {peer}"));
    Ok((stream, peer))
}

/// TLS where it is spoken, else plain HTTP with one more connection: to the same port, or to 80 where none was written.
/// What merely makes TLS fail (a certificate that isn't trusted) never leads to plain HTTP.
async fn tls_else_plain(ladder: &mut Ladder, secure: Endpoint) -> Result<(Endpoint, Connection), Diagnosis> {
    let mut plain = Endpoint { transport: Transport::Plain, ..secure.clone() };
    if plain.authority.port.is_none() {
        plain.addresses.iter_mut().for_each(|address| address.set_port(80));
    }
    let nothing_on_443 =
        |diagnosis: &Diagnosis| plain.authority.port.is_none() && diagnosis.code == Code::Connect;
    let first = async {
        match connect(&secure).await {
            Ok((stream, detail)) => Ok((Some(stream), detail)),
            Err(diagnosis) if nothing_on_443(&diagnosis) => {
                Ok((None, "nothing answers on port 443, trying plain HTTP on port 80".to_owned()))
            }
            Err(diagnosis) => Err(diagnosis),
        }
    };
    if let Some(stream) = ladder.step(StepName::Connect, first).await? {
        let trial = TLS_TRIAL.min(ladder.remaining() / 2);
        let handshake = async {
            match tokio::time::timeout(trial, secure.secure(stream)).await {
                Ok(Ok((connection, version))) => Ok((Some(connection), version.to_owned())),
                Ok(Err(diagnosis)) if !matches!(diagnosis.code, Code::HttpOnHttps | Code::Connect) => {
                    Err(diagnosis)
                }
                Ok(Err(_)) | Err(_) => {
                    Ok((None, "TLS isn't spoken here; plain HTTP is permitted".to_owned()))
                }
            }
        };
        if let Some(connection) = ladder.step(StepName::Tls, handshake).await? {
            return Ok((secure, connection));
        }
    }
    let connection = climb(ladder, &plain).await?;
    Ok((plain, connection))
}

fn warn_of_insecurity(ladder: &mut Ladder, target: &Target, endpoint: &Endpoint) {
    if target.address.plain_http && !target.insecure {
        ladder.warn("The address says http://, so the registry is treated as insecure.");
    }
    match endpoint.transport {
        Transport::Plain if !target.address.is_loopback_literal() => ladder.warn(
            "The registry was reached over plain HTTP: credentials and images travel unencrypted. Docker hosts need it \
             under insecure-registries.",
        ),
        Transport::Tls(_) if target.insecure => {
            ladder.warn("The registry's certificate was not checked, because the entry is marked insecure.");
        }
        _ => {}
    }
}

/// A place other than the registry's own, that was found fit to be asked.
pub(crate) struct Place<'a> {
    pub(crate) https: bool,
    /// The host is the registry's own, whatever the port.
    pub(crate) same_host: bool,
    pub(crate) authority: &'a Authority,
}

/// A channel to a token server that was judged; not yet connected.
pub(crate) async fn to_token_server(
    shared: &Shared,
    target: &Target,
    realm: &Realm,
) -> Result<Channel, Diagnosis> {
    let place = Place { https: realm.https, same_host: realm.same_host, authority: &realm.authority };
    to_place(shared, target, &place).await
}

/// A channel to such a place; not yet connected. The entry's insecurity covers its own host only.
pub(crate) async fn to_place(
    shared: &Shared,
    target: &Target,
    place: &Place<'_>,
) -> Result<Channel, Diagnosis> {
    let insecure = (target.insecure || target.address.plain_http) && place.same_host;
    let transport =
        if place.https { Transport::Tls(tls_config(shared, target, insecure)?) } else { Transport::Plain };
    let port = place.authority.port.unwrap_or(if place.https { 443 } else { 80 });
    let addresses = resolve(&shared.policy, &place.authority.host, port).await?;
    let endpoint = Endpoint { authority: place.authority.clone(), addresses, transport };
    Ok(Channel::new(endpoint, shared.user_agent.clone(), None))
}

/// Whether the token server is the registry itself, so that its connection will do.
pub(crate) fn is_same_place(realm: &Realm, registry: &Endpoint) -> bool {
    let https = matches!(registry.transport, Transport::Tls(_));
    let port = registry.authority.port.unwrap_or(if https { 443 } else { 80 });
    realm.same_host && realm.https == https && realm.port() == port
}
