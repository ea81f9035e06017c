//! The link: dial, handshake, session, backoff, until the agent is stopped.
//!
//! Whatever the server does, the next dial waits: at least 5 s after a refusal, a wrong key or a
//! superseded session, and under a doubling ceiling else. Work does not notice any of it. It may know no
//! command and no registry.

use std::{sync::Arc, time::Duration};

use jsonrpsee::core::server::Methods;
use purser_proto_schema::agent::{
    PROTOCOLS,
    calls::AgentStatus,
    close::CloseCode,
    handshake::{Answer, Hello, RefusalCode, Refused, Welcome},
    noise::{ChannelError, Opener, Sealer, initiate},
    peer::{Liveness, Peer},
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    VERSION,
    backoff::Backoff,
    engine::Engine,
    error::AgentError,
    reports,
    state::State,
    targets::Targets,
    websocket::{Dialler, Reader, Writer},
};

/// After a refusal, whatever it says.
const AFTER_REFUSAL: Duration = Duration::from_secs(5);
/// No refusal keeps a host away longer.
const LONGEST_REFUSAL: Duration = Duration::from_secs(600);
/// A session of this length was a healthy one.
const HEALTHY: Duration = Duration::from_secs(60);
/// Between two loud lines about the same failure.
const REPEAT_LOUDLY: Duration = Duration::from_secs(60);
/// For saying goodbye.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// For the engine to describe itself before a handshake.
const ENGINE_PATIENCE: Duration = Duration::from_secs(3);
/// What a server may announce as its ping interval.
const HEARTBEATS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// All that keeps a host connected.
pub(crate) struct Link {
    pub(crate) dialler: Dialler,
    pub(crate) state: State,
    pub(crate) engine: Arc<Engine>,
    pub(crate) targets: Arc<Targets>,
    /// This run's name.
    pub(crate) instance: Option<String>,
    /// What the server may call.
    pub(crate) methods: Methods,
}

/// A session that may start.
struct Admitted {
    reader: Reader,
    writer: Writer,
    sealer: Sealer,
    opener: Opener,
    welcome: Welcome,
    engine: AgentStatus,
}

impl Link {
    /// Keeps the link until `stop` is cancelled.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        let mut complaints = Complaints::default();
        loop {
            let error = tokio::select! {
                () = stop.cancelled() => return,
                admitted = self.introduce() => match admitted {
                    Err(error) => error,
                    Ok(admitted) => {
                        complaints.clear();
                        let started = Instant::now();
                        let Some(error) = self.session(admitted, &stop).await else { return };
                        if started.elapsed() >= HEALTHY {
                            backoff.reset();
                        }
                        error
                    }
                }
            };
            let wait = backoff.next(least_wait(&error));
            complaints.log(&error, wait);
            if let AgentError::Refused(refused) = &error {
                self.state.refused(refused.code);
            }
            if removed(&error) {
                self.targets.forget_all();
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// Dials and introduces the host.
    async fn introduce(&self) -> Result<Admitted, AgentError> {
        let engine = timeout(ENGINE_PATIENCE, self.engine.describe()).await.ok().and_then(Result::ok);
        let engine = AgentStatus { engine };
        let (mut reader, mut writer) = self.dialler.dial().await?;
        let introduction = self.state.introduction();
        let hello = Hello {
            protocol: PROTOCOLS,
            agent_version: VERSION.to_owned(),
            instance: self.instance.clone(),
            server_id: introduction.server_id.clone(),
            join_secret: introduction.join_secret.clone(),
            engine: engine.engine.clone(),
            resume: self.targets.resume(),
        };
        let (answer, sealer, opener) =
            initiate(&mut reader, &mut writer, self.state.key(), &introduction.server_key, &hello).await?;
        match answer {
            Answer::Welcome(welcome) if !PROTOCOLS.contains(welcome.protocol) => {
                Err(AgentError::Protocol(welcome.protocol))
            }
            Answer::Welcome(welcome) => Ok(Admitted { reader, writer, sealer, opener, welcome, engine }),
            Answer::Refused(refused) => Err(AgentError::Refused(refused)),
        }
    }

    /// One session, to its end; `None` when the agent was stopped.
    async fn session(&mut self, admitted: Admitted, stop: &CancellationToken) -> Option<AgentError> {
        let Admitted { reader, writer, sealer, opener, welcome, engine } = admitted;
        tracing::info!(server = %self.dialler.server(), epoch = welcome.session_epoch, "connected");
        if let Err(error) = self.state.welcomed() {
            tracing::error!(error = %error.chain(), "the membership could not be kept: the next start needs a new join token");
        }
        self.targets.limit(welcome.limits);
        self.targets.forget(&welcome.drop);
        let heartbeat = Duration::from_millis(welcome.heartbeat_ms).clamp(HEARTBEATS.0, HEARTBEATS.1);
        let liveness = Liveness { ping_every: None, lost_after: 3 * heartbeat };
        let peer = Peer::start(reader, writer, sealer, opener, self.methods.clone(), liveness);
        tokio::select! {
            error = peer.ended() => Some(AgentError::Session(error)),
            () = reports::run(&self.targets, &self.engine, peer.client(), engine) => None,
            () = stop.cancelled() => {
                let _ = timeout(CLOSE_DEADLINE, peer.close(CloseCode::AgentStops)).await;
                None
            }
        }
    }
}

/// Whether the server has no place for this host any more, and so no use for its work: it must not go
/// on with a secret that was given for it.
fn removed(error: &AgentError) -> bool {
    match error {
        AgentError::Refused(refused) => refused.code == RefusalCode::UnknownKey,
        AgentError::Session(ended) => closed_by_server(ended) == Some(CloseCode::Removed),
        _ => false,
    }
}

/// What the server said at the end.
fn closed_by_server(error: &ChannelError) -> Option<CloseCode> {
    match error {
        ChannelError::Closed { code, .. } => CloseCode::of_number(*code),
        _ => None,
    }
}

/// What an outcome asks for before the next dial.
fn least_wait(error: &AgentError) -> Duration {
    match error {
        AgentError::Refused(Refused { retry_after_ms, .. }) => {
            Duration::from_millis(*retry_after_ms).clamp(AFTER_REFUSAL, LONGEST_REFUSAL)
        }
        AgentError::Channel(ChannelError::AnotherServer { .. }) | AgentError::Protocol(_) => AFTER_REFUSAL,
        AgentError::Session(ended) => match closed_by_server(ended) {
            Some(CloseCode::Superseded | CloseCode::Removed | CloseCode::NotInForce) => AFTER_REFUSAL,
            _ => Duration::ZERO,
        },
        // Too many at the door: those who are in it come first.
        AgentError::Channel(ended) if closed_by_server(ended) == Some(CloseCode::Busy) => AFTER_REFUSAL,
        _ => Duration::ZERO,
    }
}

/// What was said about failures: each new one loudly, the same one once a minute, also where several take
/// turns.
#[derive(Default)]
struct Complaints {
    said: Vec<(String, Instant)>,
}

impl Complaints {
    fn clear(&mut self) {
        self.said.clear();
    }

    fn log(&mut self, error: &AgentError, wait: Duration) {
        let text = error.chain();
        self.said.retain(|(_, at)| at.elapsed() < REPEAT_LOUDLY);
        let quiet = self.said.iter().any(|(said, _)| *said == text);
        let retry_in_ms = wait.as_millis();
        if quiet {
            tracing::debug!(error = text, retry_in_ms, "not connected");
            return;
        }
        if matches!(error, AgentError::Channel(ChannelError::AnotherServer { .. })) {
            tracing::error!(error = text, retry_in_ms, "not connected");
        } else {
            tracing::warn!(error = text, retry_in_ms, "not connected");
        }
        // The wait between two dials bounds how many a minute has.
        self.said.push((text, Instant::now()));
    }
}

#[cfg(test)]
mod tests;
