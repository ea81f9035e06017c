//! How soon a cancel reaches the engine.

use std::time::{Duration, Instant};

use purser_tests::{Agent, BreakableProxy, Purser, Testbed, eventually, image};
use serde_json::json;

use crate::sample::{Row, median, show};

const CANCELS: usize = 15;
const LAYER: usize = 4 << 20;
/// Until a pull has begun, or a connection is closed. Far beyond the goal.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the connections.
const LOOK: Duration = Duration::from_millis(1);

/// From `job.cancel` until the agent has closed the engine's connection, while the registry of a pull gives
/// nothing more.
pub async fn reaches_the_engine() -> Row {
    let bed = Testbed::get();
    let socket = bed.host_b().socket().display().to_string();
    let (engine, registry) =
        (BreakableProxy::start(&socket).await, BreakableProxy::start(&bed.registries.open).await);
    let purser = Purser::start().await;
    let builder = Agent::builder(&purser, &bed.host_b(), None);
    let (_agent, server_id) =
        Agent::join_by(&purser, builder.docker_host(&format!("tcp://{}", engine.address()))).await;
    let client = purser.client();
    let mut samples = vec![];
    for _ in 0..CANCELS {
        let made = image::in_registry(&bed.host_a(), &bed.registries.open, "cancelled", LAYER, None).await;
        let before = registry.recording().to_client.len();
        registry.allow(LAYER / 4);
        let image = format!("{}/{}:{}", registry.address(), made.name, made.tag);
        let job = client.mutate("image.pull", json!({"image": image, "serverId": server_id})).await;
        // What comes may still be for the pull before, which the engine has not given up yet.
        eventually(PATIENCE, async || {
            let comes = registry.recording().to_client.len() > before + LAYER / 8;
            (comes && engine.open() != 0).then_some(())
        })
        .await;
        let begun = Instant::now();
        client.mutate("job.cancel", json!({"jobId": job["jobId"]})).await;
        while engine.open() != 0 {
            assert!(begun.elapsed() < PATIENCE, "the cancel did not reach the engine");
            tokio::time::sleep(LOOK).await;
        }
        samples.push(begun.elapsed());
        eventually(PATIENCE, async || {
            let job = client.query("job.one", json!({"jobId": job["jobId"]})).await;
            (job["status"] == "cancelled").then_some(())
        })
        .await;
    }
    Row {
        figure: "from `job.cancel` until the engine's connection is closed",
        purser: format!(
            "{} (at most {})",
            show(median(&samples)),
            show(samples.into_iter().max().unwrap_or_default())
        ),
        baseline: "–".into(),
        ratio: "–".into(),
        goal: "≤ 2 s",
    }
}
