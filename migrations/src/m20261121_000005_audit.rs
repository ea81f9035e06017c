//! Who did what, to what, and how it ended. Append-only; never a secret.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("audit_event")
                    .col(text("audit_event_id").primary_key())
                    .col(text("organization_id"))
                    .col(timestamp_with_time_zone("at"))
                    .col(text_null("api_key_id"))
                    .col(text("action"))
                    .col(text_null("registry_id"))
                    .col(text_null("server_id"))
                    .col(text_null("job_id"))
                    .col(text("outcome"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("audit_event_by_organization")
                    .table("audit_event")
                    .col("organization_id")
                    .col("audit_event_id")
                    .to_owned(),
            )
            .await
    }
}
