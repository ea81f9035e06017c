//! bollard 0.21 writes `X-Registry-Auth` in the standard base64 alphabet. The engine reads base64url, and
//! takes what it cannot read for *no* credential: an anonymous pull, without a word. So every request
//! passes through here.

use bollard::BollardRequest;
use http::HeaderValue;

const CREDENTIALS: &str = "x-registry-auth";

/// The request with its credentials header in the alphabet that engines read.
pub(super) fn correct(mut request: BollardRequest) -> BollardRequest {
    if let Some(value) = request.headers_mut().get_mut(CREDENTIALS) {
        let mut corrected =
            HeaderValue::from_bytes(&url_safe(value.as_bytes())).expect("base64 is always a header value");
        corrected.set_sensitive(true);
        *value = corrected;
    }
    request
}

fn url_safe(base64: &[u8]) -> Vec<u8> {
    let letter = |&byte: &u8| match byte {
        b'+' => b'-',
        b'/' => b'_',
        other => other,
    };
    base64.iter().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use base64::{
        Engine as _,
        engine::general_purpose::{STANDARD, URL_SAFE},
    };

    use super::*;

    #[test]
    fn both_alphabets_differ_only_in_two_letters() {
        for text in ["", "~~~>>>???", "pässwörd ☃ ~?>", "plain", "\u{fffd}\u{10ffff}"] {
            assert_eq!(url_safe(STANDARD.encode(text).as_bytes()), URL_SAFE.encode(text).into_bytes());
        }
    }
}
