//! What an answer that isn't the hoped-for one means.

use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use serde_json::Value;

use crate::connection::Answer;
use crate::diagnosis::{Diagnosis, DiagnosisCode as Code, presentable, recognise};
use crate::kind::RegistryKind;

/// Longer texts in error bodies are pages rather than messages, in bytes.
const MAX_MESSAGE_BYTES: usize = 512;

impl Answer {
    /// Whether the body is a page for people.
    pub(crate) fn is_page(&self) -> bool {
        let html = |value: &http::HeaderValue| {
            value.to_str().is_ok_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"))
        };
        self.headers.get(CONTENT_TYPE).is_some_and(html) || self.body.trim_ascii_start().starts_with(b"<")
    }

    /// Whether a 200 on `/v2/` is a registry's: it says so in a header, or the body is empty or JSON (distribution
    /// answers `{}`, Quay `true`, zot nothing).
    pub(crate) fn is_registry(&self) -> bool {
        let says_so = self
            .headers
            .get("docker-distribution-api-version")
            .is_some_and(|version| version.as_bytes().starts_with(b"registry/2"));
        let body = self.body.trim_ascii();
        says_so || (!self.is_page() && (body.is_empty() || serde_json::from_slice::<Value>(body).is_ok()))
    }

    /// The message in an error body, in any of the forms that registries and token servers use.
    pub(crate) fn message(&self) -> String {
        if self.is_page() {
            return String::new();
        }
        let Ok(body) = serde_json::from_slice::<Value>(&self.body) else {
            let end = self.body.len().min(MAX_MESSAGE_BYTES);
            return presentable(&String::from_utf8_lossy(&self.body[..end]));
        };
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let first = body.get("errors").and_then(|errors| errors.get(0));
        let listed = first.map(|error| {
            [text(error, "code"), text(error, "message")].into_iter().flatten().collect::<Vec<_>>().join(": ")
        });
        let single =
            || ["details", "message", "error_description", "error"].iter().find_map(|key| text(&body, key));
        presentable(&listed.or_else(single).unwrap_or_default())
    }

    /// How many seconds the other side asks to wait, where it says.
    pub(crate) fn retry_after(&self) -> Option<u32> {
        self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
    }
}

/// Who answered, since the same status means different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// The registry, asked without credentials.
    RegistryUnasked,
    /// The registry, asked with what it wanted.
    Registry,
    /// The token server.
    TokenServer,
}

/// The diagnosis of an answer other than the hoped-for one. `host` is who answered; `given` says whether credentials
/// were given.
pub(crate) fn diagnose(answer: &Answer, speaker: Speaker, host: &str, given: bool) -> Diagnosis {
    let said = answer.message();
    let status = answer.status;
    let diagnosis = match status {
        StatusCode::TOO_MANY_REQUESTS => rate_limited(answer, host),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if !given => none_given(host),
        StatusCode::UNAUTHORIZED => recognised(&said).unwrap_or_else(|| refused(host)),
        StatusCode::FORBIDDEN if speaker == Speaker::TokenServer => {
            recognised(&said).unwrap_or_else(|| refused(host))
        }
        StatusCode::FORBIDDEN => Diagnosis::new(
            Code::Forbidden,
            format!("{host} answered 403 Forbidden"),
            "Check the rights of these credentials, and the firewall or proxy in front of the registry.",
        ),
        StatusCode::BAD_REQUEST if speaker != Speaker::RegistryUnasked && answers_400(host) => {
            Diagnosis::new(
                Code::TokenExpired,
                format!("{host} refused the login with 400"),
                "Amazon ECR's passwords last 12 hours and hold for one region: mint a new one, without a trailing newline.",
            )
        }
        status if status.is_server_error() => Diagnosis::new(
            Code::Other,
            format!("{host} answered {}", status.as_u16()),
            "The registry or a proxy in front of it has a fault; look at its log.",
        )
        .passing_after(Duration::ZERO),
        _ if speaker == Speaker::TokenServer => Diagnosis::new(
            Code::Other,
            format!("the token server {host} answered {}", status.as_u16()),
            "Check the registry's token settings (realm).",
        ),
        _ => not_a_registry(answer, host),
    };
    match diagnosis.engine_message {
        Some(_) => diagnosis,
        None => diagnosis.with_engine_message(&said),
    }
}

/// Amazon's registries answer 400 to passwords that they don't like.
fn answers_400(host: &str) -> bool {
    matches!(RegistryKind::of_host(host), RegistryKind::Ecr | RegistryKind::EcrPublic)
}

pub(crate) fn recognised(said: &str) -> Option<Diagnosis> {
    let cause = recognise(said)?;
    let fits = matches!(
        cause.code,
        Code::Unauthorized | Code::TokenExpired | Code::InsufficientScope | Code::RateLimited
    );
    fits.then(|| Diagnosis::new(cause.code, cause.message, cause.advice))
}

fn refused(host: &str) -> Diagnosis {
    Diagnosis::new(
        Code::Unauthorized,
        format!("{host} doesn't accept this user name and password"),
        "Re-enter them; many registries, Docker Hub among them, want an access token in place of the password.",
    )
}

/// A registry that wants credentials when there are none to give.
pub(crate) fn none_given(host: &str) -> Diagnosis {
    Diagnosis::new(
        Code::Unauthorized,
        format!("{host} needs credentials, none were given"),
        "Enter a user name and a password or access token.",
    )
}

pub(crate) fn rate_limited(answer: &Answer, host: &str) -> Diagnosis {
    let advice = match answer.retry_after() {
        Some(seconds) => format!("It asks to wait {seconds} seconds."),
        None => "Wait, or use credentials: signed-in callers have higher limits.".to_owned(),
    };
    let wait = Duration::from_secs(answer.retry_after().unwrap_or_default().into());
    Diagnosis::new(Code::RateLimited, format!("{host} answered 429, too many requests"), advice)
        .passing_after(wait)
}

/// For an answer on `/v2/` that no registry gives.
pub(crate) fn not_a_registry(answer: &Answer, host: &str) -> Diagnosis {
    let status = answer.status.as_u16();
    let https =
        answer.status == StatusCode::BAD_REQUEST && answer.body.windows(5).any(|text| text == b"HTTPS");
    let (message, advice) = if https {
        (
            format!("{host} speaks TLS on this port, but was asked in plain HTTP"),
            "Write https:// in the address.",
        )
    } else if answer.status.is_redirection() {
        (
            format!("{host} redirects /v2/ somewhere else; Purser doesn't follow it"),
            "Enter the address that the registry itself answers at, with https://.",
        )
    } else if answer.is_page() {
        (format!("{host} answered {status} with a web page, not as a registry"), "Check host and port.")
    } else {
        (
            format!("{host} answered {status} on /v2/, as no registry does"),
            "Check host and port: the registry's API must be at /v2/ of that host.",
        )
    };
    let diagnosis = Diagnosis::new(Code::NotARegistry, message, advice);
    match answer.headers.get(LOCATION).and_then(|location| location.to_str().ok()) {
        Some(location) => diagnosis.with_engine_message(&format!("Location: {location}")),
        None => diagnosis,
    }
}
