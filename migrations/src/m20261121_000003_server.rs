//! Docker hosts, the keys of their agents, and the tokens that enrol them.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("server")
                    .col(text("server_id").primary_key())
                    .col(text("organization_id"))
                    .col(text("name"))
                    .col(text_null("description"))
                    .col(text("labels"))
                    .col(text_null("agent_key"))
                    .col(text_null("agent_version"))
                    .col(text_null("engine"))
                    .col(big_integer("session_epoch"))
                    .col(timestamp_with_time_zone_null("last_seen_at"))
                    .col(timestamp_with_time_zone_null("revoked_at"))
                    .col(timestamp_with_time_zone("created_at"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("server", "organization_id")
                            .to("organization", "organization_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .to_owned(),
            )
            .await?;
        // A removed server stays as a tombstone for the history; its name is free again.
        manager
            .get_connection()
            .execute_unprepared(
                "CREATE UNIQUE INDEX server_name_in_organization ON server (organization_id, name) \
                 WHERE revoked_at IS NULL",
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("join_token")
                    .col(text("join_token_id").primary_key())
                    .col(text("organization_id"))
                    .col(text("server_id"))
                    .col(text("secret_hash").unique_key())
                    .col(timestamp_with_time_zone("expires_at"))
                    .col(timestamp_with_time_zone_null("spent_at"))
                    .col(timestamp_with_time_zone("created_at"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("join_token", "server_id")
                            .to("server", "server_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .to_owned(),
            )
            .await
    }
}
