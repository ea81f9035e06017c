//! What agent and server tell each other before a session starts.
//!
//! Noise message 3 carries [`Hello`], sealed; the first sealed frame after it carries [`Answer`].

use serde::{Deserialize, Serialize};

use super::{MAX_TARGETS_PER_AGENT, MAX_TEXT_BYTES, calls::Attempt};
use crate::{ids::ServerId, secret::Secret, server::Engine};

/// What an agent says of itself, under its authenticated key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The oldest and newest protocol it speaks.
    pub protocol: ProtocolRange,
    /// Its version.
    pub agent_version: String,
    /// A random name of this run of the agent: two runs under one key are told apart by it.
    #[serde(default)]
    pub instance: Option<String>,
    /// The server row it belongs to.
    pub server_id: ServerId,
    /// Set at the first start, or when a new token was given: enrol this key.
    #[serde(serialize_with = "serialize_join_secret", default)]
    pub join_secret: Option<Secret>,
    /// The engine it found; null while it does not answer.
    pub engine: Option<Engine>,
    /// What it was doing when the last session ended.
    pub resume: Resume,
}

fn serialize_join_secret<S: serde::Serializer>(
    secret: &Option<Secret>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => Secret::serialize_in_clear(secret, serializer),
        None => serializer.serialize_none(),
    }
}

/// A range of protocol versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolRange {
    /// The oldest.
    pub min: u32,
    /// The newest.
    pub max: u32,
}

impl ProtocolRange {
    /// The newest protocol of both ranges; `None` when they have none in common.
    #[must_use]
    pub fn newest_common(self, other: Self) -> Option<u32> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }

    /// Whether a protocol is in the range.
    #[must_use]
    pub fn contains(self, protocol: u32) -> bool {
        (self.min..=self.max).contains(&protocol)
    }
}

/// Work that outlived the last session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resume {
    /// Still running.
    pub running_targets: Vec<Attempt>,
    /// Ended, but the server has not said that it stored the verdict.
    pub unacknowledged_verdicts: Vec<Attempt>,
}

/// The server's answer to [`Hello`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "camelCase")]
pub enum Answer {
    /// A session begins.
    Welcome(Welcome),
    /// None does; the socket closes.
    Refused(Refused),
}

/// The terms of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// Raised with every session of a server; an older one is superseded.
    pub session_epoch: i64,
    /// The protocol to speak.
    pub protocol: u32,
    /// How often the server pings, in milliseconds. No traffic for three intervals: the link is lost.
    pub heartbeat_ms: u64,
    /// What the agent may expect of the server.
    #[serde(default)]
    pub limits: Limits,
    /// Targets that must not go on and verdicts that nobody waits for.
    pub drop: Vec<Attempt>,
}

/// What a server asks of one agent at most. More than that is answered `busy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Tests under way at once.
    pub tests: u32,
    /// Pulls and pushes under way at once.
    pub transfers: u32,
    /// The longest JSON text that it takes, in bytes.
    pub text_bytes: u32,
}

impl Limits {
    /// Targets under way at once.
    #[must_use]
    pub fn targets(self) -> usize {
        usize::try_from(self.tests.saturating_add(self.transfers)).unwrap_or(usize::MAX)
    }
}

/// What the protocol bounds in any case.
impl Default for Limits {
    fn default() -> Self {
        let targets = MAX_TARGETS_PER_AGENT as u32;
        Self { tests: targets, transfers: targets, text_bytes: MAX_TEXT_BYTES as u32 }
    }
}

/// Why there is no session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// For programs.
    pub code: RefusalCode,
    /// For people.
    pub message: String,
    /// Not to be tried again sooner, in milliseconds; at least 5 s whatever it says.
    pub retry_after_ms: u64,
}

/// Why an agent was refused. An unknown key and a bad join token look alike to whoever has neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RefusalCode {
    /// The key is not enrolled for the server, was revoked, or was replaced.
    UnknownKey,
    /// The join token is used, expired, or another server's.
    InvalidJoinToken,
    /// No common protocol version.
    UnsupportedProtocol,
    /// Too many handshakes at once.
    Busy,
    /// The server is stopping or its database is away.
    Unavailable,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{PROTOCOL, PROTOCOLS};

    #[test]
    fn neighbouring_versions_find_the_newest_that_both_speak() {
        let range = |min, max| ProtocolRange { min, max };
        for (one, other, common) in [
            (range(1, 1), range(1, 1), Some(1)),
            (range(2, 3), range(1, 2), Some(2)),
            (range(2, 3), range(3, 4), Some(3)),
            (range(1, 9), range(4, 5), Some(5)),
            (range(2, 3), range(4, 5), None),
            (range(3, 2), range(1, 9), None),
        ] {
            assert_eq!(one.newest_common(other), common, "{one:?} {other:?}");
            assert_eq!(other.newest_common(one), common, "{other:?} {one:?}");
        }
        assert!(PROTOCOLS.contains(PROTOCOL) && !PROTOCOLS.contains(PROTOCOL + 1));
    }
}
