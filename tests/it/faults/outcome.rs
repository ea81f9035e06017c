//! What must be true when everything works again.

use std::{collections::HashMap, fmt, time::Duration};

use http::Method;
use purser_tests::{Client, eventually};
use serde_json::{Value, json};

use super::{
    Counts,
    scene::{DOOMED, Scene, host_of},
    work::{Answered, Asked, Kind},
};

/// How long what is open may take to end once everything works again: a target that waits for its
/// agent's word, a push that an engine repeats.
const SETTLES: Duration = Duration::from_secs(240);
const MANIFESTS: &str =
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json";

/// The jobs as they ended.
pub(crate) struct Outcome {
    jobs: usize,
    calls: Counts,
    targets: Counts,
    attempts: Counts,
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "calls: {}\njobs: {}; targets: {}\nattempts: {}",
            self.calls, self.jobs, self.targets, self.attempts
        )
    }
}

/// Waits until every job has ended, and holds them against what was asked and what is there.
pub(crate) async fn settled(scene: &Scene, asked: &[Asked]) -> Outcome {
    let jobs = ended(scene).await;
    let open = scene.execute_sql(
        "SELECT target_id, status FROM job_target WHERE status IN ('queued', 'dispatched', 'running')",
    );
    assert_eq!(open, "", "targets of no job, or of a job that has ended, are open");
    nothing_ran_since(&scene.at_removal, &scene.targets_of_the_doomed());
    let by_id: HashMap<_, _> = jobs.iter().map(|job| (job["jobId"].as_str().unwrap(), job)).collect();
    let mut by_name: HashMap<_, _> = HashMap::new();
    for job in &jobs {
        let word = |field: &str| job["request"][field].as_str();
        if let Some(name) = word("tag").or(word("image")) {
            assert!(by_name.insert(name, job).is_none(), "one call, two jobs: {job:#}");
        }
    }
    let mut calls = Counts::default();
    for asked in asked {
        let job = match &asked.answered {
            Answered::Job(id) => {
                calls.add(format!("{:?} accepted", asked.kind));
                let job = by_id.get(id.as_str());
                Some(*job.unwrap_or_else(|| panic!("an accepted job is lost: {asked:?}")))
            }
            Answered::Otherwise(code) => {
                calls.add(format!("{:?} {code}", asked.kind));
                let named = by_name.get(asked.name.as_str());
                assert!(named.is_none(), "refused with {code}, and yet a job: {named:?}");
                None
            }
            Answered::Lost => {
                let job = by_name.get(asked.name.as_str()).copied();
                let known = match job {
                    Some(_) => "accepted",
                    // No name tells which of the tests it is; that all have ended is known above.
                    None if asked.kind == Kind::Test => "may be accepted",
                    None => "not accepted",
                };
                calls.add(format!("{:?} unanswered, {known}", asked.kind));
                job
            }
        };
        if let Some(job) = job {
            is_true(scene, asked, job).await;
        }
    }
    let (mut targets, mut attempts) = (Counts::default(), Counts::default());
    for job in &jobs {
        let kind = job["kind"].as_str().unwrap();
        for target in job["targets"].as_array().unwrap() {
            let code = target["error"]["code"].as_str().map(|code| format!(" {code}")).unwrap_or_default();
            targets.add(format!("{kind} {}{code}", target["status"].as_str().unwrap()));
            attempts.add(format!("{}×", target["attempts"]));
        }
    }
    Outcome { jobs: jobs.len(), calls, targets, attempts }
}

/// A server's targets are as they were at its removal. What was accepted in that very moment is cancelled a
/// moment later, and was given to nobody.
fn nothing_ran_since(removal: &str, now: &str) {
    let row = |line: &str| {
        let [id, status, attempt] = *line.split('|').collect::<Vec<_>>() else { panic!("no target: {line}") };
        (id.to_owned(), (status.to_owned(), attempt.to_owned()))
    };
    let before: HashMap<_, _> = removal.lines().map(row).collect();
    let now: HashMap<_, _> = now.lines().map(row).collect();
    assert!(before.keys().all(|id| now.contains_key(id)), "a target is lost");
    for (id, (status, attempt)) in now {
        let (was, attempts) = before.get(&id).map_or(("queued", "0"), |(was, attempts)| (was, attempts));
        let cancelled = was == "queued" && status == "cancelled";
        let same = attempt == attempts && (status == was || cancelled);
        assert!(
            same,
            "something ran on a removed server: {id} was {was} ({attempts}), is {status} ({attempt})"
        );
    }
}

/// All jobs, once all have ended.
async fn ended(scene: &Scene) -> Vec<Value> {
    let mut open = Vec::new();
    let deadline = std::time::Instant::now() + SETTLES;
    loop {
        let jobs = all(&scene.client).await;
        let is_final = |job: &Value| {
            let over =
                |of: &Value| ["succeeded", "failed", "cancelled"].contains(&of["status"].as_str().unwrap());
            over(job) && job["finishedAt"].is_string() && job["targets"].as_array().unwrap().iter().all(over)
        };
        open.clear();
        open.extend(jobs.iter().filter(|job| !is_final(job)).cloned());
        if open.is_empty() {
            return jobs;
        }
        assert!(std::time::Instant::now() < deadline, "stuck: {} jobs, {:#}", open.len(), open[0]);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn all(client: &Client) -> Vec<Value> {
    let (mut jobs, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let mut page = client.query("job.all", json!({"limit": 100, "cursor": cursor})).await;
        jobs.append(page["items"].as_array_mut().unwrap());
        cursor = page["nextCursor"].take();
        if cursor.is_null() {
            return jobs;
        }
    }
}

/// What a job says is so.
async fn is_true(scene: &Scene, asked: &Asked, job: &Value) {
    for target in job["targets"].as_array().unwrap() {
        if target["status"] != "succeeded" {
            continue;
        }
        let digest = &target["result"]["digest"];
        match asked.kind {
            Kind::Test => {}
            Kind::PullOfNothing => panic!("an image that there is not was pulled: {job:#}"),
            Kind::Pull => {
                assert_eq!(digest.as_str(), asked.digest.as_deref(), "another digest: {job:#}");
                let on = scene.servers.iter().position(|server| target["serverId"] == **server).unwrap();
                let there = scene.engine(host_of(on)).inspect(&asked.name).await;
                let there = there.unwrap_or_else(|| panic!("a success without the image: {job:#}"));
                let (repository, _) = asked.name.rsplit_once(':').unwrap();
                let named = json!(format!("{repository}@{}", digest.as_str().unwrap()));
                let digests = there["RepoDigests"].as_array().unwrap();
                assert!(digests.contains(&named), "there is {digests:?}, and said was {job:#}");
            }
            Kind::Push => {
                let image = target["image"].as_str().unwrap();
                let (_, path) = image.split_once('/').unwrap();
                let (name, tag) = path.rsplit_once(':').unwrap();
                assert_eq!(tag, asked.name, "{job:#}");
                let registry = Client::new(&format!("http://{}", scene.registry.address()));
                let headers = [("authorization", Scene::user().basic()), ("accept", MANIFESTS.to_owned())];
                let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
                let path = format!("/v2/{name}/manifests/{tag}");
                let answer = registry.send(Method::HEAD, &path, &headers, "").await.unwrap();
                let there = answer.headers.get("docker-content-digest").and_then(|value| value.to_str().ok());
                assert_eq!(there, digest.as_str(), "a success without the image: {job:#}");
            }
        }
    }
}

/// Every host that was not removed takes more work than it has places for, and does it.
pub(crate) async fn nothing_is_stuck(scene: &Scene) {
    let registry = scene.downloads.address();
    for server in &scene.servers[..DOOMED] {
        let mut jobs = Vec::new();
        for _ in 0..8 {
            let input = json!({"image": format!("{registry}/{}:v1", purser_tests::unique("last")), "serverId": server});
            jobs.push(scene.client.mutate("image.pull", input).await["jobId"].clone());
        }
        for id in jobs {
            let job = eventually(Duration::from_secs(60), async || {
                let job = scene.client.query("job.one", json!({"jobId": id})).await;
                job["finishedAt"].is_string().then_some(job)
            })
            .await;
            // By the registry's own word, with the password: the whole road works.
            assert_eq!(job["targets"][0]["error"]["code"], "not_found", "{job:#}");
        }
        let input = json!({"registryId": scene.entry, "serverId": server});
        let tested = scene.client.mutate("registry.testRegistryById", input).await;
        assert_eq!(tested["credentials"], "verified", "{tested:#}");
    }
}
