//! How the last test of a registry entry ended, and the audit of who asked for it.

use std::sync::Arc;

use purser_proto_schema::registry::{Change, LastTest};
use sea_orm::{
    ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QueryTrait, UpdateMany,
    sea_query::{Expr, SelectStatement},
};

use super::{
    AuditEntry, RegistryRow, Store, audit,
    batch::Batch,
    entity::{audit_event, registry},
    failed,
    registry_event::noting,
};
use crate::error::{Result, chain};

/// What is to be written of a test. Its statements are made where it is written, which takes as long as some
/// writes do.
struct Note {
    row: Arc<RegistryRow>,
    test: LastTest,
    asked: Option<audit_event::ActiveModel>,
}

impl Note {
    fn batch(&self, mut batch: Batch) -> Result<Batch> {
        let row = &self.row;
        // The event comes first, since it takes its turn among the organization's changes.
        let unchanged = Some(unchanged(row));
        let (backend, organization) = (batch.backend(), &row.organization_id);
        batch.then_each(noting(backend, organization, &row.registry_id, Change::Tested, unchanged)?);
        batch.then_show(noted(row, &self.test).into_query().returning_all());
        if let Some(asked) = &self.asked {
            batch.then(&audit::insert(asked.clone()).into_query());
        }
        Ok(batch)
    }
}

impl Store {
    /// Notes how a test of an entry ended, unless the entry was changed since `row` was read, and with
    /// it who asked, where that is not noted yet. Not a change of the entry: `updatedAt` stays.
    ///
    /// With SQLite it is written behind the answer, and every later read of this process knows it: a test
    /// costs its caller no more than the registry does. A failure to write it is logged.
    ///
    /// # Errors
    /// [`Error::Internal`](crate::Error::Internal) when the database is away, with PostgreSQL.
    pub async fn registry_record_test(
        &self,
        row: &Arc<RegistryRow>,
        test: LastTest,
        asked: Option<AuditEntry<'_>>,
    ) -> Result<()> {
        let note = Note { row: Arc::clone(row), test, asked: asked.as_ref().map(audit::row) };
        let Some(kept) = &self.kept else { return self.run(note.batch(self.batch())?).await.map(|_| ()) };
        kept.note_test(row, &note.test);
        let store = self.clone();
        let writing = async move {
            if let Err(error) = store.write_test(&note).await {
                tracing::error!(registry = note.row.registry_id, error = %chain(&error), "a test could not be noted");
            }
            store.registry_event_written(&note.row.organization_id);
        };
        kept.behind.begin(writing).await;
        Ok(())
    }

    async fn write_test(&self, note: &Note) -> Result<()> {
        let id = &note.row.registry_id;
        let batch = note.batch(self.batch())?;
        let before = self.kept.as_ref().map(|kept| kept.registry.generation());
        let written = self.run(batch).await.and_then(|rows| {
            rows.first().map(|row| RegistryRow::from_query_result(row, "")).transpose().map_err(failed)
        });
        match (written, &self.kept, before) {
            (Ok(Some(row)), Some(kept), Some(before)) => {
                kept.registries.forget();
                kept.registry.renew(id, before, &Arc::new(row));
                Ok(())
            }
            (written, ..) => {
                self.registry_written();
                written.map(|_| ())
            }
        }
    }
}

impl super::Kept {
    /// Lets readers know before it is written.
    fn note_test(&self, row: &RegistryRow, test: &LastTest) {
        let before = self.registry.generation();
        let unchanged = |kept: &Arc<RegistryRow>| kept.updated_at == row.updated_at;
        if let Some(kept) = self.registry.get(&row.registry_id).filter(unchanged) {
            let noted = RegistryRow {
                last_test_at: Some(test.at.to_utc()),
                last_test_ok: Some(test.ok),
                last_test_code: test.code.clone(),
                last_test_server_id: test.server_id.as_ref().map(ToString::to_string),
                ..RegistryRow::clone(&kept)
            };
            self.registry.renew(&row.registry_id, before, &Arc::new(noted));
        }
        self.registries.forget();
    }
}

/// The entry, if it is still as it was read.
fn unchanged(row: &RegistryRow) -> SelectStatement {
    registry::Entity::find_by_id(row.registry_id.as_str())
        .filter(registry::Column::OrganizationId.eq(&row.organization_id))
        .filter(registry::Column::UpdatedAt.eq(row.updated_at))
        .into_query()
}

fn noted(row: &RegistryRow, test: &LastTest) -> UpdateMany<registry::Entity> {
    registry::Entity::update_many()
        .col_expr(registry::Column::LastTestAt, Expr::value(test.at.to_utc()))
        .col_expr(registry::Column::LastTestOk, Expr::value(test.ok))
        .col_expr(registry::Column::LastTestCode, Expr::value(test.code.clone()))
        .col_expr(
            registry::Column::LastTestServerId,
            Expr::value(test.server_id.as_ref().map(ToString::to_string)),
        )
        .filter(registry::Column::RegistryId.eq(&row.registry_id))
        .filter(registry::Column::OrganizationId.eq(&row.organization_id))
        .filter(registry::Column::UpdatedAt.eq(row.updated_at))
}
