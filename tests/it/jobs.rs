//! `job.*`: listing, cancelling, waiting for a host, and what happens to jobs when their server or entry goes.

use std::time::{Duration, Instant};

use http::StatusCode;
use nix::sys::signal::Signal;
use purser_proto_schema::ids::{JobId, RegistryId};
use purser_tests::{
    BreakableProxy, Engine, Purser, Road, Testbed, eventually,
    image::{self, Published},
    road::{failed, given_up, succeeded},
    user::Kind,
};
use serde_json::{Value, json};

async fn open(name: &str, size: usize) -> Published {
    let bed = Testbed::get();
    image::in_registry(&bed.host_b(), &bed.registries.open, name, size, None).await
}

/// Accepts a pull and does not wait for it.
async fn accept(road: &Road, image: &str) -> Value {
    road.client.mutate("image.pull", json!({"image": image, "serverId": road.host()})).await
}

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap().iter();
    items.map(|job| job["jobId"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn jobs_come_newest_first_a_page_at_a_time_and_filtered() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let pending = road.client.mutate("server.create", json!({"name": "pending"})).await["serverId"].clone();
    let image = open("listed", 100).await;
    let mut made = Vec::new();
    for _ in 0..3 {
        let job = road.pull(&image.reference(), Value::Null).await;
        made.push(succeeded(&job)["targetId"].clone());
    }
    let entry = road.entry(&bed.registries.basic, bed.user(Kind::Plain)).await;
    let push = road.push("no-such-image", &entry, Value::Null).await;
    road.test(&entry, Some(road.host())).await.data();
    let waiting = json!({"image": image.reference(), "serverId": pending});
    let queued = road.client.mutate("image.pull", waiting).await;
    let list = async |input: Value| road.client.query("job.all", input).await;

    let all = list(json!({})).await;
    let mut sorted = ids(&all);
    assert_eq!((sorted.len(), &all["nextCursor"]), (6, &Value::Null), "{all:#}");
    assert_eq!(sorted[0], queued["jobId"], "newest first");
    let (mut paged, mut cursor, mut pages) = (Vec::new(), Value::Null, 0);
    loop {
        let page = list(json!({"limit": 2, "cursor": cursor})).await;
        paged.extend(ids(&page));
        pages += 1;
        cursor = page["nextCursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!((&paged, pages), (&sorted, 3), "no job twice, none left out");
    sorted.sort();
    sorted.reverse();
    assert_eq!(paged, sorted);

    assert_eq!(ids(&list(json!({"kind": "pull"})).await).len(), 4);
    assert_eq!(ids(&list(json!({"kind": "push"})).await), [push["jobId"].as_str().unwrap()]);
    assert_eq!(ids(&list(json!({"kind": "testRegistry"})).await).len(), 1);
    assert_eq!(ids(&list(json!({"status": "succeeded"})).await).len(), 4);
    assert_eq!(ids(&list(json!({"status": "failed", "kind": "push"})).await).len(), 1);
    assert_eq!(ids(&list(json!({"serverId": pending})).await), [queued["jobId"].as_str().unwrap()]);
    assert_eq!(ids(&list(json!({"serverId": road.host(), "limit": 100})).await).len(), 5);
    let braced = format!("job_{{{}}}", JobId::generate().uuid().unwrap());
    let cursors = ["abc", "zzz", "job_", "job_x", &RegistryId::generate().to_string(), &braced];
    let bad = cursors.map(|cursor| ("cursor", json!(cursor)));
    for (field, bad) in bad.into_iter().chain([("limit", json!(0)), ("limit", json!(101))]) {
        let refused = road.client.trpc_query("job.all", &json!({field: bad})).await;
        assert!(refused.error()["data"]["zodError"]["fieldErrors"][field].is_array(), "{refused:?}");
    }
    for procedure in ["job.one", "job.cancel"] {
        let input = json!({"jobId": "job_unknown"});
        let answer = match procedure {
            "job.one" => road.client.trpc_query(procedure, &input).await,
            _ => road.client.trpc_mutation(procedure, &input).await,
        };
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{procedure}: {answer:?}");
    }
    bed.host_a().remove(&image.reference()).await;
}

#[tokio::test]
async fn a_job_for_a_host_that_is_away_waits_and_runs_when_it_comes() {
    let (bed, mut road) = (Testbed::get(), Road::start().await);
    let image = open("away", 100).await;
    road.stop_agent(0).await;
    let job = accept(&road, &image.reference()).await;
    let cancelled = accept(&road, &image.reference()).await;
    for job in [&job, &cancelled] {
        assert_eq!((&job["status"], &job["startedAt"]), (&json!("queued"), &Value::Null));
        assert_eq!(job["targets"][0]["attempts"], 0);
    }
    let answer = road.client.mutate("job.cancel", json!({"jobId": cancelled["jobId"]})).await;
    assert_eq!(
        (&answer["status"], &answer["targets"][0]["status"]),
        (&json!("cancelled"), &json!("cancelled"))
    );
    assert!(answer["finishedAt"].is_string());
    road.agents[0].restart();
    let ended = road.ended(&job).await;
    assert_eq!(succeeded(&ended)["result"]["digest"], image.digest);
    let still = road.client.query("job.one", json!({"jobId": cancelled["jobId"]})).await;
    assert_eq!((&still["status"], &still["targets"][0]["attempts"]), (&json!("cancelled"), &json!(0)));
    // Cancelling what has ended changes nothing.
    let ended_before = road.client.mutate("job.cancel", json!({"jobId": job["jobId"]})).await;
    assert_eq!(ended_before, ended);
    bed.host_a().remove(&image.reference()).await;
}

/// The size of an image that hangs halfway: what is left of it is far more than sockets hold by themselves.
const HALVED: usize = 48_000_000;

/// A pull that hangs halfway, through a proxy; the proxy must live as long as the test.
async fn halfway(road: &Road) -> (BreakableProxy, Published, String, Value) {
    let image = open("halfway", HALVED).await;
    let proxy = BreakableProxy::start(&Testbed::get().registries.open).await;
    proxy.allow(HALVED / 2);
    let reference = format!("{}/{}:v1", proxy.address(), image.name);
    let job = accept(road, &reference).await;
    let moving = |job: &Value| job["targets"][0]["progress"]["downloadedBytes"].as_u64() > Some(0);
    let job = road.job_when(&job, moving).await;
    assert_eq!(job["status"], "running");
    (proxy, image, reference, job)
}

#[tokio::test]
async fn cancelling_a_running_pull_stops_the_engine() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let (proxy, _image, reference, job) = halfway(&road).await;
    road.client.mutate("job.cancel", json!({"jobId": job["jobId"]})).await;
    let ended = road.ended(&job).await;
    let target = &ended["targets"][0];
    assert_eq!(
        (&ended["status"], &target["status"]),
        (&json!("cancelled"), &json!("cancelled")),
        "{ended:#}"
    );
    assert!(target["result"].is_null() && target["error"].is_null(), "{target:#}");
    // An engine that had gone on would take the rest now.
    given_up(&proxy).await;
    let before = proxy.recording().to_client.len();
    proxy.allow(usize::MAX);
    tokio::time::sleep(Duration::from_millis(700)).await;
    let after = proxy.recording().to_client.len();
    assert!(after - before < HALVED / 3, "the engine took {} more bytes", after - before);
    assert!(bed.host_a().inspect(&reference).await.is_none(), "the image came all the same");
    // And the host is free for the next one.
    let next = open("next", 100).await;
    succeeded(&road.pull(&next.reference(), Value::Null).await);
    bed.host_a().remove(&next.reference()).await;
}

#[tokio::test]
async fn a_server_that_is_removed_takes_its_jobs_with_it() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let (proxy, _image, reference, running) = halfway(&road).await;
    let pending = road.client.mutate("server.create", json!({"name": "pending"})).await["serverId"].clone();
    let queued = json!({"image": "127.0.0.1:1/never:v1", "serverId": pending});
    let queued = road.client.mutate("image.pull", queued).await;
    assert_eq!(queued["status"], "queued");
    for (server, job) in [(json!(road.host()), &running), (pending, &queued)] {
        let removed = road.client.mutate("server.remove", json!({"serverId": server})).await;
        assert_eq!(removed["status"], "revoked");
        let ended = road.ended(job).await;
        assert_eq!(
            (&ended["status"], &ended["targets"][0]["status"]),
            (&json!("cancelled"), &json!("cancelled"))
        );
        let pull = json!({"image": reference, "serverId": server});
        let refused = road.client.trpc_mutation("image.pull", &pull).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{refused:?}");
    }
    proxy.allow(usize::MAX);
    eventually(Duration::from_secs(10), async || {
        let row = road.client.query("server.one", json!({"serverId": road.host()})).await;
        (row["status"] == "revoked").then_some(())
    })
    .await;
    bed.host_a().remove(&reference).await;
}

#[tokio::test]
async fn an_entry_in_use_is_removed_only_by_force_and_its_jobs_say_so() {
    let (bed, mut road) = (Testbed::get(), Road::start().await);
    let user = bed.user(Kind::Plain);
    let entry = road.entry(&bed.registries.token, user).await;
    let image = image::in_registry(&bed.host_b(), &bed.registries.token, "in-use", 100, Some(user)).await;
    road.stop_agent(0).await;
    let jobs = [accept(&road, &image.reference()).await, accept(&road, &image.reference()).await];
    let refused = road.client.trpc_mutation("registry.remove", &json!({"registryId": entry})).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::CONFLICT, "CONFLICT".into()), "{refused:?}");
    assert!(refused.error()["message"].as_str().unwrap().contains('2'), "{refused:?}");
    let kept = road.client.query("registry.one", json!({"registryId": entry})).await;
    assert_eq!(kept["registryId"], entry);

    road.client.mutate("registry.remove", json!({"registryId": entry, "force": true})).await;
    road.agents[0].restart();
    for job in &jobs {
        let ended = road.ended(job).await;
        let target = failed(&ended);
        assert!(target["error"]["message"].as_str().unwrap().contains("removed"), "{target:#}");
        assert_ne!(target["credentials"], "anonymous", "{target:#}");
    }
    assert!(bed.host_a().inspect(&image.reference()).await.is_none(), "never anonymous instead");

    // With nothing under way any more, an entry goes without force.
    let other = road.entry(&bed.registries.token, user).await;
    succeeded(&road.pull(&image.reference(), Value::Null).await);
    road.client.mutate("registry.remove", json!({"registryId": other})).await;
    bed.host_a().remove(&image.reference()).await;
}

#[tokio::test]
async fn a_host_whose_engine_does_not_run_says_so() {
    let (bed, purser) = (Testbed::get(), Purser::start().await);
    let nowhere = bed.scratch("no-engine");
    let engine = Engine::at(&nowhere.path().join("docker.sock"));
    let road = Road::over(purser, &[engine]).await;
    let entry = road.entry(&bed.registries.basic, bed.user(Kind::Plain)).await;
    let pulled = road.pull(&format!("{}/app:v1", bed.registries.basic), Value::Null).await;
    assert_eq!(failed(&pulled)["error"]["code"], "engine_error", "{pulled:#}");
    let pushed = road.push("app", &entry, Value::Null).await;
    assert_eq!(failed(&pushed)["error"]["code"], "engine_error", "{pushed:#}");
    assert_eq!(road.test(&entry, Some(road.host())).await.diagnosis(), "engine_error");
    assert_eq!(road.test(&entry, None).await.data()["credentials"], "verified");
    let images = road.client.trpc_query("image.all", &json!({"serverId": road.host()})).await;
    assert_eq!((images.code(), images.diagnosis()), ("PRECONDITION_FAILED".into(), "engine_error".into()));
}

/// It looks connected, so the job is given to it; the caller hears the truth all the same.
#[tokio::test]
async fn a_test_on_a_host_that_hangs_is_no_success_and_ends() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let entry = road.entry(&bed.registries.basic, bed.user(Kind::Plain)).await;
    road.agents[0].signal(Signal::SIGSTOP);
    let begun = Instant::now();
    let answer = road.test(&entry, Some(road.host())).await;
    let took = begun.elapsed();
    assert_eq!(
        (answer.code(), answer.diagnosis()),
        ("PRECONDITION_FAILED".into(), "server_offline".into()),
        "{answer:?}"
    );
    assert!(took < Duration::from_secs(20), "took {took:?}");
}
