//! TypeScript declarations of the procedure table: an `AppRouter` for `@trpc/client`.
//!
//! They are made of the [`schema`](crate::schema)s alone, so what TypeScript takes is what the documents say and what
//! the server reads. They are also committed (`proto-schema/trpc.d.ts`, `trpc-v10.d.ts`), for those who have no server at
//! hand and to show in a diff what a change does to callers; a test fails when those files are stale.
//!
//! Bounds and patterns have no form in TypeScript: the server checks them. A schema of a form that is not known here
//! becomes `unknown`, which a test refuses.

use std::{collections::BTreeSet, fmt::Write as _, sync::LazyLock};

use serde_json::{Map, Value};

use crate::{
    procedure::{self, Kind, ProcedureInfo},
    schema::{DEFINITIONS, schemas},
};

/// Which generation of `@trpc/client` the declarations are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `createTRPCClient` of version 11.
    V11,
    /// `createTRPCProxyClient` of version 10. It has no subscriptions that Purser speaks, so they are left out.
    V10,
}

impl Version {
    /// The name of its file, below `proto-schema/` and `/api/` alike.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::V11 => "trpc.d.ts",
            Self::V10 => "trpc-v10.d.ts",
        }
    }

    fn preamble(self) -> &'static str {
        match self {
            Self::V11 => include_str!("typescript/v11.ts"),
            Self::V10 => include_str!("typescript/v10.ts"),
        }
    }

    fn has(self, info: &ProcedureInfo) -> bool {
        self == Self::V11 || info.kind != Kind::Subscription
    }
}

/// The declarations of a whole table, the same bytes every time.
#[must_use]
pub fn declarations(version: Version) -> &'static str {
    static V11: LazyLock<String> = LazyLock::new(|| write(Version::V11));
    static V10: LazyLock<String> = LazyLock::new(|| write(Version::V10));
    match version {
        Version::V11 => &V11,
        Version::V10 => &V10,
    }
}

/// What an error's `data` is.
const ERROR_DATA: &str = "ErrorData";
/// The widest line of a comment, in characters.
const WIDTH: usize = 110;

fn write(version: Version) -> String {
    let mut text = version.preamble().to_owned();
    procedures(&mut text, version);
    for name in reachable(version) {
        if let Some(schema) = schemas().definitions.get(&name) {
            text.push('\n');
            define(&mut text, &name, schema);
        }
    }
    text
}

fn procedures(text: &mut String, version: Version) {
    text.push_str("\n/** Every procedure, by its name. */\nexport type Procedures = {\n");
    let mut open = "";
    for info in procedure::table().filter(|info| version.has(info)) {
        let Some(((namespace, name), schemas)) = info.name.split_once('.').zip(schemas().of(info.name))
        else {
            continue;
        };
        if namespace != open {
            if !open.is_empty() {
                text.push_str("  };\n");
            }
            push(text, format_args!("  {namespace}: {{\n"));
            open = namespace;
        }
        comment(text, 4, &info.description());
        // An absent input is an empty one.
        let absent = if needs_nothing(&schemas.input) { " | undefined" } else { "" };
        let (input, output) = (type_of(&schemas.input, 4), type_of(&schemas.output, 4));
        push(text, format_args!("    {name}: {:?}<{input}{absent}, {output}>;\n", info.kind));
    }
    text.push_str("  };\n};\n");
}

fn needs_nothing(input: &Value) -> bool {
    let required = schemas().resolve(input).get("required").and_then(Value::as_array);
    required.is_none_or(Vec::is_empty)
}

/// The names of the types that the procedures and their errors are made of.
fn reachable(version: Version) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    collect_name(ERROR_DATA, &mut names);
    for info in procedure::table().filter(|info| version.has(info)) {
        if let Some(of) = schemas().of(info.name) {
            collect(&of.input, &mut names);
            collect(&of.output, &mut names);
        }
    }
    names
}

fn collect(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Array(items) => items.iter().for_each(|item| collect(item, names)),
        Value::Object(object) => {
            if let Some(name) = reference(object) {
                collect_name(name, names);
            }
            object.values().for_each(|value| collect(value, names));
        }
        _ => {}
    }
}

fn collect_name(name: &str, names: &mut BTreeSet<String>) {
    if names.insert(name.to_owned())
        && let Some(definition) = schemas().definitions.get(name)
    {
        collect(definition, names);
    }
}

fn reference(schema: &Map<String, Value>) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix(DEFINITIONS)
}

fn define(text: &mut String, name: &str, schema: &Value) {
    comment(text, 0, description(schema));
    let variants = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array);
    let documented = |variants: &&Vec<Value>| variants.iter().any(|variant| !description(variant).is_empty());
    let Some(variants) = variants.filter(documented) else {
        push(text, format_args!("export type {name} = {};\n", type_of(schema, 0)));
        return;
    };
    push(text, format_args!("export type {name} ="));
    for variant in variants {
        text.push('\n');
        comment(text, 2, description(variant));
        push(text, format_args!("  | {}", type_of(variant, 2)));
    }
    text.push_str(";\n");
}

fn description(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

/// A schema as a type, whose further lines are indented by `indent`.
fn type_of(schema: &Value, indent: usize) -> String {
    let object = match schema {
        Value::Bool(true) => return "Json".to_owned(),
        Value::Object(object) => object,
        _ => return "unknown".to_owned(),
    };
    if let Some(name) = reference(object) {
        return name.to_owned();
    }
    if let Some(only) = object.get("const") {
        return only.to_string();
    }
    if let Some(Value::Array(words)) = object.get("enum") {
        return union(words.iter().map(Value::to_string));
    }
    if let Some(Value::Array(variants)) = object.get("oneOf").or_else(|| object.get("anyOf")) {
        return union(variants.iter().map(|variant| type_of(variant, indent)));
    }
    match object.get("type") {
        Some(Value::String(kind)) => type_of_kind(kind, object, indent),
        Some(Value::Array(kinds)) => {
            union(kinds.iter().filter_map(Value::as_str).map(|kind| type_of_kind(kind, object, indent)))
        }
        _ => "unknown".to_owned(),
    }
}

fn union(types: impl Iterator<Item = String>) -> String {
    types.collect::<Vec<_>>().join(" | ")
}

fn type_of_kind(kind: &str, schema: &Map<String, Value>, indent: usize) -> String {
    match kind {
        "string" | "boolean" | "null" => kind.to_owned(),
        "integer" | "number" => "number".to_owned(),
        "array" => match schema.get("items").map(|items| type_of(items, indent)) {
            Some(item) if item.contains(' ') => format!("({item})[]"),
            Some(item) => format!("{item}[]"),
            None => "unknown".to_owned(),
        },
        "object" => type_of_object(schema, indent),
        _ => "unknown".to_owned(),
    }
}

fn type_of_object(schema: &Map<String, Value>, indent: usize) -> String {
    let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    match (schema.get("properties").and_then(Value::as_object), schema.get("additionalProperties")) {
        (Some(properties), _) if !properties.is_empty() => fields(schema, properties, is_closed, indent),
        (_, Some(_)) if is_closed => "Record<string, never>".to_owned(),
        (_, Some(values)) => format!("{{ [key: string]: {} }}", type_of(values, indent)),
        _ => "unknown".to_owned(),
    }
}

fn fields(
    schema: &Map<String, Value>,
    properties: &Map<String, Value>,
    is_closed: bool,
    indent: usize,
) -> String {
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|one| one == name));
    let mut text = "{\n".to_owned();
    for (name, schema) in properties {
        comment(&mut text, indent + 2, description(schema));
        // Only inputs are closed. A caller may write `undefined` there, whatever the compiler's settings: it is not sent.
        let (mark, or) = match (is_required(name), is_closed) {
            (true, _) => ("", ""),
            (false, true) => ("?", " | undefined"),
            (false, false) => ("?", ""),
        };
        let of = type_of(schema, indent + 2);
        push(&mut text, format_args!("{:indent$}  {name}{mark}: {of}{or};\n", ""));
    }
    push(&mut text, format_args!("{:indent$}}}", ""));
    text
}

/// A comment for documentation, wrapped; none where there is nothing to say.
fn comment(text: &mut String, indent: usize, words: &str) {
    let words = words.replace("*/", "*\\/");
    let mut lines = Vec::new();
    for paragraph in words.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.chars().count() + word.chars().count() >= WIDTH - indent {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    match lines.as_slice() {
        [] => {}
        [line] => push(text, format_args!("{:indent$}/** {line} */\n", "")),
        lines => {
            push(text, format_args!("{:indent$}/**\n", ""));
            for line in lines {
                push(text, format_args!("{}\n", format!("{:indent$} * {line}", "").trim_end()));
            }
            push(text, format_args!("{:indent$} */\n", ""));
        }
    }
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(arguments);
}

#[cfg(test)]
mod tests;
