//! Several control planes over one database: which of them live, which one holds a server's session,
//! and how far its targets are, for the others.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("replica")
                    .col(text("replica_id").primary_key())
                    .col(timestamp_with_time_zone("alive_until"))
                    .to_owned(),
            )
            .await?;
        for (table, column) in [("server", "holder"), ("job_target", "progress")] {
            manager.alter_table(Table::alter().table(table).add_column(text_null(column)).to_owned()).await?;
        }
        Ok(())
    }
}
