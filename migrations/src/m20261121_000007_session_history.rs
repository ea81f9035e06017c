//! Which processes of a server's agent had its last sessions, as JSON: two hosts with one key are told by
//! it. In the row, since replicas share it.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .alter_table(Table::alter().table("server").add_column(text_null("session_history")).to_owned())
            .await
    }
}
