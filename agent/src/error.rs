//! What can go wrong with the agent itself. How a target ended is no error here: that is a verdict.

use std::{io, path::PathBuf};

use purser_proto_schema::agent::{handshake::Refused, join_token::JoinTokenError, noise::ChannelError};

/// Any failure of the agent. Each displays only itself; `source` holds what was below.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// `--server` cannot be used.
    #[error("the server's address (--server, PURSER_SERVER) {0}")]
    ServerUrl(&'static str),
    /// `--docker-host` cannot be used.
    #[error("the Docker host (--docker-host, DOCKER_HOST) cannot be used: {0}")]
    DockerHost(&'static str),
    /// The files in `DOCKER_CERT_PATH` cannot be used.
    #[error("the certificates for the Docker Engine (DOCKER_CERT_PATH) cannot be used: {0}")]
    DockerCertificates(String),
    /// `--join-token` cannot be used.
    #[error("the join token (--join-token, PURSER_JOIN_TOKEN) cannot be used")]
    JoinToken(#[from] JoinTokenError),
    /// There is neither a join token nor a membership.
    #[error(
        "this host has not joined a server yet: give --join-token or PURSER_JOIN_TOKEN (from server.create)"
    )]
    NotJoined,
    /// `--ca-file` cannot be used.
    #[error("the file of authorities {path} (--ca-file) cannot be used")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The state folder or a file in it failed.
    #[error("could not {doing} {path}")]
    State {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file in the state folder has another form than this agent writes.
    #[error("{0} is damaged; restore it, or remove it and join again with a new join token")]
    StateDamaged(PathBuf),
    /// Another agent holds the state folder.
    #[error("another agent uses the state folder {0}")]
    StateInUse(PathBuf),
    /// The server's name has no address, or nothing listens there.
    #[error("the server cannot be reached")]
    Connect(#[source] io::Error),
    /// The TLS handshake with the server failed.
    #[error("no TLS connection to the server")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What answers is no WebSocket.
    #[error("the server's address does not answer as a Purser server")]
    WebSocket(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    /// The system has no randomness.
    #[error("the system gives no random bytes")]
    Random,
    /// A step took too long.
    #[error("the server did not answer in time while {0}")]
    Timeout(&'static str),
    /// The channel broke, before or during a session.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A running session ended.
    #[error("the session ended")]
    Session(#[source] std::sync::Arc<ChannelError>),
    /// The server wants a protocol that it was not offered.
    #[error("the server chose agent protocol {0}, which this agent did not offer; update purser-agent")]
    Protocol(u32),
    /// The server will not have this agent now.
    #[error("the server refused this host ({:?}): {}", .0.code, .0.message)]
    Refused(Refused),
}

impl AgentError {
    /// The error and what was below it, on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut line = self.to_string();
        let mut below = std::error::Error::source(self);
        while let Some(error) = below {
            line.push_str(": ");
            line.push_str(&error.to_string());
            below = error.source();
        }
        line
    }
}
