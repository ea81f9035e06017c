//! A target is with an agent or it is not; that its agent took it is no state of its own any more.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let one = Query::update()
            .table("job_target")
            .value("status", "dispatched")
            .and_where(Expr::col("status").eq("running"))
            .to_owned();
        manager.execute(one).await
    }
}
