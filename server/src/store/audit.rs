//! Audit events. There is a way to append, and none to change: what is over its time is forgotten as a whole
//! ([`Store::audit_forget`]). Whatever changes something takes the event that tells of it, and both are stored or
//! neither is.

use std::net::IpAddr;

use chrono::{DateTime, Duration, SubsecRound as _, Utc};
use purser_proto_schema::ids::{ApiKeyId, AuditEventId, JobId, OrganizationId, RegistryId, ServerId};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, Insert, InsertMany, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait,
};

use super::{AuditRow, Store, batch::chunks, entity::audit_event, failed};
use crate::{error::Result, request::RequestId};

/// By how much an event's id may be older or younger than its time. They are made one after the other.
const SLACK: Duration = Duration::seconds(1);

/// Who did what, to what, and how it ended.
#[derive(Clone, Debug)]
pub struct AuditEntry<'a> {
    /// In which organization; `None` for what is of none, such as a key that nobody knows.
    pub organization_id: Option<&'a OrganizationId>,
    /// Who; `None` for what the control plane or an agent does by itself.
    pub api_key_id: Option<&'a ApiKeyId>,
    /// The procedure, or another word for what was done.
    pub action: &'a str,
    /// Which registry entry.
    pub registry_id: Option<RegistryId>,
    /// Which server.
    pub server_id: Option<ServerId>,
    /// Which job.
    pub job_id: Option<JobId>,
    /// Which key was made or removed.
    pub subject_api_key_id: Option<ApiKeyId>,
    /// Which organization was made or changed.
    pub subject_organization_id: Option<OrganizationId>,
    /// `ok`, `accepted` for a job that ends later, or the error's code; of a browse that the registry refused, the
    /// diagnosis' code.
    pub outcome: &'a str,
    /// By which request.
    pub request_id: Option<&'a RequestId>,
    /// From where, of what was refused.
    pub source: Option<IpAddr>,
    /// How often.
    pub count: u32,
}

impl<'a> AuditEntry<'a> {
    /// What the control plane, or an agent, did by itself in an organization, and did well.
    pub fn by_nobody(organization: &'a OrganizationId, action: &'a str) -> Self {
        Self {
            organization_id: Some(organization),
            api_key_id: None,
            action,
            registry_id: None,
            server_id: None,
            job_id: None,
            subject_api_key_id: None,
            subject_organization_id: None,
            outcome: "ok",
            request_id: None,
            source: None,
            count: 1,
        }
    }
}

/// Which events a page holds.
#[derive(Debug, Default)]
pub struct AuditFilter {
    /// Only of this registry entry.
    pub registry_id: Option<RegistryId>,
    /// Only of this server.
    pub server_id: Option<ServerId>,
    /// Only by this key.
    pub api_key_id: Option<ApiKeyId>,
    /// Only of this job.
    pub job_id: Option<JobId>,
    /// Only about this key.
    pub subject_api_key_id: Option<ApiKeyId>,
    /// Only about this organization.
    pub subject_organization_id: Option<OrganizationId>,
    /// Only this action.
    pub action: Option<String>,
    /// Only with this outcome.
    pub outcome: Option<String>,
    /// From this moment on.
    pub from: Option<DateTime<Utc>>,
    /// Before this moment.
    pub to: Option<DateTime<Utc>>,
    /// Only events before this one.
    pub before: Option<AuditEventId>,
}

impl Store {
    /// Appends an event.
    pub async fn audit_append(&self, entry: AuditEntry<'_>) -> Result<()> {
        append(&self.writer, &entry).await
    }

    /// A page of the organization's events, newest first; of those that belong to none where none is given.
    pub async fn audit_page(
        &self,
        organization: Option<&OrganizationId>,
        filter: AuditFilter,
        limit: u64,
    ) -> Result<Vec<AuditRow>> {
        use audit_event::Column;
        self.settle().await;
        let mut wanted = Condition::all().add(Column::OrganizationId.eq(owner(organization)));
        let texts = [
            (Column::RegistryId, filter.registry_id.map(String::from)),
            (Column::ServerId, filter.server_id.map(String::from)),
            (Column::ApiKeyId, filter.api_key_id.map(String::from)),
            (Column::JobId, filter.job_id.map(String::from)),
            (Column::SubjectApiKeyId, filter.subject_api_key_id.map(String::from)),
            (Column::SubjectOrganizationId, filter.subject_organization_id.map(String::from)),
            (Column::Action, filter.action),
            (Column::Outcome, filter.outcome),
        ];
        for (column, text) in texts {
            wanted = wanted.add_option(text.map(|text| column.eq(text)));
        }
        // The ids sort by age: with them an index finds what the times decide on.
        if let Some(from) = filter.from {
            let floor = AuditEventId::floor_of(from - SLACK);
            wanted = wanted.add(Column::AuditEventId.gte(floor)).add(Column::At.gte(from));
        }
        if let Some(to) = filter.to {
            let floor = AuditEventId::floor_of(to + SLACK);
            wanted = wanted.add(Column::AuditEventId.lt(floor)).add(Column::At.lt(to));
        }
        wanted = wanted.add_option(filter.before.map(|before| Column::AuditEventId.lt(before.as_str())));
        audit_event::Entity::find()
            .filter(wanted)
            .order_by_desc(Column::AuditEventId)
            .limit(limit)
            .all(&self.db)
            .await
            .map_err(failed)
    }

    /// Forgets the oldest events from before this moment, at most `limit`, and gives how many. Several control
    /// planes may do so at once.
    pub async fn audit_forget(&self, before: DateTime<Utc>, limit: u64) -> Result<u64> {
        use audit_event::Column;
        let oldest = audit_event::Entity::find()
            .select_only()
            .column(Column::AuditEventId)
            .filter(Column::AuditEventId.lt(AuditEventId::floor_of(before)))
            .order_by_asc(Column::AuditEventId)
            .limit(limit)
            .into_query();
        let forgotten = audit_event::Entity::delete_many()
            .filter(Column::AuditEventId.in_subquery(oldest))
            .exec(&self.writer)
            .await
            .map_err(failed)?;
        Ok(forgotten.rows_affected)
    }
}

/// Appends an event, in the caller's transaction where that is one.
pub(super) async fn append<C: ConnectionTrait>(db: &C, entry: &AuditEntry<'_>) -> Result<()> {
    insert(row(entry)).exec_without_returning(db).await.map_err(failed)?;
    Ok(())
}

/// The statement that appends an event.
pub(super) fn insert(row: audit_event::ActiveModel) -> Insert<audit_event::ActiveModel> {
    audit_event::Entity::insert(row)
}

/// The statements that append events.
pub(super) fn insert_all(
    entries: Vec<AuditEntry<'_>>,
) -> impl Iterator<Item = InsertMany<audit_event::ActiveModel>> {
    let sizes = chunks(entries.len());
    let mut rows = entries.into_iter().map(|entry| row(&entry));
    sizes.into_iter().map(move |size| {
        let chunk: Vec<_> = rows.by_ref().take(size).collect();
        audit_event::Entity::insert_many(chunk)
    })
}

/// An event as it is stored, of this moment.
pub(super) fn row(entry: &AuditEntry<'_>) -> audit_event::ActiveModel {
    audit_event::ActiveModel {
        audit_event_id: Set(AuditEventId::generate().into()),
        organization_id: Set(owner(entry.organization_id).to_owned()),
        at: Set(Utc::now().trunc_subsecs(3)),
        api_key_id: Set(entry.api_key_id.map(ToString::to_string)),
        action: Set(entry.action.to_owned()),
        registry_id: Set(entry.registry_id.as_ref().map(ToString::to_string)),
        server_id: Set(entry.server_id.as_ref().map(ToString::to_string)),
        job_id: Set(entry.job_id.as_ref().map(ToString::to_string)),
        outcome: Set(entry.outcome.to_owned()),
        request_id: Set(entry.request_id.map(ToString::to_string)),
        source: Set(entry.source.map(|source| source.to_string())),
        count: Set(i32::try_from(entry.count).unwrap_or(i32::MAX)),
        subject_api_key_id: Set(entry.subject_api_key_id.as_ref().map(ToString::to_string)),
        subject_organization_id: Set(entry.subject_organization_id.as_ref().map(ToString::to_string)),
    }
}

/// As the column has it: empty for what belongs to no organization.
fn owner(organization: Option<&OrganizationId>) -> &str {
    organization.map(OrganizationId::as_str).unwrap_or_default()
}
