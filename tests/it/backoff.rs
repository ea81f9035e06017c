//! Never a tight loop, whatever the answer; and back by itself when the server is.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use purser_tests::{
    Agent, BreakableProxy, Purser, Testbed, agent, double::Double, process::processor_time, unique,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};

/// How long the dials are counted.
const WATCH: Duration = Duration::from_secs(12);
/// More than a debug build needs to start and to dial now and then, much less than a loop takes in [`WATCH`].
const BUSY: Duration = Duration::from_secs(5);
/// With full jitter under 0.5, 1, 2, 4, 8 s about seven; a loop would make thousands.
const JITTERED: usize = 20;

/// A port that answers each connection with the same bytes (none: closes at once), and notes when.
struct Listener {
    address: String,
    dials: Arc<Mutex<Vec<Instant>>>,
    task: JoinHandle<()>,
}

impl Listener {
    async fn answering(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free loopback port");
        let address = listener.local_addr().expect("a free loopback port").to_string();
        let dials = Arc::<Mutex<Vec<Instant>>>::default();
        let noted = dials.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                noted.lock().expect("nobody panics with it").push(Instant::now());
                if !answer.is_empty() {
                    let _ = stream.read(&mut [0; 4096]).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        });
        Self { address, dials, task }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn joining(purser: &Purser) -> agent::Builder {
    let row = purser.client().mutate("server.create", json!({"name": unique("host")})).await;
    Agent::builder(purser, &Testbed::get().host_a(), row["joinToken"].as_str()).rust_log("debug")
}

/// Counts an agent's complaints over [`WATCH`]: one per dial, loud or not.
async fn complaints(agent: &Agent) -> usize {
    tokio::time::sleep(WATCH).await;
    assert!(agent.exit_status().is_none(), "it must not give up: {}", agent.logs());
    let used = processor_time(agent.pid());
    assert!(used < BUSY, "{used:?} of the processor");
    agent.logs().matches("not connected").count()
}

async fn answered_with(answer: &'static str) {
    let purser = Purser::start().await;
    let listener = Listener::answering(answer).await;
    let agent = joining(&purser).await.server(&format!("http://{}", listener.address)).start();
    let complaints = complaints(&agent).await;
    let dials = listener.dials.lock().expect("nobody panics with it").len();
    assert!((2..=JITTERED).contains(&dials), "{dials} dials");
    assert!(complaints <= dials, "{complaints} complaints of {dials} dials");
    assert!(agent.logs().matches("WARN").count() <= 3, "the same failure is told once a minute");
}

#[tokio::test]
async fn a_server_that_hangs_up_is_not_hammered() {
    answered_with("").await;
}

#[tokio::test]
async fn a_server_that_knows_no_agents_is_not_hammered() {
    answered_with("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
}

#[tokio::test]
async fn a_server_that_fails_is_not_hammered() {
    answered_with("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n").await;
}

#[tokio::test]
async fn a_closed_port_is_not_hammered_and_found_when_it_opens() {
    let purser = Purser::start().await;
    let link = BreakableProxy::start(purser.address()).await;
    link.refuse(true);
    let agent = joining(&purser).await.server(&format!("http://{}", link.address())).start();
    let dials = complaints(&agent).await;
    assert!((2..=JITTERED).contains(&dials), "{dials} dials");
    link.refuse(false);
    agent.await_log("connected").await;
}

#[tokio::test]
async fn an_unknown_key_waits_before_it_knocks_again() {
    let purser = Purser::start().await;
    let link = BreakableProxy::start(purser.address()).await;
    let url = format!("http://{}", link.address());
    let (agent, id) = Agent::join_by(&purser, joining(&purser).await.server(&url)).await;
    purser.client().mutate("server.remove", json!({"serverId": id})).await;
    let before = link.accepted();
    complaints(&agent).await;
    let dials = link.accepted() - before;
    assert!((1..=3).contains(&dials), "{dials} dials in {WATCH:?}, 5 s apart at least");
}

#[tokio::test]
async fn a_refused_token_waits_before_it_is_shown_again() {
    let purser = Purser::start().await;
    let link = BreakableProxy::start(purser.address()).await;
    let builder = joining(&purser).await.server(&format!("http://{}", link.address()));
    purser.execute_sql("DELETE FROM join_token");
    let agent = builder.start();
    complaints(&agent).await;
    let dials = link.accepted();
    assert!((1..=3).contains(&dials), "{dials} dials in {WATCH:?}, 5 s apart at least");
}

#[tokio::test]
async fn another_server_is_not_hammered() {
    let (own, other) = (Purser::start().await, Purser::start().await);
    let link = BreakableProxy::start(other.address()).await;
    let agent = joining(&own).await.server(&format!("http://{}", link.address())).start();
    complaints(&agent).await;
    let dials = link.accepted();
    assert!((1..=3).contains(&dials), "{dials} dials in {WATCH:?}, 5 s apart at least");
}

#[tokio::test]
async fn clones_that_supersede_each_other_do_not_spin() {
    let purser = Purser::start().await;
    let link = BreakableProxy::start(purser.address()).await;
    let url = format!("http://{}", link.address());
    let builder = joining(&purser).await.server(&url);
    let (agent, _) = Agent::join_by(&purser, builder).await;
    let clone =
        Agent::builder(&purser, &Testbed::get().host_a(), None).server(&url).start_as_clone_of(&agent);
    let before = link.accepted();
    complaints(&agent).await;
    assert!(processor_time(clone.pid()) < BUSY);
    let dials = link.accepted() - before;
    assert!((2..=6).contains(&dials), "{dials} dials of both in {WATCH:?}, each 5 s apart at least");
}

/// A server that welcomes and ends every session at once is none to return to at once.
#[tokio::test]
async fn sessions_that_end_at_once_are_no_reason_to_hurry() {
    let purser = Purser::start().await;
    let link = BreakableProxy::start(purser.address()).await;
    let (agent, _) =
        Agent::join_by(&purser, joining(&purser).await.server(&format!("http://{}", link.address()))).await;
    let before = link.accepted();
    let cutting = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            link.cut();
        }
    };
    tokio::select! {
        () = cutting => {}
        _ = complaints(&agent) => {}
    }
    let dials = link.accepted() - before;
    assert!((2..=JITTERED).contains(&dials), "{dials} dials");
    let address = purser.address().to_owned();
    assert!(Double::of(&agent).dial(&address).await.is_ok(), "the server is well");
}
