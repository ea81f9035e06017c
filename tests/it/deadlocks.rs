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

/// A job whose first target runs at a host that the test plays, and whose second waits for one that never
/// comes; and somebody who will hold both targets, the second one `first` of them.
struct Scene {
    client: Client,
    job: Value,
    session: double::Session,
    running: purser_proto_schema::agent::calls::StartTarget,
    waiting: String,
    purser: Purser,
    database: Database,
}

impl Scene {
    async fn set() -> Self {
        let database = Database::create();
        let purser = Purser::builder().database_url(database.url()).start().await;
        let client = purser.client();
        let here = client.mutate("server.create", json!({"name": "here", "labels": {"a": "b"}})).await;
        client.mutate("server.create", json!({"name": "away", "labels": {"a": "b"}})).await;
        let double = Double::with_token(here["joinToken"].as_str().unwrap());
        let mut session = double.dial(purser.address()).await.ok().unwrap();
        let asked = json!({"image": "127.0.0.1:1/app:v1", "labels": {"a": "b"}, "failFast": true});
        let job = client.mutate("image.pull", asked).await;
        let running = session.target().await;
        let waiting = eventually(SOON, async || {
            let now = client.query("job.one", json!({"jobId": job["jobId"]})).await;
            let targets = now["targets"].as_array().unwrap();
            let waiting = targets.iter().find(|target| target["status"] == "queued")?;
            let taken = database.value("SELECT COUNT(*) FROM job_target WHERE status = 'running'") == "1";
            taken.then(|| waiting["targetId"].as_str().unwrap().to_owned())
        })
        .await;
        Self { client, job, session, running, waiting, purser, database }
    }

    /// Somebody who holds `first`, waits until Purser waits for it, and then wants `second`, which Purser
    /// holds by then. Purser's own wait is the one that finds the deadlock, and is undone.
    async fn somebody_holds(&self, first: &str, second: &str) -> Child {
        let script = format!(
            "SET deadlock_timeout = '60s'; BEGIN; \
             UPDATE job_target SET status = status WHERE target_id = '{first}'; \
             SELECT pg_advisory_lock({HELD}); \
             DO $$ BEGIN LOOP PERFORM pg_sleep(0.02); PERFORM pg_stat_clear_snapshot(); \
             EXIT WHEN EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name = 'purser-server' AND wait_event_type = 'Lock'); END LOOP; END $$; \
             UPDATE job_target SET status = status WHERE target_id = '{second}'; COMMIT;"
        );
        let mut psql = Command::new("psql");
        psql.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"]).arg(self.database.url());
        let held = psql.args(["--command", &script]).stdout(Stdio::null()).spawn().unwrap();
        eventually(SOON, async || self.database.holds_advisory_lock(HELD).then_some(())).await;
        held
    }

    async fn ends(&self, status: &str) {
        let job = self.client.query("job.one", json!({"jobId": self.job["jobId"]})).await;
        assert_eq!(job["status"], status, "{job:#}");
        let undone = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        eventually(SOON, async || (self.database.value(undone) != "0").then_some(())).await;
        assert!(!self.purser.logs().contains("deadlock"), "it was told to somebody");
    }
}

async fn done(mut somebody: Child) {
    let ended = eventually(SOON, || std::future::ready(somebody.try_wait().unwrap())).await;
    assert!(ended.success(), "somebody else was undone instead");
}

#[tokio::test]
async fn a_verdict_that_was_undone_by_a_deadlock_is_stored_all_the_same() {
    let scene = Scene::set().await;
    let running = scene.running.attempt.target_id.to_string();
    let somebody = scene.somebody_holds(&scene.waiting, &running).await;
    let failure = Failure::new(DiagnosisCode::NotFound, "there is none", "look again");
    let verdict = Verdict::Failed { failure, duration_ms: 1 };
    let report = VerdictReport { attempt: scene.running.attempt.clone(), verdict };
    scene.session.peer.client().target_verdict(report).await.unwrap();
    done(somebody).await;
    scene.ends("failed").await;
}

#[tokio::test]
async fn a_cancel_that_was_undone_by_a_deadlock_is_answered_all_the_same() {
    let scene = Scene::set().await;
    let running = scene.running.attempt.target_id.to_string();
    let somebody = scene.somebody_holds(&running, &scene.waiting).await;
    scene.client.mutate("job.cancel", json!({"jobId": scene.job["jobId"]})).await;
    done(somebody).await;
    let report = VerdictReport { attempt: scene.running.attempt.clone(), verdict: Verdict::Cancelled };
    scene.session.peer.client().target_verdict(report).await.unwrap();
    scene.ends("cancelled").await;
}
