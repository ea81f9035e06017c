//! `registry.update`: what a change may be, and that none is lost.
//!
//! A secret goes only to where it was entered for, and only as safely as it was: whatever widens that
//! needs the password in the same call. A change is made of the entry as it was read, and only its own
//! fields are written; where another one came between, it is made anew of what that left.

use std::sync::Arc;

use purser_proto_schema::{
    patch::Patch,
    registry::{Registry, UpdateInput},
    secret::Secret,
};
use purser_registry_client::RegistryAddress;

use super::{
    fields, note_test, point_at, realm_allow, realm_allow_text, seal_password, test, truncate_times,
};
use super::{type_text, view};
use crate::{
    app::App,
    domain::{audit, caller::Call, names},
    error::{Error, Issues, Result},
    store::{RegistryRow, after, unchanged_since},
    vault::Vault,
};

/// How often a change is made anew before its caller is told to look.
const ATTEMPTS: u32 = 16;

/// `registry.update`
pub async fn update(app: Arc<App>, call: Arc<Call>, input: UpdateInput) -> Result<Registry> {
    let wants_test = test::wanted(&app, &call, input.test)?;
    let id = &input.registry_id;
    let first = app.store.registry_one(call.organization(), id).await?;
    call.about_registry(id);
    let site = test::Site::choose(&app, &call, input.server_id.as_deref()).await?;
    let mut before = Arc::clone(&first);
    for _ in 0..ATTEMPTS {
        unchanged_since("registry", before.updated_at, input.updated_at)?;
        // The password was entered for what was there.
        if matches!(input.password, Patch::Set(_)) && !leads_alike(&first, &before) {
            break;
        }
        let mut row = changed(&app.vault, &before, &input)?;
        let mut tested = forget_stale_test(&mut row, &before, input.password.is_change());
        if wants_test {
            let password = if let Patch::Set(password) = &input.password { Some(password) } else { None };
            let outcome = test::candidate(&app, &call, &site, &row, password).await?;
            note_test(&mut row, outcome);
            tested = true;
        }
        if app.store.registry_change(&before, row.clone(), tested, &call.audit_entry(audit::OK)).await? {
            call.mark_audited();
            return view(&row);
        }
        before = app.store.registry_one(call.organization(), id).await?;
    }
    Err(Error::Changed("registry"))
}

/// The entry with what the caller says put into it.
fn changed(vault: &Vault, before: &RegistryRow, input: &UpdateInput) -> Result<RegistryRow> {
    let mut row = before.clone();
    let mut issues = Issues::default();
    if let Some(name) = &input.registry_name {
        row.registry_name = names::check(&mut issues, "registryName", name);
    }
    if let Some(url) = &input.registry_url
        && let Some(address) = fields::address(&mut issues, url)
    {
        point_at(&mut row, url, address);
    }
    match &input.username {
        Patch::Keep => {}
        Patch::Clear => row.username = None,
        Patch::Set(name) => row.username = fields::username(&mut issues, Some(name)),
    }
    let has_password = match &input.password {
        Patch::Keep => before.sealed_password.is_some(),
        Patch::Clear => false,
        Patch::Set(_) => true,
    };
    fields::pair(&mut issues, row.username.is_some(), has_password);
    match &input.image_prefix {
        Patch::Keep => {}
        Patch::Clear => row.image_prefix = None,
        Patch::Set(prefix) => row.image_prefix = Some(prefix.clone()),
    }
    // Also one that stays: it may name the former host.
    row.image_prefix =
        fields::image_prefix(&mut issues, row.image_prefix.as_deref(), Some(&row.registry_host));
    match &input.ca_certificate {
        Patch::Keep => {}
        Patch::Clear => row.ca_certificate = None,
        Patch::Set(pem) => row.ca_certificate = fields::ca_certificate(&mut issues, Some(pem)),
    }
    row.insecure = input.insecure.unwrap_or(row.insecure);
    change_realm_allow(&mut issues, &mut row, &input.realm_allow)?;
    if before.sealed_password.is_some() && matches!(input.password, Patch::Keep) {
        keep_where_it_was_entered_for(&mut issues, before, &row)?;
    }
    issues.into_result(())?;
    if let Some(registry_type) = input.registry_type {
        row.registry_type = type_text(registry_type).to_owned();
    }
    row.is_default = input.is_default.unwrap_or(row.is_default);
    change_password(vault, &mut row, &input.password)?;
    row.updated_at = after(before.updated_at);
    truncate_times(&mut row);
    Ok(row)
}

/// Notes each way in which a stored secret could now go where it was not entered for.
fn keep_where_it_was_entered_for(issues: &mut Issues, before: &RegistryRow, row: &RegistryRow) -> Result<()> {
    let mut needed = |because| issues.add("password", because);
    if row.registry_host != before.registry_host || (is_plain(row) && !is_plain(before)) {
        needed(
            "is needed together with another host, or http://, in registryUrl: a secret goes only to the host \
             that it was entered for, and only as openly as it was entered for",
        );
    }
    if row.insecure && !before.insecure {
        needed(
            "is needed to turn insecure on: the secret would go to whoever answers in the registry's place",
        );
    }
    // Without one the system's authorities vouch alone, as they did beside it.
    if row.ca_certificate.is_some() && row.ca_certificate != before.ca_certificate {
        needed("is needed together with another caCertificate: it vouches for whom the secret is sent to");
    }
    let known = realm_allow(before)?;
    if realm_allow(row)?.iter().any(|host| !known.contains(host)) {
        needed("is needed together with another host in realmAllow: it decides where the secret may be sent");
    }
    Ok(())
}

/// Whether the URL asks for plain HTTP.
fn is_plain(row: &RegistryRow) -> bool {
    RegistryAddress::parse(&row.registry_url).is_ok_and(|address| address.plain_http)
}

/// Whether a secret goes the same way to the same place by either.
fn leads_alike(one: &RegistryRow, other: &RegistryRow) -> bool {
    one.registry_host == other.registry_host
        && is_plain(one) == is_plain(other)
        && one.insecure == other.insecure
        && one.ca_certificate == other.ca_certificate
        && one.realm_allow == other.realm_allow
}

/// Takes the last test from an entry that it says nothing of any more; true where it does not.
fn forget_stale_test(row: &mut RegistryRow, before: &RegistryRow, new_password: bool) -> bool {
    let stale = new_password || row.username != before.username || !leads_alike(row, before);
    if stale {
        row.last_test_at = None;
        row.last_test_ok = None;
        row.last_test_code = None;
        row.last_test_server_id = None;
    }
    stale
}

fn change_realm_allow(issues: &mut Issues, row: &mut RegistryRow, change: &Patch<Vec<String>>) -> Result<()> {
    let hosts = match change {
        Patch::Keep => return Ok(()),
        Patch::Clear => Vec::new(),
        Patch::Set(hosts) => fields::realm_allow(issues, Some(hosts)),
    };
    row.realm_allow = realm_allow_text(&hosts)?;
    Ok(())
}

fn change_password(vault: &Vault, row: &mut RegistryRow, change: &Patch<Secret>) -> Result<()> {
    match change {
        Patch::Keep => {}
        Patch::Clear => {
            row.sealed_password = None;
            row.credentials_updated_at = None;
        }
        Patch::Set(password) => seal_password(vault, row, password)?,
    }
    Ok(())
}
