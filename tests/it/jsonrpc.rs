//! `/rpc`: JSON-RPC 2.0 over POST and over a WebSocket, as its specification has it.

use std::time::Duration;

use http::{Method, StatusCode};
use purser_tests::{Answer, Client, Purser, RpcSocket, eventually};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::answers::{members, registry, send};

const SOON: Duration = Duration::from_secs(30);

/// What must come back for a text.
enum Expected {
    /// Nothing: no body on HTTP, no frame on a WebSocket.
    Silence,
    /// A result under this id, written as it was sent.
    Result(&'static str),
    /// An error of this number under this id.
    Error(i64, &'static str),
    /// An array with one of these each, in any order.
    Batch(Vec<Expected>),
}

use Expected::{Batch, Error, Result, Silence};

fn table() -> Vec<(&'static str, Expected)> {
    let invalid = || Error(-32600, "null");
    vec![
        (r#"{"jsonrpc":"2.0","method":"registry.all","id":1}"#, Result("1")),
        (r#"{"jsonrpc":"2.0","method":"registry.all","params":{},"id":1}"#, Result("1")),
        (r#"{"jsonrpc":"2.0","method":"registry.all","params":{ },"id":1}"#, Result("1")),
        (r#"{"jsonrpc":"\u0032.0","method":"registry.all","id":1}"#, Result("1")),
        (" \n{\"id\":\"a\",\"method\":\"registry.all\",\"jsonrpc\":\"2.0\"} ", Result("\"a\"")),
        (r#"{"jsonrpc":"2.0","method":"registry.all"}"#, Silence),
        (r#"{"jsonrpc":"2.0","method":"no.such"}"#, Silence),
        (r#"{"jsonrpc":"2.0","method":"registry.one","params":{}}"#, Silence),
        (r#"{"jsonrpc":"2.0","method":"no.such","id":5}"#, Error(-32601, "5")),
        (r#"{"jsonrpc":"2.0","method":"rpc.nothing","id":5}"#, Error(-32601, "5")),
        (r#"{"jsonrpc":"2.0","method":"registry.all","par"#, Error(-32700, "null")),
        ("", Error(-32700, "null")),
        (r#"[{"jsonrpc":"2.0","method":"registry.all","id":1},{"jsonrpc""#, Error(-32700, "null")),
        (r#"{"jsonrpc":"2.0","method":1,"params":"bar"}"#, invalid()),
        (r#"{"foo":"boo"}"#, invalid()),
        ("{}", invalid()),
        ("1", invalid()),
        (r#""x""#, invalid()),
        ("null", invalid()),
        ("[]", invalid()),
        ("[1]", Batch(vec![invalid()])),
        ("[1,2,3]", Batch(vec![invalid(), invalid(), invalid()])),
        (r#"[["2.0","registry.all",{},7]]"#, Batch(vec![invalid()])),
        (
            r#"[{"jsonrpc":"2.0","method":"registry.all","id":"1"},
                {"jsonrpc":"2.0","method":"registry.all"},
                {"foo":"boo"},
                {"jsonrpc":"2.0","method":"no.such","id":"5"},
                {"jsonrpc":"2.0","method":"server.all","id":9}]"#,
            Batch(vec![Result("\"1\""), invalid(), Error(-32601, "\"5\""), Result("9")]),
        ),
        (r#"[{"jsonrpc":"2.0","method":"registry.all","id":1}]"#, Batch(vec![Result("1")])),
        (r#"[{"jsonrpc":"2.0","method":"registry.all"},{"jsonrpc":"2.0","method":"no.such"}]"#, Silence),
        (r#"{"jsonrpc":"2.0","method":"registry.all","params":1,"id":1}"#, invalid()),
        (r#"{"jsonrpc":"2.0","method":"registry.all","params":"bar","id":1}"#, invalid()),
        (r#"{"jsonrpc":"1.0","method":"registry.all","id":1}"#, invalid()),
        (r#"{"method":"registry.all","id":1}"#, invalid()),
        (r#"{"jsonrpc":2.0,"method":"registry.all","id":1}"#, invalid()),
        (r#"{"jsonrpc":"2.0","method":"registry.all","id":true}"#, invalid()),
        (r#"{"jsonrpc":"2.0","method":"registry.all","id":{}}"#, invalid()),
        (r#"{"jsonrpc":"2.0","method":"registry.all","id":[1]}"#, invalid()),
        (r#"{"jsonrpc":"2.0","method":"registry.one","params":{},"id":3}"#, Error(-32602, "3")),
        (r#"{"jsonrpc":"2.0","method":"registry.one","params":["x"],"id":3}"#, Error(-32602, "3")),
        (
            r#"{"jsonrpc":"2.0","method":"registry.one","params":{"registryId":"x"},"id":3}"#,
            Error(-32004, "3"),
        ),
    ]
}

/// Ids of every kind that JSON-RPC allows, as text: they come back character for character.
const IDS: &[&str] = &[
    "0",
    "-1",
    "-0",
    "1.5",
    "-2.50",
    "1e3",
    "1E+400",
    "18446744073709551615",
    "18446744073709551616",
    "-99999999999999999999999999",
    r#""""#,
    r#""a b""#,
    r#""\u00e9\n""#,
    r#""é""#,
    "null",
];

fn check(text: &str, answer: Option<&str>, expected: &Expected) {
    match (answer, expected) {
        (None, Silence) => {}
        (Some(answer), Batch(all)) => {
            let mut got: Vec<Value> =
                serde_json::from_str(answer).unwrap_or_else(|_| panic!("{text}: {answer}"));
            assert_eq!(got.len(), all.len(), "{text}: {answer}");
            for expected in all {
                let at = got.iter().position(|one| fits(&one.to_string(), expected));
                got.swap_remove(at.unwrap_or_else(|| panic!("{text}: {answer}")));
            }
        }
        (Some(answer), expected) => assert!(fits(answer, expected), "{text}: {answer}"),
        (None, _) => panic!("{text}: no answer"),
    }
}

fn fits(answer: &str, expected: &Expected) -> bool {
    let (number, id) = match expected {
        Result(id) => (None, id),
        Error(number, id) => (Some(*number), id),
        Silence | Batch(_) => return false,
    };
    let value: Value = serde_json::from_str(answer).unwrap();
    let has_id = answer.contains(&format!(r#""id":{id},"#))
        || answer.ends_with(&format!(r#""id":{id}}}"#))
        || answer.contains(&format!(r#""id":{id}"#)) && id.starts_with('"');
    let shape = match number {
        None => members(&value) == ["id", "jsonrpc", "result"],
        Some(number) => {
            members(&value) == ["error", "id", "jsonrpc"]
                && value["error"]["code"] == number
                && value["error"]["message"].is_string()
        }
    };
    has_id && shape && value["jsonrpc"] == "2.0"
}

async fn over_http(client: &Client, text: &str) -> Option<String> {
    let answer = send(client, Method::POST, "/rpc", &[], text).await;
    if answer.status == StatusCode::NO_CONTENT {
        assert!(answer.body.is_empty(), "{answer:?}");
        return None;
    }
    assert_eq!(answer.status, StatusCode::OK, "{text}: {answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json");
    Some(answer.text())
}

/// The answer to a text, or none when the answer to a call sent after it comes first.
async fn over_socket(socket: &mut RpcSocket, text: &str, is_silent: bool) -> Option<String> {
    const AFTER: &str = "the call after it";
    socket.send(text).await.unwrap();
    if !is_silent {
        return Some(socket.receive_text().await.unwrap());
    }
    // Whatever would come wrongly comes within this.
    let answer = tokio::time::timeout(Duration::from_millis(300), socket.receive_text()).await;
    if let Ok(answer) = answer {
        return Some(answer.unwrap());
    }
    socket.send(&json!({"jsonrpc": "2.0", "id": AFTER, "method": "registry.all"}).to_string()).await.unwrap();
    let next = socket.receive_text().await.unwrap();
    (!next.contains(AFTER)).then_some(next)
}

#[tokio::test]
async fn every_row_of_the_conformance_table_holds_over_http() {
    let purser = Purser::start().await;
    let client = purser.client();
    for (text, expected) in table() {
        check(text, over_http(&client, text).await.as_deref(), &expected);
    }
}

#[tokio::test]
async fn every_row_of_the_conformance_table_holds_over_a_websocket() {
    let purser = Purser::start().await;
    let mut socket = purser.client().websocket().await.unwrap();
    for (text, expected) in table() {
        let answer = over_socket(&mut socket, text, matches!(expected, Silence)).await;
        check(text, answer.as_deref(), &expected);
    }
}

#[tokio::test]
async fn an_id_comes_back_as_it_was_sent() {
    let purser = Purser::start().await;
    let client = purser.client();
    let mut socket = client.websocket().await.unwrap();
    for id in IDS {
        let call = format!(r#"{{"jsonrpc":"2.0","method":"registry.all","id":{id}}}"#);
        let fails = format!(r#"{{"jsonrpc":"2.0","method":"registry.one","id":{id}}}"#);
        let expected = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":[]}}"#);
        assert_eq!(over_http(&client, &call).await.as_deref(), Some(expected.as_str()));
        socket.send(&call).await.unwrap();
        assert_eq!(socket.receive_text().await.unwrap(), expected);
        let failed = over_http(&client, &fails).await.unwrap();
        assert!(
            failed.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32602"#)),
            "{failed}"
        );
    }
}

#[tokio::test]
async fn a_notification_is_executed_and_not_answered() {
    let purser = Purser::start().await;
    let client = purser.client();
    let notify = |name: &str| {
        json!({"jsonrpc": "2.0", "method": "registry.create", "params": registry(name)}).to_string()
    };
    assert_eq!(over_http(&client, &notify("http")).await, None);
    let batch = format!("[{},{}]", notify("batch 1"), notify("batch 2"));
    assert_eq!(over_http(&client, &batch).await, None);
    let mut socket = client.websocket().await.unwrap();
    socket.send(&notify("socket")).await.unwrap();
    let all = eventually(Duration::from_secs(30), async || {
        let all = client.query("registry.all", Value::Null).await;
        (all.as_array().unwrap().len() == 4).then_some(all)
    });
    let mut names: Vec<_> =
        all.await.as_array().unwrap().iter().map(|entry| entry["registryName"].to_string()).collect();
    names.sort();
    assert_eq!(names, [r#""batch 1""#, r#""batch 2""#, r#""http""#, r#""socket""#]);
}

#[tokio::test]
async fn errors_carry_the_data_that_trpc_carries() {
    let purser = Purser::start().await;
    let client = purser.client();
    let over_rpc = client.rpc("registry.one", &json!({"registryId": "reg_x"})).await.error();
    let over_trpc = client.trpc_query("registry.one", &json!({"registryId": "reg_x"})).await.error();
    assert_eq!(over_rpc, over_trpc);
    let bad = client.rpc("registry.one", &json!({"registryId": 5})).await.error();
    assert_eq!(bad["code"], -32602);
    assert_eq!(
        bad["data"],
        client.trpc_query("registry.one", &json!({"registryId": 5})).await.error()["data"]
    );
    let parse = send(&client, Method::POST, "/rpc", &[], "{").await.error();
    assert_eq!((&parse["data"]["code"], &parse["data"]["httpStatus"]), (&json!("PARSE_ERROR"), &json!(400)));
}

#[tokio::test]
async fn without_a_key_a_call_is_unauthorized_and_a_notification_does_nothing() {
    let purser = Purser::start().await;
    let nobody = purser.anonymous();
    for client in [nobody.clone(), nobody.with_key("purser_0000000000000000_wrong")] {
        let error = client.rpc("registry.all", &Value::Null).await.error();
        assert_eq!((&error["code"], &error["data"]["code"]), (&json!(-32001), &json!("UNAUTHORIZED")));
        assert_eq!(error["data"]["httpStatus"], 401);
        // The order of checks: an unknown method first, the input last.
        assert_eq!(client.rpc("no.such", &Value::Null).await.error()["code"], -32601);
        assert_eq!(client.rpc("registry.one", &json!({"x": 1})).await.error()["code"], -32001);
        let create = json!({"jsonrpc": "2.0", "method": "registry.create", "params": registry("n")});
        assert_eq!(send(&client, Method::POST, "/rpc", &[], &create.to_string()).await.status, 204);
        let refused = client.websocket().await.err().expect("no upgrade without a key");
        assert!(refused.contains("401"), "{refused}");
    }
    assert_eq!(purser.client().query("registry.all", Value::Null).await, json!([]));
}

#[tokio::test]
async fn only_posted_json_is_a_call() {
    let purser = Purser::start().await;
    let client = purser.client();
    let call = r#"{"jsonrpc":"2.0","method":"registry.all","id":1}"#;
    let status = |answer: Answer| (answer.status.as_u16(), answer.error()["code"].clone());
    for media in ["text/plain", ""] {
        let answer = send(&client, Method::POST, "/rpc", &[("content-type", media)], call).await;
        assert_eq!(status(answer), (415, json!(-32015)));
    }
    let websocket = [("upgrade", "websocket"), ("connection", "Upgrade")];
    for (method, headers) in
        [(Method::GET, &[][..]), (Method::PUT, &[]), (Method::DELETE, &[]), (Method::PUT, &websocket)]
    {
        let answer = send(&client, method, "/rpc", headers, call).await;
        assert_eq!(answer.headers["allow"], "POST");
        assert_eq!(status(answer), (405, json!(-32005)));
    }
    // Only a GET upgrades.
    assert_eq!(send(&client, Method::POST, "/rpc", &websocket, call).await.status, StatusCode::OK);
    // What `curl --http2` sends along is not a request for a WebSocket.
    let h2c = [("upgrade", "h2c"), ("connection", "Upgrade, HTTP2-Settings"), ("http2-settings", "AAMAAABk")];
    assert_eq!(send(&client, Method::POST, "/rpc", &h2c, call).await.status, StatusCode::OK);
}

/// A 401 says how to come in, and who speaks another WebSocket which one is spoken.
#[tokio::test]
async fn an_upgrade_that_is_refused_says_how_it_is_done() {
    let purser = Purser::start().await;
    let upgrade = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "8"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let refused = async |client: &Client, status: u16, number: i64| {
        let answer = send(client, Method::GET, "/rpc", &upgrade, "").await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.headers["content-type"], "application/json", "{answer:?}");
        assert_eq!(members(&answer.json()), ["error", "id", "jsonrpc"], "{answer:?}");
        assert_eq!(answer.error()["code"], number, "{answer:?}");
        answer
    };
    let unknown = refused(&purser.anonymous(), 401, -32001).await;
    assert_eq!(unknown.headers["www-authenticate"], "Bearer realm=\"purser\"");
    let other = refused(&purser.client(), 400, -32600).await;
    assert_eq!(other.headers["sec-websocket-version"], "13");
    // What needs a key before it is read.
    let large = json!({"x": "x".repeat(100 << 10)}).to_string();
    let unknown = send(&purser.anonymous(), Method::POST, "/rpc", &[], &large).await;
    assert_eq!(unknown.status, StatusCode::UNAUTHORIZED);
    assert!(unknown.headers.contains_key("www-authenticate"));

    let agents = purser.anonymous().get("/agent").await;
    assert_eq!(agents.status, StatusCode::UPGRADE_REQUIRED);
    for (name, value) in
        [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-version", "13")]
    {
        assert_eq!(agents.headers[name], value);
    }
}

#[tokio::test]
async fn a_batch_of_more_than_100_is_refused_as_a_whole() {
    let purser = Purser::start().await;
    let client = purser.client();
    let batch = |count: usize| {
        let calls: Vec<_> =
            (0..count).map(|id| json!({"jsonrpc": "2.0", "method": "registry.all", "id": id})).collect();
        Value::from(calls).to_string()
    };
    let full = send(&client, Method::POST, "/rpc", &[], &batch(100)).await.json();
    assert_eq!(full.as_array().unwrap().len(), 100);
    let too_many = send(&client, Method::POST, "/rpc", &[], &batch(101)).await;
    assert_eq!(too_many.status, 413, "{too_many:?}");
    assert_eq!(too_many.error()["code"], -32013, "{too_many:?}");
}

#[tokio::test]
async fn many_calls_of_one_socket_are_under_way_at_once() {
    let purser = Purser::start().await;
    let mut socket = purser.client().websocket().await.unwrap();
    for id in 0..500 {
        socket.send(&json!({"jsonrpc": "2.0", "method": "server.all", "id": id}).to_string()).await.unwrap();
    }
    let mut seen = vec![false; 500];
    for _ in 0..500 {
        let answer = socket.receive().await.unwrap();
        assert_eq!(answer["result"], json!([]));
        let id = usize::try_from(answer["id"].as_u64().unwrap()).unwrap();
        assert!(!std::mem::replace(&mut seen[id], true), "{id} was answered twice");
    }
}

/// One caller sends and never reads; the others do not notice, and the server holds a bound on it.
#[tokio::test]
async fn a_slow_reader_slows_only_itself() {
    let purser = Purser::start().await;
    let client = purser.client();
    for entry in 0..20 {
        client.mutate("registry.create", registry(&format!("{entry} {}", "x".repeat(200)))).await;
    }
    let mut slow = client.websocket().await.unwrap();
    let sent = tokio::time::timeout(Duration::from_secs(2), async {
        for id in 0..100_000_u32 {
            slow.send(&json!({"jsonrpc": "2.0", "method": "registry.all", "id": id}).to_string()).await?;
        }
        Ok::<_, String>(())
    });
    assert!(sent.await.is_err(), "the server stops reading from who does not read");
    let mut quick = client.websocket().await.unwrap();
    for _ in 0..20 {
        let all = tokio::time::timeout(Duration::from_secs(30), quick.call("registry.all", json!({})));
        assert_eq!(all.await.unwrap().unwrap()["result"].as_array().unwrap().len(), 20);
    }
    let resident = purser_tests::process::resident_kib(purser.pid()).unwrap();
    assert!(resident < 200 * 1024, "{resident} KiB");
}

#[tokio::test]
async fn a_message_over_1_mib_ends_its_socket_and_no_other() {
    let purser = Purser::start().await;
    let client = purser.client();
    let (mut one, mut other) = (client.websocket().await.unwrap(), client.websocket().await.unwrap());
    let large =
        format!(r#"{{"jsonrpc":"2.0","method":"registry.all","id":1,"x":"{}"}}"#, "x".repeat(1 << 20));
    // It may be told before it has sent all of it.
    let _ = one.send(&large).await;
    let told = one.receive().await.unwrap_err();
    assert!(told.contains("Size") && told.contains("a message has at most 1 MiB"), "{told}");
    assert_eq!(other.call("registry.all", json!({})).await.unwrap()["result"], json!([]));
}

#[tokio::test]
async fn a_close_is_answered_by_a_close() {
    let purser = Purser::start().await;
    let mut socket = purser.client().websocket().await.unwrap();
    assert_eq!(socket.call("registry.all", json!({})).await.unwrap()["result"], json!([]));
    assert_eq!(socket.close().await, Ok(()));
}

/// Its key is remembered for 10 s, then it has to be looked up.
#[tokio::test]
async fn while_nobody_can_look_up_its_key_a_socket_is_answered_so_and_stays() {
    let purser = Purser::start().await;
    let socket = Mutex::new(purser.client().websocket().await.unwrap());
    purser.execute_sql("ALTER TABLE api_key RENAME TO api_key_away");
    let call = async || socket.lock().await.call("registry.presets", json!({})).await.unwrap();
    let refused =
        eventually(SOON, async || Some(call().await).filter(|said| said["error"].is_object())).await;
    assert_eq!(refused["error"]["code"], -32603, "{refused}");
    purser.execute_sql("ALTER TABLE api_key_away RENAME TO api_key");
    eventually(SOON, async || call().await["result"].is_array().then_some(())).await;
}
