//! `image.*`: pulls, pushes, and what is on a host.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use purser_proto_schema::{
    ids::{RegistryId, ServerId},
    image::{AllInput, Image, OneTimeAuth, PullInput, PushInput},
    job::{CredentialSource, Job, JobKind},
    secret::Secret,
};
use purser_registry_client::Reference;
use serde_json::json;

use super::{
    caller::Call,
    job::{self, FanOut, Limits, NewTarget, Request},
    matching, naming, server,
};
use crate::{
    app::App,
    dispatch::plan::{self, Plan, PlannedRegistry, Work},
    error::{Error, Issues, Result},
    store::{RegistryRow, ServerRow},
};

const MAX_SERVERS: usize = 1_000;

/// `image.pull`
pub async fn pull(app: Arc<App>, call: Arc<Call>, input: PullInput) -> Result<Job> {
    let mut issues = Issues::default();
    let reference = reference(&mut issues, &input.image);
    check_platform(&mut issues, input.platform.as_deref());
    if input.auth.is_some() && input.registry_id.is_some() {
        issues.add("auth", "and registryId exclude each other");
    }
    check_one_time(&mut issues, input.auth.as_ref());
    let limits = Limits::asked(
        &mut issues,
        input.queue_timeout_seconds,
        input.stall_timeout_seconds,
        input.timeout_seconds,
    );
    if input.max_parallel.is_some_and(|limit| limit == 0 || limit as usize > MAX_SERVERS) {
        issues.add("maxParallel", "must be from 1 to 1000");
    }
    let fan_out = FanOut { max_parallel: input.max_parallel, fail_fast: input.fail_fast.unwrap_or_default() };
    let Some(reference) = issues.into_result(reference)? else { return Err(Error::NotFound("Image")) };
    // A one-time credential is for the registry that the image names, and that is Docker Hub where it
    // names none: it never follows the organization's default elsewhere.
    let reference = if input.auth.is_some() { reference.with_registry_written() } else { reference };
    let servers = chosen_servers(&app, &call, &input).await?;
    let entries = app.store.registry_all(call.organization()).await?;
    let named = match &input.registry_id {
        Some(id) => {
            call.about_registry(id);
            Some(matching::named(&entries, id)?)
        }
        None => None,
    };
    let found = matching::resolve(&entries, reference, named)?;
    if let Some(entry) = found.entry {
        call.about_registry(&RegistryId::from_stored(entry.registry_id.clone()));
    }
    let image = found.reference.to_string();
    let asked = json!({
        "image": input.image,
        "serverIds": servers.iter().map(|server| &server.server_id).collect::<Vec<_>>(),
        "registryId": input.registry_id,
        "platform": input.platform,
        "oneTimeAuth": input.auth.is_some(),
        "labels": input.labels,
        "maxParallel": input.max_parallel,
        "failFast": fan_out.fail_fast,
        "queueTimeoutSeconds": limits.queue.as_secs(),
        "stallTimeoutSeconds": limits.stall.as_secs(),
        "timeoutSeconds": limits.run.as_secs(),
    });
    let one_time = input.auth.map(|auth| (auth.username, auth.password));
    let targets = servers
        .into_iter()
        .map(|server| {
            let work = Work::Pull { image: image.clone(), platform: input.platform.clone() };
            target(&server, image.clone(), work, found.entry, found.reference.registry(), one_time.clone())
        })
        .collect();
    let request = Request { kind: JobKind::Pull, asked, limits, fan_out };
    let accepted = job::accept(&app, &call, request, targets).await?;
    job::answer(&app, &call, accepted, input.wait).await
}

/// `image.push`
pub async fn push(app: Arc<App>, call: Arc<Call>, input: PushInput) -> Result<Job> {
    let mut issues = Issues::default();
    let source = reference(&mut issues, &input.image);
    let limits = Limits::asked(
        &mut issues,
        input.queue_timeout_seconds,
        input.stall_timeout_seconds,
        input.timeout_seconds,
    );
    let Some(source) = issues.into_result(source)? else { return Err(Error::NotFound("Image")) };
    let server = app.store.server_one(call.organization(), &input.server_id).await?;
    call.about_server(&input.server_id);
    server::require_live(&server)?;
    let entry = app.store.registry_one(call.organization(), &input.registry_id).await?;
    call.about_registry(&input.registry_id);
    let name = naming::push_target(&entry, &source, input.repository.as_deref(), input.tag.as_deref())?;
    let asked = json!({
        "image": input.image,
        "serverId": input.server_id,
        "registryId": input.registry_id,
        "repository": input.repository,
        "tag": input.tag,
        "queueTimeoutSeconds": limits.queue.as_secs(),
        "stallTimeoutSeconds": limits.stall.as_secs(),
        "timeoutSeconds": limits.run.as_secs(),
    });
    let work = Work::Push { source: source.familiar(), target: name.to_string() };
    let target = target(&server, name.to_string(), work, Some(&entry), name.registry(), None);
    let request = Request { kind: JobKind::Push, asked, limits, fan_out: FanOut::default() };
    let accepted = job::accept(&app, &call, request, vec![target]).await?;
    job::answer(&app, &call, accepted, input.wait).await
}

/// `image.all`
pub async fn all(app: Arc<App>, call: Arc<Call>, input: AllInput) -> Result<Vec<Image>> {
    let server = app.store.server_one(call.organization(), &input.server_id).await?;
    server::require_live(&server)?;
    app.dispatch.images(&input.server_id, &server.name).await
}

fn reference(issues: &mut Issues, text: &str) -> Option<Reference> {
    match Reference::parse(text) {
        Ok(reference) => Some(reference),
        Err(error) => {
            issues.add("image", error.to_string());
            None
        }
    }
}

fn check_platform(issues: &mut Issues, platform: Option<&str>) {
    let Some(platform) = platform else { return };
    let parts: Vec<&str> = platform.split('/').collect();
    let word = |part: &&str| {
        !part.is_empty()
            && part.len() <= 32
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if !(2..=3).contains(&parts.len()) || !parts.iter().all(word) {
        issues.add("platform", "must be os/architecture or os/architecture/variant, such as `linux/arm64`");
    }
}

fn check_one_time(issues: &mut Issues, auth: Option<&OneTimeAuth>) {
    let Some(auth) = auth else { return };
    let name = &auth.username;
    if name.trim().is_empty()
        || name.len() > 1_024
        || name.contains(':')
        || name.chars().any(char::is_control)
    {
        issues.add("auth", "username must be 1 to 1024 bytes without colon and control characters");
    }
}

async fn chosen_servers(app: &App, call: &Call, input: &PullInput) -> Result<Vec<ServerRow>> {
    match (&input.server_id, &input.server_ids, &input.labels) {
        (Some(id), None, None) => named_servers(app, call, std::slice::from_ref(id)).await,
        (None, Some(ids), None) => {
            if ids.is_empty() || ids.len() > MAX_SERVERS {
                return Err(Error::field("serverIds", "must name 1 to 1000 servers"));
            }
            named_servers(app, call, ids).await
        }
        (None, None, Some(labels)) => {
            if labels.is_empty() {
                return Err(Error::field("labels", "must not be empty: it would mean every server"));
            }
            let mut found = Vec::new();
            for row in app.store.server_all(call.organization()).await? {
                if server::has_labels(&row, labels)? {
                    found.push(row);
                }
            }
            match found.len() {
                0 => Err(Error::field("labels", "fit no server: server.all shows the labels of each")),
                1..=MAX_SERVERS => Ok(found),
                _ => Err(Error::field("labels", "fit more than 1000 servers: choose more narrowly")),
            }
        }
        _ => Err(Error::field("serverId", "is needed: exactly one of serverId, serverIds and labels")),
    }
}

/// The named servers, each once, in the order of their first mention.
async fn named_servers(app: &App, call: &Call, ids: &[ServerId]) -> Result<Vec<ServerRow>> {
    let mut rows = Vec::with_capacity(ids.len());
    if let [id] = ids {
        let row = app.store.server_one(call.organization(), id).await?;
        server::require_live(&row)?;
        rows.push(ServerRow::clone(&row));
    } else {
        let all = app.store.server_all(call.organization()).await?;
        let mut by_id: HashMap<String, ServerRow> =
            all.into_iter().map(|row| (row.server_id.clone(), row)).collect();
        let mut seen = HashSet::new();
        for id in ids.iter().filter(|id| seen.insert(*id)) {
            rows.push(by_id.remove(id.as_str()).ok_or(Error::NotFound("Server"))?);
        }
    }
    if let Some(first) = ids.first() {
        call.about_server(first);
    }
    Ok(rows)
}

/// One server's part: with the one-time credential, else with the entry's, else with none.
fn target(
    server: &ServerRow,
    image: String,
    work: Work,
    entry: Option<&RegistryRow>,
    registry: &str,
    one_time: Option<(String, Secret)>,
) -> NewTarget {
    let registry = match entry {
        Some(entry) => plan::planned(entry),
        None => PlannedRegistry {
            address: registry.to_owned(),
            insecure: false,
            ca_certificate: None,
            realm_allow: Vec::new(),
        },
    };
    let credentials = match (&one_time, entry) {
        (Some(_), _) => CredentialSource::OneTime,
        (None, Some(entry)) if entry.sealed_password.is_some() => CredentialSource::Entry,
        (None, _) => CredentialSource::Anonymous,
    };
    NewTarget {
        server_id: ServerId::from_stored(server.server_id.clone()),
        image: Some(image),
        plan: Plan { work, registry },
        // With a one-time credential the entry only lends its address and trust.
        registry_id: entry.filter(|_| one_time.is_none()).map(|entry| entry.registry_id.clone()),
        credentials,
        one_time,
    }
}
