//! What operators rely on: metrics, readiness, request ids through all logs, headers, CORS.

use std::time::Duration;

use http::Method;
use purser_tests::{
    Answer, BreakableProxy, Client, Purser, Road, Testbed, database::Database, eventually, image, user::Kind,
};
use serde_json::{Value, json};

use crate::{answers::send, config::refusal, inputs::CALLS};

const SOON: Duration = Duration::from_secs(20);
const TOKEN: &str = "the-operators-own-token";

pub async fn metrics(client: &Client) -> String {
    let answer = client.get("/metrics").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    answer.text()
}

/// The value of the sample that begins so, labels included; 0 where there is none.
pub fn value(text: &str, sample: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    found.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn calls_are_counted_by_procedure_door_and_code() {
    let purser = Purser::start().await;
    let client = purser.client();
    client.query("registry.all", Value::Null).await;
    client.query("registry.all", Value::Null).await;
    client.rpc("registry.all", &json!({})).await;
    client.rpc("no.such", &json!({})).await;
    let mut socket = client.websocket().await.unwrap();
    socket.call("registry.all", json!({})).await.unwrap();
    client.trpc_query("registry.one", &json!({"registryId": "reg_x"})).await;
    purser.anonymous().get("/api/trpc/registry.all").await;
    purser.anonymous().rpc("registry.all", &json!({})).await;
    client.get("/api/trpc/no.such.thing").await;
    client.get("/api/trpc/registry.create").await;
    client.get("/api/trpc/registry.all,registry.presets?batch=1").await;
    // No calls.
    client.send(Method::HEAD, "/api/trpc/registry.all", &[], "").await.unwrap();
    client.get("/api/audit.jsonl").await;
    let text = metrics(&client).await;
    for (procedure, door, code, count) in [
        ("registry.all", "trpc", "BAD_REQUEST", 0.0),
        ("unknown", "plain", "BAD_REQUEST", 0.0),
        ("registry.all", "trpc", "OK", 3.0),
        ("registry.presets", "trpc", "OK", 1.0),
        ("registry.all", "jsonrpc", "OK", 1.0),
        ("registry.all", "websocket", "OK", 1.0),
        ("registry.one", "trpc", "NOT_FOUND", 1.0),
        ("registry.all", "trpc", "UNAUTHORIZED", 1.0),
        ("registry.all", "jsonrpc", "UNAUTHORIZED", 1.0),
        ("registry.create", "trpc", "METHOD_NOT_SUPPORTED", 1.0),
        ("unknown", "trpc", "NOT_FOUND", 1.0),
        ("unknown", "jsonrpc", "NOT_FOUND", 1.0),
    ] {
        let sample =
            format!("purser_requests_total{{code=\"{code}\",door=\"{door}\",procedure=\"{procedure}\"}}");
        assert_eq!(value(&text, &sample), count, "{sample}\n{text}");
    }
    let seconds = r#"purser_request_duration_seconds_count{door="trpc",procedure="registry.all"}"#;
    assert_eq!(value(&text, seconds), 3.0, "{text}");
    assert!(value(&text, r#"purser_http_responses_total{door="trpc",status="401"}"#) >= 1.0);
}

/// Whatever else came by the same request, and whatever the status of its answer says.
#[tokio::test]
async fn calls_that_a_door_refuses_are_counted_each_by_its_own_name() {
    let purser = Purser::start().await;
    let (client, wrong) = (purser.client(), purser.anonymous().with_key("wrong"));
    let batch = |names: &str| format!("/api/trpc/{names}?batch=1");
    assert_eq!(wrong.get(&batch("registry.all,registry.presets,registry.all")).await.status, 401);
    let lines = [("trpc-accept", "application/jsonl")];
    let mut stream = wrong.stream(Method::GET, &batch("job.all,job.all,made.up"), &lines, "").await;
    while stream.line().await.is_some() {}
    let failed = wrong.subscribe("/api/trpc/registry.events", &[]).await.event().await.unwrap();
    assert_eq!(failed.event, "serialized-error", "{failed:?}");
    client.subscribe("/api/trpc/registry.events", &[]).await;
    assert_eq!(client.get(&batch("server.all,nope,nope,registry.create")).await.status, 207);
    // By a name that is not the path's.
    wrong.get("/api/trpc/server%2Eall").await;
    wrong.get("/api/audit.jsonl").await;
    client.get("/api/registry.events").await;
    let call = |method: &str| json!({"jsonrpc": "2.0", "id": 1, "method": method});
    client.post("/rpc", &json!([call("registry.all"), call("registry.events"), call("made.up")])).await;
    client.post("/rpc", &call("job.watch")).await;
    client.post("/rpc", &call("rpc.discover")).await;
    let text = metrics(&client).await;
    for (procedure, door, code, count) in [
        ("registry.all", "jsonrpc", "OK", 1.0),
        ("registry.events", "jsonrpc", "METHOD_NOT_SUPPORTED", 1.0),
        ("job.watch", "jsonrpc", "METHOD_NOT_SUPPORTED", 1.0),
        ("unknown", "jsonrpc", "NOT_FOUND", 1.0),
        ("unknown", "jsonrpc", "BAD_REQUEST", 0.0),
        ("registry.all", "trpc", "UNAUTHORIZED", 2.0),
        ("registry.presets", "trpc", "UNAUTHORIZED", 1.0),
        ("job.all", "trpc", "UNAUTHORIZED", 2.0),
        ("registry.events", "trpc", "UNAUTHORIZED", 1.0),
        ("registry.events", "trpc", "OK", 1.0),
        ("server.all", "trpc", "OK", 1.0),
        ("server.all", "trpc", "UNAUTHORIZED", 1.0),
        ("registry.create", "trpc", "METHOD_NOT_SUPPORTED", 1.0),
        ("unknown", "trpc", "NOT_FOUND", 3.0),
        ("unknown", "trpc", "UNAUTHORIZED", 0.0),
        ("audit.all", "plain", "UNAUTHORIZED", 1.0),
        ("registry.events", "plain", "NOT_IMPLEMENTED", 1.0),
    ] {
        let sample =
            format!("purser_requests_total{{code=\"{code}\",door=\"{door}\",procedure=\"{procedure}\"}}");
        assert_eq!(value(&text, &sample), count, "{sample}\n{text}");
    }
}

#[tokio::test]
async fn work_is_counted_and_its_state_told() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let client = &road.client;
    let (user, registry) = (bed.user(Kind::Plain), &bed.registries.basic);
    let image = image::in_registry(&bed.host_b(), registry, "counted", 100, Some(user)).await;
    let (right, wrong) =
        (road.entry(registry, user).await, road.entry_with(registry, "plain", "wrong").await);
    road.test(&right, None).await.data();
    assert_eq!(road.test(&wrong, None).await.diagnosis(), "unauthorized");
    assert_eq!(road.test(&wrong, Some(road.host())).await.diagnosis(), "unauthorized");
    let pulled = road.pull(&image.reference(), json!({"registryId": right})).await;
    assert_eq!(pulled["status"], "succeeded");
    let idle = client.mutate("server.create", json!({"name": "never"})).await["serverId"].clone();
    client.mutate("image.pull", json!({"image": "127.0.0.1:1/app", "serverId": idle})).await;
    let text = metrics(client).await;
    for (sample, count) in [
        (r#"purser_registry_tests_total{tested_from="control_plane"}"#, 2.0),
        (r#"purser_registry_test_failures_total{code="unauthorized",tested_from="control_plane"}"#, 1.0),
        (r#"purser_registry_test_failures_total{code="unauthorized",tested_from="host"}"#, 1.0),
        (r#"purser_job_targets_ended_total{kind="pull",outcome="ok"}"#, 1.0),
        (r#"purser_job_targets_ended_total{kind="testRegistry",outcome="unauthorized"}"#, 1.0),
        ("purser_agents_online", 1.0),
        (r#"purser_jobs{state="queued"}"#, 1.0),
        (r#"purser_jobs{state="running"}"#, 0.0),
    ] {
        assert_eq!(value(&text, sample), count, "{sample}\n{text}");
    }
    assert!(value(&text, &format!("purser_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))) == 1.0);
    assert!(value(&text, "purser_database_connections_max") >= 1.0);
    let connections =
        |state: &str| value(&text, &format!("purser_database_connections{{state=\"{state}\"}}"));
    assert!(connections("idle") + connections("in_use") >= 1.0, "{text}");
    for sample in [
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_cpu_seconds_total",
        "process_start_time_seconds",
    ] {
        assert!(value(&text, sample) > 0.0, "{sample}\n{text}");
    }
    bed.host_a().remove(&image.reference()).await;
}

/// Whatever callers send, the series are those of this program's own words.
#[tokio::test]
async fn what_callers_send_makes_no_new_series_and_stands_nowhere() {
    let purser = Purser::start().await;
    let client = purser.client();
    for call in CALLS {
        client.trpc_mutation(call.name, &json!({})).await;
    }
    let series = async || {
        let text = metrics(&client).await;
        text.lines().filter(|line| line.starts_with("purser_")).count()
    };
    for round in 0..2 {
        let before = series().await;
        for n in 0..50 {
            client.get(&format!("/api/trpc/made.up{n}?input={n}")).await;
            client.get(&format!("/api/made.up{n}")).await;
            client.get(&format!("/nowhere/{n}")).await;
            client.rpc(&format!("made.up{n}"), &json!({})).await;
            client.rpc("registry.one", &json!({"registryId": format!("reg_{n}")})).await;
        }
        assert!(round == 0 || series().await == before);
    }
    let text = metrics(&client).await;
    assert!(!text.contains("made") && !text.contains("reg_") && !text.contains("org_"), "{text}");
}

#[tokio::test]
async fn the_metrics_are_open_on_loopback_and_nowhere_else() {
    let closed = Purser::builder().arg("--behind-tls-proxy").start().await;
    let with_token = Purser::builder()
        .arg("--behind-tls-proxy")
        .env("PURSER_METRICS_TOKEN", TOKEN)
        .arg("--metrics-listen")
        .arg("127.0.0.1:0")
        .start()
        .await;
    let asked = async |client: &Client, bearer: &str| {
        let headers = [("authorization", bearer)];
        client.send(Method::GET, "/metrics", &headers, "").await.unwrap()
    };
    let refused = closed.client().get("/metrics").await;
    assert_eq!(refused.status, 401);
    assert!(refused.text().contains("PURSER_METRICS_TOKEN"), "{refused:?}");
    let client = with_token.anonymous();
    let (bearer, wrong) = (format!("Bearer {TOKEN}"), format!("Bearer {TOKEN}x"));
    assert_eq!(asked(&client, &bearer).await.status, 200);
    let key = format!("Bearer {}", with_token.admin_key());
    for wrong in [wrong.as_str(), "Bearer ", "Basic x", &key] {
        assert_eq!(asked(&client, wrong).await.status, 401, "{wrong}");
    }
    assert!(!with_token.logs().contains(TOKEN));
    let apart = apart(&with_token);
    assert_eq!(asked(&apart, &bearer).await.status, 200);
    assert_eq!(asked(&apart, "Basic x").await.status, 401);
    let said = refusal(&[], &[("PURSER_METRICS_TOKEN", "tiny-t")]);
    assert!(said.contains("PURSER_METRICS_TOKEN is shorter than 16") && !said.contains("tiny-t"), "{said}");
}

/// The listener of `--metrics-listen 127.0.0.1:0`.
fn apart(purser: &Purser) -> Client {
    let logs = purser.logs();
    let line = logs.lines().find(|line| line.contains("metrics are served")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    Client::new(&format!("http://{}", line["fields"]["address"].as_str().unwrap()))
}

/// By GET and HEAD; by no other method.
async fn is_only_read(client: &Client, path: &str) {
    assert_eq!(client.get(path).await.status, 200, "{path}");
    let head = send(client, Method::HEAD, path, &[], "").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0), "{path}");
    for method in [Method::POST, Method::DELETE, Method::OPTIONS, Method::from_bytes(b"FOO").unwrap()] {
        let answer = send(client, method, path, &[], "").await;
        assert_eq!(answer.status, 405, "{path}: {answer:?}");
        assert_eq!(answer.headers["allow"], "GET,HEAD", "{path}");
        assert!(answer.headers.contains_key("x-request-id"), "{path}");
    }
}

#[tokio::test]
async fn what_operators_ask_for_is_only_read() {
    let purser = Purser::start().await;
    for path in ["/metrics", "/healthz", "/readyz"] {
        is_only_read(&purser.anonymous(), path).await;
    }
}

#[tokio::test]
async fn a_listener_apart_serves_operators_and_nobody_else() {
    let purser =
        Purser::builder().arg("--behind-tls-proxy").arg("--metrics-listen").arg("127.0.0.1:0").start().await;
    let apart = apart(&purser);
    for path in ["/metrics", "/healthz", "/readyz"] {
        is_only_read(&apart, path).await;
    }
    let with_key = apart.with_key(&purser.admin_key());
    for path in ["/api/trpc/registry.all", "/rpc", "/agent", "/api/audit.jsonl"] {
        assert_eq!(with_key.get(path).await.status, 404, "{path}");
    }
    assert_eq!(purser.anonymous().get("/metrics").await.status, 401);
    assert!(purser.stop().await.success());
}

/// Always on PostgreSQL, whichever database the rest of the suite runs on: only that can be away.
#[tokio::test]
async fn readiness_ends_with_the_database_and_comes_back_with_it() {
    let database = Database::create();
    let address = database.url().split(['@', '/']).find(|part| part.contains(':') && !part.ends_with(':'));
    let (address, url) = (address.unwrap(), database.url());
    let link = BreakableProxy::start(address).await;
    let purser =
        Purser::builder().database_url(&url.replace(address, &link.address().to_string())).start().await;
    let nobody = purser.anonymous();
    assert_eq!(nobody.get("/readyz").await.text(), "ok\n");
    // One that says nothing is away, too, and nobody waits for it for long.
    link.stall(true);
    eventually(SOON, async || (nobody.get("/readyz").await.status == 503).then_some(())).await;
    link.stall(false);
    eventually(SOON, async || (nobody.get("/readyz").await.status == 200).then_some(())).await;
    link.refuse(true);
    link.cut();
    let away =
        eventually(SOON, async || Some(nobody.get("/readyz").await).filter(|answer| answer.status == 503))
            .await;
    assert_eq!(away.text(), "the database does not answer\n");
    assert_eq!(nobody.get("/healthz").await.status, 200, "the process lives");
    // Without the database there is less to tell, and nothing else is lost.
    assert!(metrics(&nobody).await.contains("purser_agents_online 0"));
    link.refuse(false);
    eventually(SOON, async || (nobody.get("/readyz").await.status == 200).then_some(())).await;
}

/// Log lines of a process that are within a request or target of this id.
fn lines_of(logs: &str, id: &str) -> Vec<Value> {
    let lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_of = |line: &Value| {
        let spans = line["spans"].as_array().into_iter().flatten();
        let named = spans.chain([&line["fields"]]);
        named.into_iter().any(|at| at["id"] == id || at["request_id"] == id)
    };
    lines.filter(is_of).collect()
}

fn says(lines: &[Value], message: &str) -> bool {
    lines.iter().any(|line| line["fields"]["message"] == message)
}

#[tokio::test]
async fn a_request_is_found_by_its_id_in_every_log_and_in_the_audit() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let entry = road.entry(&bed.registries.basic, bed.user(Kind::Plain)).await;
    let id = "Root=1-67891233/abc:d_e.f";
    let input = json!({"image": format!("{}/absent:v1", bed.registries.basic), "serverId": road.host(),
        "registryId": entry, "wait": true});
    let headers = [("x-request-id", id)];
    let answer = send(&road.client, Method::POST, "/api/trpc/image.pull", &headers, &input.to_string()).await;
    assert_eq!(answer.headers["x-request-id"], id);
    assert_eq!(answer.data()["status"], "failed");
    let noted = road.client.query("audit.all", json!({"action": "image.pull"})).await["items"][0].clone();
    assert_eq!(noted["requestId"], id, "{noted}");
    let server = lines_of(&road.purser.logs(), id);
    for message in ["target dispatched", "target ended"] {
        assert!(says(&server, message), "{message}: {server:#?}");
    }
    let logs = road.agents[0].logs();
    let agent: Vec<_> = logs.lines().filter(|line| line.contains(id)).collect();
    for said in ["reply=\"accepted\"", "target ended"] {
        assert!(agent.iter().any(|line| line.contains(said)), "{said}: {agent:#?}");
    }
}

#[tokio::test]
async fn an_id_is_taken_if_it_is_well_formed_and_else_made_on_every_door() {
    let purser = Purser::start().await;
    let client = purser.client();
    let long = "x".repeat(129);
    let id_of = |answer: &Answer| answer.headers["x-request-id"].to_str().unwrap().to_owned();
    for path in
        ["/api/trpc/registry.all", "/rpc", "/healthz", "/metrics", "/nowhere", "/api/audit.jsonl", "/agent"]
    {
        let asked = async |id: &str| {
            let headers = [("x-request-id", id)];
            id_of(&client.send(Method::GET, path, &headers, "").await.unwrap())
        };
        assert_eq!(asked("abc-1").await, "abc-1", "{path}");
        for bad in ["", "a b", "a\"b", "{x}", &long] {
            let made = asked(bad).await;
            assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{path}: {made}");
        }
    }
    // Each message on a socket is a request of its own, of the one that opened it.
    let mut socket = client.websocket().await.unwrap();
    for name in ["one", "two"] {
        socket.call("server.create", json!({"name": name})).await.unwrap();
    }
    let events = client.query("audit.all", json!({"action": "server.create"})).await["items"].clone();
    let ids: Vec<_> =
        events.as_array().unwrap().iter().map(|event| event["requestId"].as_str().unwrap()).collect();
    let opened = ids[0].strip_suffix(".2").unwrap();
    assert_eq!(ids[1], format!("{opened}.1"));
}

/// A line that is logged because of a call says which, whatever `RUST_LOG` lets pass.
#[tokio::test]
async fn an_error_says_its_request_at_any_level() {
    let purser = Purser::builder().rust_log("info,purser_server::request=error").start().await;
    let client = purser.client();
    purser.sql("ALTER TABLE server RENAME TO gone");
    let headers = [("x-request-id", "that-one")];
    let answer =
        send(&client, Method::GET, "/api/trpc/server.one?input=%7B%22serverId%22%3A%22x%22%7D", &headers, "");
    assert_eq!(answer.await.code(), "INTERNAL_SERVER_ERROR");
    assert!(says(&lines_of(&purser.logs(), "that-one"), "a call failed"), "{}", purser.logs());
}

#[tokio::test]
async fn no_answer_goes_without_its_security_headers() {
    let purser = Purser::start().await;
    let authority = purser_tests::Authority::new("hsts");
    let folder = tempfile_with(&authority);
    let tls = Purser::builder().certificate(folder.path(), "tls", &authority.pem()).start().await;
    for path in ["/api/trpc/registry.all", "/api/trpc/no.such", "/rpc", "/healthz", "/metrics", "/nowhere"] {
        for (purser, secure) in [(&purser, false), (&tls, true)] {
            let answer = purser.client().get(path).await;
            for (name, expected) in [
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "no-referrer"),
                ("x-frame-options", "DENY"),
                ("cache-control", "no-store"),
            ] {
                assert_eq!(answer.headers[name], expected, "{path}");
            }
            let policy = answer.headers["content-security-policy"].to_str().unwrap();
            assert!(
                policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
                "{path}"
            );
            assert_eq!(answer.headers.contains_key("strict-transport-security"), secure, "{path}");
        }
    }
}

fn tempfile_with(authority: &purser_tests::Authority) -> tempfile::TempDir {
    let folder = Testbed::get().scratch("hsts");
    let issued = authority.issue(&["127.0.0.1"], purser_tests::certificate::Validity::Current);
    issued.write(folder.path(), "tls").unwrap();
    folder
}

const APP: &str = "https://app.example.com";

async fn preflight(client: &Client, origin: &str) -> Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,x-api-key,trpc-accept,last-event-id"),
    ];
    client.without_key().send(Method::OPTIONS, "/api/trpc/registry.create", &headers, "").await.unwrap()
}

#[tokio::test]
async fn pages_of_other_origins_may_call_only_where_they_are_named() {
    let off = Purser::start().await;
    let on =
        Purser::builder().arg("--cors-allow-origin").arg("https://App.example.com/,http://localhost:5173");
    let on = on.start().await;
    let allowed = |answer: &Answer| {
        let origin = answer.headers.get("access-control-allow-origin");
        assert!(!answer.headers.contains_key("access-control-allow-credentials"), "{answer:?}");
        origin.map(|origin| origin.to_str().unwrap().to_owned())
    };
    for origin in [APP, "http://localhost:5173"] {
        let answer = preflight(&on.client(), origin).await;
        assert!(answer.status.is_success(), "{answer:?}");
        assert_eq!(allowed(&answer).as_deref(), Some(origin));
        let headers = answer.headers["access-control-allow-headers"].to_str().unwrap().to_lowercase();
        for header in [
            "x-api-key",
            "trpc-accept",
            "x-trpc-source",
            "last-event-id",
            "content-type",
            "authorization",
            "traceparent",
            "tracestate",
        ] {
            assert!(headers.split(',').any(|one| one == header), "{headers}");
        }
        assert!(answer.headers["access-control-allow-methods"].to_str().unwrap().contains("POST"));
    }
    let get = async |purser: &Purser, origin: &str| {
        let headers = [("origin", origin)];
        purser.client().send(Method::GET, "/api/trpc/registry.all", &headers, "").await.unwrap()
    };
    let answer = get(&on, APP).await;
    assert_eq!((answer.status.as_u16(), allowed(&answer).as_deref()), (200, Some(APP)));
    // What an answer tells of a key's limit, and of the rest, a page may read.
    let input =
        json!({"name": "limited", "role": "viewer", "rateLimit": {"requests": 1, "windowSeconds": 60}});
    let made = on.client().mutate("apiKey.create", input).await;
    let limited = on.anonymous().with_key(made["key"].as_str().unwrap());
    for client in [&limited, &limited, &on.anonymous()] {
        let answer = send(client, Method::GET, "/api/trpc/registry.all", &[("origin", APP)], "").await;
        let exposed = answer.headers["access-control-expose-headers"].to_str().unwrap();
        let told = answer.headers.keys().map(|name| name.as_str()).filter(|name| {
            name.contains("ratelimit") || ["x-request-id", "retry-after", "www-authenticate"].contains(name)
        });
        for name in told {
            assert!(exposed.split(',').any(|one| one == name), "{name} is not in {exposed}");
        }
    }
    assert!(answer.headers.get_all("vary").iter().any(|vary| vary.to_str().unwrap().contains("origin")));
    // An error can be read by the page, too.
    let unauthorized =
        on.anonymous().send(Method::GET, "/api/trpc/registry.all", &[("origin", APP)], "").await;
    assert_eq!(allowed(&unauthorized.unwrap()).as_deref(), Some(APP));
    for (purser, origin) in [(&on, "https://evil.example.com"), (&on, "null"), (&off, APP)] {
        assert_eq!(allowed(&preflight(&purser.client(), origin).await), None, "{origin}");
        assert_eq!(allowed(&get(purser, origin).await), None, "{origin}");
    }
    for bad in ["*", "app.example.com", "https://app.example.com/path", "https://", "https://a b"] {
        assert!(
            refusal(&["--cors-allow-origin", bad], &[]).contains("--cors-allow-origin takes origins"),
            "{bad}"
        );
    }
}

/// (Always on PostgreSQL: SQLite's file does not go away.)
#[tokio::test]
async fn while_the_database_is_away_whoever_calls_is_told_to_come_again() {
    let database = Database::create();
    let purser = Purser::builder().database_url(database.url()).start().await;
    let client = purser.client();
    assert_eq!(client.get("/api/server.all").await.status, 200);
    database.away(true);
    let answer = client.get("/api/server.all").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (503, &json!("SERVICE_UNAVAILABLE")));
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    database.away(false);
    eventually(SOON, async || (client.get("/api/server.all").await.status == 200).then_some(())).await;
}
