//! Registries that mean harm: each behaviour gets its verdict in time, from both ends, and nothing that it
//! should not have.

mod before_login;
mod browse;
mod egress;
mod engine;
mod with_login;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use purser_tests::{
    Agent, Answer, Hostile, Purser, Road, Testbed,
    hostile::{Asked, Front, Reply, Script},
    process::resident_kib,
    scan_for_secret,
    wait::random_hex,
};
use serde_json::{Value, json};

/// The promise is 15 s, and the deadlines behind it are 12 and 13; the rest is for a busy machine.
const VERDICT: Duration = Duration::from_secs(30);
/// What a whole table of behaviours may add to a process.
const GROWTH_KIB: u64 = 64 * 1024;
/// How many are tested at once, from each end.
const AT_ONCE: usize = 12;
/// What registries try to put at the beginning of a log line of its own, or on a terminal.
pub const FORGED: &str = "\u{1b}[31m\r\n2026-01-01T00:00:00Z  INFO forged: line\u{0}\u{7f}\u{9b}0m";

/// Whether a registry is given the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret {
    /// It must not be.
    Kept,
    /// It asked properly, so it is.
    Sent,
}

/// One behaviour and what comes of it.
pub struct Behaviour {
    name: &'static str,
    front: Front,
    ip: IpAddr,
    script: Script,
    /// From the control plane and from the host: a code, or what became of the credentials; several
    /// where a race decides.
    verdicts: [&'static str; 2],
    secret: Secret,
    /// Joins the input of the test.
    more: Value,
}

impl Behaviour {
    /// The same verdict from both ends, in plain HTTP on loopback, and the secret is kept.
    pub fn new(
        name: &'static str,
        verdict: &'static str,
        script: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            front: Front::Plain,
            ip: Ipv4Addr::LOCALHOST.into(),
            script: Arc::new(script),
            verdicts: [verdict; 2],
            secret: Secret::Kept,
            more: Value::Null,
        }
    }

    /// A registry that never gets to speak HTTP.
    pub fn front(name: &'static str, verdict: &'static str, front: Front) -> Self {
        Self { front, ..Self::new(name, verdict, |_| Reply::last("")) }
    }

    /// From the host it is another verdict: there it is the engine that logs in.
    pub fn and_from_host(mut self, verdict: &'static str) -> Self {
        self.verdicts[1] = verdict;
        self
    }

    /// It is given the secret.
    pub fn sent(self) -> Self {
        Self { secret: Secret::Sent, ..self }
    }
}

/// A control plane and a host, talkative.
async fn talkative() -> Road {
    let purser = Purser::builder().rust_log("trace").start().await;
    let builder = Agent::builder(&purser, &Testbed::get().host_a(), None).rust_log("trace");
    let (agent, server) = Agent::join_by(&purser, builder).await;
    Road { client: purser.client(), agents: vec![agent], servers: vec![server], purser }
}

/// Tests a registry; the answer and the time that it took.
async fn test(
    road: &Road,
    registry: &str,
    password: &str,
    server: Option<&str>,
    more: &Value,
) -> (Answer, Duration) {
    let mut input = json!({
        "registryUrl": registry, "username": "somebody", "password": password, "serverId": server,
    });
    if let Value::Object(more) = more {
        input.as_object_mut().unwrap().extend(more.clone());
    }
    let begun = Instant::now();
    let answer = road.client.trpc_mutation("registry.testRegistry", &input).await;
    (answer, begun.elapsed())
}

/// The code of a failed test, or what became of the credentials.
fn verdict(answer: &Answer) -> String {
    match answer.status.is_success() {
        true => answer.data()["credentials"].as_str().unwrap_or_default().to_owned(),
        false => answer.diagnosis(),
    }
}

/// Lets one behaviour loose on one end; what is wrong with what came of it.
async fn exposed(road: &Road, behaviour: &Behaviour, end: usize, password: &str) -> Vec<String> {
    let registry = Hostile::at(behaviour.ip, behaviour.front.clone(), behaviour.script.clone()).await;
    let (address, server) = (registry.address().to_string(), [None, Some(road.host())][end]);
    let (answer, took) = test(road, &address, password, server, &behaviour.more).await;
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            wrong.push(format!("{} from {}: {what}", behaviour.name, ["the server", "the host"][end]));
        }
    };
    let text = answer.text();
    must(took < VERDICT, format!("took {took:?}"));
    let verdict = verdict(&answer);
    must(
        behaviour.verdicts[end].split('|').any(|one| one == verdict),
        format!("expected {}, {text}", behaviour.verdicts[end]),
    );
    must(scan_for_secret(&text, password).is_empty(), format!("the secret is in the answer: {text}"));
    must(!has_control(&text), format!("control characters in the answer: {text:?}"));
    must(text.len() < 16 * 1024, format!("an answer of {} bytes", text.len()));
    if !answer.status.is_success() {
        let diagnosis = &answer.error()["data"]["diagnosis"];
        for word in ["message", "advice"] {
            must(diagnosis[word].as_str().is_some_and(|text| !text.is_empty()), format!("no {word}: {text}"));
        }
        must(
            diagnosis["steps"].as_array().is_some_and(|steps| !steps.is_empty()),
            format!("no steps: {text}"),
        );
    }
    let sent = if registry.authorized() > 0 { Secret::Sent } else { Secret::Kept };
    must(sent == behaviour.secret, format!("the secret was {sent:?}"));
    if behaviour.secret == Secret::Kept {
        let seen = scan_for_secret(&registry.received(), password);
        must(seen.is_empty(), "the secret was sent without its header".to_owned());
    }
    // A client that hangs up takes what the network's buffers hold and no more.
    // (Docker's engine reads a token server's answer without bounds.)
    let engine = end == 1 && behaviour.secret == Secret::Sent;
    must(engine || registry.written() < 16 << 20, format!("{} bytes were read", registry.written()));
    wrong
}

/// Whether decoded JSON holds anything that a terminal would act on.
fn has_control(text: &str) -> bool {
    fn look(value: &Value) -> bool {
        match value {
            Value::String(text) => text.chars().any(char::is_control),
            Value::Array(items) => items.iter().any(look),
            Value::Object(fields) => fields.values().any(look),
            _ => false,
        }
    }
    text.chars().any(char::is_control) || serde_json::from_str(text).is_ok_and(|value: Value| look(&value))
}

/// Raw control characters in a log, or lines that a registry wrote.
fn blemishes(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap();
    assert!(text.contains("DEBUG"), "no talkative log to look at: {}", log.display());
    let bad =
        |line: &&str| line.chars().any(|c| c.is_control() && c != '\t') || line.contains("Z  INFO forged");
    text.lines().filter(bad).map(|line| format!("{}: {line:?}", log.display())).collect()
}

/// Lets all behaviours loose, many at once, and judges what came of them and of the processes.
async fn expose(behaviours: Vec<Behaviour>) {
    let road = talkative().await;
    // Long, so that pieces of it are looked for, too.
    let password = format!("{}~>?+/%", random_hex(60));
    let processes = [road.purser.pid(), road.agents[0].pid()];
    let before = processes.map(|pid| resident_kib(pid).unwrap());
    let (road, password) = (&road, password.as_str());
    let tests = behaviours.iter().flat_map(|behaviour| [(behaviour, 0), (behaviour, 1)]);
    let exposures = tests.map(|(behaviour, end)| exposed(road, behaviour, end, password));
    let exposures: Vec<_> = exposures.collect();
    let mut wrong: Vec<String> =
        stream::iter(exposures).buffer_unordered(2 * AT_ONCE).collect::<Vec<_>>().await.concat();
    for (pid, before) in processes.into_iter().zip(before) {
        let after = resident_kib(pid).expect("the process is still there");
        if after > before + GROWTH_KIB {
            wrong.push(format!("process {pid} grew from {before} to {after} KiB"));
        }
    }
    for log in [road.purser.log_file(), road.agents[0].log_file()] {
        wrong.extend(blemishes(log));
        let leaks = scan_for_secret(log, password);
        wrong.extend(leaks.into_iter().map(|finding| format!("the secret is in a log: {finding}")));
    }
    let data = scan_for_secret(&road.purser.data_dir(), password);
    wrong.extend(data.into_iter().map(|finding| format!("the secret is in the data folder: {finding}")));
    // Whatever they did, both still work.
    let row = road.client.query("server.one", json!({"serverId": road.host()})).await;
    if row["status"] != "online" {
        wrong.push(format!("the host is lost: {row}"));
    }
    assert!(
        wrong.is_empty(),
        "{} of {} behaviours' effects:\n{}",
        wrong.len(),
        behaviours.len(),
        wrong.join("\n")
    );
}
