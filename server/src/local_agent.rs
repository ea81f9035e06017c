//! The control plane's own machine as server `local`: an agent inside this process that joins by the
//! same enrolment and talks over the same socket as any other. The only room that knows the agent.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use ipnet::IpNet;
use purser_agent::{AgentConfig, DEFAULT_DOCKER_HOST, DockerHost, Trust};
use purser_proto_schema::{
    agent::join_token::JoinToken,
    ids::{OrganizationId, ServerId},
    procedure::Procedure as _,
    server::{Create, CreateInput, CreateJoinToken},
};
use purser_registry_client::EgressPolicy;
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    config::LocalAgent,
    domain::server,
    error::{Error, Result, chain},
    store::AuditEntry,
};

/// The server's name.
const NAME: &str = "local";

/// Where the local agent finds things.
pub struct Local {
    /// Whether to join.
    pub mode: LocalAgent,
    /// The control plane's own address.
    pub listen: SocketAddr,
    /// Whether it serves TLS there.
    pub tls: bool,
    /// The agent's state folder.
    pub state_dir: PathBuf,
    /// The engine; Docker's default when absent.
    pub docker_host: Option<String>,
    /// Networks that its agent may dial although they are refused otherwise.
    pub egress_allow: Vec<IpNet>,
    /// Networks that its agent may not dial.
    pub egress_deny: Vec<IpNet>,
}

/// Joins this machine if it should and runs its agent until `stop`. A failure is logged and leaves
/// the control plane as it is: it serves other hosts all the same.
pub async fn run(app: Arc<App>, organization: OrganizationId, local: Local, stop: CancellationToken) {
    if local.mode == LocalAgent::Off {
        return;
    }
    let host = local.docker_host.as_deref().unwrap_or(DEFAULT_DOCKER_HOST);
    let variable = |name: &str| std::env::var(name).ok();
    let docker_host = match host.parse::<DockerHost>() {
        Ok(host) => host.with_tls(
            variable("DOCKER_TLS_VERIFY").as_deref(),
            variable("DOCKER_CERT_PATH").as_deref(),
            variable("HOME").as_deref(),
        ),
        Err(error) => {
            tracing::error!(error = %chain(&error), "this machine does not join");
            return;
        }
    };
    if local.mode == LocalAgent::Auto && !purser_agent::engine_answers(&docker_host).await {
        tracing::info!(docker_host = host, "no Docker Engine answers here; this machine does not join");
        return;
    }
    if let Err(error) = join(&app, &organization, local, docker_host, stop).await {
        tracing::error!(error = %chain(error.as_ref()), "the local agent stopped");
    }
}

async fn join(
    app: &App,
    organization: &OrganizationId,
    local: Local,
    docker_host: DockerHost,
    stop: CancellationToken,
) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Some(join_token) = join_token(app, organization, &local).await? else { return Ok(()) };
    let scheme = if local.tls { "https" } else { "http" };
    let config = AgentConfig {
        server: format!("{scheme}://{}", reachable(local.listen)).parse()?,
        join_token: join_token.0,
        state_dir: local.state_dir,
        docker_host,
        // The certificate need not be for this address; the server is this very process.
        trust: Trust::Pinned,
        // As any agent: the engine of its host talks to registries on its loopback, too.
        egress: EgressPolicy::new(local.egress_allow, local.egress_deny).allow_loopback(true),
    };
    Ok(purser_agent::run(config, stop).await?)
}

/// How this machine is to introduce itself: with a join token, or as the member that it is.
struct Introduction(Option<JoinToken>);

/// A join token if this machine has yet to join. `None`: another machine is server `local`.
async fn join_token(app: &App, organization: &OrganizationId, local: &Local) -> Result<Option<Introduction>> {
    let joined = purser_agent::joined_server(&local.state_dir);
    let joinable = match app.store.server_named(organization, NAME).await? {
        Some(row)
            if row.agent_key.is_some() && joined.as_ref().is_some_and(|id| id.as_str() == row.server_id) =>
        {
            return Ok(Some(Introduction(None)));
        }
        Some(row) if row.agent_key.is_some() && joined.is_none() && local.mode == LocalAgent::Auto => {
            tracing::info!(server = %row.server_id, "server `local` is another machine; this one does not join");
            return Ok(None);
        }
        Some(row) => {
            let id = ServerId::from_stored(row.server_id);
            let event = AuditEntry::by_nobody(organization, CreateJoinToken::INFO.name);
            let event = AuditEntry { server_id: Some(id.clone()), ..event };
            server::create_join_token_in(app, organization, &id, &event).await?
        }
        None => {
            let description = Some("The machine that the control plane runs on".to_owned());
            let input = CreateInput { name: NAME.to_owned(), description, labels: None };
            let asked = AuditEntry::by_nobody(organization, Create::INFO.name);
            server::create_in(app, organization, input, asked).await?
        }
    };
    let token =
        JoinToken::decode(&joinable.join_token).map_err(Error::internal("reading a fresh join token"))?;
    Ok(Some(Introduction(Some(token))))
}

/// An address that this machine can dial: an unspecified one listens on loopback too.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (std::net::Ipv4Addr::LOCALHOST, v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, v6.port()).into(),
        other => other,
    }
}
