//! What the faults happen to.

use std::time::Duration;

use nix::sys::signal::Signal;
use purser_tests::{
    Agent, BreakableProxy, Client, Purser, Testbed, User,
    daemon::{OwnEngine, OwnRegistry, lasting_address},
    database::Database,
    eventually,
    faults::TinyDisk,
    unique,
    user::Kind,
};
use serde_json::{Value, json};

use super::Fault;

/// Engines.
pub(crate) const HOSTS: usize = 2;
/// Agents: one per host, and on the last host one more, whose server is removed on the way.
pub(crate) const AGENTS: usize = HOSTS + 1;
/// The agent whose server is removed.
pub(crate) const DOOMED: usize = HOSTS;
/// Room on the disk of an agent's state.
const DISK_KIB: usize = 256;
/// A host comes back within its backoff of at most 30 s.
const BACK: Duration = Duration::from_secs(90);

/// A control plane, its hosts and its registry, each behind something that breaks.
pub(crate) struct Scene {
    pub(crate) client: Client,
    /// Ids of the servers, in the order of the agents.
    pub(crate) servers: Vec<String>,
    pub(crate) registry: OwnRegistry,
    /// Images are pulled and pushed through it.
    pub(crate) downloads: BreakableProxy,
    /// The stored entry for `downloads`.
    pub(crate) entry: String,
    /// Names of a local image on each host, to push.
    pub(crate) local: Vec<String>,
    /// What the doomed server's targets were when its removal was answered.
    pub(crate) at_removal: String,
    links: Vec<BreakableProxy>,
    agents: Vec<Agent>,
    disks: Vec<TinyDisk>,
    engines: Vec<OwnEngine>,
    /// Last, so that agents end before it.
    pub(crate) purser: Purser,
}

/// The engine that an agent works with.
pub(crate) fn host_of(agent: usize) -> usize {
    agent.min(HOSTS - 1)
}

impl Scene {
    pub(crate) async fn set() -> Self {
        let (first, second) = tokio::join!(OwnEngine::start(), OwnEngine::start());
        let engines = vec![first, second];
        let registry = OwnRegistry::start().await;
        let downloads = BreakableProxy::start(registry.address()).await;
        let purser = Purser::builder().listen(&lasting_address()).start().await;
        let (mut links, mut agents, mut servers, mut disks) = (vec![], vec![], vec![], vec![]);
        for at in 0..AGENTS {
            let link = BreakableProxy::start(purser.address()).await;
            let disk = TinyDisk::mount(DISK_KIB);
            let builder = Agent::builder(&purser, &engines[host_of(at)].engine(), None)
                .server(&format!("http://{}", link.address()))
                .state_in(disk.path());
            let (agent, server) = Agent::join_by(&purser, builder).await;
            agents.push(agent);
            servers.push(server);
            links.push(link);
            disks.push(disk);
        }
        let mut local = vec![];
        for engine in &engines {
            let name = unique("local");
            engine.engine().make_image(&name, "latest", 100_000).await;
            local.push(name);
        }
        let client = purser.client();
        let user = Self::user();
        let input = json!({
            "registryName": "faults", "registryUrl": downloads.address().to_string(),
            "username": user.username, "password": user.password,
        });
        let entry = client.mutate("registry.create", input).await["registryId"].as_str().unwrap().to_owned();
        let at_removal = String::new();
        Self {
            client,
            servers,
            registry,
            downloads,
            entry,
            local,
            at_removal,
            links,
            agents,
            disks,
            engines,
            purser,
        }
    }

    /// Who pulls and pushes.
    pub(crate) fn user() -> &'static User {
        Testbed::get().user(Kind::Symbols)
    }

    /// The engine of a host.
    pub(crate) fn engine(&self, host: usize) -> purser_tests::Engine {
        self.engines[host].engine()
    }

    pub(crate) fn apply(&self, fault: Fault) {
        match fault {
            Fault::ServerKilled => self.purser.kill9(),
            Fault::AgentKilled(at) => self.agents[at].kill9(),
            Fault::AgentStopped(at) => self.agents[at].signal(Signal::SIGSTOP),
            Fault::EngineKilled(at) => self.engines[at].kill9(),
            Fault::RegistryKilled => self.registry.kill9(),
            Fault::LinkCut(at) => self.links[at].cut(),
            Fault::LinkStalled(at) => self.links[at].stall(true),
            Fault::DownloadCut => self.downloads.cut(),
            Fault::DownloadStalled => self.downloads.stall(true),
            Fault::DiskFull(at) => self.disks[at].fill(),
            Fault::DatabaseCut => self.database().cut(),
            Fault::DatabaseAway => self.database().away(true),
        }
    }

    pub(crate) async fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::ServerKilled => {
                // Its operator starts it when its database is there.
                self.database_is_back();
                self.purser.restart().await;
            }
            Fault::AgentKilled(at) => self.agents[at].restart(),
            Fault::AgentStopped(at) => self.agents[at].signal(Signal::SIGCONT),
            Fault::EngineKilled(at) => self.engines[at].restart().await,
            Fault::RegistryKilled => self.registry.restart().await,
            Fault::LinkCut(_) | Fault::DownloadCut | Fault::DatabaseCut => {}
            Fault::DatabaseAway => self.database_is_back(),
            Fault::LinkStalled(at) => self.links[at].stall(false),
            Fault::DownloadStalled => self.downloads.stall(false),
            Fault::DiskFull(at) => self.disks[at].clear(),
        }
        // What a host's service manager does: an agent cannot start while its disk is full.
        for (at, agent) in self.agents.iter_mut().enumerate() {
            let killed = matches!(fault, Fault::AgentKilled(other) if other == at);
            if !killed && let Some(status) = agent.exit_status().filter(|status| status.code().is_some()) {
                eprintln!("agent {at} ended by itself with {status}; started again");
                agent.restart();
            }
        }
    }

    fn database(&self) -> &Database {
        self.purser.database().expect("a fault of PostgreSQL only")
    }

    fn database_is_back(&self) {
        if let Some(database) = self.purser.database() {
            database.away(false);
        }
    }

    /// Waits until every host that was not removed is online again.
    pub(crate) async fn heal_all(&mut self) {
        for (agent, server) in self.agents.iter().zip(&self.servers).take(DOOMED) {
            eventually(BACK, async || {
                assert!(agent.exit_status().is_none(), "an agent ended by itself");
                let answer = self.client.trpc_query("server.one", &json!({"serverId": server})).await;
                (answer.data()["status"] == "online").then_some(())
            })
            .await;
        }
    }

    /// Removes the last agent's server; whether an answer is lost or not, it is asked until it is gone.
    pub(crate) async fn remove_the_doomed(&mut self) {
        let server = json!({"serverId": self.servers[DOOMED]});
        self.database_is_back();
        if self.purser.exit_status().is_some() {
            self.purser.restart().await;
        }
        eventually(BACK, async || {
            let headers = [("content-type", "application/json")];
            let path = "/api/trpc/server.remove";
            let answer =
                self.client.send(http::Method::POST, path, &headers, server.to_string()).await.ok()?;
            let removed: Value = answer.json();
            (removed.pointer("/result/data/status") == Some(&json!("revoked"))).then_some(())
        })
        .await;
        self.at_removal = self.targets_of_the_doomed();
    }

    /// All targets that the doomed server ever had, as the database has them.
    pub(crate) fn targets_of_the_doomed(&self) -> String {
        self.purser.execute_sql(&format!(
            "SELECT target_id, status, attempt FROM job_target WHERE server_id = '{}' ORDER BY 1",
            self.servers[DOOMED]
        ))
    }
}
