//! What happened to registry entries: written with the change, numbered within the organization, kept for
//! readers that come back, and told to those that wait.
//!
//! Numbers rise in the order in which changes become visible: whoever takes one holds the organization's
//! head until its transaction ends. So it is the first thing that a transaction takes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::Utc;
use purser_proto_schema::{
    ids::{OrganizationId, RegistryId},
    registry::Change,
};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, DatabaseBackend, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait, Statement,
    sea_query::{Expr, ExprTrait, OnConflict, Query, SelectStatement},
};
use tokio::sync::watch;

use super::{
    RegistryEventRow, Store,
    entity::{registry_event, registry_event_head},
    failed,
    job::column_text,
    replica::{self, Signal},
};
use crate::error::{Error, Result};

/// How many events of an organization are kept, the newest.
const KEPT: i64 = 10_000;

/// Who waits for the events of which organization.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<HashMap<String, watch::Sender<()>>>);

impl Waiting {
    fn join(&self, organization: &OrganizationId) -> watch::Receiver<()> {
        self.lock().entry(organization.to_string()).or_default().subscribe()
    }

    /// Says that an organization may have a new event.
    pub(super) fn wake(&self, organization: &str) {
        let mut table = self.lock();
        let unheard = table.get(organization).is_some_and(|waiting| waiting.send(()).is_err());
        if unheard {
            table.remove(organization);
        }
    }

    /// Says that each organization may have one.
    pub(super) fn wake_all(&self) {
        self.lock().retain(|_, waiting| waiting.send(()).is_ok());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<()>>> {
        // Every change leaves the table whole, so a panic elsewhere does not matter here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Is marked whenever the organization may have a new registry event. To be taken before the events
    /// are read.
    pub fn registry_events_to_come(&self, organization: &OrganizationId) -> watch::Receiver<()> {
        self.waiting.join(organization)
    }

    /// Wakes those who wait for registry events: of one organization, or of all.
    pub fn registry_events_heard(&self, organization: Option<&OrganizationId>) {
        match organization {
            Some(organization) => self.waiting.wake(organization.as_str()),
            None => self.waiting.wake_all(),
        }
    }

    /// The number of the organization's newest event; 0 before the first.
    pub async fn registry_events_newest(&self, organization: &OrganizationId) -> Result<i64> {
        let head = registry_event_head::Entity::find_by_id(organization.as_str()).one(&self.db).await;
        Ok(head.map_err(failed)?.map_or(0, |head| head.newest))
    }

    /// The first `limit` events after a number, in order. `None` where some are not kept any more, and for
    /// a number that is none of the organization's.
    pub async fn registry_events_after(
        &self,
        organization: &OrganizationId,
        number: i64,
        limit: u64,
    ) -> Result<Option<Vec<RegistryEventRow>>> {
        let events = registry_event::Entity::find()
            .filter(registry_event::Column::OrganizationId.eq(organization.as_str()))
            .filter(registry_event::Column::Number.gt(number))
            .order_by_asc(registry_event::Column::Number)
            .limit(limit)
            .all(&self.db)
            .await
            .map_err(failed)?;
        // After the events: what was forgotten before they were read is seen here.
        let newest = self.registry_events_newest(organization).await?;
        Ok((newest - KEPT..=newest).contains(&number).then_some(events))
    }
}

/// Notes a change in the transaction that makes it.
pub(super) async fn note(
    transaction: &DatabaseTransaction,
    organization: &str,
    registry: &str,
    change: Change,
) -> Result<()> {
    let backend = transaction.get_database_backend();
    for statement in noting(backend, organization, registry, change, None)? {
        transaction.execute_raw(statement).await.map_err(failed)?;
    }
    Ok(())
}

/// The statements that note a change, where `provided` has a row.
pub(super) fn noting(
    backend: DatabaseBackend,
    organization: &str,
    registry: &str,
    change: Change,
    provided: Option<SelectStatement>,
) -> Result<Vec<Statement>> {
    let next = Expr::col((registry_event_head::Entity, registry_event_head::Column::Newest)).add(1);
    let first =
        registry_event_head::ActiveModel { organization_id: Set(organization.to_owned()), newest: Set(1) };
    let number = registry_event_head::Entity::insert(first).on_conflict(
        OnConflict::column(registry_event_head::Column::OrganizationId)
            .value(registry_event_head::Column::Newest, next)
            .to_owned(),
    );
    let mut statements = vec![
        backend.build(&number.into_query()),
        backend.build(&appending(organization, registry, change, provided)?),
        backend.build(&forgetting(organization).into_query()),
    ];
    if backend == DatabaseBackend::Postgres {
        let organization_id = OrganizationId::from_stored(organization.to_owned());
        // Heard when the transaction is committed, by this control plane, too.
        statements.push(replica::telling_all(Signal::RegistryEvents { organization_id })?);
    }
    Ok(statements)
}

fn appending(
    organization: &str,
    registry: &str,
    change: Change,
    provided: Option<SelectStatement>,
) -> Result<sea_orm::sea_query::InsertStatement> {
    let mut event = head(organization);
    event
        .column(registry_event_head::Column::OrganizationId)
        .column(registry_event_head::Column::Newest)
        .expr(Expr::value(column_text(&change)))
        .expr(Expr::value(registry))
        .expr(Expr::value(Utc::now()));
    if let Some(provided) = provided {
        event.and_where(Expr::exists(provided));
    }
    let mut appending = Query::insert();
    appending
        .into_table(registry_event::Entity)
        .columns([
            registry_event::Column::OrganizationId,
            registry_event::Column::Number,
            registry_event::Column::Change,
            registry_event::Column::RegistryId,
            registry_event::Column::At,
        ])
        .select_from(event)
        .map_err(Error::internal("writing a registry event"))?;
    Ok(appending)
}

fn forgetting(organization: &str) -> sea_orm::DeleteMany<registry_event::Entity> {
    let oldest = head(organization).expr(Expr::col(registry_event_head::Column::Newest).sub(KEPT)).to_owned();
    registry_event::Entity::delete_many()
        .filter(registry_event::Column::OrganizationId.eq(organization))
        .filter(Expr::col(registry_event::Column::Number).lte(Expr::SubQuery(None, Box::new(oldest.into()))))
}

fn head(organization: &str) -> SelectStatement {
    Query::select()
        .from(registry_event_head::Entity)
        .and_where(registry_event_head::Column::OrganizationId.eq(organization))
        .to_owned()
}

impl RegistryEventRow {
    /// What happened.
    ///
    /// # Errors
    /// [`Error::Internal`] for a word that no version wrote.
    pub fn change(&self) -> Result<Change> {
        serde_json::from_value(self.change.as_str().into())
            .map_err(Error::internal("reading a registry event"))
    }

    /// To which entry.
    pub fn registry(&self) -> RegistryId {
        RegistryId::from_stored(self.registry_id.clone())
    }
}
