//! Where a list goes on, as something that callers hold and can't make use of.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::uri::PathAndQuery;

use super::BrowseError;

/// The longest cursor, in bytes.
const MAX_CURSOR_BYTES: usize = 12 * 1024;

/// A position in a paged list: a page of the registry, and how many of its elements were already looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Path and query.
    pub(super) page: String,
    pub(super) offset: usize,
}

impl Position {
    pub(super) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{} {}", self.offset, self.page))
    }

    /// Reads a cursor of the list at `path`.
    pub(super) fn decode(cursor: &str, path: &str) -> Result<Self, BrowseError> {
        let read = || {
            let text = (cursor.len() <= MAX_CURSOR_BYTES).then(|| URL_SAFE_NO_PAD.decode(cursor).ok())??;
            let text = String::from_utf8(text).ok()?;
            let (offset, page) = text.split_once(' ')?;
            let offset = offset.parse().ok().filter(|_| offset.bytes().all(|b| b.is_ascii_digit()))?;
            let parsed = PathAndQuery::try_from(page).ok()?;
            let intact = parsed.as_str() == page && parsed.path() == path && page.is_ascii();
            intact.then(|| Self { page: page.to_owned(), offset })
        };
        read().ok_or(BrowseError::Cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_is_good_for_its_own_list_only() {
        let position = Position { page: "/v2/_catalog?n=2&next_page=gAAAA~%3D".into(), offset: 17 };
        let cursor = position.encode();
        assert_eq!(Position::decode(&cursor, "/v2/_catalog"), Ok(position));
        assert_eq!(Position::decode(&cursor, "/v2/a/tags/list"), Err(BrowseError::Cursor));
        for text in [
            "0 https://evil.test/v2/_catalog",
            "0 //evil.test/v2/_catalog",
            "0 /v2/_catalog/../secret",
            "0 /v2/secret/tags/list",
            "0 /v2/_catalog?a b",
            "0 /v2/_catalog?a\r\nX: y",
            "0 /v2/_catalog#x",
            "-1 /v2/_catalog",
            "+1 /v2/_catalog",
            "99999999999999999999999 /v2/_catalog",
            "/v2/_catalog",
            "",
        ] {
            let cursor = URL_SAFE_NO_PAD.encode(text);
            assert_eq!(Position::decode(&cursor, "/v2/_catalog"), Err(BrowseError::Cursor), "{text}");
        }
        for cursor in ["", "!", "é", &"A".repeat(20_000)] {
            assert_eq!(Position::decode(cursor, "/v2/_catalog"), Err(BrowseError::Cursor));
        }
    }
}
