//! superjson, as far as tRPC's clients need it: told apart from plain JSON by its form, decoded by
//! taking `json` and leaving out what `meta` says is undefined.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

const UNDEFINED: &str = "undefined";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapped {
    json: Box<RawValue>,
    #[serde(default)]
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    values: Value,
}

/// An input, and whether its caller speaks superjson and so is answered in it.
pub(super) struct Input {
    /// The plain input; none for undefined.
    pub(super) json: Option<Box<RawValue>>,
    /// Whether to answer in superjson.
    pub(super) superjson: bool,
}

/// Reads an input of either form.
pub(super) fn read(raw: Option<&RawValue>) -> Input {
    let Some(raw) = raw else { return Input { json: None, superjson: false } };
    // serde would read an array as the struct's fields in order.
    if !raw.get().starts_with('{') {
        return Input { json: Some(raw.to_owned()), superjson: false };
    }
    match serde_json::from_str::<Wrapped>(raw.get()) {
        Ok(wrapped) => Input { json: unwrap(wrapped), superjson: true },
        Err(_) => Input { json: Some(raw.to_owned()), superjson: false },
    }
}

fn unwrap(wrapped: Wrapped) -> Option<Box<RawValue>> {
    let values = match wrapped.meta {
        None => return Some(wrapped.json),
        Some(meta) => meta.values,
    };
    if is_undefined(&values) {
        return None;
    }
    let paths: BTreeMap<String, Value> = serde_json::from_value(values).unwrap_or_default();
    if !paths.values().any(is_undefined) {
        return Some(wrapped.json);
    }
    // What cannot be read is for the procedure to refuse: without it a list would be asked for without its filters.
    let Ok(mut json) = serde_json::from_str::<Value>(wrapped.json.get()) else { return Some(wrapped.json) };
    for path in paths.iter().filter(|(_, value)| is_undefined(value)).map(|(path, _)| path) {
        remove(&mut json, path);
    }
    serde_json::value::to_raw_value(&json).ok()
}

fn is_undefined(annotation: &Value) -> bool {
    annotation.as_array().and_then(|kinds| kinds.first()).is_some_and(|kind| kind == UNDEFINED)
}

/// Takes the value at a dotted path away. Dots in names are escaped by a backslash.
fn remove(json: &mut Value, path: &str) {
    let mut names = split(path);
    let Some(last) = names.pop() else { return };
    let parent = names.iter().try_fold(json, |value, name| match value {
        Value::Object(map) => map.get_mut(name),
        Value::Array(list) => name.parse::<usize>().ok().and_then(|at| list.get_mut(at)),
        _ => None,
    });
    if let Some(Value::Object(map)) = parent {
        map.remove(&last);
    }
}

fn split(path: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        match character {
            '.' => names.push(String::new()),
            '\\' => names.last_mut().into_iter().for_each(|name| name.extend(characters.next())),
            other => names.last_mut().into_iter().for_each(|name| name.push(other)),
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(text: &str) -> (Option<String>, bool) {
        let raw: Box<RawValue> = serde_json::from_str(text).unwrap();
        let input = read(Some(&raw));
        (input.json.map(|json| json.get().to_owned()), input.superjson)
    }

    #[test]
    fn the_form_tells_superjson_from_plain() {
        assert_eq!(reads(r#"{"json":{"a":1}}"#), (Some(r#"{"a":1}"#.into()), true));
        assert_eq!(reads(r#"{"json":1,"other":2}"#), (Some(r#"{"json":1,"other":2}"#.into()), false));
        assert_eq!(reads(r#"{"a":1}"#), (Some(r#"{"a":1}"#.into()), false));
        assert_eq!(reads(r#"[{"a":1}]"#), (Some(r#"[{"a":1}]"#.into()), false));
    }

    #[test]
    fn undefined_is_absent_and_null_is_null() {
        assert_eq!(reads(r#"{"json":null,"meta":{"values":["undefined"],"v":1}}"#), (None, true));
        let text = r#"{"json":{"a":null,"b":null,"c":{"d.e":null}},"meta":{"values":{"a":["undefined"],"c.d\\.e":["undefined"]}}}"#;
        assert_eq!(reads(text), (Some(r#"{"b":null,"c":{}}"#.into()), true));
    }
}
