//! Reading a procedure's input: the field that is wrong is named, what was received is not repeated.

use std::{collections::HashSet, sync::LazyLock};

use purser_proto_schema::schema::schemas;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Issues, Result};

const OBJECT: &str = "the input must be an object of named fields";
const MAX_FIELD_NAME: usize = 64;

/// Reads an input. Absent and `null` mean no fields.
///
/// # Errors
/// [`Error::Invalid`].
pub fn parse<T: DeserializeOwned>(text: Option<&str>) -> Result<T> {
    let text = match text.map(str::trim) {
        None | Some("null" | "") => "{}",
        Some(text) => text,
    };
    if !text.starts_with('{') {
        return Err(Error::form(OBJECT));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        issue(&path, &error.into_inner())
    })
}

fn issue(path: &str, error: &serde_json::Error) -> Error {
    if !error.is_data() {
        // serde_json also says so of a number where a word is expected, and of a lone surrogate.
        return match path.split(['.', '[']).next() {
            None | Some("" | "?") => Error::form("the input is not JSON"),
            Some(field) => {
                let mut issues = Issues::default();
                issues.add(presentable(field), "is not JSON of a form that this field takes");
                Error::Invalid(issues)
            }
        };
    }
    let text = error.to_string();
    let text = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]);
    let (named, rule) = rule(text);
    let path = if path == "." { "" } else { path };
    // serde's path ends with the field for a bad value, and with its parent for a missing or unknown one.
    let full = match named {
        Some(field) if path.is_empty() || path == field => presentable(field),
        Some(field) => {
            let parent = path.strip_suffix(field).and_then(|parent| parent.strip_suffix('.')).unwrap_or(path);
            format!("{}.{}", known(parent), presentable(field))
        }
        None => known(path),
    };
    let mut issues = Issues::default();
    let top = full.split(['.', '[']).next().unwrap_or_default().to_owned();
    if top.is_empty() {
        issues.form.push(rule.into());
    } else {
        let rule = if top == full { rule } else { format!("{full}: {rule}") };
        issues.add(top, rule);
    }
    Error::Invalid(issues)
}

/// A path without the keys of maps, such as labels': they are no names of fields, but what was received.
fn known(path: &str) -> String {
    static FIELDS: LazyLock<HashSet<&str>> = LazyLock::new(|| {
        let properties = |definition: &'static Value| definition["properties"].as_object();
        schemas()
            .definitions
            .values()
            .filter_map(properties)
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect()
    });
    let is_known = |part: &str| FIELDS.contains(part.split('[').next().unwrap_or_default());
    path.split('.')
        .map(|part| if part.is_empty() || is_known(part) { part } else { "*" })
        .collect::<Vec<_>>()
        .join(".")
}

/// The field that serde's message names, and a rule without the received value.
fn rule(text: &str) -> (Option<&str>, String) {
    let quoted = |start: &str, end: &str| {
        text.strip_prefix(start).and_then(|rest| rest.rfind(end).map(|at| &rest[..at]))
    };
    if let Some(field) = quoted("missing field `", "`") {
        return (Some(field), "is required".to_owned());
    }
    if let Some(field) = quoted("duplicate field `", "`") {
        return (Some(field), "is given twice".to_owned());
    }
    if let Some(rest) = text.strip_prefix("unknown field `") {
        // serde goes on with what it expected, or with `there are no fields`.
        let end = rest.find("`, expected ").or_else(|| rest.find("`, there are no fields"));
        return (end.map(|end| &rest[..end]), "is not a field of this procedure".to_owned());
    }
    let value_first = ["invalid type: ", "invalid value: ", "invalid length ", "unknown variant "];
    if value_first.iter().any(|start| text.starts_with(start)) {
        let rule = text.rfind(", expected ").map_or("is invalid", |at| &text[at + 2..]);
        return (None, rule.to_owned());
    }
    (None, text.to_owned())
}

/// A field's name as it may be repeated: it came from the caller.
fn presentable(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-[]$".contains(c);
    if name.len() <= MAX_FIELD_NAME && name.chars().all(plain) {
        name.to_owned()
    } else {
        "(unnamed)".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use purser_proto_schema::{image::PullInput, registry::CreateInput};

    use super::*;

    fn fields(text: &str) -> String {
        match parse::<CreateInput>(Some(text)) {
            Err(Error::Invalid(issues)) => format!("{:?} {:?}", issues.form, issues.fields),
            Err(error) => format!("{error:?}"),
            Ok(_) => "accepted".to_owned(),
        }
    }

    #[test]
    fn the_field_is_named_and_the_value_is_not() {
        for (text, expected) in [
            (r#"{}"#, "registryName"),
            (r#"{"registryName":"hunter2"}"#, "registryUrl"),
            (r#"{"registryName":["hunter2"],"registryUrl":"x"}"#, "registryName"),
            (r#"{"registryName":"a","registryUrl":"x","password":{"hunter2":1}}"#, "password"),
            (
                r#"{"registryName":"a","registryUrl":"x","registryType":"hunter2, expected hunter2"}"#,
                "registryType",
            ),
            (r#"{"registryName":"a","registryUrl":"x","insecure":"hunter2"}"#, "insecure"),
            (
                r#"{"registryName":"a","registryUrl":"x","colour":"hunter2"}"#,
                r#"[] {"colour": ["is not a field of this procedure"]}"#,
            ),
            (r#"{"registryName":"a","registryUrl":"x","registryName":"hunter2"}"#, "registryName"),
            (r#"["hunter2"]"#, "object"),
            (r#""hunter2""#, "object"),
            (r#"{"registryName": hunter2}"#, "JSON"),
        ] {
            let fields = fields(text);
            assert!(fields.contains(expected), "{text}: {fields}");
            assert!(!fields.contains("hunter2"), "{text}: {fields}");
        }
    }

    #[test]
    fn a_nested_field_is_named_with_its_parent() {
        let Err(Error::Invalid(issues)) =
            parse::<PullInput>(Some(r#"{"image":"a","auth":{"username":"u"}}"#))
        else {
            panic!("accepted");
        };
        assert!(issues.fields["auth"][0].contains("auth.password"), "{:?}", issues.fields);
    }

    #[test]
    fn the_key_of_a_map_is_not_repeated() {
        for key in ["hunter2", "hunter2.x", "image.hunter2", "hunter2[3]", "hunter 2"] {
            let text = serde_json::json!({"image": "a", "labels": {(key): 5}}).to_string();
            let Err(Error::Invalid(issues)) = parse::<PullInput>(Some(&text)) else {
                panic!("{key} was accepted")
            };
            let said = format!("{:?} {:?}", issues.form, issues.fields);
            assert!(said.contains("labels.") && said.contains("expected a string"), "{key}: {said}");
            assert!(!said.contains("hunter"), "{key}: {said}");
        }
    }
}
