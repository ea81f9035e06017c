//! `image.pull`: what comes onto which host, with what result.

use http::StatusCode;
use purser_tests::{
    Agent, BreakableProxy, Engine, Purser, Road, Testbed,
    image::{self, Published},
    road::{failed, succeeded},
    unique,
    user::Kind,
};
use serde_json::{Value, json};

on_each_engine!(
    a_private_image_is_pulled_and_its_digest_is_the_registrys,
    an_image_without_a_tag_is_exactly_one_tag,
    a_missing_tag_or_repository_is_not_found,
    a_platform_that_the_image_has_not_is_never_another_one,
    wait_holds_the_answer_until_the_end,
);

/// A private image: on the registry with token authentication nobody gets it without a login.
async fn private(name: &str) -> Published {
    let bed = Testbed::get();
    let owner = bed.user(Kind::Plain);
    image::in_registry(&bed.host_b(), &bed.registries.token, name, 1000, Some(owner)).await
}

async fn open(name: &str) -> Published {
    let bed = Testbed::get();
    image::in_registry(&bed.host_b(), &bed.registries.open, name, 1000, None).await
}

async fn a_private_image_is_pulled_and_its_digest_is_the_registrys(engine: Engine) {
    let (bed, road) = (Testbed::get(), Road::on(&engine).await);
    let entry = road.entry(&bed.registries.token, bed.user(Kind::Symbols)).await;
    let image = private("private").await;
    let job = road.pull(&image.reference(), Value::Null).await;
    let target = succeeded(&job);
    assert_eq!(job["kind"], "pull");
    assert_eq!(target["image"], image.reference());
    assert_eq!(target["serverId"], road.host());
    assert_eq!((&target["registryId"], &target["credentials"]), (&json!(entry), &json!("entry")));
    assert_eq!(target["attempts"], 1);
    assert_eq!(target["result"]["digest"], image.digest, "{target:#}");
    assert!(target["result"]["sizeBytes"].as_u64().is_some_and(|size| size >= 1000), "{target:#}");
    assert!(target["result"]["durationMs"].is_u64() && target["error"].is_null(), "{target:#}");
    assert_eq!(job["request"]["image"], image.reference());
    assert!(job["startedAt"].as_str() >= job["createdAt"].as_str());
    let local = engine.inspect(&image.reference()).await.expect("the image is on the host");
    assert_eq!(local["RepoDigests"], json!([image.by_digest()]));
    assert!(bed.host_b().inspect(&image.reference()).await.is_none(), "only on the host that was named");

    // Again: it is there already, and the answer is the same.
    let again = road.pull(&image.reference(), json!({"registryId": entry})).await;
    assert_eq!(succeeded(&again)["result"]["digest"], image.digest);
    engine.remove(&image.reference()).await;

    let job = road.pull(&image.by_digest(), Value::Null).await;
    assert_eq!(succeeded(&job)["result"]["digest"], image.digest, "by digest");
    assert!(engine.inspect(&image.by_digest()).await.is_some());
    engine.remove(&image.by_digest()).await;
    let wrong = format!("{}@sha256:{}", image.repository, "0".repeat(64));
    let job = road.pull(&wrong, Value::Null).await;
    assert_eq!(failed(&job)["error"]["code"], "not_found", "{job:#}");
}

async fn an_image_without_a_tag_is_exactly_one_tag(engine: Engine) {
    let (bed, road) = (Testbed::get(), Road::on(&engine).await);
    let maker = bed.host_b();
    let repository = format!("{}/{}", bed.registries.open, unique("tags"));
    for tag in ["latest", "v1", "v2"] {
        maker.make_image(&repository, tag, 100).await;
        maker.push(&repository, tag, None).await.unwrap();
        maker.remove(&format!("{repository}:{tag}")).await;
    }
    let job = road.pull(&repository, Value::Null).await;
    assert_eq!(succeeded(&job)["image"], format!("{repository}:latest"));
    assert_eq!(engine.tags_of(&repository).await, ["latest"]);
    let job = road.pull(&format!("{repository}:v2"), Value::Null).await;
    assert_eq!(succeeded(&job)["credentials"], "anonymous");
    assert_eq!(engine.tags_of(&repository).await, ["latest", "v2"]);
    for tag in ["latest", "v2"] {
        engine.remove(&format!("{repository}:{tag}")).await;
    }
}

async fn a_missing_tag_or_repository_is_not_found(engine: Engine) {
    let (bed, road) = (Testbed::get(), Road::on(&engine).await);
    let image = open("missing").await;
    let absent = format!("{}/{}", bed.registries.open, unique("absent"));
    for reference in [format!("{}:v9", image.repository), absent] {
        let job = road.pull(&reference, Value::Null).await;
        let target = failed(&job);
        assert_eq!(target["error"]["code"], "not_found", "{target:#}");
        assert_eq!(target["credentials"], "anonymous");
    }
}

async fn a_platform_that_the_image_has_not_is_never_another_one(engine: Engine) {
    let road = Road::on(&engine).await;
    let image = open("platform").await;
    let right = road.pull(&image.reference(), json!({"platform": "linux/amd64"})).await;
    assert_eq!(succeeded(&right)["result"]["digest"], image.digest);
    engine.remove(&image.reference()).await;
    let wrong = road.pull(&image.reference(), json!({"platform": "linux/arm64"})).await;
    let target = failed(&wrong);
    assert_eq!(target["error"]["code"], "not_found", "{target:#}");
    let said = target["error"].to_string();
    assert!(said.contains("arm64"), "{said}");
    engine.remove(&image.reference()).await;
    for bad in ["linux", "linux/", "linux/amd64/v8/x", "linux/../info", "Linux/AMD64"] {
        let input = json!({"image": image.reference(), "serverId": road.host(), "platform": bad});
        let refused = road.client.trpc_mutation("image.pull", &input).await;
        let fields = &refused.error()["data"]["zodError"]["fieldErrors"];
        assert!(fields["platform"].is_array(), "{bad}: {refused:?}");
    }
}

async fn wait_holds_the_answer_until_the_end(engine: Engine) {
    let road = Road::on(&engine).await;
    let image = open("wait").await;
    for wait in [json!(true), json!(false), Value::Null] {
        let input = json!({"image": image.reference(), "serverId": road.host(), "wait": wait});
        let job = road.client.mutate("image.pull", input).await;
        if wait == true {
            succeeded(&job);
        } else {
            assert!(job["status"] == "queued" || job["status"] == "running", "{job:#}");
            succeeded(&road.ended(&job).await);
        }
        engine.remove(&image.reference()).await;
    }
}

#[tokio::test]
async fn progress_is_live_and_true() {
    const SIZE: usize = 4_000_000;
    let (bed, road) = (Testbed::get(), Road::start().await);
    let image = image::in_registry(&bed.host_b(), &bed.registries.open, "slow", SIZE, None).await;
    let proxy = BreakableProxy::start(&bed.registries.open).await;
    let reference = format!("{}/{}:v1", proxy.address(), image.name);
    proxy.allow(SIZE / 6);
    let input = json!({"image": reference, "serverId": road.host()});
    let job = road.client.mutate("image.pull", input).await;
    let mut before = 0;
    for _ in 0..4 {
        // The engine says nothing of less than 512 KiB, and nothing of what comes just after it said something: so it
        // drips on until that is told.
        let moved = |job: &Value| {
            proxy.allow(SIZE / 100);
            job["targets"][0]["progress"]["downloadedBytes"].as_u64() > Some(before)
        };
        let job = road.job_when(&job, moved).await;
        assert_eq!((&job["status"], &job["targets"][0]["status"]), (&json!("running"), &json!("running")));
        let at = &job["targets"][0]["progress"];
        assert_eq!(at["phase"], "downloading", "{at:#}");
        assert_eq!((&at["layersTotal"], &at["layersDone"]), (&json!(1), &json!(0)), "{at:#}");
        let (downloaded, total) =
            (at["downloadedBytes"].as_u64().unwrap(), at["totalBytes"].as_u64().unwrap());
        assert!(total.abs_diff(SIZE as u64) < SIZE as u64 / 50, "{at:#}");
        assert!(downloaded <= proxy.recording().to_client.len() as u64, "more than came through: {at:#}");
        assert_eq!(at["percent"], downloaded * 100 / total, "{at:#}");
        before = downloaded;
    }
    assert!(bed.host_a().inspect(&reference).await.is_none(), "half an image is none");
    proxy.allow(usize::MAX);
    let job = road.ended(&job).await;
    assert_eq!(succeeded(&job)["result"]["digest"], image.digest);
    bed.host_a().remove(&reference).await;
}

#[tokio::test]
async fn two_hosts_are_two_targets_and_labels_choose_them() {
    let (bed, road) = (Testbed::get(), Road::to_two_hosts().await);
    let image = open("fleet").await;
    let hosts = [bed.host_a(), bed.host_b()];
    let label = |server: &str, value: &str| json!({"serverId": server, "labels": {"role": value, "x": "1"}});
    road.client.mutate("server.update", label(&road.servers[0], "web")).await;
    road.client.mutate("server.update", label(&road.servers[1], "db")).await;
    let [first, second] = [&road.servers[0], &road.servers[1]];
    for (choice, expected) in [
        // A server that is named twice has one target.
        (json!({"serverIds": [first, second, first]}), vec![first, second]),
        (json!({"labels": {"x": "1"}}), vec![first, second]),
        (json!({"labels": {"x": "1", "role": "db"}}), vec![second]),
    ] {
        let mut input = choice.clone();
        input["image"] = json!(image.reference());
        input["wait"] = json!(true);
        let job = road.client.mutate("image.pull", input).await;
        assert_eq!(job["status"], "succeeded", "{job:#}");
        let mut servers: Vec<_> =
            job["targets"].as_array().unwrap().iter().map(|target| target["serverId"].clone()).collect();
        servers.sort_by_key(ToString::to_string);
        let mut expected: Vec<_> = expected.into_iter().map(|server| json!(server)).collect();
        expected.sort_by_key(ToString::to_string);
        assert_eq!(servers, expected, "{choice}");
        for target in job["targets"].as_array().unwrap() {
            assert_eq!(target["result"]["digest"], image.digest);
            let host = usize::from(target["serverId"] != **first);
            assert!(hosts[host].remove(&image.reference()).await, "{choice}: not on host {host}");
        }
    }
}

#[tokio::test]
async fn servers_that_cannot_be_chosen_are_refused_and_nothing_is_pulled() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let other = Purser::start().await;
    let (_agent, foreign) = Agent::join(&other, &bed.host_b()).await;
    let image = open("refused").await;
    for unknown in [json!({"serverId": foreign}), json!({"serverIds": [road.host(), foreign]})] {
        let mut input = unknown.clone();
        input["image"] = json!(image.reference());
        let refused = road.client.trpc_mutation("image.pull", &input).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{unknown}: {refused:?}");
        assert!(!refused.text().contains(&foreign), "no echo: {refused:?}");
    }
    for (bad, field) in [
        (json!({}), "serverId"),
        (json!({"serverId": road.host(), "serverIds": [road.host()]}), "serverId"),
        (json!({"serverIds": []}), "serverIds"),
        (json!({"labels": {}}), "labels"),
        (json!({"labels": {"no": "one"}}), "labels"),
        (json!({"serverId": road.host(), "maxParallel": 0}), "maxParallel"),
        (json!({"serverId": road.host(), "queueTimeoutSeconds": 604_801}), "queueTimeoutSeconds"),
        (json!({"serverId": road.host(), "stallTimeoutSeconds": 0}), "stallTimeoutSeconds"),
        (json!({"serverId": road.host(), "timeoutSeconds": 86_401}), "timeoutSeconds"),
        (json!({"serverId": road.host(), "image": "docker.io/UPPER/case"}), "image"),
        (json!({"serverId": road.host(), "image": "x/../../info#"}), "image"),
    ] {
        let mut input = json!({"image": image.reference()});
        input.as_object_mut().unwrap().extend(bad.as_object().unwrap().clone());
        let refused = road.client.trpc_mutation("image.pull", &input).await;
        let fields = &refused.error()["data"]["zodError"]["fieldErrors"];
        assert!(fields[field].is_array(), "{bad}: {refused:?}");
    }
    let jobs = road.client.query("job.all", json!({})).await;
    assert_eq!(jobs["items"], json!([]), "a refused call is no job");
    assert!(bed.host_a().inspect(&image.reference()).await.is_none());
}
