//! A fleet on one server process: what an idle agent costs, how soon all are back after a restart, and
//! how soon one job to all has its last verdict; with 100, 1,000 and 10,000 agents (`PURSER_FLEET`: other
//! numbers, parted by commas).
//!
//! The agents live in this process, without an engine ([`host`]); the protocol is the real one. They
//! share the machine's cores with the server.

mod host;

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use purser_tests::{Client, Purser, daemon::lasting_address, process};
use serde_json::{Value, json};

use crate::sample::{Row, show, timed};
use host::{Host, Running, Tally};

/// `image.pull` takes no more servers in one call.
const PER_JOB: usize = 10_000;
/// Calls at once that make server rows.
const CALLS: usize = 16;
/// Until memory and timers are at rest.
const SETTLE: Duration = Duration::from_secs(15);
/// How long idle processor time is counted at least, and for each thousand agents: as long as any agent is left in peace
/// between two heartbeats.
const IDLE: Duration = Duration::from_secs(45);
const IDLE_OF_A_THOUSAND: Duration = Duration::from_secs(18);
/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// What this process and the server have open besides a socket per agent.
const FILES: u64 = 1_000;

/// What was seen of a fleet of one size.
struct Seen {
    agents: usize,
    memory: String,
    idle: String,
    back: String,
    job: String,
}

/// Four rows; each holds all sizes, so that one sees how it grows.
pub async fn growth() -> Vec<Row> {
    let sizes = std::env::var("PURSER_FLEET").unwrap_or_else(|_| "100,1000,10000".to_owned());
    let sizes =
        sizes.split(',').map(|size| size.trim().parse().unwrap_or_else(|_| panic!("no number: {size}")));
    let mut seen = Vec::new();
    for size in sizes {
        seen.push(fleet_of(size).await);
    }
    let row = |figure, goal, value: &dyn Fn(&Seen) -> &str| Row {
        figure,
        purser: seen
            .iter()
            .map(|seen| format!("{}: {}", seen.agents, value(seen)))
            .collect::<Vec<_>>()
            .join(" · "),
        baseline: "–".to_owned(),
        ratio: "–".to_owned(),
        goal,
    };
    vec![
        row("memory of the server per idle agent, above itself without agents", "≤ 16 KiB", &|seen| {
            &seen.memory
        }),
        row("processor time of the server with that many idle agents, of one core", "≤ 5 %", &|seen| {
            &seen.idle
        }),
        row("from the server's restart until all agents are back", "≤ 60 s, no failure", &|seen| {
            &seen.back
        }),
        row("one pull for all: from the call to the last verdict", "≤ 15 s", &|seen| &seen.job),
    ]
}

async fn fleet_of(agents: usize) -> Seen {
    raise_file_limit(FILES + u64::try_from(agents).unwrap_or(u64::MAX));
    let mut purser = Purser::builder().listen(&lasting_address()).start().await;
    let client = purser.client();
    let (took, tokens) = timed(join_tokens(&client, agents)).await;
    note(&format!("{agents} server rows in {}", show(took)));
    let hosts = tokens.iter().map(|token| Host::with_token(token, purser.address()));
    let hosts: Arc<[_]> = hosts.collect();
    let tally = Arc::new(Tally::default());
    let running = Running::start(&hosts, &tally);
    note(&format!("{agents} agents enrolled: {}", all_in(&tally, agents).await));
    running.stop().await;

    purser.restart().await;
    tokio::time::sleep(SETTLE).await;
    let alone = rss(&purser);
    let running = Running::start(&hosts, &tally);
    note(&format!("{agents} agents dialled at once: {}", all_in(&tally, agents).await));
    tokio::time::sleep(SETTLE).await;
    let memory = format!("{:.1} KiB", (rss(&purser) - alone) / tally.online().max(1) as f64);
    let idle = format!("{:.2} %", idle_share(&purser, agents).await);
    note(&format!(
        "{agents} agents: server {:.1} MiB, alone {:.1} MiB",
        rss(&purser) / 1024.0,
        alone / 1024.0
    ));

    purser.kill9();
    tally.all_online(0, PATIENCE).await;
    // Said by sockets that broke.
    tally.take_turned_away();
    purser.restart().await;
    let back = all_in(&tally, agents).await;
    tokio::time::sleep(SETTLE).await;

    let servers: Vec<String> = hosts.iter().map(|host| host.server().to_owned()).collect();
    let (job, all) = timed(pull_everywhere(&client, &servers, &tally)).await;
    let job = if all { show(job) } else { not_reached() };
    note(&format!("{agents} agents after the job: server {:.1} MiB", rss(&purser) / 1024.0));
    tokio::time::sleep(SETTLE).await;
    note(&format!("{agents} agents, {} later: server {:.1} MiB", show(SETTLE), rss(&purser) / 1024.0));
    running.stop().await;
    Seen { agents, memory, idle, back, job }
}

/// How long it took until all agents had sessions, and how many dials became none.
async fn all_in(tally: &Tally, agents: usize) -> String {
    let (took, all) = timed(tally.all_online(agents, PATIENCE)).await;
    let took = if all { show(took) } else { format!("{}, {} in", not_reached(), tally.online()) };
    format!("{took}{}", tally.take_turned_away())
}

fn not_reached() -> String {
    format!("not reached in {} s", PATIENCE.as_secs())
}

/// What is worth knowing beside the figures; to standard error, with the load of the machine.
fn note(text: &str) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: String = load.split(' ').take(1).collect();
    eprintln!("fleet: {text} (load {load})");
}

fn rss(purser: &Purser) -> f64 {
    process::resident_kib(purser.pid()).unwrap_or_default() as f64
}

async fn idle_share(purser: &Purser, agents: usize) -> f64 {
    let thousands = u32::try_from(agents / 1_000).unwrap_or(u32::MAX);
    let window = IDLE.max(IDLE_OF_A_THOUSAND * thousands);
    let before = process::processor_time(purser.pid());
    tokio::time::sleep(window).await;
    let used = process::processor_time(purser.pid()) - before;
    100.0 * used.as_secs_f64() / window.as_secs_f64()
}

/// The server inherits it.
fn raise_file_limit(files: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_else(|error| panic!("{error}"));
    if soft < files {
        setrlimit(Resource::RLIMIT_NOFILE, files, hard.max(files))
            .unwrap_or_else(|error| panic!("no {files} open files, {hard} at most: {error}"));
    }
}

async fn join_tokens(client: &Client, agents: usize) -> Vec<String> {
    let create = |number: usize| async move {
        let row = client.mutate("server.create", json!({"name": format!("host-{number}")})).await;
        row["joinToken"].as_str().unwrap_or_default().to_owned()
    };
    stream::iter(0..agents).map(create).buffer_unordered(CALLS).collect().await
}

/// One pull onto all servers, in as few calls as there may be, until the last verdict is stored; false where
/// that took longer than there is patience for.
async fn pull_everywhere(client: &Client, servers: &[String], tally: &Tally) -> bool {
    let before = tally.stored();
    let calls = servers.chunks(PER_JOB).map(|part| async move {
        let input = json!({"image": "registry.example.com/team/app:v1", "serverIds": part});
        client.mutate("image.pull", input).await["jobId"].clone()
    });
    let jobs: Vec<Value> = futures_util::future::join_all(calls).await;
    note(&format!("{} jobs accepted", jobs.len()));
    if !tally.all_stored(before + servers.len(), PATIENCE).await {
        return false;
    }
    for job in jobs {
        let job = client.query("job.one", json!({"jobId": job})).await;
        assert_eq!(job["status"], "succeeded", "a job that all agents did has not succeeded");
    }
    true
}
