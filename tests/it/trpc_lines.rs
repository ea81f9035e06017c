//! Batches that are answered line by line (JSONL), as tRPC's `httpBatchStreamLink` reads them.

use std::time::Duration;

use http::{Method, StatusCode};
use purser_tests::{Client, Purser, Streamed, eventually, percent};
use serde_json::{Value, json};

use crate::answers::{is_error, refused, registry};

const LINES: (&str, &str) = ("trpc-accept", "application/jsonl");
const JSON: (&str, &str) = ("content-type", "application/json");

async fn get(client: &Client, names: &str, inputs: &Value) -> Streamed {
    let path = format!("/api/trpc/{names}?batch=1&input={}", percent::encode(&inputs.to_string()));
    client.stream(Method::GET, &path, &[LINES], "").await
}

async fn value(stream: &mut Streamed) -> Value {
    let line = stream.line().await.expect("a line");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

/// The remaining lines: the envelopes by position.
async fn envelopes(stream: &mut Streamed, unwrap: impl Fn(Value) -> Value) -> Vec<Value> {
    let mut found = Vec::new();
    while let Some(line) = stream.line().await {
        let mut chunk = unwrap(serde_json::from_str(&line).unwrap());
        let at = usize::try_from(chunk[0].as_u64().unwrap()).unwrap();
        assert_eq!(chunk, json!([at, 0, [[chunk[2][0][0]]]]), "kept promises, each with one value");
        found.push((at, chunk[2][0][0].take()));
    }
    found.sort_by_key(|(at, _)| *at);
    assert!(found.iter().enumerate().all(|(expected, (at, _))| expected == *at), "{found:?}");
    found.into_iter().map(|(_, envelope)| envelope).collect()
}

#[tokio::test]
async fn each_answer_goes_out_as_soon_as_it_is_there() {
    let purser = Purser::start().await;
    let client = purser.client();
    let server = client.mutate("server.create", json!({"name": "never joins"})).await;
    let pull = json!({"image": "127.0.0.1:1/app:v1", "serverId": server["serverId"], "wait": true});
    let inputs = json!({"0": pull, "1": registry("quick")}).to_string();
    let path = "/api/trpc/image.pull,registry.create?batch=1";
    let mut stream =
        client.stream(Method::POST, path, &[LINES, JSON, ("x-request-id", "these-two")], inputs).await;
    assert_eq!(stream.status, StatusCode::OK);
    assert_eq!(stream.headers["content-type"], "application/json");
    assert_eq!(stream.headers["vary"], "trpc-accept, accept");
    assert_eq!(value(&mut stream).await, json!({"0": [[0], [null, 0, 0]], "1": [[0], [null, 0, 1]]}));
    let quick = value(&mut stream).await;
    assert_eq!((&quick[0], &quick[1]), (&json!(1), &json!(0)), "{quick}");
    assert_eq!(quick[2][0][0]["result"]["data"]["registryName"], "quick", "{quick}");
    let noted = client.query("audit.all", json!({"action": "registry.create"})).await;
    assert_eq!(noted["items"][0]["requestId"], "these-two", "{noted}");
    // The other one ends only now.
    let job = eventually(Duration::from_secs(20), async || {
        let jobs = client.query("job.all", json!({})).await;
        jobs["items"][0]["jobId"].is_string().then(|| jobs["items"][0]["jobId"].clone())
    })
    .await;
    client.mutate("job.cancel", json!({"jobId": job})).await;
    let slow = value(&mut stream).await;
    assert_eq!(slow[2][0][0]["result"]["data"]["status"], "cancelled", "{slow}");
    assert_eq!(stream.line().await, None);
}

#[tokio::test]
async fn answers_and_errors_are_envelopes_and_the_status_is_200() {
    let purser = Purser::start().await;
    let (nobody, client) = (purser.anonymous(), purser.client());
    let names = "registry.all,registry.one,no.such,registry.create,job.watch,registry.one";
    let inputs = json!({"1": {"registryId": "reg_x"}, "5": {}});
    let mut stream = get(&client, names, &inputs).await;
    assert_eq!(stream.status, StatusCode::OK);
    assert_eq!(value(&mut stream).await.as_object().unwrap().len(), 6);
    let answers = envelopes(&mut stream, |line| line).await;
    assert_eq!(answers[0], json!({"result": {"data": []}}));
    is_error(&answers[1]["error"], "NOT_FOUND", Some("registry.one"));
    is_error(&answers[2]["error"], "NOT_FOUND", Some("no.such"));
    is_error(&answers[3]["error"], "METHOD_NOT_SUPPORTED", Some("registry.create"));
    is_error(&answers[4]["error"], "METHOD_NOT_SUPPORTED", Some("job.watch"));
    is_error(&answers[5]["error"], "BAD_REQUEST", Some("registry.one"));
    assert!(answers[5]["error"]["data"]["zodError"]["fieldErrors"]["registryId"].is_array());

    let mut stream = get(&nobody, "registry.all,server.all", &json!({})).await;
    assert_eq!(stream.status, StatusCode::OK);
    value(&mut stream).await;
    for answer in envelopes(&mut stream, |line| line).await {
        assert_eq!(answer["error"]["data"]["code"], "UNAUTHORIZED", "{answer}");
    }
    // Inputs that cannot be read are each call's error: a client has no other place for it.
    let mut stream = get(&client, "registry.all,server.all", &json!([1])).await;
    assert_eq!((stream.status, value(&mut stream).await.as_object().unwrap().len()), (StatusCode::OK, 2));
    for answer in envelopes(&mut stream, |line| line).await {
        assert_eq!(answer["error"]["data"]["code"], "BAD_REQUEST", "{answer}");
    }
    let many = format!("/api/trpc/{}?batch=1", vec!["registry.all"; 101].join(","));
    let answer = client.send(Method::GET, &many, &[LINES], "").await.unwrap();
    refused(&answer, "PAYLOAD_TOO_LARGE", None);
}

#[tokio::test]
async fn superjson_wraps_each_line_once() {
    let purser = Purser::start().await;
    let client = purser.client();
    let undefined = json!({"json": null, "meta": {"values": ["undefined"], "v": 1}});
    let inputs = json!({"0": undefined, "1": {"json": {"registryId": "reg_x"}}});
    let mut stream = get(&client, "registry.all,registry.one", &inputs).await;
    let head = value(&mut stream).await;
    assert_eq!(head, json!({"json": {"0": [[0], [null, 0, 0]], "1": [[0], [null, 0, 1]]}}));
    let unwrap = |mut line: Value| {
        assert_eq!(crate::answers::members(&line), ["json"], "{line}");
        line["json"].take()
    };
    let answers = envelopes(&mut stream, unwrap).await;
    assert_eq!(answers[0], json!({"result": {"data": []}}));
    is_error(&answers[1]["error"], "NOT_FOUND", Some("registry.one"));
}

#[tokio::test]
async fn only_a_batch_whose_caller_says_so_is_answered_in_lines() {
    let purser = Purser::start().await;
    let client = purser.client();
    let plain = json!([{"result": {"data": []}}]);
    let batch = "/api/trpc/registry.all?batch=1";
    for (headers, lines) in [
        (vec![], false),
        (vec![("accept", "application/json")], false),
        (vec![("accept", "text/html, application/jsonl;q=0.5")], false),
        (vec![("accept", "text/html, application/jsonl")], true),
        (vec![("accept", "application/jsonl"), ("trpc-accept", "application/json")], false),
        (vec![LINES], true),
    ] {
        let answer = client.send(Method::GET, batch, &headers, "").await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        if lines {
            assert_eq!(answer.text(), "{\"0\":[[0],[null,0,0]]}\n[0,0,[[{\"result\":{\"data\":[]}}]]]\n");
        } else {
            assert_eq!(answer.json(), plain, "{headers:?}");
        }
    }
    let single = client.send(Method::GET, "/api/trpc/registry.all", &[LINES], "").await.unwrap();
    assert_eq!(single.json(), plain[0]);
}
