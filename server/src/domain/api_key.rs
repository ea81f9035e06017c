//! `apiKey.*`: no key makes another that may do more, for longer, or with a wider rate limit than itself.

use std::sync::Arc;

use chrono::{SubsecRound, Utc};
use purser_proto_schema::{
    api_key::{ApiKey, CreateInput, CreatedApiKey, RateLimit, RemoveInput},
    ids::{ApiKeyId, OrganizationId},
    permission::{Permission, Role},
    time::Timestamp,
};
use secrecy::ExposeSecret;

use super::{
    audit,
    caller::{Call, Caller, generate_key, public_prefix, shown_prefix},
    names, organization, rate_limit,
};
use crate::{
    app::App,
    error::{Error, Issues, Result},
    secret_hash,
    store::{ApiKeyRow, AuditEntry},
};

/// `apiKey.create`
pub async fn create(app: Arc<App>, call: Arc<Call>, input: CreateInput) -> Result<CreatedApiKey> {
    let organization_id = match &input.organization_id {
        Some(id) => {
            organization::require_visible(&call, id)?;
            app.store.organization_one(id).await?.organization_id
        }
        None => call.organization().to_string(),
    };
    let maker = &call.caller;
    let mut issues = Issues::default();
    let name = names::check(&mut issues, "name", &input.name);
    let permissions = input.permissions.map(canonical);
    check_grants(&mut issues, input.role, permissions.as_deref());
    check_expiry(&mut issues, maker, input.expires_at);
    check_rate_limit(&mut issues, maker, input.rate_limit);
    issues.into_result(())?;
    grants(input.role, permissions.as_deref()).try_for_each(|permission| {
        if maker.has(permission) { Ok(()) } else { Err(Error::CannotGrant(permission)) }
    })?;
    let key = generate_key()?;
    let prefix = public_prefix(key.expose_secret());
    let row = ApiKeyRow {
        api_key_id: ApiKeyId::generate().into(),
        organization_id,
        name,
        hash: secret_hash::of_key(&prefix, key.expose_secret()),
        prefix,
        role: input.role.map(|role| role.as_str().to_owned()),
        permissions: permissions
            .as_ref()
            .map(serde_json::to_string)
            .transpose()
            .map_err(Error::internal("writing a key's permissions"))?,
        instance_admin: false,
        rate_limit_requests: input.rate_limit.and_then(|limit| limit.requests.try_into().ok()),
        rate_limit_window_seconds: input.rate_limit.and_then(|limit| limit.window_seconds.try_into().ok()),
        expires_at: input.expires_at.map(|at| at.to_utc().trunc_subsecs(3)),
        revoked_at: None,
        last_used_at: None,
        created_at: Utc::now().trunc_subsecs(3),
    };
    let made = view(row.clone())?;
    let event = AuditEntry {
        organization_id: Some(&made.organization_id),
        subject_api_key_id: Some(made.api_key_id.clone()),
        ..call.audit_entry(audit::OK)
    };
    app.store.api_key_insert(row, &event).await?;
    call.mark_audited();
    Ok(CreatedApiKey { api_key: made, key: key.into() })
}

/// `apiKey.all`
pub async fn all(app: Arc<App>, call: Arc<Call>) -> Result<Vec<ApiKey>> {
    app.store.api_key_all(call.organization()).await?.into_iter().map(view).collect()
}

/// `apiKey.remove`
pub async fn remove(app: Arc<App>, call: Arc<Call>, input: RemoveInput) -> Result<ApiKey> {
    let id = &input.api_key_id;
    let event = AuditEntry { subject_api_key_id: Some(id.clone()), ..call.audit_entry(audit::OK) };
    // What a key may do never changes, so this still holds when it is removed.
    let may = match is_instance_admin(&app.store.api_key_one(call.organization(), id).await?)? {
        true => call.caller.require(Permission::InstanceAdmin),
        false => Ok(()),
    };
    let removed = match may {
        Ok(()) => app.store.api_key_revoke(call.organization(), id, &event).await,
        Err(forbidden) => Err(forbidden),
    };
    let row = call.changed(&event, removed)?;
    app.known_keys.end(&input.api_key_id);
    view(row)
}

/// Whether only another of its kind may remove it: who may not have such a key made may not take it away either.
fn is_instance_admin(row: &ApiKeyRow) -> Result<bool> {
    let listed = row.permissions()?.is_some_and(|list| list.contains(&Permission::InstanceAdmin));
    Ok(row.instance_admin || listed)
}

/// Each once, in the order of [`Permission::ALL`].
fn canonical(mut permissions: Vec<Permission>) -> Vec<Permission> {
    permissions.sort_unstable();
    permissions.dedup();
    permissions
}

fn grants(role: Option<Role>, permissions: Option<&[Permission]>) -> impl Iterator<Item = Permission> {
    let granted = move |permission: &Permission| {
        role.is_some_and(|role| role.allows(*permission))
            || permissions.is_some_and(|list| list.contains(permission))
    };
    Permission::ALL.iter().copied().filter(granted)
}

fn check_grants(issues: &mut Issues, role: Option<Role>, permissions: Option<&[Permission]>) {
    match (role, permissions) {
        (Some(_), None) => {}
        (None, Some(list)) if !list.is_empty() => {}
        (None, Some(_)) => issues.add("permissions", "must name at least one permission"),
        (None, None) => issues.add("permissions", "must be given, or a role"),
        (Some(_), Some(_)) => issues.add("permissions", "must be left out where a role is given"),
    }
}

fn check_expiry(issues: &mut Issues, maker: &Caller, expires_at: Option<Timestamp>) {
    let expiry = expires_at.map(|at| at.to_utc());
    if expiry.is_some_and(|expiry| expiry <= Utc::now()) {
        issues.add("expiresAt", "must be in the future");
    }
    if let Some(bound) = maker.expires_at()
        && expiry.is_none_or(|expiry| expiry > bound)
    {
        issues.add("expiresAt", "must not be later than that of the key that makes it, which expires");
    }
}

fn check_rate_limit(issues: &mut Issues, maker: &Caller, limit: Option<RateLimit>) {
    if let Some(limit) = limit {
        rate_limit::check(issues, limit);
    }
    if let Some(bound) = maker.rate_limit()
        && limit.is_none_or(|limit| !rate_limit::is_within(limit, bound))
    {
        issues.add("rateLimit", "must not be wider than that of the key that makes it, which has one");
    }
}

/// A key as callers see it.
fn view(row: ApiKeyRow) -> Result<ApiKey> {
    Ok(ApiKey {
        role: row.role()?,
        permissions: row.permissions()?,
        rate_limit: row.rate_limit(),
        api_key_id: ApiKeyId::from_stored(row.api_key_id),
        name: row.name,
        prefix: shown_prefix(row.prefix),
        expires_at: row.expires_at.map(Into::into),
        last_used_at: row.last_used_at.map(Into::into),
        created_at: row.created_at.into(),
        organization_id: OrganizationId::from_stored(row.organization_id),
    })
}
