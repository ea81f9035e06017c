//! Which further token servers a registry entry's secret may be sent to: a JSON array of hosts.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .alter_table(
                Table::alter().table("registry").add_column(text("realm_allow").default("[]")).to_owned(),
            )
            .await
    }
}
