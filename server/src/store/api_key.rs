//! API keys: found by their public prefix, known by a hash of the rest.

use chrono::Utc;
use purser_proto_schema::ids::{ApiKeyId, OrganizationId};
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, sea_query::OnConflict};

use super::{ApiKeyRow, Store, entity::api_key, failed};
use crate::error::Result;

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

impl Store {
    /// The key with this public prefix, valid or not.
    pub async fn api_key_by_prefix(&self, prefix: &str) -> Result<Option<ApiKeyRow>> {
        api_key::Entity::find().filter(api_key::Column::Prefix.eq(prefix)).one(&self.db).await.map_err(failed)
    }

    /// Whether an instance-admin key exists that still works.
    pub async fn api_key_has_admin(&self) -> Result<bool> {
        let row = api_key::Entity::find()
            .filter(api_key::Column::InstanceAdmin.eq(true))
            .filter(api_key::Column::RevokedAt.is_null())
            .one(&self.db)
            .await
            .map_err(failed)?;
        Ok(row.is_some())
    }

    /// Keeps an instance-admin key. Earlier ones of the same name stop working: whoever changes the
    /// environment's key means the old one to be gone.
    pub async fn api_key_keep_admin(&self, key: AdminKey) -> Result<()> {
        use sea_orm::sea_query::Expr;
        let transaction = self.write().await?;
        api_key::Entity::update_many()
            .col_expr(api_key::Column::RevokedAt, Expr::value(Utc::now()))
            .filter(api_key::Column::Name.eq(key.name))
            .filter(api_key::Column::InstanceAdmin.eq(true))
            .filter(api_key::Column::RevokedAt.is_null())
            .filter(api_key::Column::Prefix.ne(&key.prefix))
            .exec(&transaction)
            .await
            .map_err(failed)?;
        let row = api_key::ActiveModel {
            api_key_id: Set(ApiKeyId::generate().into()),
            organization_id: Set(key.organization_id.into()),
            name: Set(key.name.to_owned()),
            prefix: Set(key.prefix),
            hash: Set(key.hash),
            role: Set(Some("admin".to_owned())),
            permissions: Set(None),
            instance_admin: Set(true),
            expires_at: Set(None),
            revoked_at: Set(None),
            created_at: Set(Utc::now()),
        };
        let again = OnConflict::column(api_key::Column::Prefix)
            .update_columns([api_key::Column::Hash, api_key::Column::RevokedAt])
            .to_owned();
        api_key::Entity::insert(row)
            .on_conflict(again)
            .exec_without_returning(&transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }
}
