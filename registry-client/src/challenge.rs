//! What a registry asks for in `WWW-Authenticate`.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;
use http_auth::parse_challenges;

use crate::diagnosis::{Diagnosis, DiagnosisCode as Code};

/// The longest header value that is looked at, in bytes.
const MAX_VALUE_BYTES: usize = 8 * 1024;

/// A challenge that Purser can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password, for the registry itself.
    Basic,
    /// A token.
    Bearer {
        /// Where to get it, as the registry said: not yet judged.
        realm: String,
        /// For whom the token is meant to be.
        service: Option<String>,
    },
}

/// Reads one value of `WWW-Authenticate`: Bearer with a realm, else Basic; `None` for whatever else. Values beyond
/// 8 KiB are not read. Never panics; public as a target for fuzzers.
pub fn parse_challenge(value: &str) -> Option<Challenge> {
    if value.len() > MAX_VALUE_BYTES {
        return None;
    }
    let is_basic = |scheme: &str| scheme.eq_ignore_ascii_case("basic");
    let Ok(challenges) = parse_challenges(value) else {
        return value.get(..5).is_some_and(is_basic).then_some(Challenge::Basic);
    };
    let mut basic = None;
    for challenge in challenges {
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped()).filter(|value| !value.is_empty())
        };
        if challenge.scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = parameter("realm")
        {
            return Some(Challenge::Bearer { realm, service: parameter("service") });
        }
        if is_basic(challenge.scheme) {
            basic = Some(Challenge::Basic);
        }
    }
    basic
}

/// Chooses among all challenges of an answer: Bearer with a realm, else Basic.
pub(crate) fn choose(headers: &HeaderMap) -> Result<Challenge, Diagnosis> {
    let mut basic = false;
    let mut asked = false;
    for value in headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()) {
        asked = true;
        match parse_challenge(value) {
            Some(Challenge::Basic) => basic = true,
            Some(bearer) => return Ok(bearer),
            None => {}
        }
    }
    match (basic, asked) {
        (true, _) => Ok(Challenge::Basic),
        (false, true) => Err(Diagnosis::new(
            Code::Other,
            "the registry asks for a kind of login other than Basic and Bearer",
            "Docker can't log in there either; enable token or password login on the registry.",
        )),
        (false, false) => Err(Diagnosis::new(
            Code::NotARegistry,
            "it answers 401 without saying how to log in, as no registry does",
            "Check host and port, and whether a proxy removes the WWW-Authenticate header.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(values: &[&str]) -> Result<Challenge, Code> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        choose(&headers).map_err(|diagnosis| diagnosis.code)
    }

    fn bearer(realm: &str, service: Option<&str>) -> Result<Challenge, Code> {
        Ok(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
    }

    #[test]
    fn bearer_is_preferred_and_basic_is_understood() {
        let hub =
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="a:b:c,d""#;
        assert_eq!(chosen(&[hub]), bearer("https://auth.docker.io/token", Some("registry.docker.io")));
        assert_eq!(
            chosen(&[r#"Basic realm="x""#, r#"bearer REALM="https://a/t""#]),
            bearer("https://a/t", None)
        );
        assert_eq!(
            chosen(&[r#"Basic realm="x, y", Bearer realm="https://a/t",service="""#]),
            bearer("https://a/t", None)
        );
        assert_eq!(chosen(&[r#"Basic realm="Registry Realm""#]), Ok(Challenge::Basic));
        assert_eq!(chosen(&[r#"BASIC realm=plain, charset="UTF-8""#]), Ok(Challenge::Basic));
        assert_eq!(chosen(&["Basic"]), Ok(Challenge::Basic));
        assert_eq!(chosen(&["Basic realm=not quoted at all"]), Ok(Challenge::Basic));
        assert_eq!(chosen(&["Negotiate", r#"Basic realm="x""#]), Ok(Challenge::Basic));
        assert_eq!(chosen(&[r#"Bearer service="no realm""#, r#"Basic realm="x""#]), Ok(Challenge::Basic));
    }

    /// Texts of the pieces that matter, from a fixed seed (xorshift), so that a failure repeats itself.
    #[test]
    fn no_challenge_panics_and_nothing_is_made_up() {
        let pieces = [
            "Bearer",
            "basic",
            " ",
            "realm",
            "=",
            "\"",
            "\\",
            ",",
            "https://a/t",
            "service",
            "\t",
            "é",
            "a",
            "=,",
            "\"x\"",
            "Bearer realm=\"https://a/t\"",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % bound as u64) as usize
        };
        let mut bearers = 0;
        for _ in 0..50_000 {
            let length = next(12);
            let text: String = (0..length).map(|_| pieces[next(pieces.len())]).collect();
            match parse_challenge(&text) {
                Some(Challenge::Bearer { realm, .. }) => {
                    bearers += 1;
                    assert!(!realm.is_empty() && text.to_ascii_lowercase().contains("bearer"), "{text}");
                }
                Some(Challenge::Basic) => assert!(text.to_ascii_lowercase().contains("basic"), "{text}"),
                None => {}
            }
        }
        assert!(bearers > 100, "only {bearers} texts were challenges");
        assert_eq!(parse_challenge(&"Basic ".repeat(10_000)), None);
    }

    #[test]
    fn what_cannot_be_answered_is_said() {
        assert_eq!(chosen(&[]), Err(Code::NotARegistry));
        assert_eq!(chosen(&["Negotiate"]), Err(Code::Other));
        assert_eq!(chosen(&[r#"Bearer realm="""#]), Err(Code::Other));
        assert_eq!(chosen(&["\"\",,=="]), Err(Code::Other));
    }
}
