//! The documents that describe the doors: valid by their own rules, and true of the running server.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use http::Method;
use jsonschema::{Registry, Validator};
use purser_proto_schema::procedure::{self, Kind, ProcedureInfo};
use purser_tests::{Client, Purser, tenant::Grant};
use serde_json::{Value, json};

use crate::answers::send;

const OPENAPI: &str = "/api/openapi.json";

fn beside(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Where the Python programs are that judge the OpenAPI document: made at the first call, and again when
/// what they need has changed.
fn python() -> PathBuf {
    let requirements = beside("clients-python/requirements.txt");
    let wanted = fs::read_to_string(&requirements).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients-python");
    fs::create_dir_all(&folder).unwrap();
    // Another test process may be at it.
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let (venv, done) = (folder.join("venv"), folder.join("done"));
    if fs::read_to_string(&done).is_ok_and(|had| had == wanted) {
        return venv.join("bin");
    }
    let _ = fs::remove_dir_all(&venv);
    run(
        "making a Python environment (Debian packages python3, python3-venv)",
        Command::new("python3").args(["-m", "venv"]).arg(&venv),
    );
    let pip = ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"];
    run(
        "installing tests/clients-python/requirements.txt from PyPI",
        Command::new(venv.join("bin/pip")).args(pip).arg(&requirements),
    );
    fs::write(&done, wanted).unwrap();
    venv.join("bin")
}

#[track_caller]
fn run(what: &str, command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{what}: {command:?}: {error}"));
    let said = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success(), "{what}: {command:?}: {}\n{out}\n{err}", output.status);
    out
}

#[tokio::test]
async fn the_openapi_document_needs_no_key_and_is_sent_once() {
    let purser = Purser::start().await;
    let nobody = purser.client().without_key();
    let document = nobody.get(OPENAPI).await;
    assert_eq!(document.status, 200);
    assert_eq!(document.headers["content-type"], "application/json");
    assert_eq!(document.json()["openapi"], "3.1.0");
    let tag = document.headers["etag"].to_str().unwrap().to_owned();
    for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
        let again = send(&nobody, Method::GET, OPENAPI, &[("if-none-match", &known)], "").await;
        assert_eq!((again.status.as_u16(), again.body.len()), (304, 0), "{known}");
        assert_eq!(again.headers["etag"], tag.as_str());
    }
    let other = send(&nobody, Method::GET, OPENAPI, &[("if-none-match", "\"other\"")], "").await;
    assert_eq!(other.status, 200);
    assert_eq!(other.body, document.body);
}

/// The same document with a registry on loopback in its examples, where all traffic of the suite stays, and
/// without the field that has a call wait for a host.
fn on_loopback(document: &str) -> String {
    fn without_wait(value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.remove("wait");
                members.values_mut().for_each(without_wait);
            }
            Value::Array(items) => items.iter_mut().for_each(without_wait),
            _ => {}
        }
    }
    let mut document = serde_json::from_str(&document.replace("ghcr.io", "127.0.0.1:1")).unwrap();
    without_wait(&mut document);
    document.to_string()
}

#[tokio::test]
async fn the_openapi_document_is_valid_and_the_server_does_what_it_says() {
    let purser = Purser::start().await;
    let python = python();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("openapi.json");
    fs::write(&file, purser.client().get(OPENAPI).await.body).unwrap();
    run("validating the document", Command::new(python.join("openapi-spec-validator")).arg(&file));

    fs::write(&file, on_loopback(&fs::read_to_string(&file).unwrap())).unwrap();
    let key = format!("x-api-key: {}", purser.admin_key());
    let mut command = Command::new(python.join("schemathesis"));
    command.arg("--config-file").arg(beside("clients-python/schemathesis.toml"));
    command.arg("run").arg(&file).args(["--url", purser.url(), "--header", &key]);
    // What a schema takes may still be refused: a host that nothing listens on, an image that no registry has.
    command.args(["--checks", "all", "--exclude-checks", "positive_data_acceptance"]);
    command.args([
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        "5",
        "--seed",
        "1",
        "--no-shrink",
    ]);
    // One worker: Python 3.11 parses in several threads at once with "AST constructor recursion depth mismatch".
    command.args(["--continue-on-failure", "--workers", "1", "--generation-database", "none"]);
    command.args(["--request-timeout", "60", "--max-response-time", "60"]);
    // Not a word of these runs in the source folder.
    command.current_dir(folder.path());
    let said = tokio::task::spawn_blocking(move || run("schemathesis", &mut command)).await.unwrap();
    // Of as many operations as there are, by GET and by POST, and the export of the audit, all were called.
    let called = |info: &ProcedureInfo| match info.kind {
        Kind::Query => 2,
        Kind::Mutation => 1,
        Kind::Subscription => 0,
    };
    let operations = procedure::table().map(called).sum::<usize>() + 1;
    for line in [format!("Selected: {operations}/{operations}"), format!("Tested: {operations}")] {
        assert!(said.lines().any(|said| said.trim() == line), "no {line}: {said}");
    }
    assert!(!purser.logs().contains("panicked"), "{}", purser.logs());
}

/// The rules of OpenRPC, as published, with those of JSON Schema that they refer to.
fn openrpc_rules() -> Validator {
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(beside("fixtures/openrpc").join(name)).unwrap()).unwrap()
    };
    // Both name the second as their dialect, which is draft 7.
    let [rules, schema] = ["meta-schema.json", "json-schema.json"].map(|name| {
        let mut rules = read(name);
        rules["$schema"] = json!("http://json-schema.org/draft-07/schema#");
        rules
    });
    // It is referred to with and without the slash.
    let registry = Registry::new()
        .add("https://meta.json-schema.tools/", schema.clone())
        .and_then(|registry| registry.add("https://meta.json-schema.tools", schema))
        .and_then(|registry| registry.prepare())
        .unwrap();
    jsonschema::draft7::options().with_registry(&registry).build(&rules).unwrap()
}

#[tokio::test]
async fn rpc_discover_answers_a_valid_openrpc_document_on_post_and_on_a_socket() {
    let purser = Purser::start().await;
    let client = purser.client();
    let answer = client.without_key().rpc("rpc.discover", &Value::Null).await;
    let document = answer.json()["result"].take();
    assert_eq!(document["openrpc"], "1.3.2", "{answer:?}");
    let rules = openrpc_rules();
    let errors: Vec<_> =
        rules.iter_errors(&document).map(|error| format!("{error} at {}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    // It notices a fault.
    let mut broken = document.clone();
    broken["methods"][0]["paramStructure"] = json!("by-magic");
    assert!(!rules.is_valid(&broken));

    let methods = document["methods"].as_array().unwrap();
    for info in procedure::table() {
        let method = methods.iter().find(|method| method["name"] == info.name);
        assert_eq!(method.unwrap()["paramStructure"], "by-name", "{}", info.name);
    }
    // JSON has many texts for nothing.
    for nothing in ["{}", "[]", "{ }", "[ ]", "{\n}", "[\t\r\n]"] {
        let call = format!(r#"{{"jsonrpc": "2.0", "id": 1, "method": "rpc.discover", "params": {nothing}}}"#);
        let answer = send(&client, Method::POST, "/rpc", &[], &call).await;
        assert_eq!(answer.json()["result"], document, "{call}");
    }
    let mut socket = client.websocket().await.unwrap();
    assert_eq!(socket.call("rpc.discover", json!({})).await.unwrap()["result"], document);
    for params in [json!({"secret": "hunter2"}), json!(["hunter2"])] {
        let refused = client.rpc("rpc.discover", &params).await;
        assert_eq!(refused.error()["code"], -32602, "{refused:?}");
        assert!(!refused.text().contains("hunter2"));
    }
}

/// Every method, and the numbers of the errors that the document names for it.
async fn documented_errors(client: &Client) -> BTreeMap<String, BTreeSet<i64>> {
    let document = client.rpc("rpc.discover", &Value::Null).await.json();
    let methods = document["result"]["methods"].as_array().unwrap();
    let numbers = |method: &Value| {
        method["errors"].as_array().unwrap().iter().map(|error| error["code"].as_i64().unwrap()).collect()
    };
    methods.iter().map(|method| (method["name"].as_str().unwrap().to_owned(), numbers(method))).collect()
}

/// What is answered to a method when nobody, somebody with few permissions and somebody with all call it, well and badly,
/// alone, on a socket and in a batch that has been answered enough.
#[tokio::test]
async fn no_method_of_json_rpc_answers_an_error_that_its_document_does_not_name() {
    let purser = Purser::start().await;
    let client = purser.client();
    let weak = purser.key_in(&purser.default_organization(), Grant::Role("viewer"));
    let documented = documented_errors(&client).await;
    let mut answered: BTreeMap<&str, BTreeSet<i64>> = BTreeMap::new();
    let mut socket = client.websocket().await.unwrap();
    for name in documented.keys() {
        let mut hear = |answer: &Value| {
            assert!(!answer["id"].is_null(), "{name}: {answer}");
            answered.entry(name).or_default().extend(answer["error"]["code"].as_i64());
        };
        let info = procedure::table().find(|info| info.name == name);
        let example: Value =
            serde_json::from_str(info.map_or(r#"{"input": {}}"#, |info| info.example)).unwrap();
        for params in
            [json!({}), json!({"colour": "red"}), json!({"subscription": 1}), example["input"].clone()]
        {
            for client in [&client.without_key(), &weak, &client] {
                hear(&client.rpc(name, &params).await.json());
            }
            hear(&socket.call(name, params).await.unwrap());
        }
    }

    let length = client.rpc("rpc.discover", &Value::Null).await.body.len();
    // The first 2 MiB, and as many again as may be under way by then.
    let enough = (2 << 20) / length + 1 + 8;
    let names = std::iter::repeat_n("rpc.discover", enough).chain(documented.keys().map(String::as_str));
    let calls: Vec<Value> =
        names.enumerate().map(|(id, name)| json!({"jsonrpc": "2.0", "id": id, "method": name})).collect();
    let answers = client.post("/rpc", &calls.into()).await.json();
    for (name, answer) in documented.keys().zip(&answers.as_array().unwrap()[enough..]) {
        assert_eq!(answer["error"]["data"]["code"], "PAYLOAD_TOO_LARGE", "{name}: {answer}");
        answered.get_mut(name.as_str()).unwrap().extend(answer["error"]["code"].as_i64());
    }

    let of_sockets = ["job.unwatch", "job.watch", "registry.events", "registry.unevents"];
    let refused_by_post =
        answered.iter().filter(|(_, numbers)| numbers.contains(&-32005)).map(|(name, _)| *name);
    assert_eq!(refused_by_post.collect::<Vec<_>>(), of_sockets);
    let undocumented: Vec<_> = answered
        .iter()
        .flat_map(|(name, numbers)| numbers.difference(&documented[*name]).map(move |number| (name, number)))
        .collect();
    assert!(undocumented.is_empty(), "{undocumented:?}");
}

/// Every example of the documents really is a call: it gets as far as the things that it names.
#[tokio::test]
async fn every_example_is_a_call_that_nothing_is_wrong_with() {
    let purser = Purser::start().await;
    let client = purser.client();
    for info in procedure::table().filter(|info| info.kind != Kind::Subscription) {
        let example: Value = serde_json::from_str(info.example).unwrap();
        let answer = client.post(&format!("/api/{}", info.name), &example["input"]).await;
        let fits_no_server = answer.text().contains("fit no server");
        assert!([200, 404].contains(&answer.status.as_u16()) || fits_no_server, "{}: {answer:?}", info.name);
    }
}
