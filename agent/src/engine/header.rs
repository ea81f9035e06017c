//! bollard 0.21 writes `X-Registry-Auth` in the standard base64 alphabet. The engine reads base64url, and
//! takes what it cannot read for *no* credential: an anonymous pull, without a word. And where no credential
//! is sent, a Podman takes its host's own (`podman login`): a pull that says it is anonymous would not be.
//! So every request passes through here.

use bollard::BollardRequest;
use http::{HeaderMap, HeaderValue};

const CREDENTIALS: &str = "x-registry-auth";
/// `{}`: credentials for no registry. To a Docker the same as none.
const NOBODYS: HeaderValue = HeaderValue::from_static("e30=");

/// The request with its credentials header in the alphabet that engines read, or with nobody's where a pull
/// or push has none.
pub(super) fn correct(mut request: BollardRequest) -> BollardRequest {
    let goes_to_a_registry = goes_to_a_registry(request.uri().path());
    correct_in(request.headers_mut(), goes_to_a_registry);
    request
}

fn correct_in(headers: &mut HeaderMap, goes_to_a_registry: bool) {
    if let Some(value) = headers.get_mut(CREDENTIALS) {
        let mut corrected =
            HeaderValue::from_bytes(&url_safe(value.as_bytes())).expect("base64 is always a header value");
        corrected.set_sensitive(true);
        *value = corrected;
    } else if goes_to_a_registry {
        headers.insert(CREDENTIALS, NOBODYS);
    }
}

fn goes_to_a_registry(path: &str) -> bool {
    path.ends_with("/images/create") || (path.contains("/images/") && path.ends_with("/push"))
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
    fn where_no_credential_is_sent_to_a_registry_nobodys_is() {
        for (path, nobodys) in [
            ("/images/create", true),
            ("/v1.41/images/create", true),
            ("/images/a/b/push", true),
            ("/images/a/push/json", false),
            ("/_ping", false),
        ] {
            let mut headers = HeaderMap::new();
            correct_in(&mut headers, goes_to_a_registry(path));
            assert_eq!(headers.get(CREDENTIALS), nobodys.then_some(&NOBODYS), "{path}");
        }
        let mut headers =
            HeaderMap::from_iter([(CREDENTIALS.parse().unwrap(), HeaderValue::from_static("a+"))]);
        correct_in(&mut headers, true);
        assert_eq!(headers[CREDENTIALS], "a-");
    }

    #[test]
    fn both_alphabets_differ_only_in_two_letters() {
        for text in ["", "~~~>>>???", "pässwörd ☃ ~?>", "plain", "\u{fffd}\u{10ffff}"] {
            assert_eq!(url_safe(STANDARD.encode(text).as_bytes()), URL_SAFE.encode(text).into_bytes());
        }
    }
}
