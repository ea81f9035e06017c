//! `Link` headers: where the next page of a list is, as the registry says.

use http::header::LINK;
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};

use crate::address::{Authority, Host};
use crate::diagnosis::{Diagnosis, DiagnosisCode as Code};

/// The longest header value that is looked at, in bytes.
const MAX_VALUE_BYTES: usize = 8 * 1024;

/// The target with `rel=next` in one value of a `Link` header, as it is written there. Values beyond 8 KiB are not read.
/// Never panics; public as a target for fuzzers.
pub fn parse_link(value: &str) -> Option<&str> {
    if value.len() > MAX_VALUE_BYTES {
        return None;
    }
    let mut rest = value;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        let (parameters, tail) = split_unquoted(after, b',');
        if has_next(parameters) {
            return Some(target.trim());
        }
        rest = tail;
    }
}

/// Splits at the first `separator` (ASCII) outside quotes.
fn split_unquoted(text: &str, separator: u8) -> (&str, &str) {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => return (&text[..at], &text[at + 1..]),
            _ => {}
        }
    }
    (text, "")
}

fn has_next(parameters: &str) -> bool {
    let mut rest = parameters;
    while !rest.is_empty() {
        let (parameter, tail) = split_unquoted(rest, b';');
        rest = tail;
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("rel")
        {
            let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
            return relations.any(|relation| relation.eq_ignore_ascii_case("next"));
        }
    }
    false
}

/// Path and query of the next page, where there is one. `current` is what was asked; the page must be of the same list
/// (its path may have a prefix that a proxy takes away) and on the same host, whatever the port and scheme: only its
/// query is used, and only over the connection that is there.
///
/// # Errors
/// When it is somewhere else.
pub(crate) fn next_page(
    headers: &HeaderMap,
    current: &str,
    host: &Authority,
) -> Result<Option<String>, Diagnosis> {
    let values = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    let Some(target) = values.filter_map(parse_link).next() else { return Ok(None) };
    resolve(target, current, &host.host).map(Some)
}

fn resolve(target: &str, current: &str, own: &Host) -> Result<String, Diagnosis> {
    let path = current.split_once('?').map_or(current, |(path, _)| path);
    let absolute = match target.strip_prefix("//") {
        Some(rest) => Some(format!("https://{rest}")),
        None => target.contains("://").then(|| target.to_owned()).filter(|_| !target.starts_with(['/', '?'])),
    };
    let (there, query) = match absolute {
        Some(url) => {
            let uri: Uri = url.parse().map_err(|_| unreadable())?;
            let authority = uri.authority().ok_or_else(unreadable)?;
            let authority = Authority::parse(authority.as_str()).map_err(|_| unreadable())?;
            if authority.host != *own {
                return Err(elsewhere(&authority.to_string()));
            }
            (uri.path().to_owned(), uri.query().map(str::to_owned))
        }
        None => {
            let target = if target.starts_with('?') { format!("{path}{target}") } else { target.to_owned() };
            let target = if target.starts_with('/') { target } else { sibling(path, &target) };
            let target = PathAndQuery::try_from(target.as_str()).map_err(|_| unreadable())?;
            (target.path().to_owned(), target.query().map(str::to_owned))
        }
    };
    if !there.ends_with(path) {
        return Err(elsewhere(&there));
    }
    Ok(match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    })
}

/// `name` beside the last component of `path`.
fn sibling(path: &str, name: &str) -> String {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    format!("{directory}/{name}")
}

fn unreadable() -> Diagnosis {
    Diagnosis::new(
        Code::Other,
        "the registry says that the list goes on, but not in a way that can be read",
        "Look at the registry's Link headers, and the proxies on the way.",
    )
}

fn elsewhere(place: &str) -> Diagnosis {
    Diagnosis::new(
        Code::Other,
        "the registry says that its list goes on at another place, which is not followed",
        "Check the registry's external URL: the pages of a list must be on the registry's own host.",
    )
    .with_engine_message(&format!("Link: {place}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_any_spelling() {
        for value in [
            "</v2/_catalog?n=2&last=b>; rel=\"next\"",
            "</v2/_catalog?n=2&last=b>;rel=next",
            "</first>; rel=\"first\", </v2/_catalog?n=2&last=b>; title=\"a, <b>; rel=prev\"; REL=\"prev NEXT\"",
            "  < /v2/_catalog?n=2&last=b > ; rel = next",
        ] {
            assert_eq!(parse_link(value), Some("/v2/_catalog?n=2&last=b"), "{value}");
        }
        for value in ["", "<", "</a>", "</a>; rel=prev", "</a>; title=\"rel=next\"", "/a; rel=next"] {
            assert_eq!(parse_link(value), None, "{value}");
        }
        assert_eq!(parse_link(&format!("<{}>; rel=next", "a".repeat(9000))), None);
    }

    #[test]
    fn only_the_same_list_on_the_same_host_is_a_next_page() {
        let own = Host::parse("r.test").unwrap();
        let next = |target: &str| resolve(target, "/v2/_catalog?n=2", &own).ok();
        let page = Some("/v2/_catalog?last=b".to_owned());
        for target in [
            "/v2/_catalog?last=b",
            "?last=b",
            "_catalog?last=b",
            "https://r.test/v2/_catalog?last=b",
            "http://R.test:5000/v2/_catalog?last=b",
            "//r.test/v2/_catalog?last=b",
            "/artifactory/api/docker/key/v2/_catalog?last=b",
        ] {
            assert_eq!(next(target), page, "{target}");
        }
        assert_eq!(next("/v2/_catalog?u=http://x/"), Some("/v2/_catalog?u=http://x/".to_owned()));
        for target in [
            "https://evil.test/v2/_catalog?last=b",
            "//evil.test/v2/_catalog",
            "https://r.test@evil.test/v2/_catalog",
            "https://evil.test@r.test/v2/_catalog",
            "/v2/other/tags/list?last=b",
            "file:///v2/_catalog",
            "/v2/_catalog?a\u{0}b",
            "/v2/_catalog?a b",
            "https://169.254.169.254/v2/_catalog",
            "../../x",
            "",
        ] {
            assert_eq!(next(target), None, "{target}");
        }
    }

    /// Texts of the pieces that matter, from a fixed seed (xorshift), so that a failure repeats itself.
    #[test]
    fn no_link_panics_or_leads_to_another_host() {
        let pieces = [
            "<",
            ">",
            "; ",
            "rel",
            "=",
            "next",
            "\"",
            "\\",
            ",",
            "/v2/_catalog",
            "?last=b",
            "https://",
            "evil.test",
            "r.test",
            "//",
            "..",
            "é",
            "\0",
            "#",
            "@",
            "rel=next",
            "%00",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % bound as u64) as usize
        };
        let own = Host::parse("r.test").unwrap();
        let mut found = 0;
        for _ in 0..50_000 {
            let length = random(12);
            let text: String = (0..length).map(|_| pieces[random(pieces.len())]).collect();
            let _ = parse_link(&text);
            let target: String = (0..random(5)).map(|_| pieces[random(pieces.len())]).collect();
            if let Some(target) = parse_link(&format!("<{target}>; rel=next"))
                && let Ok(next) = resolve(target, "/v2/_catalog?n=1", &own)
            {
                found += 1;
                assert!(next == "/v2/_catalog" || next.starts_with("/v2/_catalog?"), "{text}");
            }
        }
        assert!(found > 100, "only {found} links were followed");
    }
}
