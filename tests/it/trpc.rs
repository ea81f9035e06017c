//! `/api/trpc`: tRPC over HTTP as v10 and v11 clients and Dokploy's `curl` calls speak it.

use http::{Method, StatusCode};
use purser_tests::{Client, Purser, percent};
use serde_json::{Value, json};

use crate::answers::{is_error, refused, refused_unread, registry, send};

const ALL: &str = "/api/trpc/registry.all";
const ONE: &str = "/api/trpc/registry.one";
const CREATE: &str = "/api/trpc/registry.create";
const UNDEFINED: &str = r#"{"json":null,"meta":{"values":["undefined"],"v":1}}"#;

fn with_input(path: &str, input: &str) -> String {
    format!("{path}?input={}", percent::encode(input))
}

async fn a_registry(client: &Client) -> String {
    let created = client.mutate("registry.create", registry("one")).await;
    created["registryId"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_query_is_read_from_the_url_or_from_a_posted_body() {
    let purser = Purser::start().await;
    let client = purser.client();
    assert_eq!(client.get(ALL).await.json(), json!({"result": {"data": []}}));
    let id = a_registry(&client).await;
    let input = json!({"registryId": id}).to_string();
    let got = client.get(&with_input(ONE, &input)).await;
    let posted = send(&client, Method::POST, ONE, &[], &input).await;
    let v10 = send(&client, Method::GET, &with_input(ONE, &input), &[], "").await;
    for answer in [&got, &posted, &v10] {
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.data()["registryId"], id.as_str());
        assert_eq!(answer.body, got.body);
    }
    let vary = got.headers["vary"].to_str().unwrap().to_lowercase();
    assert!(vary.contains("trpc-accept") && vary.contains("accept"), "{vary}");
}

/// `registry.create` with a trailing slash in the base URL, an encoded dot, foreign query parameters.
#[tokio::test]
async fn paths_are_decoded_and_foreign_parameters_ignored() {
    let purser = Purser::start().await;
    let client = purser.client();
    for path in [
        "/api/trpc/registry%2Eall",
        "/api/trpc/%72egistry.all",
        "/api/trpc/registry.all?utm=1&input=",
        "/api/trpc//registry.all",
        "/api/trpc/registry.all?batch=",
    ] {
        let answer = client.get(path).await;
        assert_eq!(answer.json(), json!({"result": {"data": []}}), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn the_media_type_is_compared_without_case_and_parameters() {
    let purser = Purser::start().await;
    let client = purser.client();
    for media in ["application/json", "Application/JSON; charset=UTF-8", "application/json;x=y"] {
        let answer = send(&client, Method::POST, ALL, &[("content-type", media)], "").await;
        assert_eq!(answer.status, StatusCode::OK, "{media}: {answer:?}");
    }
    for media in ["", "text/plain", "application/jsonl", "application/x-www-form-urlencoded", "json"] {
        let answer = send(&client, Method::POST, ALL, &[("content-type", media)], "").await;
        refused(&answer, "UNSUPPORTED_MEDIA_TYPE", None);
    }
}

/// Each request is wrong in every later way too, so the first check that fails is the one seen.
#[tokio::test]
async fn checks_come_in_the_order_that_trpc_has() {
    let purser = Purser::start().await;
    let (nobody, admin) = (purser.anonymous(), purser.client());
    let viewer = purser.key_in(&purser.default_organization(), purser_tests::tenant::Grant::Role("viewer"));
    let text = [("content-type", "text/plain")];
    let no_such = "/api/trpc/no.such";

    refused(&send(&nobody, Method::PUT, no_such, &text, "{").await, "UNSUPPORTED_MEDIA_TYPE", None);
    refused(&send(&nobody, Method::PUT, no_such, &[], "{").await, "NOT_FOUND", Some("no.such"));
    let on = Some("registry.create");
    refused(&send(&nobody, Method::PUT, CREATE, &[], "{").await, "METHOD_NOT_SUPPORTED", on);
    refused(&send(&nobody, Method::GET, CREATE, &[], "").await, "METHOD_NOT_SUPPORTED", on);
    refused(&send(&nobody, Method::POST, CREATE, &[], "{").await, "UNAUTHORIZED", on);
    refused(&send(&viewer, Method::POST, CREATE, &[], "{}").await, "FORBIDDEN", on);
    refused(&send(&viewer, Method::POST, CREATE, &[], "{").await, "FORBIDDEN", on);
    // One text for all calls of a batch; each is refused for its own reason.
    let batch = send(&viewer, Method::POST, "/api/trpc/registry.create,registry.all?batch=1", &[], "{").await;
    assert_eq!(batch.status, StatusCode::MULTI_STATUS);
    is_error(&batch.json()[0]["error"], "FORBIDDEN", on);
    is_error(&batch.json()[1]["error"], "BAD_REQUEST", Some("registry.all"));
    refused(&send(&admin, Method::POST, CREATE, &[], "{").await, "BAD_REQUEST", on);
    refused(&send(&admin, Method::POST, CREATE, &[], "{}").await, "BAD_REQUEST", on);
    // A body that is only read for who has a key changes nothing of it, and is not read for nothing.
    let large = json!({"x": "x".repeat(100 << 10)}).to_string();
    for client in [&nobody, &admin] {
        let unknown = send(client, Method::POST, no_such, &[], &large).await;
        refused_unread(&unknown, "NOT_FOUND", Some("no.such"));
        let wrong = send(client, Method::PUT, ONE, &[], &large).await;
        refused_unread(&wrong, "METHOD_NOT_SUPPORTED", Some("registry.one"));
        assert_eq!(wrong.headers["allow"], "GET, HEAD, POST");
    }
    refused_unread(&send(&nobody, Method::POST, ONE, &[], &large).await, "UNAUTHORIZED", None);
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        refused(&send(&admin, method, ALL, &[], "").await, "METHOD_NOT_SUPPORTED", Some("registry.all"));
    }
}

/// A 401 says how to come in, and a 405 by which methods; of a batch where it is so of all its calls.
#[tokio::test]
async fn a_refusal_has_the_headers_that_http_wants_with_it() {
    let purser = Purser::start().await;
    let nobody = purser.anonymous();
    let of_all = "GET, HEAD, POST";
    for (method, path, status, allow) in [
        (Method::GET, "registry.create", 405, Some("POST")),
        (Method::PUT, "registry.all", 405, Some(of_all)),
        (Method::PUT, "job.watch", 405, Some(of_all)),
        (Method::PUT, "registry.all,registry.one?batch=1", 405, Some(of_all)),
        (Method::PUT, "registry.all,registry.create?batch=1", 405, Some("POST")),
        (Method::GET, "job.watch?batch=1", 405, Some("")),
        (Method::GET, "registry.create,registry.all?batch=1", 207, None),
        (Method::POST, "registry.create", 401, None),
        (Method::GET, "registry.all,server.all?batch=1", 401, None),
        (Method::GET, "registry.all,no.such?batch=1", 207, None),
    ] {
        let answer = send(&nobody, method, &format!("/api/trpc/{path}"), &[], "").await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        let header = |name| answer.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("allow"), allow, "{path}");
        let challenge = (status == 401).then_some("Bearer realm=\"purser\"");
        assert_eq!(header("www-authenticate"), challenge, "{path}");
    }
    let large = json!({"x": "x".repeat(100 << 10)}).to_string();
    let unknown = send(&nobody, Method::POST, CREATE, &[], &large).await;
    refused_unread(&unknown, "UNAUTHORIZED", None);
    assert!(unknown.headers.contains_key("www-authenticate"));
}

#[tokio::test]
async fn an_unknown_procedure_is_named_and_nothing_is_created() {
    let purser = Purser::start().await;
    let client = purser.client();
    for name in ["no.such", "registry", "registry.", "registry.all,registry.all", "constructor", "a/b"] {
        let answer = client.get(&format!("/api/trpc/{name}")).await;
        let error = refused(&answer, "NOT_FOUND", Some(name));
        assert!(error["message"].as_str().unwrap().contains(name), "{error}");
    }
    refused(&client.get(CREATE).await, "METHOD_NOT_SUPPORTED", Some("registry.create"));
    assert_eq!(client.query("registry.all", Value::Null).await, json!([]));
}

#[tokio::test]
async fn head_is_204_and_empty() {
    let purser = Purser::start().await;
    let answer = purser.anonymous().send(Method::HEAD, ALL, &[], "").await.unwrap();
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(answer.body.is_empty());
}

#[tokio::test]
async fn an_empty_body_is_no_input_and_malformed_json_is_bad_request() {
    let purser = Purser::start().await;
    let client = purser.client();
    assert_eq!(send(&client, Method::POST, ALL, &[], "").await.data(), json!([]));
    let error =
        refused(&send(&client, Method::POST, ONE, &[], "").await, "BAD_REQUEST", Some("registry.one"));
    assert_eq!(error["data"]["zodError"]["fieldErrors"]["registryId"], json!(["is required"]), "{error}");
    for body in ["{", "{}x", "\u{feff}{}", "nul", "'{}'", "\u{0}"] {
        refused(&send(&client, Method::POST, ONE, &[], body).await, "BAD_REQUEST", Some("registry.one"));
        refused(&client.get(&with_input(ONE, body)).await, "BAD_REQUEST", Some("registry.one"));
    }
    let bytes = client.send(Method::POST, ONE, &[("content-type", "application/json")], vec![0xff; 9]).await;
    refused(&bytes.unwrap(), "BAD_REQUEST", Some("registry.one"));
}

#[tokio::test]
async fn a_body_over_1_mib_is_413_and_one_of_1_mib_is_read() {
    let purser = Purser::start().await;
    let client = purser.client();
    let body = |length: usize| format!("{{}}{}", " ".repeat(length - 2));
    assert_eq!(send(&client, Method::POST, ALL, &[], &body(1 << 20)).await.data(), json!([]));
    let answer = send(&client, Method::POST, ALL, &[], &body((1 << 20) + 1)).await;
    refused_unread(&answer, "PAYLOAD_TOO_LARGE", None);
    let answer = send(&client, Method::POST, "/rpc", &[], &body((1 << 20) + 1)).await;
    assert_eq!((answer.status.as_u16(), answer.error()["code"].clone()), (413, json!(-32013)));
}

#[tokio::test]
async fn a_batch_answers_in_order_with_the_common_status_or_207() {
    let purser = Purser::start().await;
    let client = purser.client();
    let id = a_registry(&client).await;
    let inputs = percent::encode(&json!({"1": {"registryId": id}, "2": {"registryId": "reg_x"}}).to_string());

    let mixed = client
        .get(&format!("/api/trpc/registry.all,registry.one,registry.one,no.such?batch=1&input={inputs}"))
        .await;
    assert_eq!(mixed.status, StatusCode::MULTI_STATUS, "{mixed:?}");
    let answers = mixed.json();
    assert_eq!(answers.as_array().unwrap().len(), 4);
    assert_eq!(answers[0]["result"]["data"][0]["registryId"], id.as_str());
    assert_eq!(answers[1]["result"]["data"]["registryId"], id.as_str());
    is_error(&answers[2]["error"], "NOT_FOUND", Some("registry.one"));
    is_error(&answers[3]["error"], "NOT_FOUND", Some("no.such"));

    for (path, status) in [
        ("registry.all,server.all", 200),
        ("registry.all%2Cserver.all", 200),
        ("registry.all,server.all,registry.all%2cserver.all", 200),
        ("no.such,no.other", 404),
        ("registry.create,registry.create", 405),
        ("registry.all,registry.one", 207),
    ] {
        let answer = client.get(&format!("/api/trpc/{path}?batch=1&input=%7B%7D")).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {answer:?}");
        assert_eq!(
            answer.json().as_array().unwrap().len(),
            path.split([',']).count() + path.to_lowercase().matches("%2c").count()
        );
    }
    let nobody = purser.anonymous().get("/api/trpc/registry.all,server.all?batch=1").await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
    is_error(&nobody.json()[1]["error"], "UNAUTHORIZED", Some("server.all"));
}

#[tokio::test]
async fn a_batch_of_one_is_an_array_and_one_of_mutations_does_not_stop_at_a_failure() {
    let purser = Purser::start().await;
    let client = purser.client();
    for batch in ["1", "true"] {
        let answer = client.get(&format!("/api/trpc/registry.all?batch={batch}")).await;
        assert_eq!(answer.json(), json!([{"result": {"data": []}}]));
    }
    let body = json!({"0": registry("a"), "1": {"registryName": ""}, "2": registry("c")}).to_string();
    let path = "/api/trpc/registry.create,registry.create,registry.create?batch=1";
    let answer = send(&client, Method::POST, path, &[], &body).await;
    assert_eq!(answer.status, StatusCode::MULTI_STATUS, "{answer:?}");
    is_error(&answer.json()[1]["error"], "BAD_REQUEST", Some("registry.create"));
    let all = client.query("registry.all", Value::Null).await;
    let mut names: Vec<_> =
        all.as_array().unwrap().iter().map(|entry| entry["registryName"].clone()).collect();
    names.sort_by_key(Value::to_string);
    assert_eq!(names, ["a", "c"]);
}

#[tokio::test]
async fn a_batch_has_at_most_100_calls_and_an_object_of_inputs() {
    let purser = Purser::start().await;
    let client = purser.client();
    let calls = |count: usize| format!("/api/trpc/{}?batch=1", vec!["registry.all"; count].join(","));
    let full = client.get(&calls(100)).await;
    assert_eq!((full.status, full.json().as_array().unwrap().len()), (StatusCode::OK, 100));
    refused(&client.get(&calls(101)).await, "PAYLOAD_TOO_LARGE", None);
    for input in ["[]", "[null]", "1", "\"x\"", "{"] {
        let answer = send(&client, Method::POST, &calls(2), &[], input).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{input}: {answer:?}");
        for one in answer.json().as_array().unwrap() {
            is_error(&one["error"], "BAD_REQUEST", Some("registry.all"));
            assert!(one["error"]["data"]["zodError"]["formErrors"][0].is_string(), "{input}: {one}");
        }
    }
}

/// Which one is meant? What else is wrong is said before, as of each input.
#[tokio::test]
async fn an_option_that_is_given_twice_is_bad_input_of_each_call() {
    let purser = Purser::start().await;
    let (client, nobody) = (purser.client(), purser.anonymous());
    for twice in ["input=%7B%7D&input=%7B%7D", "connectionParams=1&connectionParams=1"] {
        let field = twice.split('=').next().unwrap();
        let path = |name: &str| format!("/api/trpc/{name}?{twice}");
        let error = refused(&client.get(&path("registry.all")).await, "BAD_REQUEST", Some("registry.all"));
        assert_eq!(error["data"]["zodError"]["fieldErrors"][field], json!(["is given twice"]), "{error}");
        refused(&nobody.get(&path("registry.all")).await, "UNAUTHORIZED", Some("registry.all"));
        refused(&nobody.get(&path("no.such")).await, "NOT_FOUND", Some("no.such"));
        refused(&nobody.get(&path("registry.create")).await, "METHOD_NOT_SUPPORTED", Some("registry.create"));
    }
    let answer = client.get("/api/trpc/registry.all,no.such?batch=1&batch=1").await;
    assert_eq!(answer.status, StatusCode::MULTI_STATUS, "{answer:?}");
    is_error(&answer.json()[0]["error"], "BAD_REQUEST", Some("registry.all"));
    assert!(answer.json()[0]["error"]["data"]["zodError"]["fieldErrors"]["batch"].is_array(), "{answer:?}");
    is_error(&answer.json()[1]["error"], "NOT_FOUND", Some("no.such"));
    assert_eq!(client.get("/api/trpc/registry.all?other=1&other=2").await.data(), json!([]));
}

#[tokio::test]
async fn superjson_is_answered_in_superjson_errors_included() {
    let purser = Purser::start().await;
    let client = purser.client();
    let wrapped = |inner: &str| format!(r#"{{"json":{inner}}}"#);
    let answer = client.get(&with_input(ALL, UNDEFINED)).await;
    assert_eq!(answer.json(), json!({"result": {"data": {"json": []}}}));
    let body = json!({
        "json": {"registryName": "s", "registryUrl": "ghcr.io", "imagePrefix": null},
        "meta": {"values": {"imagePrefix": ["undefined"]}, "v": 1},
    });
    let created = client.post(CREATE, &body).await.data()["json"].take();
    let id = created["registryId"].as_str().unwrap();
    let one = client.get(&with_input(ONE, &wrapped(&json!({"registryId": id}).to_string()))).await;
    assert_eq!(one.json(), json!({"result": {"data": {"json": created}}}));

    let inner = |answer: &purser_tests::Answer| {
        let envelope = answer.json();
        assert_eq!(crate::answers::members(&envelope["error"]), ["json"], "{answer:?}");
        envelope["error"]["json"].clone()
    };
    let foreign = with_input(ONE, &wrapped(r#"{"registryId":"reg_x"}"#));
    is_error(&inner(&client.get(&foreign).await), "NOT_FOUND", Some("registry.one"));
    is_error(&inner(&purser.anonymous().get(&foreign).await), "UNAUTHORIZED", Some("registry.one"));
    is_error(&inner(&client.get(&with_input(ONE, UNDEFINED)).await), "BAD_REQUEST", Some("registry.one"));
    let unknown = client.get(&with_input("/api/trpc/no.such", UNDEFINED)).await;
    is_error(&inner(&unknown), "NOT_FOUND", Some("no.such"));
    let wrong_method = client.get(&with_input(CREATE, UNDEFINED)).await;
    is_error(&inner(&wrong_method), "METHOD_NOT_SUPPORTED", Some("registry.create"));
}

/// Half a character, as `JSON.stringify` writes it, beside something undefined: the filters must not get lost.
#[tokio::test]
async fn what_superjson_wraps_and_cannot_be_read_is_refused() {
    let purser = Purser::start().await;
    let input =
        r#"{"json":{"action":"\ud83d","limit":null},"meta":{"values":{"limit":["undefined"]},"v":1}}"#;
    let answer = purser.client().get(&with_input("/api/trpc/audit.all", input)).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    is_error(&answer.json()["error"]["json"], "BAD_REQUEST", Some("audit.all"));
}

/// Only an object with `json` and at most `meta` is superjson: an array never is.
#[tokio::test]
async fn what_only_looks_like_superjson_is_plain() {
    let purser = Purser::start().await;
    let client = purser.client();
    for input in [r#"[{}]"#, r#"[{},null]"#, r#"{"json":{},"other":1}"#, r#"{"meta":{}}"#, "1", "[]"] {
        let answer = client.get(&with_input(ALL, input)).await;
        refused(&answer, "BAD_REQUEST", Some("registry.all"));
    }
}

#[tokio::test]
async fn superjson_is_told_apart_call_by_call_in_a_batch() {
    let purser = Purser::start().await;
    let client = purser.client();
    let undefined: Value = serde_json::from_str(UNDEFINED).unwrap();
    let inputs =
        json!({"0": undefined, "2": {"json": {"registryId": "reg_x"}}, "3": {"registryId": "reg_x"}});
    let path = "/api/trpc/registry.all,registry.all,registry.one,registry.one?batch=1";
    let by_url = client.get(&format!("{path}&input={}", percent::encode(&inputs.to_string()))).await;
    let by_body = send(&client, Method::POST, path, &[], &inputs.to_string()).await;
    for answer in [by_url, by_body] {
        let answers = answer.json();
        assert_eq!(answers[0], json!({"result": {"data": {"json": []}}}));
        assert_eq!(answers[1], json!({"result": {"data": []}}));
        is_error(&answers[2]["error"]["json"], "NOT_FOUND", Some("registry.one"));
        is_error(&answers[3]["error"], "NOT_FOUND", Some("registry.one"));
    }
}

#[tokio::test]
async fn a_wrong_key_and_no_key_look_the_same() {
    let purser = Purser::start().await;
    let nobody = purser.anonymous().get(ALL).await;
    refused(&nobody, "UNAUTHORIZED", Some("registry.all"));
    let key = purser.admin_key();
    let long = "k".repeat(4000);
    let other = format!("{}x", &key[..key.len() - 1]);
    for wrong in ["x", &key[..key.len() - 1], &format!("{key}x"), &other, &key[..24], &long, "purser_"] {
        let answer = purser.anonymous().with_key(wrong).get(ALL).await;
        assert_eq!((answer.status, &answer.body), (nobody.status, &nobody.body), "{wrong}");
    }
}

#[tokio::test]
async fn a_key_is_taken_from_either_header_and_never_from_the_url() {
    let purser = Purser::start().await;
    let (nobody, key) = (purser.anonymous(), purser.admin_key());
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let value = format!("{scheme} {key}");
        assert_eq!(send(&nobody, Method::GET, ALL, &[("authorization", &value)], "").await.data(), json!([]));
    }
    let basic = format!("Basic {key}");
    let answer = send(&nobody, Method::GET, ALL, &[("authorization", &basic)], "").await;
    refused(&answer, "UNAUTHORIZED", Some("registry.all"));
    let in_url = nobody.get(&format!("{ALL}?x-api-key={key}&apiKey={key}")).await;
    refused(&in_url, "UNAUTHORIZED", Some("registry.all"));
    assert!(!purser.logs().contains(&key));
}
