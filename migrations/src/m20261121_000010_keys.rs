//! What an API key may do in a time, when it was last used, and when people last changed an organization
//! or a server.

use sea_orm_migration::{prelude::*, schema::*};

/// SQLite adds no column without a constant that rows have until they are given their own.
const BEFORE: &str = "1970-01-01 00:00:00+00:00";

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in [
            integer_null("rate_limit_requests"),
            integer_null("rate_limit_window_seconds"),
            timestamp_with_time_zone_null("last_used_at"),
        ] {
            manager.alter_table(Table::alter().table("api_key").add_column(column).to_owned()).await?;
        }
        for table in ["organization", "server"] {
            let column = timestamp_with_time_zone("updated_at").default(BEFORE).to_owned();
            manager.alter_table(Table::alter().table(table).add_column(column).to_owned()).await?;
            let never_changed =
                Query::update().table(table).value("updated_at", Expr::col("created_at")).to_owned();
            manager.execute(never_changed).await?;
        }
        Ok(())
    }
}
