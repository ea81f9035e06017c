//! The JSON Schemas (2020-12) of every procedure's input and output: what OpenAPI, OpenRPC and the TypeScript types
//! are made of.
//!
//! They are made once, at the first question. A named type is a definition, and everything else refers to it by
//! `#/components/schemas/<name>`. Inputs are described as they are read, outputs as they are written; a type that is in
//! both is one definition, so it must look alike both ways.

use std::{collections::BTreeMap, sync::LazyLock};

use schemars::{
    Schema, SchemaGenerator,
    generate::{Contract, SchemaSettings},
    transform::{RecursiveTransform, Transform},
};
use serde_json::{Map, Value};

use crate::{
    error::PlainError,
    procedure::{self, ProcedureInfo},
};

/// Where the definitions are, in whichever document they go into.
pub const DEFINITIONS: &str = "#/components/schemas/";

/// The schemas of a whole table.
#[derive(Debug)]
pub struct Schemas {
    /// The named types, by name.
    pub definitions: BTreeMap<String, Value>,
    /// By procedure.
    procedures: BTreeMap<&'static str, ProcedureSchemas>,
    /// What the plain door answers in place of an output.
    pub error: Value,
}

/// The schemas of one procedure.
#[derive(Debug)]
pub struct ProcedureSchemas {
    /// What goes in: always an object, by reference to a definition.
    pub input: Value,
    /// What comes out; of a subscription, with each event.
    pub output: Value,
}

impl Schemas {
    /// Those of a procedure. `None` for one that the table does not have.
    #[must_use]
    pub fn of(&self, procedure: &str) -> Option<&ProcedureSchemas> {
        self.procedures.get(procedure)
    }

    /// The definition that a schema refers to, or the schema itself.
    #[must_use]
    pub fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix(DEFINITIONS));
        name.and_then(|name| self.definitions.get(name)).unwrap_or(schema)
    }

    /// A procedure's fields by name, the required ones first, each with its schema and whether it is required.
    #[must_use]
    pub fn fields(&self, procedure: &str) -> Vec<(&str, &Value, bool)> {
        let Some(input) = self.of(procedure).map(|schemas| self.resolve(&schemas.input)) else {
            return Vec::new();
        };
        let is_required = |name: &str| {
            let required = input.get("required").and_then(Value::as_array);
            required.is_some_and(|required| required.iter().any(|one| one == name))
        };
        let properties = input.get("properties").and_then(Value::as_object);
        let mut fields: Vec<_> = properties
            .into_iter()
            .flatten()
            .map(|(name, schema)| (name.as_str(), schema, is_required(name)))
            .collect();
        fields.sort_by_key(|(_, _, required)| !required);
        fields
    }
}

/// The schemas of [`procedure::table`].
#[must_use]
pub fn schemas() -> &'static Schemas {
    static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
        let mut inputs = generator(Contract::Deserialize);
        let mut outputs = generator(Contract::Serialize);
        let of = |info: &ProcedureInfo| ProcedureSchemas {
            input: (info.input)(&mut inputs).to_value(),
            output: (info.output)(&mut outputs).to_value(),
        };
        let procedures = procedure::table().map(|info| info.name).zip(procedure::table().map(of)).collect();
        let error = outputs.subschema_for::<PlainError>().to_value();
        let mut definitions = definitions(inputs);
        definitions.extend(self::definitions(outputs));
        Schemas { definitions, procedures, error }
    });
    &SCHEMAS
}

fn generator(contract: Contract) -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = DEFINITIONS.trim_start_matches('#').trim_end_matches('/').into();
        settings.meta_schema = None;
        settings.contract = contract;
    });
    settings.into_generator()
}

fn definitions(mut generator: SchemaGenerator) -> BTreeMap<String, Value> {
    let is_output = generator.contract().is_serialize();
    let mut definitions = generator.take_definitions(true);
    for definition in definitions.values_mut() {
        let Ok(schema) = <&mut Schema>::try_from(definition) else { continue };
        RecursiveTransform(in_words_of_json).transform(schema);
        if is_output {
            RecursiveTransform(absent_is_never_null).transform(schema);
        }
    }
    definitions.into_iter().collect()
}

/// What was written for rustdoc, for those who never saw the program.
fn in_words_of_json(schema: &mut Schema) {
    // Of an optional field; to be absent says as much.
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = plain_markdown(text);
    }
}

/// Joins the lines of a paragraph, and takes the links of rustdoc out: they lead nowhere from here.
pub(crate) fn plain_markdown(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for line in text.lines().map(str::trim) {
        match (line, plain.is_empty() || plain.ends_with('\n')) {
            ("", true) => {}
            ("", false) => plain.push_str("\n\n"),
            (line, true) => plain.push_str(line),
            (line, false) => {
                plain.push(' ');
                plain.push_str(line);
            }
        }
    }
    let mut text = plain.trim_end().replace("`None`", "null");
    while let Some((start, end, name)) = link(&text) {
        let name = name.to_owned();
        text.replace_range(start..end, &name);
    }
    text
}

/// The first link of the form ``[`name`]`` or ``[`name`](target)``: from where to where, and the name.
fn link(text: &str) -> Option<(usize, usize, &str)> {
    let start = text.find("[`")?;
    let name_end = start + text[start..].find("`]")? + 1;
    let after = &text[name_end + 1..];
    let target = if after.starts_with('(') { after.find(')').map_or(0, |end| end + 1) } else { 0 };
    Some((start, name_end + 1 + target, &text[start + 1..name_end]))
}

/// An output's field that may be absent is left out instead of being null.
fn absent_is_never_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    let required: Vec<Value> = object.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(Value::Object(properties)) = object.get_mut("properties") else { return };
    for (_, property) in properties.iter_mut().filter(|(name, _)| !required.iter().any(|one| one == *name)) {
        if let Value::Object(property) = property {
            without_null(property);
        }
    }
}

/// The same schema for a place where null cannot be.
pub fn without_null(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_mut_slice() {
            let only = only.take();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(variants)) = schema.get_mut("anyOf") {
        variants.retain(|variant| variant.get("type").is_none_or(|kind| kind != "null"));
        if let [Value::Object(only)] = variants.as_mut_slice() {
            let only = std::mem::take(only);
            schema.remove("anyOf");
            schema.extend(only);
        }
    }
}

/// Writes what is one of several words as an `enum`, here and in all that is below: of a `oneOf` many a generator of
/// clients takes the first word alone. What each word means goes into the description, as a list in Markdown.
pub fn words_as_enums(schema: &mut Value) {
    match schema {
        Value::Object(schema) => {
            if let Some(words) = schema.get("oneOf").and_then(words) {
                let mut lines: Vec<String> = Vec::new();
                lines.extend(
                    schema.get("description").and_then(Value::as_str).map(|text| format!("{text}\n")),
                );
                lines.extend(
                    words.iter().filter_map(|(word, means)| Some(format!("- `{word}`: {}", (*means)?))),
                );
                let words: Vec<Value> = words.into_iter().map(|(word, _)| word.into()).collect();
                if !lines.is_empty() {
                    schema.insert("description".to_owned(), lines.join("\n").trim_end().into());
                }
                schema.remove("oneOf");
                schema.insert("type".to_owned(), "string".into());
                schema.insert("enum".to_owned(), words.into());
            }
            schema.values_mut().for_each(words_as_enums);
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(words_as_enums),
        _ => {}
    }
}

/// The words that a `oneOf` is a choice of, each with what it means. `None` where one of its schemas is none of words.
fn words(variants: &Value) -> Option<Vec<(String, Option<&str>)>> {
    let mut words = Vec::new();
    for variant in variants.as_array()? {
        let means = variant.get("description").and_then(Value::as_str);
        let one = variant.get("const").map(std::slice::from_ref);
        for word in one.or_else(|| variant.get("enum").and_then(Value::as_array).map(Vec::as_slice))? {
            words.push((word.as_str()?.to_owned(), means));
        }
    }
    Some(words)
}

#[cfg(test)]
mod tests;
