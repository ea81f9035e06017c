//! Registry entries with their sealed credentials.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("registry")
                    .col(text("registry_id").primary_key())
                    .col(text("organization_id"))
                    .col(text("registry_name"))
                    .col(text("registry_url"))
                    .col(text("registry_host"))
                    .col(text_null("namespace"))
                    .col(text_null("username"))
                    .col(text_null("sealed_password"))
                    .col(timestamp_with_time_zone_null("credentials_updated_at"))
                    .col(text_null("image_prefix"))
                    .col(text("registry_type"))
                    .col(boolean("is_default"))
                    .col(boolean("insecure"))
                    .col(text_null("ca_certificate"))
                    .col(timestamp_with_time_zone_null("last_test_at"))
                    .col(boolean_null("last_test_ok"))
                    .col(text_null("last_test_code"))
                    .col(text_null("last_test_server_id"))
                    .col(timestamp_with_time_zone("created_at"))
                    .col(timestamp_with_time_zone("updated_at"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("registry", "organization_id")
                            .to("organization", "organization_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .to_owned(),
            )
            .await?;
        // Ids sort by age, so this index also gives the order of registry.all.
        manager
            .create_index(
                Index::create()
                    .name("registry_by_organization")
                    .table("registry")
                    .col("organization_id")
                    .col("registry_id")
                    .to_owned(),
            )
            .await
    }
}
