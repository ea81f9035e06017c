//! Faults at random while jobs flow over two hosts, and after them the truth: every accepted job is
//! final, every success is on its host with its digest, nothing ran on a removed server, nothing is
//! stuck.
//!
//! Once over one control plane, and once over two that share a PostgreSQL, behind one address for callers
//! and one for each agent, from where a connection goes to either.
//!
//! `PURSER_FAULTS` is how many faults (12, and 9), `PURSER_FAULT_SEED` what the order of them follows from. All
//! that is killed is this test's own: servers, agents, engines, registry.

mod outcome;
mod scene;
mod work;

use std::{
    collections::BTreeMap,
    env, fmt,
    time::{Duration, Instant},
};

use purser_tests::{database::is_postgres, faults::Chance};

use scene::{HOSTS, Scene};
use work::Work;

const FAULTS: usize = 12;
const FAULTS_OF_TWO: usize = 9;
/// What happens to two control planes first, however few faults there are.
const OF_TWO: [Fault; 4] =
    [Fault::ServerKilled(0), Fault::DatabaseCut, Fault::AllServersKilled, Fault::DatabaseAway];
const SEED: u64 = 20_261_121;
/// From this many faults on some stops are longer than three heartbeats.
const LONG_RUN: usize = 100;
/// How long a fault lasts.
const LASTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(3_000));
/// Longer than three heartbeats of 15 s ± 20 %: the link is lost on both sides, by the clock alone.
const LONG_STOP: (Duration, Duration) = (Duration::from_secs(56), Duration::from_secs(70));
/// Between two faults; others last meanwhile.
const APART: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(1_200));
/// Faults that last at once.
const AT_ONCE: usize = 3;

/// What can happen, and to which agent or engine where there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9` of a control plane.
    ServerKilled(usize),
    /// `kill -9` of all of them, where there are several.
    AllServersKilled,
    /// `kill -9` of an agent.
    AgentKilled(usize),
    /// An agent stands still (SIGSTOP); to its timers the clock jumps when it goes on.
    AgentStopped(usize),
    /// `kill -9` of an engine.
    EngineKilled(usize),
    /// `kill -9` of the registry.
    RegistryKilled,
    /// The link of an agent is cut.
    LinkCut(usize),
    /// The link of an agent stays open and carries nothing.
    LinkStalled(usize),
    /// All connections of engines and agents to the registry are cut.
    DownloadCut,
    /// They stay open and carry nothing.
    DownloadStalled,
    /// The disk with an agent's state folder is full.
    DiskFull(usize),
    /// All connections to the database are cut. Only on PostgreSQL, as the next one.
    DatabaseCut,
    /// They are cut, and no new ones are taken for a while.
    DatabaseAway,
}

/// What two faults cannot have at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Server(usize),
    AllServers,
    Agent(usize),
    Engine(usize),
    Registry,
    Link(usize),
    Downloads,
    Disk(usize),
    Database,
}

impl Fault {
    fn at_random(chance: &mut Chance, scene: &Scene) -> Self {
        let (agent, engine) = (chance.below(scene::AGENTS), chance.below(HOSTS));
        let servers = scene.replicas.len();
        let server = if servers > 1 { chance.below(servers) } else { 0 };
        let mut all = vec![
            Self::ServerKilled(server),
            Self::AgentKilled(agent),
            Self::AgentStopped(agent),
            Self::EngineKilled(engine),
            Self::RegistryKilled,
            Self::LinkCut(agent),
            Self::LinkStalled(agent),
            Self::DownloadCut,
            Self::DownloadStalled,
            Self::DiskFull(agent),
        ];
        if scene.database().is_some() {
            all.extend([Self::DatabaseCut, Self::DatabaseAway]);
        }
        if servers > 1 {
            // What several control planes are for.
            all.extend([Self::ServerKilled(server), Self::ServerKilled(server), Self::AllServersKilled]);
        }
        chance.one_of(&all)
    }

    fn subject(self) -> Subject {
        match self {
            Self::ServerKilled(at) => Subject::Server(at),
            Self::AllServersKilled => Subject::AllServers,
            Self::AgentKilled(at) | Self::AgentStopped(at) => Subject::Agent(at),
            Self::EngineKilled(at) => Subject::Engine(at),
            Self::RegistryKilled => Subject::Registry,
            Self::LinkCut(at) | Self::LinkStalled(at) => Subject::Link(at),
            Self::DownloadCut | Self::DownloadStalled => Subject::Downloads,
            Self::DiskFull(at) => Subject::Disk(at),
            Self::DatabaseCut | Self::DatabaseAway => Subject::Database,
        }
    }

    /// Whether the two cannot be at once.
    fn excludes(self, other: Self) -> bool {
        let (one, other) = (self.subject(), other.subject());
        let server = |subject| matches!(subject, Subject::Server(_) | Subject::AllServers);
        one == other
            || one == Subject::AllServers && server(other)
            || other == Subject::AllServers && server(one)
    }

    /// Its name in the counts.
    fn name(self) -> String {
        let debug = format!("{self:?}");
        debug.split('(').next().unwrap_or_default().to_owned()
    }
}

/// Counts by name.
#[derive(Default)]
pub(crate) struct Counts(BTreeMap<String, usize>);

impl Counts {
    pub(crate) fn add(&mut self, name: impl Into<String>) {
        *self.0.entry(name.into()).or_default() += 1;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.iter().map(|(name, count)| format!("{name} {count}")).collect();
        out.write_str(&words.join(", "))
    }
}

fn number<T: std::str::FromStr>(variable: &str, otherwise: T) -> T {
    let Ok(text) = env::var(variable) else { return otherwise };
    text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_every_job_ends_with_the_truth() {
    all_ends_with_the_truth(1).await;
}

/// Only beside the rest of the suite on PostgreSQL: they share one in any case, and it takes its time.
#[tokio::test(flavor = "multi_thread")]
async fn two_control_planes_share_what_fails_and_every_job_ends_with_the_truth() {
    if is_postgres() {
        all_ends_with_the_truth(2).await;
    }
}

async fn all_ends_with_the_truth(servers: usize) {
    let few = if servers > 1 { FAULTS_OF_TWO } else { FAULTS };
    let (faults, seed) = (number("PURSER_FAULTS", few), number("PURSER_FAULT_SEED", SEED));
    eprintln!("faults: {faults}, PURSER_FAULT_SEED={seed}");
    let begun = Instant::now();
    let mut chance = Chance::new(seed);
    let mut scene = Scene::set(servers).await;
    let work = Work::begin(&scene, Chance::new(chance.any()));
    let counts = strike(&mut scene, &work, &mut chance, faults).await;
    eprintln!("faults done after {:.0?}: {counts}", begun.elapsed());
    scene.heal_all().await;
    let asked = work.end().await;
    let outcome = outcome::settled(&scene, &asked).await;
    outcome::nothing_is_stuck(&scene).await;
    eprintln!("settled after {:.0?}, PURSER_FAULT_SEED={seed}: {outcome}", begun.elapsed());
}

/// Lets the faults happen, and removes a server in the middle of them.
async fn strike(scene: &mut Scene, work: &Work, chance: &mut Chance, faults: usize) -> Counts {
    let mut counts = Counts::default();
    let (begun, mut lasting) = (Instant::now(), Vec::<(Instant, Fault)>::new());
    for happened in 0..faults {
        if happened == faults / 2 {
            scene.remove_the_doomed().await;
            story(begun, "the last server removed");
            work.leave_out_the_doomed();
        }
        let fault = loop {
            heal_what_is_due(scene, &mut lasting, begun).await;
            let fault = match OF_TWO.get(happened) {
                Some(sure) if scene.replicas.len() > 1 => *sure,
                _ => Fault::at_random(chance, scene),
            };
            let taken = lasting.iter().any(|(_, other)| fault.excludes(*other));
            if !taken && lasting.len() < AT_ONCE {
                break fault;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let stop = matches!(fault, Fault::AgentStopped(_));
        let (least, most) = if stop && faults >= LONG_RUN && chance.once_in(8) { LONG_STOP } else { LASTS };
        let until = Instant::now() + chance.between(least, most);
        scene.apply(fault);
        story(begun, &format!("{fault:?}"));
        counts.add(fault.name());
        lasting.push((until, fault));
        tokio::time::sleep(chance.between(APART.0, APART.1)).await;
        if (happened + 1) % 50 == 0 {
            eprintln!("{} faults, {} calls", happened + 1, work.calls());
        }
    }
    for (_, fault) in lasting {
        scene.heal(fault).await;
    }
    counts
}

async fn heal_what_is_due(scene: &mut Scene, lasting: &mut Vec<(Instant, Fault)>, begun: Instant) {
    while let Some(at) = lasting.iter().position(|(until, _)| *until <= Instant::now()) {
        let (_, fault) = lasting.remove(at);
        scene.heal(fault).await;
        story(begun, &format!("{fault:?} healed"));
    }
}

/// For whoever reads why the test failed.
fn story(begun: Instant, what: &str) {
    eprintln!("{:6.2} s: {what}", begun.elapsed().as_secs_f64());
}
