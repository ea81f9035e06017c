//! Several control planes over one PostgreSQL: an agent is connected to one of them, a call may arrive
//! at any. (Always on PostgreSQL, whichever database the rest of the suite runs on: SQLite has one.)

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use purser_proto_schema::{
    agent::calls::{ProgressReport, ServerCallsClient as _},
    job::Progress,
};
use purser_tests::{
    Agent, BreakableProxy, Client, Engine, Purser, RpcSocket, Testbed, database::Database, double::Double,
    eventually, image, user::Kind,
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
    database: Database,
}

impl Scene {
    async fn set() -> Self {
        let database = Database::create();
        let (holder, other) = (replica(&database).await, replica(&database).await);
        let link = BreakableProxy::start(holder.address()).await;
        let engine = Testbed::get().host_b();
        let at_holder = client(&holder);
        let server = at_holder.mutate("server.create", json!({"name": "shared"})).await;
        let token = server["joinToken"].as_str().unwrap();
        let url = format!("http://{}", link.address());
        let agent = Agent::builder(&holder, &engine, Some(token)).server(&url).start();
        let server_id = server["serverId"].as_str().unwrap().to_owned();
        let scene = Self { holder, other, link, engine, agent, server_id, database };
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

/// How often a thing is done that one control plane tells another of. Each would take a look by itself if nothing
/// were told, and there is seldom one, at most on a busy machine: the next comes after 10 s or more.
const SEVERAL: usize = 6;

/// How often a control plane looked by itself for what it may not have been told.
fn looked_without_a_word(replica: &Purser) -> usize {
    replica.logs().matches("without a word").count()
}

/// A control plane over this database.
async fn replica(database: &Database) -> Purser {
    Purser::builder()
        .rust_log("info,purser_server=debug")
        .database_url(database.url())
        .env("PURSER_MASTER_KEY", MASTER_KEY)
        .env("PURSER_ADMIN_API_KEY", ADMIN_KEY)
        .start()
        .await
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
    let before = looked_without_a_word(&scene.holder);
    for _ in 0..SEVERAL {
        let job = at_other.mutate("image.pull", asked.clone()).await;
        assert_eq!(job["status"], "succeeded", "{job:#}");
    }
    let looks = looked_without_a_word(&scene.holder) - before;
    assert!(looks < SEVERAL, "{looks} looks: one does not tell the other");
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
async fn the_jobs_of_a_killed_replica_go_on_at_another_and_so_does_who_watches_there() {
    let scene = Scene::set().await;
    let (proxy, made, job) = hanging(&scene, &scene.holder).await;
    let mut socket = client(&scene.other).websocket().await.unwrap();
    socket.call("job.watch", json!({"jobId": job["jobId"]})).await.unwrap();
    assert_eq!(snapshot(&mut socket).await["status"], "running");
    scene.link.point_to(scene.other.address());
    scene.holder.kill9();
    scene.online(&scene.other).await;
    eventually(SOON, async || scene.other.logs().contains("agent connected").then_some(())).await;
    proxy.allow(2 * PAYLOAD);
    let ended = scene.ended(&scene.other, &job).await;
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    assert_eq!(ended["targets"][0]["attempts"], 1, "the pull went on: {ended:#}");
    assert_eq!(ended["targets"][0]["result"]["digest"], made.digest);
    let last = told(&mut socket, |job| job["status"] != "running").await;
    assert_eq!(last["targets"][0]["result"]["digest"], made.digest, "{last:#}");
}

/// The next that a watcher is told.
async fn snapshot(socket: &mut RpcSocket) -> Value {
    socket.notification().await.unwrap()["params"]["result"].take()
}

/// What a watcher is told when the job is as `wanted`.
async fn told(socket: &mut RpcSocket, wanted: impl Fn(&Value) -> bool) -> Value {
    let told = async {
        loop {
            let job = snapshot(socket).await;
            if wanted(&job) {
                return job;
            }
        }
    };
    tokio::time::timeout(END, told).await.expect("the watcher is told")
}

#[tokio::test]
async fn the_images_of_a_host_are_told_by_any_replica() {
    let scene = Scene::set().await;
    let local = image::Local::make(&scene.engine, "everywhere", 100).await;
    let asked = json!({"serverId": scene.server_id});
    for replica in [&scene.holder, &scene.other] {
        let images = client(replica).query("image.all", asked.clone()).await;
        let named = |image: &Value| image["tags"].to_string().contains(&local.repository);
        assert!(images.as_array().unwrap().iter().any(named), "{images:#}");
    }
    assert_eq!(scene.database.value("SELECT COUNT(*) FROM replica_question"), "0", "it stays behind");
    // What the holder is told by the host is told on, and what nobody answers ends.
    scene.agent.signal(Signal::SIGSTOP);
    let refused = client(&scene.other).trpc_query("image.all", &asked).await;
    scene.agent.signal(Signal::SIGCONT);
    assert_eq!(refused.diagnosis(), "server_offline", "{refused:?}");
}

/// One target of a job is held here and one there: what is told of the one does not take from the other.
#[tokio::test]
async fn progress_at_two_replicas_is_watched_at_either() {
    let database = Database::create();
    let (here, there) = (replica(&database).await, replica(&database).await);
    let mut sessions = Vec::new();
    for (name, at) in [("one", &here), ("two", &there)] {
        let row = client(&here).mutate("server.create", json!({"name": name, "labels": {"a": "b"}})).await;
        let double = Double::with_token(row["joinToken"].as_str().unwrap());
        sessions.push(double.dial(at.address()).await.ok().unwrap());
    }
    let input = json!({"image": "127.0.0.1:1/app:v1", "labels": {"a": "b"}});
    let job = client(&here).mutate("image.pull", input).await;
    let targets = [sessions[0].target().await, sessions[1].target().await];
    let report = async |host: usize, seq: u64| {
        let snapshot = Progress { downloaded_bytes: seq, ..Progress::default() };
        let attempt = targets[host].attempt.clone();
        let report = ProgressReport { attempt, seq, snapshot };
        sessions[host].peer.client().target_progress(report).await.unwrap();
    };
    report(1, 1).await;
    let mut socket = client(&here).websocket().await.unwrap();
    socket.call("job.watch", json!({"jobId": job["jobId"]})).await.unwrap();
    let of = |job: &Value, host: usize| {
        let id = targets[host].attempt.target_id.to_string();
        let all = job["targets"].as_array().unwrap();
        all.iter().find(|target| target["targetId"] == *id).unwrap()["progress"].clone()
    };
    told(&mut socket, |job| of(job, 1).is_object()).await;
    for seq in 1..=10 {
        report(0, seq).await;
        let told = told(&mut socket, |job| of(job, 0)["downloadedBytes"] == seq).await;
        assert_eq!(of(&told, 1)["downloadedBytes"], 1, "{told:#}");
    }
}

#[tokio::test]
async fn a_control_plane_that_comes_back_holds_nothing_of_before() {
    let mut scene = Scene::set().await;
    scene.agent.kill9();
    scene.holder.kill9();
    scene.holder.restart().await;
    let asked = json!({"serverId": scene.server_id});
    for replica in [&scene.holder, &scene.other] {
        let client = client(replica);
        // Before it would be taken for dead.
        eventually(Duration::from_secs(10), async || {
            (client.query("server.one", asked.clone()).await["status"] == "offline").then_some(())
        })
        .await;
    }
}

/// It was told to a control plane that had died a moment before, and the host does not come back.
#[tokio::test]
async fn a_cancel_that_nobody_hears_ends_the_job_all_the_same() {
    let scene = Scene::set().await;
    let (_registry, _, job) = hanging(&scene, &scene.other).await;
    scene.link.refuse(true);
    scene.holder.kill9();
    // The other one lives, as far as this one knows.
    client(&scene.other).mutate("job.cancel", json!({"jobId": job["jobId"]})).await;
    assert_eq!(scene.ended(&scene.other, &job).await["status"], "cancelled");
}

/// The database fails in the moment in which it is noted, or not, who holds the session.
#[tokio::test]
async fn a_host_is_on_or_offline_everywhere_although_that_could_not_be_noted_at_first() {
    let mut scene = Scene::set().await;
    scene.database.execute(
        "CREATE FUNCTION deny() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$",
    );
    let deny = |is_denied: bool| {
        scene.database.execute(if is_denied {
            "CREATE TRIGGER deny BEFORE UPDATE ON server FOR EACH ROW \
             WHEN (NEW.holder IS DISTINCT FROM OLD.holder) EXECUTE FUNCTION deny()"
        } else {
            "DROP TRIGGER deny ON server"
        })
    };
    let other = client(&scene.other);
    let asked = json!({"serverId": scene.server_id});
    let is = async |status: &str| other.query("server.one", asked.clone()).await["status"] == status;
    deny(true);
    scene.agent.stop().await;
    scene.holder.await_log("noting that nobody holds a session").await;
    assert!(is("online").await, "it was noted");
    deny(false);
    eventually(SOON, async || is("offline").await.then_some(())).await;
    deny(true);
    scene.agent.restart();
    scene.holder.await_log("noting who holds a session").await;
    assert!(is("offline").await, "it was noted");
    deny(false);
    eventually(SOON, async || is("online").await.then_some(())).await;
}

/// What PostgreSQL serves a control plane's listening with, of one database.
fn listening(database: &Database) -> Vec<i32> {
    let pids = database.value(
        "SELECT string_agg(pid::text, ' ' ORDER BY backend_start) FROM pg_stat_activity \
         WHERE datname = current_database() AND query LIKE 'LISTEN%'",
    );
    pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// A process that stands still until this is dropped.
struct Stopped(Pid);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// A connection that is open and carries nothing, as behind a firewall that forgot it.
#[tokio::test]
async fn a_control_plane_that_does_not_hear_itself_listens_anew() {
    let scene = Scene::set().await;
    let before = listening(&scene.database);
    assert_eq!(before.len(), 2, "each listens");
    let stopped: Vec<_> = before
        .iter()
        .map(|pid| {
            kill(Pid::from_raw(*pid), Signal::SIGSTOP).unwrap();
            Stopped(Pid::from_raw(*pid))
        })
        .collect();
    eventually(Duration::from_secs(60), async || {
        let now = listening(&scene.database);
        (now.iter().filter(|pid| !before.contains(pid)).count() == 2).then_some(())
    })
    .await;
    let asked = json!({"image": "127.0.0.1:1/none:v1", "serverId": scene.server_id});
    let job = client(&scene.other).mutate("image.pull", asked).await;
    // Without a word from one to the other it would wait for the queue's slow poll.
    eventually(Duration::from_secs(10), async || {
        let job = client(&scene.other).query("job.one", json!({"jobId": job["jobId"]})).await;
        (job["targets"][0]["attempts"] != 0).then_some(())
    })
    .await;
    drop(stopped);
}

/// The lock by which an ear says that it listens.
const LISTENS: i32 = 7;

/// Whether a job is told of in a database, while `work` is done.
async fn told_of_jobs(database: &Database, work: impl AsyncFnOnce()) -> bool {
    let mut psql = Command::new("psql");
    psql.args(["--no-psqlrc", "--quiet", database.url()]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut psql = psql.spawn().unwrap();
    let mut ears = psql.stdin.take().unwrap();
    writeln!(ears, "LISTEN purser; SELECT pg_advisory_lock({LISTENS});").unwrap();
    eventually(SOON, async || database.holds_advisory_lock(LISTENS).then_some(())).await;
    work().await;
    // psql says what it heard with the answer to what it asks.
    writeln!(ears, "SELECT 1;").unwrap();
    drop(ears);
    let heard = String::from_utf8(psql.wait_with_output().unwrap().stdout).unwrap();
    heard.contains(r#""type":"job""#)
}

#[tokio::test]
async fn one_that_is_alone_tells_nobody_and_two_tell_each_other() {
    let database = Database::create();
    let first = replica(&database).await;
    let server = client(&first).mutate("server.create", json!({"name": "away"})).await;
    let asked = json!({"image": "127.0.0.1:1/none:v1", "serverId": server["serverId"]});
    let pull_and_cancel = async || {
        let job = client(&first).mutate("image.pull", asked.clone()).await;
        client(&first).mutate("job.cancel", json!({"jobId": job["jobId"]})).await;
        // Said to nobody in particular: what was put before it has been sent by then.
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert!(!told_of_jobs(&database, pull_and_cancel).await, "nobody else is there to be told");
    let _second = replica(&database).await;
    // When it has been heard that there is a second one.
    eventually(END, async || told_of_jobs(&database, pull_and_cancel).await.then_some(())).await;
}

/// What nobody heard is found in the rows.
#[tokio::test]
async fn a_cancel_that_was_not_heard_is_found_by_looking() {
    let scene = Scene::set().await;
    let (_proxy, _, job) = hanging(&scene, &scene.holder).await;
    scene.database.execute("UPDATE job_target SET cancel_requested = true");
    let ended = scene.ended(&scene.other, &job).await;
    assert_eq!(ended["status"], "cancelled", "{ended:#}");
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

/// A word may be late: it ends what is older than the session it tells of, and nothing else.
#[tokio::test]
async fn a_late_word_of_an_older_session_does_not_end_the_newer_one() {
    let scene = Scene::set().await;
    let epoch: i64 = scene.database.value("SELECT session_epoch FROM server").parse().unwrap();
    for told in [epoch - 1, epoch] {
        let signal = json!({"type": "began", "serverId": scene.server_id, "epoch": told});
        let word = json!({"from": "somebody", "signal": signal});
        scene.database.execute(&format!("NOTIFY purser, '{word}'"));
    }
    // Heard after them.
    let asked = json!({"image": "127.0.0.1:1/none:v1", "serverId": scene.server_id, "wait": true});
    let job = client(&scene.other).mutate("image.pull", asked).await;
    assert_eq!(job["status"], "failed", "{job:#}");
    assert!(!scene.holder.logs().contains("agent disconnected"), "its session was ended");
    let signal = json!({"type": "began", "serverId": scene.server_id, "epoch": epoch + 1});
    let word = json!({"from": "somebody", "signal": signal});
    scene.database.execute(&format!("NOTIFY purser, '{word}'"));
    eventually(SOON, async || scene.holder.logs().contains("agent disconnected").then_some(())).await;
}

#[tokio::test]
async fn a_server_that_is_removed_at_one_replica_is_cut_off_at_the_other() {
    let scene = Scene::set().await;
    client(&scene.other).mutate("server.remove", json!({"serverId": scene.server_id})).await;
    // Before it looks by itself.
    eventually(Duration::from_secs(10), async || {
        scene.holder.logs().contains("agent disconnected").then_some(())
    })
    .await;
    let seen = client(&scene.holder).query("server.one", json!({"serverId": scene.server_id})).await;
    assert_eq!(seen["status"], "revoked", "{seen}");
}

#[tokio::test]
async fn a_change_at_one_replica_is_told_at_the_other_also_to_who_comes_back_there() {
    let database = Database::create();
    let (one, other) = (replica(&database).await, replica(&database).await);
    let (at_one, at_other) = (client(&one), client(&other));
    let events = "/api/trpc/registry.events";
    let mut here = at_one.subscribe(events, &[]).await;
    let mut there = at_other.subscribe(events, &[]).await;
    let mut last = None;
    let before = looked_without_a_word(&other);
    for n in 0..SEVERAL {
        let entry = json!({"registryName": format!("shared-{n}"), "registryUrl": "127.0.0.1:1"});
        let entry = at_one.mutate("registry.create", entry).await["registryId"].take();
        let (told, same) = (here.message().await, there.message().await);
        assert_eq!(told, same);
        assert_eq!((&told.json()["type"], &told.json()["registryId"]), (&json!("created"), &entry));
        last = Some((told, entry));
    }
    let looks = looked_without_a_word(&other) - before;
    assert!(looks < SEVERAL, "{looks} looks: one does not tell the other");
    let (told, entry) = last.unwrap();
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
