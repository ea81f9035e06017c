//! `organization.*`: the walls. Everything else belongs to exactly one organization.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::OrganizationId,
    limits,
    procedure::{NoInput, procedures},
    time::Timestamp,
};

procedures! {
    /// Creates an organization. Its first key is made by `apiKey.create` with its `organizationId`.
    Mutation "organization.create" [InstanceAdmin] Create(CreateInput) -> Organization;
    /// The organizations that the key sees, oldest first: its own, and with an instance-admin key all.
    Query "organization.all" [OrganizationRead] All(NoInput) -> Vec<Organization>;
    /// One organization: the key's own, and with an instance-admin key any.
    Query "organization.one" [OrganizationRead] One(OneInput) -> Organization;
    /// Renames an organization: the key's own, and with an instance-admin key any.
    Mutation "organization.update" [OrganizationWrite] Update(UpdateInput) -> Organization;
}

/// An organization as callers see it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Organization {
    /// Its id.
    pub organization_id: OrganizationId,
    /// Its name, unique in the installation.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Input of `organization.create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(feature = "client", derive(Serialize))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "OrganizationCreateInput")]
pub struct CreateInput {
    /// 1 to 255 characters, unique in the installation.
    #[schemars(length(max = limits::NAME_CHARS), regex(pattern = limits::NAME))]
    pub name: String,
}

/// Input that names one organization.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(feature = "client", derive(Serialize))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "OrganizationOneInput")]
pub struct OneInput {
    /// Which organization.
    pub organization_id: OrganizationId,
}

/// Input of `organization.update`.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "client",
    serde_with::skip_serializing_none,
    derive(Serialize, bon::Builder),
    builder(on(String, into))
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "OrganizationUpdateInput")]
pub struct UpdateInput {
    /// Which organization.
    pub organization_id: OrganizationId,
    /// A new name.
    #[schemars(length(max = limits::NAME_CHARS), regex(pattern = limits::NAME))]
    pub name: Option<String>,
    /// As it was last read: CONFLICT, and no change, where it was changed since.
    pub updated_at: Option<Timestamp>,
}
