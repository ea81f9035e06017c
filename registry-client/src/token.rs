//! Asking a token server for a token.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::answer::{Speaker, diagnose};
use crate::client::Credentials;
use crate::connection::{Ask, Channel};
use crate::diagnosis::{Diagnosis, DiagnosisCode as Code};

/// Who asks, as token servers note it.
const CLIENT_ID: &str = "purser";

/// `Basic` with these credentials: the UTF-8 of `user:password`, whatever it holds.
pub(crate) fn basic(credentials: &Credentials) -> Result<HeaderValue, Diagnosis> {
    let plain = Zeroizing::new(format!("{}:{}", credentials.username, credentials.password.expose_secret()));
    header("Basic", &Zeroizing::new(STANDARD.encode(plain.as_bytes())))
}

/// `Bearer` with this token.
pub(crate) fn bearer(token: &SecretString) -> Result<HeaderValue, Diagnosis> {
    header("Bearer", token.expose_secret())
}

fn header(scheme: &str, value: &str) -> Result<HeaderValue, Diagnosis> {
    let text = Zeroizing::new(format!("{scheme} {value}"));
    let mut value = HeaderValue::from_str(&text).map_err(|_| {
        Diagnosis::new(
            Code::Other,
            "the token server's token can't be sent in a header",
            "Check the registry's token settings (realm), and the proxies on the way.",
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Path and query of a token request. No scopes: a login test; token servers must answer it.
pub(crate) fn request_path(
    realm_path: &str,
    service: Option<&str>,
    account: Option<&str>,
    scopes: &[String],
) -> String {
    let mut path = realm_path.to_owned();
    let mut separator = if realm_path.contains('?') { '&' } else { '?' };
    let mut add = |key: &str, value: &str| {
        path.push(separator);
        separator = '&';
        path.push_str(key);
        path.push('=');
        push_encoded(&mut path, value);
    };
    if let Some(account) = account {
        add("account", account);
    }
    add("client_id", CLIENT_ID);
    if let Some(service) = service {
        add("service", service);
    }
    for scope in scopes {
        add("scope", scope);
    }
    path
}

/// Appends `text` as a part of a query.
pub(crate) fn push_encoded(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String never fails.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Docker's token server says `token`, OAuth's `access_token`; either may be empty.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// Asks for a token, with credentials where there are any.
pub(crate) async fn fetch(
    channel: &mut Channel,
    path: String,
    credentials: Option<&Credentials>,
) -> Result<SecretString, Diagnosis> {
    let authorization = credentials.map(basic).transpose()?;
    let host = channel.endpoint.authority.to_string();
    let answer = channel.ask(&Ask::get(path).authorized(authorization)).await?;
    if !answer.status.is_success() {
        return Err(diagnose(&answer, Speaker::TokenServer, &host, credentials.is_some()));
    }
    let usable = |token: &String| !token.is_empty();
    serde_json::from_slice::<TokenAnswer>(&answer.body)
        .ok()
        .and_then(|answer| answer.token.filter(usable).or(answer.access_token.filter(usable)))
        .map(SecretString::from)
        .ok_or_else(|| {
            Diagnosis::new(
                Code::Other,
                format!("the token server {host} answered without a token"),
                "Check the registry's token settings (realm), and the proxies on the way.",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_of_any_content_survives_unchanged() {
        let key_file = format!("{{\n  \"private_key\": \"{}\\n\"\n}}\n", "A/b+~>?".repeat(430));
        for password in ["", "p:w", "pä\u{1f600}ß ~>?", "line\r\nline\t\0", &key_file, &"x".repeat(4096)] {
            let credentials =
                Credentials { username: "_json_key".into(), password: password.to_owned().into() };
            let value = basic(&credentials).unwrap();
            assert!(value.is_sensitive() && !format!("{value:?}").contains("Basic"));
            let decoded = STANDARD.decode(value.to_str().unwrap().strip_prefix("Basic ").unwrap()).unwrap();
            assert_eq!(decoded, format!("_json_key:{password}").into_bytes());
        }
    }

    #[test]
    fn token_requests_carry_what_docker_sends_and_keep_the_realms_own_query() {
        let scopes = ["repository:a/b:pull,push".to_owned()];
        assert_eq!(
            request_path("/token", Some("registry & co"), Some("robot$a+b"), &scopes),
            "/token?account=robot%24a%2Bb&client_id=purser&service=registry%20%26%20co&scope=repository:a/b:pull,push"
        );
        assert_eq!(request_path("/t?x=y", None, None, &[]), "/t?x=y&client_id=purser");
    }

    #[test]
    fn a_token_that_would_break_out_of_its_header_is_refused() {
        assert!(bearer(&SecretString::from("a\r\nX: y")).is_err());
    }
}
