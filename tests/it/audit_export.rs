//! `GET /api/audit.jsonl`: the whole audit, one JSON object a line.

use http::Method;
use http_body_util::{BodyExt as _, Full};
use purser_tests::{
    Answer, Purser,
    connection::{Connection, Endpoint},
    tenant::Grant,
};
use serde_json::{Value, json};

use crate::{
    answers::send,
    operations::{metrics, value},
    plain::refused,
};

fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/jsonl");
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Many events, as they come to be over the years.
pub fn fill(purser: &Purser, count: usize) {
    let organization = purser.default_organization();
    let kind = if purser.database().is_some() { "TIMESTAMPTZ" } else { "" };
    purser.sql(&format!(
        "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count} - 1) \
         INSERT INTO audit_event (audit_event_id, organization_id, at, action, outcome) \
         SELECT 'aud_0000000000000000000000' || (1000000000 + n), '{organization}', {kind} '2026-01-01 00:00:00+00:00', \
         'old.' || (n % 2), 'ok' FROM numbers"
    ));
}

#[tokio::test]
async fn all_of_it_is_given_as_the_pages_tell_it() {
    let purser = Purser::builder().env("PURSER_AUDIT_RETENTION_DAYS", "0").start().await;
    let client = purser.client();
    fill(&purser, 1_234);
    client.mutate("server.create", json!({"name": "newest"})).await;
    let (mut paged, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let page = client.query("audit.all", json!({"limit": 100, "cursor": cursor})).await;
        paged.extend(page["items"].as_array().unwrap().clone());
        cursor = page["nextCursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    let exported = lines(&client.get("/api/audit.jsonl").await);
    // With that of the first start.
    assert_eq!(exported.len(), 1_236);
    assert_eq!(exported, paged);
    assert_eq!(lines(&client.get("/api/audit.jsonl?action=old.1&to=2026-06-01T00:00:00Z").await).len(), 617);
    assert_eq!(lines(&client.get("/api/audit.jsonl?serverId=srv_x").await), [Value::Null; 0]);
}

/// As at the plain door, whatever else is wrong, too: method 405, key 401, permission 403, input 400.
#[tokio::test]
async fn it_refuses_as_the_plain_door_does() {
    let purser = Purser::start().await;
    let viewer = purser.key_in(&purser.default_organization(), Grant::Role("viewer"));
    let (client, nobody) = (purser.client(), purser.anonymous());
    let error = |answer: &Answer, name: &str| {
        let error = refused(answer, name);
        assert_eq!(error["data"]["path"], "audit.all", "{answer:?}");
        error["data"].clone()
    };
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let answer = send(&nobody, method, "/api/audit.jsonl?limit=5", &[], "").await;
        error(&answer, "METHOD_NOT_SUPPORTED");
        assert_eq!(answer.headers["allow"], "GET, HEAD");
    }
    for query in ["", "?limit=5", "?action=x&action=y", "?from=x"] {
        let path = format!("/api/audit.jsonl{query}");
        let unknown = nobody.get(&path).await;
        error(&unknown, "UNAUTHORIZED");
        assert!(unknown.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        error(&viewer.get(&path).await, "FORBIDDEN");
    }
    for (query, field) in
        [("colour=x", "colour"), ("limit=5", "limit"), ("cursor=x", "cursor"), ("from=x", "from")]
    {
        let data = error(&client.get(&format!("/api/audit.jsonl?{query}")).await, "BAD_REQUEST");
        assert!(data["zodError"]["fieldErrors"][field].is_array(), "{query}: {data}");
    }
    let data = error(&client.get("/api/audit.jsonl?action=x&action=y").await, "BAD_REQUEST");
    assert!(data["zodError"]["formErrors"][0].is_string(), "{data}");
    let head = send(&client, Method::HEAD, "/api/audit.jsonl", &[], "").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.headers["content-type"], "application/jsonl");
}

#[tokio::test]
async fn it_is_one_call_of_the_keys_limit_and_of_the_metrics() {
    let purser = Purser::builder().env("PURSER_AUDIT_RETENTION_DAYS", "0").start().await;
    fill(&purser, 350);
    let input =
        json!({"name": "once", "role": "admin", "rateLimit": {"requests": 2, "windowSeconds": 86_400}});
    let made = purser.client().mutate("apiKey.create", input).await;
    let once = purser.anonymous().with_key(made["key"].as_str().unwrap());
    // So is one whose filters cannot be read.
    let answer = once.get("/api/audit.jsonl?limit=5").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["ratelimit-remaining"]),
        (400, &"1".parse().unwrap())
    );
    let answer = once.get("/api/audit.jsonl").await;
    assert_eq!(answer.headers["ratelimit-remaining"], "0");
    assert!(lines(&answer).len() >= 350);
    let answer = once.get("/api/audit.jsonl").await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].as_str()), (429, Some("TOO_MANY_REQUESTS")));
    let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&wait) && answer.json()["data"]["retryAfter"].is_u64(), "{answer:?}");
    let text = metrics(&purser.client()).await;
    let counted: f64 = text
        .lines()
        .filter(|line| line.starts_with("purser_requests_total{") && line.contains("procedure=\"audit.all\""))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    let ok = r#"purser_requests_total{code="OK",door="plain",procedure="audit.all"}"#;
    assert_eq!((value(&text, ok), counted), (1.0, 3.0), "{text}");
}

/// The audit may be larger than memory: what a caller has not taken yet has not been read.
#[tokio::test]
async fn no_more_is_read_than_is_taken() {
    const ALL: usize = 60_000;
    let purser = Purser::builder().env("PURSER_AUDIT_RETENTION_DAYS", "0").start().await;
    fill(&purser, ALL);
    let request = http::Request::get("/api/audit.jsonl").header("x-api-key", purser.admin_key());
    let caller = Connection::to(Endpoint::Tcp(purser.address().into()));
    let answer = caller.stream(request.body(Full::default()).unwrap()).await.unwrap();
    let mut body = answer.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"{\"auditEventId\""));
    // What lies in sockets on the way is a few MB at most, of 13.
    purser.sql("DELETE FROM audit_event");
    let rest = body.collect().await.expect("a proper end").to_bytes();
    let taken = [first, rest].iter().map(|bytes| bytes.split(|byte| *byte == b'\n').count()).sum::<usize>();
    assert!(taken < ALL * 3 / 4, "{taken} of {ALL}");
}
