//! Pulls and pushes through an engine: what the registry does gets the code that a test would give it.

use futures_util::{StreamExt as _, stream};
use purser_tests::{
    Hostile, Road, Testbed,
    hostile::{Asked, Reply, answer, basic, json},
    image::Local,
    road::failed,
    unique,
};
use serde_json::{Value, json};

type Case = (&'static str, &'static str, fn(&Asked) -> Reply);

fn error(status: &str, code: &str) -> Reply {
    let message = match code {
        // As it is really said: `denied: denied` is what GitHub says of a wrong password.
        "DENIED" => "requested access to the resource is denied".to_owned(),
        code => code.to_lowercase().replace('_', " "),
    };
    json(status, &json!({"errors": [{"code": code, "message": message}]})).into()
}

/// What is asked after `/v2/`, when everybody is let in.
const CASES: [Case; 12] = [
    ("manifest unknown", "not_found", |_| error("404 Not Found", "MANIFEST_UNKNOWN")),
    ("name unknown", "not_found", |_| error("404 Not Found", "NAME_UNKNOWN")),
    ("denied", "forbidden", |_| error("403 Forbidden", "DENIED")),
    ("unauthorized", "unauthorized|forbidden", |_| basic().into()),
    ("429", "rate_limited", |_| error("429 Too Many Requests", "TOOMANYREQUESTS")),
    ("429 without a word", "rate_limited", |_| answer("429 Too Many Requests", "", "").into()),
    ("HTML 403", "forbidden", |_| answer("403 Forbidden", "Content-Type: text/html\r\n", "<html>").into()),
    ("500", "other", |_| answer("500 Internal Server Error", "", "").into()),
    ("HTML 200", "not_a_registry|other", |_| {
        answer("200 OK", "Content-Type: text/html\r\n", "<html>").into()
    }),
    ("cut", "connect", |_| Reply::last("")),
    ("no HTTP", "not_a_registry|connect", |_| Reply::last("SSH-2.0-x\r\n")),
    ("redirect loop", "not_a_registry", |asked| {
        answer("302 Found", &format!("Location: {}\r\n", asked.target), "").into()
    }),
];

async fn registry(reply: fn(&Asked) -> Reply) -> Hostile {
    Hostile::start(move |asked| match asked.path() {
        "/v2/" => answer("200 OK", "Docker-Distribution-Api-Version: registry/2.0\r\n", "{}").into(),
        _ => reply(asked),
    })
    .await
}

/// What is wrong with how a job ended.
fn judge(name: &str, expected: &str, job: &Value) -> Option<String> {
    if job["status"] != "failed" {
        return Some(format!("{name}: {job}"));
    }
    let error = &job["targets"][0]["error"];
    let fits = expected.split('|').any(|code| error["code"] == code);
    let said = error["advice"].as_str().is_some_and(|advice| !advice.is_empty());
    if fits && said {
        failed(job);
    }
    (!fits || !said).then(|| format!("{name}: expected {expected} with advice from the host: {error}"))
}

#[tokio::test]
async fn a_failed_pull_has_the_code_of_its_cause() {
    let road = &Road::start().await;
    let pulls = CASES.iter().map(|(name, expected, reply)| async move {
        let registry = registry(*reply).await;
        // Too short for waiting out a rate limit.
        let in_time = json!({"timeoutSeconds": if name.starts_with("429") { 14 } else { 60 }});
        let job = road.pull(&format!("{}/team/app:v1", registry.address()), in_time).await;
        judge(name, expected, &job)
    });
    let pulls: Vec<_> = pulls.collect();
    let wrong: Vec<_> =
        stream::iter(pulls).buffer_unordered(6).filter_map(async |wrong| wrong).collect().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_failed_push_has_the_code_of_its_cause() {
    let (bed, road) = (Testbed::get(), &Road::start().await);
    let local = &Local::make(&bed.host_a(), "hostile", 100).await;
    // One case: the engine repeats even a refused push for some 50 s.
    let asked = ["denied"];
    let cases = CASES.iter().filter(|(name, ..)| asked.contains(name));
    let pushes = cases.map(|(name, expected, reply)| async move {
        let registry = registry(*reply).await;
        let entry = road.entry_with(&registry.address().to_string(), "bob", "not sent").await;
        let job = road.push(&local.repository, &entry, json!({"repository": unique("hostile")})).await;
        assert_eq!(registry.authorized(), 0, "{name}: an open registry was sent the secret");
        judge(name, expected, &job)
    });
    let pushes: Vec<_> = pushes.collect();
    let wrong: Vec<_> =
        stream::iter(pushes).buffer_unordered(12).filter_map(async |wrong| wrong).collect().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
