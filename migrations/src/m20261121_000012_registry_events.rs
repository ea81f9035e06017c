//! What `registry.events` tells: each change of a registry entry, numbered within its organization.
//!
//! The number comes from the organization's row in `registry_event_head`, which whoever writes holds until
//! its transaction ends. So numbers appear in their order, and a reader that has seen one has seen all
//! before it; those of a database sequence do not.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let of_organization = |table: &'static str| {
            ForeignKey::create()
                .from(table, "organization_id")
                .to("organization", "organization_id")
                .on_delete(ForeignKeyAction::Cascade)
                .to_owned()
        };
        manager
            .create_table(
                Table::create()
                    .table("registry_event_head")
                    .col(text("organization_id").primary_key())
                    .col(big_integer("newest"))
                    .foreign_key(&mut of_organization("registry_event_head"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("registry_event")
                    .col(text("organization_id"))
                    .col(big_integer("number"))
                    .col(text("change"))
                    // Of no foreign key: the entry may be gone.
                    .col(text("registry_id"))
                    .col(timestamp_with_time_zone("at"))
                    .primary_key(Index::create().col("organization_id").col("number"))
                    .foreign_key(&mut of_organization("registry_event"))
                    .to_owned(),
            )
            .await
    }
}
