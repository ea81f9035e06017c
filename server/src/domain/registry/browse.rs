//! `registry.catalog`, `tags`, `manifest`, `rateLimit` and `presets`: looking into a registry, seen from
//! the control plane. Of the database they only read, but that a credential was used is audited like every
//! use: where the registry was asked with it, and not where an answer was remembered.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use purser_proto_schema::{
    error::{Code, TestDiagnosis},
    ids::{OrganizationId, RegistryId},
    registry::{CatalogInput, Manifest, ManifestInput, RateLimitInput, TagsInput},
};
use purser_registry_client::{
    Busy, Credentials, Diagnosis, DiagnosisCode, Preset, Reference, RegistryAddress, RegistryKind, Session,
    Target,
    browse::{BrowseError, MAX_ITEMS, Page, RateLimit},
    canonical_registry_host,
};

use super::{BUSY, catalog_cache::Key, open_password};
use crate::{
    app::App,
    dispatch::plan,
    domain::{audit, caller::Call, matching},
    error::{Error, Issues, Result},
    store::RegistryRow,
    vault::Vault,
};

/// How long one call may ask a registry.
pub(super) const DEADLINE: Duration = Duration::from_secs(15);

/// `registry.catalog`
pub async fn catalog(app: Arc<App>, call: Arc<Call>, input: CatalogInput) -> Result<Page> {
    let limit = limit(input.limit, MAX_ITEMS)?;
    let row = app.store.registry_one(call.organization(), &input.registry_id).await?;
    let key = Key::new(&row, input.cursor.as_deref(), limit);
    let refresh = input.refresh.unwrap_or_default();
    if !refresh && let Some(page) = app.catalogs.get(&key).await {
        return Ok(Page::clone(&page));
    }
    let place = Place::of_entry(&app.vault, call.organization(), &row)?;
    let read = place.ask(&app, &call, DEADLINE, move |session| {
        Box::pin(async move {
            let page = session.catalog(input.cursor.as_deref(), limit).await?;
            Ok(with_warnings(page, session))
        })
    });
    let page = if refresh {
        app.catalogs.replace(key, read.await.map_err(refused)?).await
    } else {
        app.catalogs.get_or_read(key, read).await.map_err(refused)?
    };
    Ok(Page::clone(&page))
}

/// `registry.tags`
pub async fn tags(app: Arc<App>, call: Arc<Call>, input: TagsInput) -> Result<Page> {
    let limit = limit(input.limit, MAX_ITEMS)?;
    let row = app.store.registry_one(call.organization(), &input.registry_id).await?;
    let place = Place::of_entry(&app.vault, call.organization(), &row)?;
    let read = place.ask(&app, &call, DEADLINE, move |session| {
        Box::pin(async move {
            let page = session.tags(&input.repository, input.cursor.as_deref(), limit).await?;
            Ok(with_warnings(page, session))
        })
    });
    read.await.map_err(refused)
}

/// `registry.manifest`
pub async fn manifest(app: Arc<App>, call: Arc<Call>, input: ManifestInput) -> Result<Manifest> {
    let Wanted { place, repository, version } = wanted(&app, &call, input).await?;
    let registry_id = place.entry.clone();
    let read = place.ask(&app, &call, DEADLINE, move |session| {
        Box::pin(async move {
            let mut image = session.manifest(&repository, &version).await?;
            image.warnings.extend_from_slice(session.warnings());
            Ok(image)
        })
    });
    Ok(Manifest { registry_id, image: read.await.map_err(refused)? })
}

/// `registry.rateLimit`
pub async fn rate_limit(app: Arc<App>, call: Arc<Call>, input: RateLimitInput) -> Result<RateLimit> {
    let row = app.store.registry_one(call.organization(), &input.registry_id).await?;
    let place = Place::of_entry(&app.vault, call.organization(), &row)?;
    let read = place.ask(&app, &call, DEADLINE, |session| Box::pin(session.rate_limit()));
    read.await.map_err(refused)
}

/// `registry.presets`
#[allow(clippy::unused_async, reason = "every procedure's handler is asynchronous")]
pub async fn presets() -> Result<Vec<Preset>> {
    Ok(purser_registry_client::presets().to_vec())
}

/// A registry, and as whom it is asked.
pub(super) struct Place {
    /// None: without credentials.
    entry: Option<RegistryId>,
    target: Target,
    credentials: Option<Credentials>,
}

impl Place {
    /// As a stored entry says, within its namespace. Opens its password.
    pub(super) fn of_entry(vault: &Vault, organization: &OrganizationId, row: &RegistryRow) -> Result<Self> {
        let mut target = plan::planned(row).target()?;
        target.address.namespace.clone_from(&row.namespace);
        let password = open_password(vault, organization, row)?;
        let credentials = row
            .username
            .clone()
            .zip(password)
            .map(|(username, password)| Credentials { username, password: password.into_inner() });
        Ok(Self { entry: Some(RegistryId::from_stored(row.registry_id.clone())), target, credentials })
    }

    /// Asks, and notes where the entry's credential was used for it. In a task of its own: a caller that
    /// hangs up must not keep that out of the audit.
    pub(super) async fn ask<T, F>(
        self,
        app: &Arc<App>,
        call: &Arc<Call>,
        deadline: Duration,
        question: F,
    ) -> std::result::Result<T, BrowseError>
    where
        T: Send + 'static,
        F: for<'s> FnOnce(&'s mut Session<'_>) -> BoxFuture<'s, std::result::Result<T, BrowseError>>
            + Send
            + 'static,
    {
        let unattended = app.unattended.clone();
        let (app, call) = (Arc::clone(app), Arc::clone(call));
        let asking = async move {
            let (organization, credentials) = (call.organization(), self.credentials.as_ref());
            let opening = app.registries.open(organization, &self.target, credentials, deadline);
            let (mut session, _place) = app.unattended.ask(opening).await.ok_or_else(stopping)??;
            let answer = app.unattended.ask(question(&mut session)).await;
            let answer = answer.unwrap_or_else(|| Err(stopping()));
            if let Some(entry) = self.entry.filter(|_| session.has_used_credentials()) {
                audit::record_use(&app, &call, entry, answer.as_ref().map_or_else(code, |_| audit::OK)).await;
            }
            answer
        };
        unattended.spawn(asking).await.unwrap_or_else(|ended| match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(stopping()),
        })
    }
}

fn stopping() -> BrowseError {
    let advice = "Ask again in a moment.";
    BrowseError::Failed(Diagnosis::new(DiagnosisCode::Other, "the control plane is stopping", advice))
}

/// How the audit calls a refusal.
fn code(error: &BrowseError) -> &'static str {
    match error {
        BrowseError::Failed(diagnosis) => diagnosis.code.as_str(),
        BrowseError::NotSupported { .. } => Code::NotImplemented.as_str(),
        BrowseError::Busy(_) => Code::ServiceUnavailable.as_str(),
        _ => Code::BadRequest.as_str(),
    }
}

/// Which image `registry.manifest` is about.
struct Wanted {
    place: Place,
    repository: String,
    version: String,
}

async fn wanted(app: &App, call: &Call, input: ManifestInput) -> Result<Wanted> {
    let Some(image) = &input.image else {
        let (Some(id), Some(repository)) = (input.registry_id, input.repository) else {
            return Err(Error::field("image", "is needed, or registryId with repository"));
        };
        let row = app.store.registry_one(call.organization(), &id).await?;
        let place = Place::of_entry(&app.vault, call.organization(), &row)?;
        let version = input.reference.unwrap_or_else(|| "latest".to_owned());
        return Ok(Wanted { place, repository, version });
    };
    let mut issues = Issues::default();
    for (field, given) in [("repository", &input.repository), ("reference", &input.reference)] {
        if given.is_some() {
            issues.add(field, "is a part of image: give one or the other");
        }
    }
    issues.into_result(())?;
    let reference = Reference::parse(image).map_err(|error| Error::field("image", error.to_string()))?;
    let entries = app.store.registry_all(call.organization()).await?;
    let named = input.registry_id.as_ref().map(|id| matching::named(&entries, id)).transpose()?;
    let found = matching::resolve(&entries, reference, named)?;
    let place = match found.entry {
        Some(row) => {
            let mut place = Place::of_entry(&app.vault, call.organization(), row)?;
            // A pull does not mind the namespace of an entry that the call names.
            place.target.address.namespace = None;
            place
        }
        None => Place { entry: None, target: public(found.reference.registry())?, credentials: None },
    };
    Ok(Wanted {
        place,
        repository: found.reference.repository().to_owned(),
        version: found.reference.version().to_owned(),
    })
}

/// A registry that no entry is for. Only those that everybody knows are asked: whoever may merely look at
/// entries does not choose what else the control plane dials.
fn public(host: &str) -> Result<Target> {
    let host = canonical_registry_host(host);
    if RegistryKind::of_host(&host) == RegistryKind::Other {
        return Err(Error::field(
            "image",
            "is kept at a registry that the organization has no entry for: store one first, which needs no \
             credentials where the registry is open",
        ));
    }
    RegistryAddress::parse(&host).map(Target::new).map_err(|error| Error::field("image", error.to_string()))
}

/// How many items a call wants.
pub(super) fn limit(limit: Option<u32>, default: usize) -> Result<usize> {
    let limit = limit.map_or(default, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    if (1..=MAX_ITEMS).contains(&limit) { Ok(limit) } else { Err(Error::field("limit", "must be 1 to 100")) }
}

/// Why a registry could not be read, as an error of the call.
pub(super) fn refused(error: BrowseError) -> Error {
    match error {
        BrowseError::NotSupported { message, advice } => Error::NotSupported { message, advice },
        BrowseError::Busy(Busy) => BUSY,
        BrowseError::Failed(diagnosis) => {
            Error::TestFailed(Box::new(TestDiagnosis { diagnosis, steps: Vec::new() }))
        }
        BrowseError::Cursor => Error::field("cursor", error.to_string()),
        BrowseError::Repository | BrowseError::OutsideNamespace { .. } => {
            Error::field("repository", error.to_string())
        }
        BrowseError::Version => Error::field("reference", error.to_string()),
        BrowseError::Query => Error::field("query", error.to_string()),
        // The enum may grow with its crate.
        other => Error::internal("reading from a registry")(other),
    }
}

/// A page with what the session has to say of the registry.
fn with_warnings(mut page: Page, session: &Session<'_>) -> Page {
    page.warnings.extend_from_slice(session.warnings());
    page
}
