//! `server.*`: Docker hosts and how they join.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{SubsecRound, Utc};
use purser_proto_schema::{
    agent::{
        join_token::JoinToken,
        wire::{WireReader, WireWriter},
    },
    ids::{JoinTokenId, OrganizationId, ServerId},
    limits,
    patch::Patch,
    server::{CreateInput, JoinableServer, OneInput, Server, ServerStatus, UpdateInput},
    time::Timestamp,
};
use secrecy::ExposeSecret;

use super::{audit, caller::Call, names};
use crate::{
    app::App,
    error::{Error, Issues, Result},
    secret_hash,
    store::{AuditEntry, NewJoinToken, ServerRow},
};

/// How long a join token works.
const JOIN_TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);
const CLONED: &str = "several hosts use this server's key and keep superseding each other: the agent's state folder was \
     copied, by cloning a machine perhaps. Stop purser-agent on the copy, empty its state folder, and join it as a \
     server of its own (server.create). If you know of no copy, join this host anew from an empty state folder \
     (server.createJoinToken): the present key is refused from then on.";

/// A join token on its way to whoever asked: what is stored, and what is shown once.
struct Issued {
    stored: NewJoinToken,
    token: String,
    expires_at: Timestamp,
}

/// `server.create`
pub async fn create(app: Arc<App>, call: Arc<Call>, input: CreateInput) -> Result<JoinableServer> {
    let created = create_in(&app, call.organization(), input, call.audit_entry(audit::OK)).await?;
    call.mark_audited();
    Ok(created)
}

/// Makes a server in an organization: for a caller, or for the control plane's own host. The audit is told as in
/// `asked`.
pub async fn create_in(
    app: &App,
    organization: &OrganizationId,
    input: CreateInput,
    asked: AuditEntry<'_>,
) -> Result<JoinableServer> {
    let mut issues = Issues::default();
    let name = names::check(&mut issues, "name", &input.name);
    let description = check_description(&mut issues, input.description.as_deref());
    let labels = input.labels.unwrap_or_default();
    check_labels(&mut issues, &labels);
    issues.into_result(())?;
    let created_at = Utc::now().trunc_subsecs(3);
    let row = ServerRow {
        server_id: ServerId::generate().into(),
        organization_id: organization.to_string(),
        name,
        description,
        labels: labels_text(&labels)?,
        agent_key: None,
        agent_version: None,
        engine: None,
        session_epoch: 0,
        last_seen_at: None,
        revoked_at: None,
        holder: None,
        created_at,
        session_history: None,
        updated_at: created_at,
    };
    let id = ServerId::from_stored(row.server_id.clone());
    let issued = issue(app, &id)?;
    let event = AuditEntry { server_id: Some(id), ..asked };
    app.store.server_insert(row.clone(), issued.stored, &event).await.map_err(name_taken)?;
    joinable(app, row, issued.token, issued.expires_at)
}

/// `server.all`
pub async fn all(app: Arc<App>, call: Arc<Call>) -> Result<Vec<Server>> {
    app.store.server_all(call.organization()).await?.iter().map(|row| view(&app, row)).collect()
}

/// `server.one`
pub async fn one(app: Arc<App>, call: Arc<Call>, input: OneInput) -> Result<Server> {
    view(&app, &*app.store.server_one(call.organization(), &input.server_id).await?)
}

/// `server.update`
pub async fn update(app: Arc<App>, call: Arc<Call>, input: UpdateInput) -> Result<Server> {
    let mut issues = Issues::default();
    let name = input.name.as_deref().map(|name| names::check(&mut issues, "name", name));
    let description = match &input.description {
        Patch::Set(text) => check_description(&mut issues, Some(text)).map_or(Patch::Clear, Patch::Set),
        Patch::Clear => Patch::Clear,
        Patch::Keep => Patch::Keep,
    };
    let labels = match &input.labels {
        Patch::Set(labels) => {
            check_labels(&mut issues, labels);
            Some(labels_text(labels)?)
        }
        Patch::Clear => Some(labels_text(&BTreeMap::new())?),
        Patch::Keep => None,
    };
    issues.into_result(())?;
    let change = |row: &mut ServerRow| {
        row.name = name.unwrap_or_else(|| std::mem::take(&mut row.name));
        row.description = description.apply(row.description.take());
        row.labels = labels.unwrap_or_else(|| std::mem::take(&mut row.labels));
    };
    let (id, seen) = (&input.server_id, input.updated_at);
    let event = on_server(&call, id);
    let changed = app.store.server_describe(call.organization(), id, seen, &event, change).await;
    let row = call.changed(&event, changed).map_err(name_taken)?;
    view(&app, &row)
}

/// `server.remove`
pub async fn remove(app: Arc<App>, call: Arc<Call>, input: OneInput) -> Result<Server> {
    let event = on_server(&call, &input.server_id);
    let revoked = app.store.server_revoke(call.organization(), &input.server_id, &event).await;
    let (row, jobs) = call.changed(&event, revoked)?;
    app.dispatch.revoke(&input.server_id, jobs);
    view(&app, &row)
}

/// `server.createJoinToken`
pub async fn create_join_token(app: Arc<App>, call: Arc<Call>, input: OneInput) -> Result<JoinableServer> {
    let event = on_server(&call, &input.server_id);
    let joinable = create_join_token_in(&app, call.organization(), &input.server_id, &event).await;
    call.changed(&event, joinable)
}

/// A new join token for a server of an organization, of which `event` tells the audit.
pub async fn create_join_token_in(
    app: &App,
    organization: &OrganizationId,
    id: &ServerId,
    event: &AuditEntry<'_>,
) -> Result<JoinableServer> {
    // Found first, since a token can only be made for an id of this program's making.
    app.store.server_one(organization, id).await?;
    let issued = issue(app, id)?;
    let row = app.store.join_token_insert(organization, id, issued.stored, event).await?;
    joinable(app, row, issued.token, issued.expires_at)
}

/// The event of a call that changes a server.
fn on_server<'a>(call: &'a Call, id: &ServerId) -> AuditEntry<'a> {
    AuditEntry { server_id: Some(id.clone()), ..call.audit_entry(audit::OK) }
}

/// Serves an agent's socket until it ends.
pub async fn serve_agent<R: WireReader, W: WireWriter>(app: &App, reader: R, writer: W) {
    app.dispatch.serve(reader, writer).await;
}

/// NOT_FOUND for a server that was removed: nothing can be done on it any more.
pub fn require_live(row: &ServerRow) -> Result<()> {
    if row.revoked_at.is_some() { Err(Error::NotFound("Server")) } else { Ok(()) }
}

/// Whether a server has all of these labels.
pub fn has_labels(row: &ServerRow, wanted: &BTreeMap<String, String>) -> Result<bool> {
    let labels = labels_of(row)?;
    Ok(wanted.iter().all(|(key, value)| labels.get(key) == Some(value)))
}

fn issue(app: &App, id: &ServerId) -> Result<Issued> {
    let token = JoinToken::generate(id.clone(), app.dispatch.channel_key().fingerprint())
        .map_err(Error::internal("making a join token"))?;
    let text = token.encode().map_err(Error::internal("writing a join token"))?;
    let expires_at = Timestamp::now().after(JOIN_TOKEN_LIFE);
    Ok(Issued {
        stored: NewJoinToken {
            join_token_id: JoinTokenId::generate().into(),
            secret_hash: secret_hash::of_random(token.secret.expose()),
            expires_at: expires_at.to_utc(),
        },
        token: text.expose_secret().to_owned(),
        expires_at,
    })
}

fn joinable(app: &App, row: ServerRow, join_token: String, expires_at: Timestamp) -> Result<JoinableServer> {
    Ok(JoinableServer {
        server: view(app, &row)?,
        join_command: format!("PURSER_JOIN_TOKEN={join_token} purser-agent --server {}", app.agent_url),
        join_token,
        join_token_expires_at: expires_at,
    })
}

/// A server as callers see it.
fn view(app: &App, row: &ServerRow) -> Result<Server> {
    let server_id = ServerId::from_stored(row.server_id.clone());
    let status = if row.revoked_at.is_some() {
        ServerStatus::Revoked
    } else if app.dispatch.is_online(row) {
        ServerStatus::Online
    } else if row.agent_key.is_none() {
        ServerStatus::Pending
    } else {
        ServerStatus::Offline
    };
    let engine = row.engine.as_deref().map(serde_json::from_str).transpose();
    Ok(Server {
        status,
        labels: labels_of(row)?,
        warnings: warnings(row),
        engine: engine.map_err(Error::internal("reading a server's engine"))?,
        server_id,
        name: row.name.clone(),
        description: row.description.clone(),
        agent_version: row.agent_version.clone(),
        last_seen_at: row.last_seen_at.map(Into::into),
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
        organization_id: OrganizationId::from_stored(row.organization_id.clone()),
    })
}

/// What a person should do something about although it works.
fn warnings(row: &ServerRow) -> Vec<String> {
    let mut warnings = Vec::new();
    if row.revoked_at.is_none() && row.is_cloned() {
        warnings.push(CLONED.to_owned());
    }
    warnings
}

fn labels_of(row: &ServerRow) -> Result<BTreeMap<String, String>> {
    serde_json::from_str(&row.labels).map_err(Error::internal("reading a server's labels"))
}

fn labels_text(labels: &BTreeMap<String, String>) -> Result<String> {
    serde_json::to_string(labels).map_err(Error::internal("writing a server's labels"))
}

fn name_taken(error: Error) -> Error {
    match error {
        Error::Conflict(_) => Error::Conflict("another server of the organization has this name".to_owned()),
        other => other,
    }
}

fn check_description(issues: &mut Issues, text: Option<&str>) -> Option<String> {
    let text = text?;
    let length = text.chars().count();
    let text = text.trim();
    if length > limits::DESCRIPTION_CHARS {
        issues.add("description", "is longer than 1024 characters");
    } else if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        issues.add("description", "must not have control characters other than line breaks and tabs");
    }
    (!text.is_empty()).then(|| text.to_owned())
}

fn check_labels(issues: &mut Issues, labels: &BTreeMap<String, String>) {
    let bad_key = |key: &String| key.is_empty() || key.chars().count() > limits::LABEL_KEY_CHARS;
    if labels.len() > limits::LABELS {
        issues.add("labels", "are more than 64");
    }
    if labels.keys().any(bad_key) {
        issues.add("labels", "must have keys of 1 to 63 characters");
    }
    if labels.iter().any(|(key, value)| key.chars().chain(value.chars()).any(char::is_control)) {
        issues.add("labels", "must not have control characters");
    }
    if labels.values().any(|value| value.chars().count() > limits::LABEL_VALUE_CHARS) {
        issues.add("labels", "must have values of at most 255 characters");
    }
}
