//! A key that is removed, or whose time is over, makes no call any more: none of a batch that is under way, and none
//! whose body was under way.

use std::time::Duration;

use http::Method;
use purser_tests::{Client, Purser, eventually};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const SOON: Duration = Duration::from_secs(30);
/// Longer than any call of these tests.
const CUT: Duration = Duration::from_secs(120);
/// Calls of a batch that are under way at once: the next begins when one of them has ended.
const BATCH_WIDTH: usize = 8;
const TOO_LATE: &str = "made too late";

/// How a key ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Removed,
    Expired,
}

/// A key that may do all in its organization.
struct Key {
    id: Value,
    text: String,
    client: Client,
}

impl Key {
    async fn make(purser: &Purser) -> Self {
        let input = json!({"name": "to be ended", "role": "admin"});
        let made = purser.client().mutate("apiKey.create", input).await;
        let text = made["key"].as_str().unwrap().to_owned();
        let client = purser.anonymous().with_key(&text);
        Self { id: made["apiKeyId"].clone(), text, client }
    }

    async fn end(&self, purser: &Purser, end: End) {
        match end {
            End::Removed => {
                purser.client().mutate("apiKey.remove", json!({"apiKeyId": self.id})).await;
            }
            End::Expired => {
                let id = self.id.as_str().unwrap();
                purser.sql(&format!(
                    "UPDATE api_key SET expires_at = '2026-01-01 00:00:00+00:00' WHERE api_key_id = '{id}'"
                ));
            }
        }
    }
}

/// What no ended key may get done.
fn too_late() -> Value {
    json!({"name": TOO_LATE, "role": "admin"})
}

async fn made_too_late(purser: &Purser) -> bool {
    let keys = purser.client().query("apiKey.all", Value::Null).await;
    keys.as_array().unwrap().iter().any(|key| key["name"] == TOO_LATE)
}

fn call(id: usize, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

/// A batch's calls, as one request.
#[derive(Clone, Copy, Debug)]
enum Door {
    RpcBatch,
    TrpcBatch,
    TrpcLines,
}

impl Door {
    const ALL: [Self; 3] = [Self::RpcBatch, Self::TrpcBatch, Self::TrpcLines];

    /// Makes the calls in one batch, and gives the code of each; empty for a result.
    async fn codes(self, client: &Client, calls: &[(&str, Value)]) -> Vec<String> {
        let json = ("content-type", "application/json");
        let post = async |path: &str, headers: &[(&str, &str)], body: Value| {
            let answer = client.send_within(CUT, Method::POST, path, headers, body.to_string()).await;
            answer.unwrap_or_else(|error| panic!("{self:?}: {error}"))
        };
        let by_trpc = async |headers: &[(&str, &str)]| {
            let names: Vec<_> = calls.iter().map(|(name, _)| *name).collect();
            let inputs: Value =
                calls.iter().enumerate().map(|(at, (_, input))| (at.to_string(), input.clone())).collect();
            post(&format!("/api/trpc/{}?batch=1", names.join(",")), headers, inputs).await
        };
        let mut answers = match self {
            Self::RpcBatch => {
                let batch =
                    calls.iter().enumerate().map(|(id, (name, input))| call(id, name, input)).collect();
                post("/rpc", &[json], batch).await.json().as_array().unwrap().clone()
            }
            Self::TrpcBatch => by_trpc(&[json]).await.json().as_array().unwrap().clone(),
            Self::TrpcLines => {
                let answer = by_trpc(&[json, ("trpc-accept", "application/jsonl")]).await.text();
                let mut lines: Vec<Value> =
                    answer.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
                lines.sort_by_key(|line| line[0].as_u64());
                lines.into_iter().map(|mut line| line[2][0][0].take()).collect()
            }
        };
        answers.iter_mut().map(code).collect()
    }
}

fn code(answer: &mut Value) -> String {
    match answer["error"].take() {
        Value::Null => String::new(),
        error => error["data"]["code"].as_str().unwrap_or_else(|| panic!("{error}")).to_owned(),
    }
}

/// A batch whose first calls wait for jobs that do not end; its key ends; then they do, and the others' turn comes.
async fn calls_that_begin_later_are_refused(end: End) {
    let purser = Purser::start().await;
    let admin = purser.client();
    let server = admin.mutate("server.create", json!({"name": "never joins"})).await;
    let pull = json!({"image": "127.0.0.1:1/app:v1", "serverId": server["serverId"], "wait": true});
    let mut calls = vec![("image.pull", pull); BATCH_WIDTH];
    calls.extend(vec![("apiKey.create", too_late()); 2]);
    let key = Key::make(&purser).await;
    let batches: Vec<_> = Door::ALL
        .into_iter()
        .map(|door| {
            let (client, calls) = (key.client.clone(), calls.clone());
            (door, tokio::spawn(async move { door.codes(&client, &calls).await }))
        })
        .collect();
    let jobs = eventually(SOON, async || {
        let jobs = admin.query("job.all", json!({"limit": 100})).await["items"].as_array().unwrap().clone();
        (jobs.len() == batches.len() * BATCH_WIDTH).then_some(jobs)
    })
    .await;
    key.end(&purser, end).await;
    eventually(SOON, async || {
        let answer = key.client.trpc_query("registry.all", &Value::Null).await;
        (answer.status == 401).then_some(())
    })
    .await;
    for job in jobs {
        admin.mutate("job.cancel", json!({"jobId": job["jobId"]})).await;
    }
    let mut wrong = Vec::new();
    for (door, codes) in batches {
        let codes = codes.await.unwrap();
        let (first, later) = codes.split_at(BATCH_WIDTH);
        if !first.iter().all(String::is_empty) || later != ["UNAUTHORIZED", "UNAUTHORIZED"] {
            wrong.push((door, codes));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(!made_too_late(&purser).await);
}

#[tokio::test]
async fn a_removed_key_makes_none_of_the_calls_of_a_batch_that_have_not_begun() {
    calls_that_begin_later_are_refused(End::Removed).await;
}

#[tokio::test]
async fn an_expired_key_makes_none_of_the_calls_of_a_batch_that_have_not_begun() {
    calls_that_begin_later_are_refused(End::Expired).await;
}

/// The answers are told in order, so the ninth call of a batch begins when the first has ended.
#[tokio::test]
async fn a_key_that_a_batch_on_a_socket_removes_makes_none_of_its_later_calls() {
    let purser = Purser::start().await;
    let key = Key::make(&purser).await;
    let mut socket = key.client.websocket().await.unwrap();
    let mut batch = vec![call(0, "apiKey.remove", &json!({"apiKeyId": key.id}))];
    batch.extend((1..BATCH_WIDTH).map(|id| call(id, "registry.all", &json!({}))));
    batch.extend([
        call(BATCH_WIDTH, "apiKey.create", &too_late()),
        call(BATCH_WIDTH + 1, "registry.events", &json!({})),
    ]);
    socket.send(&Value::from(batch).to_string()).await.unwrap();
    let mut answers = socket.receive().await.unwrap();
    let codes: Vec<_> = answers.as_array_mut().unwrap().iter_mut().map(code).collect();
    assert_eq!(
        (codes[0].as_str(), &codes[BATCH_WIDTH..]),
        ("", &["UNAUTHORIZED".to_owned(), "UNAUTHORIZED".to_owned()][..])
    );
    let said = socket.receive().await.unwrap_err();
    assert!(said.contains("not valid any more"), "{said}");
    assert!(!made_too_late(&purser).await);
}

/// A request whose body is being waited for.
struct Begun(TcpStream);

impl Begun {
    async fn with(purser: &Purser, key: &Key, path: &str, body: &str) -> Self {
        let mut stream = TcpStream::connect(purser.address()).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: purser\r\nx-api-key: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
            key.text,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut said = [0; 25];
        timeout(SOON, stream.read_exact(&mut said)).await.unwrap().unwrap();
        assert_eq!(&said, b"HTTP/1.1 100 Continue\r\n\r\n");
        Self(stream)
    }

    /// The answer, its head and its body.
    async fn finish(mut self, body: &str) -> String {
        self.0.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(CUT, self.0.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }
}

#[tokio::test]
async fn a_key_that_ends_while_a_body_is_being_sent_makes_no_call_of_it() {
    let purser = Purser::start().await;
    let mut wrong = Vec::new();
    let create = call(1, "apiKey.create", &too_late());
    for end in [End::Removed, End::Expired] {
        for (path, body, status) in [
            ("/rpc", create.clone(), "200"),
            ("/rpc", json!([create, create]), "200"),
            ("/api/trpc/apiKey.create", too_late(), "401"),
            ("/api/trpc/apiKey.create?batch=1", json!({"0": too_late()}), "401"),
            ("/api/apiKey.create", too_late(), "401"),
        ] {
            let body = body.to_string();
            let key = Key::make(&purser).await;
            let begun = Begun::with(&purser, &key, path, &body).await;
            key.end(&purser, end).await;
            let answer = begun.finish(&body).await;
            if !answer.starts_with(&format!("HTTP/1.1 {status} ")) || !answer.contains("UNAUTHORIZED") {
                wrong.push((end, path, answer));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(!made_too_late(&purser).await);
}
