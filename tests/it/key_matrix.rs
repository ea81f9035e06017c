//! Every procedure × every kind of key × every door: each cell has the code that it must have.
//!
//! The procedures and what they need at least are in [`inputs`](crate::inputs), where one that is missing
//! fails the suite; a door is one line of [`DOORS`] and one arm of [`Door::ask`].

use std::time::Duration;

use purser_proto_schema::{
    permission::{Permission, Role},
    procedure::{self, Kind},
};
use purser_tests::{Answer, Client, Purser, RpcSocket, percent, tenant::Grant};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::inputs::{CALLS, Call, SUBSCRIPTIONS, Things};

/// A way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    TrpcGet,
    TrpcPost,
    /// Subscriptions by SSE.
    TrpcEvents,
    Plain,
    RpcPost,
    RpcSocket,
}

/// How long the refusal of a subscription may take that follows its first event.
const MOMENT: Duration = Duration::from_millis(500);

const DOORS: &[Door] =
    &[Door::TrpcGet, Door::TrpcPost, Door::TrpcEvents, Door::Plain, Door::RpcPost, Door::RpcSocket];

/// What is asked of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// This code.
    Code(&'static str),
    /// Anything but a refusal of the key or of an id.
    Served,
}

impl Door {
    /// Whether this kind of procedure is called here.
    fn serves(self, call: &Call) -> bool {
        match self {
            Self::TrpcGet => kind(call) == Kind::Query,
            Self::TrpcPost | Self::Plain | Self::RpcPost => kind(call) != Kind::Subscription,
            Self::TrpcEvents => kind(call) == Kind::Subscription,
            Self::RpcSocket => true,
        }
    }

    /// The code that a call is answered with; empty for a result.
    async fn ask(self, client: &Client, socket: &mut Socket, call: &Call, input: &Value) -> String {
        match self {
            Self::TrpcGet => code(client.trpc_query(call.name, input).await),
            Self::TrpcPost => code(client.trpc_mutation(call.name, input).await),
            Self::TrpcEvents => first_event(client, call, input).await,
            Self::Plain => plain_code(client.post(&format!("/api/{}", call.name), input).await),
            Self::RpcPost => code(client.rpc(call.name, input).await),
            Self::RpcSocket => socket.ask(client, call, input).await,
        }
    }
}

fn code(answer: Answer) -> String {
    code_of(&answer.json())
}

fn plain_code(answer: Answer) -> String {
    if answer.status.is_success() {
        String::new()
    } else {
        answer.json()["code"].as_str().unwrap().to_owned()
    }
}

/// What a subscription by SSE says first: an error, or anything else within a moment in which it would have.
async fn first_event(client: &Client, call: &Call, input: &Value) -> String {
    let path = format!("/api/trpc/{}?input={}", call.name, percent::encode(&input.to_string()));
    let mut events = client.subscribe(&path, &[("accept", "text/event-stream")]).await;
    match timeout(MOMENT, events.event()).await {
        Ok(Some(event)) if event.event == "serialized-error" => {
            let error: Value = serde_json::from_str(&event.data).unwrap();
            error["data"]["code"].as_str().unwrap().to_owned()
        }
        _ => String::new(),
    }
}

fn code_of(envelope: &Value) -> String {
    match envelope.get("error") {
        Some(error) => error["data"]["code"].as_str().unwrap_or_else(|| panic!("{envelope}")).to_owned(),
        None => String::new(),
    }
}

/// A socket of one key; it is opened when it is first needed, and refused where the key is.
#[derive(Default)]
struct Socket(Option<RpcSocket>);

impl Socket {
    async fn ask(&mut self, client: &Client, call: &Call, input: &Value) -> String {
        if self.0.is_none() {
            match client.websocket().await {
                Ok(socket) => self.0 = Some(socket),
                Err(said) if said.contains("401") => return "UNAUTHORIZED".into(),
                Err(said) => panic!("{said}"),
            }
        }
        let socket = self.0.as_mut().unwrap();
        let answer = socket.call(call.name, input.clone()).await.unwrap();
        if let Some(subscription) = answer["result"].as_u64().filter(|_| kind(call) == Kind::Subscription) {
            let end = call.name.replacen('.', ".un", 1);
            socket.call(&end, json!({"subscription": subscription})).await.unwrap();
        }
        code_of(&answer)
    }
}

fn kind(call: &Call) -> Kind {
    procedure::table().find(|info| info.name == call.name).unwrap().kind
}

/// What a call used up, for those after it.
async fn renew(maker: &Client, call: &Call, things: &mut Things) {
    let is_used_up = ["registry.remove", "server.remove", "apiKey.remove"].contains(&call.name);
    if is_used_up {
        *things = Things::make(maker, &purser_tests::unique("renewed")).await;
    }
}

/// Asks one procedure by every door, and says which cells are wrong.
async fn row(
    who: &str,
    client: &Client,
    socket: &mut Socket,
    (maker, things): (&Client, &mut Things),
    call: &Call,
    expected: Expected,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for door in DOORS.iter().filter(|door| door.serves(call)) {
        let mut input = things.input(call);
        if call.name == "registry.remove" {
            input["force"] = json!(true);
        }
        let said = door.ask(client, socket, call, &input).await;
        if said.is_empty() {
            renew(maker, call, things).await;
        }
        let right = match expected {
            Expected::Code(code) => said == code,
            Expected::Served => !["UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND"].contains(&said.as_str()),
        };
        if !right {
            wrong.push(format!("{who}: {} by {door:?}: {said:?}, expected {expected:?}", call.name));
        }
    }
    wrong
}

fn all_calls() -> impl Iterator<Item = &'static Call> {
    CALLS.iter().chain(SUBSCRIPTIONS)
}

/// Walks every procedure with one key.
async fn walk(
    purser: &Purser,
    maker: &Client,
    who: &str,
    client: &Client,
    expected: impl Fn(&Call) -> Expected,
) {
    let mut things = Things::make(maker, &purser_tests::unique("of")).await;
    let mut socket = Socket::default();
    let mut wrong = Vec::new();
    for call in all_calls() {
        let cell = expected(call);
        wrong.extend(row(who, client, &mut socket, (maker, &mut things), call, cell).await);
    }
    assert!(wrong.is_empty(), "{}\n{}", purser.url(), wrong.join("\n"));
}

#[tokio::test]
async fn without_a_valid_key_every_procedure_is_unauthorized() {
    let purser = Purser::start().await;
    let (maker, organization) = (purser.client(), purser.default_organization());
    let wrong = purser.anonymous().with_key("purser_0123456789abcdef_unknown");
    for (who, client) in [
        ("no key", purser.anonymous()),
        ("wrong key", wrong),
        ("expired", purser.key_in(&organization, Grant::Expired)),
        ("revoked", purser.key_in(&organization, Grant::Revoked)),
    ] {
        walk(&purser, &maker, who, &client, |_| Expected::Code("UNAUTHORIZED")).await;
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
fn by_permission(has: impl Fn(Permission) -> bool) -> impl Fn(&Call) -> Expected {
    move |call| match permissions(call).into_iter().all(&has) {
        true => Expected::Served,
        false => Expected::Code("FORBIDDEN"),
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
    walk(&purser, &maker, "instance admin", &maker, |_| Expected::Served).await;
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
            || ["image.pull", "stack.pull"].contains(&call.name)
    };
    walk(&purser, &maker, "foreign admin", &foreign, |call| match call.permission {
        "instance:admin" => Expected::Code("FORBIDDEN"),
        _ if names_something(call) => Expected::Code("NOT_FOUND"),
        _ => Expected::Served,
    })
    .await;
}
