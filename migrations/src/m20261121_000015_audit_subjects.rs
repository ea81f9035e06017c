//! Which key or organization an audit event is about, beside who caused it.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite takes one at a time.
        for column in ["subject_api_key_id", "subject_organization_id"] {
            let added = Table::alter().table("audit_event").add_column(text_null(column)).to_owned();
            manager.alter_table(added).await?;
        }
        Ok(())
    }
}
