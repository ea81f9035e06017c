//! Subscriptions as server-sent events, as tRPC's `httpSubscriptionLink` reads them; by `job.watch`.

use std::{fs, time::Duration};

use futures_util::{StreamExt as _, stream};
use http::{Method, StatusCode};
use purser_tests::{Client, Purser, Streamed, eventually, percent, process, tenant::Grant};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::answers::{is_error, refused};

const WATCH: &str = "/api/trpc/job.watch";

fn path(input: &Value) -> String {
    format!("{WATCH}?input={}", percent::encode(&input.to_string()))
}

fn superjson(inner: &Value) -> Value {
    json!({"json": inner})
}

/// A job for a host that never joins, as the input that names it.
async fn waiting_job(client: &Client) -> Value {
    let server = client.mutate("server.create", json!({"name": purser_tests::unique("host")})).await;
    let asked = json!({"image": "127.0.0.1:1/app:v1", "serverId": server["serverId"]});
    json!({"jobId": client.mutate("image.pull", asked).await["jobId"]})
}

/// A stream that says why it failed, in tRPC's terms, and ends. Gives the error.
async fn fails(stream: &mut Streamed, code: &str) -> Value {
    let mut error = failure(stream).await.json();
    is_error(&error, code, Some("job.watch"));
    error.take()
}

async fn failure(stream: &mut Streamed) -> purser_tests::ServerSent {
    assert_eq!(stream.status, StatusCode::OK);
    let told = stream.event().await.expect("an event");
    assert_eq!((told.event.as_str(), &told.id), ("serialized-error", &None), "{told:?}");
    assert_eq!(stream.event().await, None);
    told
}

#[tokio::test]
async fn a_job_is_told_from_connected_to_return() {
    let purser = Purser::start().await;
    let client = purser.client();
    let job = waiting_job(&client).await;
    for method in [Method::GET, Method::POST] {
        let (url, body) = match method {
            Method::GET => (path(&job), String::new()),
            _ => (WATCH.to_owned(), job.to_string()),
        };
        let mut stream = client.stream(method, &url, &[("content-type", "application/json")], body).await;
        assert_eq!(stream.status, StatusCode::OK);
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-cache, no-transform"),
            ("x-accel-buffering", "no"),
        ] {
            assert_eq!(stream.headers[name], value);
        }
        let connected = stream.event().await.unwrap();
        assert_eq!(connected.event, "connected");
        assert!(connected.json()["reconnectAfterInactivityMs"].as_u64().is_some_and(|ms| ms > 0));
        let now = stream.message().await;
        assert_eq!(now.json(), client.query("job.one", job.clone()).await);
        assert!(now.id.as_ref().is_some_and(|id| !id.is_empty()), "{now:?}");
    }
    let mut stream = client.subscribe(&path(&superjson(&job)), &[]).await;
    let first = stream.message().await;
    assert_eq!(first.json()["json"]["status"], "queued", "{first:?}");
    let ended = client.mutate("job.cancel", job.clone()).await;
    let last = stream.message().await;
    assert_eq!(last.json(), superjson(&ended));
    assert!(last.id > first.id, "{first:?} {last:?}");
    let end = stream.told().await.unwrap();
    assert_eq!((end.event.as_str(), end.data.as_str()), ("return", ""));
    assert_eq!(stream.told().await, None);
    // Whoever comes back is told the job as it is, whatever was told before.
    let id = last.id.unwrap();
    let mut again = client.subscribe(&path(&job), &[("last-event-id", &id)]).await;
    assert_eq!(again.message().await.json(), ended);
}

#[tokio::test]
async fn an_error_comes_after_connected_with_status_200() {
    let purser = Purser::start().await;
    let (nobody, client) = (purser.anonymous(), purser.client());
    let job = waiting_job(&client).await;
    let wrong = purser.anonymous().with_key("purser_0000000000000000_wrong");
    let organization = purser.default_organization();
    let weak = purser.key_in(&organization, Grant::Permissions(&["registry:read"]));
    let foreign = purser.key_in(&purser.organization("other"), Grant::Role("admin"));
    let expired = purser.key_in(&organization, Grant::Expired);
    let missing = json!({"jobId": "job_unknown"});
    for (client, input, code) in [
        (&nobody, &job, "UNAUTHORIZED"),
        (&wrong, &job, "UNAUTHORIZED"),
        (&expired, &job, "UNAUTHORIZED"),
        (&weak, &job, "FORBIDDEN"),
        (&foreign, &job, "NOT_FOUND"),
        (&client, &missing, "NOT_FOUND"),
        (&client, &json!({}), "BAD_REQUEST"),
        (&client, &json!({"jobId": "x", "other": "hunter2"}), "BAD_REQUEST"),
        (&client, &json!([1]), "BAD_REQUEST"),
    ] {
        let error = fails(&mut client.subscribe(&path(input), &[]).await, code).await;
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert_eq!(error["data"]["zodError"].is_object(), code == "BAD_REQUEST", "{error}");
        // In the caller's dialect.
        let mut stream = client.subscribe(&path(&superjson(input)), &[]).await;
        let wrapped = failure(&mut stream).await.json();
        assert_eq!(crate::answers::members(&wrapped), ["json"], "{wrapped}");
        is_error(&wrapped["json"], code, Some("job.watch"));
    }
    // Malformed JSON is seen only with a key that may subscribe.
    let broken = format!("{WATCH}?input=%7B");
    fails(&mut nobody.subscribe(&broken, &[]).await, "UNAUTHORIZED").await;
    fails(&mut weak.subscribe(&broken, &[]).await, "FORBIDDEN").await;
    fails(&mut client.subscribe(&broken, &[]).await, "BAD_REQUEST").await;
    // What is no subscription is answered like any call.
    refused(&nobody.get("/api/trpc/job.watchh").await, "NOT_FOUND", Some("job.watchh"));
    let put = client.send(Method::PUT, WATCH, &[("content-type", "application/json")], "{}").await.unwrap();
    refused(&put, "METHOD_NOT_SUPPORTED", Some("job.watch"));
    refused(&client.send(Method::POST, WATCH, &[], "{}").await.unwrap(), "UNSUPPORTED_MEDIA_TYPE", None);
}

#[tokio::test]
async fn a_browser_sends_its_key_as_connection_params() {
    let purser = Purser::start().await;
    let (nobody, client) = (purser.anonymous(), purser.client());
    let job = waiting_job(&client).await;
    let key = purser.admin_key();
    let with = |params: &str| format!("{}&connectionParams={}", path(&job), percent::encode(params));
    let bearer = format!("Bearer {key}");
    for params in [
        json!({"x-api-key": key}),
        json!({"X-API-Key": key, "theme": "dark"}),
        json!({"authorization": bearer}),
    ] {
        let mut stream = nobody.subscribe(&with(&params.to_string()), &[]).await;
        assert_eq!(stream.message().await.json()["jobId"], job["jobId"]);
    }
    for params in
        ["null", "{}", r#"{"x-api-key":"wrong"}"#, r#"{"x-api-key":""}"#, r#"{"x-api-key":"\u0000"}"#]
    {
        fails(&mut nobody.subscribe(&with(params), &[]).await, "UNAUTHORIZED").await;
    }
    for params in ["{", "[]", "\"x\"", "1", r#"{"x-api-key":1}"#, r#"{"x-api-key":{"a":"hunter2"}}"#] {
        let error = fails(&mut nobody.subscribe(&with(params), &[]).await, "BAD_REQUEST").await;
        assert!(error["data"]["zodError"]["fieldErrors"]["connectionParams"].is_array(), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    // A header is not overruled.
    let good = with(&json!({"x-api-key": key}).to_string());
    fails(&mut nobody.subscribe(&good, &[("x-api-key", "wrong")]).await, "UNAUTHORIZED").await;
    // The key is taken from there for subscriptions only, and is in no log.
    let query = format!(
        "/api/trpc/registry.all?connectionParams={}",
        percent::encode(&json!({"x-api-key": key}).to_string())
    );
    refused(&nobody.get(&query).await, "UNAUTHORIZED", Some("registry.all"));
    assert!(!purser.logs().contains(&key));
}

#[tokio::test]
async fn a_quiet_stream_is_pinged_before_its_client_takes_it_for_lost() {
    let purser = Purser::start().await;
    let client = purser.client();
    let job = waiting_job(&client).await;
    let mut stream = client.stream(Method::GET, &path(&job), &[], "").await;
    let connected = stream.event().await.unwrap().json();
    stream.message().await;
    let patience = Duration::from_millis(connected["reconnectAfterInactivityMs"].as_u64().unwrap());
    for _ in 0..2 {
        let ping = tokio::time::timeout(patience, stream.event()).await.expect("a ping").unwrap();
        assert_eq!((ping.event.as_str(), ping.data.as_str(), ping.id), ("ping", "", None));
    }
    client.mutate("job.cancel", job).await;
    assert_eq!(stream.message().await.json()["status"], "cancelled");
}

/// Without `return`, after which a client would not come back.
#[tokio::test]
async fn a_stop_of_the_server_just_ends_the_stream() {
    let purser = Purser::start().await;
    let client = purser.client();
    let job = waiting_job(&client).await;
    let mut streams = Vec::new();
    for url in [path(&job), "/api/trpc/registry.events".to_owned()] {
        streams.push(client.subscribe(&url, &[]).await);
    }
    streams[0].message().await;
    assert!(purser.stop().await.success());
    for stream in &mut streams {
        assert_eq!(stream.told().await, None);
    }
}

#[tokio::test]
async fn a_key_that_has_expired_is_told_nothing_more() {
    let purser = Purser::start().await;
    let client = purser.client();
    let job = waiting_job(&client).await;
    let viewer = purser.key_in(&purser.default_organization(), Grant::Role("viewer"));
    let soon = (chrono::Utc::now() + Duration::from_secs(15)).to_rfc3339().replace('T', " ");
    purser.sql(&format!("UPDATE api_key SET expires_at = '{soon}' WHERE role = 'viewer'"));
    let mut stream = viewer.subscribe(&path(&job), &[]).await;
    stream.message().await;
    let told = stream.told().await.unwrap();
    assert_eq!(told.event, "serialized-error", "{told:?}");
    is_error(&told.json(), "UNAUTHORIZED", Some("job.watch"));
    assert_eq!(stream.told().await, None);
}

fn open_sockets(purser: &Purser) -> usize {
    process::open_sockets(purser.pid()).unwrap()
}

#[tokio::test]
async fn a_stream_whose_client_is_gone_leaves_nothing_behind() {
    let purser = Purser::start().await;
    let client = purser.client();
    let job = waiting_job(&client).await;
    client.subscribe(&path(&job), &[]).await.message().await;
    let before = eventually(Duration::from_secs(20), async || {
        let seen = open_sockets(&purser);
        tokio::time::sleep(Duration::from_millis(300)).await;
        (seen == open_sockets(&purser)).then_some(seen)
    })
    .await;
    let mut streams = Vec::new();
    for at in 0..60 {
        let url = if at % 2 == 0 { path(&job) } else { "/api/trpc/registry.events".to_owned() };
        streams.push(client.subscribe(&url, &[]).await);
    }
    assert!(open_sockets(&purser) >= before + 60);
    drop(streams);
    eventually(Duration::from_secs(20), async || (open_sockets(&purser) <= before + 5).then_some(())).await;
}

/// A watcher over a socket that takes in next to nothing by itself.
async fn raw_watch(purser: &Purser, job: &Value) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(purser.address().parse().unwrap()).await.unwrap();
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: purser\r\nx-api-key: {}\r\nconnection: close\r\n\r\n",
        path(job),
        purser.admin_key()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Whether the control plane holds its end of a connection.
fn holds(purser: &Purser, stream: &TcpStream) -> bool {
    const ESTABLISHED: &str = "01";
    let port =
        |address: &str| format!(":{:04X}", address.rsplit_once(':').unwrap().1.parse::<u16>().unwrap());
    let (own, other) = (port(purser.address()), port(&stream.local_addr().unwrap().to_string()));
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[1].ends_with(&own) && fields[2].ends_with(&other) && fields[3] == ESTABLISHED
    })
}

/// A job with many targets makes large snapshots, so that sockets hold few; each removal of a server is a
/// change of it.
#[tokio::test]
async fn a_slow_reader_is_told_the_newest_and_one_that_reads_nothing_is_cut_off() {
    const IDLE: usize = 600;
    let purser = Purser::start().await;
    let client = purser.client();
    let rows = (0..IDLE).map(|n| json!({"name": format!("idle {n}"), "labels": {"of": "fleet"}}));
    let rows = stream::iter(rows).map(|row| client.mutate("server.create", row)).buffer_unordered(8);
    let servers: Vec<Value> = rows.map(|mut row| row["serverId"].take()).collect().await;
    let pull = json!({"image": "127.0.0.1:1/app:v1", "labels": {"of": "fleet"}});
    let job = json!({"jobId": client.mutate("image.pull", pull).await["jobId"]});
    let mut quick = client.subscribe(&path(&job), &[]).await;
    quick.message().await;
    let (mut slow, stalled) = (raw_watch(&purser, &job).await, raw_watch(&purser, &job).await);
    assert!(holds(&purser, &stalled));
    let mut changes = 0;
    for server in servers.iter().take(25) {
        client.mutate("server.remove", json!({"serverId": server})).await;
        loop {
            let told = quick.message().await.json();
            let gone = |target: &Value| target["serverId"] == *server && target["status"] == "cancelled";
            if told["targets"].as_array().unwrap().iter().any(gone) {
                break;
            }
        }
        changes += 1;
    }
    client.mutate("job.cancel", job.clone()).await;
    let mut last = quick.message().await.json();
    while last["status"] != "cancelled" {
        last = quick.message().await.json();
    }
    let mut all = Vec::new();
    slow.read_to_end(&mut all).await.unwrap();
    let all = String::from_utf8_lossy(&all);
    let told = all.matches("\"jobId\"").count();
    assert!(told < changes, "{told} of {changes}");
    assert!(all.contains("event: return"), "it was told that this is all");
    assert!(all.contains(&last["finishedAt"].to_string()), "the last one is final");
    drop(slow);
    // The other one would hold its connection for good.
    eventually(Duration::from_secs(60), async || (!holds(&purser, &stalled)).then_some(())).await;
}

#[tokio::test]
async fn a_key_holds_100_subscriptions_over_all_doors_and_what_ends_gives_its_place_back() {
    const SOON: Duration = Duration::from_secs(20);
    let purser = Purser::start().await;
    let organization = purser.default_organization();
    let key = || purser.key_in(&organization, Grant::Role("viewer"));
    let (holder, other) = (key(), key());
    let job = waiting_job(&purser.client()).await;
    let is_let_in = async |client: &Client| {
        let mut stream = client.subscribe(&path(&job), &[]).await;
        let told = stream.told().await.unwrap();
        if told.event == "message" {
            return Some(stream);
        }
        let error = told.json();
        is_error(&error, "TOO_MANY_REQUESTS", Some("job.watch"));
        assert!(error["message"].as_str().unwrap().contains("100 subscriptions"), "{error}");
        assert_eq!(stream.told().await, None);
        None
    };
    let mut socket = holder.websocket().await.unwrap();
    let mut numbers = Vec::new();
    for _ in 0..60 {
        let begun = socket.call("registry.events", Value::Null).await.unwrap();
        numbers.push(begun["result"].as_u64().unwrap_or_else(|| panic!("{begun}")));
    }
    let mut streams = Vec::new();
    for _ in 0..40 {
        streams.push(is_let_in(&holder).await.expect("a place"));
    }
    assert!(is_let_in(&holder).await.is_none());
    let refused = socket.call("registry.events", Value::Null).await.unwrap();
    assert_eq!(refused["error"]["data"]["code"], "TOO_MANY_REQUESTS", "{refused}");
    // Calls are no subscriptions, and another key has places of its own.
    holder.query("registry.all", Value::Null).await;
    drop(is_let_in(&other).await.expect("another key's place"));

    socket.call("registry.unevents", json!([numbers[0]])).await.unwrap();
    streams.push(eventually(SOON, async || is_let_in(&holder).await).await);
    assert!(is_let_in(&holder).await.is_none());
    drop(streams.pop());
    streams.push(eventually(SOON, async || is_let_in(&holder).await).await);
    assert!(is_let_in(&holder).await.is_none());
    drop(socket);
    for _ in 0..59 {
        streams.push(eventually(SOON, async || is_let_in(&holder).await).await);
    }
    assert!(is_let_in(&holder).await.is_none());
    // The job's end ends all of them, each with a last event and a `return`.
    purser.client().mutate("job.cancel", job.clone()).await;
    for stream in &mut streams {
        while let Some(told) = stream.told().await {
            assert!(["message", "return"].contains(&told.event.as_str()), "{told:?}");
        }
    }
    eventually(SOON, async || is_let_in(&holder).await).await;
}
