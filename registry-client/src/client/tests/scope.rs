use super::*;
use crate::fake::{Asked, Fake, answer};

fn both() -> ScopeProbe {
    ScopeProbe { repository: "team/app".into(), pull: true, push: true }
}

async fn registry(upload: &'static str, manifest: &'static str) -> Fake {
    Fake::start(move |asked: &Asked| match asked.line.split(' ').next() {
        _ if asked.authorization.is_none() => {
            answer("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"x\""], "")
        }
        Some("HEAD") => answer(manifest, &[], ""),
        Some("POST") => answer(upload, &["Location: /v2/team/app/blobs/uploads/1?state=x"], ""),
        Some("DELETE") => answer("404 Not Found", &[], ""),
        _ => answer("200 OK", &[], "{}"),
    })
    .await
}

#[tokio::test]
async fn access_is_proven_and_the_upload_cancelled() {
    let fake = registry("202 Accepted", "404 Not Found").await;
    let outcome =
        client().test(&at(fake.address), Some(&bob(PASSWORD)), Some(&both()), DEADLINE).await.unwrap();
    assert_eq!(outcome.access, Some(AccessVerdict { pull: Some(true), push: Some(true) }));
    let lines: Vec<_> = fake.asked().into_iter().skip(2).map(|asked| asked.line).collect();
    assert_eq!(
        lines,
        [
            "HEAD /v2/team/app/manifests/latest HTTP/1.1",
            "POST /v2/team/app/blobs/uploads/ HTTP/1.1",
            "DELETE /v2/team/app/blobs/uploads/1?state=x HTTP/1.1",
        ]
    );
}

#[tokio::test]
async fn refused_access_is_a_verdict_and_the_login_stands() {
    let fake = registry("403 Forbidden", "200 OK").await;
    let outcome =
        client().test(&at(fake.address), Some(&bob(PASSWORD)), Some(&both()), DEADLINE).await.unwrap();
    assert_eq!(outcome.credentials, CredentialsVerdict::Verified);
    assert_eq!(outcome.access, Some(AccessVerdict { pull: Some(true), push: Some(false) }));
    assert_eq!(outcome.warnings.len(), 1);
}

#[tokio::test]
async fn an_inconclusive_answer_is_no_verdict() {
    let fake = registry("500 Internal Server Error", "405 Method Not Allowed").await;
    let outcome =
        client().test(&at(fake.address), Some(&bob(PASSWORD)), Some(&both()), DEADLINE).await.unwrap();
    assert_eq!(outcome.access, Some(AccessVerdict::default()));
}

#[tokio::test]
async fn a_read_only_token_that_is_refused_push_is_no_wrong_password() {
    let tokens = Fake::start(|asked| {
        if asked.line.contains("pull,push") {
            answer("401 Unauthorized", &[], r#"{"details":"access token has insufficient scopes"}"#)
        } else {
            answer("200 OK", &[], r#"{"token":"tok"}"#)
        }
    })
    .await;
    let challenge = bearer_challenge(tokens.address);
    let fake = Fake::start(move |asked| match asked.authorization {
        Some(_) => answer("200 OK", &[], ""),
        None => answer("401 Unauthorized", &[&challenge], ""),
    })
    .await;
    let outcome =
        client().test(&at(fake.address), Some(&bob(PASSWORD)), Some(&both()), DEADLINE).await.unwrap();
    assert_eq!(outcome.access, Some(AccessVerdict { pull: Some(true), push: Some(false) }));
    assert!(!fake.asked().iter().any(|asked| asked.line.starts_with("POST")));
}

#[tokio::test]
async fn a_repository_that_is_no_path_is_refused_before_anything_is_dialled() {
    let fake = registry("202 Accepted", "200 OK").await;
    for repository in ["../x", "a b", "A", "", "x?y", "ghcr.io:443/x"] {
        let scope = ScopeProbe { repository: repository.into(), pull: true, push: false };
        assert!(
            client().test(&at(fake.address), None, Some(&scope), DEADLINE).await.is_err(),
            "{repository}"
        );
    }
    assert_eq!(fake.connections(), 0);
}
