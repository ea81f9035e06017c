//! `image.*`: pulls, pushes, and what is on a host.

use std::sync::Arc;

use purser_proto_schema::{
    ids::RegistryId,
    image::{AllInput, Image, PullInput, PushInput},
    job::{Job, JobKind},
};
use purser_registry_client::Reference;
use serde_json::json;

use super::{
    caller::Call,
    job::{self, Accepted, FanOut, Limits, Request},
    matching, naming, server,
    targets::{self, Hosts, target},
};
use crate::{
    app::App,
    dispatch::plan::Work,
    error::{Error, Issues, Result},
};

/// `image.pull`
pub async fn pull(app: Arc<App>, call: Arc<Call>, input: PullInput) -> Result<Job> {
    let wait = input.wait;
    let accepted = accept_pull(&app, &call, input).await?;
    job::answer(&app, &call, accepted, wait).await
}

async fn accept_pull(app: &App, call: &Call, input: PullInput) -> Result<Accepted> {
    let mut issues = Issues::default();
    let reference = reference(&mut issues, &input.image);
    targets::check_platform(&mut issues, input.platform.as_deref());
    targets::check_auth(&mut issues, input.auth.as_ref(), input.registry_id.as_ref());
    let limits = Limits::asked(
        &mut issues,
        input.queue_timeout_seconds,
        input.stall_timeout_seconds,
        input.timeout_seconds,
    );
    let fan_out = FanOut::asked(&mut issues, input.max_parallel, input.fail_fast);
    let Some(reference) = issues.into_result(reference)? else { return Err(Error::NotFound("Image")) };
    // A one-time credential is for the registry that the image names, and that is Docker Hub where it
    // names none: it never follows the organization's default elsewhere.
    let reference = if input.auth.is_some() { reference.with_registry_written() } else { reference };
    let hosts = Hosts {
        one: input.server_id.as_ref(),
        several: input.server_ids.as_deref(),
        labels: input.labels.as_ref(),
    };
    let servers = hosts.chosen(app, call).await?;
    let entries = app.store.registry_all(call.organization()).await?;
    let named = match &input.registry_id {
        Some(id) => {
            let entry = matching::named(&entries, id)?;
            call.about_registry(id);
            Some(entry)
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
    let request = Request { kind: JobKind::Pull, asked, limits, fan_out, goes_on: false };
    job::accept(app, call, request, targets).await
}

/// `image.push`
pub async fn push(app: Arc<App>, call: Arc<Call>, input: PushInput) -> Result<Job> {
    let wait = input.wait;
    let accepted = accept_push(&app, &call, input).await?;
    job::answer(&app, &call, accepted, wait).await
}

async fn accept_push(app: &App, call: &Call, input: PushInput) -> Result<Accepted> {
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
    let request = Request { kind: JobKind::Push, asked, limits, fan_out: FanOut::default(), goes_on: false };
    job::accept(app, call, request, vec![target]).await
}

/// `image.all`
pub async fn all(app: Arc<App>, call: Arc<Call>, input: AllInput) -> Result<Vec<Image>> {
    let server = app.store.server_one(call.organization(), &input.server_id).await?;
    server::require_live(&server)?;
    app.dispatch.images(&server).await
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
