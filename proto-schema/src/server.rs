//! `server.*`: the Docker hosts of an organization and how they join.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{
    ids::{OrganizationId, ServerId},
    limits,
    patch::Patch,
    procedure::{NoInput, procedures},
    time::Timestamp,
};

procedures! {
    /// Makes a server and its first join token. The token is shown once, works once, and expires
    /// after 15 minutes.
    Mutation "server.create" [ServerWrite] Create(CreateInput) -> JoinableServer;
    /// All servers of the organization, oldest first.
    Query "server.all" [ServerRead] All(NoInput) -> Vec<Server>;
    /// One server of the organization, with where it stands now.
    Query "server.one" [ServerRead] One(OneInput) -> Server;
    /// Changes a server's name, description or labels. An absent field stays, null clears.
    Mutation "server.update" [ServerWrite] Update(UpdateInput) -> Server;
    /// Removes a server: its agent is cut off and refused from now on, its jobs end as cancelled.
    Mutation "server.remove" [ServerDelete] Remove(OneInput) -> Server;
    /// A new join token for a server. The agent that joins with it replaces the present one, whose
    /// key is refused from then on. Earlier tokens of the server stop working.
    Mutation "server.createJoinToken" [ServerWrite] CreateJoinToken(OneInput) -> JoinableServer;
}

/// Where a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ServerStatus {
    /// No agent has joined yet.
    Pending,
    /// Its agent is connected.
    Online,
    /// Its agent has joined and is not connected.
    Offline,
    /// It was removed.
    Revoked,
}

/// The Docker Engine of a host, as its agent reported it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Engine {
    /// `Docker`, or the name of a compatible engine.
    pub name: String,
    /// The engine's version.
    pub version: String,
    /// The newest API version it speaks.
    pub api_version: String,
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub arch: String,
}

/// A Docker host as callers see it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Its id.
    pub server_id: ServerId,
    /// Its name, unique in the organization.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Where it stands.
    pub status: ServerStatus,
    /// Its engine; null until an agent reported one.
    pub engine: Option<Engine>,
    /// The agent's version; null until one joined.
    pub agent_version: Option<String>,
    /// When its agent was last connected.
    pub last_seen_at: Option<Timestamp>,
    /// For choosing servers: `{"env": "prod"}`.
    pub labels: BTreeMap<String, String>,
    /// What a person should do something about: such as two hosts that use one key.
    pub warnings: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its name, description or labels were last changed.
    pub updated_at: Timestamp,
    /// Whose it is.
    pub organization_id: OrganizationId,
}

/// A server with a fresh join token.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JoinableServer {
    /// The server.
    #[serde(flatten)]
    pub server: Server,
    /// For the agent's first start. Shown once.
    pub join_token: String,
    /// When the token stops working.
    pub join_token_expires_at: Timestamp,
    /// The command that joins a host, ready to paste.
    pub join_command: String,
}

/// How labels are described; a map of text, otherwise.
struct Labels;

impl JsonSchema for Labels {
    fn schema_name() -> Cow<'static, str> {
        "Labels".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "maxProperties": limits::LABELS,
            "propertyNames": {
                "minLength": 1,
                "maxLength": limits::LABEL_KEY_CHARS,
                "pattern": limits::NO_CONTROL_CHARACTERS,
            },
            "additionalProperties": {
                "type": "string",
                "maxLength": limits::LABEL_VALUE_CHARS,
                "pattern": limits::NO_CONTROL_CHARACTERS,
            },
        })
    }
}

/// Input of `server.create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ServerCreateInput")]
pub struct CreateInput {
    /// 1 to 255 characters, unique in the organization.
    #[schemars(length(max = limits::NAME_CHARS), regex(pattern = limits::NAME))]
    pub name: String,
    /// At most 1024 characters.
    #[schemars(length(max = limits::DESCRIPTION_CHARS), regex(pattern = limits::DESCRIPTION))]
    pub description: Option<String>,
    /// At most 64, keys to 63 and values to 255 characters.
    #[schemars(with = "Option<Labels>")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// Input that names one server.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(feature = "client", derive(Serialize))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ServerOneInput")]
pub struct OneInput {
    /// Which server.
    pub server_id: ServerId,
}

/// Input of `server.update`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ServerUpdateInput")]
pub struct UpdateInput {
    /// Which server.
    pub server_id: ServerId,
    /// A new name.
    #[schemars(length(max = limits::NAME_CHARS), regex(pattern = limits::NAME))]
    pub name: Option<String>,
    /// A new description; null clears.
    #[serde(default, skip_serializing_if = "Patch::is_keep")]
    #[cfg_attr(feature = "client", builder(default))]
    #[schemars(length(max = limits::DESCRIPTION_CHARS), regex(pattern = limits::DESCRIPTION))]
    pub description: Patch<String>,
    /// New labels in place of all the old ones; null clears.
    #[serde(default, skip_serializing_if = "Patch::is_keep")]
    #[cfg_attr(feature = "client", builder(default))]
    #[schemars(with = "Option<Labels>")]
    pub labels: Patch<BTreeMap<String, String>>,
    /// As it was last read: CONFLICT, and no change, where it was changed since.
    pub updated_at: Option<Timestamp>,
}
