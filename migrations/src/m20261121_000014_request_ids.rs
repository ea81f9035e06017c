//! The request that asked for a target, which goes with it to its host; and the open jobs, to be counted.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = Table::alter().table("job_target").add_column(text_null("request_id")).to_owned();
        manager.alter_table(column).await?;
        let open = Index::create()
            .name("job_open_by_status")
            .table("job")
            .col("status")
            .and_where(Expr::col("finished_at").is_null())
            .to_owned();
        manager.create_index(open).await
    }
}
