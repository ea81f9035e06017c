//! The installation's one row.

use chrono::Utc;
use sea_orm::{ActiveValue::Set, EntityTrait, sea_query::OnConflict};

use super::{Store, entity::installation, failed};
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
            .exec_without_returning(&self.writer)
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
        installation::Entity::update(row).exec(&self.writer).await.map_err(failed)?;
        Ok(())
    }
}
