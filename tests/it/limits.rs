//! What one caller may take from the others: time, memory, connections. What it costs them in time is measured by
//! `tests/measure limits`; here is what does not depend on how fast the machine is.

use std::time::Duration;

use futures_util::future::{Either, join_all, select, select_all};
use http::Method;
use purser_tests::{
    Client, Purser, eventually,
    process::{open_files, open_sockets, peak_resident_kib, resident_kib},
    tenant::Grant,
    wait::random_hex,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

/// Longer than the longest patience that the server has with anybody.
const CUT: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(30);
const JSON: &str = "content-type: application/json\r\n";
const TOO_MANY: usize = 10_000;
/// A body of that length is never sent to its end.
const HUGE: usize = 100 << 20;

fn request(purser: &Purser, line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: purser\r\nx-api-key: {}\r\n{headers}\r\n", purser.admin_key())
}

fn upgrade(purser: &Purser) -> String {
    let headers = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    request(purser, "GET /rpc", headers)
}

async fn connect(purser: &Purser) -> TcpStream {
    TcpStream::connect(purser.address()).await.unwrap()
}

/// What the server says before it ends the connection; what it says may be lost with it.
async fn last_words(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let _ = timeout(CUT, stream.read_to_end(&mut said)).await.expect("the server ends it");
    String::from_utf8_lossy(&said).into_owned()
}

/// A quiet socket, after its upgrade.
async fn quiet(purser: &Purser) -> TcpStream {
    let mut stream = connect(purser).await;
    stream.write_all(upgrade(purser).as_bytes()).await.unwrap();
    let mut head = [0; 1024];
    let read = timeout(SOON, stream.read(&mut head)).await.unwrap().unwrap();
    assert!(head[..read].starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head[..read]));
    stream
}

#[tokio::test]
async fn a_caller_that_sends_a_byte_at_a_time_is_cut() {
    let purser = Purser::start().await;
    let slowly = async |at_once: String, then: &str| {
        let (mut read, mut write) = connect(&purser).await.into_split();
        write.write_all(at_once.as_bytes()).await.unwrap();
        let sending = async {
            for byte in then.bytes().cycle() {
                sleep(Duration::from_millis(500)).await;
                if write.write_all(&[byte]).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let mut said = Vec::new();
        let _ = tokio::select! {
            ended = timeout(CUT, read.read_to_end(&mut said)) => ended.expect("the server ends it"),
            () = sending => unreachable!(),
        };
        String::from_utf8_lossy(&said).into_owned()
    };
    let bodies = ["/api/trpc/registry.create", "/api/registry.create", "/rpc"].map(|path| {
        let head = request(&purser, &format!("POST {path}"), &format!("{JSON}content-length: 100000\r\n"));
        slowly(head, " ")
    });
    let head = request(&purser, "GET /api/registry.all", "");
    // A name that has no end, and many fields.
    let heads = ["x", "a: b\r\n"].map(|then| slowly(head.trim_end_matches("\r\n").to_owned() + "\r\n", then));
    let (bodies, heads) = tokio::join!(join_all(bodies), join_all(heads));
    for said in bodies {
        assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    }
    for said in heads {
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
}

#[tokio::test]
async fn a_caller_that_reads_nothing_is_cut_on_every_door_and_nothing_of_it_stays() {
    let purser = Purser::start().await;
    // The caller's own key is not served when too much is unread.
    let client = purser.key_in(&purser.default_organization(), Grant::Role("viewer"));
    let before = open_sockets(purser.pid()).unwrap();
    let batch = rpc_batch(100, "rpc.discover");
    let posted = |path: &str, more: &str, body: &str| {
        let headers = format!("{JSON}{more}content-length: {}\r\n", body.len());
        request(&purser, &format!("POST {path}"), &headers) + body
    };
    let names = vec!["registry.presets"; 100].join(",");
    let floods = [
        ("", request(&purser, "GET /api/openapi.json", "").into_bytes()),
        ("", posted("/rpc", "", &batch).into_bytes()),
        (
            "",
            posted(&format!("/api/trpc/{names}?batch=1"), "accept: application/jsonl\r\n", "{}").into_bytes(),
        ),
        ("socket", text_frame(&batch)),
    ];
    let floods = floods.into_iter().flat_map(|flood| vec![flood; 4]);
    let flooding = join_all(floods.map(async |(kind, request)| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(purser.address().parse().unwrap()).await.unwrap();
        if kind == "socket" {
            stream.write_all(upgrade(&purser).as_bytes()).await.unwrap();
        }
        timeout(CUT, async { while stream.write_all(&request).await.is_ok() {} })
            .await
            .unwrap_or_else(|_| panic!("not cut: {}", String::from_utf8_lossy(&request[..60])));
    }));
    tokio::pin!(flooding);
    // Others are answered meanwhile.
    loop {
        tokio::select! {
            _ = &mut flooding => break,
            answer = client.get("/api/registry.all") => assert_eq!(answer.status, 200),
        }
        sleep(Duration::from_millis(20)).await;
    }
    eventually(SOON, async || (open_sockets(purser.pid()).unwrap() <= before + 8).then_some(())).await;
    let peak = peak_resident_kib(purser.pid()).unwrap();
    assert!(peak < 250 * 1024, "{peak} KiB");
}

#[tokio::test]
async fn whoever_reads_nothing_of_a_batchs_lines_holds_nothing_that_others_need() {
    // More than there are connections to the database.
    const CALLERS: usize = 24;
    let purser = Purser::start().await;
    let client = purser.client();
    for _ in 0..60 {
        client.mutate("server.create", json!({"name": random_hex(8)})).await;
    }
    let inputs: Vec<_> = (0..100).map(|at| format!(r#""{at}":{{"limit":100}}"#)).collect();
    let body = format!("{{{}}}", inputs.join(","));
    let line = format!("POST /api/trpc/{}?batch=1", vec!["audit.all"; 100].join(","));
    let more = format!("{JSON}trpc-accept: application/jsonl\r\ncontent-length: {}\r\n", body.len());
    // More than the system takes for a caller that reads nothing.
    let request = (request(&purser, &line, &more) + &body).repeat(10);
    let mut unread = Vec::new();
    for _ in 0..CALLERS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(purser.address().parse().unwrap()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        unread.push(stream);
    }
    // The first of their calls have been answered.
    for stream in &unread {
        timeout(SOON, stream.readable()).await.unwrap().unwrap();
    }
    let cut = unread.into_iter().map(|mut stream| {
        Box::pin(async move {
            while stream.write_all(b"\r\n").await.is_ok() {
                sleep(Duration::from_millis(200)).await;
            }
        })
    });
    let others = async {
        for _ in 0..30 {
            assert_eq!(client.trpc_query("audit.all", &json!({"limit": 100})).await.status, 200);
        }
    };
    if let Either::Right(_) = select(Box::pin(others), select_all(cut)).await {
        panic!("others were not served before a caller that reads nothing was cut off");
    }
}

#[tokio::test]
async fn whoever_reads_nothing_is_not_served_before_some_of_it_has_been_read_and_others_are() {
    let discover = json!({"jsonrpc": "2.0", "method": "rpc.discover", "id": "x".repeat(200)}).to_string();
    let batch = rpc_batch(100, "rpc.discover");
    for is_socket in [false, true] {
        let purser = Purser::start().await;
        let client = purser.client();
        let other = purser.key_in(&purser.organization("other"), Grant::Role("viewer"));
        let colleague = purser.key_in(&purser.default_organization(), Grant::Role("viewer"));
        let head = request(&purser, "POST /rpc", &format!("{JSON}content-length: {}\r\n", batch.len()));
        let flood = if is_socket { text_frame(&discover) } else { (head + &batch).into() };
        let flooding = (0..40).map(async |_| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            let mut stream = socket.connect(purser.address().parse().unwrap()).await.unwrap();
            if is_socket {
                stream.write_all(upgrade(&purser).as_bytes()).await.unwrap();
            }
            while stream.write_all(&flood).await.is_ok() {}
            std::future::pending::<()>().await;
        });
        // As the system takes some of it now and then, not each call meets the bound.
        let looking = async {
            let refused = eventually(SOON, async || {
                Some(client.get("/api/registry.all").await).filter(|answer| answer.status == 429)
            });
            let refused = refused.await;
            assert_eq!(refused.json()["code"], "TOO_MANY_REQUESTS");
            assert!(refused.headers.contains_key("retry-after"), "{:?}", refused.headers);
            for path in ["/api/trpc/registry.all", "/api/trpc/registry.all,registry.all?batch=1", "/rpc"] {
                eventually(SOON, async || {
                    let answer = match path {
                        "/rpc" => client.rpc("registry.all", &json!({})).await,
                        path => client.get(path).await,
                    };
                    answer.text().contains("TOO_MANY_REQUESTS").then_some(())
                })
                .await;
            }
            for who in [&other, &colleague] {
                assert_eq!(who.get("/api/registry.all").await.status, 200);
            }
        };
        let ended = select(Box::pin(looking), Box::pin(join_all(flooding))).await;
        assert!(matches!(ended, Either::Left(_)));
        drop(ended);
        eventually(SOON, async || (client.get("/api/registry.all").await.status == 200).then_some(())).await;
    }
}

/// One call that waits keeps all answers of its batch in memory.
#[tokio::test]
async fn what_a_batch_has_gathered_counts_as_not_read() {
    let purser = Purser::start().await;
    let client = purser.client();
    let server = client.mutate("server.create", json!({"name": "never joins"})).await;
    let pull = json!({"image": "127.0.0.1:1/app:v1", "serverId": server["serverId"], "wait": true});
    let mut calls = vec![json!({"jsonrpc": "2.0", "method": "image.pull", "params": pull, "id": "waits"})];
    calls.resize(50, json!({"jsonrpc": "2.0", "method": "rpc.discover", "id": "large"}));
    let batch = Value::from(calls);
    let batches = join_all((0..20).map(|_| client.post("/rpc", &batch)));
    let refused =
        eventually(SOON, async || (client.get("/api/registry.all").await.status == 429).then_some(()));
    let ended = select(Box::pin(refused), Box::pin(batches)).await;
    assert!(matches!(ended, Either::Left(_)));
    drop(ended);
    eventually(SOON, async || (client.get("/api/registry.all").await.status == 200).then_some(())).await;
}

fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0xfe];
    frame.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

fn rpc_batch(calls: usize, method: &str) -> String {
    let calls: Vec<_> = (0..calls).map(|id| json!({"jsonrpc": "2.0", "method": method, "id": id})).collect();
    Value::from(calls).to_string()
}

#[tokio::test]
async fn files_are_closed_when_a_crowd_has_gone() {
    let purser = Purser::start().await;
    let client = purser.client();
    client.get("/api/registry.all").await;
    let before = open_files(purser.pid()).unwrap();
    for _ in 0..2 {
        let halves = [
            request(&purser, "GET /api/registry.all", "x-half: x"),
            request(&purser, "POST /api/registry.create", &format!("{JSON}content-length: 9\r\n")),
            request(&purser, "GET /api/trpc/registry.events", ""),
            request(&purser, "GET /healthz", ""),
        ];
        let mut crowd = Vec::new();
        for half in halves.iter().cycle().take(200) {
            let mut stream = connect(&purser).await;
            stream.write_all(half.as_bytes()).await.unwrap();
            crowd.push(stream);
        }
        for _ in 0..200 {
            crowd.push(quiet(&purser).await);
        }
        assert!(open_files(purser.pid()).unwrap() >= before + 350, "they are there");
        drop(crowd);
        // A database connection may have come.
        eventually(SOON, async || (open_files(purser.pid()).unwrap() <= before + 20).then_some(())).await;
    }
    assert_eq!(client.get("/api/registry.all").await.status, 200);
}

#[tokio::test]
async fn a_quiet_socket_takes_little_memory() {
    const SOCKETS: usize = 500;
    let purser = Purser::start().await;
    let warm = join_all((0..100).map(|_| quiet(&purser))).await;
    let before = resident_kib(purser.pid()).unwrap();
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        sockets.push(quiet(&purser).await);
    }
    let each = resident_kib(purser.pid()).unwrap().saturating_sub(before) as f64 / SOCKETS as f64;
    // Half of what each of 2,000 may have.
    assert!(each < 20.0, "{each} KiB each");
    drop((warm, sockets));
}

#[tokio::test]
async fn callers_leave_files_for_everything_else() {
    let purser = Purser::builder().open_files(128, 128).start().await;
    let client = purser.client();
    client.get("/api/registry.all").await;
    let mut quiet_ones = Vec::new();
    for _ in 0..50 {
        quiet_ones.push(quiet(&purser).await);
    }
    // More than there are files; those that are not let in wait, as many as the system lets wait.
    let idle = join_all((0..120).map(|_| connect(&purser))).await;
    let all_in = async || (open_files(purser.pid()).unwrap() >= 64).then_some(());
    eventually(SOON, all_in).await;
    // The connection from before is in, and a test needs a socket, and the audit a file.
    let test = json!({"registryUrl": "127.0.0.1:1"});
    for _ in 0..20 {
        let answer = client.trpc_mutation("registry.testRegistry", &test).await;
        assert_eq!(answer.diagnosis(), "connect", "{answer:?}");
    }
    assert!(open_files(purser.pid()).unwrap() < 110);
    assert!(!purser.logs().contains("Too many open files"), "{}", purser.logs());
    drop((idle, quiet_ones));
    let in_again = async || purser.client().send(Method::GET, "/healthz", &[], "").await.ok();
    assert_eq!(eventually(SOON, in_again).await.status, 200);
}

#[tokio::test]
async fn a_batch_of_10_000_is_too_large_on_every_door() {
    let purser = Purser::start().await;
    let client = purser.client();
    let headers = [("content-type", "application/json")];
    let batch = rpc_batch(TOO_MANY, "registry.all");
    let answer = client.send(Method::POST, "/rpc", &headers, batch.clone()).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "PAYLOAD_TOO_LARGE"));
    let names = vec!["a"; TOO_MANY].join(",");
    for (method, body) in [(Method::GET, ""), (Method::POST, "{}")] {
        let path = format!("/api/trpc/{names}?batch=1");
        let answer = client.send(method, &path, &headers, body).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "PAYLOAD_TOO_LARGE"));
    }
    let mut socket = client.websocket().await.unwrap();
    socket.send(&batch).await.unwrap();
    assert_eq!(socket.receive().await.unwrap()["error"]["code"], -32013);
    assert_eq!(socket.call("registry.all", json!({})).await.unwrap()["result"], json!([]));
}

#[tokio::test]
async fn a_body_over_the_limit_is_too_large_on_every_door_announced_or_not() {
    let purser = Purser::start().await;
    for path in ["/api/trpc/registry.create", "/api/registry.create", "/rpc"] {
        let line = format!("POST {path}");
        // Announced, it is answered before any of it is sent.
        let mut stream = connect(&purser).await;
        let head = request(&purser, &line, &format!("{JSON}content-length: {HUGE}\r\n"));
        stream.write_all(head.as_bytes()).await.unwrap();
        let said = last_words(&mut stream).await;
        assert!(said.starts_with("HTTP/1.1 413 ") && said.contains("PAYLOAD_TOO_LARGE"), "{path}: {said}");

        let mut stream = connect(&purser).await;
        let head = request(&purser, &line, &format!("{JSON}transfer-encoding: chunked\r\n"));
        stream.write_all(head.as_bytes()).await.unwrap();
        let chunk = format!("{:x}\r\n{}\r\n", 1 << 16, " ".repeat(1 << 16));
        let mut taken = 0;
        while taken < HUGE && stream.write_all(chunk.as_bytes()).await.is_ok() {
            taken += 1 << 16;
        }
        assert!(taken < HUGE / 2, "{path}: all of it was taken");
        let said = last_words(&mut stream).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 413 "), "{path}: {said}");
    }
}

/// Below all doors: there is no request yet that one could answer, so there is a status and nothing else.
#[tokio::test]
async fn a_head_that_is_too_long_or_none_is_refused() {
    let purser = Purser::start().await;
    let long = |length: usize| format!("connection: close\r\nx-long: {}\r\n", "x".repeat(length));
    let by_url = |length: usize| format!("GET /api/registry.one?registryId={}", "x".repeat(length));
    let close = "connection: close\r\n";
    for (head, status) in [
        (request(&purser, "GET /api/registry.all", &long(60 << 10)), 200),
        (request(&purser, "GET /api/registry.all", &long(300 << 10)), 431),
        (request(&purser, &by_url(60 << 10), close), 400),
        (request(&purser, &by_url(70 << 10), close), 414),
        (request(&purser, "GET /api/registry all", close), 400),
    ] {
        let mut stream = connect(&purser).await;
        let _ = stream.write_all(head.as_bytes()).await;
        let said = last_words(&mut stream).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {said}");
        let is_answered = said.contains("x-request-id: ") && said.contains("x-content-type-options: nosniff");
        let is_read = status == 200 || said.contains("BAD_REQUEST");
        assert_eq!(is_answered, is_read, "{status}: {said}");
    }
}

/// Larger than what is read before it is asked who sends it, and smaller than the limit.
const LARGE: usize = 1_000_000;

#[tokio::test]
async fn large_bodies_are_read_for_who_has_a_key_and_a_few_at_a_time() {
    const CALLERS: usize = 80;
    let purser = Purser::start().await;
    let client = purser.client();
    let anonymous = client.without_key().post("/rpc", &json!({"x": "x".repeat(LARGE)})).await;
    assert_eq!(anonymous.code(), "UNAUTHORIZED");
    let before = resident_kib(purser.pid()).unwrap();
    let head = request(&purser, "POST /rpc", &format!("{JSON}content-length: {}\r\n", LARGE + 1));
    let body = vec![b' '; LARGE];
    let sending = (0..CALLERS).map(|_| {
        Box::pin(async {
            let mut stream = connect(&purser).await;
            stream.write_all(head.as_bytes()).await.unwrap();
            let _ = stream.write_all(&body).await;
            // All but the last byte: it is not answered before its time is over.
            let mut status = [0; 12];
            let _ = stream.read(&mut status).await;
            // Those that had a place, and those that waited for one.
            assert!(&status == b"HTTP/1.1 408" || &status == b"HTTP/1.1 429", "{status:?}");
        })
    });
    // They are at their most when the first of them is told that it took too long.
    let mut sending = timeout(CUT, select_all(sending)).await.unwrap().2;
    let grown = peak_resident_kib(purser.pid()).unwrap().saturating_sub(before);
    assert!(grown < 48 * 1024, "{CALLERS} callers made it hold {grown} KiB");
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "registry.all", "x": "x".repeat(LARGE)});
    let whole = client.post("/rpc", &call);
    let (answer, _) = tokio::join!(whole, async {
        timeout(CUT, join_all(sending.drain(..))).await.unwrap();
    });
    assert_eq!(answer.json()["result"], json!([]));
}

#[tokio::test]
async fn the_answers_of_a_batch_are_bounded_together() {
    let purser = Purser::start().await;
    let client = purser.client();
    let text = Client::rpc(&client, "rpc.discover", &Value::Null).await.body.len();
    assert!(text * 100 > 8 << 20, "100 documents of {text} bytes show nothing");
    let headers = [("content-type", "application/json")];
    let answer = client.send(Method::POST, "/rpc", &headers, rpc_batch(100, "rpc.discover")).await.unwrap();
    assert!(answer.body.len() < (2 << 20) + 10 * text, "{} bytes", answer.body.len());
    let answers = answer.json();
    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), 100);
    let made = answers.iter().filter(|answer| answer["result"].is_object()).count();
    let refused: Vec<_> = answers.iter().filter(|answer| answer["error"].is_object()).collect();
    assert!(made >= 1 && made + refused.len() == 100);
    for answer in &refused {
        assert_eq!(answer["error"]["data"]["code"], "PAYLOAD_TOO_LARGE", "{answer}");
        assert!(answer["id"].is_u64());
    }
}
