//! Organizations are walls, and keys may do what they may and nothing else.

use purser_proto_schema::ids::JobId;
use purser_tests::{Answer, Client, Purser, tenant::Grant};
use serde_json::{Value, json};

use crate::{
    answers::refused,
    inputs::{CALLS, Call, Form, Things},
};

/// Ids that name nothing, whatever they look like.
fn nothing(prefix: &str) -> Vec<String> {
    let uuid = "019a9f3c00007000800000000000abcd";
    let mut ids =
        vec![format!("{prefix}_{uuid}"), format!("{prefix}_"), uuid.to_owned(), "registry-123".into()];
    ids.extend(["x", " ", "../..", "%00", "' OR '1'='1", "*", "é😀", "-", "null", "0"].map(str::to_owned));
    ids
}

/// Everything that an organization has, to see whether any of it changed.
async fn everything(client: &Client) -> Vec<String> {
    let mut all = Vec::new();
    for name in ["registry.all", "server.all", "job.all", "organization.all"] {
        all.push(client.query(name, Value::Null).await.to_string());
    }
    for mut key in client.query("apiKey.all", Value::Null).await.as_array().unwrap().clone() {
        key["lastUsedAt"].take();
        all.push(key.to_string());
    }
    all
}

fn with(call: &Call, own: &Things, field: &str, id: &str) -> Value {
    let mut input = own.input(call);
    if field == "serverIds" {
        input.as_object_mut().unwrap().remove("serverId");
        input[field] = json!([own.server, id]);
    } else {
        input[field] = json!(id);
    }
    input
}

#[tokio::test]
async fn a_foreign_a_missing_and_a_malformed_id_look_the_same() {
    let purser = Purser::start().await;
    // An instance-admin key sees further.
    let client = purser.key_in(&purser.default_organization(), Grant::Role("admin"));
    let other = purser.key_in(&purser.organization("other"), Grant::Role("admin"));
    let (own, foreign) = (Things::make(&client, "own").await, Things::make(&other, "foreign").await);
    let before = everything(&other).await;
    let mut tried = 0;
    for call in CALLS {
        for field in call.fields {
            let (id, prefix) = match field.form {
                Form::Registry => (&foreign.registry, "reg"),
                Form::Server | Form::Site | Form::Servers => (&foreign.server, "srv"),
                Form::Job => (&foreign.job, "job"),
                Form::Organization => (&foreign.organization, "org"),
                Form::ApiKey => (&foreign.api_key, "key"),
                _ => continue,
            };
            let ask =
                async |id: &str| client.trpc_mutation(call.name, &with(call, &own, field.name, id)).await;
            let is_foreign = ask(id).await;
            tried += 1;
            if ["job.all", "audit.all"].contains(&call.name) {
                // A filter, not a name: nothing matches it.
                assert_eq!(is_foreign.data(), json!({"items": [], "nextCursor": null}));
            } else {
                refused(&is_foreign, "NOT_FOUND", Some(call.name));
            }
            for id in nothing(prefix) {
                let answer = ask(&id).await;
                let seen = (answer.status, &answer.body);
                assert_eq!(seen, (is_foreign.status, &is_foreign.body), "{} {}: {id}", call.name, field.name);
            }
            let input = with(call, &own, field.name, id);
            let (rpc, trpc) = (client.rpc(call.name, &input).await.json(), is_foreign.json());
            assert_eq!(rpc["error"], trpc["error"], "{}", call.name);
        }
    }
    assert!(tried >= 23, "{tried}");
    assert_eq!(everything(&other).await, before, "nothing of the other organization changed");
}

#[tokio::test]
async fn lists_labels_and_matching_stay_inside_the_wall() {
    let purser = Purser::start().await;
    let client = purser.client();
    let other = purser.key_in(&purser.organization("other"), Grant::Role("admin"));
    let foreign = Things::make(&other, "foreign").await;
    other.mutate("registry.update", json!({"registryId": foreign.registry, "isDefault": true})).await;
    for name in ["registry.all", "server.all"] {
        assert_eq!(client.query(name, Value::Null).await, json!([]));
    }
    assert_eq!(client.query("job.all", Value::Null).await["items"], json!([]));
    let cursor = json!({"cursor": JobId::generate()});
    assert_eq!(client.query("job.all", cursor).await["items"], json!([]));

    let by_label = json!({"image": "app", "labels": {"of": "foreign"}});
    let foreign_label = client.trpc_mutation("image.pull", &by_label).await;
    let of_nobody = json!({"image": "app", "labels": {"of": "nobody"}});
    assert_eq!(foreign_label.code(), "BAD_REQUEST");
    assert_eq!(foreign_label.body, client.trpc_mutation("image.pull", &of_nobody).await.body);
    let own = Things::make(&client, "own").await;
    client.mutate("registry.remove", json!({"registryId": own.registry, "force": true})).await;
    for image in ["127.0.0.1:1/app", "app"] {
        let job = client.mutate("image.pull", json!({"image": image, "serverId": own.server})).await;
        assert_eq!(job["targets"][0]["credentials"], "anonymous", "{job}");
        assert_eq!(job["targets"][0]["registryId"], Value::Null);
    }
    // Names are unique within an organization only, and a default of one is none of the other.
    client.mutate("server.create", json!({"name": "foreign"})).await;
    let mine = json!({"registryName": "d", "registryUrl": "ghcr.io", "isDefault": true});
    client.mutate("registry.create", mine).await;
    let theirs = other.query("registry.one", json!({"registryId": foreign.registry})).await;
    assert_eq!(theirs["isDefault"], true);
}

/// Only FORBIDDEN counts: what the call then does with its input is not asked here.
fn allowed(answer: &Answer) -> bool {
    let error = &answer.json()["error"];
    assert_ne!(error["data"]["code"], "UNAUTHORIZED", "{answer:?}");
    let number = error["code"] == -32003;
    assert_eq!(error["data"]["code"] == "FORBIDDEN", number, "{answer:?}");
    !number
}

async fn may(client: &Client, call: &Call) -> bool {
    let trpc = client.trpc_mutation(call.name, &json!({"not a field": 1})).await;
    let rpc = client.rpc(call.name, &json!({"not a field": 1})).await;
    let allowed_by_trpc = allowed(&trpc);
    assert_eq!(allowed_by_trpc, allowed(&rpc), "{} on both doors", call.name);
    if allowed_by_trpc {
        refused(&trpc, "BAD_REQUEST", Some(call.name));
    } else {
        let error = refused(&trpc, "FORBIDDEN", Some(call.name));
        assert!(error["message"].as_str().unwrap().contains(call.permission), "{error}");
    }
    allowed_by_trpc
}

#[tokio::test]
async fn a_role_may_what_its_row_says() {
    let purser = Purser::start().await;
    let organization = purser.default_organization();
    let deployer = ["registry:test", "image:pull", "image:push", "job:write"];
    for (role, extra) in [("admin", None), ("deployer", Some(deployer.as_slice())), ("viewer", Some(&[]))] {
        let client = purser.key_in(&organization, Grant::Role(role));
        for call in CALLS {
            let reads = call.permission.ends_with(":read") && call.permission != "audit:read";
            let in_organization = call.permission != "instance:admin";
            let expected =
                in_organization && extra.is_none_or(|extra| reads || extra.contains(&call.permission));
            assert_eq!(may(&client, call).await, expected, "{role}: {}", call.name);
        }
    }
}

#[tokio::test]
async fn a_permission_opens_its_procedures_and_no_other() {
    let purser = Purser::start().await;
    let organization = purser.default_organization();
    let mut permissions: Vec<_> = CALLS.iter().map(|call| call.permission).collect();
    permissions.sort_unstable();
    permissions.dedup();
    let nothing = purser.key_in(&organization, Grant::Permissions(&[]));
    for call in CALLS {
        assert!(!may(&nothing, call).await, "{}", call.name);
    }
    for permission in permissions {
        let client = purser.key_in(&organization, Grant::Permissions(&[permission]));
        for call in CALLS {
            assert_eq!(
                may(&client, call).await,
                call.permission == permission,
                "{permission}: {}",
                call.name
            );
        }
    }
}

#[tokio::test]
async fn an_expired_a_revoked_and_an_unknown_key_look_the_same() {
    let purser = Purser::start().await;
    let organization = purser.default_organization();
    let unknown = purser.anonymous().with_key("purser_0123456789abcdef_unknown");
    let dead = [Grant::Expired, Grant::Revoked].map(|grant| purser.key_in(&organization, grant));
    for call in CALLS {
        let trpc = unknown.trpc_mutation(call.name, &json!({})).await;
        let rpc = unknown.rpc(call.name, &json!({})).await;
        refused(&trpc, "UNAUTHORIZED", Some(call.name));
        assert_eq!(rpc.error()["code"], -32001);
        for client in &dead {
            assert_eq!(client.trpc_mutation(call.name, &json!({})).await.body, trpc.body);
            assert_eq!(client.rpc(call.name, &json!({})).await.body, rpc.body);
        }
    }
    for client in &dead {
        assert!(client.websocket().await.is_err());
    }
}

/// What was denied is denied also while the same process remembers a key that was good.
#[tokio::test]
async fn a_revoked_key_stops_within_the_time_that_keys_are_remembered() {
    let purser = Purser::start().await;
    let client = purser.key_in(&purser.default_organization(), Grant::Role("viewer"));
    assert_eq!(client.query("registry.all", Value::Null).await, json!([]));
    purser.sql("UPDATE api_key SET revoked_at = '2026-01-01 00:00:00+00:00' WHERE role = 'viewer'");
    purser_tests::eventually(std::time::Duration::from_secs(15), async || {
        (client.trpc_query("registry.all", &Value::Null).await.status == 401).then_some(())
    })
    .await;
}
