//! A Docker host. `agent_key` is the public key of its agent, base64url.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "server")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub server_id: String,
    pub organization_id: String,
    pub name: String,
    pub description: Option<String>,
    pub labels: String,
    pub agent_key: Option<String>,
    pub agent_version: Option<String>,
    pub engine: Option<String>,
    pub session_epoch: i64,
    pub last_seen_at: Option<DateTimeUtc>,
    pub revoked_at: Option<DateTimeUtc>,
    /// The control plane that holds its session, where several share the database.
    pub holder: Option<String>,
    pub created_at: DateTimeUtc,
    pub session_history: Option<String>,
    /// When people last changed it.
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
