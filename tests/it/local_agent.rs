//! The control plane's own machine as server `local`.

use std::time::Duration;

use purser_tests::{Purser, Testbed, eventually, image, purser};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

fn with_engine(mode: &str) -> purser::Builder {
    Purser::builder().local_agent(mode).env("DOCKER_HOST", &Testbed::get().host_a().docker_host())
}

async fn servers(purser: &Purser) -> Vec<Value> {
    purser.client().query("server.all", Value::Null).await.as_array().expect("a list").clone()
}

async fn local(purser: &Purser) -> Value {
    eventually(SOON, async || {
        let row = servers(purser).await.into_iter().find(|row| row["name"] == "local")?;
        (row["status"] == "online").then_some(row)
    })
    .await
}

async fn joins_and_pulls(mode: &str) {
    let mut purser = with_engine(mode).start().await;
    let row = local(&purser).await;
    assert_eq!(row["engine"]["name"], "Docker", "{row}");
    let bed = Testbed::get();
    let made = image::in_registry(&bed.host_a(), &bed.registries.open, "local", 1000, None).await;
    let asked = json!({"serverId": row["serverId"], "image": made.reference(), "wait": true});
    let job = purser.client().mutate("image.pull", asked).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    assert!(bed.host_a().remove(&made.reference()).await, "the image was there");

    // By the enrolment that any host goes through.
    let count = |what: &str| purser.execute_sql(&format!("SELECT COUNT(*) FROM {what}"));
    assert_eq!(count("join_token WHERE spent_at IS NOT NULL"), "1");
    assert_eq!(count("audit_event WHERE action = 'agent.enrolled'"), "1");
    let key = purser.execute_sql("SELECT agent_key FROM server");

    purser.restart().await;
    let again = local(&purser).await;
    assert_eq!(again["serverId"], row["serverId"]);
    assert_eq!(servers(&purser).await.len(), 1);
    assert_eq!(purser.execute_sql("SELECT agent_key FROM server"), key);
    assert_eq!(purser.execute_sql("SELECT COUNT(*) FROM join_token"), "1", "no token for a member");
}

#[tokio::test]
async fn it_joins_by_itself_where_an_engine_answers() {
    joins_and_pulls("auto").await;
}

#[tokio::test]
async fn it_joins_when_told_to() {
    joins_and_pulls("on").await;
}

#[tokio::test]
async fn without_an_engine_there_is_no_local_server() {
    let nowhere = "unix:///nonexistent/docker.sock";
    let purser = Purser::builder().local_agent("auto").env("DOCKER_HOST", nowhere).start().await;
    let said = || purser.logs().contains("this machine does not join");
    eventually(SOON, async || said().then_some(())).await;
    assert_eq!(servers(&purser).await, Vec::<Value>::new());
}

#[tokio::test]
async fn switched_off_it_does_not_join() {
    let purser = with_engine("off").start().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(servers(&purser).await, Vec::<Value>::new());
}

#[tokio::test]
async fn it_stops_at_once_with_its_control_plane() {
    let purser = with_engine("on").start().await;
    local(&purser).await;
    assert!(purser.stop().await.success());
    assert!(!purser.logs().contains("PANIC") && !purser.logs().contains("panicked"), "{}", purser.logs());
}
