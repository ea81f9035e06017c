//! `GET /api/audit.jsonl`: what `audit.all` tells, all of it, one JSON object a line, newest first. What is refused is
//! refused as at the [`plain`] door, and in its order.
//!
//! It is `audit.all` page after page, each asked for when the caller has taken the one before, so it takes no more
//! memory however long the audit is; and it looks at the key as often, so that one that is revoked hears no more. Of a
//! key's limit it takes one call, by its first page.
//! What breaks off has no proper end: a text that ended well is whole.

use std::{io, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Query, Request, State},
    http::{HeaderValue, Method, Uri, header, request::Parts},
    response::Response,
};
use futures_util::stream;
use purser_proto_schema::{
    audit::All,
    error::{Code, PublicError},
    procedure::Procedure as _,
};
use serde::Deserialize;
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use super::{
    Doors, auth, envelope, in_process, parameters,
    plain::{self, Refusal},
};
use crate::{
    domain::caller::Caller,
    error::{Error, Result},
    request, rpc,
};

/// Where it is.
pub(super) const PATH: &str = "/api/audit.jsonl";
/// What it is: a JSON object a line.
pub(super) const MEDIA: &str = "application/jsonl";
/// As many as a page may have.
const PAGE: u32 = 100;
/// What a page is asked for by, and this door not.
const PAGED: [&str; 2] = ["limit", "cursor"];

pub(super) async fn handle(State(doors): State<Doors>, request: Request) -> Response {
    let (asked, _) = request.into_parts();
    answer(doors, &asked).await.unwrap_or_else(plain::refused)
}

async fn answer(doors: Doors, asked: &Parts) -> std::result::Result<Response, Refusal> {
    if ![Method::GET, Method::HEAD].contains(&asked.method) {
        let error = PublicError::new(Code::MethodNotSupported, "ask for audit.jsonl by GET");
        return Err(Refusal::by_method(of_call(error), "GET, HEAD"));
    }
    let key = auth::Key::shown_in(&asked.headers);
    let filters = match filters(&asked.uri) {
        Ok(filters) => filters,
        Err(error) => {
            // What cannot be read does not get as far as the wrapper, which checks this before any input.
            let let_in = |caller: Arc<Caller>| rpc::let_in(&doors.app, &All::INFO, &caller, false);
            let refused = auth::caller_of(&doors, &key).await.and_then(let_in).err();
            return Err(of_call(rpc::public(&refused.unwrap_or(error))).into());
        }
    };
    let mut export = Export { doors, key, filters };
    // The first page before the answer begins: what is wrong with the call is said with a status.
    let (first, next) = export.page(None).await?;
    // Not known any more when the body is read.
    let of = request::current();
    let rest = stream::try_unfold((export, next), move |(mut export, next)| {
        request::within(of.clone(), async move {
            let Some(cursor) = next else { return Ok(None) };
            let page = export.page(Some(cursor)).await;
            page.map(|(lines, next)| Some((lines, (export, next)))).map_err(|error| {
                tracing::warn!(code = error.data.code.as_str(), "an export of the audit broke off");
                io::Error::other("broke off")
            })
        })
    });
    let lines = stream::StreamExt::chain(stream::iter([Ok::<_, io::Error>(first)]), rest);
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA));
    Ok(response)
}

/// Whatever is wrong is wrong with a call of this procedure.
fn of_call(error: PublicError) -> PublicError {
    error.at(All::INFO.name)
}

/// Whether a parameter of the pages is one here, too.
pub(super) fn takes(parameter: &str) -> bool {
    !PAGED.contains(&parameter)
}

fn filters(asked: &Uri) -> Result<Map<String, Value>> {
    let Ok(Query(given)) = Query::<Vec<(String, String)>>::try_from_uri(asked) else {
        return Err(Error::form("the query string cannot be read"));
    };
    let mut filters = Map::new();
    for (name, value) in given {
        if let Some(paged) = PAGED.iter().find(|paged| **paged == name) {
            return Err(Error::field(paged, "is not taken here: all of it is given"));
        }
        let value = parameters::value(All::INFO.name, &name, &value);
        if filters.insert(name, value).is_some() {
            return Err(Error::form("a parameter is given twice"));
        }
    }
    Ok(filters)
}

struct Export {
    doors: Doors,
    key: auth::Key,
    filters: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

impl Export {
    /// A page's lines, and where the next one begins.
    async fn page(
        &mut self,
        cursor: Option<String>,
    ) -> std::result::Result<(Bytes, Option<String>), PublicError> {
        let caller = auth::caller_of(&self.doors, &self.key).await;
        let caller = caller.map_err(|error| of_call(rpc::public(&error)))?;
        self.filters.insert("limit".to_owned(), json!(PAGE));
        let is_first = cursor.is_none();
        self.filters.insert("cursor".to_owned(), json!(cursor));
        let unreadable = |error| of_call(rpc::public(&Error::internal("reading a page of the audit")(error)));
        let input = to_raw_value(&self.filters).map_err(unreadable)?;
        let (doors, name) = (&self.doors, All::INFO.name);
        let answer = match is_first {
            true => in_process::call(doors, name, Some(&input), Some(caller), None).await,
            false => in_process::go_on(doors, name, Some(&input), Some(caller)).await,
        };
        let answer = answer.map_err(|error| envelope::public(&error, name))?;
        let Page { items, next_cursor } = serde_json::from_str(answer.get()).map_err(unreadable)?;
        let mut lines = Vec::with_capacity(items.iter().map(|item| item.get().len() + 1).sum());
        for item in items {
            lines.extend_from_slice(item.get().as_bytes());
            lines.push(b'\n');
        }
        Ok((lines.into(), next_cursor))
    }
}
