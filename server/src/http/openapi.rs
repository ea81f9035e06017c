//! `GET /api/openapi.json`: the plain door as OpenAPI 3.1, made of the procedure table.
//!
//! It needs no key: it says how to call, and nothing of who may or of what is stored. It is the same for everybody,
//! and public with the program's source; generators and consoles fetch it before they have a key.

use std::sync::LazyLock;

use axum::{extract::Request, response::Response};
use purser_proto_schema::{
    audit,
    error::Code,
    procedure::{self, Kind, Procedure as _, ProcedureInfo},
    schema::{self, schemas},
};
use serde_json::{Map, Value, json};

use super::{audit_export, document::Document, plain};

/// Codes that a call with a body may meet besides the procedure's own.
const OF_BODIES: [Code; 3] = [Code::Timeout, Code::PayloadTooLarge, Code::UnsupportedMediaType];
const JSON: &str = "application/json";

const ABOUT: &str = "Keeps an organization's registry credentials, and tests, pulls and pushes with them on Docker hosts.

Queries are called by GET with parameters or by POST with JSON, mutations by POST. Subscriptions are not called here, \
but on a WebSocket at `/rpc`. Fields that the schemas do not name are refused; a field that may be null may as well be \
absent.";

pub(super) async fn handle(request: Request) -> Response {
    static DOCUMENT: LazyLock<Document> =
        LazyLock::new(|| Document::new("application/json", document().to_string()));
    DOCUMENT.answer(request.headers())
}

fn document() -> Value {
    let called = || procedure::table().filter(|info| info.kind != Kind::Subscription);
    let mut paths: Map<String, Value> =
        called().map(|info| (format!("{}{}", plain::MOUNT, info.name), path_item(info))).collect();
    paths.insert(audit_export::PATH.to_owned(), json!({"get": export(&audit::All::INFO)}));
    let mut namespaces: Vec<&str> = called().map(namespace).collect();
    namespaces.dedup();
    let responses: Map<String, Value> =
        Code::ALL.iter().map(|code| (code.as_str().to_owned(), refusal(*code))).collect();
    let errors = Code::ALL.iter().map(|code| (error_name(*code), error_schema(*code)));
    let definitions = schemas().definitions.iter().map(|(name, schema)| (name.clone(), schema.clone()));
    let definitions: Map<String, Value> = definitions.chain(errors).collect();
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Purser",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"apiKey": []}, {"bearer": []}],
        "tags": namespaces.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": definitions,
            "responses": responses,
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer", "description": "The same key as a bearer token."},
            },
        },
    });
    schema::words_as_enums(&mut document);
    document
}

fn namespace(info: &'static ProcedureInfo) -> &'static str {
    info.name.split('.').next().unwrap_or_default()
}

fn path_item(info: &'static ProcedureInfo) -> Value {
    let example: Value = serde_json::from_str(info.example).unwrap_or_default();
    match info.kind {
        Kind::Query | Kind::Subscription => json!({
            "get": by_get(info, &example),
            "post": by_post(info, &example, format!("{}.post", info.name)),
        }),
        Kind::Mutation => json!({"post": by_post(info, &example, info.name.to_owned())}),
    }
}

fn by_get(info: &'static ProcedureInfo, example: &Value) -> Value {
    let parameters: Vec<Value> = schemas()
        .fields(info.name)
        .into_iter()
        .map(|(name, schema, required)| parameter(name, schema, required, &example["input"][name]))
        .collect();
    let mut operation = operation(info, example, info.name.to_owned(), info.codes());
    if let Some(responses) = operation["responses"].as_object_mut() {
        // Of the HTTP library below, before there is a request to answer.
        for status in ["414", "431"] {
            let description = "The URL or the head is too long to be read; an input by POST may be longer, where there is one. There is no body.";
            responses.insert(status.to_owned(), json!({"description": description}));
        }
    }
    operation.insert("parameters".to_owned(), parameters.into());
    operation.into()
}

/// All of what a procedure tells in pages, line by line.
fn export(info: &'static ProcedureInfo) -> Value {
    let example: Value = serde_json::from_str(info.example).unwrap_or_default();
    let mut operation = by_get(info, &example);
    operation["operationId"] = "audit.jsonl".into();
    operation["summary"] = "All of it, one JSON object a line".into();
    operation["description"] = format!(
        "What `{}` tells with the same filters, all of it, newest first: of each event a line, which is an \
         `AuditEvent` as JSON. An answer that breaks off has no proper end.",
        info.name
    )
    .into();
    if let Some(parameters) = operation["parameters"].as_array_mut() {
        parameters.retain(|parameter| parameter["name"].as_str().is_some_and(audit_export::takes));
    }
    operation["responses"]["200"] = json!({
        "description": "The events.",
        "content": {audit_export::MEDIA: {
            "schema": {"type": "string"},
            "example": format!("{}\n", example["output"]["items"][0]),
        }},
    });
    operation
}

fn parameter(name: &str, schema: &Value, required: bool, example: &Value) -> Value {
    let mut schema = schema.clone();
    let mut parameter = json!({"name": name, "in": "query", "required": required});
    if let Value::Object(schema) = &mut schema {
        // A parameter is there or it is not.
        schema::without_null(schema);
        if let Some(description) = schema.remove("description") {
            parameter["description"] = description;
        }
    }
    let is_object = schemas().resolve(&schema)["type"] == "object";
    let place = if is_object {
        parameter["content"] = json!({JSON: {"schema": schema}});
        &mut parameter["content"][JSON]
    } else {
        parameter["schema"] = schema;
        parameter["style"] = "form".into();
        parameter["explode"] = true.into();
        &mut parameter
    };
    if !example.is_null() {
        place["example"] = example.clone();
    }
    parameter
}

fn by_post(info: &'static ProcedureInfo, example: &Value, id: String) -> Value {
    let of = schemas().of(info.name);
    let schema = of.map(|schemas| &schemas.input);
    let mut operation = operation(info, example, id, info.codes().chain(OF_BODIES));
    let body = json!({
        "required": true,
        "content": {JSON: {"schema": schema, "example": example["input"]}},
    });
    operation.insert("requestBody".to_owned(), body);
    operation.into()
}

fn operation(
    info: &'static ProcedureInfo,
    example: &Value,
    id: String,
    codes: impl Iterator<Item = Code>,
) -> Map<String, Value> {
    let description = info.description();
    let output = schemas().of(info.name).map(|schemas| &schemas.output);
    let mut responses = Map::new();
    let value = json!({
        "description": "What was asked for.",
        "content": {JSON: {"schema": output, "example": example["output"]}},
    });
    responses.insert("200".to_owned(), value);
    for code in codes {
        let reference = json!({"$ref": format!("#/components/responses/{}", code.as_str())});
        responses.insert(code.http_status().to_string(), reference);
    }
    let operation = json!({
        "operationId": id,
        "tags": [namespace(info)],
        "summary": summary(&description),
        "description": description,
        "responses": responses,
        "x-permission": info.permission.as_str(),
    });
    if let Value::Object(operation) = operation { operation } else { Map::new() }
}

/// The first sentence.
pub(super) fn summary(description: &str) -> &str {
    description.split_once(". ").map_or(description, |(first, _)| first).trim_end_matches('.')
}

/// The answer that a code is.
fn refusal(code: Code) -> Value {
    let (name, status) = (code.as_str(), code.http_status());
    let mut data = json!({"code": name, "httpStatus": status, "path": "registry.one"});
    let mut message = code.description();
    let mut headers = json!({});
    match code {
        Code::BadRequest => {
            data["zodError"] = json!({"formErrors": [], "fieldErrors": {"registryId": ["is required"]}});
            message = "registryId: is required";
        }
        Code::Unauthorized => {
            headers["WWW-Authenticate"] =
                json!({"description": "How to send a key.", "schema": {"type": "string"}});
        }
        Code::TooManyRequests | Code::ServiceUnavailable => {
            data["retryAfter"] = 3.into();
            headers["Retry-After"] = json!({"description": "In how many seconds to try again.", "schema": {"type": "integer", "minimum": 0}});
        }
        _ => {}
    }
    let schema = json!({"$ref": format!("{}{}", schema::DEFINITIONS, error_name(code))});
    let example = json!({"message": message, "code": name, "data": data});
    json!({
        "description": code.description(),
        "headers": headers,
        "content": {JSON: {"schema": schema, "example": example}},
    })
}

/// What the schema of a code's answers is called.
fn error_name(code: Code) -> String {
    format!("Error{code:?}")
}

/// The error that every answer of a code is: one object without `allOf`, of which generators of clients make nothing.
fn error_schema(code: Code) -> Value {
    let mut schema = schemas().resolve(&schemas().error).clone();
    schema["description"] = code.description().into();
    schema["properties"]["code"] = json!({"type": "string", "const": code.as_str()});
    // Those that do not look beside a `$ref` know the rest.
    schema["properties"]["data"]["properties"] =
        json!({"code": {"const": code.as_str()}, "httpStatus": {"const": code.http_status()}});
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_procedure_that_can_be_called_is_there_with_its_codes() {
        let document = document();
        for info in procedure::table() {
            let item = &document["paths"][format!("/api/{}", info.name)];
            let methods: Vec<&String> = item.as_object().into_iter().flat_map(Map::keys).collect();
            match info.kind {
                Kind::Query => assert_eq!(methods, ["get", "post"], "{}", info.name),
                Kind::Mutation => assert_eq!(methods, ["post"], "{}", info.name),
                Kind::Subscription => assert!(item.is_null(), "{}", info.name),
            }
            for (method, operation) in item.as_object().into_iter().flatten() {
                for code in info.codes() {
                    let status = code.http_status().to_string();
                    assert!(operation["responses"][&status].is_object(), "{method} {} {status}", info.name);
                }
                // Whoever gets may write any query string.
                for status in ["414", "431"] {
                    let is_there = operation["responses"][status].is_object();
                    assert_eq!(is_there, method == "get", "{method} {} {status}", info.name);
                }
            }
        }
    }

    /// What generators of clients make something of: openapi-python-client takes the first word of a `oneOf` for the
    /// only one, and no error that is an `allOf`.
    #[test]
    fn words_are_enums_and_an_error_is_one_object() {
        fn walk(value: &Value, at: &str, words: &mut usize) {
            match value {
                Value::Object(members) => {
                    assert!(!members.contains_key("allOf"), "{at}: {value}");
                    if let Some(Value::Array(variants)) = members.get("oneOf") {
                        assert!(variants.iter().all(|variant| variant["type"] == "object"), "{at}: {value}");
                    }
                    if members.contains_key("enum") {
                        *words += 1;
                        assert_eq!(members["type"], "string", "{at}: {value}");
                    }
                    members.iter().for_each(|(name, value)| walk(value, &format!("{at}/{name}"), words));
                }
                Value::Array(items) => items.iter().for_each(|item| walk(item, at, words)),
                _ => {}
            }
        }
        let (document, mut words) = (document(), 0);
        walk(&document, "", &mut words);
        assert!(words > 15, "only {words}");
        let kind = &document["components"]["schemas"]["RegistryKind"];
        assert!(kind["enum"].as_array().unwrap().contains(&json!("other")), "{kind}");
        assert!(kind["description"].as_str().unwrap().contains("\n- `dockerHub`: "), "{kind}");

        let components = &document["components"];
        for code in Code::ALL {
            assert!(!schemas().definitions.contains_key(&error_name(*code)));
            let answer = &components["responses"][code.as_str()]["content"][JSON]["schema"]["$ref"];
            assert_eq!(answer, &format!("{}Error{code:?}", schema::DEFINITIONS));
            let error = &components["schemas"][error_name(*code)];
            assert_eq!(error["required"], json!(["message", "code", "data"]));
            assert_eq!(error["properties"]["code"], json!({"type": "string", "const": code.as_str()}));
            let data = &error["properties"]["data"];
            assert_eq!(data["$ref"], format!("{}ErrorData", schema::DEFINITIONS));
            assert_eq!(data["properties"]["httpStatus"]["const"], code.http_status());
        }
    }

    #[test]
    fn the_first_sentence_is_the_summary() {
        assert_eq!(summary("Does it. And more."), "Does it");
        assert_eq!(summary("Like `a.b` and 1.2.3 here."), "Like `a.b` and 1.2.3 here");
    }
}
