//! What is tried again: by itself where that can help, and when a person asks.

use std::time::Duration;

use http::StatusCode;
use purser_proto_schema::agent::{
    calls::{ServerCallsClient as _, StartTarget, VerdictReport},
    command::{Command, Failure, Outcome, Verdict},
};
use purser_registry_client::DiagnosisCode;
use purser_tests::{
    Client, Purser, Road, Testbed, double,
    double::Double,
    eventually, image,
    road::{failed, succeeded},
    tenant::Grant,
    user::Kind,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
/// Less than a queue is looked at without a sign.
const BY_A_SIGN: Duration = Duration::from_secs(10);

/// A control plane with hosts whose agents are played by the test.
struct Stage {
    purser: Purser,
    client: Client,
    hosts: Vec<(String, double::Session)>,
}

impl Stage {
    async fn set(hosts: usize) -> Self {
        let purser = Purser::start().await;
        let client = purser.client();
        let mut stage = Self { purser, client, hosts: Vec::new() };
        for n in 0..hosts {
            let input = json!({"name": format!("host {n}"), "labels": {"of": "stage"}});
            let row = stage.client.mutate("server.create", input).await;
            let double = Double::with_token(row["joinToken"].as_str().unwrap());
            let session = double.dial(stage.purser.address()).await.ok().unwrap();
            stage.hosts.push((row["serverId"].as_str().unwrap().to_owned(), session));
        }
        stage
    }

    /// A pull onto all hosts; `more` joins the input.
    async fn pull(&self, more: Value) -> Value {
        let mut input = json!({"image": "127.0.0.1:1/app:v1", "labels": {"of": "stage"}});
        input.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        self.client.mutate("image.pull", input).await
    }

    async fn job(&self, job: &Value) -> Value {
        self.client.query("job.one", json!({"jobId": job["jobId"]})).await
    }

    async fn job_when(&self, job: &Value, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(SOON, async || {
            let job = self.job(job).await;
            wanted(&job).then_some(job)
        })
        .await
    }

    /// The first host fails its next target; gives what it was given.
    async fn fail(&mut self, code: DiagnosisCode, retry_after_ms: Option<u64>) -> StartTarget {
        let session = &mut self.hosts[0].1;
        let target = session.target().await;
        let mut failure = Failure::new(code, "it did not work", "try something else");
        failure.retry_after_ms = retry_after_ms;
        tell(session, &target, Verdict::Failed { failure, duration_ms: 1 }).await;
        target
    }

    /// The next target of any host, with the host.
    async fn next(&mut self) -> (usize, StartTarget) {
        eventually(BY_A_SIGN, || {
            let mut hosts = self.hosts.iter_mut().enumerate();
            let given = |(host, (_, session)): (usize, &mut (String, double::Session))| {
                Some((host, session.started.try_recv().ok()?))
            };
            std::future::ready(hosts.find_map(given))
        })
        .await
    }

    async fn succeed(&mut self) -> StartTarget {
        let session = &mut self.hosts[0].1;
        let target = session.target().await;
        tell(session, &target, done()).await;
        target
    }
}

fn done() -> Verdict {
    let outcome = Outcome::Image { digest: format!("sha256:{}", "0".repeat(64)), size_bytes: None };
    Verdict::Succeeded { outcome, duration_ms: 1 }
}

async fn tell(session: &double::Session, target: &StartTarget, verdict: Verdict) {
    let report = VerdictReport { attempt: target.attempt.clone(), verdict };
    session.peer.client().target_verdict(report).await.unwrap();
}

fn status(job: &Value) -> &str {
    job["status"].as_str().unwrap()
}

fn statuses(job: &Value) -> Vec<&str> {
    let mut all: Vec<_> = job["targets"].as_array().unwrap().iter().map(status).collect();
    all.sort_unstable();
    all
}

#[tokio::test]
async fn what_heals_is_tried_again_and_what_went_wrong_is_said_meanwhile() {
    let mut stage = Stage::set(1).await;
    let job = stage.pull(json!({})).await;
    assert_eq!(stage.fail(DiagnosisCode::Connect, Some(0)).await.attempt.attempt, 1);
    let waiting = stage.job(&job).await;
    let target = &waiting["targets"][0];
    assert_eq!((status(&waiting), status(target)), ("running", "queued"), "{waiting:#}");
    assert_eq!((&target["attempts"], &target["error"]["code"]), (&json!(1), &json!("connect")));
    assert!(target["nextAttemptAt"].as_str() > waiting["startedAt"].as_str(), "{waiting:#}");
    assert_eq!(stage.succeed().await.attempt.attempt, 2);
    let ended = stage.job_when(&job, |job| status(job) == "succeeded").await;
    let target = succeeded(&ended);
    assert_eq!((&target["attempts"], &target["error"]), (&json!(2), &Value::Null));
    assert!(target.get("nextAttemptAt").is_none(), "{target:#}");
}

#[tokio::test]
async fn three_attempts_are_all() {
    let mut stage = Stage::set(1).await;
    let job = stage.pull(json!({})).await;
    for attempt in 1..=3 {
        assert_eq!(stage.fail(DiagnosisCode::Timeout, Some(0)).await.attempt.attempt, attempt);
    }
    let ended = stage.job_when(&job, |job| status(job) == "failed").await;
    assert_eq!(failed(&ended)["attempts"], 3);
    assert_eq!(failed(&ended)["error"]["code"], "timeout");
}

#[tokio::test]
async fn what_does_not_heal_ends_at_once() {
    let mut stage = Stage::set(1).await;
    for code in [DiagnosisCode::Unauthorized, DiagnosisCode::NotFound, DiagnosisCode::TlsName] {
        let job = stage.pull(json!({})).await;
        stage.fail(code, None).await;
        let ended = stage.job(&job).await;
        assert_eq!(failed(&ended)["attempts"], 1, "{ended:#}");
    }
    // Nor what could not begin again within its time.
    let job = stage.pull(json!({"timeoutSeconds": 20})).await;
    stage.fail(DiagnosisCode::RateLimited, Some(60_000)).await;
    assert_eq!(failed(&stage.job(&job).await)["error"]["code"], "rate_limited");
}

#[tokio::test]
async fn what_waits_to_be_tried_again_is_cancelled_at_once() {
    let mut stage = Stage::set(1).await;
    let job = stage.pull(json!({})).await;
    stage.fail(DiagnosisCode::RateLimited, Some(600_000)).await;
    let cancelled = stage.client.mutate("job.cancel", json!({"jobId": job["jobId"]})).await;
    assert_eq!((status(&cancelled), &cancelled["targets"][0]["error"]), ("cancelled", &Value::Null));
    // What a person ended is not what failed.
    let refused = stage.client.trpc_mutation("job.retry", &json!({"jobId": job["jobId"]})).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::CONFLICT, "CONFLICT".into()));
}

#[tokio::test]
async fn limits_of_a_call_reach_the_host() {
    let mut stage = Stage::set(1).await;
    let limits = json!({"queueTimeoutSeconds": 5, "stallTimeoutSeconds": 7, "timeoutSeconds": 90});
    let job = stage.pull(limits.clone()).await;
    for (name, value) in limits.as_object().unwrap() {
        assert_eq!(&job["request"][name], value);
    }
    let given = stage.succeed().await;
    assert_eq!(given.stall_ms, Some(7_000));
    assert!((80_000..=90_000).contains(&given.deadline_ms), "{}", given.deadline_ms);
    let usual = stage.pull(json!({})).await;
    assert_eq!(usual["request"]["queueTimeoutSeconds"], 900);
    let given = stage.succeed().await;
    assert_eq!(given.stall_ms, Some(600_000));
    assert!(given.deadline_ms > 3_500_000);
    // And of the queue, nobody comes in time.
    let away = stage.client.mutate("server.create", json!({"name": "away"})).await;
    let input = json!({"image": "app", "serverId": away["serverId"], "queueTimeoutSeconds": 1, "wait": true});
    let ended = stage.client.mutate("image.pull", input).await;
    assert_eq!(failed(&ended)["error"]["code"], "server_offline");
}

#[tokio::test]
async fn a_person_repeats_what_failed_and_nothing_else() {
    let mut stage = Stage::set(2).await;
    let job = stage.pull(json!({})).await;
    let input = json!({"jobId": job["jobId"]});
    let good = stage.hosts[1].1.target().await;
    tell(&stage.hosts[1].1, &good, done()).await;
    let under_way = stage.client.trpc_mutation("job.retry", &input).await;
    assert_eq!(under_way.code(), "CONFLICT", "{under_way:?}");
    stage.fail(DiagnosisCode::Unauthorized, None).await;
    assert_eq!(statuses(&stage.job(&job).await), ["failed", "succeeded"]);

    let organization = stage.purser.default_organization();
    let may_not = stage.purser.key_in(&organization, Grant::Permissions(&["job:write", "image:push"]));
    let refused = may_not.trpc_mutation("job.retry", &input).await;
    assert_eq!(refused.code(), "FORBIDDEN", "{refused:?}");
    assert!(refused.text().contains("image:pull"));
    let foreign = stage.purser.key_in(&stage.purser.organization("other"), Grant::Role("admin"));
    assert_eq!(foreign.trpc_mutation("job.retry", &input).await.code(), "NOT_FOUND");

    let again = stage.client.mutate("job.retry", input.clone()).await;
    assert_eq!((status(&again), &again["finishedAt"]), ("running", &Value::Null), "{again:#}");
    assert_eq!(again["startedAt"], job_started(&stage.job(&job).await));
    let audited = "SELECT COUNT(*) FROM audit_event WHERE action = 'job.retry' AND outcome = 'accepted'";
    assert_eq!(stage.purser.sql(audited), "1");
    assert_eq!(stage.succeed().await.attempt.attempt, 2);
    let ended = stage.job_when(&job, |job| status(job) == "succeeded").await;
    let attempts: Vec<_> =
        ended["targets"].as_array().unwrap().iter().map(|target| target["attempts"].as_u64()).collect();
    assert_eq!(attempts.iter().flatten().sum::<u64>(), 3, "the other one was left alone: {ended:#}");
    let refused = stage.client.trpc_mutation("job.retry", &input).await;
    assert_eq!(refused.code(), "CONFLICT", "nothing failed: {refused:?}");
}

fn job_started(job: &Value) -> Value {
    assert!(job["startedAt"].is_string());
    job["startedAt"].clone()
}

#[tokio::test]
async fn a_repetition_uses_the_newest_credential_and_never_an_erased_one() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let user = bed.user(Kind::Plain);
    let image = image::in_registry(&bed.host_b(), &bed.registries.token, "again", 100, Some(user)).await;
    let entry = road.entry_with(&bed.registries.token, &user.username, "not the password").await;
    let job = road.pull(&image.reference(), Value::Null).await;
    assert_eq!(failed(&job)["error"]["code"], "unauthorized");
    assert_eq!(failed(&job)["attempts"], 1, "a refused password is not tried again by itself");
    let right = json!({"registryId": entry, "password": user.password});
    road.client.mutate("registry.update", right).await;
    let again = road.client.mutate("job.retry", json!({"jobId": job["jobId"]})).await;
    let ended = road.ended(&again).await;
    assert_eq!(succeeded(&ended)["result"]["digest"], image.digest);
    bed.host_a().remove(&image.reference()).await;

    let auth = json!({"auth": {"username": user.username, "password": "not the password"}});
    let job = road.pull(&image.reference(), auth).await;
    failed(&job);
    let refused = road.client.trpc_mutation("job.retry", &json!({"jobId": job["jobId"]})).await;
    assert_eq!(refused.code(), "PRECONDITION_FAILED", "{refused:?}");
    assert!(refused.text().contains("with auth"), "{refused:?}");
    assert_eq!(road.client.query("job.one", json!({"jobId": job["jobId"]})).await, job);
}

#[tokio::test]
async fn no_more_than_max_parallel_are_under_way_at_once_and_all_have_their_turn() {
    let mut stage = Stage::set(5).await;
    let job = stage.pull(json!({"maxParallel": 2})).await;
    let mut order = Vec::new();
    let mut under_way = Vec::new();
    for _ in 0..5 {
        while under_way.len() < 2 && order.len() < 5 {
            let next = stage.next().await;
            order.push(next.0);
            under_way.push(next);
        }
        let now = stage.job(&job).await;
        let running = statuses(&now).iter().filter(|status| **status == "running").count();
        assert!(running <= 2, "{now:#}");
        assert!(stage.hosts.iter_mut().all(|(_, session)| session.started.try_recv().is_err()));
        let (host, target) = under_way.remove(0);
        tell(&stage.hosts[host].1, &target, done()).await;
    }
    let ended = stage.job_when(&job, |job| status(job) == "succeeded").await;
    assert_eq!(statuses(&ended), ["succeeded"; 5]);
    let command = |target: &StartTarget| matches!(target.command, Command::Pull { .. });
    assert!(under_way.iter().all(|(_, target)| command(target)));
}

/// Its time in the queue is for the host to come, not for the siblings to end.
#[tokio::test]
async fn a_target_that_its_siblings_hold_back_does_not_run_out_of_time() {
    let mut stage = Stage::set(2).await;
    let away = json!({"name": "away", "labels": {"of": "stage"}});
    stage.client.mutate("server.create", away).await;
    let job = stage.pull(json!({"maxParallel": 1, "queueTimeoutSeconds": 3})).await;
    for left in (0..2).rev() {
        let (host, target) = stage.next().await;
        // Twice the time that they have, and several looks at it.
        tokio::time::sleep(Duration::from_secs(7)).await;
        let now = stage.job(&job).await;
        let queued = statuses(&now).iter().filter(|status| **status == "queued").count();
        assert_eq!(queued, left + 1, "{now:#}");
        tell(&stage.hosts[host].1, &target, done()).await;
    }
    // Nobody holds the third one back any more, and its host does not come.
    let ended = stage.job_when(&job, |job| status(job) == "failed").await;
    assert_eq!(statuses(&ended), ["failed", "succeeded", "succeeded"]);
}

#[tokio::test]
async fn with_fail_fast_the_first_failure_ends_what_has_not_started() {
    let mut stage = Stage::set(1).await;
    for n in 0..3 {
        let input = json!({"name": format!("away {n}"), "labels": {"of": "stage"}});
        stage.client.mutate("server.create", input).await;
    }
    let patient = stage.pull(json!({})).await;
    stage.fail(DiagnosisCode::NotFound, None).await;
    assert_eq!(statuses(&stage.job(&patient).await), ["failed", "queued", "queued", "queued"]);

    let job = stage.pull(json!({"failFast": true})).await;
    // What may heal is no failure yet.
    stage.fail(DiagnosisCode::Connect, Some(0)).await;
    assert_eq!(statuses(&stage.job(&job).await), ["queued"; 4]);
    stage.fail(DiagnosisCode::NotFound, None).await;
    let ended = stage.job(&job).await;
    assert_eq!(status(&ended), "failed", "{ended:#}");
    assert_eq!(statuses(&ended), ["cancelled", "cancelled", "cancelled", "failed"]);
    for target in ended["targets"].as_array().unwrap().iter().filter(|target| status(target) == "cancelled") {
        assert!(target["error"]["message"].as_str().unwrap().contains("failFast"), "{target:#}");
    }
    // Mended, all of it goes on.
    let again = stage.client.mutate("job.retry", json!({"jobId": job["jobId"]})).await;
    assert_eq!(statuses(&again).iter().filter(|status| **status == "cancelled").count(), 0, "{again:#}");
}

/// What failed has held back what it could; what waits for another try since then goes on.
#[tokio::test]
async fn a_failure_that_is_told_once_more_holds_nothing_back() {
    let mut stage = Stage::set(2).await;
    let job = stage.pull(json!({"failFast": true})).await;
    let failing = stage.hosts[0].1.target().await;
    let healing = stage.hosts[1].1.target().await;
    let failed = |retry_after_ms| {
        let mut failure = Failure::new(DiagnosisCode::Connect, "it did not work", "try something else");
        failure.retry_after_ms = retry_after_ms;
        Verdict::Failed { failure, duration_ms: 1 }
    };
    tell(&stage.hosts[0].1, &failing, failed(None)).await;
    tell(&stage.hosts[1].1, &healing, failed(Some(600_000))).await;
    assert_eq!(statuses(&stage.job(&job).await), ["failed", "queued"]);
    // By its own host, and by one that it does not concern.
    for host in 0..2 {
        tell(&stage.hosts[host].1, &failing, failed(None)).await;
        let now = stage.job(&job).await;
        assert_eq!(statuses(&now), ["failed", "queued"], "told by host {host}: {now:#}");
    }
}
