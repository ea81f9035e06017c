//! `job.watch`: how a job goes, while it goes, to whoever wants to know.

use std::time::{Duration, Instant};

use http::StatusCode;
use purser_proto_schema::{
    agent::{
        calls::{ProgressReport, ServerCallsClient as _, VerdictReport},
        command::{Outcome, Verdict},
    },
    job::Progress,
};
use purser_tests::{
    BreakableProxy, Client, Purser, Road, RpcSocket, Testbed, double::Double, image, percent, tenant::Grant,
};
use serde_json::{Value, json};

use crate::{
    inputs::SUBSCRIPTIONS,
    operations::{metrics, value},
};

/// Begins a subscription: its number.
async fn watch(socket: &mut RpcSocket, job: &Value) -> u64 {
    let answer = socket.call("job.watch", json!({"jobId": job["jobId"]})).await.unwrap();
    answer["result"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

/// The next snapshot of a subscription.
async fn snapshot(socket: &mut RpcSocket, subscription: u64) -> Value {
    let mut told = socket.notification().await.unwrap();
    assert_eq!((&told["jsonrpc"], &told["method"]), (&json!("2.0"), &json!("job.watch")), "{told}");
    assert!(told.get("id").is_none(), "{told}");
    assert_eq!(told["params"]["subscription"], subscription, "{told}");
    assert!(told["params"]["id"].as_str().is_some_and(|id| !id.is_empty()), "{told}");
    told["params"]["result"].take()
}

/// Every snapshot up to the last one.
async fn all(socket: &mut RpcSocket, subscription: u64) -> Vec<Value> {
    let mut told = Vec::new();
    loop {
        let job = snapshot(socket, subscription).await;
        let ended = ["succeeded", "failed", "cancelled"].contains(&job["status"].as_str().unwrap());
        told.push(job);
        if ended {
            return told;
        }
    }
}

async fn ended_job(client: &Client, job: &Value) -> Value {
    client.query("job.one", json!({"jobId": job["jobId"]})).await
}

/// A job for a host that never joins.
async fn waiting_job(client: &Client) -> Value {
    let server = client.mutate("server.create", json!({"name": purser_tests::unique("host")})).await;
    client.mutate("image.pull", json!({"image": "127.0.0.1:1/app:v1", "serverId": server["serverId"]})).await
}

#[tokio::test]
async fn a_slow_pull_is_seen_live_never_backwards_and_to_its_end() {
    const SIZE: usize = 12_000_000;
    let (bed, road) = (Testbed::get(), Road::start().await);
    let image = image::in_registry(&bed.host_b(), &bed.registries.open, "watched", SIZE, None).await;
    let proxy = BreakableProxy::start(&bed.registries.open).await;
    proxy.allow(SIZE / 8);
    let reference = format!("{}/{}:v1", proxy.address(), image.name);
    let job = road.client.mutate("image.pull", json!({"image": reference, "serverId": road.host()})).await;
    let mut socket = road.client.websocket().await.unwrap();
    let subscription = watch(&mut socket, &job).await;
    let mut percents = Vec::new();
    let last = loop {
        let job = snapshot(&mut socket, subscription).await;
        let target = &job["targets"][0];
        if job["status"] != "queued" && job["status"] != "running" {
            break job;
        }
        if let Some(percent) = target["progress"]["percent"].as_u64() {
            percents.push(percent);
            // What was told is what lets more through: were it not live, this would hang. The engine says nothing of
            // what comes within 100 ms after it said something.
            tokio::time::sleep(Duration::from_millis(150)).await;
            proxy.allow(SIZE / 8);
        }
    };
    assert_eq!(last["status"], "succeeded", "{last:#}");
    assert_eq!(last["targets"][0]["result"]["digest"], image.digest);
    assert!(last["finishedAt"].is_string());
    assert!(percents.len() >= 4, "{percents:?}");
    assert!(percents.is_sorted(), "{percents:?}");
    assert!(percents.iter().all(|percent| *percent < 100), "only the end is all of it: {percents:?}");
    assert_eq!(last, road.client.query("job.one", json!({"jobId": job["jobId"]})).await);
    // It ended by itself, and the socket did not.
    let ended = socket.call("job.unwatch", json!({"subscription": subscription})).await.unwrap();
    assert_eq!(ended["result"], false);
    bed.host_a().remove(&reference).await;
}

#[tokio::test]
async fn an_ended_job_is_told_once() {
    let purser = Purser::start().await;
    let client = purser.client();
    let job = waiting_job(&client).await;
    let ended = client.mutate("job.cancel", json!({"jobId": job["jobId"]})).await;
    let mut socket = client.websocket().await.unwrap();
    let subscription = watch(&mut socket, &job).await;
    assert_eq!(snapshot(&mut socket, subscription).await, ended);
    // Its place is free again a moment after.
    let mut ended = Value::Null;
    while ended != false {
        ended = socket.call("job.unwatch", json!([subscription])).await.unwrap()["result"].take();
    }
    let again = watch(&mut socket, &job).await;
    assert_eq!(snapshot(&mut socket, again).await, ended_job(&client, &job).await);
}

#[tokio::test]
async fn a_watch_that_is_ended_tells_nothing_more() {
    let purser = Purser::start().await;
    let client = purser.client();
    let job = waiting_job(&client).await;
    let mut socket = client.websocket().await.unwrap();
    let (first, second) = (watch(&mut socket, &job).await, watch(&mut socket, &job).await);
    assert_ne!(first, second);
    // One each, in any order.
    let mut begun = Vec::new();
    for _ in 0..2 {
        begun.push(socket.notification().await.unwrap()["params"]["subscription"].as_u64().unwrap());
    }
    begun.sort_unstable();
    assert_eq!(begun, [first, second]);
    // What ends those of another procedure knows none of these.
    let events = socket.call("registry.events", json!({})).await.unwrap()["result"].clone();
    for (method, other) in [("registry.unevents", json!(second)), ("job.unwatch", events.clone())] {
        let ended = socket.call(method, json!([other])).await.unwrap();
        assert_eq!(ended["result"], false, "{method}: {ended}");
    }
    let ended = socket.call("registry.unevents", json!([events])).await.unwrap();
    assert_eq!(ended["result"], true, "{ended}");
    // As jsonrpsee's clients send it.
    let ended = socket.call("job.unwatch", json!([first])).await.unwrap();
    assert_eq!(ended["result"], true);
    client.mutate("job.cancel", json!({"jobId": job["jobId"]})).await;
    assert_eq!(snapshot(&mut socket, second).await["status"], "cancelled");
    for (params, answer) in [
        (json!({"subscription": first}), json!(false)),
        (json!([second]), json!(false)),
        (json!([999]), json!(false)),
    ] {
        let ended = socket.call("job.unwatch", params).await.unwrap();
        assert_eq!(ended["result"], answer, "{ended}");
    }
    for params in [json!({}), json!({"subscription": "x"}), json!([])] {
        let refused = socket.call("job.unwatch", params).await.unwrap();
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
    }
}

#[tokio::test]
async fn a_job_that_is_not_ones_own_cannot_be_watched() {
    let purser = Purser::start().await;
    let mine = waiting_job(&purser.client()).await;
    let other = purser.key_in(&purser.organization("other"), Grant::Role("admin"));
    let mut socket = other.websocket().await.unwrap();
    let foreign = socket.call("job.watch", json!({"jobId": mine["jobId"]})).await.unwrap();
    let missing = socket.call("job.watch", json!({"jobId": "job_unknown"})).await.unwrap();
    assert_eq!(foreign["error"]["code"], -32004, "{foreign}");
    assert_eq!(foreign["error"], missing["error"]);
    let organization = purser.default_organization();
    for call in SUBSCRIPTIONS {
        for grant in [Grant::Permissions(&[]), Grant::Permissions(&["image:pull", "job:write"])] {
            let mut socket = purser.key_in(&organization, grant).websocket().await.unwrap();
            let refused = socket.call(call.name, json!({"not a field": 1})).await.unwrap();
            assert_eq!(refused["error"]["data"]["code"], "FORBIDDEN", "{refused}");
        }
        let reader = purser.key_in(&organization, Grant::Permissions(&[call.permission]));
        let refused =
            reader.websocket().await.unwrap().call(call.name, json!({"not a field": 1})).await.unwrap();
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
        assert!(refused["error"]["data"]["zodError"]["fieldErrors"]["jobId"].is_null(), "{refused}");
    }
}

#[tokio::test]
async fn a_door_that_answers_once_says_where_to_watch() {
    let purser = Purser::start().await;
    let client = purser.client();
    let job = waiting_job(&client).await;
    let input = json!({"jobId": job["jobId"]});
    for method in ["job.watch", "job.unwatch"] {
        let refused = client.rpc(method, &input).await.error();
        assert_eq!(
            (&refused["code"], &refused["data"]["code"]),
            (&json!(-32005), &json!("METHOD_NOT_SUPPORTED"))
        );
        assert!(refused["message"].as_str().unwrap().contains("WebSocket at /rpc"), "{refused}");
    }
    let batch =
        format!("/api/trpc/job.watch?batch=1&input={}", percent::encode(&json!({"0": input}).to_string()));
    let answer = client.get(&batch).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{answer:?}");
    let refused = answer.json()[0]["error"].take();
    assert_eq!(refused["data"]["path"], "job.watch");
    assert!(refused["message"].as_str().unwrap().contains("in no batch"), "{refused}");
    assert_eq!(client.trpc_query("job.unwatch", &input).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_batch_may_begin_watches_and_a_notification_begins_none() {
    let purser = Purser::start().await;
    let client = purser.client();
    let job = waiting_job(&client).await;
    let params = json!({"jobId": job["jobId"]});
    let call = |id: u64| json!({"jsonrpc": "2.0", "method": "job.watch", "id": id, "params": params});
    let silent = json!({"jsonrpc": "2.0", "method": "job.watch", "params": params});
    let mut socket = client.websocket().await.unwrap();
    socket.send(&json!([call(1), silent, call(2)]).to_string()).await.unwrap();
    let answers = socket.receive().await.unwrap();
    let mut begun: Vec<_> =
        answers.as_array().unwrap().iter().map(|answer| answer["result"].as_u64().unwrap()).collect();
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(socket.receive().await.unwrap()["params"]["subscription"].as_u64().unwrap());
    }
    begun.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, begun, "the answer first, then one each");
    // The bound counts what stands.
    for _ in 0..62 {
        watch(&mut socket, &job).await;
    }
    let refused = socket.call("job.watch", params.clone()).await.unwrap();
    assert_eq!(refused["error"]["data"]["code"], "TOO_MANY_REQUESTS", "{refused}");
    assert!(refused["error"]["data"]["retryAfter"].is_u64(), "{refused}");
    let counted = r#"purser_requests_total{code="TOO_MANY_REQUESTS",door="websocket",procedure="job.watch"}"#;
    assert_eq!(value(&metrics(&client).await, counted), 1.0);
    socket.call("job.unwatch", json!([begun[0]])).await.unwrap();
    watch(&mut socket, &job).await;
}

#[tokio::test]
async fn a_stop_of_the_server_ends_what_is_watched() {
    let purser = Purser::start().await;
    let client = purser.client();
    let job = waiting_job(&client).await;
    let mut socket = client.websocket().await.unwrap();
    let subscription = watch(&mut socket, &job).await;
    snapshot(&mut socket, subscription).await;
    assert!(purser.stop().await.success());
    let said = socket.notification().await.unwrap_err();
    assert!(said.contains("stopping"), "{said}");
}

#[tokio::test]
async fn a_revoked_key_is_told_nothing_more() {
    let purser = Purser::start().await;
    let client = purser.client();
    let viewer = purser.key_in(&purser.default_organization(), Grant::Role("viewer"));
    let job = waiting_job(&client).await;
    let mut socket = viewer.websocket().await.unwrap();
    let subscription = watch(&mut socket, &job).await;
    snapshot(&mut socket, subscription).await;
    purser.sql("UPDATE api_key SET revoked_at = '2026-01-01 00:00:00+00:00' WHERE role = 'viewer'");
    // As long as a key that was good is remembered.
    tokio::time::sleep(Duration::from_secs(11)).await;
    client.mutate("job.cancel", json!({"jobId": job["jobId"]})).await;
    let said = socket.notification().await.unwrap_err();
    assert!(said.contains("not valid any more"), "{said}");
}

/// An agent that reports far more than it may, and says what cannot be; a job with many targets, so that
/// a watcher who does not read is soon full; and one who reads.
#[tokio::test]
async fn a_chatty_agent_is_told_on_five_times_a_second_and_slow_watchers_hold_nobody_up() {
    const IDLE: usize = 300;
    let purser = Purser::start().await;
    let client = purser.client();
    let fleet = |n: usize| json!({"name": format!("idle {n}"), "labels": {"of": "fleet"}});
    for n in 0..IDLE {
        client.mutate("server.create", fleet(n)).await;
    }
    let row = client.mutate("server.create", fleet(IDLE)).await;
    let mut session =
        Double::with_token(row["joinToken"].as_str().unwrap()).dial(purser.address()).await.ok().unwrap();
    let pull = json!({"image": "127.0.0.1:1/app:v1", "labels": {"of": "fleet"}});
    let job = client.mutate("image.pull", pull).await;
    let target = session.target().await;
    let mut slow = client.websocket().await.unwrap();
    for id in 0..32 {
        let call =
            json!({"jsonrpc": "2.0", "id": id, "method": "job.watch", "params": {"jobId": job["jobId"]}});
        slow.send(&call.to_string()).await.unwrap();
    }
    let mut socket = client.websocket().await.unwrap();
    let subscription = watch(&mut socket, &job).await;
    let (begun, agent, id) = (Instant::now(), session.peer.client(), &target.attempt.target_id);
    let reporting = async {
        for seq in 1..=6_000_u64 {
            // Back and forth, and beyond the end.
            let percent = [Some(3), Some(60), None, Some(u8::MAX)][usize::try_from(seq % 4).unwrap()];
            let percent = percent.map(|percent| if seq < 4_000 { percent.min(60) } else { percent });
            let snapshot = Progress { percent, downloaded_bytes: seq, ..Progress::default() };
            let report = ProgressReport { attempt: target.attempt.clone(), seq, snapshot };
            agent.target_progress(report).await.unwrap();
        }
        let outcome = Outcome::Image { digest: format!("sha256:{}", "0".repeat(64)), size_bytes: None };
        let verdict = Verdict::Succeeded { outcome, duration_ms: 1 };
        agent.target_verdict(VerdictReport { attempt: target.attempt.clone(), verdict }).await.unwrap();
        client.mutate("job.cancel", json!({"jobId": job["jobId"]})).await;
    };
    let (told, ()) = tokio::join!(all(&mut socket, subscription), reporting);
    let most = begun.elapsed().as_millis() / 200 + 2;
    assert!(told.len() as u128 <= most, "{} snapshots, at most {most} in {:?}", told.len(), begun.elapsed());
    let own = |job: &Value| {
        let targets = job["targets"].as_array().unwrap();
        targets.iter().find(|target| target["targetId"] == id.as_str()).unwrap().clone()
    };
    let progress: Vec<_> = told.iter().map(|job| own(job)["progress"].clone()).collect();
    let percents: Vec<_> = progress.iter().filter_map(|at| at["percent"].as_u64()).collect();
    assert!(percents.is_sorted() && percents.iter().all(|percent| *percent < 100), "{percents:?}");
    let bytes: Vec<_> = progress.iter().filter_map(|at| at["downloadedBytes"].as_u64()).collect();
    assert!(bytes.len() > 1 && bytes.is_sorted(), "{bytes:?}");
    let last = told.last().unwrap();
    assert_eq!((&last["status"], &own(last)["status"]), (&json!("cancelled"), &json!("succeeded")));
    let resident = purser_tests::process::resident_kib(purser.pid()).unwrap();
    assert!(resident < 200 * 1024, "{resident} KiB");
    // Who was slow hears the end all the same, and not everything that was between.
    let (mut ends, mut between) = (0, 0);
    while ends < 32 {
        match slow.receive().await.unwrap()["params"]["result"]["status"].as_str() {
            Some("cancelled") => ends += 1,
            Some(_) => between += 1,
            None => {}
        }
    }
    assert!(between < 16 * told.len(), "{between} of 32 beside {} of one", told.len());
}
