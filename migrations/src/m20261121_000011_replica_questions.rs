//! What one control plane asks another: small reads of a host whose agent is connected there.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("replica_question")
                    .col(text("question_id").primary_key())
                    .col(text("server_id"))
                    .col(text_null("answer"))
                    .col(timestamp_with_time_zone("asked_at"))
                    .to_owned(),
            )
            .await
    }
}
