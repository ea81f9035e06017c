//! What the faults happen to.

use std::{cell::Cell, time::Duration};

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
use serde_json::json;

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

/// 32 bytes in base64: control planes over one database share the key ring.
const MASTER_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const ADMIN_KEY: &str = "all-of-them-share-this-admin-key";

/// Control planes, their hosts and their registry, each behind something that breaks.
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
    /// Where callers go, if there are several control planes.
    _door: BreakableProxy,
    /// After the agents, so that they end before it.
    pub(crate) replicas: Vec<Purser>,
    /// What several share; last, so that it is dropped after them.
    shared: Option<Database>,
}

/// The engine that an agent works with.
pub(crate) fn host_of(agent: usize) -> usize {
    agent.min(HOSTS - 1)
}

impl Scene {
    /// With so many control planes: one with a database of its own, or several over one PostgreSQL.
    pub(crate) async fn set(servers: usize) -> Self {
        let (first, second) = tokio::join!(OwnEngine::start(), OwnEngine::start());
        let engines = vec![first, second];
        let registry = OwnRegistry::start().await;
        let downloads = BreakableProxy::start(registry.address()).await;
        let shared = (servers > 1).then(Database::create);
        let mut replicas = vec![];
        for _ in 0..servers {
            let mut builder = Purser::builder().listen(&lasting_address());
            if let Some(database) = &shared {
                builder = builder.database_url(database.url()).env("PURSER_MASTER_KEY", MASTER_KEY);
                builder = builder.env("PURSER_ADMIN_API_KEY", ADMIN_KEY);
            }
            replicas.push(builder.start().await);
        }
        let addresses: Vec<_> = replicas.iter().map(Purser::address).collect();
        let door = BreakableProxy::start(addresses[0]).await;
        door.balance(&addresses);
        let client = match &shared {
            None => replicas[0].client(),
            Some(_) => Client::new(&format!("http://{}", door.address())).with_key(ADMIN_KEY),
        };
        let (mut links, mut agents, mut servers, mut disks) = (vec![], vec![], vec![], vec![]);
        for at in 0..AGENTS {
            let link = BreakableProxy::start(addresses[0]).await;
            link.balance(&addresses);
            let disk = TinyDisk::mount(DISK_KIB);
            let builder = Agent::builder(&replicas[0], &engines[host_of(at)].engine(), None)
                .server(&format!("http://{}", link.address()))
                .state_in(disk.path());
            let (agent, server) = Agent::join_through(&client, builder).await;
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
            _door: door,
            replicas,
            shared,
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
            Fault::ServerKilled(at) => self.replicas[at].kill9(),
            Fault::AllServersKilled => self.replicas.iter().for_each(Purser::kill9),
            Fault::AgentKilled(at) => self.agents[at].kill9(),
            Fault::AgentStopped(at) => self.agents[at].signal(Signal::SIGSTOP),
            Fault::EngineKilled(at) => self.engines[at].kill9(),
            Fault::RegistryKilled => self.registry.kill9(),
            Fault::LinkCut(at) => self.links[at].cut(),
            Fault::LinkStalled(at) => self.links[at].stall(true),
            Fault::DownloadCut => self.downloads.cut(),
            Fault::DownloadStalled => self.downloads.stall(true),
            Fault::DiskFull(at) => self.disks[at].fill(),
            Fault::DatabaseCut => self.database().into_iter().for_each(Database::cut),
            Fault::DatabaseAway => self.database().into_iter().for_each(|database| database.away(true)),
        }
    }

    pub(crate) async fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::ServerKilled(_) | Fault::AllServersKilled => self.servers_are_back().await,
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

    /// The PostgreSQL database of all control planes.
    pub(crate) fn database(&self) -> Option<&Database> {
        self.shared.as_ref().or(self.replicas[0].database())
    }

    /// One statement past all of them; see [`Purser::execute_sql`].
    pub(crate) fn execute_sql(&self, statement: &str) -> String {
        match self.database() {
            Some(database) => database.execute(statement),
            None => self.replicas[0].execute_sql(statement),
        }
    }

    fn database_is_back(&self) {
        if let Some(database) = self.database() {
            database.away(false);
        }
    }

    /// Starts the control planes that were killed: their operator does when their database is there.
    async fn servers_are_back(&mut self) {
        self.database_is_back();
        for replica in &mut self.replicas {
            if replica.exit_status().is_some() {
                replica.restart().await;
            }
        }
    }

    /// Waits until every host that was not removed is online again.
    pub(crate) async fn heal_all(&mut self) {
        for (agent, server) in self.agents.iter().zip(&self.servers).take(DOOMED) {
            eventually(BACK, async || {
                assert!(agent.exit_status().is_none(), "an agent ended by itself");
                // The connection that is kept may be one that was cut.
                let path = format!("/api/server.one?serverId={server}");
                let answer = self.client.send(http::Method::GET, &path, &[], "").await.ok()?;
                (answer.json()["status"] == "online").then_some(())
            })
            .await;
        }
    }

    /// Removes the last agent's server; whether an answer is lost or not, it is asked until it is gone. Asked again for
    /// what is gone, there is none.
    pub(crate) async fn remove_the_doomed(&mut self) {
        let server = json!({"serverId": self.servers[DOOMED]});
        self.servers_are_back().await;
        let unclear = Cell::new(false);
        eventually(BACK, async || {
            let headers = [("content-type", "application/json")];
            let path = "/api/trpc/server.remove";
            let answer = self.client.send(http::Method::POST, path, &headers, server.to_string()).await;
            let before = unclear.get();
            unclear.set(before || !answer.as_ref().is_ok_and(|answer| answer.status.is_client_error()));
            let answer = answer.ok()?;
            let is_removed = answer.json().pointer("/result/data/status") == Some(&json!("revoked"));
            (is_removed || before && answer.status == http::StatusCode::NOT_FOUND).then_some(())
        })
        .await;
        self.at_removal = self.targets_of_the_doomed();
    }

    /// All targets that the doomed server ever had, as the database has them.
    pub(crate) fn targets_of_the_doomed(&self) -> String {
        self.execute_sql(&format!(
            "SELECT target_id, status, attempt FROM job_target WHERE server_id = '{}' ORDER BY 1",
            self.servers[DOOMED]
        ))
    }
}
