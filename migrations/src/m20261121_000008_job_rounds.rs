//! What a target needs to be tried again, to keep to its call's limits, and to wait for its siblings.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = [
            // Queued, but not to be given out before.
            timestamp_with_time_zone_null("not_before"),
            // Attempts of earlier rounds: a person's retry begins a new one.
            integer("attempts_before").default(0).to_owned(),
            big_integer("queue_limit_ms").default(15 * 60 * 1000).to_owned(),
            big_integer("stall_limit_ms").default(10 * 60 * 1000).to_owned(),
            // How many of its job may be under way at once; null for any number.
            integer_null("max_parallel"),
            boolean("fail_fast").default(false).to_owned(),
        ];
        // SQLite takes one at a time.
        for column in columns {
            manager.alter_table(Table::alter().table("job_target").add_column(column).to_owned()).await?;
        }
        Ok(())
    }
}
