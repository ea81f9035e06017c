//! The agent of one Docker host: it dials the control plane, takes targets, works on them through the
//! host's Docker Engine, and says how they ended.
//!
//! | module | holds | never knows |
//! | --- | --- | --- |
//! | [`config`] | where the server, the engine and the state folder are | the environment: that is `main.rs` |
//! | `state` | the host's key, which server it belongs to, and verdicts nobody heard, on disk | secrets of registries |
//! | `link` | dial, handshake, session, backoff, for ever | what a command is |
//! | `certificate` | whether the server's certificate is good enough | what is pinned |
//! | `websocket` | TCP, TLS and WebSocket under the sealed channel | what travels inside |
//! | `calls` | what the server may ask, as thin methods | how it is done |
//! | `targets` | what runs, what has ended and is not acknowledged | registries and engines |
//! | `reports` | progress and verdicts on their way to the server | what they say |
//! | `commands` | the work: one exhaustive match, a file per namespace | the link |
//! | `engine` | the Docker Engine; the only importer of bollard | registries' own protocol |
//!
//! Absent on purpose: a database, a listening socket, the docker CLI, `config.json`, and any state of
//! the process: the server runs [`run`] inside itself for its own machine.

mod backoff;
mod calls;
mod certificate;
mod commands;
pub mod config;
mod engine;
mod error;
mod link;
mod reports;
mod state;
mod targets;
mod websocket;

use std::{path::Path, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use purser_proto_schema::{agent::calls::AgentCallsServer, ids::ServerId};
use purser_registry_client::RegistryClient;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use config::{AgentConfig, DockerHost, ServerUrl, Trust};
pub use error::AgentError;

use crate::{
    calls::Calls,
    commands::{Commands, SharedPulls},
    engine::Engine,
    link::Link,
    state::State,
    targets::Keeping,
    websocket::Dialler,
};

/// This agent's version, as it introduces itself.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where Docker's own tools look for the engine.
pub const DEFAULT_DOCKER_HOST: &str = "unix:///var/run/docker.sock";

/// Whether an engine answers at this address.
pub async fn engine_answers(host: &DockerHost) -> bool {
    Engine::new(host.clone()).describe().await.is_ok()
}

/// The server that the host of a state folder has joined; `None` where it has not, or where the folder
/// cannot be read.
#[must_use]
pub fn joined_server(state_dir: &Path) -> Option<ServerId> {
    state::joined_server(state_dir)
}

/// How long work that was cut off may take to clean up after itself at the end.
const WIND_DOWN: Duration = Duration::from_secs(4);

/// For the disk to take the last verdicts.
const KEEP_DEADLINE: Duration = Duration::from_secs(2);

/// Runs the agent until `stop` is cancelled, and then for at most 10 s. Work under way is cut off
/// without a verdict; the server gives it out again when the agent is back.
///
/// # Errors
/// What no repetition mends: a state folder that cannot be used, or no way to tell which server to
/// join. A server that is away or refuses is no error; it is dialled again.
pub async fn run(config: AgentConfig, stop: CancellationToken) -> Result<(), AgentError> {
    let state = State::open(&config.state_dir, config.join_token)?;
    let dialler = Dialler::new(config.server, &config.trust)?;
    if config.docker_host.is_exposed() {
        tracing::warn!(
            "the Docker Engine is spoken to without TLS, so registry credentials pass the network in clear: run the \
             agent beside its engine, or set DOCKER_TLS_VERIFY and DOCKER_CERT_PATH"
        );
    }
    let engine = Arc::new(Engine::new(config.docker_host));
    engine.check()?;
    let registries = RegistryClient::new(config.egress, concat!("purser-agent/", env!("CARGO_PKG_VERSION")));
    let (targets, keeping) = Keeping::restore(state.verdicts());
    let calls = Calls {
        commands: Arc::new(Commands { engine: Arc::clone(&engine), registries, pulls: SharedPulls::new()? }),
        engine: Arc::clone(&engine),
        targets: Arc::clone(&targets),
    };
    let methods = calls.into_rpc().into();

    tracing::info!(version = VERSION, server = %dialler.server(), "the agent runs");
    let ended = CancellationToken::new();
    let keeping = tokio::spawn(keeping.run(ended.clone()));
    let link = Link {
        dialler,
        state,
        engine: Arc::clone(&engine),
        targets: Arc::clone(&targets),
        instance: random_name(),
        methods,
    };
    link.run(stop).await;

    let wind_down = async {
        targets.stop().await;
        engine.settle().await;
    };
    if timeout(WIND_DOWN, wind_down).await.is_err() {
        tracing::warn!("work under way did not stop in time");
    }
    ended.cancel();
    if timeout(KEEP_DEADLINE, keeping).await.is_err() {
        tracing::warn!("the disk did not take the last verdicts in time");
    }
    Ok(())
}

/// 128 random bits as text; `None` where the system gives none, which costs a warning of two hosts with one
/// key and nothing else.
fn random_name() -> Option<String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}
