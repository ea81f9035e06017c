//! Organizations, the keys that act in them, and what belongs to the installation as a whole.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("installation")
                    .col(small_integer("installation_id").primary_key())
                    .col(text("sealed_channel_key"))
                    .col(timestamp_with_time_zone("created_at"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("organization")
                    .col(text("organization_id").primary_key())
                    .col(text("name").unique_key())
                    .col(timestamp_with_time_zone("created_at"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("api_key")
                    .col(text("api_key_id").primary_key())
                    .col(text("organization_id"))
                    .col(text("name"))
                    .col(text("prefix").unique_key())
                    .col(text("hash"))
                    .col(text_null("role"))
                    .col(text_null("permissions"))
                    .col(boolean("instance_admin"))
                    .col(timestamp_with_time_zone_null("expires_at"))
                    .col(timestamp_with_time_zone_null("revoked_at"))
                    .col(timestamp_with_time_zone("created_at"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("api_key", "organization_id")
                            .to("organization", "organization_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .to_owned(),
            )
            .await
    }
}
