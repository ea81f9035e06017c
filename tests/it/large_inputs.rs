//! Inputs over 64 KiB: who sends many of them, slowly, or with calls that take long, keeps no other organization's out,
//! and of its own no more than it must.

use std::time::Duration;

use futures_util::future::{Either, join_all, select, select_all};
use http::Method;
use purser_tests::{Answer, Client, Purser, eventually, process::resident_kib, wait::random_hex};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Longer than the longest patience that the server has with any body.
const CUT: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(30);
const JSON: (&str, &str) = ("content-type", "application/json");
const LINES: (&str, &str) = ("trpc-accept", "application/jsonl");
/// Large inputs that one key may have under way, and one organization.
const OF_A_KEY: usize = 2;
const OF_AN_ORGANIZATION: usize = 4;
/// Further calls in a batch wait until one of so many has ended.
const BATCH_WIDTH: usize = 8;

/// A control plane with two organizations, each with an admin's key as text and as a client of its own.
struct World {
    purser: Purser,
    one: (String, Client),
    other: (String, Client),
}

impl World {
    async fn start() -> Self {
        Self::with(Purser::start().await).await
    }

    async fn with(purser: Purser) -> Self {
        let one = key(&purser, json!({"role": "admin"})).await;
        let organization = purser.client().mutate("organization.create", json!({"name": "other"})).await;
        let of_other = json!({"role": "admin", "organizationId": organization["organizationId"]});
        let other = key(&purser, of_other).await;
        Self { purser, one, other }
    }
}

async fn key(purser: &Purser, mut input: Value) -> (String, Client) {
    input["name"] = json!("a key");
    let made = purser.client().mutate("apiKey.create", input).await;
    let key = made["key"].as_str().unwrap().to_owned();
    let client = purser.anonymous().with_key(&key).afresh();
    (key, client)
}

/// A pull onto a host that never comes, which is waited for.
async fn endless(client: &Client) -> Value {
    let server = client.mutate("server.create", json!({"name": random_hex(8)})).await;
    let servers = vec![server["serverId"].clone(); 2_000];
    json!({"image": "127.0.0.1:1/app:v1", "serverIds": servers, "wait": true})
}

/// An input of 80 KiB that is answered at once.
fn quick() -> Value {
    json!({"composeFile": format!("services:\n  web:\n    image: app\n#{}\n", "x".repeat(80 << 10))})
}

async fn is_served(client: &Client) -> bool {
    let answer = client.trpc_mutation("stack.images", &quick()).await;
    assert!(answer.status == 200 || answer.code() == "TOO_MANY_REQUESTS", "{}", answer.text());
    answer.status == 200
}

/// Waits until there are so many jobs, and gives their ids.
async fn jobs(client: &Client, many: usize) -> Vec<Value> {
    eventually(SOON, async || {
        let jobs = client.query("job.all", json!({"limit": 100})).await;
        let ids: Vec<_> = jobs["items"].as_array().unwrap().iter().map(|job| job["jobId"].clone()).collect();
        (ids.len() == many).then_some(ids)
    })
    .await
}

async fn cancel(client: &Client, jobs: &[Value]) {
    for job in jobs {
        client.mutate("job.cancel", json!({"jobId": job})).await;
    }
}

fn call(id: usize, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

#[tokio::test]
async fn calls_that_wait_for_a_job_keep_nobody_out_on_any_door() {
    let World { purser: _purser, one: (_, one), other: (_, other) } = World::start().await;
    let pull = endless(&one).await;
    let posts = [
        ("/api/image.pull", pull.clone(), None),
        ("/api/trpc/image.pull", pull.clone(), None),
        ("/api/trpc/image.pull", json!({"json": pull}), None),
        ("/api/trpc/image.pull?batch=1", json!({"0": pull}), None),
        ("/api/trpc/image.pull,image.pull?batch=1", json!({"0": pull, "1": pull}), Some(LINES)),
        ("/rpc", call(1, "image.pull", &pull), None),
        ("/rpc", json!([call(1, "image.pull", &pull), call(2, "image.pull", &pull)]), None),
    ];
    let mut calls = Vec::new();
    for (path, body, more) in posts {
        let client = one.clone();
        calls.push(tokio::spawn(async move {
            let headers: Vec<_> = [JSON].into_iter().chain(more).collect();
            let answer = client.send_within(CUT, Method::POST, path, &headers, body.to_string()).await;
            assert!(answer.unwrap().text().contains("cancelled"), "{path}");
        }));
    }
    let client = one.clone();
    calls.push(tokio::spawn(async move {
        let mut socket = client.websocket().await.unwrap();
        for id in 1..=2 {
            socket.send(&call(id, "image.pull", &pull).to_string()).await.unwrap();
        }
        for _ in 1..=2 {
            assert_eq!(socket.receive().await.unwrap()["result"]["status"], "cancelled");
        }
    }));
    // All of them have begun: many more than may have a place at once.
    let jobs = jobs(&one, 11).await;
    assert!(is_served(&one).await && is_served(&other).await);
    cancel(&one, &jobs).await;
    for call in calls {
        timeout(CUT, call).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_call_that_waits_keeps_nothing_of_its_input() {
    const CALLS: usize = 80;
    // The allocator gives back at once what is large, and keeps little of the rest: else it would be measured.
    let mut purser = Purser::builder();
    for (name, value) in [("ARENA_MAX", "1"), ("MMAP_THRESHOLD_", "65536"), ("TRIM_THRESHOLD_", "65536")] {
        purser = purser.env(&format!("MALLOC_{name}"), value);
    }
    let World { purser, one: (_, one), .. } = World::with(purser.start().await).await;
    let mut pull = endless(&one).await;
    let mut most = pull.clone();
    most["serverIds"] = vec![pull["serverIds"][0].clone(); 10_000].into();
    pull["serverIds"] = json!([pull["serverIds"][0]]);
    let mut padded = call(1, "image.pull", &pull);
    padded["padding"] = json!("x".repeat(900_000));
    let posts = [
        ("/rpc", &padded),
        ("/api/image.pull", &most),
        ("/api/trpc/image.pull", &most),
        ("/api/trpc/image.pull?batch=1", &json!({"0": most})),
    ];
    let posts = posts.map(|(path, body)| (path, bytes::Bytes::from(body.to_string())));
    // Connections keep buffers of their own.
    let mut nothing = call(1, "registry.all", &json!({}));
    nothing["padding"] = padded["padding"].clone();
    join_all((0..CALLS).map(|_| one.post("/rpc", &nothing))).await;
    for (path, body) in posts {
        let before = resident_kib(purser.pid()).unwrap();
        let calls: Vec<_> =
            (0..CALLS).map(|_| one.send_within(CUT, Method::POST, path, &[JSON], body.clone())).collect();
        let looking = async {
            let jobs = eventually(SOON, async || {
                let jobs = one.query("job.all", json!({"limit": 100, "status": "queued"})).await;
                let jobs = jobs["items"].as_array().unwrap().clone();
                (jobs.len() == CALLS).then_some(jobs)
            })
            .await;
            // Each kept once would be 68 and 30 MiB; the allocator keeps a few of what was there for a moment.
            eventually(SOON, async || {
                let grown = resident_kib(purser.pid()).unwrap().saturating_sub(before);
                (grown < 16 << 10).then_some(())
            })
            .await;
            let jobs: Vec<_> = jobs.iter().map(|job| job["jobId"].clone()).collect();
            cancel(&one, &jobs).await;
        };
        let (answers, ()) = tokio::join!(join_all(calls), looking);
        assert!(answers.into_iter().all(|answer| answer.unwrap().status == 200));
    }
}

/// Sends all of a large body but its last byte, and gives the status line and headers of the answer.
async fn slowly(purser: &Purser, key: &str) -> String {
    let mut stream = TcpStream::connect(purser.address()).await.unwrap();
    let body = vec![b' '; 70 << 10];
    let head = format!(
        "POST /rpc HTTP/1.1\r\nhost: purser\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len() + 1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let (mut said, mut part) = (Vec::new(), [0; 1024]);
    while !said.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = timeout(CUT, stream.read(&mut part)).await.unwrap().unwrap_or_default();
        if read == 0 {
            break;
        }
        said.extend_from_slice(&part[..read]);
    }
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn an_organization_that_sends_slowly_keeps_no_other_out_nor_a_key_all_others() {
    let World { purser, one: (first, _), other: (_, other) } = World::start().await;
    let (second, _) = key(&purser, json!({"role": "viewer"})).await;
    let (_, third) = key(&purser, json!({"role": "viewer"})).await;
    // More than there are places of all, by one key.
    let by_one: Vec<_> = (0..20).map(|_| Box::pin(slowly(&purser, &first))).collect();
    let served = async { (is_served(&other).await, is_served(&third).await) };
    let by_one = match select(Box::pin(served), select_all(by_one)).await {
        Either::Left((served, by_one)) => {
            assert_eq!(served, (true, true));
            by_one
        }
        Either::Right(((said, ..), _)) => panic!("before others were served, one was told {said}"),
    };
    let said = by_one.await;
    let said: Vec<_> = std::iter::once(said.0).chain(join_all(said.2).await).collect();
    let were = |status: &str| said.iter().filter(|said| said.starts_with(status)).count();
    assert_eq!((were("HTTP/1.1 408 "), were("HTTP/1.1 429 ")), (OF_A_KEY, 20 - OF_A_KEY), "{said:?}");
    assert!(said.iter().all(|said| said.starts_with("HTTP/1.1 408 ") || said.contains("retry-after: ")));
    // Two keys, so that all places of the organization are taken.
    let by_two = [&first, &second].map(|key| (0..10).map(|_| Box::pin(slowly(&purser, key))));
    match select(Box::pin(is_served(&other)), select_all(by_two.into_iter().flatten())).await {
        Either::Left((served, by_two)) => {
            assert!(served);
            let said = by_two.await;
            let said: Vec<_> = std::iter::once(said.0).chain(join_all(said.2).await).collect();
            let cut = said.iter().filter(|said| said.starts_with("HTTP/1.1 408 ")).count();
            assert_eq!(cut, OF_AN_ORGANIZATION, "{said:?}");
        }
        Either::Right(((said, ..), _)) => panic!("before the other was served, one was told {said}"),
    }
}

/// Checks what batches of calls that wait keep, which `post` sends and whose answer it reads.
async fn with_waiting_batches(post: impl AsyncFn(&Client, usize, Value)) {
    let World { purser, one: (_, one), other: (_, other) } = World::start().await;
    let pull = endless(&one).await;
    let mut small = pull.clone();
    small["serverIds"] = json!([pull["serverIds"][0]]);
    // What the last of its calls needs is kept until one before it has ended.
    let inputs = json!([small, pull]);
    let batches = join_all((0..OF_A_KEY).map(|_| post(&one, BATCH_WIDTH + 1, inputs.clone())));
    let looking = async {
        let begun = jobs(&one, OF_A_KEY * BATCH_WIDTH).await;
        let (_, colleague) = key(&purser, json!({"role": "viewer"})).await;
        assert!(is_served(&colleague).await && is_served(&other).await);
        let answer = one.trpc_mutation("stack.images", &quick()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (429, "TOO_MANY_REQUESTS"));
        assert!(answer.headers.contains_key("retry-after"), "{:?}", answer.headers);
        cancel(&one, &begun).await;
        // The last ones have begun now, and wait without their input.
        let all = jobs(&one, OF_A_KEY * (BATCH_WIDTH + 1)).await;
        assert!(is_served(&one).await);
        cancel(&one, &all).await;
    };
    let (answered, ()) = tokio::join!(timeout(CUT * 2, batches), looking);
    assert_eq!(answered.unwrap().len(), OF_A_KEY);
}

/// Four organizations with as many calls under way as they may have, by two keys each, sixteen in all.
async fn keys_of_four_organizations(purser: &Purser) -> Vec<Client> {
    let mut keys = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let made = purser.client().mutate("organization.create", json!({"name": name})).await;
        for _ in 0..OF_AN_ORGANIZATION / OF_A_KEY {
            let input = json!({"role": "admin", "organizationId": made["organizationId"]});
            keys.push(key(purser, input).await.1);
        }
    }
    keys
}

#[tokio::test]
async fn batches_of_many_organizations_keep_no_other_out() {
    let World { purser, other: (_, other), .. } = World::start().await;
    let keys = keys_of_four_organizations(&purser).await;
    let (mut servers, mut batches) = (Vec::new(), Vec::new());
    for (at, key) in keys.iter().enumerate() {
        let pull = endless(key).await;
        let mut small = pull.clone();
        small["serverIds"] = json!([pull["serverIds"][0]]);
        let inputs = json!([small, pull]);
        servers.push(pull["serverIds"][0].clone());
        for _ in 0..OF_A_KEY {
            let inputs = inputs.clone();
            batches.push(Box::pin(async move {
                let many = BATCH_WIDTH + 1;
                match at % 2 {
                    0 => post(key, "/rpc", None, rpc_batch(many, &inputs)).await,
                    _ => {
                        let (path, body) = trpc_batch(many, &inputs);
                        post(key, &path, None, body).await;
                    }
                }
            }));
        }
    }
    let looking = async {
        for (key, server) in keys.iter().zip(&servers) {
            let begun = eventually(SOON, async || {
                let input = json!({"limit": 100, "serverId": server});
                let jobs = key.query("job.all", input).await["items"].as_array().unwrap().len();
                (jobs == OF_A_KEY * BATCH_WIDTH).then_some(jobs)
            });
            begun.await;
        }
        assert!(is_served(&other).await);
    };
    if let Either::Right(_) = select(Box::pin(looking), select_all(batches)).await {
        panic!("a batch was answered");
    }
}

#[tokio::test]
async fn slow_calls_of_many_organizations_keep_no_other_out() {
    let World { purser, other: (_, other), .. } = World::start().await;
    let keys = keys_of_four_organizations(&purser).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let mut test = call(1, "registry.testRegistry", &json!({"registryUrl": address}));
    test["padding"] = json!("x".repeat(80 << 10));
    let tests = keys.iter().flat_map(|key| [key; OF_A_KEY]).map(|key| Box::pin(key.post("/rpc", &test)));
    let looking = async {
        let mut asked = Vec::new();
        while asked.len() < keys.len() * OF_A_KEY {
            asked.push(silent.accept().await.unwrap());
        }
        assert!(is_served(&other).await);
        asked
    };
    if let Either::Right(((answer, ..), _)) = select(Box::pin(looking), select_all(tests)).await {
        panic!("before the other was served, one was told {}", answer.text());
    }
}

/// Many calls with the first input, and the last one with the second.
fn params(many: usize, inputs: &Value) -> impl Iterator<Item = (usize, &Value)> {
    (0..many).map(move |at| (at, &inputs[usize::from(at + 1 == many)]))
}

fn rpc_batch(many: usize, inputs: &Value) -> String {
    Value::from_iter(params(many, inputs).map(|(at, params)| call(at, "image.pull", params))).to_string()
}

async fn post(client: &Client, path: &str, more: Option<(&str, &str)>, body: String) {
    let headers: Vec<_> = [JSON].into_iter().chain(more).collect();
    let answer = client.send_within(CUT * 2, Method::POST, path, &headers, body).await.unwrap();
    assert_eq!(answer.text().matches(r#""finishedAt":"2"#).count(), BATCH_WIDTH + 1, "{}", answer.text());
}

#[tokio::test]
async fn a_batch_keeps_its_place_until_its_last_call_has_begun() {
    with_waiting_batches(async |client, many, inputs| {
        post(client, "/rpc", None, rpc_batch(many, &inputs)).await;
    })
    .await;
}

fn trpc_batch(many: usize, inputs: &Value) -> (String, String) {
    let names = vec!["image.pull"; many].join(",");
    let inputs: serde_json::Map<_, _> =
        params(many, inputs).map(|(at, params)| (at.to_string(), params.clone())).collect();
    (format!("/api/trpc/{names}?batch=1"), Value::from(inputs).to_string())
}

#[tokio::test]
async fn so_does_a_batch_of_trpc() {
    with_waiting_batches(async |client, many, inputs| {
        let (path, body) = trpc_batch(many, &inputs);
        post(client, &path, None, body).await;
    })
    .await;
}

#[tokio::test]
async fn so_does_a_batch_that_is_answered_line_by_line() {
    with_waiting_batches(async |client, many, inputs| {
        let (path, body) = trpc_batch(many, &inputs);
        post(client, &path, Some(LINES), body).await;
    })
    .await;
}

#[tokio::test]
async fn so_does_a_batch_on_a_websocket() {
    with_waiting_batches(async |client, many, inputs| {
        let mut socket = client.websocket().await.unwrap();
        socket.send(&rpc_batch(many, &inputs)).await.unwrap();
        let answers = loop {
            match socket.receive().await {
                Ok(answers) => break answers,
                Err(error) => assert_eq!(error, "no message in time"),
            }
        };
        assert_eq!(answers.as_array().unwrap().len(), many);
    })
    .await;
}

#[tokio::test]
async fn a_socket_is_not_read_while_its_large_message_waits() {
    let World { purser: _purser, one: (_, one), other: (_, other) } = World::start().await;
    let pull = endless(&one).await;
    let inputs = json!([pull, pull]);
    let mut socket = one.websocket().await.unwrap();
    for _ in 0..OF_A_KEY {
        socket.send(&rpc_batch(BATCH_WIDTH + 1, &inputs)).await.unwrap();
    }
    let begun = jobs(&one, OF_A_KEY * BATCH_WIDTH).await;
    let large = |id| call(id, "stack.images", &quick());
    socket.send(&large(101).to_string()).await.unwrap();
    socket.send(&call(102, "registry.all", &json!({})).to_string()).await.unwrap();
    let mut elsewhere = other.websocket().await.unwrap();
    let called = async {
        for _ in 0..10 {
            let answer = elsewhere.call("stack.images", quick()).await.unwrap();
            assert_eq!(answer["result"]["skipped"], json!([]));
        }
    };
    if let Either::Right((said, _)) = select(Box::pin(called), Box::pin(socket.receive())).await {
        panic!("before another organization was served, the one that waits was told {said:?}");
    }
    // What comes after it is heard when it has been refused; which of the two is answered first is left open.
    let mut answers = [socket.receive().await.unwrap(), socket.receive().await.unwrap()];
    answers.sort_by_key(|answer| answer["id"].as_u64());
    let [refused, next] = answers;
    assert_eq!(
        (&refused["id"], &refused["error"]["data"]["code"]),
        (&json!(101), &json!("TOO_MANY_REQUESTS"))
    );
    assert!(refused["error"]["data"]["retryAfter"].is_u64(), "{refused}");
    assert_eq!((&next["id"], &next["result"]), (&json!(102), &json!([])));
    let batch = json!([large(103), large(104), {"jsonrpc": "2.0", "method": "registry.all"}, 5]);
    socket.send(&batch.to_string()).await.unwrap();
    let refused = socket.receive().await.unwrap();
    let codes: Vec<_> = refused
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| (answer["id"].as_u64(), answer["error"]["data"]["code"].as_str().unwrap()))
        .collect();
    let too_many = "TOO_MANY_REQUESTS";
    assert_eq!(codes, [(Some(103), too_many), (Some(104), too_many), (None, "BAD_REQUEST")]);
    cancel(&one, &begun).await;
    jobs(&one, OF_A_KEY * (BATCH_WIDTH + 1)).await;
    assert_eq!(socket.call("stack.images", quick()).await.unwrap()["result"]["skipped"], json!([]));
}

#[tokio::test]
async fn an_id_that_is_kept_is_short() {
    let purser = Purser::start().await;
    let client = purser.client();
    for (length, code) in [(1_000, Value::Null), (1_100, json!(-32_600))] {
        let body = json!({"jsonrpc": "2.0", "id": "x".repeat(length), "method": "registry.all"});
        let answer: Answer = client.post("/rpc", &body).await;
        assert_eq!(answer.json()["error"]["code"], code, "{length}");
    }
}
