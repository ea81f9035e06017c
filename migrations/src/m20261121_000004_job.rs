//! Jobs and their targets: what is to be done on which host, and how it ended.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("job")
                    .col(text("job_id").primary_key())
                    .col(text("organization_id"))
                    .col(text("kind"))
                    .col(text("status"))
                    .col(text("created_by"))
                    .col(text("request"))
                    .col(timestamp_with_time_zone("created_at"))
                    .col(timestamp_with_time_zone_null("started_at"))
                    .col(timestamp_with_time_zone_null("finished_at"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("job", "organization_id")
                            .to("organization", "organization_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("job_target")
                    .col(text("target_id").primary_key())
                    .col(text("job_id"))
                    .col(text("organization_id"))
                    .col(text("server_id"))
                    .col(text("kind"))
                    .col(text_null("image"))
                    .col(text("plan"))
                    .col(text_null("registry_id"))
                    .col(text("credentials"))
                    .col(text_null("sealed_auth"))
                    .col(text("status"))
                    .col(integer("attempt"))
                    .col(boolean("cancel_requested"))
                    .col(timestamp_with_time_zone("queue_deadline"))
                    .col(big_integer("run_limit_ms"))
                    .col(timestamp_with_time_zone_null("run_deadline"))
                    .col(timestamp_with_time_zone_null("finished_at"))
                    .col(text_null("verdict"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("job_target", "job_id")
                            .to("job", "job_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .to_owned(),
            )
            .await?;
        for (name, table, columns) in [
            ("job_by_organization", "job", ["organization_id", "job_id"].as_slice()),
            ("job_target_by_job", "job_target", &["job_id", "status"]),
            ("job_target_by_server", "job_target", &["server_id", "status", "target_id"]),
            ("job_target_by_status", "job_target", &["status", "registry_id"]),
        ] {
            let mut index = Index::create().name(name).table(table).to_owned();
            for column in columns {
                index.col(*column);
            }
            manager.create_index(index).await?;
        }
        Ok(())
    }
}
