//! Bad input of every kind, for every field of every procedure: BAD_REQUEST that names the field and
//! repeats nothing of what was sent, in no answer and no log line.

use http::Method;
use purser_tests::{Answer, Client, Purser};
use serde_json::{Value, json};

use crate::{
    answers::{refused, send},
    inputs::{CALLS, Call, Field, Form, Things},
};

/// In every bad value. Its upper case makes it no image name and no registry path.
pub const MARK: &str = "Mk7QzPv9w";

/// Values of the wrong type for a field.
fn wrong_types(form: Form) -> Vec<Value> {
    let mut values = match form {
        Form::Text
        | Form::Registry
        | Form::Server
        | Form::Site
        | Form::Job
        | Form::Organization
        | Form::ApiKey => {
            vec![json!(5), json!(1.5), json!(true), json!([]), json!([MARK]), json!({}), json!({MARK: MARK})]
        }
        Form::Flag => vec![json!(MARK), json!("true"), json!(1), json!([]), json!({}), json!([true])],
        Form::Choice => {
            vec![json!(MARK), json!(""), json!(1), json!(true), json!([MARK]), json!({}), json!({MARK: MARK})]
        }
        Form::Count | Form::Number => {
            let above = if form == Form::Count { json!(101) } else { json!(1e9) };
            vec![json!(MARK), json!("5"), json!(-1), json!(1.5), json!(1e30), json!(0), above, json!([1])]
        }
        Form::Servers => {
            vec![json!(MARK), json!(5), json!({}), json!([5]), json!([[MARK]]), json!([]), json!([""])]
        }
        Form::Labels => {
            vec![
                json!(MARK),
                json!(5),
                json!([]),
                json!([MARK]),
                json!({"k": 5}),
                json!({"k": [MARK]}),
                json!({"k": null}),
            ]
        }
        Form::OneTime => vec![
            json!(MARK),
            json!([]),
            json!([MARK, MARK]),
            json!({"username": MARK}),
            json!({"password": MARK}),
            json!({"username": MARK, "password": [MARK]}),
            json!({"username": MARK, "password": MARK, "other": MARK}),
            json!({"username": format!("{MARK}:"), "password": MARK}),
            json!({"username": MARK, "password": ""}),
        ],
        Form::Hosts => vec![
            json!(MARK),
            json!(5),
            json!({MARK: MARK}),
            json!([5]),
            json!([[MARK]]),
            json!([""]),
            json!([format!("https://{MARK}")]),
            json!([format!("h/{MARK}")]),
            json!([format!("u:{MARK}@h")]),
            json!([format!("*.{MARK}")]),
            json!(["h", format!("{MARK} ~")]),
            json!(vec![MARK; 33]),
        ],
        Form::Profiles => vec![
            json!(MARK),
            json!(5),
            json!({MARK: MARK}),
            json!([5]),
            json!([[MARK]]),
            json!([""]),
            json!([format!("{MARK} ~")]),
            json!(vec![MARK; 101]),
        ],
        Form::Time => vec![
            json!(MARK),
            json!(""),
            json!(5),
            json!(true),
            json!([]),
            json!({MARK: MARK}),
            json!(format!("2026-01-15T10:30:00.000Z{MARK}")),
            json!("2026-02-30T10:30:00.000Z"),
        ],
        Form::Permissions => vec![
            json!(MARK),
            json!(5),
            json!({MARK: MARK}),
            json!([]),
            json!([5]),
            json!([[MARK]]),
            json!([""]),
            json!(["registry:read", MARK]),
            json!([{"registry:read": null}]),
        ],
        Form::RateLimit => vec![
            json!(MARK),
            json!(5),
            json!([]),
            json!([1, 1]),
            json!({"requests": 1}),
            json!({"windowSeconds": 1}),
            json!({"requests": MARK, "windowSeconds": 1}),
            json!({"requests": 1, "windowSeconds": [MARK]}),
            json!({"requests": 0, "windowSeconds": 1}),
            json!({"requests": 1, "windowSeconds": 86_401}),
            json!({"requests": 1_000_001, "windowSeconds": 1}),
            json!({"requests": -1, "windowSeconds": 1}),
            json!({"requests": 1, "windowSeconds": 1, "other": MARK}),
        ],
        Form::Access => vec![json!(MARK), json!([MARK]), json!(5), json!({}), json!([["pull"]]), json!("")],
    };
    match form {
        Form::Choice => {
            values.extend([json!({"cloud": null}), json!({"queued": null}), json!({"pull": null})])
        }
        Form::Access => values.push(json!({"pull": null})),
        Form::Registry | Form::Server | Form::Job | Form::Organization | Form::ApiKey => {
            values.push(json!(""));
        }
        _ => {}
    }
    values
}

/// Text of the right type that the field may not hold.
fn wrong_texts(field: &str) -> Vec<String> {
    let zero = format!("{MARK}\u{0}");
    let bell = format!("{MARK}\u{7}");
    let long = |length: usize| format!("{MARK}{}", "x".repeat(length));
    match field {
        "registryName" | "name" => vec![String::new(), "  \t".into(), long(256), zero, bell],
        "registryUrl" => [
            "",
            " ",
            "ftp://Mk7QzPv9w",
            "http://",
            "Mk7QzPv9w Mk7QzPv9w",
            "https://u:Mk7QzPv9w@h",
            "h:99999",
            "h:Mk7QzPv9w",
            "https://h?Mk7QzPv9w",
            "https://h#Mk7QzPv9w",
            "h/../Mk7QzPv9w",
            "h\u{0}",
            "-Mk7QzPv9w-",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain([long(3000), zero])
        .collect(),
        "username" => vec![String::new(), format!("{MARK}:x"), long(256), zero, bell],
        "password" => vec![String::new(), long(64 * 1024)],
        "imagePrefix" => vec![MARK.into(), format!("../{MARK}"), format!("a b{MARK}"), zero, long(3000)],
        "caCertificate" => vec![
            MARK.into(),
            zero,
            format!("-----BEGIN CERTIFICATE-----\n{MARK}\n-----END CERTIFICATE-----"),
            format!("-----BEGIN PRIVATE KEY-----\n{MARK}\n-----END PRIVATE KEY-----"),
            long(64 * 1024),
        ],
        "repository" => {
            vec![String::new(), MARK.into(), format!("a/../{MARK}"), "a:b".into(), zero, long(300)]
        }
        "image" => vec![
            String::new(),
            " ".into(),
            MARK.into(),
            format!("a:{MARK}/b"),
            format!("a@sha256:{MARK}"),
            format!("http://h/{MARK}"),
            zero,
            long(3000),
        ],
        "composeFile" => vec![
            String::new(),
            " ".into(),
            MARK.into(),
            format!("services: [{MARK}"),
            format!("services: {{app: {{image: {MARK}}}}}"),
            format!("services: {{app: {{image: a, image: {MARK}}}}}"),
            format!("services: {{app: {{image: 'a:${{{MARK}!'}}}}"),
            format!("services: {{'{MARK} ~': {{image: a}}}}"),
            zero,
            long(512 * 1024),
        ],
        "tag" | "reference" => {
            vec![String::new(), format!(".{MARK}"), format!("{MARK}/x"), format!("{MARK} "), zero, long(128)]
        }
        "platform" => {
            vec![String::new(), MARK.into(), format!("linux/{MARK}"), "linux/".into(), zero, long(99)]
        }
        "query" => vec![String::new(), "  ".into(), long(256), zero, bell],
        "description" => vec![long(1024), zero],
        "cursor" => vec![MARK.into(), long(100), zero],
        "action" | "outcome" => vec![String::new(), format!("{MARK} x"), long(64), zero, bell],
        "from" | "to" => vec![
            String::new(),
            MARK.into(),
            "2026-01-15".into(),
            "2026-13-15T10:30:00.000Z".into(),
            "1969-12-31T23:59:59.999Z".into(),
            "+12026-01-15T10:30:00.000Z".into(),
            zero,
        ],
        other => panic!("no bad text is known for {other}"),
    }
}

/// The input of a call with one field of it replaced, and with what that field needs beside it.
pub fn with(call: &Call, things: &Things, field: &Field, value: Value) -> Value {
    let mut input = things.input(call);
    match (call.name, field.name) {
        ("image.pull" | "stack.pull", "serverIds" | "labels") => {
            input.as_object_mut().unwrap().remove("serverId");
        }
        ("registry.manifest", "repository" | "reference") => {
            input = json!({"registryId": things.registry, "repository": "app"});
        }
        (_, "username") => input["password"] = json!(MARK),
        (_, "password") => input["username"] = json!("u"),
        (_, "access") => input["repository"] = json!("app"),
        _ => {}
    }
    input[field.name] = value;
    input
}

/// An answer to bad input: BAD_REQUEST, with an issue for this field, without what was sent.
#[track_caller]
fn names(answer: &Answer, call: &Call, field: &str, what: &dyn std::fmt::Display) {
    let what: String = what.to_string().chars().take(120).collect();
    assert_eq!(answer.status, 400, "{} {field} {what}: {answer:?}", call.name);
    let error = refused(answer, "BAD_REQUEST", Some(call.name));
    let issues = &error["data"]["zodError"]["fieldErrors"][field];
    let some = issues.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(Value::is_string));
    assert!(some, "{} {field} {what}: {answer:?}", call.name);
    silent(answer, call, &what);
}

#[track_caller]
fn silent(answer: &Answer, call: &Call, what: &str) {
    assert!(answer.status.as_u16() < 500, "{} {what}: {answer:?}", call.name);
    assert!(!answer.text().contains(MARK), "{} {what} was repeated: {answer:?}", call.name);
}

async fn world() -> (Purser, Client, Things) {
    let purser = Purser::builder().rust_log("trace").start().await;
    let client = purser.client();
    let things = Things::make(&client, "things").await;
    (purser, client, things)
}

#[track_caller]
fn nothing_in_the_log(purser: &Purser) {
    let logs = purser.logs();
    assert!(!logs.contains(MARK), "{:?}", logs.lines().find(|line| line.contains(MARK)));
    assert!(!logs.contains("panicked"), "{logs}");
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_named_and_not_repeated() {
    let (purser, client, things) = world().await;
    for call in CALLS {
        for field in call.fields {
            let mut values = wrong_types(field.form);
            if field.required {
                values.push(Value::Null);
            }
            for value in values {
                let input = with(call, &things, field, value.clone());
                names(&client.trpc_mutation(call.name, &input).await, call, field.name, &value);
                let rpc = client.rpc(call.name, &input).await;
                let data = &rpc.error()["data"];
                assert!(
                    data["zodError"]["fieldErrors"][field.name].is_array(),
                    "{} {value}: {rpc:?}",
                    call.name
                );
                silent(&rpc, call, field.name);
            }
        }
    }
    nothing_in_the_log(&purser);
}

#[tokio::test]
async fn text_that_a_field_may_not_hold_is_named_and_not_repeated() {
    let (purser, client, things) = world().await;
    for call in CALLS {
        // What a test takes for compatibility and does not look at.
        let ignored = |field: &&Field| {
            call.name != "registry.testRegistry" || !["registryName", "imagePrefix"].contains(&field.name)
        };
        for field in call.fields.iter().filter(|field| field.form == Form::Text).filter(ignored) {
            for text in wrong_texts(field.name) {
                let input = with(call, &things, field, json!(text));
                // Nothing but space is no prefix and no certificate, and no tag is asked for by "".
                names(&client.trpc_mutation(call.name, &input).await, call, field.name, &text);
            }
        }
    }
    nothing_in_the_log(&purser);
}

#[tokio::test]
async fn an_id_of_any_form_is_not_found_or_a_bad_field() {
    let (purser, client, things) = world().await;
    let ids = [
        format!("{MARK}\u{0}"),
        "\u{0}".to_owned(),
        format!("{MARK}\u{7}\n"),
        format!("é😀\u{202e}{MARK}"),
        MARK.repeat(8),
        MARK.repeat(100_000),
    ];
    let is_id = |form| {
        use Form::{ApiKey, Job, Organization, Registry, Server, Servers, Site};
        matches!(form, Registry | Server | Site | Job | Servers | Organization | ApiKey)
    };
    for call in CALLS {
        for field in call.fields.iter().filter(|field| is_id(field.form)) {
            for id in &ids {
                let value = if field.form == Form::Servers { json!([id]) } else { json!(id) };
                let answer = client.trpc_mutation(call.name, &with(call, &things, field, value)).await;
                let filter = ["job.all", "audit.all"].contains(&call.name) && answer.status == 200;
                let expected = [400, 404].contains(&answer.status.as_u16()) || filter;
                assert!(expected, "{} {}: {answer:?}", call.name, field.name);
                silent(&answer, call, field.name);
                if answer.status == 400 {
                    names(&answer, call, field.name, &"an id");
                }
            }
        }
    }
    nothing_in_the_log(&purser);
}

#[tokio::test]
async fn unknown_and_missing_and_repeated_fields_are_named() {
    let (purser, client, things) = world().await;
    for call in CALLS {
        let whole = things.input(call);
        let mut unknown = whole.clone();
        unknown["colour"] = json!(MARK);
        names(&client.trpc_mutation(call.name, &unknown).await, call, "colour", &unknown);
        // The organization is the key's, and nobody's to choose.
        if !call.fields.iter().any(|field| field.name == "organizationId") {
            let mut foreign = whole.clone();
            foreign["organizationId"] = json!(MARK);
            names(&client.trpc_mutation(call.name, &foreign).await, call, "organizationId", &foreign);
        }
        for field in call.fields {
            if field.required {
                let mut without = whole.clone();
                without.as_object_mut().unwrap().remove(field.name);
                names(&client.trpc_mutation(call.name, &without).await, call, field.name, &"missing");
            }
            let value = whole.get(field.name).cloned().unwrap_or(Value::Null);
            let path = format!("/api/trpc/{}", call.name);
            let twice = format!(r#"{{"{0}":{value},"{0}":"{MARK}"}}"#, field.name);
            let answer = send(&client, Method::POST, &path, &[], &twice).await;
            names(&answer, call, field.name, &twice);
        }
    }
    nothing_in_the_log(&purser);
}

/// The message says what the field takes, in the caller's terms, and names it once.
#[tokio::test]
async fn what_is_wrong_is_said_in_one_sentence() {
    let purser = Purser::start().await;
    let client = purser.client();
    let limit = |requests: u32, seconds: u32| {
        json!({"name": "e", "role": "viewer",
            "rateLimit": {"requests": requests, "windowSeconds": seconds}})
    };
    for (procedure, input, said) in [
        ("audit.all", json!({"from": "2026-01-01"}), "from: must be a time such as 2026-01-15T10:30:00Z"),
        ("audit.all", json!({"from": 5}), "from: expected a time such as 2026-01-15T10:30:00Z"),
        ("apiKey.create", json!({"name": "e"}), "permissions: must be given, or a role"),
        ("apiKey.create", limit(0, 60), "rateLimit.requests: must be 1 to 1000000"),
        (
            "apiKey.create",
            limit(0, 0),
            "rateLimit.requests: must be 1 to 1000000; rateLimit.windowSeconds: must be 1 to 86400",
        ),
        ("image.pull", json!({"image": "a", "auth": {"username": "u"}}), "auth.password: is required"),
    ] {
        let error = client.trpc_mutation(procedure, &input).await.error();
        assert_eq!(error["message"], said, "{procedure} {input}: {error}");
    }
}

#[tokio::test]
async fn an_input_that_is_no_object_of_fields_is_refused() {
    let (purser, client, _) = world().await;
    let deep =
        |open: &str, close: &str, depth: usize| format!("{}{}", open.repeat(depth), close.repeat(depth));
    let inputs = [
        format!("\"{MARK}\""),
        format!("[\"{MARK}\"]"),
        format!("[{{\"{MARK}\":1}}]"),
        "5".into(),
        "true".into(),
        "[]".into(),
        format!("{{\"{MARK}"),
        format!("{{\"a\":{MARK}}}"),
        deep("[", "]", 100_000),
        format!("{}1{}", r#"{"a":"#.repeat(50_000), "}".repeat(50_000)),
        format!(r#"{{"registryId":{}}}"#, deep("[", "]", 100_000)),
        format!(r#"{{"json":{}}}"#, deep("[", "]", 100_000)),
        format!(r#"{{"json":{{}},"meta":{{"values":{}}}}}"#, deep("[", "]", 100_000)),
        "\"\\ud800\"".into(),
        "{\"registryId\":\"\\ud800\"}".into(),
        "{\"limit\":1e999}".into(),
        format!("{{\"{}\":1}}", MARK.repeat(1000)),
        format!("{{\"{MARK} <script>\":1}}"),
    ];
    for call in CALLS {
        for input in &inputs {
            let path = format!("/api/trpc/{}", call.name);
            let answer = send(&client, Method::POST, &path, &[], input).await;
            let what: String = input.chars().take(40).collect();
            assert_eq!(answer.status, 400, "{} {what}: {answer:?}", call.name);
            silent(&answer, call, &what);
            let rpc = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}","params":{input}}}"#, call.name);
            silent(&send(&client, Method::POST, "/rpc", &[], &rpc).await, call, &what);
        }
    }
    nothing_in_the_log(&purser);
}

#[tokio::test]
async fn null_is_absent_where_a_field_may_be_absent() {
    let (_purser, client, things) = world().await;
    for call in CALLS.iter().filter(|call| call.name != "registry.remove") {
        for field in call.fields.iter().filter(|field| !field.required) {
            let is_needed = [
                ("image.pull", "serverId"),
                ("stack.pull", "serverId"),
                ("registry.manifest", "image"),
                ("apiKey.create", "permissions"),
            ]
            .contains(&(call.name, field.name));
            // There null clears; clearing one of a pair is asked elsewhere.
            let is_pair = call.name == "registry.update" && ["username", "password"].contains(&field.name);
            if is_needed || is_pair {
                continue;
            }
            let mut input = things.input(call);
            input[field.name] = Value::Null;
            let answer = client.trpc_mutation(call.name, &input).await;
            let asks = ["registry.test", "registry.catalog", "registry.tags", "registry.manifest"];
            let asks = asks.iter().any(|name| call.name.starts_with(name));
            let is_diagnosed = asks && answer.json().pointer("/error/data/diagnosis").is_some();
            assert!(answer.status == 200 || is_diagnosed, "{} {}: {answer:?}", call.name, field.name);
        }
    }
}
