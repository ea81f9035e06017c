//! `rpc.discover`: the JSON-RPC door as OpenRPC 1.3.2, made of the procedure table.
//!
//! Over POST it needs no key, as [`openapi`](super::openapi) needs none; on a WebSocket the key was asked for at the
//! upgrade. Schemas are JSON Schema's draft 7 there, which ignores what stands beside a `$ref`.

use std::{collections::BTreeMap, sync::LazyLock};

use purser_proto_schema::{
    error::{Code, INVALID_PARAMS},
    procedure::{self, Kind, ProcedureInfo},
    schema::{self, schemas},
};
use serde_json::{Map, Value, json};

use super::{document::Document, openapi};

/// The method that answers the document.
pub(super) const DISCOVER: &str = "rpc.discover";

/// What ending a subscription may answer.
const OF_UNSUBSCRIBE: [Code; 4] =
    [Code::BadRequest, Code::TooManyRequests, Code::MethodNotSupported, Code::PayloadTooLarge];

/// What [`DISCOVER`] answers, as JSON.
pub(super) fn text() -> &'static str {
    static DOCUMENT: LazyLock<Document> =
        LazyLock::new(|| Document::new("application/json", document().to_string()));
    DOCUMENT.text()
}

fn document() -> Value {
    let methods: Vec<Value> = procedure::table()
        .flat_map(|info| [Some(method(info)), info.unsubscribe().map(|name| unsubscribe(info, &name))])
        .flatten()
        .collect();
    let definitions: Map<String, Value> =
        schemas().definitions.iter().map(|(name, schema)| (name.clone(), in_draft_7(schema))).collect();
    json!({
        "openrpc": "1.3.2",
        "info": {
            "title": "Purser",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "JSON-RPC 2.0 at `/rpc`, over POST and on a WebSocket, where subscriptions are. Send an API \
                            key as the header `x-api-key`, or as a bearer token.",
            "license": {"name": "Apache-2.0"},
        },
        "methods": methods,
        "components": {"schemas": definitions},
    })
}

fn method(info: &'static ProcedureInfo) -> Value {
    let example: Value = serde_json::from_str(info.example).unwrap_or_default();
    let description = info.description();
    let params: Vec<Value> = schemas()
        .fields(info.name)
        .into_iter()
        .map(|(name, schema, required)| {
            let description =
                schema.get("description").or_else(|| schemas().resolve(schema).get("description"));
            json!({"name": name, "description": description, "required": required, "schema": in_draft_7(schema)})
        })
        .collect();
    let given = example["input"].as_object().into_iter().flatten();
    let given: Vec<Value> = given.map(|(name, value)| json!({"name": name, "value": value})).collect();
    let output = schemas().of(info.name).map(|schemas| in_draft_7(&schemas.output));
    let (result, answered) = match info.kind {
        Kind::Query | Kind::Mutation => {
            (json!({"name": "result", "schema": output}), example["output"].clone())
        }
        Kind::Subscription => (subscription_number("result"), 1.into()),
    };
    let on_post = (info.kind == Kind::Subscription).then_some(Code::MethodNotSupported);
    let of_door = on_post.into_iter().chain([Code::PayloadTooLarge]);
    let mut method = json!({
        "name": info.name,
        "summary": openapi::summary(&description),
        "description": description,
        "tags": [{"name": info.name.split('.').next()}],
        "paramStructure": "by-name",
        "params": params,
        "result": result,
        "errors": errors(info.codes().chain(of_door)),
        "examples": [{
            "name": "usual",
            "params": given,
            "result": {"name": "result", "value": answered},
        }],
        "x-permission": info.permission.as_str(),
        "x-kind": info.kind,
    });
    if let Some(unsubscribe) = info.unsubscribe() {
        method["x-subscription"] = json!({
            "description": "On a WebSocket only. Every event is a notification of the method's own name, with the \
                            number that it answered and the event as `result`; an `error` in its place ends it.",
            "notification": info.name,
            "unsubscribe": unsubscribe,
            "params": [subscription_number("subscription"), {"name": "result", "schema": output}],
            "example": {
                "jsonrpc": "2.0",
                "method": info.name,
                "params": {"subscription": 1, "result": example["output"]},
            },
        });
    }
    method
}

fn unsubscribe(info: &'static ProcedureInfo, name: &str) -> Value {
    json!({
        "name": name,
        "summary": format!("Ends a subscription of {}", info.name),
        "tags": [{"name": info.name.split('.').next()}],
        "paramStructure": "either",
        "params": [subscription_number("subscription")],
        "result": {
            "name": "result",
            "description": "Whether there was one.",
            "schema": {"type": "boolean"},
        },
        "errors": errors(OF_UNSUBSCRIBE.into_iter()),
        "examples": [{
            "name": "usual",
            "params": [{"name": "subscription", "value": 1}],
            "result": {"name": "result", "value": true},
        }],
        "x-kind": "unsubscribe",
    })
}

fn subscription_number(name: &str) -> Value {
    json!({
        "name": name,
        "description": "The subscription's number on this socket.",
        "required": true,
        "schema": {"type": "integer", "minimum": 1},
    })
}

/// One error per number, as OpenRPC wants it; several codes of the 5xx family share one.
fn errors(codes: impl Iterator<Item = Code>) -> Vec<Value> {
    let mut by_number: BTreeMap<i32, Vec<Code>> = BTreeMap::new();
    for code in codes {
        by_number.entry(code.number()).or_default().push(code);
        if code == Code::BadRequest {
            // Parameters that do not fit; the other number is for what they ask for and failed.
            by_number.entry(INVALID_PARAMS).or_default().push(code);
        }
    }
    let error = |(number, codes): (i32, Vec<Code>)| {
        let message: Vec<&str> = codes.iter().map(|code| meaning(*code)).collect();
        let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
        json!({"code": number, "message": message.join(" Or: "), "data": {"code": names}})
    };
    by_number.into_iter().map(error).collect()
}

/// What a code means at this door.
fn meaning(code: Code) -> &'static str {
    match code {
        Code::MethodNotSupported => "Subscriptions are on a WebSocket.",
        Code::PayloadTooLarge => "Not called: the answers of its batch were over the limit by then.",
        other => other.description(),
    }
}

/// The formats of draft 7 that are used. Others, such as `uint32`, are of OpenAPI: a strict validator refuses a schema that
/// has one.
const FORMATS: [&str; 1] = ["date-time"];

/// A schema as draft 7 has it: what stands beside a `$ref` is moved around it, and words are an `enum`.
fn in_draft_7(schema: &Value) -> Value {
    fn transform(value: &mut Value) {
        match value {
            Value::Object(members) => {
                if members.len() > 1
                    && let Some(reference) = members.remove("$ref")
                {
                    members.insert("allOf".to_owned(), json!([{"$ref": reference}]));
                }
                // A property of this name is a schema.
                if members.get("format").and_then(Value::as_str).is_some_and(|name| !FORMATS.contains(&name))
                {
                    members.remove("format");
                }
                members.values_mut().for_each(transform);
            }
            Value::Array(items) => items.iter_mut().for_each(transform),
            _ => {}
        }
    }
    let mut schema = schema.clone();
    schema::words_as_enums(&mut schema);
    transform(&mut schema);
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_what_a_caller_needs() {
        let document = document();
        let methods = document["methods"].as_array().unwrap();
        for info in procedure::table() {
            let method = methods.iter().find(|method| method["name"] == info.name).unwrap();
            let required: Vec<bool> =
                method["params"].as_array().unwrap().iter().map(|param| param["required"] == true).collect();
            assert!(
                required.is_sorted_by(|one, next| one >= next),
                "{}: required ones come first",
                info.name
            );
            assert_eq!(method["examples"].as_array().map(Vec::len), Some(1), "{}", info.name);
            let numbers: Vec<_> =
                method["errors"].as_array().unwrap().iter().map(|error| error["code"].as_i64()).collect();
            assert!(numbers.is_sorted_by(|one, next| one < next), "{}: {numbers:?}", info.name);
            assert_eq!(
                method["x-subscription"].is_object(),
                info.kind == Kind::Subscription,
                "{}",
                info.name
            );
        }
    }

    #[test]
    fn its_schemas_are_of_draft_7_and_their_words_enums() {
        fn walk(value: &Value, formats: &mut usize) {
            match value {
                Value::Object(members) => {
                    if let Some(format) = members.get("format").and_then(Value::as_str) {
                        assert_eq!(format, "date-time", "{value}");
                        *formats += 1;
                    }
                    assert!(members.len() == 1 || !members.contains_key("$ref"), "{value}");
                    if let Some(Value::Array(variants)) = members.get("oneOf") {
                        assert!(variants.iter().all(|variant| variant["type"] == "object"), "{value}");
                    }
                    members.values().for_each(|value| walk(value, formats));
                }
                Value::Array(items) => items.iter().for_each(|item| walk(item, formats)),
                _ => {}
            }
        }
        let (document, mut formats) = (document(), 0);
        walk(&document, &mut formats);
        assert!(formats > 0, "moments have a format");
        // The bounds that the formats came with stay.
        let methods = document["methods"].as_array().unwrap();
        let all = methods.iter().find(|method| method["name"] == "job.all").unwrap();
        let limit = all["params"].as_array().unwrap().iter().find(|param| param["name"] == "limit").unwrap();
        assert_eq!((&limit["schema"]["minimum"], &limit["schema"]["maximum"]), (&json!(1), &json!(100)));
    }
}
