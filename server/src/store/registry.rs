//! Registry entries, always within an organization.

use std::sync::Arc;

use purser_proto_schema::{
    error::UsedBy,
    ids::{JobId, OrganizationId, RegistryId},
    registry::Change,
};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, IntoActiveModel,
    Iterable, ModelTrait, QueryFilter, QueryOrder, QuerySelect, sea_query::Expr,
};

use super::{
    AuditEntry, Entries, RegistryRow, Store, TargetState, audit,
    changes::after,
    entity::{job_target, registry},
    failed,
    registry_event::note,
};
use crate::error::{Error, Result};

const NOT_FOUND: Error = Error::NotFound("Registry");
/// How many jobs a refusal to remove an entry lists.
const SHOWN_USERS: usize = 100;

impl Store {
    /// The organization's entries, oldest first.
    pub async fn registry_all(&self, organization: &OrganizationId) -> Result<Arc<Entries>> {
        let Some(kept) = &self.kept else { return self.registry_read(organization).await };
        if let Some(rows) = kept.registries.get(organization.as_str()) {
            return Ok(rows);
        }
        kept.behind.settle().await;
        let before = kept.registries.generation();
        let rows = self.registry_read(organization).await?;
        kept.registries.keep(organization.as_str(), before, &rows);
        Ok(rows)
    }

    async fn registry_read(&self, organization: &OrganizationId) -> Result<Arc<Entries>> {
        let rows = registry::Entity::find()
            .filter(registry::Column::OrganizationId.eq(organization.as_str()))
            .order_by_asc(registry::Column::RegistryId)
            .all(&self.db)
            .await
            .map_err(failed)?;
        Ok(Arc::new(rows.into()))
    }

    /// Commits a transaction that wrote to an entry. A commit that fails may have happened all the same.
    async fn registry_commit(&self, transaction: DatabaseTransaction, organization: &str) -> Result<()> {
        let committed = transaction.commit().await;
        self.registry_written();
        self.registry_event_written(organization);
        committed.map_err(failed)
    }

    /// To be called after every write that notes an event. PostgreSQL tells it by itself.
    pub(super) fn registry_event_written(&self, organization: &str) {
        if !self.is_shared() {
            self.waiting.wake(organization);
        }
    }

    /// To be called after every write to an entry outside a transaction.
    pub(super) fn registry_written(&self) {
        if let Some(kept) = &self.kept {
            kept.registries.forget();
            kept.registry.forget();
        }
    }

    /// One entry of the organization.
    pub async fn registry_one(
        &self,
        organization: &OrganizationId,
        id: &RegistryId,
    ) -> Result<Arc<RegistryRow>> {
        let Some(kept) = &self.kept else { return find(&self.db, organization, id).await.map(Arc::new) };
        if let Some(row) = kept.registry.get(id.as_str()) {
            return if row.organization_id == organization.as_str() { Ok(row) } else { Err(NOT_FOUND) };
        }
        kept.behind.settle().await;
        let before = kept.registry.generation();
        let row = find(&self.db, organization, id).await.map(Arc::new)?;
        kept.registry.keep(id.as_str(), before, &row);
        Ok(row)
    }

    /// Keeps a new entry; if it is the default, no other is.
    pub async fn registry_insert(&self, row: RegistryRow, event: &AuditEntry<'_>) -> Result<()> {
        self.settle().await;
        let transaction = self.write().await?;
        let organization = row.organization_id.clone();
        note(&transaction, &organization, &row.registry_id, Change::Created).await?;
        if row.is_default {
            clear_default(&transaction, &row).await?;
        }
        registry::Entity::insert(row.into_active_model())
            .exec_without_returning(&transaction)
            .await
            .map_err(failed)?;
        audit::append(&transaction, event).await?;
        self.registry_commit(transaction, &organization).await
    }

    /// Makes of the entry as it was at `before` what is in `row`: writes the columns that differ, and those
    /// of the last test if it is `tested` anew or none any more. False, and nothing is written, if the entry
    /// was changed since.
    pub async fn registry_change(
        &self,
        before: &RegistryRow,
        row: RegistryRow,
        tested: bool,
        event: &AuditEntry<'_>,
    ) -> Result<bool> {
        self.settle().await;
        let transaction = self.write().await?;
        note(&transaction, &before.organization_id, &before.registry_id, Change::Updated).await?;
        if row.is_default && !before.is_default {
            clear_default(&transaction, &row).await?;
        }
        let changed = registry::Entity::update_many()
            .set(difference(before, row, tested))
            .filter(registry::Column::RegistryId.eq(&before.registry_id))
            .filter(registry::Column::OrganizationId.eq(&before.organization_id))
            .filter(registry::Column::UpdatedAt.eq(before.updated_at))
            .exec(&transaction)
            .await
            .map_err(failed)?;
        if changed.rows_affected == 0 {
            return Ok(false);
        }
        audit::append(&transaction, event).await?;
        self.registry_commit(transaction, &before.organization_id).await?;
        Ok(true)
    }

    /// Removes an entry. CONFLICT while targets that have not ended use it, unless `force`.
    pub async fn registry_remove(
        &self,
        organization: &OrganizationId,
        id: &RegistryId,
        force: bool,
        event: &AuditEntry<'_>,
    ) -> Result<RegistryRow> {
        self.settle().await;
        let transaction = self.write().await?;
        // First, so that of two that remove it at once the second finds it gone.
        note(&transaction, organization.as_str(), id.as_str(), Change::Removed).await?;
        let row = find(&transaction, organization, id).await?;
        let users = job_target::Entity::find()
            .filter(job_target::Column::RegistryId.eq(id.as_str()))
            .filter(job_target::Column::Status.is_in(TargetState::OPEN))
            .select_only()
            .column(job_target::Column::JobId)
            .distinct()
            .order_by_asc(job_target::Column::JobId)
            .into_tuple::<String>()
            .all(&transaction)
            .await
            .map_err(failed)?;
        if !users.is_empty() && !force {
            return Err(in_use(users));
        }
        row.clone().delete(&transaction).await.map_err(failed)?;
        audit::append(&transaction, event).await?;
        self.registry_commit(transaction, organization.as_str()).await?;
        Ok(row)
    }

    /// Every entry of the installation that has a sealed password, for re-encryption.
    pub async fn registry_sealed(&self) -> Result<Vec<RegistryRow>> {
        registry::Entity::find()
            .filter(registry::Column::SealedPassword.is_not_null())
            .all(&self.db)
            .await
            .map_err(failed)
    }

    /// Puts another sealing of the same password in place, unless the password changed meanwhile.
    pub async fn registry_reseal(&self, row: &RegistryRow, renewed: String) -> Result<()> {
        registry::Entity::update_many()
            .col_expr(registry::Column::SealedPassword, Expr::value(renewed))
            .filter(registry::Column::RegistryId.eq(&row.registry_id))
            .filter(registry::Column::SealedPassword.eq(row.sealed_password.clone()))
            .exec(&self.writer)
            .await
            .map_err(failed)?;
        self.registry_written();
        Ok(())
    }
}

async fn find<C: ConnectionTrait>(
    db: &C,
    organization: &OrganizationId,
    id: &RegistryId,
) -> Result<RegistryRow> {
    registry::Entity::find_by_id(id.as_str())
        .filter(registry::Column::OrganizationId.eq(organization.as_str()))
        .one(db)
        .await
        .map_err(failed)?
        .ok_or(NOT_FOUND)
}

fn in_use(mut jobs: Vec<String>) -> Error {
    let total = jobs.len();
    jobs.truncate(SHOWN_USERS);
    Error::InUse {
        what: "registry",
        by: UsedBy { jobs: jobs.into_iter().map(JobId::from_stored).collect(), total },
    }
}

/// What of a changed row is to be written. What others write without a change of `updatedAt` is not: a
/// sealing anew of the same password, the outcome of a test of what the entry still is.
fn difference(before: &RegistryRow, row: RegistryRow, tested: bool) -> registry::ActiveModel {
    use registry::Column::{LastTestAt, LastTestCode, LastTestOk, LastTestServerId};
    let (before, mut changed) = (before.clone().into_active_model(), row.into_active_model().reset_all());
    for column in registry::Column::iter() {
        let of_test = matches!(column, LastTestAt | LastTestCode | LastTestOk | LastTestServerId);
        let stays = changed.get(column).into_value() == before.get(column).into_value();
        if stays && !(of_test && tested) {
            changed.not_set(column);
        }
    }
    changed
}

/// Takes the mark from whichever other entry has it. No other transaction does the same until this one ends,
/// since it has noted an event: PostgreSQL would show neither of two the other's new default.
async fn clear_default(transaction: &DatabaseTransaction, heir: &RegistryRow) -> Result<()> {
    let organization = &heir.organization_id;
    let default = registry::Entity::find()
        .filter(registry::Column::OrganizationId.eq(organization))
        .filter(registry::Column::RegistryId.ne(&heir.registry_id))
        .filter(registry::Column::IsDefault.eq(true))
        .lock_exclusive();
    for row in default.all(transaction).await.map_err(failed)? {
        // A change of that entry, too: whoever changes it at this moment must not set the mark again.
        registry::Entity::update_many()
            .col_expr(registry::Column::IsDefault, Expr::value(false))
            .col_expr(registry::Column::UpdatedAt, Expr::value(after(row.updated_at)))
            .filter(registry::Column::RegistryId.eq(&row.registry_id))
            .exec(transaction)
            .await
            .map_err(failed)?;
        note(transaction, organization, &row.registry_id, Change::Updated).await?;
    }
    Ok(())
}

#[cfg(test)]
impl RegistryRow {
    /// An entry of a host, for tests of rules.
    pub fn of_host(host: &str) -> Self {
        let now = chrono::Utc::now();
        Self {
            registry_id: RegistryId::generate().into(),
            organization_id: OrganizationId::generate().into(),
            registry_name: host.to_owned(),
            registry_url: host.to_owned(),
            registry_host: host.to_owned(),
            namespace: None,
            username: None,
            sealed_password: None,
            credentials_updated_at: None,
            image_prefix: None,
            registry_type: "cloud".to_owned(),
            is_default: false,
            insecure: false,
            ca_certificate: None,
            realm_allow: "[]".to_owned(),
            last_test_at: None,
            last_test_ok: None,
            last_test_code: None,
            last_test_server_id: None,
            created_at: now,
            updated_at: now,
        }
    }
}
