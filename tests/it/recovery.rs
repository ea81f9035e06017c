//! Whatever dies at whatever moment: no accepted job is lost, and no success is reported that is none.
//!
//! The pull of these tests hangs in the middle, at a proxy before its registry, for as long as a test
//! wants.

use std::{path::PathBuf, time::Duration};

use nix::sys::signal::Signal;
use purser_tests::{
    Agent, BreakableProxy, Client, Engine, Purser, Testbed, agent, double::Double, eventually, image,
    road::given_up, unique,
};
use serde_json::{Value, json};

const PAYLOAD: usize = 4 << 20;
const SOON: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(60);

/// A control plane, a host behind a link that breaks, and an image behind a registry that hangs.
struct Scene {
    purser: Purser,
    client: Client,
    link: BreakableProxy,
    registry: BreakableProxy,
    engine: Engine,
    agent: Agent,
    server_id: String,
    image: String,
    digest: String,
}

impl Scene {
    async fn set() -> Self {
        Self::set_with(|builder| builder).await
    }

    async fn set_with(change: impl FnOnce(agent::Builder) -> agent::Builder) -> Self {
        let bed = Testbed::get();
        let engine = bed.host_b();
        let purser = Purser::start().await;
        let link = BreakableProxy::start(purser.address()).await;
        let builder = Agent::builder(&purser, &engine, None).server(&format!("http://{}", link.address()));
        let (agent, server_id) = Agent::join_by(&purser, change(builder)).await;
        let registry = BreakableProxy::start(&bed.registries.open).await;
        let made = image::in_registry(&bed.host_a(), &bed.registries.open, "recovery", PAYLOAD, None).await;
        let image = format!("{}/{}:{}", registry.address(), made.name, made.tag);
        let client = purser.client();
        Self { purser, client, link, registry, engine, agent, server_id, image, digest: made.digest }
    }

    /// Starts a pull and waits until it hangs in the middle of its layer.
    async fn pull(&self) -> String {
        self.registry.allow(PAYLOAD / 4);
        let asked = json!({"serverId": self.server_id, "image": self.image});
        let job = self.client.mutate("image.pull", asked).await;
        let id = job["jobId"].as_str().expect("a text").to_owned();
        self.hanging().await;
        id
    }

    async fn hanging(&self) {
        eventually(SOON, async || (self.registry.recording().to_client.len() > PAYLOAD / 8).then_some(()))
            .await;
    }

    async fn job(&self, id: &str) -> Value {
        self.client.query("job.one", json!({"jobId": id})).await
    }

    async fn status(&self, id: &str) -> String {
        self.job(id).await["status"].as_str().expect("a text").to_owned()
    }

    async fn ended(&self, id: &str) -> Value {
        eventually(END, async || {
            let job = self.job(id).await;
            ["succeeded", "failed", "cancelled"].contains(&job["status"].as_str()?).then_some(job)
        })
        .await
    }

    async fn online(&self) {
        self.agent.await_online(&self.client, &self.server_id).await;
    }

    async fn offline(&self) {
        eventually(SOON, async || {
            let row = self.client.query("server.one", json!({"serverId": self.server_id})).await;
            (row["status"] == "offline").then_some(())
        })
        .await;
    }

    /// The job ends well after this many attempts, and the image is really there.
    async fn succeeds(&self, id: &str, attempts: u32) {
        let job = self.ended(id).await;
        assert_eq!(job["status"], "succeeded", "{job}");
        assert_eq!(job["targets"][0]["attempts"], attempts, "{job}");
        assert_eq!(job["targets"][0]["result"]["digest"], self.digest.as_str(), "{job}");
        assert!(self.engine.inspect(&self.image).await.is_some(), "a success without the image");
        self.engine.remove(&self.image).await;
    }

    /// The job ended otherwise, and the image is not there.
    async fn ends_without_image(&self, id: &str, status: &str) -> Value {
        let job = self.ended(id).await;
        assert_eq!(job["status"], status, "{job}");
        assert!(self.engine.inspect(&self.image).await.is_none(), "the image is there");
        job
    }
}

#[tokio::test]
async fn a_pull_outlives_a_killed_server() {
    let mut scene = Scene::set().await;
    let job = scene.pull().await;
    scene.purser.kill9();
    scene.purser.restart().await;
    assert_eq!(scene.status(&job).await, "running");
    scene.registry.allow(usize::MAX);
    scene.succeeds(&job, 1).await;
}

/// It wrote down that the agent had taken the target.
#[tokio::test]
async fn a_pull_outlives_the_update_of_a_server_of_version_0_1() {
    let mut scene = Scene::set().await;
    let job = scene.pull().await;
    scene.purser.kill9();
    scene.purser.execute_sql("UPDATE job_target SET status = 'running'");
    scene.purser.restart().await;
    assert_eq!(scene.status(&job).await, "running");
    scene.registry.allow(usize::MAX);
    scene.succeeds(&job, 1).await;
}

#[tokio::test]
async fn a_pull_outlives_a_stopped_server() {
    let mut scene = Scene::set().await;
    let job = scene.pull().await;
    assert!(scene.purser.stop().await.success());
    // Ends while nobody is there to hear of it.
    scene.registry.allow(usize::MAX);
    eventually(END, async || scene.engine.inspect(&scene.image).await).await;
    scene.purser.restart().await;
    scene.succeeds(&job, 1).await;
}

#[tokio::test]
async fn a_pull_that_died_with_its_agent_is_given_out_again() {
    let mut scene = Scene::set().await;
    let job = scene.pull().await;
    scene.agent.kill9();
    scene.offline().await;
    assert_eq!(scene.status(&job).await, "running", "nobody knows how it ended");
    scene.registry.allow(usize::MAX);
    scene.agent.restart();
    scene.succeeds(&job, 2).await;
}

#[tokio::test]
async fn a_pull_that_a_stopping_agent_cut_off_is_given_out_again() {
    let mut scene = Scene::set().await;
    let job = scene.pull().await;
    assert!(scene.agent.stop().await.success());
    assert_eq!(scene.status(&job).await, "running");
    scene.registry.allow(usize::MAX);
    scene.agent.restart();
    scene.succeeds(&job, 2).await;
}

#[tokio::test]
async fn server_and_agent_killed_at_once_lose_nothing() {
    let mut scene = Scene::set().await;
    let job = scene.pull().await;
    scene.purser.kill9();
    scene.agent.kill9();
    scene.registry.allow(usize::MAX);
    scene.agent.restart();
    scene.purser.restart().await;
    scene.succeeds(&job, 2).await;
}

#[tokio::test]
async fn an_agent_that_dies_of_a_target_three_times_fails_it() {
    let mut scene = Scene::set().await;
    let job = scene.pull().await;
    for attempt in 2..=4 {
        scene.agent.kill9();
        scene.offline().await;
        scene.agent.restart();
        scene.online().await;
        if attempt < 4 {
            eventually(SOON, async || {
                (scene.job(&job).await["targets"][0]["attempts"] == attempt).then_some(())
            })
            .await;
        }
    }
    let job = scene.ends_without_image(&job, "failed").await;
    let target = &job["targets"][0];
    assert_eq!(target["attempts"], 3, "{job}");
    let message = target["error"]["message"].as_str().unwrap();
    assert_eq!(message, "the agent stopped while it worked on this, 3 time(s)", "{job}");
}

#[tokio::test]
async fn a_pull_goes_on_when_the_link_is_cut() {
    let scene = Scene::set().await;
    let job = scene.pull().await;
    scene.link.refuse(true);
    scene.link.cut();
    scene.offline().await;
    assert_eq!(scene.status(&job).await, "running");
    scene.link.refuse(false);
    scene.online().await;
    scene.registry.allow(usize::MAX);
    scene.succeeds(&job, 1).await;
}

/// The verdict is written into a link that carries nothing any more, and told again over the next.
#[tokio::test]
async fn a_verdict_that_was_lost_on_the_way_is_told_again() {
    let scene = Scene::set().await;
    let job = scene.pull().await;
    scene.link.stall(true);
    scene.registry.allow(usize::MAX);
    eventually(END, async || scene.engine.inspect(&scene.image).await).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(scene.status(&job).await, "running");
    scene.link.cut();
    scene.link.stall(false);
    scene.succeeds(&job, 1).await;
}

/// Where an agent keeps verdicts that nobody has heard.
fn verdicts(agent: &Agent) -> PathBuf {
    agent.state_dir().join("verdicts.jsonl")
}

#[tokio::test]
async fn a_verdict_outlives_the_agent_that_reached_it() {
    let mut scene = Scene::set().await;
    let job = scene.pull().await;
    scene.link.stall(true);
    scene.registry.allow(usize::MAX);
    eventually(END, async || verdicts(&scene.agent).exists().then_some(())).await;
    scene.agent.kill9();
    assert_eq!(scene.status(&job).await, "running");
    let asked = scene.registry.accepted();
    scene.link.cut();
    scene.link.stall(false);
    scene.agent.restart();
    scene.succeeds(&job, 1).await;
    assert_eq!(scene.registry.accepted(), asked, "it was pulled again");
    eventually(SOON, async || (!verdicts(&scene.agent).exists()).then_some(())).await;
}

/// As a full disk does, something is in the way of the file.
#[tokio::test]
async fn a_disk_that_takes_no_verdict_costs_none() {
    let scene = Scene::set().await;
    std::fs::create_dir(scene.agent.state_dir().join("verdicts.jsonl.unfinished")).unwrap();
    let job = scene.pull().await;
    scene.link.stall(true);
    scene.registry.allow(usize::MAX);
    scene.agent.await_log("verdicts are kept in memory only").await;
    scene.link.cut();
    scene.link.stall(false);
    scene.succeeds(&job, 1).await;
    assert_eq!(scene.agent.logs().matches("kept in memory only").count(), 1);
}

#[tokio::test]
async fn an_engine_that_dies_during_a_pull_is_no_success() {
    let bed = Testbed::get();
    let socket = bed.host_b().socket().to_str().unwrap().to_owned();
    let engine = BreakableProxy::start(&socket).await;
    let scene = Scene::set_with(|builder| builder.docker_host(&format!("tcp://{}", engine.address()))).await;
    let job = scene.pull().await;
    engine.refuse(true);
    engine.cut();
    let job = scene.ends_without_image(&job, "failed").await;
    let error = &job["targets"][0]["error"];
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{job}");
    assert!(error["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{job}");
    assert_eq!(job["targets"][0]["result"], Value::Null);
}

/// The time limit is set back, since a pull may take an hour.
#[tokio::test]
async fn a_pull_that_hangs_ends_as_a_timeout_and_is_stopped() {
    let scene = Scene::set().await;
    let job = scene.pull().await;
    scene.purser.execute_sql("UPDATE job_target SET run_deadline = '2020-01-01 00:00:00+00:00'");
    let job = scene.ends_without_image(&job, "failed").await;
    assert_eq!(job["targets"][0]["error"]["code"], "timeout", "{job}");
    scene.agent.await_log("cancel").await;
}

#[tokio::test]
async fn work_for_a_host_that_is_gone_fails_when_its_time_is_over() {
    let scene = Scene::set().await;
    scene.agent.kill9();
    scene.offline().await;
    let asked = json!({"serverId": scene.server_id, "image": scene.image});
    let job = scene.client.mutate("image.pull", asked).await;
    let id = job["jobId"].as_str().unwrap();
    assert_eq!(scene.status(id).await, "queued");
    scene.purser.execute_sql("UPDATE job_target SET queue_deadline = '2020-01-01 00:00:00+00:00'");
    let job = scene.ends_without_image(id, "failed").await;
    assert_eq!(job["targets"][0]["error"]["code"], "server_offline", "{job}");
    assert_eq!(job["targets"][0]["attempts"], 0);
}

#[tokio::test]
async fn a_test_whose_agent_dies_is_an_error_in_time() {
    let scene = Scene::set().await;
    scene.registry.allow(0);
    let asked = json!({"registryUrl": format!("http://{}", scene.registry.address()),
        "username": "me", "password": "hunter2hunter2", "serverId": scene.server_id});
    let (client, agent) = (&scene.client, &scene.agent);
    let before = scene.registry.accepted();
    let kill = async {
        eventually(SOON, async || (scene.registry.accepted() > before).then_some(())).await;
        agent.kill9();
    };
    let started = std::time::Instant::now();
    let (answer, ()) = tokio::join!(client.trpc_mutation("registry.testRegistry", &asked), kill);
    assert!(!answer.status.is_success(), "{answer:?}");
    assert_eq!(
        (answer.code(), answer.diagnosis()),
        ("PRECONDITION_FAILED".into(), "server_offline".into()),
        "{answer:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(28), "{:?}", started.elapsed());
    let again = client.trpc_mutation("registry.testRegistry", &asked).await;
    assert_eq!(again.diagnosis(), "server_offline", "{again:?}");
}

#[tokio::test]
async fn a_pull_is_cancelled() {
    let scene = Scene::set().await;
    let job = scene.pull().await;
    scene.client.mutate("job.cancel", json!({"jobId": job})).await;
    scene.ends_without_image(&job, "cancelled").await;
    scene.registry.allow(usize::MAX);
}

#[tokio::test]
async fn a_cancel_closes_the_engines_connection() {
    let bed = Testbed::get();
    let engine = BreakableProxy::start(bed.host_b().socket().to_str().unwrap()).await;
    let scene = Scene::set_with(|builder| builder.docker_host(&format!("tcp://{}", engine.address()))).await;
    let job = scene.pull().await;
    assert_ne!(engine.open(), 0, "the pull is a connection to the engine");
    scene.client.mutate("job.cancel", json!({"jobId": job})).await;
    // The registry gives nothing more, so nothing else would end it. On a quiet machine it takes milliseconds.
    eventually(Duration::from_secs(20), async || (engine.open() == 0).then_some(())).await;
    scene.ends_without_image(&job, "cancelled").await;
}

/// Nobody can be asked, so the job ends at once, and the agent hears of it when it returns.
#[tokio::test]
async fn a_pull_is_cancelled_while_its_agent_is_away() {
    let scene = Scene::set().await;
    let job = scene.pull().await;
    scene.link.refuse(true);
    scene.link.cut();
    scene.offline().await;
    scene.client.mutate("job.cancel", json!({"jobId": job})).await;
    assert_eq!(scene.status(&job).await, "cancelled");
    scene.link.refuse(false);
    scene.online().await;
    // What was dropped is aborted in the engine: nothing more is fetched when the registry goes on.
    given_up(&scene.registry).await;
    scene.registry.allow(usize::MAX);
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.ends_without_image(&job, "cancelled").await;
}

#[tokio::test]
async fn a_removed_servers_work_ends_cancelled() {
    let scene = Scene::set().await;
    let running = scene.pull().await;
    let mut all = vec![running];
    for _ in 0..3 {
        let asked = json!({"serverId": scene.server_id, "image": scene.image});
        let job = scene.client.mutate("image.pull", asked).await;
        all.push(job["jobId"].as_str().unwrap().to_owned());
    }
    scene.client.mutate("server.remove", json!({"serverId": scene.server_id})).await;
    for job in all {
        assert_eq!(scene.status(&job).await, "cancelled");
    }
    // Nor does the host go on by itself with what it was given.
    eventually(SOON, async || scene.agent.logs().contains("this server was removed").then_some(())).await;
    given_up(&scene.registry).await;
    scene.registry.allow(usize::MAX);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(scene.engine.inspect(&scene.image).await.is_none(), "the pull went on");
}

/// A cancel and a verdict lock the same rows: neither may wait for the other, or fail.
#[tokio::test]
async fn many_cancels_beside_their_verdicts_are_all_answered() {
    let scene = Scene::set().await;
    let nowhere = format!("{}/{}:v1", Testbed::get().registries.open, unique("absent"));
    let cancels = (0..24).map(|_| async {
        let asked = json!({"serverId": scene.server_id, "image": nowhere});
        let job = scene.client.mutate("image.pull", asked).await;
        let id = job["jobId"].as_str().unwrap().to_owned();
        let answer = scene.client.trpc_mutation("job.cancel", &json!({"jobId": id})).await;
        assert!(answer.status.is_success(), "{answer:?}");
        id
    });
    for id in futures_util::future::join_all(cancels).await {
        let job = scene.ended(&id).await;
        assert_ne!(job["status"], "succeeded");
    }
}

/// An agent that takes a target only after somebody asked to stop it: told again, it stops.
#[tokio::test]
async fn an_agent_hung_while_a_job_is_cancelled_stops_it_later() {
    let scene = Scene::set().await;
    scene.registry.allow(PAYLOAD / 4);
    scene.agent.signal(Signal::SIGSTOP);
    let asked = json!({"serverId": scene.server_id, "image": scene.image});
    let job = scene.client.mutate("image.pull", asked).await;
    let id = job["jobId"].as_str().unwrap();
    eventually(SOON, async || (scene.status(id).await == "running").then_some(())).await;
    scene.client.mutate("job.cancel", json!({"jobId": id})).await;
    scene.agent.signal(Signal::SIGCONT);
    scene.ends_without_image(id, "cancelled").await;
    scene.registry.allow(usize::MAX);
}

/// A stranger's handshake in the middle of a pull is no reason to think that the agent lost it.
#[tokio::test]
async fn a_refused_handshake_does_not_touch_work_under_way() {
    let scene = Scene::set().await;
    let job = scene.pull().await;
    let mut stranger = Double::of(&scene.agent);
    stranger.key = purser_proto_schema::agent::noise::StaticKey::generate().unwrap();
    assert!(stranger.dial(scene.purser.address()).await.is_err());
    assert_eq!(scene.job(&job).await["targets"][0]["attempts"], 1);
    scene.registry.allow(usize::MAX);
    scene.succeeds(&job, 1).await;
}
