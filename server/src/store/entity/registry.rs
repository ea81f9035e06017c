//! A registry entry. `sealed_password` is of the vault's making.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "registry")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub registry_id: String,
    pub organization_id: String,
    pub registry_name: String,
    pub registry_url: String,
    pub registry_host: String,
    pub namespace: Option<String>,
    pub username: Option<String>,
    pub sealed_password: Option<String>,
    pub credentials_updated_at: Option<DateTimeUtc>,
    pub image_prefix: Option<String>,
    pub registry_type: String,
    pub is_default: bool,
    pub insecure: bool,
    pub ca_certificate: Option<String>,
    /// A JSON array of hosts.
    pub realm_allow: String,
    pub last_test_at: Option<DateTimeUtc>,
    pub last_test_ok: Option<bool>,
    pub last_test_code: Option<String>,
    pub last_test_server_id: Option<String>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
