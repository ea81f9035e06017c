//! Traces for OpenTelemetry: exported where that is asked for, to a receiver that takes OTLP over HTTP with JSON (one of
//! these tests' own: it checks the form that the protocol asks for, and is no collector).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use http::Method;
use purser_tests::{Purser, Road, Testbed, eventually, user::Kind};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{answers::send, audit_export::fill, config::refusal};

const SOON: Duration = Duration::from_secs(20);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// Takes spans, or refuses them.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Value>>>,
    posts: Arc<Mutex<Vec<HeaderMap>>>,
    full: Arc<Mutex<bool>>,
}

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, format!("http://{address}"))
    }

    fn named(&self, name: &str) -> Vec<Value> {
        self.spans.lock().unwrap().iter().filter(|span| span["name"] == name).cloned().collect()
    }

    async fn first(&self, name: &str) -> Value {
        eventually(SOON, async || self.named(name).into_iter().next()).await
    }
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> StatusCode {
    collector.posts.lock().unwrap().push(headers);
    if *collector.full.lock().unwrap() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let text: Value = serde_json::from_slice(&body).unwrap();
    for resource in text["resourceSpans"].as_array().unwrap() {
        let about = attributes(&resource["resource"]);
        assert_eq!(about["service.version"], env!("CARGO_PKG_VERSION"));
        assert!(!about["service.name"].is_empty());
        for scope in resource["scopeSpans"].as_array().unwrap() {
            assert!(scope["scope"]["name"].is_string());
            for span in scope["spans"].as_array().unwrap() {
                is_a_span(span);
                collector.spans.lock().unwrap().push(span.clone());
            }
        }
    }
    StatusCode::OK
}

#[track_caller]
fn is_a_span(span: &Value) {
    let hex = |field: &str, length: usize| {
        let text = span[field].as_str().unwrap_or_default();
        text.len() == length
            && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    assert!(
        hex("traceId", 32) && hex("spanId", 16) && (hex("parentSpanId", 16) || hex("parentSpanId", 0)),
        "{span}"
    );
    let nanos = |field: &str| span[field].as_str().unwrap().parse::<u128>().unwrap();
    assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano"), "{span}");
    assert!(nanos("startTimeUnixNano") > 1_700_000_000_000_000_000, "{span}");
    assert!((1..=5).contains(&span["kind"].as_u64().unwrap()), "{span}");
}

fn attributes(of: &Value) -> HashMap<String, String> {
    let list = of["attributes"].as_array().unwrap().iter();
    list.map(|one| {
        (one["key"].as_str().unwrap().into(), one["value"]["stringValue"].as_str().unwrap().into())
    })
    .collect()
}

#[tokio::test]
async fn a_callers_trace_goes_on_to_the_host_and_back() {
    let (collector, url) = Collector::start().await;
    let purser = Purser::builder()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &url)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-scope=team%20a")
        .env("OTEL_SERVICE_NAME", "purser-of-a-test");
    let bed = Testbed::get();
    let road = Road::over(purser.start().await, &[bed.host_a()]).await;
    let entry = road.entry(&bed.registries.basic, bed.user(Kind::Plain)).await;
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let input = json!({"image": format!("{}/absent:v1", bed.registries.basic), "serverId": road.host(),
        "registryId": entry, "wait": true});
    let headers = [("traceparent", parent.as_str())];
    let answer = send(&road.client, Method::POST, "/api/trpc/image.pull", &headers, &input.to_string()).await;
    assert_eq!(answer.data()["status"], "failed");
    assert_eq!(answer.headers["x-request-id"], format!("{TRACE}-{CALLER}"));

    let target = collector.first("target pull").await;
    let call = collector.first("image.pull").await;
    let in_trace = |span: &Value| span["traceId"] == TRACE;
    // It ends after its call, and may go out with the next ones.
    let request = eventually(SOON, async || collector.named("POST trpc").into_iter().find(in_trace)).await;
    assert_eq!((&request["parentSpanId"], &request["kind"]), (&json!(CALLER), &json!(2)));
    for span in [&call, &target] {
        assert!(in_trace(span), "{span}");
        assert_eq!(span["parentSpanId"], request["spanId"], "{span}");
    }
    assert_eq!(attributes(&call)["purser.door"], "trpc");
    assert_eq!(call["status"], json!({}));
    assert_eq!(attributes(&target)["purser.server_id"], road.host());
    assert_eq!(target["status"]["code"], 2);
    assert_eq!(collector.posts.lock().unwrap()[0]["x-scope"], "team a");

    // Of a request with an id of its own the trace is another, and an error says its code.
    road.client.trpc_query("registry.one", &json!({"registryId": "reg_x"})).await;
    let other = collector.first("registry.one").await;
    assert!(!in_trace(&other));
    assert_eq!(other["status"]["message"], "NOT_FOUND");
    let mut socket = road.client.websocket().await.unwrap();
    socket.call("registry.presets", json!({})).await.unwrap();
    let (message, call) =
        (collector.first("message websocket").await, collector.first("registry.presets").await);
    assert_eq!((&call["traceId"], &call["parentSpanId"]), (&message["traceId"], &message["spanId"]));
}

/// It is read while it is sent, when its request has been answered.
#[tokio::test]
async fn each_page_of_an_export_is_in_the_trace_of_its_request() {
    let (collector, url) = Collector::start().await;
    let purser = Purser::builder()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &url)
        .env("PURSER_AUDIT_RETENTION_DAYS", "0")
        .start()
        .await;
    fill(&purser, 250);
    assert_eq!(purser.client().get("/api/audit.jsonl").await.text().lines().count(), 251);
    let pages =
        eventually(SOON, async || Some(collector.named("audit.all")).filter(|pages| pages.len() >= 3)).await;
    let request = collector.first("GET plain").await;
    for page in pages {
        assert_eq!((&page["traceId"], &page["parentSpanId"]), (&request["traceId"], &request["spanId"]));
        assert_eq!(attributes(&page)["purser.door"], "plain");
    }
}

#[tokio::test]
async fn what_waits_is_sent_before_the_end() {
    let (collector, url) = Collector::start().await;
    let purser = Purser::builder().env("OTEL_EXPORTER_OTLP_ENDPOINT", &url).start().await;
    purser.client().query("registry.presets", Value::Null).await;
    assert!(purser.stop().await.success());
    eventually(SOON, async || (collector.named("registry.presets").len() == 1).then_some(())).await;
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_holds_nobody_up_and_is_told_of_once() {
    let (collector, url) = Collector::start().await;
    *collector.full.lock().unwrap() = true;
    let purser = Purser::builder().env("OTEL_EXPORTER_OTLP_ENDPOINT", &url).start().await;
    let client = purser.client();
    let dropped = async || {
        let text = client.get("/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix("purser_spans_dropped_total ")).unwrap();
        line.parse::<u64>().unwrap()
    };
    for _ in 0..3 {
        let before = dropped().await;
        client.query("registry.presets", Value::Null).await;
        eventually(SOON, async || (dropped().await > before).then_some(())).await;
    }
    assert_eq!(purser.logs().matches("traces are not exported").count(), 1);
    *collector.full.lock().unwrap() = false;
    client.query("registry.presets", Value::Null).await;
    collector.first("registry.presets").await;
    purser.await_log("traces are exported again").await;
}

#[tokio::test]
async fn nothing_is_exported_unless_asked_and_a_bad_receiver_is_refused() {
    let (collector, url) = Collector::start().await;
    let purser = Purser::start().await;
    purser.client().query("registry.presets", Value::Null).await;
    assert!(purser.stop().await.success());
    assert!(collector.posts.lock().unwrap().is_empty());
    for (name, value, says) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://x", "must be a URL such as"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "must be http/json"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2", "must be name=value pairs"),
    ] {
        let mut environment = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str())];
        environment.push((name, value));
        let said = refusal(&[], &environment);
        assert!(said.contains(name) && said.contains(says) && !said.contains("hunter2"), "{said}");
    }
}
