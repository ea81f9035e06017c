//! Writers that wait for each other's rows: PostgreSQL undoes one of them, and nobody may notice.
//! (Always on PostgreSQL, whichever database the rest of the suite runs on: SQLite has one writer.)

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use purser_proto_schema::agent::{
    calls::{ServerCallsClient as _, VerdictReport},
    command::{Failure, Verdict},
};
use purser_registry_client::DiagnosisCode;
use purser_tests::{Client, Purser, database::Database, double, double::Double, eventually};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
/// The lock by which somebody says that the first row is held.
const HELD: i32 = 1;

/// A job whose first target runs at a host that the test plays, and whose others wait for hosts that never
/// come.
struct Scene {
    client: Client,
    job: Value,
    session: double::Session,
    running: purser_proto_schema::agent::calls::StartTarget,
    /// In the order in which PostgreSQL has them.
    waiting: Vec<String>,
    purser: Purser,
    database: Database,
}

impl Scene {
    async fn set() -> Self {
        Self::with(1, json!({"failFast": true})).await
    }

    /// With so many hosts that are away.
    async fn with(away: usize, more: Value) -> Self {
        let database = Database::create();
        let purser = Purser::builder().database_url(database.url()).start().await;
        let client = purser.client();
        let here = client.mutate("server.create", json!({"name": "here", "labels": {"a": "b"}})).await;
        for n in 0..away {
            client.mutate("server.create", json!({"name": format!("away-{n}"), "labels": {"a": "b"}})).await;
        }
        let double = Double::with_token(here["joinToken"].as_str().unwrap());
        let mut session = double.dial(purser.address()).await.ok().unwrap();
        let mut asked = json!({"image": "127.0.0.1:1/app:v1", "labels": {"a": "b"}});
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let job = client.mutate("image.pull", asked).await;
        let running = session.target().await;
        let waiting =
            database.value("SELECT target_id FROM job_target WHERE status = 'queued' ORDER BY ctid");
        let waiting: Vec<_> = waiting.lines().map(str::to_owned).collect();
        assert_eq!(waiting.len(), away);
        Self { client, job, session, running, waiting, purser, database }
    }

    /// Somebody who holds the row `first`, waits until Purser waits for it, and then wants `second`, which
    /// Purser holds by then. Purser's own wait is the one that finds the deadlock, and is undone.
    async fn somebody_holds(&self, first: &str, second: &str) -> Child {
        let script = format!(
            "SET deadlock_timeout = '60s'; BEGIN; \
             {first}; \
             SELECT pg_advisory_lock({HELD}); \
             DO $$ BEGIN LOOP PERFORM pg_sleep(0.02); PERFORM pg_stat_clear_snapshot(); \
             EXIT WHEN EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name = 'purser-server' AND wait_event_type = 'Lock'); END LOOP; END $$; \
             {second}; COMMIT;"
        );
        let mut psql = Command::new("psql");
        psql.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"]).arg(self.database.url());
        let held = psql.args(["--command", &script]).stdout(Stdio::null()).spawn().unwrap();
        eventually(SOON, async || self.database.holds_advisory_lock(HELD).then_some(())).await;
        held
    }

    fn job_row(&self) -> String {
        format!("UPDATE job SET status = status WHERE job_id = '{}'", self.job["jobId"].as_str().unwrap())
    }

    fn running_row(&self) -> String {
        target_row(self.running.attempt.target_id.as_str())
    }

    /// The host says how the running target ended.
    async fn told(&self, verdict: Verdict) {
        let report = VerdictReport { attempt: self.running.attempt.clone(), verdict };
        self.session.peer.client().target_verdict(report).await.unwrap();
    }

    async fn ends(&self, status: &str) {
        let job = self.client.query("job.one", json!({"jobId": self.job["jobId"]})).await;
        assert_eq!(job["status"], status, "{job:#}");
        let undone = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        eventually(SOON, async || (self.database.value(undone) != "0").then_some(())).await;
        assert!(!self.purser.logs().contains("deadlock"), "it was told to somebody");
    }
}

fn target_row(id: &str) -> String {
    format!("UPDATE job_target SET status = status WHERE target_id = '{id}'")
}

fn failed() -> Verdict {
    let failure = Failure::new(DiagnosisCode::NotFound, "there is none", "look again");
    Verdict::Failed { failure, duration_ms: 1 }
}

async fn done(mut somebody: Child) {
    let ended = eventually(SOON, || std::future::ready(somebody.try_wait().unwrap())).await;
    assert!(ended.success(), "somebody else was undone instead");
}

#[tokio::test]
async fn a_verdict_that_was_undone_by_a_deadlock_is_stored_all_the_same() {
    let scene = Scene::set().await;
    let somebody = scene.somebody_holds(&target_row(&scene.waiting[0]), &scene.running_row()).await;
    scene.told(failed()).await;
    done(somebody).await;
    scene.ends("failed").await;
}

#[tokio::test]
async fn a_cancel_that_was_undone_by_a_deadlock_is_answered_all_the_same() {
    let scene = Scene::set().await;
    let somebody = scene.somebody_holds(&scene.job_row(), &target_row(&scene.waiting[0])).await;
    scene.client.mutate("job.cancel", json!({"jobId": scene.job["jobId"]})).await;
    done(somebody).await;
    scene.told(Verdict::Cancelled).await;
    scene.ends("cancelled").await;
}

/// The host that is away.
const AWAY: &str = "name = 'away-0'";

#[tokio::test]
async fn a_removal_that_was_undone_by_a_deadlock_is_answered_all_the_same() {
    let scene = Scene::set().await;
    let server = scene.database.value(&format!("SELECT server_id FROM server WHERE {AWAY}"));
    let row = format!("UPDATE server SET name = name WHERE {AWAY}");
    let somebody = scene.somebody_holds(&target_row(&scene.waiting[0]), &row).await;
    scene.client.mutate("server.remove", json!({"serverId": server})).await;
    done(somebody).await;
    scene.told(Verdict::Cancelled).await;
    scene.ends("cancelled").await;
}

/// What was accepted in the moment of a removal.
#[tokio::test]
async fn a_sweep_that_was_undone_by_a_deadlock_cancels_all_the_same() {
    let scene = Scene::set().await;
    let somebody = scene.somebody_holds(&scene.job_row(), &target_row(&scene.waiting[0])).await;
    scene.database.execute(&format!("UPDATE server SET revoked_at = now() WHERE {AWAY}"));
    done(somebody).await;
    let cancelled = "SELECT COUNT(*) FROM job_target WHERE status = 'cancelled'";
    eventually(SOON, async || (scene.database.value(cancelled) == "1").then_some(())).await;
    scene.told(Verdict::Cancelled).await;
    scene.ends("cancelled").await;
}

#[tokio::test]
async fn a_retry_that_was_undone_by_a_deadlock_is_answered_all_the_same() {
    let scene = Scene::set().await;
    scene.told(failed()).await;
    let somebody = scene.somebody_holds(&scene.job_row(), &scene.running_row()).await;
    scene.client.mutate("job.retry", json!({"jobId": scene.job["jobId"]})).await;
    done(somebody).await;
    scene.ends("running").await;
}

/// A job has as many under way as it may, and one that waits for its turn has waited too long.
#[tokio::test]
async fn new_time_for_those_that_wait_for_their_turn_is_given_after_a_deadlock_too() {
    let scene = Scene::with(3, json!({"maxParallel": 1})).await;
    let [first, second, overdue] = scene.waiting.as_slice() else { panic!("three wait") };
    let somebody = scene.somebody_holds(&target_row(second), &target_row(first)).await;
    scene.database.execute(&format!(
        "UPDATE job_target SET queue_deadline = '2020-01-01' WHERE target_id = '{overdue}'"
    ));
    done(somebody).await;
    let renewed = format!("SELECT queue_deadline > now() FROM job_target WHERE target_id = '{overdue}'");
    eventually(SOON, async || (scene.database.value(&renewed) == "t").then_some(())).await;
    scene.ends("running").await;
}

/// It was accepted after the removal had begun, and before that ended what was open.
#[tokio::test]
async fn a_job_that_comes_while_its_server_is_removed_ends_with_it() {
    let scene = Scene::set().await;
    let waiting = format!("target_id = '{}'", scene.waiting[0]);
    let server = scene.database.value(&format!("SELECT server_id FROM job_target WHERE {waiting}"));
    let copy = format!(
        "CREATE TEMP TABLE j AS SELECT * FROM job; UPDATE j SET job_id = 'job_late'; INSERT INTO job SELECT * FROM j; \
         CREATE TEMP TABLE t AS SELECT * FROM job_target WHERE {waiting}; \
         UPDATE t SET job_id = 'job_late', target_id = 'tgt_late'; INSERT INTO job_target SELECT * FROM t"
    );
    let somebody = scene.somebody_holds("LOCK TABLE job_target IN SHARE MODE", &copy).await;
    scene.client.mutate("server.remove", json!({"serverId": server})).await;
    done(somebody).await;
    let late = scene.client.query("job.one", json!({"jobId": "job_late"})).await;
    assert_eq!((&late["status"], &late["targets"][0]["status"]), (&json!("cancelled"), &json!("cancelled")));
    assert!(late["finishedAt"].is_string(), "{late:#}");
}
