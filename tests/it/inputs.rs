//! Every procedure with the fields of its input: what the tests of walls and of bad input go through.
//!
//! Written down here and not derived from the program. [`every_procedure_is_listed`] fails when the
//! program has one that is not here, so a new procedure gets these tests by its row.

use std::collections::BTreeSet;

use purser_proto_schema::procedure;
use purser_tests::Client;
use serde_json::{Value, json};

/// What a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    Flag,
    Registry,
    Server,
    /// A server, or the control plane.
    Site,
    Servers,
    Job,
    Labels,
    OneTime,
    /// Of a list: 1 to 100.
    Count,
    /// From 1 to more than a list has.
    Number,
    Access,
    Choice,
    /// Hosts, with or without a port.
    Hosts,
    /// Names of profiles.
    Profiles,
    Organization,
    ApiKey,
    /// A moment.
    Time,
    Permissions,
    RateLimit,
}

/// A field of an input.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub form: Form,
    pub required: bool,
}

/// A procedure as its callers see it.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub name: &'static str,
    pub permission: &'static str,
    pub fields: &'static [Field],
}

const fn must(name: &'static str, form: Form) -> Field {
    Field { name, form, required: true }
}

const fn may(name: &'static str, form: Form) -> Field {
    Field { name, form, required: false }
}

const fn call(name: &'static str, permission: &'static str, fields: &'static [Field]) -> Call {
    Call { name, permission, fields }
}

use Form::{
    Access, ApiKey, Choice, Count, Flag, Hosts, Job, Labels, Number, OneTime, Organization, Permissions,
    Profiles, RateLimit, Registry, Server, Servers, Site, Text, Time,
};

/// The procedure table, from API.md.
pub const CALLS: &[Call] = &[
    call(
        "registry.create",
        "registry:write",
        &[
            must("registryName", Text),
            must("registryUrl", Text),
            may("username", Text),
            may("password", Text),
            may("registryType", Choice),
            may("imagePrefix", Text),
            may("isDefault", Flag),
            may("insecure", Flag),
            may("caCertificate", Text),
            may("realmAllow", Hosts),
            may("serverId", Site),
            may("test", Flag),
        ],
    ),
    call("registry.all", "registry:read", &[]),
    call("registry.one", "registry:read", &[must("registryId", Registry)]),
    call(
        "registry.update",
        "registry:write",
        &[
            must("registryId", Registry),
            may("registryName", Text),
            may("registryUrl", Text),
            may("username", Text),
            may("password", Text),
            may("registryType", Choice),
            may("imagePrefix", Text),
            may("isDefault", Flag),
            may("insecure", Flag),
            may("caCertificate", Text),
            may("realmAllow", Hosts),
            may("serverId", Site),
            may("test", Flag),
            may("updatedAt", Time),
        ],
    ),
    call("registry.remove", "registry:delete", &[must("registryId", Registry), may("force", Flag)]),
    call(
        "registry.testRegistry",
        "registry:test",
        &[
            must("registryUrl", Text),
            may("username", Text),
            may("password", Text),
            may("registryType", Choice),
            may("registryName", Text),
            may("imagePrefix", Text),
            may("insecure", Flag),
            may("caCertificate", Text),
            may("realmAllow", Hosts),
            may("repository", Text),
            may("access", Access),
            may("serverId", Site),
        ],
    ),
    call(
        "registry.testRegistryById",
        "registry:test",
        &[
            must("registryId", Registry),
            may("serverId", Site),
            may("repository", Text),
            may("access", Access),
        ],
    ),
    call("registry.match", "registry:read", &[must("image", Text)]),
    call(
        "registry.catalog",
        "registry:read",
        &[must("registryId", Registry), may("cursor", Text), may("limit", Count), may("refresh", Flag)],
    ),
    call(
        "registry.tags",
        "registry:read",
        &[must("registryId", Registry), must("repository", Text), may("cursor", Text), may("limit", Count)],
    ),
    call(
        "registry.search",
        "registry:read",
        &[must("query", Text), may("registryId", Registry), may("limit", Count)],
    ),
    call(
        "registry.manifest",
        "registry:read",
        &[may("image", Text), may("registryId", Registry), may("repository", Text), may("reference", Text)],
    ),
    call("registry.rateLimit", "registry:read", &[must("registryId", Registry)]),
    call("registry.presets", "registry:read", &[]),
    call(
        "server.create",
        "server:write",
        &[must("name", Text), may("description", Text), may("labels", Labels)],
    ),
    call("server.all", "server:read", &[]),
    call("server.one", "server:read", &[must("serverId", Server)]),
    call(
        "server.update",
        "server:write",
        &[
            must("serverId", Server),
            may("name", Text),
            may("description", Text),
            may("labels", Labels),
            may("updatedAt", Time),
        ],
    ),
    call("server.remove", "server:delete", &[must("serverId", Server)]),
    call("server.createJoinToken", "server:write", &[must("serverId", Server)]),
    call(
        "image.pull",
        "image:pull",
        &[
            must("image", Text),
            may("serverId", Server),
            may("serverIds", Servers),
            may("labels", Labels),
            may("registryId", Registry),
            may("auth", OneTime),
            may("platform", Text),
            may("maxParallel", Number),
            may("failFast", Flag),
            may("queueTimeoutSeconds", Number),
            may("stallTimeoutSeconds", Number),
            may("timeoutSeconds", Number),
            may("wait", Flag),
        ],
    ),
    call(
        "image.push",
        "image:push",
        &[
            must("image", Text),
            must("serverId", Server),
            must("registryId", Registry),
            may("repository", Text),
            may("tag", Text),
            may("queueTimeoutSeconds", Number),
            may("stallTimeoutSeconds", Number),
            may("timeoutSeconds", Number),
            may("wait", Flag),
        ],
    ),
    call("image.all", "image:read", &[must("serverId", Server)]),
    call(
        "stack.images",
        "registry:read",
        &[
            must("composeFile", Text),
            may("variables", Labels),
            may("profiles", Profiles),
            may("registryId", Registry),
        ],
    ),
    call(
        "stack.pull",
        "image:pull",
        &[
            must("composeFile", Text),
            may("variables", Labels),
            may("profiles", Profiles),
            may("serverId", Server),
            may("serverIds", Servers),
            may("labels", Labels),
            may("registryId", Registry),
            may("auth", OneTime),
            may("platform", Text),
            may("maxParallel", Number),
            may("failFast", Flag),
            may("queueTimeoutSeconds", Number),
            may("stallTimeoutSeconds", Number),
            may("timeoutSeconds", Number),
            may("wait", Flag),
        ],
    ),
    call("job.one", "job:read", &[must("jobId", Job)]),
    call(
        "job.all",
        "job:read",
        &[
            may("limit", Count),
            may("cursor", Text),
            may("status", Choice),
            may("kind", Choice),
            may("serverId", Server),
        ],
    ),
    call("job.cancel", "job:write", &[must("jobId", Job)]),
    call("job.retry", "job:write", &[must("jobId", Job)]),
    call("organization.create", "instance:admin", &[must("name", Text)]),
    call("organization.all", "organization:read", &[]),
    call("organization.one", "organization:read", &[must("organizationId", Organization)]),
    call(
        "organization.update",
        "organization:write",
        &[must("organizationId", Organization), may("name", Text), may("updatedAt", Time)],
    ),
    call(
        "apiKey.create",
        "apiKey:write",
        &[
            must("name", Text),
            may("role", Choice),
            may("permissions", Permissions),
            may("expiresAt", Time),
            may("rateLimit", RateLimit),
            may("organizationId", Organization),
        ],
    ),
    call("apiKey.all", "apiKey:read", &[]),
    call("apiKey.remove", "apiKey:delete", &[must("apiKeyId", ApiKey)]),
    call(
        "audit.all",
        "audit:read",
        &[
            may("limit", Count),
            may("cursor", Text),
            may("registryId", Registry),
            may("serverId", Server),
            may("apiKeyId", ApiKey),
            may("jobId", Job),
            may("subjectApiKeyId", ApiKey),
            may("subjectOrganizationId", Organization),
            may("action", Text),
            may("outcome", Text),
            may("from", Time),
            may("to", Time),
            may("instance", Flag),
        ],
    ),
];

/// Those that are called on doors that go on answering: `job_watch.rs` asks of them what is asked of
/// [`CALLS`] elsewhere.
pub const SUBSCRIPTIONS: &[Call] = &[
    call("job.watch", "job:read", &[must("jobId", Job), may("lastEventId", Text)]),
    call("registry.events", "registry:read", &[may("lastEventId", Text)]),
];

/// Things of one organization, made by [`Things::make`].
#[derive(Clone, Debug)]
pub struct Things {
    pub registry: String,
    pub server: String,
    pub job: String,
    pub organization: String,
    pub api_key: String,
}

impl Things {
    /// One of each. The job waits for an agent that never joins.
    pub async fn make(client: &Client, name: &str) -> Self {
        let id = |row: Value, field: &str| row[field].as_str().unwrap().to_owned();
        let server = json!({"name": name, "labels": {"of": name}});
        let server = id(client.mutate("server.create", server).await, "serverId");
        let entry =
            json!({"registryName": name, "registryUrl": "127.0.0.1:1", "username": "u", "password": "p"});
        let entry = client.mutate("registry.create", entry).await;
        let (organization, registry) = (id(entry.clone(), "organizationId"), id(entry, "registryId"));
        let pull = json!({"image": "127.0.0.1:1/app", "serverId": server});
        let job = id(client.mutate("image.pull", pull).await, "jobId");
        let api_key = json!({"name": name, "permissions": ["apiKey:write"]});
        let api_key = id(client.mutate("apiKey.create", api_key).await, "apiKeyId");
        Self { registry, server, job, organization, api_key }
    }

    /// The input of a call on these things that has nothing wrong with it.
    pub fn input(&self, call: &Call) -> Value {
        let mut input = json!({});
        for field in call.fields.iter().filter(|field| field.required) {
            input[field.name] = match field.form {
                Form::Registry => json!(self.registry),
                Form::Server => json!(self.server),
                Form::Job => json!(self.job),
                Form::Organization => json!(self.organization),
                Form::ApiKey => json!(self.api_key),
                _ => match field.name {
                    "registryUrl" => json!("127.0.0.1:1"),
                    "image" => json!("127.0.0.1:1/app:v1"),
                    "composeFile" => json!("services: {app: {image: '127.0.0.1:1/app:v1'}}"),
                    _ => json!(purser_tests::unique("name")),
                },
            };
        }
        // One of several is needed.
        match call.name {
            "image.pull" | "stack.pull" => input["serverId"] = json!(self.server),
            // No more than a key has that may only create keys.
            "apiKey.create" => input["permissions"] = json!(["apiKey:write"]),
            "registry.manifest" => input["image"] = json!("127.0.0.1:1/app:v1"),
            _ => {}
        }
        input
    }
}

#[test]
fn every_procedure_is_listed() {
    let here: BTreeSet<_> =
        CALLS.iter().chain(SUBSCRIPTIONS).map(|call| (call.name, call.permission)).collect();
    let table: BTreeSet<_> = procedure::table().map(|info| (info.name, info.permission.as_str())).collect();
    assert_eq!(here, table, "tests/it/inputs.rs lists every procedure and its permission");
}
