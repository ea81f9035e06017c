//! `registry.events`: what is told of each change.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{EventId, RegistryId},
    time::Timestamp,
};

/// Input of `registry.events`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "RegistryEventsInput")]
pub struct EventsInput {
    /// The id of the last event seen: what came after it is told first. Absent: only what comes.
    pub last_event_id: Option<EventId>,
}

/// What happened to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// It was made.
    Created,
    /// It was changed, or it lost the mark of the default to another one.
    Updated,
    /// It was removed.
    Removed,
    /// It was tested, and `lastTest` says how that ended.
    Tested,
}

/// One change of one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryEvent {
    /// What happened.
    #[serde(rename = "type")]
    pub change: Change,
    /// To which entry.
    pub registry_id: RegistryId,
    /// When.
    pub at: Timestamp,
}
