//! Which credential a pull uses, and that it is that one or none: a refusal never becomes an anonymous pull.

use http::StatusCode;
use purser_tests::{
    Agent, Canned, Road, Testbed, User,
    image::{self, Published},
    road::{failed, succeeded},
    scan_for_secret, unique,
    user::Kind,
};
use serde_json::{Value, json};

const WRONG: &str = "not the password";

/// An image on the registry with token authentication; anyone may pull it when `name` begins with `public/`.
async fn on_token_registry(name: &str) -> Published {
    let bed = Testbed::get();
    image::in_registry(&bed.host_b(), &bed.registries.token, name, 100, Some(bed.user(Kind::Plain))).await
}

/// Fails as `unauthorized`, and the image did not come.
async fn refused(road: &Road, image: &Published, more: Value) -> Value {
    let job = road.pull(&image.reference(), more).await;
    let target = failed(&job);
    assert_eq!(target["error"]["code"], "unauthorized", "{target:#}");
    assert!(Testbed::get().host_a().inspect(&image.reference()).await.is_none(), "it came all the same");
    target.clone()
}

/// Succeeds; the image is taken from the host again.
async fn pulled(road: &Road, image: &Published, more: Value) -> Value {
    let job = road.pull(&image.reference(), more).await;
    let target = succeeded(&job);
    assert_eq!(target["result"]["digest"], image.digest);
    assert!(Testbed::get().host_a().remove(&image.reference()).await, "it is not there");
    target.clone()
}

#[tokio::test]
async fn an_entry_that_lost_its_password_never_becomes_an_anonymous_pull() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let image = on_token_registry("public/lost").await;
    let entry = road.entry(&bed.registries.token, bed.user(Kind::Plain)).await;
    let row = road.client.mutate("server.create", json!({"name": unique("host")})).await;
    let asked = json!({"image": image.reference(), "serverId": row["serverId"], "registryId": entry});
    let job = road.client.mutate("image.pull", asked).await;
    assert_eq!(job["targets"][0]["credentials"], "entry", "{job:#}");
    let cleared = json!({"registryId": entry, "username": null, "password": null});
    road.client.mutate("registry.update", cleared).await;
    let _agent = Agent::builder(&road.purser, &bed.host_a(), row["joinToken"].as_str()).start();
    let job = road.ended(&job).await;
    let said = failed(&job)["error"]["message"].as_str().unwrap().to_owned();
    assert!(said.contains("no password any more"), "{said}");
    assert!(bed.host_a().inspect(&image.reference()).await.is_none(), "it came all the same");
}

/// What cannot be opened just now is no failure of the job.
#[tokio::test]
async fn a_job_whose_credential_cannot_be_opened_waits_until_it_can() {
    let bed = Testbed::get();
    let mut road = Road::start().await;
    let user = bed.user(Kind::Plain);
    let image = image::in_registry(&bed.host_b(), &bed.registries.basic, "vault", 100, Some(user)).await;
    let entry = road.entry(&bed.registries.basic, user).await;
    road.stop_agent(0).await;
    let asked = json!({"image": image.reference(), "serverId": road.host()});
    let job = road.client.mutate("image.pull", asked).await;
    let of_entry = format!("WHERE registry_id = '{entry}'");
    let sealed = road.purser.execute_sql(&format!("SELECT sealed_password FROM registry {of_entry}"));
    // While it does not run, since it may keep rows in memory.
    road.purser.kill9();
    road.purser.execute_sql(&format!("UPDATE registry SET sealed_password = 'v1.damaged' {of_entry}"));
    road.purser.restart().await;
    road.agents[0].restart();
    road.purser.await_log("preparing a target").await;
    let waiting = road.job_when(&job, |job| job["targets"][0]["nextAttemptAt"].is_string()).await;
    let target = &waiting["targets"][0];
    assert_eq!((&target["status"], &target["attempts"]), (&json!("queued"), &json!(0)), "{waiting:#}");
    // A test is waited for, and told.
    let tested = road.test(&entry, Some(road.host())).await;
    assert!(!tested.status.is_success(), "{tested:?}");
    road.purser.kill9();
    road.purser.execute_sql(&format!("UPDATE registry SET sealed_password = '{sealed}' {of_entry}"));
    road.purser.restart().await;
    let ended = road.ended(&job).await;
    assert_eq!(succeeded(&ended)["attempts"], 1, "{ended:#}");
    bed.host_a().remove(&image.reference()).await;
}

#[tokio::test]
async fn a_wrong_password_never_becomes_an_anonymous_pull() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let image = on_token_registry("public/wrong").await;
    let asked_before = bed.token_requests(&image.name).len();
    assert_eq!(pulled(&road, &image, Value::Null).await["credentials"], "anonymous", "anyone may");

    let anonymous = bed.token_requests(&image.name).len();
    assert!(anonymous > asked_before);
    let auth = json!({"auth": {"username": "plain", "password": WRONG}});
    assert_eq!(refused(&road, &image, auth).await["credentials"], "oneTime");
    let entry = road.entry_with(&bed.registries.token, "plain", WRONG).await;
    for more in [Value::Null, json!({"registryId": entry})] {
        let target = refused(&road, &image, more).await;
        assert_eq!((&target["credentials"], &target["registryId"]), (&json!("entry"), &json!(entry)));
    }
    // A nasty one, too: what an engine cannot decode it takes for no credential.
    let nasty = json!({"auth": {"username": "plain", "password": "~~~>>>???ÿÿÿ"}});
    refused(&road, &image, nasty).await;
    let asked = bed.token_requests(&image.name).split_off(anonymous);
    assert!(!asked.is_empty() && asked.iter().all(|request| request.credentials_sent), "{asked:#?}");
    assert!(asked.iter().all(|request| request.status == 401), "{asked:#?}");
}

#[tokio::test]
async fn a_private_image_without_a_credential_fails() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let user = bed.user(Kind::Plain);
    for registry in [&bed.registries.basic, &bed.registries.token] {
        let image = image::in_registry(&bed.host_b(), registry, "absent", 100, Some(user)).await;
        // Of the same host, and for another namespace.
        road.entry(&format!("{registry}/{}", unique("team")), user).await;
        let job = road.pull(&image.reference(), Value::Null).await;
        let target = failed(&job);
        assert_eq!((&target["credentials"], &target["registryId"]), (&json!("anonymous"), &Value::Null));
        let code = target["error"]["code"].as_str().unwrap();
        assert!(["unauthorized", "forbidden", "insufficient_scope"].contains(&code), "{target:#}");
        // No word of a credential that was refused, or of a host that would not fit.
        let error = &target["error"];
        assert!(error["message"].as_str().unwrap().contains("without credentials"), "{error:#}");
        assert!(error["advice"].as_str().unwrap().contains("registry.match"), "{error:#}");
        assert!(bed.host_a().inspect(&image.reference()).await.is_none());
    }
}

#[tokio::test]
async fn a_wrong_one_time_password_is_not_replaced_by_a_stored_right_one() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let user = bed.user(Kind::Symbols);
    road.entry(&bed.registries.token, user).await;
    let image = on_token_registry("one-time").await;
    refused(&road, &image, json!({"auth": {"username": user.username, "password": WRONG}})).await;
    let right = json!({"auth": {"username": user.username, "password": user.password}});
    let target = pulled(&road, &image, right).await;
    assert_eq!((&target["credentials"], &target["registryId"]), (&json!("oneTime"), &Value::Null));
}

#[tokio::test]
async fn the_entry_with_the_longest_namespace_is_used() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let (user, token) = (bed.user(Kind::Plain), &bed.registries.token);
    let team = unique("team");
    let (inside, outside) =
        (on_token_registry(&format!("{team}/app")).await, on_token_registry(&format!("{team}x/app")).await);
    let whole = road.entry_with(token, "plain", WRONG).await;
    let own = road.entry(&format!("{token}/{team}"), user).await;
    assert_eq!(pulled(&road, &inside, Value::Null).await["registryId"], own);
    assert_eq!(refused(&road, &outside, Value::Null).await["registryId"], whole);
    assert_eq!(
        pulled(&road, &outside, json!({"registryId": own})).await["registryId"],
        own,
        "the named wins"
    );
}

#[tokio::test]
async fn a_named_entry_of_another_registry_is_refused() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let other = road.entry(&bed.registries.basic, bed.user(Kind::Plain)).await;
    let image = on_token_registry("public/named").await;
    let input = |more: Value| {
        let mut input = json!({"image": image.reference(), "serverId": road.host()});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    let mismatch = road.client.trpc_mutation("image.pull", &input(json!({"registryId": other}))).await;
    assert_eq!(mismatch.code(), "BAD_REQUEST");
    assert!(mismatch.error()["data"]["zodError"]["fieldErrors"]["registryId"].is_array(), "{mismatch:?}");
    let unknown = road.client.trpc_mutation("image.pull", &input(json!({"registryId": "reg_unknown"}))).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{unknown:?}");
    let auth = json!({"username": "a", "password": "bcdefg"});
    let two =
        road.client.trpc_mutation("image.pull", &input(json!({"registryId": other, "auth": auth}))).await;
    assert_eq!(two.code(), "BAD_REQUEST", "{two:?}");
    assert_eq!(road.client.query("job.all", json!({})).await["items"], json!([]));
}

#[tokio::test]
async fn a_name_without_a_registry_comes_from_the_default_one() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let entry = road.entry(&bed.registries.token, bed.user(Kind::Plain)).await;
    road.client.mutate("registry.update", json!({"registryId": entry, "isDefault": true})).await;
    let image = on_token_registry("default").await;
    let job = road.pull(&format!("{}:v1", image.name), Value::Null).await;
    let target = succeeded(&job);
    assert_eq!((&target["image"], &target["registryId"]), (&json!(image.reference()), &json!(entry)));
    assert!(bed.host_a().remove(&image.reference()).await);
}

#[tokio::test]
async fn an_entry_without_a_credential_says_anonymous() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let input = json!({"registryName": unique("blank"), "registryUrl": bed.registries.token});
    let entry = road.client.mutate("registry.create", input).await["registryId"].clone();
    let image = on_token_registry("public/blank").await;
    let target = pulled(&road, &image, Value::Null).await;
    assert_eq!((&target["credentials"], &target["registryId"]), (&json!("anonymous"), &entry));
}

#[tokio::test]
async fn the_newest_password_is_used_at_once() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let user = bed.user(Kind::Symbols);
    let image = on_token_registry("newest").await;
    let entry = road.entry(&bed.registries.token, user).await;
    let update = async |password: &str| {
        let change = json!({"registryId": entry, "password": password});
        road.client.mutate("registry.update", change).await;
    };
    pulled(&road, &image, Value::Null).await;
    for _ in 0..2 {
        update(WRONG).await;
        refused(&road, &image, Value::Null).await;
        assert_eq!(road.test(&entry, Some(road.host())).await.diagnosis(), "unauthorized");
        update(&user.password).await;
        pulled(&road, &image, Value::Null).await;
    }
}

/// A queued job keeps no copy of the password: it is opened when the host takes the job.
#[tokio::test]
async fn a_password_that_changes_while_a_job_waits_is_the_one_used() {
    let (bed, mut road) = (Testbed::get(), Road::start().await);
    let user = bed.user(Kind::Symbols);
    let image = on_token_registry("waits").await;
    let entry = road.entry_with(&bed.registries.token, &user.username, WRONG).await;
    road.stop_agent(0).await;
    let input = json!({"image": image.reference(), "serverId": road.host()});
    let job = road.client.mutate("image.pull", input).await;
    assert_eq!(job["status"], "queued");
    let change = json!({"registryId": entry, "password": user.password});
    road.client.mutate("registry.update", change).await;
    road.agents[0].restart();
    succeeded(&road.ended(&job).await);
    bed.host_a().remove(&image.reference()).await;
}

#[tokio::test]
async fn a_secret_does_not_follow_an_entry_to_another_host() {
    let (bed, mut road) = (Testbed::get(), Road::start().await);
    let user = bed.user(Kind::Symbols);
    let image = on_token_registry("moves").await;
    let entry = road.entry(&bed.registries.token, user).await;
    let elsewhere = Canned::with_realm(&bed.registries.realm).await;
    road.stop_agent(0).await;
    let input = json!({"image": image.reference(), "serverId": road.host(), "registryId": entry});
    let job = road.client.mutate("image.pull", input).await;
    let url = elsewhere.address().to_string();
    let without = json!({"registryId": entry, "registryUrl": url});
    let refused = road.client.trpc_mutation("registry.update", &without).await;
    assert!(refused.error()["data"]["zodError"]["fieldErrors"]["password"].is_array(), "{refused:?}");
    let moved = json!({"registryId": entry, "registryUrl": url, "password": "another password"});
    road.client.mutate("registry.update", moved).await;
    let asked = bed.token_requests(&image.name).len();
    road.agents[0].restart();
    let job = road.ended(&job).await;
    let target = failed(&job);
    assert!(target["error"]["message"].as_str().unwrap().contains("another host"), "{target:#}");
    assert_eq!(bed.token_requests(&image.name).len(), asked, "nobody was asked");
    assert!(elsewhere.requests().is_empty(), "{:?}", elsewhere.requests());
    assert_eq!(scan_for_secret(&elsewhere.requests().join("\n"), &user.password), []);
}

/// Sealed while the job waits, gone when it ended: however it ended.
#[tokio::test]
async fn a_one_time_password_is_erased_at_the_end() {
    let (bed, mut road) = (Testbed::get(), Road::start().await);
    let user: &User = bed.user(Kind::Plain);
    let image = on_token_registry("erased").await;
    let sealed = || {
        let database = road.purser.database()?;
        Some(database.value("SELECT count(*) FROM job_target WHERE sealed_auth IS NOT NULL"))
    };
    road.stop_agent(0).await;
    let mut jobs = Vec::new();
    for password in [&user.password, WRONG, "to be cancelled"] {
        let auth = json!({"username": user.username, "password": password});
        let input = json!({"image": image.reference(), "serverId": road.host(), "auth": auth});
        jobs.push(road.client.mutate("image.pull", input).await);
    }
    assert!(sealed().is_none_or(|count| count == "3"), "{:?}", sealed());
    road.client.mutate("job.cancel", json!({"jobId": jobs[2]["jobId"]})).await;
    assert!(sealed().is_none_or(|count| count == "2"), "{:?}", sealed());
    road.agents[0].restart();
    for (job, status) in jobs.iter().zip(["succeeded", "failed", "cancelled"]) {
        assert_eq!(road.ended(job).await["status"], status);
    }
    assert!(sealed().is_none_or(|count| count == "0"), "{:?}", sealed());
    bed.host_a().remove(&image.reference()).await;
}
