//! `/api/trpc.d.ts` and `/api/trpc-v10.d.ts`: the procedure table as types for `@trpc/client`, without a key, as
//! for every document.

use std::sync::LazyLock;

use axum::{http::HeaderMap, response::Response};
use purser_proto_schema::typescript::{Version, declarations};

use super::document::Document;

/// Browsers show it; what fetches it for a compiler does not ask.
const TEXT: &str = "text/plain; charset=utf-8";

pub(super) async fn v11(headers: HeaderMap) -> Response {
    static V11: LazyLock<Document> = LazyLock::new(|| Document::new(TEXT, declarations(Version::V11)));
    V11.answer(&headers)
}

pub(super) async fn v10(headers: HeaderMap) -> Response {
    static V10: LazyLock<Document> = LazyLock::new(|| Document::new(TEXT, declarations(Version::V10)));
    V10.answer(&headers)
}
