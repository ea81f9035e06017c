//! What Purser costs when nothing happens, and how soon it answers.

use std::time::{Duration, Instant};

use purser_tests::{Agent, Purser, Testbed, process};

use crate::sample::{Row, median, show};

const SETTLE: Duration = Duration::from_secs(5);
const STARTS: usize = 7;

/// Resident memory of a control plane with one agent, and of that agent, at rest.
pub async fn idle() -> Vec<Row> {
    let purser = Purser::start().await;
    let (agent, _) = Agent::join(&purser, &Testbed::get().host_a()).await;
    tokio::time::sleep(SETTLE).await;
    let row = |figure, pid, goal| Row {
        figure,
        purser: format!("{:.1} MiB", process::resident_kib(pid).unwrap_or_default() as f64 / 1024.0),
        baseline: "–".to_owned(),
        ratio: "–".to_owned(),
        goal,
    };
    vec![
        row("resident memory of an idle server", purser.pid(), "≤ 40 MiB"),
        row("resident memory of an idle agent", agent.pid(), "≤ 15 MiB"),
    ]
}

/// From the start of the process to its first authenticated answer, on an existing database.
pub async fn first_answer() -> Row {
    let mut purser = Purser::start().await;
    let client = purser.client();
    let mut samples = Vec::new();
    for _ in 0..STARTS {
        purser.stop().await;
        let start = Instant::now();
        purser.restart().await;
        assert!(client.get("/api/trpc/registry.all").await.status.is_success(), "no answer after a restart");
        samples.push(start.elapsed());
    }
    Row {
        figure: "from start to first answer, existing database",
        purser: show(median(&samples)),
        baseline: "–".to_owned(),
        ratio: "–".to_owned(),
        goal: "≤ 200 ms",
    }
}
