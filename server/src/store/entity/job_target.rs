//! One server's part of a job. `plan` is JSON without secrets; `sealed_auth` is a one-time credential
//! of the vault's making, erased when the target ends; `verdict` is JSON.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "job_target")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub target_id: String,
    pub job_id: String,
    pub organization_id: String,
    pub server_id: String,
    pub kind: String,
    pub image: Option<String>,
    pub plan: String,
    pub registry_id: Option<String>,
    pub credentials: String,
    pub sealed_auth: Option<String>,
    pub status: String,
    pub attempt: i32,
    pub cancel_requested: bool,
    pub queue_deadline: DateTimeUtc,
    pub run_limit_ms: i64,
    pub run_deadline: Option<DateTimeUtc>,
    pub finished_at: Option<DateTimeUtc>,
    pub verdict: Option<String>,
    /// JSON; kept only where other control planes may be asked for it.
    pub progress: Option<String>,
    pub not_before: Option<DateTimeUtc>,
    pub attempts_before: i32,
    pub queue_limit_ms: i64,
    pub stall_limit_ms: i64,
    pub max_parallel: Option<i32>,
    pub fail_fast: bool,
    pub request_id: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
