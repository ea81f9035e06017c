//! `server.*` as far as it needs no agent: rows, names, labels, tokens.

use purser_tests::{Client, Purser, scan_for_secret};
use serde_json::{Value, json};

use crate::answers::members;

/// The members of `Server` in API.md, and no other.
const MEMBERS: &[&str] = &[
    "agentVersion",
    "createdAt",
    "description",
    "engine",
    "labels",
    "lastSeenAt",
    "name",
    "organizationId",
    "serverId",
    "status",
    "updatedAt",
    "warnings",
];
const TOKEN_MEMBERS: &[&str] = &["joinCommand", "joinToken", "joinTokenExpiresAt"];

/// The server in an answer that also shows a token, and the token.
#[track_caller]
fn parts(mut joinable: Value) -> (Value, String) {
    let token = joinable["joinToken"].as_str().unwrap().to_owned();
    assert!(joinable["joinCommand"].as_str().unwrap().contains(&token), "{joinable}");
    assert!(joinable["joinTokenExpiresAt"].as_str() > joinable["createdAt"].as_str());
    for member in TOKEN_MEMBERS {
        joinable.as_object_mut().unwrap().remove(*member).unwrap();
    }
    assert_eq!(members(&joinable), MEMBERS);
    (joinable, token)
}

async fn one(client: &Client, id: &Value) -> Value {
    client.query("server.one", json!({"serverId": id})).await
}

#[tokio::test]
async fn a_server_is_shown_as_the_contract_says_and_its_token_only_once() {
    let purser = Purser::builder().rust_log("trace").start().await;
    let client = purser.client();
    let input =
        json!({"name": " edge 1 ", "description": "rack 3\nrow 2", "labels": {"env": "prod", "é": "ü"}});
    let (server, token) = parts(client.mutate("server.create", input).await);
    let expected = json!({"name": "edge 1", "description": "rack 3\nrow 2", "status": "pending", "engine": null,
        "agentVersion": null, "lastSeenAt": null, "warnings": [], "labels": {"env": "prod", "é": "ü"},
        "organizationId": purser.default_organization()});
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&server[member], value, "{member}");
    }
    let id = &server["serverId"];
    assert_eq!(one(&client, id).await, server);
    assert_eq!(client.query("server.all", Value::Null).await, json!([server]));
    let (again, second) = parts(client.mutate("server.createJoinToken", json!({"serverId": id})).await);
    assert_eq!(again, server);
    assert_ne!(token, second);
    for token in [&token, &second] {
        assert!(scan_for_secret(&purser.logs(), token).is_empty());
        assert!(scan_for_secret(purser.data_dir().as_path(), token).is_empty());
        assert!(purser.database().is_none_or(|database| scan_for_secret(&database.dump(), token).is_empty()));
    }
    assert_eq!(purser.sql("SELECT count(*) FROM join_token"), "1", "the earlier one stopped working");
}

#[tokio::test]
async fn a_name_is_taken_once_until_its_server_is_removed() {
    let purser = Purser::start().await;
    let client = purser.client();
    let (one_server, _) = parts(client.mutate("server.create", json!({"name": "a"})).await);
    let (two, _) = parts(client.mutate("server.create", json!({"name": "b"})).await);
    let taken = client.trpc_mutation("server.create", &json!({"name": " a "})).await;
    crate::answers::refused(&taken, "CONFLICT", Some("server.create"));
    let rename = json!({"serverId": two["serverId"], "name": "a"});
    assert_eq!(client.trpc_mutation("server.update", &rename).await.code(), "CONFLICT");
    assert_eq!(one(&client, &two["serverId"]).await, two);

    let at_once = json!({"name": "c"});
    let (first, second) = tokio::join!(
        client.trpc_mutation("server.create", &at_once),
        client.trpc_mutation("server.create", &at_once)
    );
    let mut statuses = [first.status.as_u16(), second.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);

    let removed = client.mutate("server.remove", json!({"serverId": one_server["serverId"]})).await;
    assert_eq!((&removed["serverId"], &removed["status"]), (&one_server["serverId"], &json!("revoked")));
    assert_eq!(client.mutate("server.update", rename).await["name"], "a");
}

#[tokio::test]
async fn absent_keeps_null_clears_and_labels_are_replaced_as_a_whole() {
    let purser = Purser::start().await;
    let client = purser.client();
    let input = json!({"name": "a", "description": "d", "labels": {"x": "1", "y": "2"}});
    let (before, _) = parts(client.mutate("server.create", input).await);
    let id = &before["serverId"];
    let renamed = client.mutate("server.update", json!({"serverId": id, "name": "b"})).await;
    assert_eq!(members(&renamed), MEMBERS);
    assert_eq!((&renamed["description"], &renamed["labels"]), (&before["description"], &before["labels"]));
    let labels = client.mutate("server.update", json!({"serverId": id, "labels": {"z": ""}})).await;
    assert_eq!(labels["labels"], json!({"z": ""}));
    let cleared = json!({"serverId": id, "description": null, "labels": null, "name": null});
    let cleared = client.mutate("server.update", cleared).await;
    assert_eq!(cleared["description"], Value::Null);
    assert_eq!((&cleared["labels"], &cleared["name"]), (&json!({}), &json!("b")));
}

#[tokio::test]
async fn labels_have_bounds_that_are_said() {
    let purser = Purser::start().await;
    let client = purser.client();
    let many =
        |count: usize| (0..count).map(|at| (format!("k{at}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    client.mutate("server.create", json!({"name": "full", "labels": many(64)})).await;
    for labels in [
        json!(many(65)),
        json!({"": "v"}),
        json!({"k".repeat(64): "v"}),
        json!({"k": "v".repeat(256)}),
        json!({"k\u{0}": "v"}),
        json!({"k": "\u{0}"}),
    ] {
        let answer = client.trpc_mutation("server.create", &json!({"name": "x", "labels": labels})).await;
        assert!(answer.error()["data"]["zodError"]["fieldErrors"]["labels"].is_array(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_removed_server_takes_no_more_orders() {
    let purser = Purser::start().await;
    let client = purser.client();
    let things = crate::inputs::Things::make(&client, "gone").await;
    let id = json!({"serverId": things.server});
    client.mutate("server.remove", id.clone()).await;
    assert_eq!(client.query("server.all", Value::Null).await, json!([]));
    assert_eq!(purser.sql("SELECT count(*) FROM join_token"), "0");
    let job = client.query("job.one", json!({"jobId": things.job})).await;
    assert_eq!(job["status"], "cancelled", "{job}");
    let pull = json!({"image": "app", "serverId": things.server});
    for (name, input) in [
        ("server.remove", &id),
        ("server.update", &id),
        ("server.createJoinToken", &id),
        ("image.all", &id),
        ("image.pull", &pull),
    ] {
        assert_eq!(client.trpc_mutation(name, input).await.code(), "NOT_FOUND", "{name}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_connected_is_said_at_once() {
    let purser = Purser::start().await;
    let client = purser.client();
    let things = crate::inputs::Things::make(&client, "away").await;
    let entry = json!({"registryId": things.registry, "serverId": things.server});
    let given = json!({"registryUrl": "127.0.0.1:1", "serverId": things.server});
    let images = json!({"serverId": things.server});
    for (name, input) in
        [("registry.testRegistryById", entry), ("registry.testRegistry", given), ("image.all", images)]
    {
        let answer = client.trpc_mutation(name, &input).await;
        let error = crate::answers::refused(&answer, "PRECONDITION_FAILED", Some(name));
        assert_eq!(error["data"]["diagnosis"]["code"], "server_offline", "{error}");
    }
}

#[tokio::test]
async fn a_host_says_which_engine_it_has() {
    let bed = purser_tests::Testbed::get();
    for (engine, name) in [(bed.host_a(), "Docker"), (bed.podman(), "Podman")] {
        let road = purser_tests::Road::on(&engine).await;
        // A busy Podman takes longer than a handshake waits; then the agent says it a minute later.
        let row = purser_tests::eventually(std::time::Duration::from_secs(90), async || {
            let row = road.client.query("server.one", json!({"serverId": road.host()})).await;
            (!row["engine"].is_null()).then_some(row)
        })
        .await;
        assert_eq!(row["engine"]["name"], name, "{row:#}");
        for field in ["version", "apiVersion", "os", "arch"] {
            assert!(row["engine"][field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {row:#}");
        }
        // Nameless images and all.
        let images = async || {
            // Podman lists none while another test removes one.
            let answer = road.client.trpc_query("image.all", &json!({"serverId": road.host()})).await;
            answer.status.is_success().then(|| answer.data())
        };
        assert!(purser_tests::eventually(std::time::Duration::from_secs(30), images).await.is_array());
    }
}
