//! What the schemas say, asked of the running server: what a schema forbids is refused, naming the field and
//! repeating nothing of the value; what it takes is not refused but for rules that no schema can say.
//!
//! The values come from the schemas of all procedures, so a new one is asked by itself.

use jsonschema::Validator;
use purser_proto_schema::schema::schemas;
use purser_tests::{Answer, Client, Purser};
use serde_json::{Map, Value, json};

use crate::{
    bad_input::{MARK, with},
    inputs::{CALLS, Call, Field, Things},
};

/// Fields with a grammar of their own, or whose value must fit what is stored: there the schema says less.
const MORE_TO_SAY: &[&str] = &[
    "registryUrl",
    "imagePrefix",
    "caCertificate",
    "realmAllow",
    "repository",
    "reference",
    "image",
    "query",
    "composeFile",
    "cursor",
];

/// `wait: true` waits for an agent that never comes.
const HELD: &[&str] = &["wait"];

fn validator(call: &Call) -> Validator {
    let input = &schemas().of(call.name).unwrap().input;
    let document = json!({"components": {"schemas": schemas().definitions}, "allOf": [input]});
    jsonschema::draft202012::new(&document).unwrap()
}

/// Every bound within a schema, of lengths and numbers alike.
fn bounds(schema: &Value, into: &mut Vec<u64>) {
    let schema = schemas().resolve(schema);
    match schema {
        Value::Object(members) => {
            for (name, value) in members {
                match value.as_u64() {
                    Some(bound) if name.starts_with("max") || name.starts_with("min") => into.push(bound),
                    _ => bounds(value, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| bounds(item, into)),
        _ => {}
    }
}

/// Values of every kind, at the field's bounds and beyond. Text is marked, to be known again.
fn candidates(schema: &Value) -> Vec<Value> {
    let mut values = vec![json!(null), json!(true), json!(1.5), json!(-1), json!(1e30), json!(1.0)];
    values.extend([json!([]), json!({}), json!([MARK]), json!([[MARK]]), json!([5]), json!([null])]);
    values.extend([json!({MARK: MARK}), json!({MARK: 5}), json!({MARK: null}), json!({"username": MARK})]);
    values.push(json!({"username": MARK, "password": MARK, "other": MARK}));
    for text in
        ["{}", "", " ", "{}\0", "{}\u{7f}", "{} {}", "{}:{}", "é{}", " {} ", "none", "linux/arm64", "v1.2"]
    {
        values.push(json!(text.replace("{}", MARK)));
    }
    let mut found = Vec::new();
    bounds(schema, &mut found);
    for bound in found.into_iter().flat_map(|bound| [bound.saturating_sub(1), bound, bound + 1]) {
        values.push(json!(bound));
        let count = usize::try_from(bound).unwrap();
        if count < 70_000 {
            let text: String = MARK.chars().chain("x".repeat(count).chars()).take(count).collect();
            values.push(json!(text));
        }
        if count < 1_100 {
            values.push(json!(vec![MARK; count]));
            let many: Map<String, Value> = (0..count).map(|n| (format!("k{n}"), json!(MARK))).collect();
            values.push(many.into());
        }
    }
    values
}

fn names(answer: &Answer, pointer: &str, field: &Field) -> bool {
    let issues = answer.json().pointer(&format!("{pointer}/zodError/fieldErrors/{}", field.name)).cloned();
    issues.is_some_and(|issues| issues.as_array().is_some_and(|issues| !issues.is_empty()))
}

/// The answer, without the name of an unknown field: the contract wants that named.
fn said(answer: &Answer) -> String {
    answer.text().replace(&format!("{MARK}: is not a field of this procedure"), "")
}

/// Asks with every candidate for a field. Gives how many its schema takes and forbids.
async fn ask(
    client: &Client,
    call: &Call,
    things: &Things,
    field: &Field,
    wrong: &mut Vec<String>,
) -> [usize; 2] {
    let validator = validator(call);
    let (_, schema, _) =
        schemas().fields(call.name).into_iter().find(|(name, ..)| *name == field.name).unwrap();
    // A null leaves the other of two alone, or none of several ways.
    let is_needed =
        ["username", "password"].contains(&field.name) || things.input(call).get(field.name).is_some();
    let says_less = HELD.contains(&field.name) || MORE_TO_SAY.contains(&field.name);
    let mut counts = [0, 0];
    for value in candidates(schema) {
        let input = with(call, things, field, value.clone());
        let is_taken = validator.is_valid(&input);
        if is_taken && (says_less || value.is_null() && is_needed) {
            continue;
        }
        counts[usize::from(!is_taken)] += 1;
        let plain = client.post(&format!("/api/{}", call.name), &input).await;
        let as_the_schema_says = if is_taken {
            let fits_nothing = field.name == "labels" && plain.text().contains("fit no server");
            fits_nothing || !names(&plain, "/data", field)
        } else {
            let rpc = client.rpc(call.name, &input).await;
            plain.status == 400
                && names(&plain, "/data", field)
                && !said(&plain).contains(MARK)
                && rpc.error()["code"] == -32602
                && names(&rpc, "/error/data", field)
                && !said(&rpc).contains(MARK)
        };
        if !as_the_schema_says {
            let value: String = value.to_string().chars().take(80).collect();
            let taken = if is_taken { "takes" } else { "forbids" };
            wrong.push(format!("{} {}, whose schema {taken} {value}: {plain:?}", call.name, field.name));
        }
    }
    counts
}

#[tokio::test]
async fn what_a_schema_forbids_is_refused_by_field_and_what_it_takes_is_not() {
    let purser = Purser::builder().rust_log("debug").start().await;
    let client = purser.client();
    let (mut counts, mut wrong) = ([0, 0], Vec::new());
    for (position, call) in CALLS.iter().enumerate() {
        // Some of what is asked succeeds, and removes or changes them.
        let things = Things::make(&client, &format!("things {position}")).await;
        assert!(validator(call).is_valid(&things.input(call)), "{}", call.name);
        for field in call.fields {
            let [taken, forbidden] = ask(&client, call, &things, field, &mut wrong).await;
            counts[0] += taken;
            counts[1] += forbidden;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(counts[0] > 500 && counts[1] > 2_000, "too few were asked: {counts:?}");
    let logs = purser.logs();
    assert!(!logs.contains("panicked"), "{logs}");
}

#[test]
fn the_schemas_have_the_fields_that_the_contract_has() {
    for call in CALLS {
        let mut here: Vec<_> = call.fields.iter().map(|field| (field.name, field.required)).collect();
        let mut there: Vec<_> =
            schemas().fields(call.name).into_iter().map(|(name, _, required)| (name, required)).collect();
        here.sort_unstable();
        there.sort_unstable();
        assert_eq!(here, there, "{}", call.name);
    }
}
