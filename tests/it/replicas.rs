//! Several control planes over one PostgreSQL: an agent is connected to one of them, a call may arrive
//! at any. (Always on PostgreSQL, whichever database the rest of the suite runs on: SQLite has one.)

use std::time::{Duration, Instant};

use purser_tests::{
    Agent, BreakableProxy, Client, Engine, Purser, Testbed, database::Database, eventually, image, user::Kind,
};
use serde_json::{Value, json};

const PAYLOAD: usize = 4 << 20;
const SOON: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(60);
/// 32 bytes in base64: the replicas share the key ring.
const MASTER_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const ADMIN_KEY: &str = "replicas-share-this-admin-key";

/// Two control planes, and an agent that is connected to the first through a link.
struct Scene {
    holder: Purser,
    other: Purser,
    link: BreakableProxy,
    engine: Engine,
    agent: Agent,
    server_id: String,
    // Last, so that it is dropped after those who use it.
    _database: Database,
}

impl Scene {
    async fn set() -> Self {
        let database = Database::create();
        let replica = || {
            Purser::builder()
                .database_url(database.url())
                .env("PURSER_MASTER_KEY", MASTER_KEY)
                .env("PURSER_ADMIN_API_KEY", ADMIN_KEY)
        };
        let (holder, other) = (replica().start().await, replica().start().await);
        let link = BreakableProxy::start(holder.address()).await;
        let engine = Testbed::get().host_b();
        let at_holder = client(&holder);
        let server = at_holder.mutate("server.create", json!({"name": "shared"})).await;
        let token = server["joinToken"].as_str().unwrap();
        let url = format!("http://{}", link.address());
        let agent = Agent::builder(&holder, &engine, Some(token)).server(&url).start();
        let server_id = server["serverId"].as_str().unwrap().to_owned();
        let scene = Self { holder, other, link, engine, agent, server_id, _database: database };
        scene.online(&scene.holder).await;
        scene.online(&scene.other).await;
        scene
    }

    async fn online(&self, replica: &Purser) {
        let client = client(replica);
        let asked = json!({"serverId": self.server_id});
        eventually(SOON, async || {
            (client.query("server.one", asked.clone()).await["status"] == "online").then_some(())
        })
        .await;
    }

    async fn ended(&self, replica: &Purser, job: &Value) -> Value {
        let (client, asked) = (client(replica), json!({"jobId": job["jobId"]}));
        eventually(END, async || {
            let job = client.query("job.one", asked.clone()).await;
            ["succeeded", "failed", "cancelled"].contains(&job["status"].as_str()?).then_some(job)
        })
        .await
    }
}

fn client(replica: &Purser) -> Client {
    replica.anonymous().with_key(ADMIN_KEY)
}

/// A pull that hangs in the middle at a proxy before its registry, accepted by `replica`.
async fn hanging(scene: &Scene, replica: &Purser) -> (BreakableProxy, image::Published, Value) {
    let bed = Testbed::get();
    let made = image::in_registry(&bed.host_a(), &bed.registries.open, "replicas", PAYLOAD, None).await;
    let registry = BreakableProxy::start(&bed.registries.open).await;
    registry.allow(PAYLOAD / 4);
    let image = format!("{}/{}:{}", registry.address(), made.name, made.tag);
    let asked = json!({"image": image, "serverId": scene.server_id});
    let job = client(replica).mutate("image.pull", asked).await;
    eventually(SOON, async || (registry.recording().to_client.len() > PAYLOAD / 8).then_some(())).await;
    (registry, made, job)
}

#[tokio::test]
async fn a_test_a_pull_and_a_watch_work_through_the_replica_that_does_not_hold_the_agent() {
    let (bed, scene) = (Testbed::get(), Scene::set().await);
    let user = bed.user(Kind::Symbols);
    let registry = bed.basic_for(user);
    let at_other = client(&scene.other);
    let entry = json!({"registryName": "r", "registryUrl": registry, "username": user.username,
        "password": user.password});
    let entry = client(&scene.holder).mutate("registry.create", entry).await;
    let tested = at_other
        .mutate(
            "registry.testRegistryById",
            json!({"registryId": entry["registryId"], "serverId": scene.server_id}),
        )
        .await;
    assert_eq!(tested["credentials"], "verified", "{tested}");
    let made = image::in_registry(&bed.host_a(), registry, "replicas", 1 << 16, Some(user)).await;
    let asked = json!({"image": made.reference(), "serverId": scene.server_id, "wait": true});
    let begun = Instant::now();
    let job = at_other.mutate("image.pull", asked).await;
    assert_eq!(job["status"], "succeeded", "{job:#}");
    // Not a figure: without a word from one to the other it would wait for the queue's slow poll.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(!scene.other.logs().contains("agent connected"), "the other replica holds the agent");

    let (proxy, _, job) = hanging(&scene, &scene.holder).await;
    let mut socket = at_other.websocket().await.unwrap();
    socket.call("job.watch", json!({"jobId": job["jobId"]})).await.unwrap();
    let mut seen = Vec::new();
    let last = loop {
        let told = socket.notification().await.unwrap();
        let job = told["params"]["result"].clone();
        if job["targets"][0]["progress"]["downloadedBytes"].as_u64().is_some_and(|bytes| bytes > 0) {
            seen.push(job.clone());
            proxy.allow(PAYLOAD);
        }
        if job["status"] == "succeeded" || job["status"] == "failed" {
            break job;
        }
    };
    assert_eq!(last["status"], "succeeded", "{last:#}");
    assert!(!seen.is_empty(), "the progress of an agent at another replica is seen");
}

#[tokio::test]
async fn a_cancel_at_another_replica_reaches_the_agent() {
    let scene = Scene::set().await;
    let (_proxy, _, job) = hanging(&scene, &scene.holder).await;
    client(&scene.other).mutate("job.cancel", json!({"jobId": job["jobId"]})).await;
    let ended = scene.ended(&scene.other, &job).await;
    assert_eq!(ended["status"], "cancelled", "{ended:#}");
    assert!(scene.agent.logs().contains("cancel"), "the agent was asked");
}

#[tokio::test]
async fn the_jobs_of_a_killed_replica_go_on_at_another() {
    let scene = Scene::set().await;
    let (proxy, made, job) = hanging(&scene, &scene.holder).await;
    scene.link.point_to(scene.other.address());
    scene.holder.kill9();
    scene.online(&scene.other).await;
    eventually(SOON, async || scene.other.logs().contains("agent connected").then_some(())).await;
    proxy.allow(2 * PAYLOAD);
    let ended = scene.ended(&scene.other, &job).await;
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    assert_eq!(ended["targets"][0]["attempts"], 1, "the pull went on: {ended:#}");
    assert_eq!(ended["targets"][0]["result"]["digest"], made.digest);
}

#[tokio::test]
async fn a_session_at_another_replica_ends_the_one_before_it() {
    let scene = Scene::set().await;
    // The first replica still believes in its connection: nothing of it was closed.
    scene.link.stall(true);
    let second = BreakableProxy::start(scene.other.address()).await;
    let url = format!("http://{}", second.address());
    let moved =
        Agent::builder(&scene.other, &scene.engine, None).server(&url).start_as_clone_of(&scene.agent);
    eventually(SOON, async || scene.other.logs().contains("agent connected").then_some(())).await;
    eventually(SOON, async || scene.holder.logs().contains("agent disconnected").then_some(())).await;
    let asked = json!({"image": "127.0.0.1:1/none:v1", "serverId": scene.server_id, "wait": true});
    let job = client(&scene.holder).mutate("image.pull", asked).await;
    assert_eq!(job["status"], "failed", "it was given to the session in force: {job:#}");
    drop(moved);
}

#[tokio::test]
async fn a_server_that_is_removed_at_one_replica_is_cut_off_at_the_other() {
    let scene = Scene::set().await;
    client(&scene.other).mutate("server.remove", json!({"serverId": scene.server_id})).await;
    eventually(Duration::from_secs(5), async || {
        scene.holder.logs().contains("agent disconnected").then_some(())
    })
    .await;
    let seen = client(&scene.holder).query("server.one", json!({"serverId": scene.server_id})).await;
    assert_eq!(seen["status"], "revoked", "{seen}");
}

#[tokio::test]
async fn a_change_at_one_replica_is_told_at_the_other_also_to_who_comes_back_there() {
    let database = Database::create();
    let replica = || {
        Purser::builder()
            .database_url(database.url())
            .env("PURSER_MASTER_KEY", MASTER_KEY)
            .env("PURSER_ADMIN_API_KEY", ADMIN_KEY)
    };
    let (one, other) = (replica().start().await, replica().start().await);
    let (at_one, at_other) = (client(&one), client(&other));
    let events = "/api/trpc/registry.events";
    let mut here = at_one.subscribe(events, &[]).await;
    let mut there = at_other.subscribe(events, &[]).await;
    let entry = json!({"registryName": "shared", "registryUrl": "127.0.0.1:1"});
    let begun = Instant::now();
    let entry = at_one.mutate("registry.create", entry).await["registryId"].take();
    let (told, same) = (here.message().await, there.message().await);
    assert!(begun.elapsed() < Duration::from_secs(8), "told, and not found by a slow poll");
    assert_eq!(told, same);
    assert_eq!((&told.json()["type"], &told.json()["registryId"]), (&json!("created"), &entry));
    // The replica dies, and a change is made meanwhile.
    one.kill9();
    drop(here);
    at_other.mutate("registry.remove", json!({"registryId": entry})).await;
    let id = told.id.unwrap();
    let mut back = at_other.subscribe(events, &[("last-event-id", &id)]).await;
    let missed = back.message().await;
    assert_eq!(missed.json()["type"], "removed", "{missed:?}");
    assert_eq!(missed, there.message().await);
}
