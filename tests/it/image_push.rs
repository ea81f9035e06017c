//! `image.push` and `image.all`: under which name, with what result, and how a refusal looks.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use purser_tests::{
    Client, Engine, Road, Testbed, User,
    image::Local,
    road::{failed, succeeded},
    unique,
    user::Kind,
};
use serde_json::{Value, json};

on_each_engine!(
    what_is_pushed_is_what_the_registry_has,
    the_entrys_prefix_namespace_or_username_names_the_target,
    a_wrong_password_ends_a_push_at_once_and_leaves_no_name,
    an_image_that_the_host_has_not_is_not_found,
    a_reader_may_not_push_and_hears_it_quickly,
);

/// As Docker pushes it, or Podman.
const MANIFESTS: &str = "application/vnd.docker.distribution.manifest.v2+json, \
                         application/vnd.oci.image.manifest.v1+json";

/// The digest that a registry with basic authentication, or with none, has under `image`.
async fn digest_at_registry(image: &str, user: &User) -> Option<String> {
    let (registry, rest) = image.split_once('/').unwrap();
    let (name, tag) = rest.rsplit_once(':').unwrap();
    let headers = [("authorization", user.basic()), ("accept", MANIFESTS.to_owned())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let client = Client::new(&format!("http://{registry}"));
    let answer =
        client.send(Method::HEAD, &format!("/v2/{name}/manifests/{tag}"), &headers, "").await.unwrap();
    let digest = answer.headers.get("docker-content-digest").filter(|_| answer.status == StatusCode::OK)?;
    Some(digest.to_str().unwrap().to_owned())
}

async fn what_is_pushed_is_what_the_registry_has(engine: Engine) {
    let (bed, road) = (Testbed::get(), Road::on(&engine).await);
    let user = bed.user(Kind::Symbols);
    let entry = road.entry(&bed.registries.basic, user).await;
    let local = Local::make(&engine, "push", 1000).await;
    let job = road.push(&local.repository, &entry, Value::Null).await;
    let target = succeeded(&job);
    let name = format!("{}/{}/{}:latest", bed.registries.basic, user.username, local.repository);
    assert_eq!((&job["kind"], &target["image"]), (&json!("push"), &json!(name)));
    assert_eq!((&target["registryId"], &target["credentials"]), (&json!(entry), &json!("entry")));
    let digest = target["result"]["digest"].as_str().expect("read back");
    assert_eq!(digest_at_registry(&name, user).await.as_deref(), Some(digest), "{target:#}");

    // Under an image's id and again: nothing to do, the same answer.
    let again = road.push(&local.repository, &entry, json!({"tag": "v2"})).await;
    assert_eq!(succeeded(&again)["result"]["digest"], digest);
}

/// What an entry makes of a local image's name, pushed for real.
async fn the_entrys_prefix_namespace_or_username_names_the_target(engine: Engine) {
    let (bed, road) = (Testbed::get(), Road::on(&engine).await);
    let (open, plain) = (&bed.registries.open, bed.user(Kind::Plain));
    let local = Local::make(&engine, "below/named", 100).await;
    let last = local.repository.rsplit('/').next().unwrap();
    let org = unique("org");
    for (url, username, prefix, path) in [
        (open.clone(), "plain", Value::Null, "plain/".to_owned()),
        (format!("{open}/{org}"), "plain", Value::Null, format!("{org}/")),
        (open.clone(), "plain", json!(format!("{org}/")), format!("{org}/")),
        (open.clone(), "plain", json!(format!("{open}/{org}/")), format!("{org}/")),
        (open.clone(), "plain", json!(format!("{open}/")), String::new()),
        (open.clone(), "_json_key", Value::Null, String::new()),
        (open.clone(), "robot$ci", Value::Null, String::new()),
        (open.clone(), "AWS", Value::Null, String::new()),
    ] {
        let input = json!({
            "registryName": unique("prefix"), "registryUrl": url,
            "username": username, "password": "of no use", "imagePrefix": prefix,
        });
        let entry = road.client.mutate("registry.create", input).await;
        let job = road.push(&local.repository, entry["registryId"].as_str().unwrap(), Value::Null).await;
        let target = succeeded(&job);
        let name = format!("{open}/{path}{last}:latest");
        assert_eq!(target["image"], name, "{username} {prefix}");
        let there = digest_at_registry(&name, plain).await;
        assert_eq!(there.as_deref(), target["result"]["digest"].as_str(), "{name}");
    }
    let entry = road.entry(open, plain).await;
    let given = json!({"repository": format!("{org}/service"), "tag": "v7"});
    let job = road.push(&local.repository, &entry, given).await;
    assert_eq!(succeeded(&job)["image"], format!("{open}/{org}/service:v7"));
    for (field, bad) in [
        ("repository", json!({"repository": "a:b"})),
        ("repository", json!({"repository": "../x"})),
        ("tag", json!({"tag": "-x"})),
        ("image", json!({"image": "x/../../info#"})),
    ] {
        let mut input = json!({"image": local.repository, "serverId": road.host(), "registryId": entry});
        input.as_object_mut().unwrap().extend(bad.as_object().unwrap().clone());
        let refused = road.client.trpc_mutation("image.push", &input).await;
        assert!(refused.error()["data"]["zodError"]["fieldErrors"][field].is_array(), "{bad}: {refused:?}");
    }
}

/// An engine left alone repeats a refused login for most of a minute.
async fn a_wrong_password_ends_a_push_at_once_and_leaves_no_name(engine: Engine) {
    let (bed, road) = (Testbed::get(), Road::on(&engine).await);
    let local = Local::make(&engine, "refused", 100).await;
    for registry in [&bed.registries.basic, &bed.registries.token] {
        let entry = road.entry_with(registry, "plain", "not the password").await;
        let begun = Instant::now();
        let job = road.push(&local.repository, &entry, Value::Null).await;
        assert!(begun.elapsed() < Duration::from_secs(30), "took {:?}", begun.elapsed());
        let target = failed(&job);
        assert_eq!(target["error"]["code"], "unauthorized", "{target:#}");
        let tags = engine.tags_of(&format!("{registry}/plain/{}", local.repository)).await;
        assert!(tags.is_empty(), "a name was left: {tags:?}");
    }
}

async fn an_image_that_the_host_has_not_is_not_found(engine: Engine) {
    let (bed, road) = (Testbed::get(), Road::on(&engine).await);
    let entry = road.entry(&bed.registries.basic, bed.user(Kind::Plain)).await;
    let absent = unique("absent");
    let job = road.push(&absent, &entry, Value::Null).await;
    let error = &failed(&job)["error"];
    assert_eq!(error["code"], "not_found", "{error:#}");
    assert!(error["message"].as_str().unwrap().contains(&absent), "{error:#}");
    for (field, unknown) in [("serverId", "srv_unknown"), ("registryId", "reg_unknown")] {
        let mut input = json!({"image": absent, "serverId": road.host(), "registryId": entry});
        input[field] = json!(unknown);
        let answer = road.client.trpc_mutation("image.push", &input).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{field}: {answer:?}");
    }
}

async fn a_reader_may_not_push_and_hears_it_quickly(engine: Engine) {
    let (bed, road) = (Testbed::get(), Road::on(&engine).await);
    let entry = road.entry(&bed.registries.token, bed.user(Kind::Reader)).await;
    let local = Local::make(&engine, "reader", 100).await;
    let begun = Instant::now();
    let job = road.push(&local.repository, &entry, Value::Null).await;
    let error = &failed(&job)["error"];
    let code = error["code"].as_str().unwrap();
    assert!(["forbidden", "insufficient_scope"].contains(&code), "{error:#}");
    assert!(begun.elapsed() < Duration::from_secs(30), "took {:?}", begun.elapsed());
    let name = format!("{}/reader/{}", bed.registries.token, local.repository);
    assert!(engine.tags_of(&name).await.is_empty(), "a name was left");
}

#[tokio::test]
async fn the_images_of_a_host_are_listed_by_the_host() {
    let (bed, road) = (Testbed::get(), Road::to_two_hosts().await);
    let local = Local::make(&bed.host_a(), "listed", 1000).await;
    let named = format!("{}:latest", local.repository);
    let mut found = Vec::new();
    for server in &road.servers {
        let images = road.client.query("image.all", json!({"serverId": server})).await;
        let all = images.as_array().unwrap().clone();
        found.push(all.into_iter().find(|image| image["tags"].as_array().unwrap().contains(&json!(named))));
    }
    let image = found[0].as_ref().expect("on the host that has it");
    assert_eq!(image["imageId"], local.id);
    assert!(image["sizeBytes"].as_u64().is_some_and(|size| size >= 1000), "{image:#}");
    assert!(image["createdAt"].as_str().unwrap().ends_with("Z") && image["digests"].is_array(), "{image:#}");
    assert!(found[1].is_none(), "not on the other");

    road.stop_agent(1).await;
    let offline = road.client.trpc_query("image.all", &json!({"serverId": road.servers[1]})).await;
    assert_eq!(offline.status, StatusCode::PRECONDITION_FAILED, "{offline:?}");
    assert_eq!(offline.diagnosis(), "server_offline");
    let unknown = road.client.trpc_query("image.all", &json!({"serverId": "srv_unknown"})).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}
