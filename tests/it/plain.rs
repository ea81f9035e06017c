//! `/api/<procedure>`: the plain door, as `curl` and generated clients use it.

use http::Method;
use purser_tests::{Answer, Client, Purser, tenant::Grant};
use serde_json::{Value, json};

use crate::{
    answers::{code, members, registry, send},
    inputs::{CALLS, SUBSCRIPTIONS, Things},
};

/// An answer is this error in the plain form and nothing else. Gives it.
#[track_caller]
pub fn refused(answer: &Answer, name: &str) -> Value {
    assert_eq!(answer.status.as_u16(), code(name).1, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json", "{answer:?}");
    let error = answer.json();
    assert_eq!(members(&error), ["code", "data", "message"], "{answer:?}");
    assert_eq!(error["code"], name, "{answer:?}");
    assert_eq!(error["data"]["code"], name, "{answer:?}");
    assert_eq!(error["data"]["httpStatus"], code(name).1, "{answer:?}");
    error
}

async fn get(client: &Client, path: &str) -> Answer {
    client.get(&format!("/api/{path}")).await
}

async fn post(client: &Client, name: &str, input: &Value) -> Answer {
    client.post(&format!("/api/{name}"), input).await
}

#[tokio::test]
async fn the_answer_is_the_bare_value_by_get_and_by_post() {
    let purser = Purser::start().await;
    let client = purser.client();
    let made = post(&client, "registry.create", &registry("one")).await;
    assert_eq!(made.status, 200, "{made:?}");
    assert_eq!(made.headers["content-type"], "application/json");
    assert_eq!(made.headers["cache-control"], "no-store");
    let id = made.json()["registryId"].as_str().unwrap().to_owned();
    let one = get(&client, &format!("registry.one?registryId={id}")).await;
    assert_eq!(one.json(), made.json());
    assert_eq!(post(&client, "registry.one", &json!({"registryId": id})).await.json(), made.json());
    assert_eq!(get(&client, "registry.all").await.json(), json!([made.json()]));
    let head = send(&client, Method::HEAD, "/api/registry.all", &[], "").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    // The same key as a bearer token.
    let bearer = format!("Bearer {}", purser.admin_key());
    let answer =
        send(&client.without_key(), Method::GET, "/api/registry.all", &[("authorization", &bearer)], "")
            .await;
    assert_eq!(answer.json(), json!([made.json()]));
}

#[tokio::test]
async fn parameters_are_read_as_their_fields_want_them() {
    let purser = Purser::start().await;
    let client = purser.client();
    let things = Things::make(&client, "things").await;
    let page = get(&client, &format!("job.all?limit=1&status=queued&serverId={}", things.server)).await;
    assert_eq!(page.json()["items"][0]["jobId"], json!(things.job), "{page:?}");
    let file = "services:%0A%20%20a:%20%7Bimage:%20'h/a:$%7BV%7D',%20profiles:%20%5Bp%5D%7D";
    for profiles in ["profiles=p&profiles=q", "profiles=q,p", "profiles=p"] {
        let query = format!("stack.images?composeFile={file}&variables=%7B%22V%22:%22v1%22%7D&{profiles}");
        let images = get(&client, &query).await;
        assert_eq!(images.json()["images"][0]["image"], "docker.io/h/a:v1", "{images:?}");
    }
    for (query, field) in [
        ("job.all?limit=many", "limit"),
        ("job.all?limit=0", "limit"),
        ("job.all?limit=1&limit=2", "limit"),
        ("job.all?status=none", "status"),
        ("job.all?colour=red", "colour"),
        ("registry.one", "registryId"),
        ("registry.catalog?registryId=a&refresh=1", "refresh"),
        ("stack.images?composeFile=x&variables=5", "variables"),
    ] {
        let answer = get(&client, query).await;
        let error = refused(&answer, "BAD_REQUEST");
        assert!(error["data"]["zodError"]["fieldErrors"][field].is_array(), "{query}: {answer:?}");
    }
    refused(&get(&client, "registry.search?query=%ff").await, "BAD_REQUEST");
}

/// Media type 415, procedure 404, method 405, key 401, permission 403, input 400: whatever else is wrong too.
#[tokio::test]
async fn checks_come_in_the_order_of_the_contract() {
    let purser = Purser::start().await;
    let client = purser.client();
    let nobody = client.without_key();
    let weak = purser.key_in(&purser.default_organization(), Grant::Role("viewer"));
    let bad = "{\"no\": json";
    let text = [("content-type", "text/plain")];
    let to = |name: &str| format!("/api/{name}");
    for name in ["no.such", "registry.all", "registry.create"] {
        refused(&send(&nobody, Method::POST, &to(name), &text, bad).await, "UNSUPPORTED_MEDIA_TYPE");
    }
    // A GET has no body to have a type.
    refused(&send(&nobody, Method::GET, &to("registry.all"), &text, "").await, "UNAUTHORIZED");
    assert_eq!(send(&client, Method::GET, &to("registry.all"), &text, "").await.status, 200);
    for method in [Method::GET, Method::POST, Method::PUT] {
        refused(&send(&nobody, method, &to("no.such"), &[], bad).await, "NOT_FOUND");
    }
    for (method, name, allow) in [
        (Method::GET, "registry.create", "POST"),
        (Method::DELETE, "registry.create", "POST"),
        (Method::PUT, "registry.all", "GET, HEAD, POST"),
    ] {
        let answer = send(&nobody, method, &to(name), &[], bad).await;
        refused(&answer, "METHOD_NOT_SUPPORTED");
        assert_eq!(answer.headers["allow"], allow);
    }
    let answer = send(&nobody, Method::POST, &to("registry.create"), &[], bad).await;
    refused(&answer, "UNAUTHORIZED");
    assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    refused(
        &send(&client.with_key("wrong"), Method::GET, &to("registry.all?x=1"), &[], "").await,
        "UNAUTHORIZED",
    );
    refused(&send(&weak, Method::POST, &to("registry.create"), &[], bad).await, "FORBIDDEN");
    refused(&send(&weak, Method::POST, &to("registry.create"), &[], "{}").await, "FORBIDDEN");
    // A body that is only read for who has a key changes nothing of it.
    let large = json!({"x": "x".repeat(100 << 10)}).to_string();
    for client in [&client, &client.with_key("wrong")] {
        refused(&send(client, Method::POST, &to("no.such"), &[], &large).await, "NOT_FOUND");
    }
    refused(&send(&nobody, Method::PUT, &to("registry.one"), &[], &large).await, "METHOD_NOT_SUPPORTED");
    refused(&send(&nobody, Method::POST, &to("registry.one"), &[], &large).await, "UNAUTHORIZED");
    // It would be an absent input at the tRPC door.
    refused(&send(&client, Method::POST, &to("registry.all"), &[], "null").await, "BAD_REQUEST");
    for body in [bad, "[]", "5"] {
        refused(&send(&client, Method::POST, &to("registry.create"), &[], body).await, "BAD_REQUEST");
    }
}

#[tokio::test]
async fn every_procedure_is_behind_this_door_and_wants_a_key() {
    let purser = Purser::start().await;
    let nobody = purser.client().without_key();
    for call in CALLS.iter().chain(SUBSCRIPTIONS) {
        let error = refused(&post(&nobody, call.name, &json!({})).await, "UNAUTHORIZED");
        assert_eq!(error["data"]["path"], call.name);
    }
    for call in SUBSCRIPTIONS {
        refused(&post(&purser.client(), call.name, &json!({})).await, "NOT_IMPLEMENTED");
    }
}

#[tokio::test]
async fn a_body_over_1_mib_is_too_large() {
    let purser = Purser::start().await;
    let large = json!({"registryName": "x".repeat(1 << 20)});
    refused(&post(&purser.client(), "registry.create", &large).await, "PAYLOAD_TOO_LARGE");
}
