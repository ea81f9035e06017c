//! Changing and removing what is kept, safely: no change is lost, no secret goes where it was not entered
//! for, and what is under way ends as it began.

use std::time::Duration;

use purser_tests::{
    BreakableProxy, Client, Purser, Road, Testbed,
    certificate::Authority,
    eventually, image,
    road::{failed, succeeded},
    user::Kind,
};
use serde_json::{Value, json};

use crate::{
    answers::{refused, registry},
    inputs::Things,
};

/// An entry with a password.
fn stored() -> Value {
    json!({"registryName": "mine", "registryUrl": "registry.example.com:5000", "username": "u",
        "password": "p"})
}

async fn one(client: &Client, id: &Value) -> Value {
    client.query("registry.one", json!({"registryId": id})).await
}

#[tokio::test]
async fn a_change_of_what_was_changed_since_is_refused_and_changes_nothing() {
    let purser = Purser::start().await;
    let client = purser.client();
    let things = Things::make(&client, "before").await;
    for (procedure, key, id, field) in [
        ("registry", "registryId", &things.registry, "registryName"),
        ("server", "serverId", &things.server, "name"),
        ("organization", "organizationId", &things.organization, "name"),
    ] {
        let (read, update) = (format!("{procedure}.one"), format!("{procedure}.update"));
        let before = client.query(&read, json!({key: id})).await;
        let input = |name: &str, seen: &Value| json!({key: id, field: name, "updatedAt": seen});
        let first = client.mutate(&update, input("first", &before["updatedAt"])).await;
        assert!(first["updatedAt"].as_str() > before["updatedAt"].as_str(), "{procedure}");
        let late = client.trpc_mutation(&update, &input("late", &before["updatedAt"])).await;
        let error = refused(&late, "CONFLICT", Some(&update));
        assert!(error["message"].as_str().unwrap().contains("changed meanwhile"), "{error}");
        assert_eq!(client.query(&read, json!({key: id})).await, first, "{procedure}");
        let second = client.mutate(&update, input("second", &first["updatedAt"])).await;
        assert_eq!(second[field], "second");
        // Without it the newest is changed.
        assert_eq!(client.mutate(&update, json!({key: id, field: "third"})).await[field], "third");
    }
}

#[tokio::test]
async fn of_changes_at_once_with_the_same_precondition_one_is_made() {
    let purser = Purser::start().await;
    let client = purser.client();
    let things = Things::make(&client, "things").await;
    for (procedure, key, id, field) in [
        ("registry", "registryId", &things.registry, "registryName"),
        ("server", "serverId", &things.server, "name"),
        ("organization", "organizationId", &things.organization, "name"),
    ] {
        let update = format!("{procedure}.update");
        for round in 0..5 {
            let seen = client.query(&format!("{procedure}.one"), json!({key: id})).await["updatedAt"].clone();
            let input =
                |who: &str| json!({key: id, field: format!("{who} of {round}"), "updatedAt": seen.clone()});
            let (a, b, c) = (input("a"), input("b"), input("c"));
            let (a, b, c) = tokio::join!(
                client.trpc_mutation(&update, &a),
                client.trpc_mutation(&update, &b),
                client.trpc_mutation(&update, &c)
            );
            let mut codes = [&a, &b, &c].map(|answer| answer.status.as_u16());
            codes.sort_unstable();
            assert_eq!(codes, [200, 409, 409], "{procedure} {round}: {a:?} {b:?} {c:?}");
        }
    }
}

#[tokio::test]
async fn changes_of_different_fields_at_once_are_all_made() {
    let purser = Purser::start().await;
    let client = purser.client();
    let things = Things::make(&client, "things").await;
    let (registry, server) = (json!(things.registry), json!(things.server));
    for round in 0..10 {
        let (name, prefix, user) =
            (format!("name {round}"), format!("prefix{round}/"), format!("user{round}"));
        let by_name = json!({"registryId": registry, "registryName": name});
        let by_prefix = json!({"registryId": registry, "imagePrefix": prefix});
        let by_user = json!({"registryId": registry, "username": user});
        let description = json!({"serverId": server, "description": name});
        let labels = json!({"serverId": server, "labels": {"round": prefix}});
        tokio::join!(
            client.mutate("registry.update", by_name),
            client.mutate("registry.update", by_prefix),
            client.mutate("registry.update", by_user),
            client.mutate("server.update", description),
            client.mutate("server.update", labels),
        );
        let now = one(&client, &registry).await;
        assert_eq!((&now["registryName"], &now["imagePrefix"]), (&json!(name), &json!(prefix)));
        assert_eq!(now["username"], json!(user));
        let now = client.query("server.one", json!({"serverId": server})).await;
        assert_eq!((&now["description"], &now["labels"]["round"]), (&json!(name), &json!(prefix)));
    }
}

/// The mark is taken from an entry by a change of another: a change of the first at that moment must not
/// set it again.
#[tokio::test]
async fn a_change_of_the_former_default_does_not_make_it_the_default_again() {
    let purser = Purser::start().await;
    let client = purser.client();
    let (mut one_entry, mut other) = (registry("one"), registry("other"));
    one_entry["isDefault"] = json!(true);
    other["isDefault"] = json!(false);
    let mut from = client.mutate("registry.create", one_entry).await["registryId"].clone();
    let mut to = client.mutate("registry.create", other).await["registryId"].clone();
    for round in 0..20 {
        let take = json!({"registryId": to, "isDefault": true});
        let rename = json!({"registryId": from, "registryName": format!("renamed {round}")});
        tokio::join!(client.mutate("registry.update", take), client.mutate("registry.update", rename));
        let (is_from, is_to) = (one(&client, &from).await, one(&client, &to).await);
        assert_eq!((&is_from["isDefault"], &is_to["isDefault"]), (&json!(false), &json!(true)), "{round}");
        assert_eq!(is_from["registryName"], format!("renamed {round}"));
        std::mem::swap(&mut from, &mut to);
    }
}

#[tokio::test]
async fn to_lose_the_default_mark_is_a_change_of_the_entry() {
    let purser = Purser::start().await;
    let client = purser.client();
    let default = |name: &str| {
        let mut input = registry(name);
        input["isDefault"] = json!(true);
        input
    };
    let first = client.mutate("registry.create", default("first")).await;
    client.mutate("registry.create", default("second")).await;
    let now = one(&client, &first["registryId"]).await;
    assert_eq!(now["isDefault"], false);
    assert!(now["updatedAt"].as_str() > first["updatedAt"].as_str(), "{now}");
    let late =
        json!({"registryId": first["registryId"], "registryName": "x", "updatedAt": first["updatedAt"]});
    assert_eq!(client.trpc_mutation("registry.update", &late).await.code(), "CONFLICT");
}

#[tokio::test]
async fn a_stored_secret_goes_nowhere_less_safe_without_being_entered_again() {
    let purser = Purser::start().await;
    let client = purser.client();
    let before = client.mutate("registry.create", stored()).await;
    let id = &before["registryId"];
    let (one_ca, other_ca) = (Authority::new("one").pem(), Authority::new("other").pem());
    let update = |field: &str, value: &Value| {
        let mut input = json!({"registryId": id});
        input[field] = value.clone();
        input
    };
    let needs_password = async |field: &str, value: Value| {
        let now = one(&client, id).await;
        let mut input = update(field, &value);
        let refused = client.trpc_mutation("registry.update", &input).await;
        assert_eq!(refused.code(), "BAD_REQUEST", "{field}");
        let issue = &refused.error()["data"]["zodError"]["fieldErrors"]["password"][0];
        assert!(issue.as_str().unwrap_or_default().contains(field), "{refused:?}");
        assert_eq!(one(&client, id).await, now, "{field}");
        input["password"] = json!("p");
        client.mutate("registry.update", input).await;
    };
    needs_password("insecure", json!(true)).await;
    needs_password("caCertificate", json!(one_ca)).await;
    needs_password("caCertificate", json!(other_ca)).await;
    // What stays, and what makes it safer, needs nothing.
    for (field, value) in [
        ("caCertificate", json!(other_ca)),
        ("insecure", json!(true)),
        ("insecure", json!(false)),
        ("caCertificate", Value::Null),
    ] {
        client.mutate("registry.update", update(field, &value)).await;
    }
    needs_password("insecure", json!(true)).await;
    // Nor does an entry without a secret.
    let open = client.mutate("registry.create", registry("open")).await["registryId"].clone();
    for input in [json!({"insecure": true}), json!({"caCertificate": one_ca})] {
        let mut input = input;
        input["registryId"] = open.clone();
        client.mutate("registry.update", input).await;
    }
    let cleared = json!({"registryId": id, "caCertificate": one_ca, "username": null, "password": null});
    assert_eq!(client.mutate("registry.update", cleared).await["hasCredentials"], false);
}

/// A password is being tested at one host when its entry gets another: it was not entered for that one.
#[tokio::test]
async fn a_password_is_not_kept_for_a_host_that_came_between() {
    let (bed, purser) = (Testbed::get(), Purser::start().await);
    let (client, user) = (purser.client(), bed.user(Kind::Symbols));
    let proxy = BreakableProxy::start(&bed.registries.basic).await;
    let here = proxy.address().to_string();
    let entry =
        json!({"registryName": "mine", "registryUrl": here, "username": user.username, "password": "old"});
    let id = client.mutate("registry.create", entry).await["registryId"].clone();
    proxy.stall(true);
    let tested = json!({"registryId": id, "password": user.password, "test": true});
    let testing = tokio::spawn({
        let client = client.clone();
        async move { client.trpc_mutation("registry.update", &tested).await }
    });
    eventually(Duration::from_secs(30), async || (proxy.accepted() > 0).then_some(())).await;
    let moved = json!({"registryId": id, "registryUrl": bed.registries.basic, "password": "for there"});
    let moved = client.mutate("registry.update", moved).await;
    proxy.stall(false);
    let late = testing.await.unwrap();
    assert_eq!(late.code(), "CONFLICT", "{late:?}");
    assert_eq!(one(&client, &id).await, moved);
}

#[tokio::test]
async fn whoever_uses_a_registry_is_listed_when_it_is_not_removed() {
    let purser = Purser::start().await;
    let client = purser.client();
    let things = Things::make(&client, "used").await;
    let pull = json!({"image": "127.0.0.1:1/other", "serverId": things.server});
    let second = client.mutate("image.pull", pull).await["jobId"].clone();
    let remove = json!({"registryId": things.registry});
    let answer = client.trpc_mutation("registry.remove", &remove).await;
    let error = refused(&answer, "CONFLICT", Some("registry.remove"));
    assert_eq!(error["data"]["usedBy"], json!({"jobs": [things.job, second], "total": 2}));
    assert!(error["message"].as_str().unwrap().contains(&things.job), "{error}");
    let by_rpc = client.rpc("registry.remove", &remove).await.error();
    assert_eq!(by_rpc["data"], error["data"]);
    let forced = json!({"registryId": things.registry, "force": true});
    assert_eq!(client.mutate("registry.remove", forced).await["registryId"], things.registry.as_str());
    assert_eq!(client.query("registry.all", Value::Null).await, json!([]));
    let idle = client.mutate("registry.create", registry("idle")).await["registryId"].clone();
    client.mutate("registry.remove", json!({"registryId": idle})).await;
}

/// Half of an image has come when its entry gets another password, and then is removed.
#[tokio::test]
async fn a_job_under_way_ends_with_the_credential_that_it_began_with_and_the_next_uses_the_new_one() {
    const SIZE: usize = 12_000_000;
    let (bed, road) = (Testbed::get(), Road::start().await);
    let user = bed.user(Kind::Symbols);
    let image = image::in_registry(&bed.host_b(), &bed.registries.basic, "under-way", SIZE, Some(user)).await;
    let proxy = BreakableProxy::start(&bed.registries.basic).await;
    let entry = road.entry(&proxy.address().to_string(), user).await;
    let reference = format!("{}/{}:v1", proxy.address(), image.name);
    let begin = async || {
        proxy.allow(SIZE / 6);
        let input = json!({"image": reference, "serverId": road.host()});
        let job = road.client.mutate("image.pull", input).await;
        let moved = |job: &Value| job["targets"][0]["progress"]["downloadedBytes"].as_u64() > Some(0);
        let job = road.job_when(&job, moved).await;
        assert_eq!(job["targets"][0]["registryId"], entry.as_str());
        job
    };
    let job = begin().await;
    let wrong = json!({"registryId": entry, "password": "not the password"});
    road.client.mutate("registry.update", wrong).await;
    proxy.allow(2 * SIZE);
    let tested = road.test(&entry, None).await;
    assert_eq!(tested.diagnosis(), "unauthorized", "{tested:?}");
    let next = json!({"image": format!("{}/{}:other", proxy.address(), image.name),
        "serverId": road.host(), "wait": true});
    let next = road.client.mutate("image.pull", next).await;
    assert_eq!(failed(&next)["error"]["code"], "unauthorized", "{next:#}");
    assert_eq!(succeeded(&road.ended(&job).await)["result"]["digest"], image.digest);
    assert!(bed.host_a().remove(&reference).await);

    let right = json!({"registryId": entry, "password": user.password});
    road.client.mutate("registry.update", right).await;
    let job = begin().await;
    let remove = json!({"registryId": entry});
    let used = road.client.trpc_mutation("registry.remove", &remove).await;
    assert_eq!(used.error()["data"]["usedBy"]["jobs"], json!([job["jobId"]]));
    road.client.mutate("registry.remove", json!({"registryId": entry, "force": true})).await;
    proxy.allow(2 * SIZE);
    let target = road.ended(&job).await;
    assert_eq!(succeeded(&target)["result"]["digest"], image.digest);
    bed.host_a().remove(&reference).await;
}
