//! Organizations: what every other finder is given one of.

use chrono::{SubsecRound, Utc};
use purser_proto_schema::{ids::OrganizationId, time::Timestamp};
use sea_orm::{
    ActiveModelTrait,
    ActiveValue::{Set, Unchanged},
    EntityTrait, IntoActiveModel, QueryOrder, QuerySelect,
    sea_query::OnConflict,
};

use super::{
    AuditEntry, OrganizationRow, Store, audit,
    changes::{after, unchanged_since},
    entity::organization,
    failed,
};
use crate::error::{Error, Result};

const NOT_FOUND: Error = Error::NotFound("Organization");

impl OrganizationRow {
    /// A new organization of this name.
    pub fn named(name: String) -> Self {
        let now = Utc::now().trunc_subsecs(3);
        Self { organization_id: OrganizationId::generate().into(), name, created_at: now, updated_at: now }
    }
}

impl Store {
    /// The installation's first organization, whatever it is called by now; made under `name` if there is
    /// none.
    pub async fn organization_first(&self, name: &str) -> Result<OrganizationId> {
        if let Some(first) = self.oldest_organization().await? {
            return Ok(first);
        }
        // Two replicas that start together end up with the same.
        let kept = OnConflict::column(organization::Column::Name).do_nothing().to_owned();
        organization::Entity::insert(OrganizationRow::named(name.to_owned()).into_active_model())
            .on_conflict(kept)
            .exec_without_returning(&self.writer)
            .await
            .map_err(failed)?;
        self.oldest_organization().await?.ok_or(NOT_FOUND)
    }

    async fn oldest_organization(&self) -> Result<Option<OrganizationId>> {
        let oldest = organization::Entity::find()
            .order_by_asc(organization::Column::CreatedAt)
            .order_by_asc(organization::Column::OrganizationId);
        let row = oldest.one(&self.db).await.map_err(failed)?;
        Ok(row.map(|row| OrganizationId::from_stored(row.organization_id)))
    }

    /// Every organization of the installation, oldest first.
    pub async fn organization_all(&self) -> Result<Vec<OrganizationRow>> {
        organization::Entity::find()
            .order_by_asc(organization::Column::CreatedAt)
            .order_by_asc(organization::Column::OrganizationId)
            .all(&self.db)
            .await
            .map_err(failed)
    }

    /// One organization.
    pub async fn organization_one(&self, id: &OrganizationId) -> Result<OrganizationRow> {
        let found = organization::Entity::find_by_id(id.as_str()).one(&self.db).await.map_err(failed)?;
        found.ok_or(NOT_FOUND)
    }

    /// Keeps a new organization. CONFLICT if the name is taken.
    pub async fn organization_insert(&self, row: OrganizationRow, event: &AuditEntry<'_>) -> Result<()> {
        let transaction = self.write().await?;
        organization::Entity::insert(row.into_active_model())
            .exec_without_returning(&transaction)
            .await
            .map_err(failed)?;
        audit::append(&transaction, event).await?;
        transaction.commit().await.map_err(failed)
    }

    /// Changes an organization. CONFLICT if the name is taken, or if it was changed since `seen`.
    pub async fn organization_update(
        &self,
        id: &OrganizationId,
        name: Option<String>,
        seen: Option<Timestamp>,
        event: &AuditEntry<'_>,
    ) -> Result<OrganizationRow> {
        let transaction = self.write().await?;
        let found = organization::Entity::find_by_id(id.as_str()).lock_exclusive();
        let row = found.one(&transaction).await.map_err(failed)?.ok_or(NOT_FOUND)?;
        unchanged_since("organization", row.updated_at, seen)?;
        audit::append(&transaction, event).await?;
        let Some(name) = name else { return transaction.commit().await.map(|()| row).map_err(failed) };
        let changed = organization::ActiveModel {
            organization_id: Unchanged(row.organization_id),
            name: Set(name),
            updated_at: Set(after(row.updated_at)),
            created_at: Unchanged(row.created_at),
        };
        let row = changed.update(&transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(row)
    }
}
