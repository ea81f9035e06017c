//! What a key may still do, in the headers of each answer: `RateLimit-*` as the IETF's draft has them, the
//! older `x-ratelimit-*` with the same numbers, and `Retry-After` where a call was refused. Keys without a
//! limit have none of them, nor has what is said on a socket. What is counted after the head of an answer is not in there:
//! a batch that is answered line by line is counted before.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};

use crate::{
    domain::rate_limit::{self, Allowance},
    error::whole_seconds,
};

const LIMIT: [HeaderName; 2] =
    [HeaderName::from_static("ratelimit-limit"), HeaderName::from_static("x-ratelimit-limit")];
const REMAINING: [HeaderName; 2] =
    [HeaderName::from_static("ratelimit-remaining"), HeaderName::from_static("x-ratelimit-remaining")];
const RESET: [HeaderName; 2] =
    [HeaderName::from_static("ratelimit-reset"), HeaderName::from_static("x-ratelimit-reset")];
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

pub(super) async fn tell(request: Request, next: Next) -> Response {
    let (mut response, allowance) = rate_limit::observed(next.run(request)).await;
    if let Some(allowance) = allowance {
        write(response.headers_mut(), allowance);
    }
    response
}

fn write(headers: &mut HeaderMap, Allowance { limit, remaining, full_in, retry_in }: Allowance) {
    let numbers =
        [(LIMIT, limit.requests.into()), (REMAINING, remaining.into()), (RESET, whole_seconds(full_in))];
    for (names, number) in numbers {
        for name in names {
            headers.insert(name, HeaderValue::from(number));
        }
    }
    let policy = format!("{};w={}", limit.requests, limit.window_seconds);
    // Two numbers: they are a header's value.
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(POLICY, policy);
    }
    if let Some(wait) = retry_in {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
}
