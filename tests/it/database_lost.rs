//! The database is lost in the moment that matters: whoever was accepted is never told that he was refused, or would
//! ask twice, and what is known without it is told. (Always on PostgreSQL, which can be lost between two statements.)

use std::time::Duration;

use http::{Method, StatusCode};
use purser_tests::{
    Agent, Answer, BreakableProxy, Client, Purser, Testbed, database::Database, eventually, user::Kind,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const SOON: Duration = Duration::from_secs(60);

struct Scene {
    purser: Purser,
    client: Client,
    server: Value,
    database: Database,
}

impl Scene {
    /// With a host that never comes.
    async fn set() -> Self {
        let database = Database::create();
        let purser = Purser::builder().database_url(database.url()).start().await;
        let client = purser.client();
        let server = client.mutate("server.create", json!({"name": "never"})).await["serverId"].clone();
        Self { purser, client, server, database }
    }

    /// From the moment in which such a call is stored on jobs cannot be read.
    fn hide_jobs_after(&self, action: &str) {
        self.database.execute(
            "CREATE OR REPLACE FUNCTION hide() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN ALTER TABLE IF EXISTS job RENAME TO hidden; RETURN NULL; END $$",
        );
        self.database.execute(&format!(
            "CREATE CONSTRAINT TRIGGER hide AFTER INSERT ON audit_event DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW WHEN (NEW.action = '{action}') EXECUTE FUNCTION hide()"
        ));
    }

    /// From now on whoever commits such a call loses the database, and it happens or not.
    fn lose_at_commit_of(&self, action: &str) {
        self.database.execute(
            "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$",
        );
        self.database.execute(&format!(
            "CREATE CONSTRAINT TRIGGER lose AFTER INSERT ON audit_event DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW WHEN (NEW.action = '{action}' AND NEW.outcome IN ('accepted', 'ok')) EXECUTE FUNCTION lose()"
        ));
    }

    fn hide_jobs(&self) {
        self.database.execute("ALTER TABLE job RENAME TO hidden");
    }

    fn show_jobs(&self) {
        self.database.execute("DROP TRIGGER IF EXISTS hide ON audit_event");
        self.database.execute("ALTER TABLE hidden RENAME TO job");
    }

    fn pull(&self, more: Value) -> Value {
        let mut input = json!({"image": "localhost:1/app:v1", "serverId": self.server});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    }

    /// A pull whose answer waits for its end; stored by now.
    async fn waiting(&self, more: Value) -> JoinHandle<Answer> {
        let (client, input) = (self.client.afresh(), self.pull(more).to_string());
        let headers = [("content-type", "application/json")];
        let waiting = tokio::spawn(async move {
            let sent = client.send_within(SOON, Method::POST, "/api/trpc/image.pull", &headers, input);
            sent.await.unwrap()
        });
        eventually(SOON, async || {
            let jobs = self.client.query("job.all", json!({})).await;
            jobs["items"][0].is_object().then_some(())
        })
        .await;
        waiting
    }

    async fn only_job(&self) -> Value {
        let jobs = self.client.query("job.all", json!({})).await;
        let [job] = jobs["items"].as_array().unwrap().as_slice() else { panic!("{jobs:#}") };
        job.clone()
    }
}

#[tokio::test]
async fn an_accepted_job_is_answered_although_it_cannot_be_read() {
    let scene = Scene::set().await;
    scene.hide_jobs_after("image.pull");
    let accepted = scene.client.mutate("image.pull", scene.pull(json!({}))).await;
    let one = scene.client.trpc_query("job.one", &json!({"jobId": accepted["jobId"]})).await;
    assert_eq!(one.status, StatusCode::INTERNAL_SERVER_ERROR, "the job was there to be read");
    scene.show_jobs();
    assert_eq!(scene.only_job().await, accepted);
}

#[tokio::test]
async fn whoever_waits_for_a_job_waits_on_while_it_cannot_be_read() {
    let scene = Scene::set().await;
    let waiting = scene.waiting(json!({"queueTimeoutSeconds": 20, "wait": true})).await;
    scene.hide_jobs();
    scene.purser.await_log("a job that is waited for cannot be read").await;
    assert!(!waiting.is_finished());
    scene.show_jobs();
    let ended = waiting.await.unwrap().data();
    assert_eq!(
        (&ended["status"], &ended["targets"][0]["error"]["code"]),
        (&json!("failed"), &json!("server_offline"))
    );
    assert_eq!(scene.only_job().await, ended);
}

#[tokio::test]
async fn whoever_was_accepted_and_cannot_be_told_more_is_not_told_to_come_again() {
    let scene = Scene::set().await;
    let failed =
        scene.client.mutate("image.pull", scene.pull(json!({"queueTimeoutSeconds": 1, "wait": true}))).await;
    let job = json!({"jobId": failed["jobId"]});
    scene.hide_jobs_after("job.retry");
    let answer = scene.client.trpc_mutation("job.retry", &job).await;
    scene.show_jobs();
    assert_ne!(scene.only_job().await["finishedAt"], failed["finishedAt"], "it was accepted");
    is_unread(&answer, &job);
}

#[tokio::test]
async fn a_stop_tells_whoever_waits_which_job_it_is_although_it_cannot_be_read() {
    let scene = Scene::set().await;
    let waiting = scene.waiting(json!({"wait": true})).await;
    let job = json!({"jobId": scene.only_job().await["jobId"]});
    scene.hide_jobs();
    assert!(scene.purser.stop().await.success());
    is_unread(&waiting.await.unwrap(), &job);
}

#[tokio::test]
async fn whoever_may_have_been_accepted_is_told_by_which_job_to_find_out() {
    let scene = Scene::set().await;
    scene.lose_at_commit_of("image.pull");
    let answer = scene.client.trpc_mutation("image.pull", &scene.pull(json!({}))).await;
    let message = answer.error()["message"].as_str().unwrap().to_owned();
    let job = message.split_whitespace().find(|word| word.starts_with("job_")).expect("a job");
    assert!(message.contains("nobody knows whether this was accepted"), "{message}");
    is_unread(&answer, &json!({"jobId": job}));
    let one = scene.client.trpc_query("job.one", &json!({"jobId": job})).await;
    assert_eq!(one.status, StatusCode::NOT_FOUND, "it was not, this time");
}

/// The host knows, and says so.
#[tokio::test]
async fn a_verdict_is_heard_while_the_database_does_not_answer() {
    let (bed, database) = (Testbed::get(), Database::create());
    let (cluster, name) = database.url().rsplit_once('/').unwrap();
    let (rest, address) = cluster.rsplit_once('@').unwrap();
    let link = BreakableProxy::start(address).await;
    let through = format!("{rest}@{}/{name}", link.address());
    let purser = Purser::builder().database_url(&through).start().await;
    let (_agent, server) = Agent::join(&purser, &bed.host_b()).await;
    let registry = BreakableProxy::start(&bed.registries.basic).await;
    registry.stall(true);
    let (client, user) = (purser.client(), bed.user(Kind::Plain));
    let input = json!({"registryUrl": registry.address().to_string(), "username": user.username,
        "password": user.password, "serverId": server});
    let headers = [("content-type", "application/json")];
    let testing = tokio::spawn(async move {
        let path = "/api/trpc/registry.testRegistry";
        client.send_within(SOON, Method::POST, path, &headers, input.to_string()).await.unwrap()
    });
    eventually(SOON, async || (registry.open() > 0).then_some(())).await;
    link.stall(true);
    // By then whoever waits has begun to look.
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    registry.stall(false);
    assert_eq!(testing.await.unwrap().data()["credentials"], "verified");
    link.stall(false);
}

/// Of the job, and nothing by which a client would repeat the call by itself.
fn is_unread(answer: &Answer, job: &Value) {
    let error = answer.error();
    assert_eq!(answer.code(), "INTERNAL_SERVER_ERROR", "{answer:?}");
    assert!(error["message"].as_str().unwrap().contains(job["jobId"].as_str().unwrap()), "{answer:?}");
    assert!(
        !answer.headers.contains_key("retry-after") && error["data"]["retryAfter"].is_null(),
        "{answer:?}"
    );
}
