//! `organization.*`: a key sees its own, and an instance-admin key all.

use std::sync::Arc;

use purser_proto_schema::{
    ids::OrganizationId,
    organization::{CreateInput, OneInput, Organization, UpdateInput},
    permission::Permission,
};

use super::{audit, caller::Call, names};
use crate::{
    app::App,
    error::{Error, Issues, Result},
    store::{AuditEntry, OrganizationRow},
};

/// `organization.create`
pub async fn create(app: Arc<App>, call: Arc<Call>, input: CreateInput) -> Result<Organization> {
    call.audit_in(None);
    let mut issues = Issues::default();
    let name = names::check(&mut issues, "name", &input.name);
    let row = OrganizationRow::named(issues.into_result(name)?);
    let made = view(row.clone());
    let event = AuditEntry {
        subject_organization_id: Some(made.organization_id.clone()),
        ..call.audit_entry(audit::OK)
    };
    app.store.organization_insert(row, &event).await.map_err(name_taken)?;
    call.mark_audited();
    Ok(made)
}

/// `organization.all`
pub async fn all(app: Arc<App>, call: Arc<Call>) -> Result<Vec<Organization>> {
    let rows = if call.caller.has(Permission::InstanceAdmin) {
        app.store.organization_all().await?
    } else {
        vec![app.store.organization_one(call.organization()).await?]
    };
    Ok(rows.into_iter().map(view).collect())
}

/// `organization.one`
pub async fn one(app: Arc<App>, call: Arc<Call>, input: OneInput) -> Result<Organization> {
    require_visible(&call, &input.organization_id)?;
    app.store.organization_one(&input.organization_id).await.map(view)
}

/// `organization.update`
pub async fn update(app: Arc<App>, call: Arc<Call>, input: UpdateInput) -> Result<Organization> {
    require_visible(&call, &input.organization_id)?;
    let mut issues = Issues::default();
    let name = input.name.as_deref().map(|name| names::check(&mut issues, "name", name));
    issues.into_result(())?;
    let id = &input.organization_id;
    let event = AuditEntry {
        organization_id: Some(id),
        subject_organization_id: Some(id.clone()),
        ..call.audit_entry(audit::OK)
    };
    let changed = app.store.organization_update(id, name, input.updated_at, &event).await;
    call.changed(&event, changed).map(view).map_err(name_taken)
}

/// NOT_FOUND for an organization that the caller's key does not see.
///
/// # Errors
/// [`Error::NotFound`], as for one that is not there.
pub fn require_visible(call: &Call, id: &OrganizationId) -> Result<()> {
    if id == call.organization() || call.caller.has(Permission::InstanceAdmin) {
        Ok(())
    } else {
        Err(Error::NotFound("Organization"))
    }
}

fn view(row: OrganizationRow) -> Organization {
    Organization {
        organization_id: OrganizationId::from_stored(row.organization_id),
        name: row.name,
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
    }
}

fn name_taken(error: Error) -> Error {
    match error {
        Error::Conflict(_) => Error::Conflict("another organization has this name".to_owned()),
        other => other,
    }
}
