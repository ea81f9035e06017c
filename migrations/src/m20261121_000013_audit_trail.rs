//! What a page of the audit is found by, and what an event says of the request that it came by.
//!
//! Events are found newest first within their organization and whatever else is asked for: each index ends with
//! the id, which sorts by age. Most columns are null in most rows, and those rows are in no index of theirs.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = [text_null("request_id"), text_null("source"), integer("count").default(1).to_owned()];
        // SQLite takes one at a time.
        for column in columns {
            manager.alter_table(Table::alter().table("audit_event").add_column(column).to_owned()).await?;
        }
        for column in ["registry_id", "server_id", "api_key_id", "job_id", "action", "outcome"] {
            let mut index = Index::create()
                .name(format!("audit_event_by_{column}"))
                .table("audit_event")
                .col("organization_id")
                .col(column)
                .col("audit_event_id")
                .to_owned();
            if column.ends_with("_id") {
                index.and_where(Expr::col(column).is_not_null());
            }
            manager.create_index(index).await?;
        }
        Ok(())
    }
}
