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
/// Before the next attempt, where a test looks at the job until then: half as long again at most, which a host
/// waits for.
const LONG: Option<u64> = Some(5_000);

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
    assert_eq!(stage.fail(DiagnosisCode::Connect, LONG).await.attempt.attempt, 1);
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
    stage.fail(DiagnosisCode::Connect, LONG).await;
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

/// The host whose target was under way is no more, and so nobody gives its place back.
#[tokio::test]
async fn the_turn_of_a_host_that_is_removed_goes_to_the_next_at_once() {
    let mut stage = Stage::set(2).await;
    stage.pull(json!({"maxParallel": 1})).await;
    let (first, _) = stage.next().await;
    let removed = json!({"serverId": stage.hosts[first].0});
    stage.client.mutate("server.remove", removed).await;
    let (second, _) = stage.next().await;
    assert_ne!(first, second);
}

#[tokio::test]
async fn the_turn_of_a_host_that_never_came_back_goes_to_the_next_when_its_time_is_over() {
    let mut stage = Stage::set(2).await;
    stage.pull(json!({"maxParallel": 1})).await;
    let (first, _) = stage.next().await;
    drop(stage.hosts.remove(first));
    let online = json!({});
    eventually(SOON, async || {
        let all = stage.client.query("server.all", online.clone()).await;
        let offline = |row: &&Value| row["status"] == "offline";
        (all.as_array().unwrap().iter().filter(offline).count() == 1).then_some(())
    })
    .await;
    let overdue = "UPDATE job_target SET run_deadline = '2020-01-01 00:00:00+00:00' WHERE status <> 'queued'";
    stage.purser.execute_sql(overdue);
    stage.next().await;
}

/// A host that is always busy: what was asked for first is given out first.
#[tokio::test]
async fn who_comes_later_is_not_served_before_who_waits() {
    let mut stage = Stage::set(1).await;
    let mut asked = Vec::new();
    for _ in 0..8 {
        asked.push(stage.pull(json!({})).await["jobId"].clone());
    }
    for _ in 0..24 {
        let target = stage.hosts[0].1.target().await;
        // Its place is given back in the moment in which somebody new comes.
        let (_, newest) = tokio::join!(tell(&stage.hosts[0].1, &target, done()), stage.pull(json!({})));
        asked.push(newest["jobId"].clone());
    }
    // Each travels to the host by itself, and neighbours may overtake each other there. Its clock starts when it
    // is given out.
    let given = "SELECT job_id FROM job_target WHERE run_deadline IS NOT NULL ORDER BY run_deadline";
    let given: Vec<_> = stage.purser.sql(given).lines().map(|id| json!(id)).collect();
    assert!(given.len() >= 24, "{given:?}");
    assert_eq!(given, asked[..given.len()]);
}

/// As a database does that has no room left.
fn refuse(purser: &Purser, table: &str, postgres: &str, sqlite: &str) {
    let statement = if purser.database().is_some() {
        format!("ALTER TABLE {table} ADD CONSTRAINT refused CHECK ({postgres}) NOT VALID")
    } else {
        format!("CREATE TRIGGER refused {sqlite} BEGIN SELECT RAISE(ABORT, 'refused'); END")
    };
    purser.execute_sql(&statement);
}

fn refuse_no_more(purser: &Purser, table: &str) {
    let statement = match purser.database() {
        Some(_) => format!("ALTER TABLE {table} DROP CONSTRAINT refused"),
        None => "DROP TRIGGER refused".to_owned(),
    };
    purser.execute_sql(&statement);
}

/// The agent keeps what it told until that is stored.
#[tokio::test]
async fn whoever_waits_for_a_test_is_told_at_once_and_the_job_says_the_same_in_the_end() {
    let mut stage = Stage::set(1).await;
    let sqlite = "BEFORE UPDATE ON job_target WHEN NEW.status = 'failed'";
    refuse(&stage.purser, "job_target", "status <> 'failed'", sqlite);
    let (server, session) = &mut stage.hosts[0];
    let input = json!({"registryUrl": "127.0.0.1:1", "serverId": server});
    let told = async {
        let target = session.target().await;
        let failure = Failure::new(DiagnosisCode::Connect, "nobody listens there", "try something else");
        let verdict = Verdict::Failed { failure, duration_ms: 1 };
        let report = VerdictReport { attempt: target.attempt.clone(), verdict };
        let stored = session.peer.client().target_verdict(report.clone()).await;
        assert!(stored.is_err(), "it was said to be stored");
        report
    };
    let (answer, report) = tokio::join!(stage.client.trpc_mutation("registry.testRegistry", &input), told);
    assert_eq!(answer.json()["error"]["data"]["diagnosis"]["code"], "connect", "{answer:?}");
    let job = stage.client.query("job.all", json!({})).await["items"][0].clone();
    assert_eq!(status(&job), "running");
    refuse_no_more(&stage.purser, "job_target");
    session.peer.client().target_verdict(report).await.unwrap();
    let job = stage.job(&job).await;
    assert_eq!((status(&job), &job["targets"][0]["error"]["code"]), ("failed", &json!("connect")));
}

/// Nobody knows whether it was stored, and as whose: only a new handshake can tell.
#[tokio::test]
async fn a_session_whose_target_may_be_stored_or_not_ends() {
    let stage = Stage::set(1).await;
    refuse(&stage.purser, "audit_event", "action <> 'image.pull'", "BEFORE INSERT ON audit_event");
    let input = json!({"image": "127.0.0.1:1/app:v1", "serverId": stage.hosts[0].0});
    // Until it has looked into its queue, a session has no place for what is just coming.
    eventually(SOON, async || {
        let answer = stage.client.trpc_mutation("image.pull", &input).await;
        assert_eq!(answer.code(), "INTERNAL_SERVER_ERROR", "{answer:?}");
        tokio::time::timeout(Duration::from_millis(500), stage.hosts[0].1.peer.ended()).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_session_whose_claim_may_have_happened_or_not_ends() {
    let mut stage = Stage::set(1).await;
    let given = "NEW.status = 'dispatched'";
    let sqlite = format!("BEFORE UPDATE ON job_target WHEN {given}");
    // Busy, so that the next one waits in the queue and is claimed.
    for _ in 0..4 {
        stage.pull(json!({})).await;
    }
    let session = &mut stage.hosts[0].1;
    let target = session.target().await;
    for _ in 0..2 {
        session.target().await;
    }
    refuse(&stage.purser, "job_target", "status <> 'dispatched'", &sqlite);
    let report = VerdictReport { attempt: target.attempt, verdict: done() };
    // The session may end before it is answered.
    let _ = session.peer.client().target_verdict(report).await;
    session.ended().await;
}

/// A removal that comes between the handshake and the session finds none to end.
#[tokio::test]
async fn a_session_of_a_server_that_was_removed_while_it_began_ends() {
    let purser = Purser::start().await;
    let row = purser.client().mutate("server.create", json!({"name": "removed"})).await;
    let removes = if purser.database().is_some() {
        "CREATE FUNCTION remove() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN NEW.revoked_at = now(); RETURN NEW; END'; \
         CREATE TRIGGER remove BEFORE UPDATE OF session_epoch ON server FOR EACH ROW EXECUTE FUNCTION remove()"
    } else {
        "CREATE TRIGGER remove AFTER UPDATE OF session_epoch ON server BEGIN UPDATE server SET revoked_at = \
         '2026-01-01 00:00:00+00:00' WHERE server_id = NEW.server_id; END"
    };
    purser.execute_sql(removes);
    let double = Double::with_token(row["joinToken"].as_str().unwrap());
    let session = double.dial(purser.address()).await.ok().unwrap();
    // Less than it takes the slow look at every session.
    let ended = tokio::time::timeout(BY_A_SIGN, session.peer.ended()).await;
    assert!(ended.is_ok(), "the session of a removed server stands");
}
