//! The jobs that flow while things break.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode};
use purser_tests::{Client, faults::Chance, image, tenant::digest, unique, wait::random_hex};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use super::scene::{AGENTS, DOOMED, HOSTS, Scene};

/// Between two calls.
const APART: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));
/// Bytes of an image.
const PAYLOAD: (usize, usize) = (20_000, 300_000);
/// How long a caller waits for an answer.
const PATIENCE: Duration = Duration::from_secs(70);
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pull,
    /// Of an image that there is not.
    PullOfNothing,
    Push,
    Test,
}

/// How a call was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// With this job.
    Job(String),
    /// With another success, or an error: its code.
    Otherwise(String),
    /// Not at all: the job may have been accepted or not.
    Lost,
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) kind: Kind,
    /// The image that a pull names, the tag that a push gives; no other call has it.
    pub(crate) name: String,
    /// What a successful pull must bring.
    pub(crate) digest: Option<String>,
    pub(crate) answered: Answered,
}

/// Calls under way.
pub(crate) struct Work {
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    without_doomed: Arc<AtomicBool>,
    flow: JoinHandle<()>,
}

/// What a call needs of the scene.
struct Caller {
    client: Client,
    /// Whether calls go to several control planes, each by a connection of its own.
    to_several: bool,
    on_postgres: bool,
    servers: Vec<String>,
    entry: String,
    local: Vec<String>,
    /// Where images are put.
    registry: Client,
    /// Under which address they are pulled.
    downloads: String,
}

impl Work {
    /// Begins to call.
    pub(crate) fn begin(scene: &Scene, mut chance: Chance) -> Self {
        let caller = Arc::new(Caller {
            client: scene.client.clone(),
            to_several: scene.replicas.len() > 1,
            on_postgres: scene.database().is_some(),
            servers: scene.servers.clone(),
            entry: scene.entry.clone(),
            local: scene.local.clone(),
            registry: Client::new(&format!("http://{}", scene.registry.address())),
            downloads: scene.downloads.address().to_string(),
        });
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (stop, without_doomed) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (into, until, narrowed) = (asked.clone(), stop.clone(), without_doomed.clone());
        let flow = tokio::spawn(async move {
            let mut calls = JoinSet::new();
            while !until.load(Ordering::Relaxed) {
                let hosts = if narrowed.load(Ordering::Relaxed) { DOOMED } else { AGENTS };
                let call = Arc::clone(&caller).call(chance.clone(), hosts);
                let into = into.clone();
                calls.spawn(async move {
                    let made = call.await;
                    into.lock().unwrap().push(made);
                });
                chance.any();
                tokio::time::sleep(chance.between(APART.0, APART.1)).await;
                while let Some(ended) = calls.try_join_next() {
                    ended.expect("a call does not panic");
                }
            }
            while let Some(ended) = calls.join_next().await {
                ended.expect("a call does not panic");
            }
        });
        Self { asked, stop, without_doomed, flow }
    }

    /// From now on no call names the server that was removed.
    pub(crate) fn leave_out_the_doomed(&self) {
        self.without_doomed.store(true, Ordering::Relaxed);
    }

    /// Calls that were answered, or given up, so far.
    pub(crate) fn calls(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Makes no more calls, and gives those that were made.
    pub(crate) async fn end(self) -> Vec<Asked> {
        self.stop.store(true, Ordering::Relaxed);
        self.flow.await.expect("the calls end");
        self.asked.lock().unwrap().clone()
    }
}

impl Caller {
    async fn call(self: Arc<Self>, mut chance: Chance, hosts: usize) -> Asked {
        let some = |chance: &mut Chance| {
            let first = chance.below(hosts);
            let all = (first..first + 1 + chance.below(hosts)).map(|at| &self.servers[at % hosts]);
            all.cloned().collect::<Vec<_>>()
        };
        match chance.below(20) {
            0..12 => {
                let servers = some(&mut chance);
                let name = unique("fault");
                let size = PAYLOAD.0 + chance.below(PAYLOAD.1 - PAYLOAD.0);
                let digest = self.publish(&name, size).await;
                let image = format!("{}/{name}:v1", self.downloads);
                let (waits, cancels) = (chance.once_in(8), chance.once_in(10));
                let input = json!({"image": image, "serverIds": servers, "wait": waits});
                let answered = self.ask("image.pull", &input, cancels).await;
                Asked { kind: Kind::Pull, name: image, digest: Some(digest), answered }
            }
            12 => {
                let image = format!("{}/{}:v1", self.downloads, unique("nothing"));
                let input = json!({"image": image, "serverIds": some(&mut chance)});
                let answered = self.ask("image.pull", &input, false).await;
                Asked { kind: Kind::PullOfNothing, name: image, digest: None, answered }
            }
            13..16 => {
                let (host, tag) = (chance.below(HOSTS), unique("v"));
                let input = json!({"image": self.local[host], "serverId": self.servers[host],
                    "registryId": self.entry, "tag": tag});
                let answered = self.ask("image.push", &input, chance.once_in(10)).await;
                Asked { kind: Kind::Push, name: tag, digest: None, answered }
            }
            _ => {
                let input = json!({"registryId": self.entry, "serverId": self.servers[chance.below(hosts)]});
                let answered = self.ask("registry.testRegistryById", &input, false).await;
                Asked { kind: Kind::Test, name: String::new(), digest: None, answered }
            }
        }
    }

    async fn ask(&self, procedure: &str, input: &Value, cancel: bool) -> Answered {
        let Some(answer) = self.post(procedure, input).await else { return Answered::Lost };
        let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
        let told = text("/error/message").filter(|message| message.contains("was accepted, and"));
        if let Some(job) = told.and_then(|message| message.split(' ').find(|word| word.starts_with("job_"))) {
            return Answered::Job(job.to_owned());
        }
        let Some(job) = text("/result/data/jobId") else {
            let code = text("/error/data/code").unwrap_or("ok");
            // A database that is lost in the middle of a commit says neither yes nor no.
            let nobody_knows = self.on_postgres && code == "INTERNAL_SERVER_ERROR";
            return if nobody_knows { Answered::Lost } else { Answered::Otherwise(code.to_owned()) };
        };
        if cancel {
            // Heard or not: a job that is cancelled ends, and one that is not, too.
            self.post("job.cancel", &json!({"jobId": job})).await;
        }
        Answered::Job(job.to_owned())
    }

    async fn post(&self, procedure: &str, input: &Value) -> Option<Value> {
        let (path, headers) = (format!("/api/trpc/{procedure}"), [("content-type", "application/json")]);
        let client = if self.to_several { self.client.afresh() } else { self.client.clone() };
        let sent = client.send_within(PATIENCE, Method::POST, &path, &headers, input.to_string());
        serde_json::from_slice(&sent.await.ok()?.body).ok()
    }

    /// Puts an image into the registry, past all engines; gives its digest.
    async fn publish(&self, name: &str, size: usize) -> String {
        let layer = image::archive(size);
        let diff = format!("sha256:{}", digest(&layer));
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({"architecture": architecture, "os": "linux", "config": {"Labels": {"x": random_hex(8)}},
            "rootfs": {"type": "layers", "diff_ids": [diff]}});
        let config = config.to_string().into_bytes();
        let blob = |kind: &str, bytes: &[u8]| {
            json!({"mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": format!("sha256:{}", digest(bytes)), "size": bytes.len()})
        };
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": blob("config.v1+json", &config),
            "layers": [blob("layer.v1.tar", &layer)]});
        let manifest = manifest.to_string().into_bytes();
        loop {
            // The registry may be dead just now.
            let parts = [self.put_blob(name, &config).await, self.put_blob(name, &layer).await];
            if parts.iter().all(Option::is_some) && self.put_manifest(name, &manifest).await.is_some() {
                return format!("sha256:{}", digest(&manifest));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn put_blob(&self, name: &str, bytes: &[u8]) -> Option<()> {
        let begun = self.at_registry(Method::POST, &format!("/v2/{name}/blobs/uploads/"), "", b"").await?;
        let at = begun.headers.get("location")?.to_str().ok()?;
        let path = at.find("/v2/").map(|start| &at[start..])?;
        let path = format!("{path}&digest=sha256:{}", digest(bytes));
        self.at_registry(Method::PUT, &path, "application/octet-stream", bytes).await.map(drop)
    }

    async fn put_manifest(&self, name: &str, manifest: &[u8]) -> Option<()> {
        self.at_registry(Method::PUT, &format!("/v2/{name}/manifests/v1"), MANIFEST, manifest).await.map(drop)
    }

    async fn at_registry(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> Option<purser_tests::Answer> {
        let authorization = Scene::user().basic();
        let headers = [("authorization", authorization.as_str()), ("content-type", kind)];
        let answer = self.registry.send(method, path, &headers, body.to_vec()).await.ok()?;
        [StatusCode::ACCEPTED, StatusCode::CREATED].contains(&answer.status).then_some(answer)
    }
}
