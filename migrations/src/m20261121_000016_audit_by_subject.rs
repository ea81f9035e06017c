//! What audit events about a key or an organization are found by.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in ["subject_api_key_id", "subject_organization_id"] {
            let index = Index::create()
                .name(format!("audit_event_by_{column}"))
                .table("audit_event")
                .col("organization_id")
                .col(column)
                .col("audit_event_id")
                .and_where(Expr::col(column).is_not_null())
                .to_owned();
            manager.create_index(index).await?;
        }
        Ok(())
    }
}
