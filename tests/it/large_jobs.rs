//! Jobs for a whole fleet: one call, ten thousand targets.

use purser_tests::{Client, Purser};
use serde_json::{Value, json};

/// As many servers with the label `of`, none of which an agent ever joined.
fn servers(purser: &Purser, of: &str, count: usize) {
    let series = if purser.database().is_some() {
        format!("SELECT n FROM generate_series(1, {count}) AS n")
    } else {
        format!(
            "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count}) SELECT n FROM s"
        )
    };
    purser.execute_sql(&format!(
        "INSERT INTO server (server_id, organization_id, name, labels, session_epoch, created_at) \
         SELECT 'srv_{of}' || n, organization_id, '{of} ' || n, '{{\"of\":\"{of}\"}}', 0, \
         '2026-01-01 00:00:00+00:00' FROM organization, ({series}) AS numbers"
    ));
}

async fn pull(client: &Client, of: &str) -> Value {
    client.mutate("image.pull", json!({"image": "app", "labels": {"of": of}})).await
}

fn targets(job: &Value) -> usize {
    job["targets"].as_array().unwrap().len()
}

#[tokio::test]
async fn one_call_reaches_ten_thousand_hosts_and_no_more() {
    let purser = Purser::start().await;
    let client = purser.client();
    servers(&purser, "fleet", 10_000);
    let job = pull(&client, "fleet").await;
    assert_eq!(targets(&job), 10_000);
    let mut names: Vec<_> =
        job["targets"].as_array().unwrap().iter().map(|row| row["serverId"].as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 10_000, "each host once");
    let input = json!({"jobId": job["jobId"]});
    let mut socket = client.websocket().await.unwrap();
    socket.call("job.watch", input.clone()).await.unwrap();
    let first = socket.notification().await.unwrap();
    assert_eq!(targets(&first["params"]["result"]), 10_000);

    // By name, too.
    let named: Vec<_> = (1..=10_000).map(|n| format!("srv_fleet{n}")).collect();
    let second = client.mutate("image.pull", json!({"image": "app", "serverIds": named})).await;
    assert_eq!(targets(&second), 10_000);
    // A page holds no more of such jobs than memory likes, and the next one goes on.
    let page = client.query("job.all", json!({})).await;
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert_eq!(page["nextCursor"], second["jobId"]);
    let page = client.query("job.all", json!({"cursor": page["nextCursor"]})).await;
    assert_eq!((&page["items"][0]["jobId"], &page["nextCursor"]), (&job["jobId"], &Value::Null));

    servers(&purser, "more", 1);
    purser.execute_sql("UPDATE server SET labels = '{\"of\":\"fleet\"}'");
    let refused =
        client.trpc_mutation("image.pull", &json!({"image": "app", "labels": {"of": "fleet"}})).await;
    assert_eq!(refused.code(), "BAD_REQUEST", "{refused:?}");

    let cancelled = client.mutate("job.cancel", input).await;
    assert_eq!(cancelled["status"], "cancelled");
    // The watcher is told of the end.
    while socket.notification().await.unwrap()["params"]["result"]["status"] != "cancelled" {}
}
