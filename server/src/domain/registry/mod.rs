//! `registry.*`: entries and their credentials.

use std::sync::Arc;

use chrono::Utc;
use purser_proto_schema::{
    ids::{OrganizationId, RegistryId, ServerId},
    registry::{CreateInput, LastTest, OneInput, Registry, RegistryType, RemoveInput},
    secret::Secret,
};
use purser_registry_client::{RegistryAddress, RegistryKind};

use super::{audit, caller::Call, names};
use crate::{
    app::App,
    dispatch::plan,
    error::{Error, Issues, Result},
    store::{AuditEntry, RegistryRow},
    vault::{Seat, Vault},
};

mod browse;
mod catalog_cache;
mod events;
mod fields;
mod match_image;
mod search;
mod test;
mod update;

pub use browse::{catalog, manifest, presets, rate_limit, tags};
pub use catalog_cache::CatalogCache;
pub use events::events;
pub use match_image::{match_image, reason_among, taken_apart};
pub use search::search;
pub use test::{test_registry, test_registry_by_id};
pub use update::update;

/// All places for questions to registries are taken, and one more waited for its turn in vain.
const BUSY: Error = Error::Unavailable(
    "too many registries are being asked at once for one more to be asked; nothing was sent, and nothing is known of \
     the registry: try again in a moment",
);

/// `registry.create`
pub async fn create(app: Arc<App>, call: Arc<Call>, input: CreateInput) -> Result<Registry> {
    let wants_test = test::wanted(&app, &call, input.test)?;
    let site = test::Site::choose(&app, &call, input.server_id.as_deref()).await?;
    let mut issues = Issues::default();
    let registry_name = names::check(&mut issues, "registryName", &input.registry_name);
    let address = fields::address(&mut issues, &input.registry_url);
    let username = fields::username(&mut issues, input.username.as_deref());
    fields::pair(&mut issues, username.is_some(), input.password.is_some());
    let host = address.as_ref().map(|address| address.host.as_str());
    let image_prefix = fields::image_prefix(&mut issues, input.image_prefix.as_deref(), host);
    let ca_certificate = fields::ca_certificate(&mut issues, input.ca_certificate.as_deref());
    let realm_allow = fields::realm_allow(&mut issues, input.realm_allow.as_deref());
    let Some(address) = address else { return issues.into_result(()).and(Err(Error::NotFound("Registry"))) };
    let id = issues.into_result(RegistryId::generate())?;
    let kind = RegistryKind::of_host(&address.host);
    let now = Utc::now();
    let mut row = RegistryRow {
        registry_id: id.to_string(),
        organization_id: call.organization().to_string(),
        registry_name,
        registry_url: String::new(),
        registry_host: String::new(),
        namespace: None,
        username,
        sealed_password: None,
        credentials_updated_at: None,
        image_prefix,
        registry_type: type_text(input.registry_type.unwrap_or(kind.preset().registry_type)).to_owned(),
        is_default: input.is_default.unwrap_or_default(),
        insecure: input.insecure.unwrap_or_default(),
        ca_certificate,
        realm_allow: realm_allow_text(&realm_allow)?,
        last_test_at: None,
        last_test_ok: None,
        last_test_code: None,
        last_test_server_id: None,
        created_at: now,
        updated_at: now,
    };
    point_at(&mut row, &input.registry_url, address);
    call.about_registry(&id);
    if let Some(password) = &input.password {
        seal_password(&app.vault, &mut row, password)?;
    }
    truncate_times(&mut row);
    if wants_test {
        let tested = test::candidate(&app, &call, &site, &row, input.password.as_ref()).await?;
        note_test(&mut row, tested);
    }
    app.store.registry_insert(row.clone(), &call.audit_entry(audit::OK)).await?;
    call.mark_audited();
    view(&row)
}

/// `registry.all`
pub async fn all(app: Arc<App>, call: Arc<Call>) -> Result<Vec<Registry>> {
    app.store.registry_all(call.organization()).await?.iter().map(view).collect()
}

/// `registry.one`
pub async fn one(app: Arc<App>, call: Arc<Call>, input: OneInput) -> Result<Registry> {
    view(&*app.store.registry_one(call.organization(), &input.registry_id).await?)
}

/// `registry.remove`
pub async fn remove(app: Arc<App>, call: Arc<Call>, input: RemoveInput) -> Result<Registry> {
    let (id, force) = (&input.registry_id, input.force.unwrap_or_default());
    let event = AuditEntry { registry_id: Some(id.clone()), ..call.audit_entry(audit::OK) };
    let removed = app.store.registry_remove(call.organization(), id, force, &event).await;
    view(&call.changed(&event, removed)?)
}

fn point_at(row: &mut RegistryRow, url: &str, address: RegistryAddress) {
    row.registry_url = url.trim().to_owned();
    row.registry_host = address.host;
    row.namespace = address.namespace;
}

fn realm_allow(row: &RegistryRow) -> Result<Vec<String>> {
    serde_json::from_str(&row.realm_allow).map_err(Error::internal("reading an entry's realmAllow"))
}

fn realm_allow_text(hosts: &[String]) -> Result<String> {
    serde_json::to_string(hosts).map_err(Error::internal("writing an entry's realmAllow"))
}

fn seal_password(vault: &Vault, row: &mut RegistryRow, password: &Secret) -> Result<()> {
    let seat = Seat { organization: &row.organization_id, row: &row.registry_id, field: plan::PASSWORD };
    let sealed = vault
        .seal(seat, password.expose().as_bytes())
        .map_err(Error::internal("sealing a registry's password"))?;
    row.sealed_password = Some(sealed);
    row.credentials_updated_at = Some(Utc::now());
    Ok(())
}

/// Opens an entry's password, for a test from the control plane.
fn open_password(vault: &Vault, organization: &OrganizationId, row: &RegistryRow) -> Result<Option<Secret>> {
    let Some(sealed) = &row.sealed_password else { return Ok(None) };
    let seat = Seat { organization: organization.as_str(), row: &row.registry_id, field: plan::PASSWORD };
    let password = vault.open_text(seat, sealed).map_err(Error::internal("opening a registry's password"))?;
    Ok(Some(password.into()))
}

fn note_test(row: &mut RegistryRow, test: LastTest) {
    row.last_test_at = Some(test.at.to_utc());
    row.last_test_ok = Some(test.ok);
    row.last_test_code = test.code;
    row.last_test_server_id = test.server_id.map(Into::into);
}

/// To the millisecond, so that what is answered now is what is read later.
fn truncate_times(row: &mut RegistryRow) {
    use chrono::SubsecRound;
    row.created_at = row.created_at.trunc_subsecs(3);
    row.updated_at = row.updated_at.trunc_subsecs(3);
    row.credentials_updated_at = row.credentials_updated_at.map(|at| at.trunc_subsecs(3));
}

fn type_text(registry_type: RegistryType) -> &'static str {
    match registry_type {
        RegistryType::Cloud => "cloud",
        RegistryType::SelfHosted => "selfHosted",
    }
}

/// An entry as callers see it.
fn view(row: &RegistryRow) -> Result<Registry> {
    let registry_type = match row.registry_type.as_str() {
        "cloud" => RegistryType::Cloud,
        "selfHosted" => RegistryType::SelfHosted,
        _ => {
            return Err(Error::Internal { what: "reading a registry's type", source: "unknown type".into() });
        }
    };
    let last_test = row.last_test_at.zip(row.last_test_ok).map(|(at, ok)| LastTest {
        at: at.into(),
        ok,
        code: row.last_test_code.clone(),
        server_id: row.last_test_server_id.clone().map(ServerId::from_stored),
    });
    Ok(Registry {
        registry_id: RegistryId::from_stored(row.registry_id.clone()),
        registry_name: row.registry_name.clone(),
        registry_url: row.registry_url.clone(),
        registry_host: row.registry_host.clone(),
        namespace: row.namespace.clone(),
        username: row.username.clone(),
        image_prefix: row.image_prefix.clone(),
        registry_type,
        kind: RegistryKind::of_host(&row.registry_host),
        is_default: row.is_default,
        insecure: row.insecure,
        has_ca_certificate: row.ca_certificate.is_some(),
        realm_allow: realm_allow(row)?,
        has_credentials: row.sealed_password.is_some(),
        credentials_updated_at: row.credentials_updated_at.map(Into::into),
        last_test,
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
        organization_id: OrganizationId::from_stored(row.organization_id.clone()),
    })
}
