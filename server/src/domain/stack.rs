//! `stack.*`: the images of a Compose file, seen and pulled.
//!
//! The file and the variables live as long as the call. A job keeps the names of the images and of the
//! services without one, and nothing else of it.

use std::sync::Arc;

use purser_proto_schema::{
    ids::RegistryId,
    job::{Job, JobKind},
    limits,
    stack::{ComposeFile, ImagesInput, PullInput, StackImages, Variables},
};
use serde_json::json;

mod compose;
mod interpolation;
mod pulls;

use super::{
    caller::Call,
    job::{self, Accepted, FanOut, Limits, Request},
    matching,
    targets::{self, Hosts},
};
use crate::{
    app::App,
    error::{Error, Issues, Result},
};
use compose::Stack;

/// `stack.images`
pub async fn images(app: Arc<App>, call: Arc<Call>, input: ImagesInput) -> Result<StackImages> {
    let profiles = checked(input.profiles, Issues::default())?;
    let entries = app.store.registry_all(call.organization()).await?;
    let named = input.registry_id.as_ref().map(|id| matching::named(&entries, id)).transpose()?;
    let Stack { wanted, skipped } = read(input.compose_file, input.variables, profiles).await?;
    let pulls = pulls::of(&entries, named, wanted, None)?;
    let images = pulls.into_iter().map(|pull| pull.shown(&entries)).collect();
    Ok(StackImages { images, skipped })
}

/// `stack.pull`
pub async fn pull(app: Arc<App>, call: Arc<Call>, input: PullInput) -> Result<Job> {
    let wait = input.wait;
    let accepted = accept_pull(&app, &call, input).await?;
    job::answer(&app, &call, accepted, wait).await
}

async fn accept_pull(app: &App, call: &Call, input: PullInput) -> Result<Accepted> {
    let mut issues = Issues::default();
    targets::check_platform(&mut issues, input.platform.as_deref());
    targets::check_auth(&mut issues, input.auth.as_ref(), input.registry_id.as_ref());
    let limits = Limits::asked(
        &mut issues,
        input.queue_timeout_seconds,
        input.stall_timeout_seconds,
        input.timeout_seconds,
    );
    let fan_out = FanOut::asked(&mut issues, input.max_parallel, input.fail_fast);
    let profiles = checked(input.profiles, issues)?;
    let hosts = Hosts {
        one: input.server_id.as_ref(),
        several: input.server_ids.as_deref(),
        labels: input.labels.as_ref(),
    };
    let servers = hosts.chosen(app, call).await?;
    let entries = app.store.registry_all(call.organization()).await?;
    let named = input.registry_id.as_ref().map(|id| matching::named(&entries, id)).transpose()?;
    let mut stack = read(input.compose_file, input.variables, profiles.clone()).await?;
    if input.auth.is_some() {
        stack.write_registries();
    }
    let pulls = pulls::of(&entries, named, stack.wanted, input.platform.as_deref())?;
    pulls::check(&pulls, servers.len(), input.auth.is_some())?;
    if let Some(entry) = pulls.iter().find_map(|pull| pull.found.entry) {
        call.about_registry(&RegistryId::from_stored(entry.registry_id.clone()));
    }
    let asked = json!({
        "images": pulls.iter().map(|pull| &pull.image).collect::<Vec<_>>(),
        "skipped": stack.skipped,
        "profiles": profiles,
        "serverIds": servers.iter().map(|server| &server.server_id).collect::<Vec<_>>(),
        "registryId": input.registry_id,
        "platform": input.platform,
        "oneTimeAuth": input.auth.is_some(),
        "labels": input.labels,
        "maxParallel": fan_out.max_parallel,
        "failFast": fan_out.fail_fast,
        "queueTimeoutSeconds": limits.queue.as_secs(),
        "stallTimeoutSeconds": limits.stall.as_secs(),
        "timeoutSeconds": limits.run.as_secs(),
    });
    let one_time = input.auth.map(|auth| (auth.username, auth.password));
    let each = servers.iter().flat_map(|server| pulls.iter().map(move |pull| (server, pull)));
    let targets = each.map(|(server, pull)| pull.target(server, one_time.clone())).collect();
    let request = Request { kind: JobKind::StackPull, asked, limits, fan_out, goes_on: false };
    job::accept(app, call, request, targets).await
}

/// The profiles of a call, after what was noted of it until now.
fn checked(profiles: Option<Vec<String>>, mut issues: Issues) -> Result<Vec<String>> {
    let profiles = profiles.unwrap_or_default();
    if profiles.len() > limits::PROFILES {
        issues.add("profiles", "must be at most 100");
    }
    if !profiles.iter().all(|profile| compose::is_profile(profile)) {
        issues.add("profiles", "must be names of letters, digits, `.`, `_` and `-`, or `*` for all");
    }
    issues.into_result(profiles)
}

/// Reads a file, where it keeps no other call waiting.
async fn read(file: ComposeFile, variables: Option<Variables>, profiles: Vec<String>) -> Result<Stack> {
    let reading = tokio::task::spawn_blocking(move || {
        compose::read(file.expose(), &variables.unwrap_or_default(), &profiles)
    });
    Ok(reading.await.map_err(Error::internal("reading a Compose file"))??)
}
