use jsonschema::Validator;
use serde_json::json;

use super::*;
use crate::procedure::{Procedure, Visitor, visit};

/// A schema that stands alone: with all definitions that it may refer to.
fn validator(schema: &Value) -> Validator {
    let document = json!({"components": {"schemas": schemas().definitions}, "allOf": [schema]});
    jsonschema::draft202012::new(&document).unwrap()
}

#[track_caller]
fn assert_fits(schema: &Value, value: &Value, what: &str) {
    let errors: Vec<_> = validator(schema)
        .iter_errors(value)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{what} is not what its schema says: {errors:#?}");
}

fn example(info: &ProcedureInfo) -> Value {
    let example: Value = serde_json::from_str(info.example)
        .unwrap_or_else(|error| panic!("example-calls/{}.json is no JSON: {error}", info.name));
    assert!(
        example.get("input").is_some_and(Value::is_object) && example.get("output").is_some(),
        "example-calls/{}.json must have an object `input` and an `output`",
        info.name
    );
    example
}

#[test]
fn every_example_is_what_its_schemas_say() {
    for info in procedure::table() {
        let example = example(info);
        let of = schemas().of(info.name).unwrap();
        assert_fits(&of.input, &example["input"], &format!("the example input of {}", info.name));
        assert_fits(&of.output, &example["output"], &format!("the example output of {}", info.name));
    }
}

#[test]
fn every_example_is_read_and_its_output_written_again() {
    struct Reads;
    impl Visitor for Reads {
        fn visit<P: Procedure>(&mut self) {
            let (name, example) = (P::INFO.name, example(&P::INFO));
            if let Err(error) = serde_json::from_value::<P::Input>(example["input"].clone()) {
                panic!("the example input of {name} is refused: {error}");
            }
            let output: P::Output = serde_json::from_value(example["output"].clone())
                .unwrap_or_else(|error| panic!("the example output of {name} is none: {error}"));
            assert_eq!(serde_json::to_value(output).unwrap(), example["output"], "{name}");
        }
    }
    visit(&mut Reads);
}

#[cfg(feature = "client")]
#[test]
fn a_client_writes_an_input_as_it_was_read_and_leaves_out_what_is_absent() {
    struct Writes;
    impl Visitor for Writes {
        fn visit<P: Procedure>(&mut self) {
            let example = example(&P::INFO);
            let input: P::Input = serde_json::from_value(example["input"].clone()).unwrap();
            assert_eq!(serde_json::to_value(input).unwrap(), example["input"], "{}", P::INFO.name);
        }
    }
    visit(&mut Writes);
}

#[test]
fn every_input_is_an_object_that_takes_no_unknown_field() {
    for info in procedure::table() {
        let input = schemas().resolve(&schemas().of(info.name).unwrap().input);
        assert_eq!(input["type"], "object", "{}: {input}", info.name);
        assert_eq!(input["additionalProperties"], false, "{}: {input}", info.name);
        for (field, schema, _) in schemas().fields(info.name) {
            let described =
                schema.get("description").or_else(|| schemas().resolve(schema).get("description"));
            assert!(described.is_some(), "{} has no docs for {field}", info.name);
        }
    }
}

/// What is fit for something, at the bounds that the schemas have and around them.
fn candidates() -> Vec<Value> {
    let mut lengths = vec![0, 1, 2, 63, 64, 65, 100, 101, 127, 128, 129, 255, 256, 257, 1_023, 1_024, 1_025];
    lengths.extend([2_048, 65_535, 65_536, 65_537, 524_288, 524_289]);
    let mut values: Vec<Value> = lengths.into_iter().map(|length| json!("a".repeat(length))).collect();
    for text in ["é😀", " ", " a ", "a\n", "a\0", "\u{7f}", "a:b", "none", "pull", "linux/arm64", "v1.2", "*"]
    {
        values.push(json!(text));
    }
    for text in
        ["2026-01-15T10:30:00Z", "2026-01-15T10:30:00.5+02:00", "2026-01-15", "cloud", "queued", "stackPull"]
    {
        values.push(json!(text));
    }
    values.extend([
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(1.0),
        json!(100),
        json!(100.0),
        json!(101),
    ]);
    values.extend([
        json!(1.5),
        json!(-1),
        json!(-1.0),
        json!(1000),
        json!(86_400),
        json!(604_800),
        json!(4_294_967_296_u64),
    ]);
    values.extend([
        json!(1e300),
        json!([]),
        json!(["a"]),
        json!(["pull", "push"]),
        json!([1]),
        json!([null]),
        json!([["a"]]),
    ]);
    values.extend([json!(vec!["a"; 32]), json!(vec!["a"; 33]), json!(vec!["a"; 100]), json!(vec!["a"; 101])]);
    values.extend([
        json!({}),
        json!({"a": "b"}),
        json!({"a": 1}),
        json!({"a": null}),
        json!({"a": "a".repeat(256)}),
    ]);
    values.push(json!({"username": "u", "password": "p"}));
    values.push(json!({"username": "u", "password": "p", "other": 1}));
    values.push(json!({"username": "u"}));
    let many: Map<String, Value> = (0..1_001).map(|n| (format!("k{n}"), json!("v"))).collect();
    values.push(many.into());
    values
}

/// The other direction, what a schema forbids is refused, is asked of the running server: some rules are the
/// domain's.
#[test]
fn what_a_schema_takes_is_read() {
    struct Reads {
        candidates: Vec<Value>,
        taken: usize,
    }
    impl Visitor for Reads {
        fn visit<P: Procedure>(&mut self) {
            let name = P::INFO.name;
            let input = &example(&P::INFO)["input"];
            let validator = validator(&schemas().of(name).unwrap().input);
            for (field, ..) in schemas().fields(name) {
                for candidate in &self.candidates {
                    let mut input = input.clone();
                    input[field] = candidate.clone();
                    if !validator.is_valid(&input) {
                        continue;
                    }
                    self.taken += 1;
                    if let Err(error) = serde_json::from_str::<P::Input>(&input.to_string()) {
                        let short: String = candidate.to_string().chars().take(60).collect();
                        panic!("{name} refuses {short} for {field}, which its schema takes: {error}");
                    }
                }
            }
        }
    }
    let mut reads = Reads { candidates: candidates(), taken: 0 };
    visit(&mut reads);
    assert!(reads.taken > 1_000, "only {} inputs were tried", reads.taken);
}

#[test]
fn a_type_that_goes_in_and_comes_out_looks_alike_both_ways() {
    let (mut inputs, mut outputs) = (generator(Contract::Deserialize), generator(Contract::Serialize));
    for info in procedure::table() {
        (info.input)(&mut inputs);
        (info.output)(&mut outputs);
    }
    let (inputs, outputs) = (definitions(inputs), definitions(outputs));
    for (name, input) in &inputs {
        if let Some(output) = outputs.get(name) {
            assert_eq!(input, output, "{name}: give one of them another name by #[schemars(rename = …)]");
        }
    }
}

#[test]
fn two_types_never_share_a_name() {
    for name in schemas().definitions.keys() {
        assert!(
            !name.ends_with(|last: char| last.is_ascii_digit()) && name.chars().all(char::is_alphanumeric),
            "{name} is a name that another type has, too, or none for a document: give it its own by \
             #[schemars(rename = …)]"
        );
    }
}

#[test]
fn no_output_and_no_error_has_a_field_for_a_password() {
    let is_input = |name: &str| name.ends_with("Input") || name == "OneTimeAuth";
    for (name, definition) in schemas().definitions.iter().filter(|(name, _)| !is_input(name)) {
        let properties = definition.get("properties").and_then(Value::as_object);
        for field in properties.into_iter().flat_map(Map::keys) {
            assert_ne!(field, "password", "{name}");
        }
    }
}

#[test]
fn descriptions_have_neither_links_of_rustdoc_nor_words_of_rust() {
    let text = serde_json::to_string(&schemas().definitions).unwrap();
    for word in ["[`", "crate::", "`None`", "`Some`", "`Option`"] {
        assert!(
            !text.contains(word),
            "{word} in {}",
            &text[text.find(word).unwrap_or(0)..].chars().take(200).collect::<String>()
        );
    }
    for info in procedure::table() {
        assert!(!info.description().contains("[`"), "{}", info.description());
    }
}

#[test]
fn a_field_that_may_be_absent_from_an_output_is_never_null_there() {
    let target = &schemas().definitions["Target"];
    assert_eq!(target["properties"]["nextAttemptAt"]["type"], "string", "{target}");
    assert_eq!(target["properties"]["image"]["type"], json!(["string", "null"]), "{target}");
    let result = &schemas().definitions["TestResult"];
    assert_eq!(result["properties"]["access"]["$ref"], format!("{DEFINITIONS}AccessVerdict"), "{result}");
}

#[test]
fn words_become_an_enum_and_what_they_mean_the_description() {
    let mut schema = json!({
        "properties": {
            "kind": {
                "description": "Which.",
                "oneOf": [
                    {"type": "string", "const": "one", "description": "The first."},
                    {"type": "string", "enum": ["two", "three"]},
                ],
            },
            "bare": {"oneOf": [{"type": "string", "enum": ["a"]}, {"type": "string", "const": "b"}]},
            "either": {"oneOf": [{"type": "string", "const": "a"}, {"type": "object"}]},
        },
    });
    let either = schema["properties"]["either"].clone();
    words_as_enums(&mut schema);
    let wanted = json!({
        "kind": {
            "description": "Which.\n\n- `one`: The first.",
            "type": "string",
            "enum": ["one", "two", "three"],
        },
        "bare": {"type": "string", "enum": ["a", "b"]},
        "either": either,
    });
    assert_eq!(schema["properties"], wanted);
}
