//! Registry entries, always within an organization.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use purser_proto_schema::{
    ids::{OrganizationId, RegistryId},
    registry::{Change, LastTest},
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::NotSet, ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait,
    FromQueryResult, IntoActiveModel, ModelTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
    sea_query::Expr,
};

use super::{
    AuditEntry, Entries, RegistryRow, Store, TargetState, audit,
    entity::{job_target, registry},
    failed,
    registry_event::{note, noting},
};
use crate::error::{Error, Result};

const NOT_FOUND: Error = Error::NotFound("Registry");
/// How many jobs a refusal to remove an entry lists.
const SHOWN_USERS: usize = 10;

impl Store {
    /// The organization's entries, oldest first.
    pub async fn registry_all(&self, organization: &OrganizationId) -> Result<Arc<Entries>> {
        let Some(kept) = &self.kept else { return self.registry_read(organization).await };
        let cache = &kept.registries;
        match cache.get(organization.as_str()) {
            Ok(rows) => Ok(rows),
            Err(generation) => {
                let rows = self.registry_read(organization).await?;
                cache.keep(organization.as_str(), generation, &rows);
                Ok(rows)
            }
        }
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
    fn registry_event_written(&self, organization: &str) {
        if !self.is_shared() {
            self.waiting.wake(organization);
        }
    }

    /// To be called after every write to an entry outside a transaction.
    fn registry_written(&self) {
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
        let before = kept.registry.generation();
        let row = find(&self.db, organization, id).await.map(Arc::new)?;
        kept.registry.keep(id.as_str(), before, &row);
        Ok(row)
    }

    /// Keeps a new entry; if it is the default, no other is.
    pub async fn registry_insert(&self, row: RegistryRow) -> Result<()> {
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
        self.registry_commit(transaction, &organization).await
    }

    /// Puts `row` in place of the entry as it was at `seen`. CONFLICT if it was changed since. The
    /// sealed password is written only if it is new: it may have been sealed anew meanwhile.
    pub async fn registry_replace(
        &self,
        row: RegistryRow,
        seen: DateTime<Utc>,
        new_password: bool,
    ) -> Result<()> {
        let transaction = self.write().await?;
        let (organization, id) = (row.organization_id.clone(), row.registry_id.clone());
        note(&transaction, &organization, &id, Change::Updated).await?;
        if row.is_default {
            clear_default(&transaction, &row).await?;
        }
        let mut changed = row.into_active_model().reset_all();
        if !new_password {
            changed.sealed_password = NotSet;
        }
        let replaced = registry::Entity::update_many()
            .set(changed)
            .filter(registry::Column::RegistryId.eq(id))
            .filter(registry::Column::OrganizationId.eq(&organization))
            .filter(registry::Column::UpdatedAt.eq(seen))
            .exec(&transaction)
            .await
            .map_err(failed)?;
        if replaced.rows_affected == 0 {
            return Err(Error::Conflict(
                "the registry was changed meanwhile; read it again and repeat".to_owned(),
            ));
        }
        self.registry_commit(transaction, &organization).await
    }

    /// Removes an entry. CONFLICT while targets that have not ended use it, unless `force`.
    pub async fn registry_remove(
        &self,
        organization: &OrganizationId,
        id: &RegistryId,
        force: bool,
    ) -> Result<RegistryRow> {
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
            return Err(in_use(&users));
        }
        row.clone().delete(&transaction).await.map_err(failed)?;
        self.registry_commit(transaction, organization.as_str()).await?;
        Ok(row)
    }

    /// Notes how a test of an entry ended, unless the entry was changed since `row` was read, and with
    /// it who asked, where that is not noted yet. Not a change of the entry: `updatedAt` stays.
    pub async fn registry_record_test(
        &self,
        row: &RegistryRow,
        test: &LastTest,
        asked: Option<AuditEntry<'_>>,
    ) -> Result<()> {
        let noted = registry::Entity::update_many()
            .col_expr(registry::Column::LastTestAt, Expr::value(test.at.to_utc()))
            .col_expr(registry::Column::LastTestOk, Expr::value(test.ok))
            .col_expr(registry::Column::LastTestCode, Expr::value(test.code.clone()))
            .col_expr(
                registry::Column::LastTestServerId,
                Expr::value(test.server_id.as_ref().map(ToString::to_string)),
            )
            .filter(registry::Column::RegistryId.eq(&row.registry_id))
            .filter(registry::Column::OrganizationId.eq(&row.organization_id))
            .filter(registry::Column::UpdatedAt.eq(row.updated_at));
        let mut batch = self.batch();
        // The event comes first, since it takes its turn among the organization's changes.
        let unchanged = registry::Entity::find_by_id(row.registry_id.as_str())
            .filter(registry::Column::OrganizationId.eq(&row.organization_id))
            .filter(registry::Column::UpdatedAt.eq(row.updated_at))
            .into_query();
        let (organization, id) = (&row.organization_id, &row.registry_id);
        batch.then_each(noting(batch.backend(), organization, id, Change::Tested, Some(unchanged))?);
        batch.then_show(noted.into_query().returning_all());
        if let Some(asked) = asked {
            batch.then(&audit::insert(asked).into_query());
        }
        let before = self.kept.as_ref().map(|kept| kept.registry.generation());
        let written = self.run(batch).await;
        self.registry_event_written(organization);
        let noted = written.and_then(|rows| {
            rows.first().map(|row| RegistryRow::from_query_result(row, "")).transpose().map_err(failed)
        });
        match (noted, &self.kept, before) {
            (Ok(Some(row)), Some(kept), Some(before)) => {
                kept.registries.forget();
                kept.registry.renew(&row.registry_id.clone(), before, &Arc::new(row));
                Ok(())
            }
            (noted, ..) => {
                self.registry_written();
                noted.map(|_| ())
            }
        }
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
            .exec(&self.db)
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

fn in_use(jobs: &[String]) -> Error {
    let shown = jobs.iter().take(SHOWN_USERS).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if jobs.len() > SHOWN_USERS { ", …" } else { "" };
    Error::Conflict(format!(
        "{} job(s) under way use this registry ({shown}{more}): wait for them, cancel them, or pass `force`",
        jobs.len()
    ))
}

/// Takes the mark from whichever other entry has it. No other transaction does the same until this one ends,
/// since it has noted an event: PostgreSQL would show neither of two the other's new default.
async fn clear_default(transaction: &DatabaseTransaction, heir: &RegistryRow) -> Result<()> {
    let organization = &heir.organization_id;
    let losers = registry::Entity::update_many()
        .col_expr(registry::Column::IsDefault, Expr::value(false))
        .filter(registry::Column::OrganizationId.eq(organization))
        .filter(registry::Column::RegistryId.ne(&heir.registry_id))
        .filter(registry::Column::IsDefault.eq(true))
        .exec_with_returning(transaction)
        .await
        .map_err(failed)?;
    for loser in losers {
        note(transaction, organization, &loser.registry_id, Change::Updated).await?;
    }
    Ok(())
}

#[cfg(test)]
impl RegistryRow {
    /// An entry of a host, for tests of rules.
    pub fn of_host(host: &str) -> Self {
        let now = Utc::now();
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
