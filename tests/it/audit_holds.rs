//! What the audit holds, whatever is tried against it or fails beside it.

use std::{collections::BTreeSet, time::Duration};

use http::Method;
use purser_proto_schema::procedure::{Kind::Mutation, table};
use purser_tests::{Purser, Road, Testbed, eventually, tenant::Grant, unique, user::Kind};
use serde_json::{Value, json};

use crate::{
    answers::send,
    audit::{events, told},
    inputs::Things,
};

const SOON: Duration = Duration::from_secs(20);
const TOKEN: &str = "a-token-for-the-metrics";
const KEYS: [&str; 2] = ["an-operators-own-key-1", "an-operators-own-key-2"];

/// More kinds than are told apart of one organization.
#[tokio::test]
async fn no_organization_hides_by_its_own_refusals_what_is_tried_on_another() {
    let purser = Purser::start().await;
    let victim = purser.organization("victim");
    let loud = purser.organization("loud");
    let forbidden = [
        "registry.create",
        "registry.update",
        "registry.remove",
        "server.create",
        "server.update",
        "server.remove",
        "server.createJoinToken",
        "image.push",
        "apiKey.create",
        "apiKey.remove",
        "organization.create",
        "organization.update",
    ];
    for _ in 0..10 {
        let key = purser.key_in(&loud, Grant::Permissions(&["registry:read"]));
        for procedure in forbidden {
            assert_eq!(key.trpc_mutation(procedure, &json!({})).await.code(), "FORBIDDEN", "{procedure}");
        }
    }
    let key = purser.key_in(&victim, Grant::Role("admin"));
    let prefix = purser.sql(&format!("SELECT prefix FROM api_key WHERE organization_id = '{victim}'"));
    let guessed = key.with_key(&format!("{}_{}", prefix.trim(), unique("guess")));
    for _ in 0..8 {
        assert_eq!(guessed.trpc_query("registry.all", &Value::Null).await.status, 401);
    }
    let refused = json!({"action": "key.refused"});
    let noted = async || Some(events(&key, refused.clone()).await).filter(|noted| noted.len() >= 5);
    assert_eq!(told(&eventually(SOON, noted).await), ["key.refused wrong_secret"; 5]);
    assert!(purser.stop().await.success());
    let rest = |organization: &str, action: &str| {
        purser.execute_sql(&format!(
            "SELECT COUNT(*), SUM(count) FROM audit_event WHERE organization_id = '{organization}' AND action = '{action}'"
        ))
    };
    assert_eq!(rest(&victim, "key.refused"), "6|8");
    // What is not told apart is summed up in whose it is: five of them are events of their own.
    assert_eq!(rest(&loud, "many.refused"), "1|15");
    assert_eq!((rest("", "many.refused"), rest(&victim, "many.refused")), ("0|".into(), "0|".into()));
}

#[tokio::test]
async fn what_a_key_may_not_do_is_told_although_its_input_is_no_json() {
    let purser = Purser::start().await;
    let viewer = purser.key_in(&purser.default_organization(), Grant::Role("viewer"));
    for path in ["/api/trpc/server.create", "/api/server.create", "/api/trpc/server.create?batch=1"] {
        let answer = send(&viewer, Method::POST, path, &[], "{bad").await;
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    // A query would have changed nothing.
    assert_eq!(send(&viewer, Method::POST, "/api/audit.all", &[], "{bad").await.status, 403);
    let client = purser.client();
    let forbidden = json!({"outcome": "FORBIDDEN"});
    let noted = async || Some(events(&client, forbidden.clone()).await).filter(|noted| noted.len() >= 3);
    assert_eq!(told(&eventually(SOON, noted).await), ["server.create FORBIDDEN"; 3]);
}

#[tokio::test]
async fn a_wrong_token_for_the_metrics_is_told_and_none_at_all_is_not() {
    let purser = Purser::builder().env("PURSER_METRICS_TOKEN", TOKEN).start().await;
    let (client, nobody) = (purser.client(), purser.anonymous());
    let asked = async |headers: &[(&str, &str)]| {
        nobody.send(Method::GET, "/metrics", headers, "").await.unwrap().status.as_u16()
    };
    assert_eq!(asked(&[]).await, 401);
    assert_eq!(asked(&[("authorization", &format!("Bearer {TOKEN}"))]).await, 200);
    let guessed = unique("guess");
    for _ in 0..2 {
        assert_eq!(asked(&[("authorization", &format!("Bearer {guessed}"))]).await, 401);
    }
    let refused = json!({"instance": true});
    let noted = async || Some(events(&client, refused.clone()).await).filter(|noted| noted.len() >= 2);
    let noted = eventually(SOON, noted).await;
    assert_eq!(told(&noted), ["metrics.refused wrong_token"; 2]);
    assert_eq!((&noted[0]["source"], &noted[0]["apiKeyId"]), (&json!("127.0.0.1"), &Value::Null));
    assert_eq!(purser_tests::scan_for_secret(&purser.data_dir(), &guessed), []);
}

/// The test is a job of its own; what became of the entry is another thing.
#[tokio::test]
async fn of_an_entry_that_is_tested_on_a_host_it_is_told_how_the_change_ended() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let (client, user) = (&road.client, bed.user(Kind::Plain));
    let input = |password: &str| {
        json!({"registryName": unique("tested"), "registryUrl": bed.registries.basic, "username": user.username,
            "password": password, "test": true, "serverId": road.host()})
    };
    assert_eq!(client.trpc_mutation("registry.create", &input("wrong")).await.diagnosis(), "unauthorized");
    let created = events(client, json!({"action": "registry.create"})).await;
    assert_eq!(told(&created), ["registry.create unauthorized", "registry.create accepted"]);
    assert_eq!(created[0]["jobId"], created[1]["jobId"]);

    let entry = client.mutate("registry.create", input(&user.password)).await["registryId"].clone();
    let update = |password: &str| json!({"registryId": entry, "password": password, "test": true, "serverId": road.host()});
    assert_eq!(client.trpc_mutation("registry.update", &update("wrong")).await.diagnosis(), "unauthorized");
    client.mutate("registry.update", update(&user.password)).await;
    let of_entry = events(client, json!({"registryId": entry})).await;
    assert_eq!(
        told(&of_entry),
        [
            "registry.update ok",
            "registry.update accepted",
            "registry.update unauthorized",
            "registry.update accepted",
            "registry.create ok",
            "registry.create accepted",
        ]
    );
    assert!(of_entry.iter().all(|event| event["serverId"] == road.host()), "{of_entry:#?}");
}

/// What was refused for how things stand is found by what it was about.
#[tokio::test]
async fn a_change_that_is_refused_for_how_things_stand_is_told_with_what_it_was_about() {
    let purser = Purser::start().await;
    let organization = purser.organization("own");
    let client = purser.key_in(&organization, Grant::Role("admin"));
    let key = client.query("apiKey.all", Value::Null).await[0]["apiKeyId"].clone();
    let server = client.mutate("server.create", json!({"name": "host"})).await["serverId"].clone();
    let entry =
        json!({"registryName": "used", "registryUrl": "127.0.0.1:1", "username": "u", "password": "p"});
    let entry = client.mutate("registry.create", entry).await["registryId"].clone();
    client.mutate("image.pull", json!({"image": "127.0.0.1:1/app", "serverId": server})).await;
    let long_ago = "2026-01-01T00:00:00.000Z";
    for (procedure, input, subject) in [
        ("registry.remove", json!({"registryId": entry}), "registryId"),
        ("registry.update", json!({"registryId": entry, "updatedAt": long_ago}), "registryId"),
        ("server.update", json!({"serverId": server, "updatedAt": long_ago}), "serverId"),
        (
            "organization.update",
            json!({"organizationId": organization, "updatedAt": long_ago}),
            "subjectOrganizationId",
        ),
        ("apiKey.remove", json!({"apiKeyId": key}), "subjectApiKeyId"),
    ] {
        assert_eq!(client.trpc_mutation(procedure, &input).await.code(), "CONFLICT", "{procedure}");
        let id = input.as_object().unwrap().iter().find(|(name, _)| name.ends_with("Id")).unwrap().1;
        let found = events(&client, json!({subject: id, "outcome": "CONFLICT"})).await;
        assert_eq!(told(&found)[0], format!("{procedure} CONFLICT"));
        assert_eq!(&found[0][subject], id, "{procedure}");
    }
    // By a key of another organization: where it belongs, and nowhere else.
    let operator = purser.client();
    let stale = json!({"organizationId": organization, "updatedAt": long_ago});
    assert_eq!(operator.trpc_mutation("organization.update", &stale).await.code(), "CONFLICT");
    let of = json!({"subjectOrganizationId": organization, "outcome": "CONFLICT"});
    assert_eq!(events(&client, of.clone()).await.len(), 2);
    assert_eq!(told(&events(&operator, of).await), [""; 0]);
}

#[tokio::test]
async fn an_operators_keys_are_told_when_they_are_made_and_replaced() {
    let first = Purser::builder().env("PURSER_ADMIN_API_KEY", KEYS[0]).start().await;
    first.stop().await;
    let again = |key: &str| Purser::builder().data_of(&first).env("PURSER_ADMIN_API_KEY", key);
    for key in [KEYS[0], KEYS[1], KEYS[1], KEYS[0]] {
        again(key).start().await.stop().await;
    }
    let last = again(KEYS[0]).start().await;
    let client = last.anonymous().with_key(KEYS[0]);
    let noted = events(&client, json!({})).await;
    let (create, remove) = ("apiKey.create ok", "apiKey.remove ok");
    // Nothing for a start that changes nothing.
    assert_eq!(told(&noted), [create, remove, create, remove, create]);
    assert!(
        noted.iter().all(|event| event["apiKeyId"].is_null() && event["requestId"].is_null()),
        "{noted:#?}"
    );
    let of = |place: usize| noted[place]["subjectApiKeyId"].clone();
    let own = client.query("apiKey.all", Value::Null).await[0]["apiKeyId"].clone();
    assert_eq!([of(0), of(3), of(4)], [own.clone(), own.clone(), own.clone()]);
    assert_eq!(of(1), of(2), "the other one");
    assert_ne!(of(1), own);
    assert_eq!(told(&events(&client, json!({"subjectApiKeyId": own})).await), [create, remove, create]);

    let generated = Purser::start().await;
    assert_eq!(told(&events(&generated.client(), json!({})).await), [create]);
}

/// What no change is made of without its event: the mutations that make no job.
const CHANGES: [&str; 12] = [
    "job.cancel",
    "registry.create",
    "registry.update",
    "registry.remove",
    "server.create",
    "server.update",
    "server.createJoinToken",
    "server.remove",
    "apiKey.create",
    "apiKey.remove",
    "organization.create",
    "organization.update",
];
/// Those that make one, and test.
const OF_JOBS: [&str; 6] = [
    "registry.testRegistry",
    "registry.testRegistryById",
    "image.pull",
    "image.push",
    "stack.pull",
    "job.retry",
];

/// No event of something done is taken any more, or every one again.
fn refuse_events(purser: &Purser, are_refused: bool) {
    purser.execute_sql(match (purser.database().is_some(), are_refused) {
        (true, true) => {
            "CREATE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN RAISE EXCEPTION ''refused''; END'; \
             CREATE TRIGGER refused BEFORE INSERT ON audit_event FOR EACH ROW WHEN (NEW.outcome IN ('ok', 'accepted')) \
             EXECUTE FUNCTION refused()"
        }
        (true, false) => "DROP TRIGGER refused ON audit_event",
        (false, true) => {
            "CREATE TRIGGER refused BEFORE INSERT ON audit_event WHEN NEW.outcome IN ('ok', 'accepted') \
             BEGIN SELECT RAISE(ABORT, 'refused'); END"
        }
        (false, false) => "DROP TRIGGER refused",
    });
}

/// Everything that a change may touch, but when a key was last used.
fn everything(purser: &Purser) -> Vec<String> {
    let keys = "api_key_id, name, role, permissions, revoked_at FROM api_key";
    let [jobs, targets] = ["* FROM job", "* FROM job_target"];
    let [entries, events] = ["* FROM registry", "* FROM registry_event"];
    ["* FROM organization", keys, entries, events, "* FROM server", "* FROM join_token", jobs, targets]
        .map(|what| purser.execute_sql(&format!("SELECT {what} ORDER BY 1, 2")))
        .to_vec()
}

#[tokio::test]
async fn nothing_is_changed_that_the_audit_cannot_be_told_of() {
    let known: BTreeSet<_> = CHANGES.into_iter().chain(OF_JOBS).collect();
    let mutations = table().filter(|info| info.kind == Mutation).map(|info| info.name);
    assert_eq!(mutations.collect::<BTreeSet<_>>(), known, "a new mutation belongs into one of the lists");

    let purser = Purser::start().await;
    let client = purser.client();
    let things = Things::make(&client, "things").await;
    let input = |procedure: &str| match procedure {
        "job.cancel" => json!({"jobId": things.job}),
        "registry.create" => json!({"registryName": "made", "registryUrl": "127.0.0.1:1", "isDefault": true}),
        "registry.update" => json!({"registryId": things.registry, "registryName": "changed"}),
        "registry.remove" => json!({"registryId": things.registry, "force": true}),
        "server.create" => json!({"name": "made"}),
        "server.update" => json!({"serverId": things.server, "name": "changed"}),
        "server.createJoinToken" | "server.remove" => json!({"serverId": things.server}),
        "apiKey.create" => json!({"name": "made", "role": "viewer"}),
        "apiKey.remove" => json!({"apiKeyId": things.api_key}),
        "organization.create" => json!({"name": "made"}),
        "organization.update" => json!({"organizationId": things.organization, "name": "changed"}),
        "image.pull" => json!({"image": "127.0.0.1:1/app:v1", "serverId": things.server}),
        other => panic!("{other}"),
    };
    refuse_events(&purser, true);
    let mut before = everything(&purser);
    let mut made = Vec::new();
    for procedure in CHANGES.into_iter().chain(["image.pull"]) {
        let answer = client.trpc_mutation(procedure, &input(procedure)).await;
        let after = everything(&purser);
        if !answer.status.is_server_error() || after != before {
            made.push(procedure);
        }
        before = after;
    }
    assert_eq!(made, [""; 0], "made although the audit cannot be told");
    assert!(client.query("registry.all", Value::Null).await.to_string().contains("things"), "nor in memory");
    refuse_events(&purser, false);
    // With good inputs: each changes something, and the audit says so once.
    for procedure in CHANGES {
        client.mutate(procedure, input(procedure)).await;
        let after = everything(&purser);
        assert_ne!(after, before, "{procedure}");
        before = after;
        let of = json!({"action": procedure, "instance": procedure == "organization.create"});
        let noted = events(&client, of).await;
        let told = told(&noted[..2]);
        assert_eq!(told, [format!("{procedure} ok"), format!("{procedure} INTERNAL_SERVER_ERROR")]);
        assert!(noted[0]["requestId"].is_string() && noted[0]["apiKeyId"].is_string(), "{}", noted[0]);
    }
}
