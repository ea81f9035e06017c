//! `apiKey.*` and `organization.*`: what keys are made, what they may make, and how they end.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use purser_tests::{Client, Purser, Streamed, eventually, scan_for_secret, secret, tenant::Grant};
use serde_json::{Value, json};

use crate::answers::{is_error, members, refused, registry};

const MEMBERS: &[&str] = &[
    "apiKeyId",
    "createdAt",
    "expiresAt",
    "lastUsedAt",
    "name",
    "organizationId",
    "permissions",
    "prefix",
    "rateLimit",
    "role",
];
const ORGANIZATION: &[&str] = &["createdAt", "name", "organizationId", "updatedAt"];
const SOON: Duration = Duration::from_secs(40);

/// A time from now, as callers write it.
fn within(seconds: i64) -> String {
    (Utc::now() + TimeDelta::seconds(seconds)).to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Makes a key: what is said of it, and a client that uses it.
async fn key(client: &Client, mut input: Value) -> (Value, Client) {
    input["name"] = json!("made");
    let mut made = client.mutate("apiKey.create", input).await;
    let key = made.as_object_mut().unwrap().remove("key").unwrap();
    (made, client.with_key(key.as_str().unwrap()))
}

async fn status(client: &Client) -> u16 {
    client.trpc_query("registry.all", &Value::Null).await.status.as_u16()
}

/// A stream of events on which nothing happens.
async fn quiet(client: &Client) -> Streamed {
    client.subscribe("/api/trpc/registry.events", &[]).await
}

/// It ends for want of a key.
async fn ends(mut stream: Streamed) {
    let told = stream.told().await.unwrap();
    assert_eq!(told.event, "serialized-error", "{told:?}");
    is_error(&told.json(), "UNAUTHORIZED", Some("registry.events"));
    assert_eq!(stream.told().await, None);
}

#[tokio::test]
async fn a_key_is_shown_once_and_kept_nowhere() {
    let purser = Purser::builder().rust_log("trace").start().await;
    let client = purser.client();
    let expiry = within(3600);
    let input = json!({"name": " CI ", "permissions": ["image:pull", "registry:read", "image:pull"],
        "expiresAt": expiry, "rateLimit": {"requests": 100, "windowSeconds": 60}});
    let mut created = client.mutate("apiKey.create", input).await;
    let key = created.as_object_mut().unwrap().remove("key").unwrap().as_str().unwrap().to_owned();
    assert_eq!(members(&created), MEMBERS);
    let expected = json!({"name": "CI", "permissions": ["registry:read", "image:pull"], "role": null,
        "expiresAt": expiry, "rateLimit": {"requests": 100, "windowSeconds": 60}, "lastUsedAt": null,
        "organizationId": purser.default_organization()});
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&created[member], value, "{member}");
    }
    assert!(created["apiKeyId"].as_str().unwrap().starts_with("key_"));
    assert!(key.starts_with(created["prefix"].as_str().unwrap()));
    assert_eq!(status(&client.with_key(&key)).await, 200);

    let all = client.query("apiKey.all", Value::Null).await;
    let listed = all.as_array().unwrap();
    assert_eq!(listed.len(), 2, "the first start's and this one, oldest first: {all}");
    assert_eq!((&listed[0]["role"], &listed[1]["apiKeyId"]), (&json!("admin"), &created["apiKeyId"]));
    assert!(listed.iter().all(|row| members(row) == MEMBERS), "{all}");
    let removed = client.mutate("apiKey.remove", json!({"apiKeyId": created["apiKeyId"]})).await;
    assert_eq!(members(&removed), MEMBERS);
    let secret = secret::of_key(&key);
    for place in [all.to_string(), removed.to_string(), purser.logs()] {
        assert!(scan_for_secret(&place, secret).is_empty());
    }
    assert!(scan_for_secret(purser.data_dir().as_path(), secret).is_empty());
    if let Some(database) = purser.database() {
        assert!(scan_for_secret(&database.dump(), secret).is_empty());
    }
    assert_eq!(client.query("apiKey.all", Value::Null).await.as_array().unwrap().len(), 1);
    let again = client.trpc_mutation("apiKey.remove", &json!({"apiKeyId": created["apiKeyId"]})).await;
    assert_eq!(again.code(), "NOT_FOUND");
}

#[tokio::test]
async fn either_a_role_or_permissions_and_names_of_another_product_are_shown_as_ours() {
    let purser = Purser::start().await;
    let client = purser.client();
    for grants in [json!({}), json!({"role": "admin", "permissions": ["job:read"]})] {
        let mut input = grants.clone();
        input["name"] = json!("x");
        let refused = client.trpc_mutation("apiKey.create", &input).await;
        assert_eq!(refused.code(), "BAD_REQUEST", "{grants}");
        assert!(refused.error()["data"]["zodError"]["fieldErrors"]["permissions"].is_array(), "{refused:?}");
    }
    for role in ["admin", "deployer", "viewer"] {
        let (made, _) = key(&client, json!({"role": role, "permissions": null})).await;
        assert_eq!((&made["role"], &made["permissions"]), (&json!(role), &Value::Null));
    }
    let theirs = ["read", "write", "delete"].map(|word| format!("iam:project:cicd:registry:{word}"));
    let (made, holder) = key(&client, json!({"permissions": theirs})).await;
    assert_eq!(made["permissions"], json!(["registry:read", "registry:write", "registry:delete"]));
    assert_eq!(status(&holder).await, 200);
    holder.mutate("registry.create", registry("theirs")).await;
    assert_eq!(holder.trpc_query("server.all", &Value::Null).await.code(), "FORBIDDEN");
    let past = json!({"name": "x", "role": "viewer", "expiresAt": within(-1)});
    let refused = client.trpc_mutation("apiKey.create", &past).await;
    assert!(refused.error()["data"]["zodError"]["fieldErrors"]["expiresAt"].is_array(), "{refused:?}");
}

#[tokio::test]
async fn an_instance_admin_makes_organizations_and_their_first_keys_and_nobody_else_does() {
    let purser = Purser::start().await;
    let instance = purser.client();
    let made = instance.mutate("organization.create", json!({"name": " Team A "})).await;
    assert_eq!(members(&made), ORGANIZATION);
    assert_eq!(made["name"], "Team A");
    assert_eq!(made["createdAt"], made["updatedAt"]);
    let id = &made["organizationId"];
    let taken = instance.trpc_mutation("organization.create", &json!({"name": "Team A"})).await;
    assert_eq!(taken.code(), "CONFLICT");

    let (first, admin) = key(&instance, json!({"role": "admin", "organizationId": id})).await;
    assert_eq!(&first["organizationId"], id);
    let entry = admin.mutate("registry.create", registry("theirs")).await;
    assert_eq!(&entry["organizationId"], id);
    assert_eq!(instance.query("registry.all", Value::Null).await, json!([]));
    assert_eq!(admin.query("organization.all", Value::Null).await, json!([made]));
    assert_eq!(instance.query("organization.all", Value::Null).await.as_array().unwrap().len(), 2);

    let create = json!({"name": "Team B"});
    let error = refused(
        &admin.trpc_mutation("organization.create", &create).await,
        "FORBIDDEN",
        Some("organization.create"),
    );
    assert!(error["message"].as_str().unwrap().contains("instance:admin"), "{error}");
    let default = purser.default_organization();
    for foreign in [json!(default), json!("org_missing")] {
        let beyond = json!({"name": "x", "role": "viewer", "organizationId": foreign});
        assert_eq!(admin.trpc_mutation("apiKey.create", &beyond).await.code(), "NOT_FOUND");
        let one = json!({"organizationId": foreign});
        assert_eq!(admin.trpc_query("organization.one", &one).await.code(), "NOT_FOUND");
        let rename = json!({"organizationId": foreign, "name": "mine now"});
        assert_eq!(admin.trpc_mutation("organization.update", &rename).await.code(), "NOT_FOUND");
    }
    // Its own may be named, too.
    key(&admin, json!({"role": "viewer", "organizationId": id})).await;
    let renamed = json!({"organizationId": id, "name": "Team One"});
    assert_eq!(admin.mutate("organization.update", renamed).await["name"], "Team One");
    let taken = json!({"organizationId": id, "name": "default"});
    assert_eq!(admin.trpc_mutation("organization.update", &taken).await.code(), "CONFLICT");
}

#[tokio::test]
async fn a_renamed_first_organization_stays_the_first() {
    let mut purser = Purser::start().await;
    let id = purser.default_organization();
    let rename = json!({"organizationId": id, "name": "acme"});
    purser.client().mutate("organization.update", rename).await;
    purser.restart().await;
    let all = purser.client().query("organization.all", Value::Null).await;
    assert_eq!((all.as_array().unwrap().len(), &all[0]["name"]), (1, &json!("acme")), "{all}");
}

#[tokio::test]
async fn a_key_grants_no_more_no_longer_and_no_faster_than_it_may_itself() {
    let purser = Purser::start().await;
    let client = purser.client();
    let maker = json!({"permissions": ["apiKey:write", "registry:read"], "expiresAt": within(600),
        "rateLimit": {"requests": 1000, "windowSeconds": 60}});
    let (_, maker) = key(&client, maker).await;
    let bounds = json!({"name": "x", "permissions": ["registry:read"], "expiresAt": within(500),
        "rateLimit": {"requests": 1000, "windowSeconds": 60}});
    maker.mutate("apiKey.create", bounds.clone()).await;
    for (field, value) in [
        ("permissions", json!(["registry:read", "registry:write"])),
        ("permissions", json!(["instance:admin"])),
        ("permissions", json!(["iam:project:cicd:registry:delete"])),
    ] {
        let mut beyond = bounds.clone();
        beyond[field] = value;
        assert_eq!(maker.trpc_mutation("apiKey.create", &beyond).await.code(), "FORBIDDEN", "{beyond}");
    }
    for role in ["admin", "deployer", "viewer"] {
        let mut beyond = bounds.clone();
        beyond["permissions"] = Value::Null;
        beyond["role"] = json!(role);
        assert_eq!(maker.trpc_mutation("apiKey.create", &beyond).await.code(), "FORBIDDEN", "{role}");
    }
    for (field, value) in [
        ("expiresAt", Value::Null),
        ("expiresAt", json!(within(700))),
        ("rateLimit", Value::Null),
        ("rateLimit", json!({"requests": 1001, "windowSeconds": 6000})),
        ("rateLimit", json!({"requests": 1000, "windowSeconds": 59})),
    ] {
        let mut beyond = bounds.clone();
        beyond[field] = value;
        let refused = maker.trpc_mutation("apiKey.create", &beyond).await;
        assert_eq!(refused.code(), "BAD_REQUEST", "{beyond}");
        assert!(refused.error()["data"]["zodError"]["fieldErrors"][field].is_array(), "{refused:?}");
    }
    // Nor does the role that has everything in its organization grant what is beyond.
    let admin = purser.key_in(&purser.default_organization(), Grant::Role("admin"));
    let beyond = json!({"name": "x", "permissions": ["instance:admin"]});
    assert_eq!(admin.trpc_mutation("apiKey.create", &beyond).await.code(), "FORBIDDEN");
    let (_, other) = key(&client, json!({"permissions": ["instance:admin"]})).await;
    other.mutate("organization.create", json!({"name": "by another"})).await;
    assert_eq!(client.query("apiKey.all", Value::Null).await.as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn a_key_may_remove_itself_and_the_last_admin_key_stays() {
    let purser = Purser::start().await;
    let instance = purser.client();
    let id = instance.mutate("organization.create", json!({"name": "a"})).await["organizationId"].clone();
    let admin = json!({"role": "admin", "organizationId": id});
    let (first, first_client) = key(&instance, admin.clone()).await;
    let remove = |row: &Value| json!({"apiKeyId": row["apiKeyId"]});
    // No other that counts: one with another role, one that is over, one of another organization.
    key(&first_client, json!({"role": "deployer"})).await;
    purser.key_in(id.as_str().unwrap(), Grant::Expired);
    let last = first_client.trpc_mutation("apiKey.remove", &remove(&first)).await;
    let error = refused(&last, "CONFLICT", Some("apiKey.remove"));
    assert!(error["message"].as_str().unwrap().contains("last key with the role admin"), "{error}");
    let (mut left, mut left_client) = (first, first_client);
    for round in 0..8 {
        let (other, other_client) = key(&left_client, admin.clone()).await;
        // At once, each the other: one stays.
        let (one, two) = (remove(&other), remove(&left));
        let (one, two) = tokio::join!(
            left_client.trpc_mutation("apiKey.remove", &one),
            other_client.trpc_mutation("apiKey.remove", &two)
        );
        let removed = [&one, &two].iter().filter(|answer| answer.status == 200).count();
        assert_eq!(removed, 1, "{round}: {one:?} {two:?}");
        if two.status == 200 {
            (left, left_client) = (other, other_client);
        }
    }
    let (third, third_client) = key(&left_client, json!({"role": "admin"})).await;
    assert_eq!(left_client.mutate("apiKey.remove", remove(&left)).await["apiKeyId"], left["apiKeyId"]);
    assert_eq!((status(&left_client).await, status(&third_client).await), (401, 200));
    assert_eq!(third_client.trpc_mutation("apiKey.remove", &remove(&third)).await.code(), "CONFLICT");
}

#[tokio::test]
async fn an_instance_admins_key_is_removed_by_another_one_only() {
    let purser = Purser::start().await;
    let client = purser.client();
    let first = client.query("apiKey.all", Value::Null).await[0].take();
    let (listed, _) = key(&client, json!({"permissions": ["instance:admin"]})).await;
    let (_, remover) = key(&client, json!({"permissions": ["apiKey:read", "apiKey:delete"]})).await;
    let (_, admin) = key(&client, json!({"role": "admin"})).await;
    let foreign = purser.key_in(&purser.organization("foreign"), Grant::Role("admin"));
    for row in [&first, &listed] {
        let remove = json!({"apiKeyId": row["apiKeyId"]});
        for holder in [&remover, &admin] {
            let answer = holder.trpc_mutation("apiKey.remove", &remove).await;
            let error = refused(&answer, "FORBIDDEN", Some("apiKey.remove"));
            assert!(error["message"].as_str().unwrap().contains("instance:admin"), "{error}");
        }
        assert_eq!(foreign.trpc_mutation("apiKey.remove", &remove).await.code(), "NOT_FOUND");
    }
    assert_eq!(client.query("apiKey.all", Value::Null).await.as_array().unwrap().len(), 4);
    let (_, other) = key(&client, json!({"permissions": ["instance:admin", "apiKey:delete"]})).await;
    for row in [&listed, &first] {
        other.mutate("apiKey.remove", json!({"apiKeyId": row["apiKeyId"]})).await;
    }
    assert_eq!(status(&client).await, 401);
    assert_eq!(remover.query("apiKey.all", Value::Null).await.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_removed_key_stops_at_once_and_what_it_holds_open_ends() {
    let purser = Purser::start().await;
    let client = purser.client();
    let (made, holder) = key(&client, json!({"role": "viewer"})).await;
    let (_, bystander) = key(&client, json!({"role": "viewer"})).await;
    let (mut idle, mut other) = (holder.websocket().await.unwrap(), bystander.websocket().await.unwrap());
    let (stream, mut other_stream) = (quiet(&holder).await, quiet(&bystander).await);
    assert!(idle.call("registry.all", Value::Null).await.unwrap()["result"].is_array());
    client.mutate("apiKey.remove", json!({"apiKeyId": made["apiKeyId"]})).await;
    // Not after the ten seconds that a key is remembered.
    assert_eq!(status(&holder).await, 401);
    assert!(holder.websocket().await.is_err());
    let said = tokio::time::timeout(Duration::from_secs(7), idle.receive()).await.unwrap().unwrap_err();
    assert!(said.contains("not valid any more"), "{said}");
    ends(stream).await;
    assert!(other.call("registry.all", Value::Null).await.unwrap()["result"].is_array());
    client.mutate("registry.create", registry("one")).await;
    assert_eq!(other_stream.message().await.json()["type"], "created");
}

#[tokio::test]
async fn a_key_that_removes_itself_on_a_socket_is_answered_before_that_ends() {
    let purser = Purser::start().await;
    let (made, holder) = key(&purser.client(), json!({"permissions": ["apiKey:delete"]})).await;
    let mut socket = holder.websocket().await.unwrap();
    let answer = socket.call("apiKey.remove", json!({"apiKeyId": made["apiKeyId"]})).await.unwrap();
    assert_eq!(answer["result"]["apiKeyId"], made["apiKeyId"], "{answer}");
    let said = socket.receive().await.unwrap_err();
    assert!(said.contains("not valid any more"), "{said}");
}

#[tokio::test]
async fn what_is_held_open_ends_when_its_key_expires_although_nothing_happens_on_it() {
    let purser = Purser::start().await;
    let (_, holder) = key(&purser.client(), json!({"role": "viewer", "expiresAt": within(15)})).await;
    let (mut idle, stream) = (holder.websocket().await.unwrap(), quiet(&holder).await);
    let said = tokio::time::timeout(SOON, idle.receive()).await.unwrap().unwrap_err();
    assert!(said.contains("not valid any more"), "{said}");
    ends(stream).await;
    assert_eq!(status(&holder).await, 401);
}

/// As when another control plane over the same database removed it.
#[tokio::test]
async fn what_is_held_open_ends_soon_when_its_key_is_removed_elsewhere() {
    let purser = Purser::start().await;
    let (made, holder) = key(&purser.client(), json!({"role": "viewer"})).await;
    let (mut idle, stream) = (holder.websocket().await.unwrap(), quiet(&holder).await);
    let id = made["apiKeyId"].as_str().unwrap();
    purser.sql(&format!(
        "UPDATE api_key SET revoked_at = '2026-01-01 00:00:00+00:00' WHERE api_key_id = '{id}'"
    ));
    let said = tokio::time::timeout(SOON, idle.receive()).await.unwrap().unwrap_err();
    assert!(said.contains("not valid any more"), "{said}");
    ends(stream).await;
    eventually(SOON, async || (status(&holder).await == 401).then_some(())).await;
}

#[tokio::test]
async fn the_last_use_is_noted_once_a_minute_and_not_by_each_call() {
    let purser = Purser::start().await;
    let client = purser.client();
    let (made, holder) = key(&client, json!({"role": "viewer"})).await;
    let id = made["apiKeyId"].as_str().unwrap();
    let noted = async || {
        let all = client.query("apiKey.all", Value::Null).await;
        let row = all.as_array().unwrap().iter().find(|row| row["apiKeyId"] == id).unwrap();
        row["lastUsedAt"].as_str().map(str::to_owned)
    };
    assert_eq!(noted().await, None);
    status(&holder).await;
    let first = eventually(SOON, noted).await;
    for _ in 0..50 {
        assert_eq!(status(&holder).await, 200);
    }
    assert_eq!(noted().await.as_ref(), Some(&first));
    // Of a key that is read anew a minute's use is due, a second's is not.
    for (seconds, is_due) in [(30, false), (61, true)] {
        let (made, holder) = key(&client, json!({"role": "viewer"})).await;
        let id = made["apiKeyId"].as_str().unwrap();
        let before =
            (Utc::now() - TimeDelta::seconds(seconds)).format("%Y-%m-%d %H:%M:%S%.3f+00:00").to_string();
        purser.sql(&format!("UPDATE api_key SET last_used_at = '{before}' WHERE api_key_id = '{id}'"));
        let stored = || purser.sql(&format!("SELECT last_used_at FROM api_key WHERE api_key_id = '{id}'"));
        let untouched = stored();
        assert_eq!(status(&holder).await, 200);
        if is_due {
            eventually(SOON, async || (stored() != untouched).then_some(())).await;
        } else {
            // What is told later is written later, so by then this would have been.
            let (marker, marker_client) = key(&client, json!({"role": "viewer"})).await;
            status(&marker_client).await;
            let marker = marker["apiKeyId"].as_str().unwrap();
            let written = format!("SELECT last_used_at FROM api_key WHERE api_key_id = '{marker}'");
            eventually(SOON, async || (!purser.sql(&written).is_empty()).then_some(())).await;
            assert_eq!(stored(), untouched);
        }
    }
}

#[tokio::test]
async fn the_environments_key_stays_valid_without_it_until_it_is_removed() {
    const CHOSEN: &str = "a-chosen-admin-key-of-good-length";
    let first = Purser::builder().env("PURSER_ADMIN_API_KEY", CHOSEN).start().await;
    first.stop().await;
    let again = || Purser::builder().data_of(&first);
    let second = again().start().await;
    assert!(!second.data_dir().join("admin-api-key").exists(), "there is an admin key still");
    let chosen = second.anonymous().with_key(CHOSEN);
    let (_, admin) = key(&chosen, json!({"role": "admin"})).await;
    let all = chosen.query("apiKey.all", Value::Null).await;
    assert_eq!((&all[0]["name"], &all[0]["prefix"]), (&json!("PURSER_ADMIN_API_KEY"), &json!("chosen")));
    let remove = json!({"apiKeyId": all[0]["apiKeyId"]});
    refused(&admin.trpc_mutation("apiKey.remove", &remove).await, "FORBIDDEN", Some("apiKey.remove"));
    chosen.mutate("apiKey.remove", remove).await;
    assert_eq!(status(&chosen).await, 401);
    second.stop().await;
    // No instance-admin key is left: the next start makes one.
    let third = again().start().await;
    assert_eq!(status(&third.anonymous().with_key(CHOSEN)).await, 401);
    third.client().mutate("organization.create", json!({"name": "again"})).await;
    third.stop().await;
    let fourth = again().env("PURSER_ADMIN_API_KEY", CHOSEN).start().await;
    assert_eq!(status(&fourth.anonymous().with_key(CHOSEN)).await, 200);
}
