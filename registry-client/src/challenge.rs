//! What a registry asks for in `WWW-Authenticate`.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;
use http_auth::parse_challenges;

use crate::diagnosis::{Diagnosis, DiagnosisCode as Code};

/// A challenge that Purser can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    /// `realm` is as the registry said it: not yet judged.
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

/// Chooses among all challenges of an answer: Bearer with a realm, else Basic.
pub(crate) fn choose(headers: &HeaderMap) -> Result<Challenge, Diagnosis> {
    let mut basic = false;
    let mut asked = false;
    for value in headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()) {
        asked = true;
        let Ok(challenges) = parse_challenges(value) else {
            basic |= value.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic"));
            continue;
        };
        for challenge in challenges {
            let parameter = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped()).filter(|value| !value.is_empty())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm")
            {
                return Ok(Challenge::Bearer { realm, service: parameter("service") });
            }
            basic |= challenge.scheme.eq_ignore_ascii_case("basic");
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

    #[test]
    fn what_cannot_be_answered_is_said() {
        assert_eq!(chosen(&[]), Err(Code::NotARegistry));
        assert_eq!(chosen(&["Negotiate"]), Err(Code::Other));
        assert_eq!(chosen(&[r#"Bearer realm="""#]), Err(Code::Other));
        assert_eq!(chosen(&["\"\",,=="]), Err(Code::Other));
    }
}
