//! Query parameters as an input: the text of each becomes the JSON that the field's schema asks for.
//!
//! As OpenAPI's `style: form`: a list is its parameter repeated, or its items with commas between them (one inside an
//! item is written `%2C`); an object is JSON. What cannot be made into what the schema asks for stays text, and the
//! procedure says which field takes no text; nothing is judged here.

use std::{collections::HashMap, sync::LazyLock};

use percent_encoding::percent_decode_str;
use purser_proto_schema::{
    procedure,
    schema::{Schemas, schemas},
};
use serde_json::{Number, Value, value::RawValue};

use crate::error::{Error, Result};

/// What a parameter's text stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Number,
    Flag,
    /// Written as JSON.
    Object,
    List(Box<Form>),
}

impl Form {
    fn of(schemas: &Schemas, schema: &Value) -> Self {
        let schema = schemas.resolve(schema);
        if let Some(variants) = schema["anyOf"].as_array() {
            let mut forms: Vec<_> = variants
                .iter()
                .filter(|one| one["type"] != "null")
                .map(|one| Self::of(schemas, one))
                .collect();
            // One or several: a list of one is as good.
            let list = forms.iter().position(|form| matches!(form, Self::List(_))).unwrap_or(0);
            return if forms.is_empty() { Self::Text } else { forms.swap_remove(list) };
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds.iter().find_map(|kind| kind.as_str().filter(|kind| *kind != "null")),
            kind => kind.as_str(),
        };
        match kind {
            Some("integer" | "number") => Self::Number,
            Some("boolean") => Self::Flag,
            Some("object") => Self::Object,
            Some("array") => Self::List(Box::new(Self::of(schemas, &schema["items"]))),
            _ => Self::Text,
        }
    }

    /// One value of this form, as JSON.
    fn json(&self, text: &str) -> String {
        let is_json = match self {
            Self::Number => serde_json::from_str::<Number>(text).is_ok(),
            Self::Flag => ["true", "false"].contains(&text),
            Self::Object => text.starts_with('{') && serde_json::from_str::<&RawValue>(text).is_ok(),
            Self::Text | Self::List(_) => false,
        };
        if is_json { text.to_owned() } else { Value::from(text).to_string() }
    }
}

/// The forms of all parameters, by procedure and name.
static FORMS: LazyLock<HashMap<&str, HashMap<&str, Form>>> = LazyLock::new(|| {
    let of = |name| {
        schemas().fields(name).into_iter().map(|(field, schema, _)| (field, Form::of(schemas(), schema)))
    };
    procedure::table().map(|info| (info.name, of(info.name).collect())).collect()
});

/// The input that a query string is, for a procedure of the table; `None` for an empty one.
///
/// # Errors
/// [`Error::Invalid`] for text that is not UTF-8.
pub(super) fn read(procedure: &str, query: &str) -> Result<Option<Box<RawValue>>> {
    let forms = FORMS.get(procedure);
    let mut fields: Vec<(String, String)> = Vec::new();
    let mut lists: Vec<(String, Vec<String>)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name)?;
        match forms.and_then(|forms| forms.get(name.as_str())).unwrap_or(&Form::Text) {
            Form::List(of) => {
                let items = text.split(',').map(|item| decoded(item).map(|item| of.json(&item)));
                let items = items.collect::<Result<Vec<_>>>()?;
                match lists.iter_mut().find(|(list, _)| *list == name) {
                    Some((_, list)) => list.extend(items),
                    None => lists.push((name, items)),
                }
            }
            // A name that is there twice is twice in the input, too, and refused there.
            form => fields.push((name, form.json(&decoded(text)?))),
        }
    }
    fields.extend(lists.into_iter().map(|(name, items)| (name, format!("[{}]", items.join(",")))));
    if fields.is_empty() {
        return Ok(None);
    }
    let members: Vec<String> =
        fields.into_iter().map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
    RawValue::from_string(format!("{{{}}}", members.join(","))).map(Some).map_err(|_| unreadable())
}

/// What one parameter's decoded text is, for a procedure of the table. Of a list it is an item.
pub(super) fn value(procedure: &str, name: &str, text: &str) -> Value {
    let form = FORMS.get(procedure).and_then(|forms| forms.get(name)).unwrap_or(&Form::Text);
    serde_json::from_str(&form.json(text)).unwrap_or_else(|_| Value::from(text))
}

fn decoded(text: &str) -> Result<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map(String::from).map_err(|_| unreadable())
}

fn unreadable() -> Error {
    Error::form("the query string cannot be read: write it in UTF-8, percent-encoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(procedure: &str, query: &str) -> String {
        read(procedure, query).unwrap().map_or_else(|| "nothing".to_owned(), |input| input.get().to_owned())
    }

    #[test]
    fn text_becomes_what_the_schema_asks_for() {
        for (procedure, query, input) in [
            ("registry.all", "", "nothing"),
            ("job.all", "limit=5&status=failed", r#"{"limit":5,"status":"failed"}"#),
            ("job.all", "limit=", r#"{"limit":""}"#),
            ("job.all", "limit=05", r#"{"limit":"05"}"#),
            ("job.all", "limit=5&limit=6", r#"{"limit":5,"limit":6}"#),
            ("registry.catalog", "registryId=5&refresh=true", r#"{"registryId":"5","refresh":true}"#),
            ("registry.catalog", "refresh=yes&cursor=null", r#"{"refresh":"yes","cursor":"null"}"#),
            ("registry.search", "query=a+b%2Bc%26%22", r#"{"query":"a b+c&\""}"#),
            ("registry.search", "query", r#"{"query":""}"#),
            ("registry.one", "a%22b=1", r#"{"a\"b":"1"}"#),
        ] {
            assert_eq!(read_as(procedure, query), input, "{procedure} {query}");
        }
    }

    #[test]
    fn a_list_is_repeated_or_has_commas_and_an_object_is_json() {
        for (query, input) in [
            ("profiles=a", r#"{"profiles":["a"]}"#),
            ("profiles=a&composeFile=x&profiles=b", r#"{"composeFile":"x","profiles":["a","b"]}"#),
            ("profiles=a,b", r#"{"profiles":["a","b"]}"#),
            ("profiles=a%2Cb", r#"{"profiles":["a,b"]}"#),
            ("variables=%7B%22A%22:%221%22%7D", r#"{"variables":{"A":"1"}}"#),
            ("variables=%7B%22A%22", r#"{"variables":"{\"A\""}"#),
            ("variables=5", r#"{"variables":"5"}"#),
        ] {
            assert_eq!(read_as("stack.images", query), input, "{query}");
        }
    }

    #[test]
    fn what_is_not_utf_8_is_refused() {
        assert!(matches!(read("registry.search", "query=%ff"), Err(Error::Invalid(_))));
    }
}
