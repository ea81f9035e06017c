//! Who did what, and how it ended.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_event")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub audit_event_id: String,
    /// Empty for what is of no organization.
    pub organization_id: String,
    pub at: DateTimeUtc,
    pub api_key_id: Option<String>,
    pub action: String,
    pub registry_id: Option<String>,
    pub server_id: Option<String>,
    pub job_id: Option<String>,
    pub outcome: String,
    pub request_id: Option<String>,
    pub source: Option<String>,
    pub count: i32,
    pub subject_api_key_id: Option<String>,
    pub subject_organization_id: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
