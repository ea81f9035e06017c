//! Audit events. There is a way to append and no way to change.

use chrono::Utc;
use purser_proto_schema::ids::{ApiKeyId, AuditEventId, JobId, OrganizationId, RegistryId, ServerId};
use sea_orm::{ActiveValue::Set, ConnectionTrait, EntityTrait, Insert};

use super::{Store, entity::audit_event, failed};
use crate::error::Result;

/// Who did what, to what, and how it ended.
#[derive(Clone, Debug)]
pub struct AuditEntry<'a> {
    /// In which organization.
    pub organization_id: &'a OrganizationId,
    /// Who; `None` for what the control plane or an agent does by itself.
    pub api_key_id: Option<&'a ApiKeyId>,
    /// The procedure, or `agent.enrolled`.
    pub action: &'a str,
    /// Which registry entry.
    pub registry_id: Option<RegistryId>,
    /// Which server.
    pub server_id: Option<ServerId>,
    /// Which job.
    pub job_id: Option<JobId>,
    /// `ok`, `accepted` for a job that ends later, or the error's code; of a browse that the registry refused, the
    /// diagnosis' code.
    pub outcome: &'a str,
}

impl Store {
    /// Appends an event.
    pub async fn audit_append(&self, entry: AuditEntry<'_>) -> Result<()> {
        append(&self.db, entry).await
    }
}

/// Appends an event, in the caller's transaction where that is one.
pub(super) async fn append<C: ConnectionTrait>(db: &C, entry: AuditEntry<'_>) -> Result<()> {
    insert(entry).exec_without_returning(db).await.map_err(failed)?;
    Ok(())
}

/// The statement that appends an event.
pub(super) fn insert(entry: AuditEntry<'_>) -> Insert<audit_event::ActiveModel> {
    audit_event::Entity::insert(audit_event::ActiveModel {
        audit_event_id: Set(AuditEventId::generate().into()),
        organization_id: Set(entry.organization_id.to_string()),
        at: Set(Utc::now()),
        api_key_id: Set(entry.api_key_id.map(ToString::to_string)),
        action: Set(entry.action.to_owned()),
        registry_id: Set(entry.registry_id.map(Into::into)),
        server_id: Set(entry.server_id.map(Into::into)),
        job_id: Set(entry.job_id.map(Into::into)),
        outcome: Set(entry.outcome.to_owned()),
    })
}
