//! How often a key may call: one bucket for all doors, told in the headers of each answer.

use std::time::Duration;

use http::HeaderMap;
use purser_tests::{Answer, Client, Purser};
use serde_json::{Value, json};

use crate::{
    answers::{refused, send},
    operations::{metrics, value},
};

async fn limited(purser: &Purser, requests: u32, window: u32) -> Client {
    let input = json!({"name": "limited", "role": "viewer",
        "rateLimit": {"requests": requests, "windowSeconds": window}});
    let made = purser.client().mutate("apiKey.create", input).await;
    purser.anonymous().with_key(made["key"].as_str().unwrap())
}

#[track_caller]
fn number(headers: &HeaderMap, name: &str) -> u64 {
    let value = headers.get(name).unwrap_or_else(|| panic!("no {name} in {headers:?}"));
    value.to_str().unwrap().parse().unwrap()
}

#[track_caller]
fn remains(answer: &Answer, left: u64) {
    for prefix in ["ratelimit", "x-ratelimit"] {
        assert_eq!(number(&answer.headers, &format!("{prefix}-limit")), 4);
        assert_eq!(number(&answer.headers, &format!("{prefix}-remaining")), left, "{answer:?}");
        assert!(number(&answer.headers, &format!("{prefix}-reset")) <= 3600);
    }
    assert_eq!(answer.headers["ratelimit-policy"], "4;w=3600");
}

#[tokio::test]
async fn a_key_has_one_bucket_for_all_doors_and_is_told_what_is_left() {
    let purser = Purser::start().await;
    let client = limited(&purser, 4, 3600).await;
    let answer = client.trpc_query("registry.all", &Value::Null).await;
    assert_eq!(answer.status, 200);
    remains(&answer, 3);
    assert!(!answer.headers.contains_key("retry-after"));
    // What is denied or malformed counts, too.
    let denied = client.trpc_mutation("registry.create", &json!({})).await;
    assert_eq!(denied.code(), "FORBIDDEN");
    remains(&denied, 2);
    let by_rpc = client.rpc("registry.all", &Value::Null).await;
    assert!(by_rpc.json()["result"].is_array());
    remains(&by_rpc, 1);
    let mut socket = client.websocket().await.unwrap();
    assert!(socket.call("registry.all", Value::Null).await.unwrap()["result"].is_array());

    let answer = client.trpc_query("registry.all", &Value::Null).await;
    let error = refused(&answer, "TOO_MANY_REQUESTS", Some("registry.all"));
    remains(&answer, 0);
    let wait = number(&answer.headers, "retry-after");
    assert!((1..=900).contains(&wait), "{wait}");
    assert!(error["data"]["retryAfter"].as_u64().unwrap().abs_diff(wait) <= 1, "{error}");
    let by_rpc = client.rpc("registry.all", &Value::Null).await;
    let error = by_rpc.error();
    assert_eq!((&error["code"], &error["data"]["code"]), (&json!(-32029), &json!("TOO_MANY_REQUESTS")));
    assert!(number(&by_rpc.headers, "retry-after") >= 1);
    for method in ["registry.all", "job.watch"] {
        let said = socket.call(method, json!({})).await.unwrap();
        assert_eq!(said["error"]["data"]["code"], "TOO_MANY_REQUESTS", "{method}: {said}");
        assert!(said["error"]["data"]["retryAfter"].as_u64() >= Some(1), "{said}");
    }
    // A procedure that is not there, and a key that is not valid, are no calls of it.
    assert_eq!(client.trpc_query("registry.none", &Value::Null).await.status, 404);
    // Others are not held up, and keys without a limit are told of none.
    let free = purser.client().trpc_query("registry.all", &Value::Null).await;
    assert_eq!(free.status, 200);
    assert!(!free.headers.keys().any(|name| name.as_str().contains("ratelimit")), "{:?}", free.headers);
}

#[tokio::test]
async fn a_batch_is_as_many_calls_as_it_holds() {
    let purser = Purser::start().await;
    let client = limited(&purser, 4, 3600).await;
    let batch = ["registry.all"; 3].join(",");
    let answer = client.get(&format!("/api/trpc/{batch}?batch=1&input=%7B%7D")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    remains(&answer, 1);
    let answer = client.get(&format!("/api/trpc/{batch}?batch=1&input=%7B%7D")).await;
    assert_eq!(answer.status, 207, "{answer:?}");
    let codes: Vec<_> =
        answer.json().as_array().unwrap().iter().map(|one| one["error"]["data"]["code"].clone()).collect();
    assert_eq!(codes, [Value::Null, json!("TOO_MANY_REQUESTS"), json!("TOO_MANY_REQUESTS")]);
    assert!(number(&answer.headers, "retry-after") >= 1);
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "registry.all"});
    let answer = send(&client, http::Method::POST, "/rpc", &[], &json!([call, call]).to_string()).await;
    for one in answer.json().as_array().unwrap() {
        assert_eq!(one["error"]["code"], -32029, "{one}");
    }
}

/// The head of the answer goes out before the first call is made.
#[tokio::test]
async fn an_answer_line_by_line_tells_what_is_left_when_all_its_calls_are_counted() {
    let purser = Purser::start().await;
    let client = limited(&purser, 4, 3600).await;
    let lines = async |names: &str, input: &str| {
        let path = format!("/api/trpc/{names}?batch=1&input={input}");
        let headers = [("trpc-accept", "application/jsonl")];
        let mut stream = client.stream(http::Method::GET, &path, &headers, "").await;
        let mut codes = std::collections::BTreeMap::new();
        let _head = stream.line().await;
        while let Some(line) = stream.line().await {
            let line: Value = serde_json::from_str(&line).unwrap();
            let code = &line[2][0][0]["error"]["data"]["code"];
            codes.insert(line[0].as_u64().unwrap(), code.as_str().unwrap_or("OK").to_owned());
        }
        let told = |name: &str| number(&stream.headers, name);
        assert_eq!((stream.status.as_u16(), told("ratelimit-limit")), (200, 4));
        let retry = stream.headers.contains_key("retry-after");
        (codes.into_values().collect::<Vec<_>>(), told("ratelimit-remaining"), retry)
    };
    // What no procedure is, or a mutation by GET, is no call.
    let (codes, left, retry) = lines("registry.all,no.such,registry.create,job.all", "%7B%7D").await;
    assert_eq!(codes, ["OK", "NOT_FOUND", "METHOD_NOT_SUPPORTED", "OK"]);
    assert_eq!((left, retry), (2, false));
    // None is counted twice, readable or not.
    let (codes, left, retry) = lines("registry.all", "%7Bbad").await;
    assert_eq!((codes, left, retry), (vec!["BAD_REQUEST".to_owned()], 1, false));
    let (codes, left, retry) = lines("registry.all,registry.all,registry.all", "%7B%7D").await;
    assert_eq!(codes, ["OK", "TOO_MANY_REQUESTS", "TOO_MANY_REQUESTS"]);
    assert_eq!((left, retry), (0, true));
    let text = metrics(&purser.client()).await;
    let refused = r#"purser_requests_total{code="TOO_MANY_REQUESTS",door="trpc",procedure="registry.all"}"#;
    assert_eq!(value(&text, refused), 2.0, "{text}");
}

/// Each door reads it by itself, before the call gets as far as the limit.
#[tokio::test]
async fn input_that_is_no_json_is_a_call_all_the_same() {
    let purser = Purser::start().await;
    let client = limited(&purser, 4, 3600).await;
    let post = async |path: &str| send(&client, http::Method::POST, path, &[], "{bad").await;
    let subscribe = async || {
        let mut stream = client.subscribe("/api/trpc/registry.events?input=%7Bbad", &[]).await;
        let told = stream.event().await.unwrap();
        assert_eq!(told.event, "serialized-error", "{told:?}");
        (stream.headers, told.json()["data"]["code"].clone())
    };
    let (trpc, plain) = ("/api/trpc/registry.all", "/api/registry.all");
    for (path, left) in [(trpc, 3), (plain, 2)] {
        let answer = post(path).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        remains(&answer, left);
    }
    let (headers, code) = subscribe().await;
    assert_eq!((number(&headers, "ratelimit-remaining"), code), (1, json!("BAD_REQUEST")));
    let batch = "/api/trpc/registry.all,registry.all?batch=1";
    let answer = post(batch).await;
    assert_eq!(answer.status, 207, "{answer:?}");
    remains(&answer, 0);
    for path in [trpc, plain, batch] {
        let answer = post(path).await;
        assert_eq!(answer.status, 429, "{answer:?}");
        assert!(number(&answer.headers, "retry-after") >= 1);
    }
    assert_eq!(subscribe().await.1, "TOO_MANY_REQUESTS");
}

#[tokio::test]
async fn a_bucket_fills_again() {
    let purser = Purser::start().await;
    let client = limited(&purser, 1, 1).await;
    assert_eq!(client.trpc_query("registry.all", &Value::Null).await.status, 200);
    purser_tests::eventually(Duration::from_secs(10), async || {
        (client.trpc_query("registry.all", &Value::Null).await.status == 200).then_some(())
    })
    .await;
}

/// The memory of a key lasts ten seconds; its bucket must outlast that.
#[tokio::test]
async fn a_bucket_is_not_full_again_because_the_key_was_forgotten() {
    let purser = Purser::start().await;
    let client = limited(&purser, 2, 3600).await;
    for _ in 0..2 {
        assert_eq!(client.trpc_query("registry.all", &Value::Null).await.status, 200);
    }
    // As long as a key that was good is remembered.
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(client.trpc_query("registry.all", &Value::Null).await.status, 429);
}
