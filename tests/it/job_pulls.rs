//! Pulls beside and after each other on one host: shared where they are the same, ended where they do not
//! get on. The host's engine is behind a proxy, where its calls are counted.

use std::time::Duration;

use purser_tests::{
    Agent, BreakableProxy, Client, Engine, Purser, Testbed, eventually,
    image::{self, Published},
    user::Kind,
};
use serde_json::{Value, json};

const SIZE: usize = 8_000_000;
const END: Duration = Duration::from_secs(60);

/// A host, and an image that hangs halfway at its registry until it is let go.
struct Scene {
    purser: Purser,
    client: Client,
    engine: Engine,
    calls: BreakableProxy,
    registry: BreakableProxy,
    _agent: Agent,
    server_id: String,
    image: Published,
    reference: String,
}

impl Scene {
    async fn set() -> Self {
        let bed = Testbed::get();
        let (engine, purser) = (bed.host_b(), Purser::start().await);
        let calls = BreakableProxy::start(engine.socket().to_str().unwrap()).await;
        let builder =
            Agent::builder(&purser, &engine, None).docker_host(&format!("tcp://{}", calls.address()));
        let (agent, server_id) = Agent::join_by(&purser, builder).await;
        let registry = BreakableProxy::start(&bed.registries.open).await;
        let image = image::in_registry(&bed.host_a(), &bed.registries.open, "shared", SIZE, None).await;
        let reference = format!("{}/{}:{}", registry.address(), image.name, image.tag);
        registry.allow(SIZE / 2);
        let client = purser.client();
        Self { purser, client, engine, calls, registry, _agent: agent, server_id, image, reference }
    }

    async fn pull(&self, more: Value) -> Value {
        let mut input = json!({"image": self.reference, "serverId": self.server_id});
        input.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        self.client.mutate("image.pull", input).await
    }

    async fn when(&self, job: &Value, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(END, async || {
            let job = self.client.query("job.one", json!({"jobId": job["jobId"]})).await;
            wanted(&job).then_some(job)
        })
        .await
    }

    /// As it is between two tries. That may be a second, which who looks now and then may miss, but not who watches.
    async fn between_tries(&self, job: &Value) -> Value {
        let mut socket = self.client.websocket().await.unwrap();
        socket.call("job.watch", json!({"jobId": job["jobId"]})).await.unwrap();
        let told = async {
            loop {
                let job = socket.notification().await.unwrap()["params"]["result"].take();
                let target = &job["targets"][0];
                assert!(["queued", "running"].contains(&status(target)), "{job:#}");
                if status(target) == "queued" && target["error"].is_object() {
                    assert!(target["attempts"].as_u64() >= Some(1), "{job:#}");
                    return job;
                }
            }
        };
        tokio::time::timeout(END, told).await.expect("what went wrong is told")
    }

    async fn downloading(&self, job: &Value) {
        self.when(job, |job| job["targets"][0]["progress"]["downloadedBytes"].as_u64() > Some(0)).await;
    }

    /// How often the engine was asked to pull this image.
    fn engine_pulls(&self) -> usize {
        let asked = self.calls.recording().to_upstream;
        let asked = String::from_utf8_lossy(&asked).into_owned();
        asked.matches("POST /images/create?").count()
    }
}

fn status(job: &Value) -> &str {
    job["status"].as_str().unwrap()
}

#[tokio::test]
async fn the_same_pull_twice_is_one_of_the_engine_and_each_may_go_by_itself() {
    let scene = Scene::set().await;
    let first = scene.pull(json!({})).await;
    scene.downloading(&first).await;
    let second = scene.pull(json!({})).await;
    // Whoever joins sees at once how far it is.
    scene.downloading(&second).await;
    assert_eq!(scene.engine_pulls(), 1);
    scene.client.mutate("job.cancel", json!({"jobId": first["jobId"]})).await;
    scene.when(&first, |job| status(job) == "cancelled").await;
    scene.registry.allow(usize::MAX);
    let ended = scene.when(&second, |job| status(job) == "succeeded").await;
    assert_eq!(ended["targets"][0]["result"]["digest"], scene.image.digest);
    assert_eq!(scene.engine_pulls(), 1, "and nobody began anew");
    // What has ended is not shared.
    let third = scene.pull(json!({})).await;
    scene.when(&third, |job| status(job) == "succeeded").await;
    assert_eq!(scene.engine_pulls(), 2);
    scene.engine.remove(&scene.reference).await;
}

#[tokio::test]
async fn pulls_with_different_credentials_are_never_one() {
    let scene = Scene::set().await;
    let user = Testbed::get().user(Kind::Plain);
    let auth = |password: &str| json!({"auth": {"username": user.username, "password": password}});
    let jobs =
        [scene.pull(json!({})).await, scene.pull(auth("one")).await, scene.pull(auth("another")).await];
    eventually(END, async || {
        // Bit by bit: each is asked for at the registry before its engine is, beside what is downloading.
        scene.registry.allow(50_000);
        (scene.engine_pulls() == 3).then_some(())
    })
    .await;
    scene.registry.allow(usize::MAX);
    for job in &jobs {
        scene.when(job, |job| status(job) == "succeeded").await;
    }
    assert_eq!(scene.engine_pulls(), 3);
    scene.engine.remove(&scene.reference).await;
}

#[tokio::test]
async fn a_pull_that_does_not_get_on_says_where_it_stood_and_is_tried_again() {
    let scene = Scene::set().await;
    // Its engine begins within that time, too.
    let job = scene.pull(json!({"stallTimeoutSeconds": 15})).await;
    let waiting = scene.between_tries(&job).await;
    let error = &waiting["targets"][0]["error"];
    assert_eq!(error["code"], "timeout", "{waiting:#}");
    let said = error["message"].as_str().unwrap();
    assert!(said.starts_with("there was no progress for 15 s; it stood at downloading, "), "{said}");
    scene.registry.allow(usize::MAX);
    let ended = scene.when(&job, |job| status(job) == "succeeded").await;
    assert!(ended["targets"][0]["attempts"].as_u64() >= Some(2), "{ended:#}");
    assert!(scene.engine.inspect(&scene.reference).await.is_some());
    scene.engine.remove(&scene.reference).await;
}

/// The network is down when the job is accepted, and comes back.
#[tokio::test]
async fn a_registry_that_comes_back_is_pulled_from_after_all() {
    let scene = Scene::set().await;
    scene.registry.refuse(true);
    scene.registry.cut();
    let job = scene.pull(json!({})).await;
    let waiting = scene.between_tries(&job).await;
    assert_eq!(waiting["targets"][0]["error"]["code"], "connect", "{waiting:#}");
    scene.registry.refuse(false);
    scene.registry.allow(usize::MAX);
    let ended = scene.when(&job, |job| status(job) == "succeeded").await;
    assert!(ended["targets"][0]["attempts"].as_u64() > Some(1), "{ended:#}");
    assert!(scene.purser.logs().contains("tried again later"));
    scene.engine.remove(&scene.reference).await;
}
