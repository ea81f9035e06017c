//! A document that is made once and served from memory, with an entity tag.

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use ring::digest;

/// The document, what it is, and its tag.
pub(super) struct Document {
    text: Bytes,
    media_type: HeaderValue,
    tag: HeaderValue,
}

impl Document {
    pub(super) fn new(media_type: &'static str, text: impl Into<Bytes>) -> Self {
        let text = text.into();
        let hash = digest::digest(&digest::SHA256, &text);
        let hex: String = hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        // Hexadecimal digits in quotes are a header's value.
        let tag = HeaderValue::try_from(format!("\"{hex}\"")).unwrap_or(HeaderValue::from_static("\"\""));
        Self { text, media_type: HeaderValue::from_static(media_type), tag }
    }

    /// The text.
    pub(super) fn text(&self) -> &str {
        // It was made of a string.
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    /// The document, or 304 for those who have it.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Response {
        let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
        let is_known = known.flat_map(|tags| tags.split(',')).any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.trim_start_matches("W/").as_bytes() == self.tag.as_bytes()
        });
        let mut response = if is_known {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            let mut response = Response::new(Body::from(self.text.clone()));
            response.headers_mut().insert(header::CONTENT_TYPE, self.media_type.clone());
            response
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.tag.clone());
        // It changes with the program: ask each time, which costs a 304.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}
