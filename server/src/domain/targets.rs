//! The targets of pulls and pushes, for every procedure that makes some: on which hosts, with which
//! credential.

use std::collections::{BTreeMap, HashMap, HashSet};

use purser_proto_schema::{
    ids::{RegistryId, ServerId},
    image::OneTimeAuth,
    job::CredentialSource,
    limits::{ONE_TIME_USERNAME_CHARS, TARGETS},
    secret::Secret,
};

use super::{caller::Call, job::NewTarget, server};
use crate::{
    app::App,
    dispatch::plan::{self, Plan, PlannedRegistry, Work},
    error::{Error, Issues, Result},
    store::{RegistryRow, ServerRow},
};

/// What a platform is, for those who wrote something else.
pub const PLATFORM_RULE: &str = "must be os/architecture or os/architecture/variant, such as `linux/arm64`";

/// Whether a text is a platform.
pub fn is_platform(text: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty()
            && part.len() <= 32
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    (2..=3).contains(&text.split('/').count()) && text.split('/').all(word)
}

/// Notes a platform that is none.
pub fn check_platform(issues: &mut Issues, platform: Option<&str>) {
    if platform.is_some_and(|platform| !is_platform(platform)) {
        issues.add("platform", PLATFORM_RULE);
    }
}

/// Notes a one-time credential that cannot be sent, or not beside an entry.
pub fn check_auth(issues: &mut Issues, auth: Option<&OneTimeAuth>, registry: Option<&RegistryId>) {
    let Some(auth) = auth else { return };
    if registry.is_some() {
        issues.add("auth", "and registryId exclude each other");
    }
    let name = &auth.username;
    if name.trim().is_empty()
        || name.chars().count() > ONE_TIME_USERNAME_CHARS
        || name.contains(':')
        || name.chars().any(char::is_control)
    {
        issues.add("auth", "username must be 1 to 1024 characters without colon and control characters");
    }
}

/// The hosts that a call names, in one of three ways.
#[derive(Clone, Copy, Debug)]
pub struct Hosts<'a> {
    /// `serverId`
    pub one: Option<&'a ServerId>,
    /// `serverIds`
    pub several: Option<&'a [ServerId]>,
    /// `labels`
    pub labels: Option<&'a BTreeMap<String, String>>,
}

impl Hosts<'_> {
    /// Their rows, at least one, each once.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless exactly one way is used and names 1 to [`TARGETS`] servers;
    /// [`Error::NotFound`] for a server that is none of the organization's.
    pub async fn chosen(self, app: &App, call: &Call) -> Result<Vec<ServerRow>> {
        match (self.one, self.several, self.labels) {
            (Some(id), None, None) => named_servers(app, call, std::slice::from_ref(id)).await,
            (None, Some(ids), None) => {
                if ids.is_empty() || ids.len() > TARGETS {
                    return Err(Error::field("serverIds", "must name 1 to 10000 servers"));
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
                    1..=TARGETS => Ok(found),
                    _ => Err(Error::field("labels", "fit more than 10000 servers: choose more narrowly")),
                }
            }
            _ => Err(Error::field("serverId", "is needed: exactly one of serverId, serverIds and labels")),
        }
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
pub fn target(
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
