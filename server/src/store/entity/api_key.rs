//! An API key: a public prefix to find it by, and a hash of the rest.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "api_key")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub api_key_id: String,
    pub organization_id: String,
    pub name: String,
    pub prefix: String,
    pub hash: String,
    pub role: Option<String>,
    pub permissions: Option<String>,
    pub instance_admin: bool,
    /// Both or none.
    pub rate_limit_requests: Option<i32>,
    pub rate_limit_window_seconds: Option<i32>,
    pub expires_at: Option<DateTimeUtc>,
    pub revoked_at: Option<DateTimeUtc>,
    pub last_used_at: Option<DateTimeUtc>,
    pub created_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
