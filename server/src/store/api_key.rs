//! API keys: found by their public prefix, known by a hash of the rest. A removed key's row stays, for
//! whoever reads the audit.

use chrono::{DateTime, TimeDelta, Utc};
use purser_proto_schema::{
    api_key::RateLimit,
    ids::{ApiKeyId, OrganizationId},
    permission::{Permission, Role},
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait,
    IntoActiveModel, QueryFilter, QueryOrder, QuerySelect, QueryTrait, sea_query::Expr,
};

use super::{
    ApiKeyRow, AuditEntry, Store, audit,
    entity::{api_key, organization},
    failed,
};
use crate::error::{Error, Result};

const NOT_FOUND: Error = Error::NotFound("API key");
/// The role that the last key of an organization keeps.
const ADMIN: &str = "admin";
/// The audit's words for an instance-admin key that was made, or made valid, and for one that another replaced.
const CREATE: &str = "apiKey.create";
const REMOVE: &str = "apiKey.remove";

/// The instance-admin key of the first start, or of the environment.
#[derive(Debug)]
pub struct AdminKey {
    /// Its organization.
    pub organization_id: OrganizationId,
    /// For people: where it came from.
    pub name: &'static str,
    /// The public part.
    pub prefix: String,
    /// The hash of the whole.
    pub hash: String,
}

impl ApiKeyRow {
    /// The key's role; `None` where it has permissions of its own.
    ///
    /// # Errors
    /// [`Error::Internal`] when the column holds no role.
    pub fn role(&self) -> Result<Option<Role>> {
        let role = self.role.as_deref().map(|role| serde_json::from_value(role.into())).transpose();
        role.map_err(Error::internal("reading a key's role"))
    }

    /// The key's permissions; `None` where it has a role.
    ///
    /// # Errors
    /// [`Error::Internal`] when the column holds something else.
    pub fn permissions(&self) -> Result<Option<Vec<Permission>>> {
        let list = self.permissions.as_deref().map(serde_json::from_str).transpose();
        list.map_err(Error::internal("reading a key's permissions"))
    }

    /// How often the key may call; `None` for any number.
    pub fn rate_limit(&self) -> Option<RateLimit> {
        let (requests, window) = self.rate_limit_requests.zip(self.rate_limit_window_seconds)?;
        Some(RateLimit { requests: requests.try_into().ok()?, window_seconds: window.try_into().ok()? })
    }

    /// Whether it is this instance-admin key, and nothing bounds it.
    fn is_admin_key(&self, key: &AdminKey) -> bool {
        let bounded =
            self.permissions.is_some() || self.rate_limit_requests.is_some() || self.expires_at.is_some();
        let is_admin = self.instance_admin && self.role.as_deref() == Some(ADMIN);
        is_admin && !bounded && self.revoked_at.is_none() && self.hash == key.hash
    }

    fn is_valid(&self) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expiry| expiry > Utc::now())
    }
}

impl Store {
    /// The key with this public prefix, valid or not.
    pub async fn api_key_by_prefix(&self, prefix: &str) -> Result<Option<ApiKeyRow>> {
        api_key::Entity::find().filter(api_key::Column::Prefix.eq(prefix)).one(&self.db).await.map_err(failed)
    }

    /// The organization's keys that were not removed, oldest first.
    pub async fn api_key_all(&self, organization: &OrganizationId) -> Result<Vec<ApiKeyRow>> {
        api_key::Entity::find()
            .filter(api_key::Column::OrganizationId.eq(organization.as_str()))
            .filter(api_key::Column::RevokedAt.is_null())
            .order_by_asc(api_key::Column::ApiKeyId)
            .all(&self.db)
            .await
            .map_err(failed)
    }

    /// A key of the organization that was not removed.
    pub async fn api_key_one(&self, organization: &OrganizationId, id: &ApiKeyId) -> Result<ApiKeyRow> {
        api_key::Entity::find_by_id(id.as_str())
            .filter(api_key::Column::OrganizationId.eq(organization.as_str()))
            .filter(api_key::Column::RevokedAt.is_null())
            .one(&self.db)
            .await
            .map_err(failed)?
            .ok_or(NOT_FOUND)
    }

    /// Keeps a new key.
    pub async fn api_key_insert(&self, row: ApiKeyRow, event: &AuditEntry<'_>) -> Result<()> {
        let mut batch = self.batch();
        batch.then(&api_key::Entity::insert(row.into_active_model()).into_query());
        batch.then(&audit::insert(audit::row(event)).into_query());
        self.run(batch).await.map(|_| ())
    }

    /// Removes a key. CONFLICT for the last valid one of its organization that has the role `admin`.
    pub async fn api_key_revoke(
        &self,
        organization: &OrganizationId,
        id: &ApiKeyId,
        event: &AuditEntry<'_>,
    ) -> Result<ApiKeyRow> {
        let transaction = self.write().await?;
        // Until the transaction ends nobody else removes one: PostgreSQL would let two that are the last
        // two remove each other.
        lock_organization(&transaction, organization).await?;
        let mut row = api_key::Entity::find_by_id(id.as_str())
            .filter(api_key::Column::OrganizationId.eq(organization.as_str()))
            .filter(api_key::Column::RevokedAt.is_null())
            .one(&transaction)
            .await
            .map_err(failed)?
            .ok_or(NOT_FOUND)?;
        if row.role.as_deref() == Some(ADMIN)
            && row.is_valid()
            && !has_other_admin(&transaction, &row).await?
        {
            return Err(Error::Conflict(
                "this is the organization's last key with the role admin: create another one first"
                    .to_owned(),
            ));
        }
        let now = Utc::now();
        row.revoked_at = Some(now);
        revoke(&transaction, id.as_str(), now).await?;
        audit::append(&transaction, event).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(row)
    }

    /// Those of these keys that are not valid any more.
    pub async fn api_keys_ended(&self, among: &[ApiKeyId]) -> Result<Vec<ApiKeyId>> {
        let valid = api_key::Entity::find()
            .select_only()
            .column(api_key::Column::ApiKeyId)
            .filter(api_key::Column::ApiKeyId.is_in(among.iter().map(ApiKeyId::as_str)))
            .filter(api_key::Column::RevokedAt.is_null())
            .filter(not_expired())
            .into_tuple::<String>()
            .all(&self.db)
            .await
            .map_err(failed)?;
        let ended = |id: &&ApiKeyId| !valid.iter().any(|valid| valid == id.as_str());
        Ok(among.iter().filter(ended).cloned().collect())
    }

    /// Notes a use of a key, unless one was noted less than `apart` before it.
    pub async fn api_key_used(&self, id: &ApiKeyId, at: DateTime<Utc>, apart: TimeDelta) -> Result<()> {
        let long_ago = Condition::any()
            .add(api_key::Column::LastUsedAt.is_null())
            .add(api_key::Column::LastUsedAt.lte(at - apart));
        api_key::Entity::update_many()
            .col_expr(api_key::Column::LastUsedAt, Expr::value(at))
            .filter(api_key::Column::ApiKeyId.eq(id.as_str()))
            .filter(long_ago)
            .exec(&self.writer)
            .await
            .map_err(failed)?;
        Ok(())
    }

    /// Whether an instance-admin key exists that still works.
    pub async fn api_key_has_admin(&self) -> Result<bool> {
        has_instance_admin(&self.db).await
    }

    /// Keeps an instance-admin key where there is none that still works, and says whether it did: of replicas that
    /// start together for the first time one does.
    pub async fn api_key_first_admin(&self, key: AdminKey) -> Result<bool> {
        let transaction = self.write().await?;
        lock_organization(&transaction, &key.organization_id).await?;
        if has_instance_admin(&transaction).await? {
            return Ok(false);
        }
        keep_admin(&transaction, key).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(true)
    }

    /// Keeps an instance-admin key. Earlier ones of the same name stop working: whoever changes the
    /// environment's key means the old one to be gone. The audit of whose they are is told what changed, if
    /// something did.
    pub async fn api_key_keep_admin(&self, key: AdminKey) -> Result<()> {
        let transaction = self.write().await?;
        // Replicas that start together do so one after the other.
        lock_organization(&transaction, &key.organization_id).await?;
        let former = api_key::Entity::find()
            .filter(api_key::Column::Name.eq(key.name))
            .filter(api_key::Column::InstanceAdmin.eq(true))
            .filter(api_key::Column::RevokedAt.is_null())
            .filter(api_key::Column::Prefix.ne(&key.prefix));
        for row in former.all(&transaction).await.map_err(failed)? {
            revoke(&transaction, &row.api_key_id, Utc::now()).await?;
            note_by_itself(&transaction, REMOVE, &row.organization_id, &row.api_key_id).await?;
        }
        keep_admin(&transaction, key).await?;
        transaction.commit().await.map_err(failed)
    }
}

async fn keep_admin<C: ConnectionTrait>(db: &C, key: AdminKey) -> Result<()> {
    let kept = api_key::Entity::find().filter(api_key::Column::Prefix.eq(&key.prefix)).one(db);
    let kept = kept.await.map_err(failed)?;
    if kept.as_ref().is_some_and(|row| row.is_admin_key(&key)) {
        return Ok(());
    }
    let is_new = kept.is_none();
    // Also one that was made by `apiKey.create` before the environment named it.
    let (id, organization) = match kept {
        Some(row) => (row.api_key_id, row.organization_id),
        None => (ApiKeyId::generate().into(), key.organization_id.into()),
    };
    note_by_itself(db, CREATE, &organization, &id).await?;
    let mut row = api_key::ActiveModel {
        api_key_id: Set(id),
        hash: Set(key.hash),
        role: Set(Some(ADMIN.to_owned())),
        permissions: Set(None),
        instance_admin: Set(true),
        rate_limit_requests: Set(None),
        rate_limit_window_seconds: Set(None),
        expires_at: Set(None),
        revoked_at: Set(None),
        ..Default::default()
    };
    if is_new {
        row.organization_id = Set(organization);
        row.name = Set(key.name.to_owned());
        row.prefix = Set(key.prefix);
        row.last_used_at = Set(None);
        row.created_at = Set(Utc::now());
        api_key::Entity::insert(row).exec_without_returning(db).await.map_err(failed)?;
    } else {
        row.update(db).await.map_err(failed)?;
    }
    Ok(())
}

async fn has_instance_admin<C: ConnectionTrait>(db: &C) -> Result<bool> {
    let valid = api_key::Entity::find()
        .filter(api_key::Column::InstanceAdmin.eq(true))
        .filter(api_key::Column::RevokedAt.is_null());
    Ok(valid.one(db).await.map_err(failed)?.is_some())
}

async fn lock_organization<C: ConnectionTrait>(db: &C, id: &OrganizationId) -> Result<()> {
    let found = organization::Entity::find_by_id(id.as_str()).lock_exclusive().one(db).await;
    found.map(|_| ()).map_err(failed)
}

async fn revoke<C: ConnectionTrait>(db: &C, id: &str, at: DateTime<Utc>) -> Result<()> {
    let revoked = api_key::Entity::update_many()
        .col_expr(api_key::Column::RevokedAt, Expr::value(at))
        .filter(api_key::Column::ApiKeyId.eq(id));
    revoked.exec(db).await.map(|_| ()).map_err(failed)
}

/// Notes what the control plane does to a key by itself.
async fn note_by_itself<C: ConnectionTrait>(
    db: &C,
    action: &'static str,
    organization: &str,
    key: &str,
) -> Result<()> {
    let organization = OrganizationId::from_stored(organization.to_owned());
    let event = AuditEntry {
        subject_api_key_id: Some(ApiKeyId::from_stored(key.to_owned())),
        ..AuditEntry::by_nobody(&organization, action)
    };
    audit::append(db, &event).await
}

fn not_expired() -> Condition {
    Condition::any().add(api_key::Column::ExpiresAt.is_null()).add(api_key::Column::ExpiresAt.gt(Utc::now()))
}

async fn has_other_admin<C: ConnectionTrait>(db: &C, row: &ApiKeyRow) -> Result<bool> {
    let other = api_key::Entity::find()
        .filter(api_key::Column::OrganizationId.eq(&row.organization_id))
        .filter(api_key::Column::ApiKeyId.ne(&row.api_key_id))
        .filter(api_key::Column::Role.eq(ADMIN))
        .filter(api_key::Column::RevokedAt.is_null())
        .filter(not_expired());
    Ok(other.one(db).await.map_err(failed)?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_those_that_start_first_together_one_makes_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(None, folder.path()).await.unwrap();
        let organization_id = store.organization_first("default").await.unwrap();
        let key = |prefix: &str| AdminKey {
            organization_id: organization_id.clone(),
            name: "first",
            prefix: prefix.to_owned(),
            hash: prefix.to_owned(),
        };
        assert!(store.api_key_first_admin(key("one")).await.unwrap());
        assert!(!store.api_key_first_admin(key("two")).await.unwrap());
        assert!(store.api_key_by_prefix("one").await.unwrap().unwrap().is_valid());
        assert!(store.api_key_by_prefix("two").await.unwrap().is_none());
        // Another of the environment takes the earlier one's place.
        store.api_key_keep_admin(key("three")).await.unwrap();
        assert!(!store.api_key_by_prefix("one").await.unwrap().unwrap().is_valid());
    }
}
