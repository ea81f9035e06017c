//! Proving access to one repository, beyond the login that says little about it.

use http::header::LOCATION;
use http::{HeaderValue, Method, StatusCode, Uri};

use crate::answer::{Speaker, diagnose};
use crate::client::ScopeProbe;
use crate::connection::{Answer, Ask};
use crate::diagnosis::{Diagnosis, DiagnosisCode as Code};
use crate::ladder::Ladder;
use crate::outcome::{AccessVerdict, StepName};
use crate::probe::Reached;

/// Every kind of manifest; without the index types, old registries convert to schema 1.
pub(crate) const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v2+json";

/// What a rung about access says: yes, no, or that the answer is inconclusive.
type Verdict = (Option<bool>, String);

/// Proves what `probe` asks for. A refusal is a verdict and not a failure: the login stands. Only when the registry
/// can't be talked to any more does it fail.
pub(crate) async fn prove(
    ladder: &mut Ladder,
    session: &mut Reached<'_>,
    probe: &ScopeProbe,
) -> Result<AccessVerdict, Diagnosis> {
    let mut access = AccessVerdict::default();
    if probe.pull {
        access.pull = rung(ladder, StepName::Pull, pull(session, &probe.repository)).await?;
    }
    if probe.push {
        access.push = rung(ladder, StepName::Push, push(session, &probe.repository)).await?;
    }
    Ok(access)
}

async fn rung(
    ladder: &mut Ladder,
    step: StepName,
    work: impl Future<Output = Result<Verdict, Diagnosis>>,
) -> Result<Option<bool>, Diagnosis> {
    // A refusal marks the rung as broken but doesn't end the climb.
    let tried = ladder
        .step(step, async {
            match work.await? {
                (Some(false), why) => Err(Diagnosis::new(Code::InsufficientScope, why, "")),
                (verdict, detail) => Ok((verdict, detail)),
            }
        })
        .await;
    match tried {
        Ok(verdict) => Ok(verdict),
        Err(refusal) if is_refusal(refusal.code) => {
            ladder.warn(format!("{}: {}", step.as_str(), refusal.message));
            Ok(Some(false))
        }
        Err(diagnosis) => Err(diagnosis),
    }
}

fn is_refusal(code: Code) -> bool {
    matches!(code, Code::Unauthorized | Code::TokenExpired | Code::InsufficientScope | Code::Forbidden)
}

async fn pull(session: &mut Reached<'_>, repository: &str) -> Result<Verdict, Diagnosis> {
    let authorization = session.authorize(format!("repository:{repository}:pull")).await?;
    let path = format!("/v2/{repository}/manifests/latest");
    let ask = Ask { method: Method::HEAD, accept: MANIFESTS, authorization, ..Ask::get(path) };
    let answer = session.registry.ask(&ask).await?;
    match answer.status {
        StatusCode::OK => Ok((Some(true), format!("{repository}:latest can be pulled"))),
        StatusCode::NOT_FOUND => {
            Ok((Some(true), format!("pulling from {repository} is permitted, but it has no tag latest")))
        }
        _ => judge_refusal(session, &answer, &format!("pulling from {repository}")),
    }
}

async fn push(session: &mut Reached<'_>, repository: &str) -> Result<Verdict, Diagnosis> {
    let authorization = match session.authorize(format!("repository:{repository}:pull,push")).await {
        Ok(authorization) => authorization,
        // Docker Hub answers 401 to read-only tokens that ask for more; that is no wrong password.
        Err(refusal) if is_refusal(refusal.code) => {
            session.authorize(format!("repository:{repository}:pull")).await?;
            return Ok((
                Some(false),
                format!("pushing to {repository} is refused: the credentials only permit pulling"),
            ));
        }
        Err(diagnosis) => return Err(diagnosis),
    };
    let begin = Ask {
        method: Method::POST,
        authorization: authorization.clone(),
        ..Ask::get(format!("/v2/{repository}/blobs/uploads/"))
    };
    let answer = session.registry.ask(&begin).await?;
    match answer.status {
        StatusCode::ACCEPTED => {
            cancel_upload(session, &answer, authorization).await;
            Ok((Some(true), format!("pushing to {repository} is permitted")))
        }
        StatusCode::NOT_FOUND => Ok((
            Some(false),
            format!(
                "pushing to {repository} is refused: it doesn't exist there and isn't created by pushing"
            ),
        )),
        StatusCode::METHOD_NOT_ALLOWED => {
            Ok((Some(false), format!("pushing to {repository} is refused: the registry is read-only")))
        }
        _ => judge_refusal(session, &answer, &format!("pushing to {repository}")),
    }
}

fn judge_refusal(session: &Reached<'_>, answer: &Answer, what: &str) -> Result<Verdict, Diagnosis> {
    let status = answer.status.as_u16();
    match answer.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Ok((Some(false), format!("{what} is refused ({status})")))
        }
        // Without its words, which could repeat the token.
        StatusCode::TOO_MANY_REQUESTS => Err(Diagnosis {
            engine_message: None,
            ..diagnose(answer, Speaker::Registry, &session.host, true)
        }),
        _ => Ok((
            None,
            format!("the registry answered {status}, which doesn't tell whether {what} is permitted"),
        )),
    }
}

/// Cancels the upload where `Location` is on the registry itself; a registry that doesn't support that forgets it by and
/// by.
async fn cancel_upload(session: &mut Reached<'_>, answer: &Answer, authorization: Option<HeaderValue>) {
    let location = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok());
    let Some(path) = location.and_then(|location| path_on(location, &session.host)) else { return };
    let cancel = Ask { method: Method::DELETE, authorization, ..Ask::get(path) };
    if let Err(diagnosis) = session.registry.ask(&cancel).await {
        tracing::debug!(code = %diagnosis.code, "an upload that was begun as a test could not be cancelled");
    }
}

/// Path and query of `location`, if it is on `host` (`host[:port]`, as dialled).
pub(crate) fn path_on(location: &str, host: &str) -> Option<String> {
    let uri: Uri = location.parse().ok()?;
    let here = uri.authority().is_none_or(|authority| authority.as_str().eq_ignore_ascii_case(host));
    let path = uri.path_and_query().map(|path| path.as_str()).filter(|path| path.starts_with('/'))?;
    here.then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_cancelled_only_on_the_registry_itself() {
        assert_eq!(path_on("/v2/x/u?a=b", "r.test"), Some("/v2/x/u?a=b".to_owned()));
        assert_eq!(path_on("https://R.test/v2/x", "r.test"), Some("/v2/x".to_owned()));
        assert_eq!(path_on("https://r.test:444/v2/x", "r.test"), None);
        assert_eq!(path_on("https://evil.test/v2/x", "r.test"), None);
        assert_eq!(path_on("https://r.test@evil.test/v2/x", "r.test"), None);
        assert_eq!(path_on("not a uri", "r.test"), None);
    }
}
