//! How much may still be pulled from Docker Hub.

use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::BrowseError;
use crate::access::MANIFESTS;
use crate::session::{Session, Want};

/// Docker keeps this repository for the question; asking by `HEAD` is free.
const PREVIEW: &str = "ratelimitpreview/test";

/// What is left of the allowance of these credentials, or without any, of this machine's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "PullAllowance"))]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Pulls in one window; `None` is unlimited, as Docker Hub's silence means.
    pub limit: Option<u64>,
    /// Pulls that are left; `None` where the registry didn't say.
    pub remaining: Option<u64>,
    /// The window, in seconds.
    pub window_seconds: Option<u64>,
}

impl Session<'_> {
    /// Asks Docker Hub, without using up a pull.
    ///
    /// # Errors
    /// [`BrowseError::NotSupported`] for every other registry: none of them says.
    pub async fn rate_limit(&mut self) -> Result<RateLimit, BrowseError> {
        if !self.target.address.is_docker_hub() {
            return Err(BrowseError::NotSupported {
                message: format!("{} doesn't say how much may be pulled", self.host()),
                advice: "Only Docker Hub does.".to_owned(),
            });
        }
        let path = format!("/v2/{PREVIEW}/manifests/latest");
        let want = Want { method: Method::HEAD, accept: MANIFESTS, ..Want::of_repository(PREVIEW, path) };
        let answer = self.ask(&want).await?;
        let read = read(&answer.headers);
        match answer.status {
            StatusCode::OK => Ok(read),
            StatusCode::TOO_MANY_REQUESTS if read.limit.is_some() => {
                Ok(RateLimit { remaining: read.remaining.or(Some(0)), ..read })
            }
            _ => Err(self.refusal(&answer, "rate limit").into()),
        }
    }
}

/// `ratelimit-limit: 100;w=21600`, `ratelimit-remaining: 76;w=21600`.
fn read(headers: &HeaderMap) -> RateLimit {
    let field = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (limit, window_seconds) = number_and_window(field("ratelimit-limit"));
    let (remaining, _) = number_and_window(field("ratelimit-remaining"));
    RateLimit { limit, remaining, window_seconds }
}

fn number_and_window(text: &str) -> (Option<u64>, Option<u64>) {
    // JSON's readers are exact up to here.
    let number = |text: &str| text.trim().parse().ok().filter(|number| *number < 1 << 53);
    let mut parts = text.split(';');
    let first = parts.next().and_then(number);
    (first, parts.find_map(|part| part.trim().strip_prefix("w=").and_then(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_docker_hub_writes_them() {
        assert_eq!(number_and_window("100;w=21600"), (Some(100), Some(21600)));
        assert_eq!(number_and_window("76; w=21600; x=y"), (Some(76), Some(21600)));
        assert_eq!(number_and_window(""), (None, None));
        assert_eq!(number_and_window("-1;w=-5"), (None, None));
        assert_eq!(number_and_window("99999999999999999999;w=1e9"), (None, None));
    }
}
