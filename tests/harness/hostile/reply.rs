//! What a hostile registry says.

use std::time::Duration;

use serde_json::Value;

/// Bytes as they go out, and what follows them.
pub struct Reply {
    text: Vec<u8>,
    then: Then,
}

/// What follows the bytes.
pub(super) enum Then {
    /// The next request.
    Next,
    /// The end of the connection.
    Close,
    /// Nothing, and the connection stays.
    Silence,
    /// This, again and again, with a pause, for as long as somebody takes it.
    Endless(Vec<u8>, Duration),
}

impl Reply {
    /// Exactly these bytes, then the end of the connection.
    pub fn last(text: impl Into<Vec<u8>>) -> Self {
        Self { text: text.into(), then: Then::Close }
    }

    /// These bytes, and never more, on a connection that stays.
    pub fn silence(text: impl Into<Vec<u8>>) -> Self {
        Self { text: text.into(), then: Then::Silence }
    }

    /// These bytes, then `piece` without end.
    pub fn endless(text: impl Into<Vec<u8>>, piece: impl Into<Vec<u8>>) -> Self {
        Self::slow(text, piece, Duration::ZERO)
    }

    /// These bytes, then `piece` after each pause.
    pub fn slow(text: impl Into<Vec<u8>>, piece: impl Into<Vec<u8>>, pause: Duration) -> Self {
        Self { text: text.into(), then: Then::Endless(piece.into(), pause) }
    }

    pub(super) fn into_parts(self) -> (Vec<u8>, Then) {
        (self.text, self.then)
    }
}

/// A whole answer; the connection stays.
impl From<Vec<u8>> for Reply {
    fn from(text: Vec<u8>) -> Self {
        Self { text, then: Then::Next }
    }
}

/// A well-formed answer with `headers` (each ended by CRLF) and the length of its body.
pub fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A well-formed answer in JSON.
pub fn json(status: &str, body: &Value) -> Vec<u8> {
    answer(status, "Content-Type: application/json\r\n", body.to_string())
}

/// Asks for user name and password.
pub fn basic() -> Vec<u8> {
    answer(
        "401 Unauthorized",
        "WWW-Authenticate: Basic realm=\"hostile\"\r\nDocker-Distribution-Api-Version: registry/2.0\r\n",
        r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
    )
}

/// Sends everyone to a token server.
pub fn bearer(realm: &str) -> Vec<u8> {
    let headers = format!(
        "WWW-Authenticate: Bearer realm=\"{realm}\",service=\"hostile\"\r\n\
         Docker-Distribution-Api-Version: registry/2.0\r\n"
    );
    answer(
        "401 Unauthorized",
        &headers,
        r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
    )
}

/// A token.
pub fn token(token: &str) -> Vec<u8> {
    json("200 OK", &serde_json::json!({"token": token}))
}
