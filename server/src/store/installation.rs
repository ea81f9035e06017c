//! The installation's one row, and its organizations.

use chrono::Utc;
use purser_proto_schema::ids::OrganizationId;
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, sea_query::OnConflict};

use super::{
    Store,
    entity::{installation, organization},
    failed,
};
use crate::error::Result;

const ONLY_ROW: i16 = 1;

impl Store {
    /// The sealed key of the agent channel, where there is one yet.
    pub async fn channel_key(&self) -> Result<Option<String>> {
        let row = installation::Entity::find_by_id(ONLY_ROW).one(&self.db).await.map_err(failed)?;
        Ok(row.map(|row| row.sealed_channel_key))
    }

    /// Keeps the key of the agent channel unless there is one, and gives the one that is kept: two
    /// replicas that start together end up with the same.
    pub async fn channel_key_keep(&self, sealed: String) -> Result<String> {
        let row = installation::ActiveModel {
            installation_id: Set(ONLY_ROW),
            sealed_channel_key: Set(sealed.clone()),
            created_at: Set(Utc::now()),
        };
        let kept = OnConflict::column(installation::Column::InstallationId).do_nothing().to_owned();
        installation::Entity::insert(row)
            .on_conflict(kept)
            .exec_without_returning(&self.db)
            .await
            .map_err(failed)?;
        Ok(self.channel_key().await?.unwrap_or(sealed))
    }

    /// Puts another sealing of the same key in place of `sealed`.
    pub async fn channel_key_reseal(&self, renewed: String) -> Result<()> {
        let row = installation::ActiveModel {
            installation_id: Set(ONLY_ROW),
            sealed_channel_key: Set(renewed),
            ..Default::default()
        };
        installation::Entity::update(row).exec(&self.db).await.map_err(failed)?;
        Ok(())
    }

    /// The organization of this name, made if it is absent.
    pub async fn organization_ensure(&self, name: &str) -> Result<OrganizationId> {
        let row = organization::ActiveModel {
            organization_id: Set(OrganizationId::generate().into()),
            name: Set(name.to_owned()),
            created_at: Set(Utc::now()),
        };
        let kept = OnConflict::column(organization::Column::Name).do_nothing().to_owned();
        organization::Entity::insert(row)
            .on_conflict(kept)
            .exec_without_returning(&self.db)
            .await
            .map_err(failed)?;
        let found = organization::Entity::find()
            .filter(organization::Column::Name.eq(name))
            .one(&self.db)
            .await
            .map_err(failed)?;
        found
            .map(|row| OrganizationId::from_stored(row.organization_id))
            .ok_or(crate::error::Error::NotFound("Organization"))
    }
}
