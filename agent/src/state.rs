//! The state folder: the host's key, and which server it belongs to.
//!
//! | file | holds |
//! | --- | --- |
//! | `identity.key` | the X25519 pair, base64; made at the first start; never leaves the host |
//! | `server.json` | the server row's id, the pinned fingerprint of the server's key, a hash of the spent join token |
//! | `verdicts.jsonl` | verdicts that the server has not acknowledged, one a line; not there when there are none |
//! | `lock` | nothing; locked while an agent runs |
//!
//! Every file is 0600 and written whole or not at all. No secret of a registry comes here: a verdict holds
//! none, and what a verdict is about is not known here.

mod files;
mod verdicts;

use std::{fs::File, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use purser_proto_schema::{
    agent::{
        handshake::RefusalCode,
        join_token::{Fingerprint, JoinToken, fingerprint},
        noise::StaticKey,
    },
    ids::ServerId,
    secret::Secret,
};
use secrecy::{ExposeSecret, zeroize::Zeroizing};
use serde::{Deserialize, Serialize};

use self::files::{Folder, MAX_BYTES};
pub(crate) use self::verdicts::VerdictFile;
use crate::error::AgentError;

const IDENTITY: &str = "identity.key";
const MEMBERSHIP: &str = "server.json";

/// What the agent keeps across starts.
pub(crate) struct State {
    folder: Folder,
    key: StaticKey,
    member: Option<Membership>,
    token: Option<JoinToken>,
    introduction: Introduction,
    /// Held, so that no other agent uses the folder.
    _lock: File,
}

/// How the agent introduces itself at the next handshake.
#[derive(Clone, Debug)]
pub(crate) struct Introduction {
    pub(crate) server_id: ServerId,
    pub(crate) server_key: Fingerprint,
    /// Set while the host is to be enrolled.
    pub(crate) join_secret: Option<Secret>,
}

impl From<&JoinToken> for Introduction {
    fn from(token: &JoinToken) -> Self {
        Self {
            server_id: token.server_id.clone(),
            server_key: token.server_key,
            join_secret: Some(token.secret.clone()),
        }
    }
}

/// A membership as it is kept, after the first welcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Membership {
    server_id: ServerId,
    #[serde(with = "hash")]
    server_key: Fingerprint,
    /// SHA-256 of the join secret, so that a restart under the same environment does not enrol again.
    #[serde(with = "hash")]
    spent_token: Fingerprint,
}

impl Membership {
    fn introduction(&self) -> Introduction {
        Introduction { server_id: self.server_id.clone(), server_key: self.server_key, join_secret: None }
    }
}

impl State {
    /// Opens the folder, makes what is missing, and decides by which membership to begin.
    ///
    /// # Errors
    /// When the folder cannot be used, is another agent's, or there is neither membership nor token.
    pub(crate) fn open(path: &Path, token: Option<JoinToken>) -> Result<Self, AgentError> {
        let folder = Folder::open(path)?;
        let lock = folder.lock()?;
        let key = match folder.read(IDENTITY, MAX_BYTES)? {
            Some(text) => parse_key(&text).ok_or_else(|| AgentError::StateDamaged(folder.path(IDENTITY)))?,
            None => make_key(&folder)?,
        };
        let member: Option<Membership> = match folder.read(MEMBERSHIP, MAX_BYTES)? {
            Some(text) => Some(
                serde_json::from_slice(&text)
                    .map_err(|_| AgentError::StateDamaged(folder.path(MEMBERSHIP)))?,
            ),
            None => None,
        };
        let introduction = match (&member, &token) {
            (None, None) => return Err(AgentError::NotJoined),
            (Some(member), Some(token)) if member.spent_token == hash_of(token) => member.introduction(),
            (_, Some(token)) => Introduction::from(token),
            (Some(member), None) => member.introduction(),
        };
        Ok(Self { folder, key, member, token, introduction, _lock: lock })
    }

    /// Where verdicts are kept.
    pub(crate) fn verdicts(&self) -> VerdictFile {
        VerdictFile::new(self.folder.clone())
    }

    /// The host's key.
    pub(crate) fn key(&self) -> &StaticKey {
        &self.key
    }

    /// How to introduce the host now.
    pub(crate) fn introduction(&self) -> &Introduction {
        &self.introduction
    }

    /// The server has welcomed the present introduction: keep it.
    ///
    /// # Errors
    /// When it cannot be written; the session may go on.
    pub(crate) fn welcomed(&mut self) -> Result<(), AgentError> {
        let presented = self.introduction.join_secret.is_some();
        if let (true, Some(token)) = (presented, &self.token) {
            let member = Membership {
                server_id: token.server_id.clone(),
                server_key: token.server_key,
                spent_token: hash_of(token),
            };
            self.introduction = member.introduction();
            let text = serde_json::to_vec_pretty(&member).map_err(|error| AgentError::State {
                doing: "write",
                path: self.folder.path(MEMBERSHIP),
                source: error.into(),
            })?;
            self.member = Some(member);
            self.folder.write(MEMBERSHIP, &text)?;
        }
        Ok(())
    }

    /// The server has refused the present introduction: try the other one, where there is one.
    pub(crate) fn refused(&mut self, code: RefusalCode) {
        let presented = self.introduction.join_secret.is_some();
        match (code, &self.member, &self.token) {
            (RefusalCode::UnknownKey, _, Some(token)) if !presented => {
                self.introduction = Introduction::from(token);
            }
            // A token that came too late does no harm to a host that is a member already.
            (RefusalCode::InvalidJoinToken, Some(member), Some(token))
                if presented && member.server_id == token.server_id =>
            {
                self.introduction = member.introduction();
            }
            _ => {}
        }
    }
}

/// The server of a folder's membership, without taking the folder.
pub(crate) fn joined_server(path: &Path) -> Option<ServerId> {
    let text = std::fs::read(path.join(MEMBERSHIP)).ok()?;
    serde_json::from_slice::<Membership>(&text).ok().map(|member| member.server_id)
}

fn parse_key(text: &[u8]) -> Option<StaticKey> {
    let bytes = Zeroizing::new(STANDARD.decode(text.trim_ascii()).ok()?);
    StaticKey::from_bytes(&bytes)
}

fn make_key(folder: &Folder) -> Result<StaticKey, AgentError> {
    let key = StaticKey::generate()?;
    let text = Zeroizing::new(STANDARD.encode(key.to_bytes().expose_secret()));
    folder.write(IDENTITY, text.as_bytes())?;
    Ok(key)
}

fn hash_of(token: &JoinToken) -> Fingerprint {
    fingerprint(token.secret.expose().as_bytes())
}

/// A SHA-256 as base64url.
mod hash {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use purser_proto_schema::agent::join_token::Fingerprint;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(hash: &Fingerprint, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(hash))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
        let bytes = URL_SAFE_NO_PAD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        bytes.try_into().map_err(|_| D::Error::custom("is no SHA-256"))
    }
}

#[cfg(test)]
mod tests;
