//! `registry.match`: which entry an image is pulled with, why no other, and the same as `image.pull`.

use purser_tests::{Client, Purser, tenant::Grant};
use serde_json::{Value, json};

use crate::answers::{members, refused};

async fn entry(client: &Client, name: &str, url: &str, is_default: bool) -> Value {
    let input = json!({"registryName": name, "registryUrl": url, "isDefault": is_default});
    client.mutate("registry.create", input).await["registryId"].clone()
}

async fn ask(client: &Client, image: &str) -> Value {
    client.query("registry.match", json!({"image": image})).await
}

/// Name and fate of each candidate.
fn fates(answer: &Value) -> Vec<(&str, &str)> {
    let candidates = answer["candidates"].as_array().unwrap();
    candidates
        .iter()
        .map(|one| {
            assert_eq!(members(one), ["chosen", "fate", "reason", "registryId", "registryName"]);
            assert_eq!(one["chosen"] == true, one["fate"] == "chosen", "{one}");
            assert!(one["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{one}");
            (one["registryName"].as_str().unwrap(), one["fate"].as_str().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn every_entry_is_told_its_fate_and_rivals_are_listed() {
    let purser = Purser::start().await;
    let client = purser.client();
    entry(&client, "whole", "ghcr.io", false).await;
    let older = entry(&client, "older", "ghcr.io/myorg", false).await;
    let newer = entry(&client, "newer", "https://GHCR.io/myorg/", false).await;
    entry(&client, "short", "ghcr.io/my", false).await;
    entry(&client, "quay", "quay.io", false).await;
    let answer = ask(&client, "ghcr.io/myorg/team/app:1.2").await;
    assert_eq!(members(&answer), ["candidates", "reason", "reference", "registryId", "rivals"]);
    let reference =
        json!({"registry": "ghcr.io", "repository": "myorg/team/app", "tag": "1.2", "digest": null});
    assert_eq!(answer["reference"], reference);
    assert_eq!((&answer["registryId"], &answer["rivals"]), (&older, &json!([newer])));
    let expected = [
        ("whole", "shorterNamespace"),
        ("older", "chosen"),
        ("newer", "newer"),
        ("short", "otherNamespace"),
        ("quay", "otherHost"),
    ];
    assert_eq!(fates(&answer), expected);
    let reason = answer["reason"].as_str().unwrap();
    assert!(reason.contains("older") && reason.contains("myorg") && reason.contains("oldest"), "{reason}");

    client.mutate("registry.update", json!({"registryId": newer, "isDefault": true})).await;
    let answer = ask(&client, "ghcr.io/myorg/team/app").await;
    assert_eq!((&answer["registryId"], &answer["rivals"]), (&newer, &json!([older])));
    assert_eq!(fates(&answer)[1..3], [("older", "notDefault"), ("newer", "chosen")]);
    assert_eq!(ask(&client, "ghcr.io/myorganization/app").await["candidates"][0]["chosen"], true);
}

#[tokio::test]
async fn names_without_a_registry_go_to_the_default_else_to_docker_hub() {
    let purser = Purser::start().await;
    let client = purser.client();
    let answer = ask(&client, "nginx").await;
    assert_eq!((&answer["registryId"], &answer["candidates"]), (&Value::Null, &json!([])));
    assert_eq!(answer["reference"]["repository"], "library/nginx");
    let reason = answer["reason"].as_str().unwrap();
    assert!(reason.contains("Docker Hub") && reason.contains("without credentials"), "{reason}");

    let hub = entry(&client, "hub", "https://index.docker.io/v1/", false).await;
    assert_eq!(ask(&client, "nginx").await["registryId"], hub);
    let own = entry(&client, "own", "registry.example.com/team", true).await;
    let answer = ask(&client, "nginx").await;
    assert_eq!(answer["registryId"], own);
    assert_eq!(answer["reference"]["registry"], "registry.example.com");
    assert_eq!(answer["reference"]["repository"], "team/nginx");
    assert!(answer["reason"].as_str().unwrap().contains("registry.example.com/team/nginx"), "{answer}");
    assert_eq!(ask(&client, "docker.io/library/nginx").await["registryId"], hub);
    let digest = format!("ghcr.io/a/b@sha256:{}", "0".repeat(64));
    let answer = ask(&client, &digest).await;
    assert_eq!((&answer["registryId"], &answer["reference"]["tag"]), (&Value::Null, &Value::Null));
    refused(
        &client.trpc_query("registry.match", &json!({"image": "x/UPPER"})).await,
        "BAD_REQUEST",
        Some("registry.match"),
    );
}

#[tokio::test]
async fn a_pull_uses_the_entry_that_match_names() {
    let purser = Purser::start().await;
    let client = purser.client();
    let server = client.mutate("server.create", json!({"name": "host"})).await["serverId"].clone();
    for (name, url, is_default) in [
        ("hub", "docker.io", false),
        ("whole", "ghcr.io", false),
        ("org", "ghcr.io/myorg", false),
        ("twin", "ghcr.io/myorg", false),
        ("own", "127.0.0.1:1/team", true),
    ] {
        entry(&client, name, url, is_default).await;
    }
    for image in [
        "nginx",
        "docker.io/nginx",
        "team/app:1",
        "ghcr.io/myorg/app",
        "ghcr.io/myorg2/app",
        "127.0.0.1:1/team/app",
        "127.0.0.1:1/other",
        "quay.io/x/y",
    ] {
        let answer = ask(&client, image).await;
        let job = client.mutate("image.pull", json!({"image": image, "serverId": server})).await;
        let target = &job["targets"][0];
        assert_eq!(target["registryId"], answer["registryId"], "{image}");
        let reference = &answer["reference"];
        let name = format!(
            "{}/{}",
            reference["registry"].as_str().unwrap(),
            reference["repository"].as_str().unwrap()
        );
        assert!(target["image"].as_str().unwrap().starts_with(&name), "{target} {name}");
    }
}

#[tokio::test]
async fn another_organization_is_no_candidate() {
    let purser = Purser::start().await;
    let (client, id) = (purser.client(), purser.organization("other"));
    let other = purser.key_in(&id, Grant::Role("viewer"));
    entry(&client, "mine", "ghcr.io", true).await;
    let answer = ask(&other, "app").await;
    assert_eq!((&answer["registryId"], &answer["candidates"]), (&Value::Null, &json!([])));
    assert_eq!(answer["reference"]["registry"], "docker.io");
}
