//! `GET /api/audit.jsonl`: what `audit.all` tells, all of it, one JSON object a line, newest first.
//!
//! It is `audit.all` page after page, each asked for when the caller has taken the one before, so it takes no more
//! memory however long the audit is; and it looks at the key as often, so that one that is revoked hears no more. Of a
//! key's limit it takes one call, by its first page.
//! What breaks off has no proper end: a text that ended well is whole.

use std::{io, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Query, Request, State},
    http::{Method, StatusCode, header},
    response::Response,
};
use futures_util::stream;
use jsonrpsee::types::ErrorObjectOwned;
use purser_proto_schema::{
    audit::All,
    error::{Code, ErrorData, PublicError},
    procedure::Procedure as _,
};
use serde::Deserialize;
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use super::{Doors, auth, in_process, parameters};
use crate::{
    domain::caller::Caller,
    error::{Error, Issues, Result},
    request, rpc,
};

/// What the path of this door ends in.
pub(super) const NAME: &str = "audit.jsonl";
/// As many as a page may have.
const PAGE: u32 = 100;
/// What a page is asked for by, and this door not.
const PAGED: [&str; 2] = ["limit", "cursor"];

pub(super) async fn handle(State(doors): State<Doors>, request: Request) -> Response {
    if request.method() != Method::GET {
        return refuse(&PublicError::new(Code::MethodNotSupported, "ask for audit.jsonl by GET"));
    }
    let key = auth::Key::shown_in(request.headers());
    let filters = match filters(&request) {
        Ok(filters) => filters,
        Err(error) => {
            let let_in = |caller: Arc<Caller>| rpc::let_in(&doors.app, &All::INFO, &caller, false);
            let refused = auth::caller_of(&doors, &key).await.and_then(let_in).err();
            return refuse(&rpc::public(&refused.unwrap_or(error)));
        }
    };
    let mut export = Export { doors, key, filters };
    // The first page before the answer begins: what is wrong with the call is said with a status.
    let (first, next) = match export.page(None).await {
        Ok(page) => page,
        Err(error) => return refuse(&error),
    };
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
    let media = header::HeaderValue::from_static("application/jsonl");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}

fn filters(request: &Request) -> Result<Map<String, Value>> {
    let Ok(Query(given)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()) else {
        return Err(malformed("the query string cannot be read"));
    };
    let mut filters = Map::new();
    for (name, value) in given {
        if let Some(paged) = PAGED.iter().find(|paged| **paged == name) {
            return Err(Error::field(paged, "is not taken here: all of it is given"));
        }
        let value = parameters::value(All::INFO.name, &name, &value);
        if filters.insert(name, value).is_some() {
            return Err(malformed("a parameter is given twice"));
        }
    }
    Ok(filters)
}

fn malformed(rule: &'static str) -> Error {
    let mut issues = Issues::default();
    issues.form.push(rule.into());
    Error::Invalid(issues)
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
        let caller = auth::caller_of(&self.doors, &self.key).await.map_err(|error| rpc::public(&error))?;
        self.filters.insert("limit".to_owned(), json!(PAGE));
        let is_first = cursor.is_none();
        self.filters.insert("cursor".to_owned(), json!(cursor));
        let unreadable = |error| rpc::public(&Error::internal("reading a page of the audit")(error));
        let input = to_raw_value(&self.filters).map_err(unreadable)?;
        let (doors, name) = (&self.doors, All::INFO.name);
        let answer = match is_first {
            true => in_process::call(doors, name, Some(&input), Some(caller), None).await,
            false => in_process::go_on(doors, name, Some(&input), Some(caller)).await,
        };
        let answer = answer.map_err(|error| public(&error))?;
        let Page { items, next_cursor } = serde_json::from_str(answer.get()).map_err(unreadable)?;
        let mut lines = Vec::with_capacity(items.iter().map(|item| item.get().len() + 1).sum());
        for item in items {
            lines.extend_from_slice(item.get().as_bytes());
            lines.push(b'\n');
        }
        Ok((lines.into(), next_cursor))
    }
}

/// A method's error in this door's terms.
fn public(error: &ErrorObjectOwned) -> PublicError {
    let data = error.data().and_then(|data| serde_json::from_str::<ErrorData>(data.get()).ok());
    match data {
        Some(data) => PublicError { message: error.message().to_owned(), data },
        None => PublicError::new(Code::InternalServerError, error.message()),
    }
}

fn refuse(error: &PublicError) -> Response {
    let PublicError { message, data } = error;
    let body = json!({"message": message, "code": data.code, "data": data}).to_string();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(data.http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let media = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}
