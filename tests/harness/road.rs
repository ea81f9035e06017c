//! The road that a call takes, ready to walk: a control plane, its client, and agents on the hosts.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    agent::Agent,
    client::{Answer, Client},
    engine::Engine,
    proxy::BreakableProxy,
    purser::Purser,
    testbed::Testbed,
    user::User,
    wait::{eventually, unique},
};

/// How long a job may take on a busy machine: an engine repeats a push for 50 s.
const JOB: Duration = Duration::from_secs(180);
/// How long it may take on a busy machine until an end is heard of.
const AWAY: Duration = Duration::from_secs(20);

/// A control plane with agents; host `host-a` comes first.
pub struct Road {
    /// A client with the instance-admin key.
    pub client: Client,
    /// One agent per host, in the order of [`Road::servers`].
    pub agents: Vec<Agent>,
    /// The `serverId` of each host.
    pub servers: Vec<String>,
    /// Last, so that agents end before it.
    pub purser: Purser,
}

impl Road {
    /// A control plane and an agent on `host-a`.
    pub async fn start() -> Self {
        Self::over(Purser::start().await, &[Testbed::get().host_a()]).await
    }

    /// A control plane and an agent on this host.
    pub async fn on(engine: &Engine) -> Self {
        Self::over(Purser::start().await, std::slice::from_ref(engine)).await
    }

    /// A control plane and agents on `host-a` and `host-b`.
    pub async fn to_two_hosts() -> Self {
        let bed = Testbed::get();
        Self::over(Purser::start().await, &[bed.host_a(), bed.host_b()]).await
    }

    /// Joins an agent for each of `engines`.
    pub async fn over(purser: Purser, engines: &[Engine]) -> Self {
        let (mut agents, mut servers) = (Vec::new(), Vec::new());
        for engine in engines {
            let (agent, server) = Agent::join(&purser, engine).await;
            agents.push(agent);
            servers.push(server);
        }
        Self { client: purser.client(), agents, servers, purser }
    }

    /// The `serverId` of the first host.
    pub fn host(&self) -> &str {
        &self.servers[0]
    }

    /// Stores an entry for `user` at `registry`, and gives its `registryId`.
    pub async fn entry(&self, registry: &str, user: &User) -> String {
        self.entry_with(registry, &user.username, &user.password).await
    }

    /// Stores an entry with any credential.
    ///
    /// # Panics
    /// It was refused.
    pub async fn entry_with(&self, registry: &str, username: &str, password: &str) -> String {
        let input = json!({
            "registryName": unique("entry"), "registryUrl": registry,
            "username": username, "password": password,
        });
        let row = self.client.mutate("registry.create", input).await;
        row["registryId"].as_str().expect("an entry has an id").to_owned()
    }

    /// Pulls `image` onto the first host and gives the ended job; `more` joins the input.
    pub async fn pull(&self, image: &str, more: Value) -> Value {
        let mut input = json!({"image": image, "serverId": self.host()});
        merge(&mut input, more);
        let job = self.client.mutate("image.pull", input).await;
        self.ended(&job).await
    }

    /// Pushes a local image from the first host and gives the ended job.
    pub async fn push(&self, image: &str, registry_id: &str, more: Value) -> Value {
        let mut input = json!({"image": image, "serverId": self.host(), "registryId": registry_id});
        merge(&mut input, more);
        let job = self.client.mutate("image.push", input).await;
        self.ended(&job).await
    }

    /// Stops the agent of the host `at`, and waits until the control plane knows: what comes before that is
    /// given to the session that ends.
    ///
    /// # Panics
    /// The agent is still there, or online.
    pub async fn stop_agent(&self, at: usize) {
        self.agents[at].stop().await;
        eventually(AWAY, async || {
            let row = self.client.query("server.one", json!({"serverId": self.servers[at]})).await;
            (row["status"] == "offline").then_some(())
        })
        .await;
    }

    /// `registry.testRegistryById` from the control plane, or from `server`.
    pub async fn test(&self, registry_id: &str, server: Option<&str>) -> Answer {
        let input = json!({"registryId": registry_id, "serverId": server});
        self.client.trpc_mutation("registry.testRegistryById", &input).await
    }

    /// Waits until `job` is final, and gives it as it ended.
    pub async fn ended(&self, job: &Value) -> Value {
        self.job_when(job, |job| matches!(job["status"].as_str(), Some("succeeded" | "failed" | "cancelled")))
            .await
    }

    /// Waits until `job` is as `wanted`, and gives it.
    ///
    /// # Panics
    /// It was not within a minute.
    pub async fn job_when(&self, job: &Value, wanted: impl Fn(&Value) -> bool) -> Value {
        let id = job["jobId"].clone();
        assert!(id.is_string(), "no job: {job}");
        eventually(JOB, async || {
            let job = self.client.query("job.one", json!({"jobId": id})).await;
            wanted(&job).then_some(job)
        })
        .await
    }
}

/// Waits until an engine has given up what it was fetching through `registry`, which holds it back: a target is
/// said to be cancelled before its engine has heard of it.
///
/// # Panics
/// It goes on.
pub async fn given_up(registry: &BreakableProxy) {
    eventually(AWAY, async || {
        if registry.open() == 0 {
            return Some(());
        }
        // Docker 20.10 does not stop while it waits for the image's config, which may be held back, too. A piece
        // of a layer in each second leads nowhere.
        registry.allow(1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        None
    })
    .await;
}

/// Puts the fields of `more` into `input`; null adds nothing.
fn merge(input: &mut Value, more: Value) {
    let Value::Object(more) = more else { return };
    input.as_object_mut().expect("an input is an object").extend(more);
}

/// The only target of a job that succeeded.
///
/// # Panics
/// It has another number of them, or did not succeed.
#[track_caller]
pub fn succeeded(job: &Value) -> &Value {
    assert_eq!(job["status"], "succeeded", "{job:#}");
    only_target(job, "succeeded")
}

/// The only target of a job that failed; its `error` is complete.
///
/// # Panics
/// It has another number of them, or did not fail.
#[track_caller]
pub fn failed(job: &Value) -> &Value {
    assert_eq!(job["status"], "failed", "{job:#}");
    let target = only_target(job, "failed");
    assert!(target["result"].is_null(), "a failure has no result: {target:#}");
    for word in ["code", "message", "advice"] {
        assert!(target["error"][word].as_str().is_some_and(|text| !text.is_empty()), "{word}: {target:#}");
    }
    target
}

#[track_caller]
fn only_target<'a>(job: &'a Value, status: &str) -> &'a Value {
    let targets = job["targets"].as_array().expect("a job has targets");
    assert_eq!(targets.len(), 1, "{job:#}");
    assert_eq!(targets[0]["status"], status, "{job:#}");
    assert!(job["finishedAt"].is_string() && targets[0]["progress"].is_null(), "{job:#}");
    &targets[0]
}
