//! Every procedure × every kind of key × every door: each cell has the code that it must have.
//!
//! The procedures and what they need at least are in [`inputs`](crate::inputs), where one that is missing
//! fails the suite; a door is one line of [`DOORS`] and one arm of [`Door::ask`], and what a procedure answers to
//! who may call it is in [`served`].

use std::collections::BTreeSet;

use http::Method;
use purser_proto_schema::{
    permission::{Permission, Role},
    procedure::{self, Kind},
};
use purser_tests::{Answer, Client, Purser, RpcSocket, percent, tenant::Grant};
use serde_json::{Value, json};

use crate::{
    answers::registry,
    inputs::{CALLS, Call, SUBSCRIPTIONS, Things},
};

/// A way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    TrpcGet,
    TrpcPost,
    TrpcBatch,
    /// A batch that is answered line by line.
    TrpcLines,
    /// Subscriptions by SSE.
    TrpcEvents,
    /// Those of who cannot send headers.
    TrpcEventsByParams,
    Plain,
    PlainGet,
    /// `audit.all` as a file.
    Export,
    RpcPost,
    RpcBatch,
    RpcSocket,
}

const DOORS: &[Door] = &[
    Door::TrpcGet,
    Door::TrpcPost,
    Door::TrpcBatch,
    Door::TrpcLines,
    Door::TrpcEvents,
    Door::TrpcEventsByParams,
    Door::Plain,
    Door::PlainGet,
    Door::Export,
    Door::RpcPost,
    Door::RpcBatch,
    Door::RpcSocket,
];

const JSON: (&str, &str) = ("content-type", "application/json");
const LINES: (&str, &str) = ("trpc-accept", "application/jsonl");
const UNAUTHORIZED: &str = "UNAUTHORIZED";
const FORBIDDEN: &str = "FORBIDDEN";
const NOT_FOUND: &str = "NOT_FOUND";
/// With a diagnosis: the input was right.
const NOT_REACHED: &str = "BAD_REQUEST";

/// What a call is answered with: its code, empty for a result, and all that was said.
struct Said {
    code: String,
    text: String,
}

impl Said {
    /// Of a tRPC or JSON-RPC envelope.
    fn by(envelope: &Value) -> Self {
        let code = match envelope.get("error") {
            Some(error) => error["data"]["code"].as_str().unwrap_or_else(|| panic!("{envelope}")),
            None => {
                assert!(envelope.get("result").is_some(), "{envelope}");
                ""
            }
        };
        Self { code: code.to_owned(), text: envelope.to_string() }
    }

    /// Of an answer whose status says whether it is an error.
    fn plainly(answer: &Answer) -> Self {
        let code = match answer.status.is_success() {
            true => String::new(),
            false => answer.json()["code"].as_str().unwrap().to_owned(),
        };
        Self { code, text: answer.text() }
    }

    fn of_nobody() -> Self {
        Self { code: UNAUTHORIZED.into(), text: String::new() }
    }
}

impl Door {
    /// Whether this procedure is called here.
    fn serves(self, call: &Call) -> bool {
        match self {
            Self::TrpcGet | Self::PlainGet => kind(call) == Kind::Query,
            Self::TrpcPost
            | Self::TrpcBatch
            | Self::TrpcLines
            | Self::Plain
            | Self::RpcPost
            | Self::RpcBatch => kind(call) != Kind::Subscription,
            Self::TrpcEvents | Self::TrpcEventsByParams => kind(call) == Kind::Subscription,
            Self::Export => call.name == "audit.all",
            Self::RpcSocket => true,
        }
    }

    async fn ask(
        self,
        (client, maker): (&Client, &Client),
        socket: &mut Socket,
        call: &Call,
        input: &Value,
    ) -> Said {
        let name = call.name;
        match self {
            Self::TrpcGet => Said::by(&client.trpc_query(name, input).await.json()),
            Self::TrpcPost => Said::by(&client.trpc_mutation(name, input).await.json()),
            Self::TrpcBatch => Said::by(&trpc_batch(client, name, input, &[JSON]).await.json()[1]),
            Self::TrpcLines => line(&trpc_batch(client, name, input, &[JSON, LINES]).await),
            Self::TrpcEvents => events(client, call, input, "", [client, maker]).await,
            Self::TrpcEventsByParams => {
                let params = client.key().map_or_else(|| json!({}), |key| json!({"x-api-key": key}));
                let params = format!("&connectionParams={}", percent::encode(&params.to_string()));
                events(&client.without_key(), call, input, &params, [client, maker]).await
            }
            Self::Plain => Said::plainly(&client.post(&format!("/api/{name}"), input).await),
            Self::PlainGet => Said::plainly(&client.get(&format!("/api/{name}?{}", query(input))).await),
            Self::Export => Said::plainly(&client.get(&format!("/api/audit.jsonl?{}", query(input))).await),
            Self::RpcPost => Said::by(&client.rpc(name, input).await.json()),
            Self::RpcBatch => {
                let call = |id: u8, method: &str, params: &Value| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
                let batch = json!([call(0, BESIDE, &json!({})), call(1, name, input)]);
                Said::by(&client.post("/rpc", &batch).await.json()[1])
            }
            Self::RpcSocket => socket.ask(client, call, input).await,
        }
    }
}

/// What stands before a call in its batch: nothing that is there.
const BESIDE: &str = "no.such";

async fn trpc_batch(client: &Client, name: &str, input: &Value, headers: &[(&str, &str)]) -> Answer {
    let (path, body) = (format!("/api/trpc/{BESIDE},{name}?batch=1"), json!({"1": input}).to_string());
    client.send(Method::POST, &path, headers, body).await.unwrap()
}

/// The line of the second call.
fn line(answer: &Answer) -> Said {
    let text = answer.text();
    let lines = text.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut of_call = lines.filter(|line| line[0] == 1);
    let (line, none) = (of_call.next().unwrap(), of_call.next());
    assert_eq!(none, None, "{text}");
    Said::by(&line[2][0][0])
}

/// Fields as parameters.
fn query(input: &Value) -> String {
    let pair =
        |(name, value): (&String, &Value)| format!("{name}={}", percent::encode(value.as_str().unwrap()));
    input.as_object().unwrap().iter().map(pair).collect::<Vec<_>>().join("&")
}

/// What a subscription by SSE tells: `connected`, and then an error or an event.
async fn events(client: &Client, call: &Call, input: &Value, more: &str, others: [&Client; 2]) -> Said {
    let path = format!("/api/trpc/{}?input={}{more}", call.name, percent::encode(&input.to_string()));
    let mut stream = client.stream(Method::GET, &path, &[("accept", "text/event-stream")], "").await;
    let first = stream.event().await.expect("an event");
    assert_eq!(first.event, "connected", "{first:?}");
    // Only who is served has an id to come back with; of this it hears when something happens.
    if call.name == "registry.events" && first.id.is_some() {
        for other in others {
            other.trpc_mutation("registry.create", &registry(&purser_tests::unique("told"))).await;
        }
    }
    let told = stream.told().await.unwrap_or_else(|| panic!("{} told nothing", call.name));
    match told.event.as_str() {
        "message" => Said { code: String::new(), text: told.data },
        "serialized-error" => Said::by(&json!({"error": told.json()})),
        _ => panic!("{told:?}"),
    }
}

/// A socket of one key; it is opened when it is first needed, and refused where the key is.
#[derive(Default)]
struct Socket(Option<RpcSocket>);

impl Socket {
    async fn ask(&mut self, client: &Client, call: &Call, input: &Value) -> Said {
        if self.0.is_none() {
            match client.websocket().await {
                Ok(socket) => self.0 = Some(socket),
                Err(said) if said.contains("401") => return Said::of_nobody(),
                Err(said) => panic!("{said}"),
            }
        }
        let socket = self.0.as_mut().unwrap();
        let answer = socket.call(call.name, input.clone()).await.unwrap();
        if kind(call) == Kind::Subscription && answer.get("error").is_none() {
            let subscription = answer["result"].as_u64().unwrap_or_else(|| panic!("{answer}"));
            let end = call.name.replacen('.', ".un", 1);
            socket.call(&end, json!({"subscription": subscription})).await.unwrap();
        }
        Said::by(&answer)
    }
}

fn kind(call: &Call) -> Kind {
    procedure::table().find(|info| info.name == call.name).unwrap().kind
}

/// The code for who may call it: mostly none. Nothing listens where the registry should be, the server never joins,
/// and its job has no target that failed.
fn served(call: &Call) -> &'static str {
    match call.name {
        "registry.testRegistry"
        | "registry.testRegistryById"
        | "registry.catalog"
        | "registry.tags"
        | "registry.search"
        | "registry.manifest" => NOT_REACHED,
        "registry.rateLimit" => "NOT_IMPLEMENTED",
        "image.all" => "PRECONDITION_FAILED",
        "job.retry" => "CONFLICT",
        _ => "",
    }
}

/// What a call used up, for those after it.
async fn renew(maker: &Client, call: &Call, things: &mut Things) {
    let is_used_up = ["registry.remove", "server.remove", "apiKey.remove"].contains(&call.name);
    if is_used_up {
        *things = Things::make(maker, &purser_tests::unique("renewed")).await;
    }
}

fn all_calls() -> impl Iterator<Item = &'static Call> {
    CALLS.iter().chain(SUBSCRIPTIONS)
}

/// Walks every procedure with one key by every door, and gives all that was said; each cell must have its code.
async fn walk(
    purser: &Purser,
    maker: &Client,
    who: &str,
    client: &Client,
    expected: impl Fn(&Call) -> &'static str,
) -> Vec<(&'static str, Door, String)> {
    let mut things = Things::make(maker, &purser_tests::unique("of")).await;
    let mut socket = Socket::default();
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    for call in all_calls() {
        for door in DOORS.iter().copied().filter(|door| door.serves(call)) {
            let mut input = things.input(call);
            match call.name {
                "registry.remove" => input["force"] = json!(true),
                // Else it asks Docker Hub.
                "registry.search" => input["registryId"] = json!(things.registry),
                _ => {}
            }
            let Said { code, text } = door.ask((client, maker), &mut socket, call, &input).await;
            if code.is_empty() {
                renew(maker, call, &mut things).await;
            }
            let expected = expected(call);
            if code != expected || code == NOT_REACHED && !text.contains("\"diagnosis\"") {
                wrong.push(format!("{who}: {} by {door:?}: {code:?}, expected {expected:?}", call.name));
            }
            all.push((call.name, door, text));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", purser.url(), wrong.join("\n"));
    all
}

#[tokio::test]
async fn without_a_valid_key_every_procedure_is_unauthorized() {
    let purser = Purser::start().await;
    let (maker, organization) = (purser.client(), purser.default_organization());
    let wrong = |key: &str| purser.anonymous().with_key(key);
    let key = purser.admin_key();
    let (prefix, secret) = key.split_at("purser_0123456789abcdef".len());
    for (who, client) in [
        ("no key", purser.anonymous()),
        ("unknown key", wrong("purser_0123456789abcdef_unknown")),
        ("wrong secret", wrong(&format!("{prefix}_{}", "A".repeat(secret.len() - 1)))),
        ("expired", purser.key_in(&organization, Grant::Expired)),
        ("revoked", purser.key_in(&organization, Grant::Revoked)),
    ] {
        walk(&purser, &maker, who, &client, |_| UNAUTHORIZED).await;
    }
}

/// What a call needs.
fn permissions(call: &Call) -> Vec<Permission> {
    let mut needed = vec![serde_json::from_value(call.permission.into()).unwrap()];
    if call.name == "job.retry" {
        // Whoever does it again does it.
        needed.push(Permission::ImagePull);
    }
    needed
}

/// A procedure is served where `has` says that what it needs is there, and FORBIDDEN otherwise.
fn by_permission(has: impl Fn(Permission) -> bool) -> impl Fn(&Call) -> &'static str {
    move |call| match permissions(call).into_iter().all(&has) {
        true => served(call),
        false => FORBIDDEN,
    }
}

#[tokio::test]
async fn a_role_is_served_what_it_has_and_forbidden_the_rest() {
    let purser = Purser::start().await;
    let (maker, organization) = (purser.client(), purser.default_organization());
    for role in Role::ALL {
        let client = purser.key_in(&organization, Grant::Role(role.as_str()));
        walk(&purser, &maker, role.as_str(), &client, by_permission(|wanted| role.allows(wanted))).await;
    }
    walk(&purser, &maker, "instance admin", &maker, served).await;
}

#[tokio::test]
async fn a_single_permission_is_served_its_procedures_and_no_other() {
    let purser = Purser::start().await;
    let (maker, organization) = (purser.client(), purser.default_organization());
    for one in Permission::ALL {
        let client = purser.key_in(&organization, Grant::Permissions(&[one.as_str()]));
        walk(&purser, &maker, one.as_str(), &client, by_permission(|wanted| wanted == *one)).await;
    }
}

#[tokio::test]
async fn of_another_organization_nothing_is_found() {
    let purser = Purser::start().await;
    let maker = purser.client();
    let foreign = purser.key_in(&purser.organization("foreign"), Grant::Role("admin"));
    let names_something = |call: &Call| {
        use crate::inputs::Form::{ApiKey, Job, Organization, Registry, Server};
        let is_id = |form| matches!(form, Registry | Server | Job | Organization | ApiKey);
        call.fields.iter().any(|field| field.required && is_id(field.form))
            || ["image.pull", "stack.pull", "registry.search"].contains(&call.name)
    };
    let said = walk(&purser, &maker, "foreign admin", &foreign, |call| match call.permission {
        "instance:admin" => FORBIDDEN,
        _ if names_something(call) => NOT_FOUND,
        _ => served(call),
    })
    .await;
    let mut ids = BTreeSet::from([purser.default_organization()]);
    for list in ["registry.all", "server.all", "job.all", "apiKey.all", "audit.all"] {
        gather(&maker.query(list, Value::Null).await, &mut ids);
    }
    // What a prefix of an id is no part of.
    assert!(ids.len() > 8 && ids.iter().all(|id| id.len() > 16), "{ids:?}");
    for (name, door, text) in said {
        let told = ids.iter().find(|id| text.contains(*id));
        assert_eq!(told, None, "{name} by {door:?}: {text}");
    }
}

/// The ids in an answer.
fn gather(value: &Value, ids: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value.as_str().filter(|_| name.ends_with("Id")) {
                    Some(id) => drop(ids.insert(id.to_owned())),
                    None => gather(value, ids),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, ids)),
        _ => {}
    }
}
