use super::*;
use crate::fake::{Asked, Fake, answer};

async fn basic_registry() -> Fake {
    Fake::start(|asked| match asked.authorization {
        None => answer("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"fake\""], ""),
        _ if asked.authorization == basic_of(PASSWORD) => answer("200 OK", &[], "{}"),
        // A registry with bad manners: it repeats what it was sent.
        _ => answer("401 Unauthorized", &[], &format!("bad {:?} and wrong-secret", asked.authorization)),
    })
    .await
}

/// A registry that is its own token server.
async fn bearer_registry() -> Fake {
    let own = Arc::new(std::sync::OnceLock::new());
    let known = Arc::clone(&own);
    let fake = Fake::start(move |asked| match &asked.authorization {
        _ if asked.line.starts_with("GET /token?") => token_answer(asked),
        Some(token) if token.starts_with("Bearer tok-") => answer("200 OK", &[], "{}"),
        _ => answer("401 Unauthorized", &[&bearer_challenge(*known.get().unwrap())], ""),
    })
    .await;
    own.set(fake.address).unwrap();
    fake
}

fn token_answer(asked: &Asked) -> String {
    match &asked.authorization {
        None => answer("200 OK", &[], r#"{"token":"tok-anonymous"}"#),
        given if *given == basic_of(PASSWORD) => {
            answer("200 OK", &[], r#"{"token":"","access_token":"tok-bob","expires_in":300}"#)
        }
        given if *given == basic_of("expired") => {
            answer("401 Unauthorized", &[], r#"{"details":"personal access token is expired"}"#)
        }
        _ => answer("401 Unauthorized", &[], r#"{"details":"incorrect username or password"}"#),
    }
}

#[tokio::test]
async fn an_open_registry_never_sees_the_secret() {
    let fake = Fake::start(|_| answer("200 OK", &[], "{}")).await;
    let outcome = client().test(&at(fake.address), Some(&bob(PASSWORD)), None, DEADLINE).await.unwrap();
    assert_eq!((outcome.auth, outcome.credentials), (AuthScheme::None, CredentialsVerdict::NotRequired));
    assert_eq!(outcome.warnings.len(), 1);
    assert!(outcome.steps.iter().all(|step| step.ok), "{:?}", outcome.steps);
    assert!(fake.asked().iter().all(|asked| asked.authorization.is_none()));
}

#[tokio::test]
async fn a_right_password_is_verified_over_one_connection() {
    let fake = basic_registry().await;
    let target = target(&format!("http://{}", fake.address));
    let outcome = client().test(&target, Some(&bob(PASSWORD)), None, DEADLINE).await.unwrap();
    assert_eq!((outcome.auth, outcome.credentials), (AuthScheme::Basic, CredentialsVerdict::Verified));
    assert_eq!((fake.asked().len(), fake.connections()), (2, 1));
}

#[tokio::test]
async fn a_wrong_password_is_unauthorized_and_not_repeated() {
    let fake = basic_registry().await;
    let failure = client()
        .test(&at(fake.address), Some(&bob("wrong-secret")), None, DEADLINE)
        .await
        .map_err(failed)
        .unwrap_err();
    assert_eq!(failure.diagnosis.code, DiagnosisCode::Unauthorized);
    let text = serde_json::to_string(&failure).unwrap();
    assert!(text.contains("[redacted]") && !text.contains("wrong-secret"), "{text}");
    assert!(!text.contains(&STANDARD.encode("bob:wrong-secret")), "{text}");
}

#[tokio::test]
async fn basic_without_credentials_says_that_none_were_given() {
    let fake = basic_registry().await;
    for credentials in [None, Some(bob(""))] {
        let failure = client()
            .test(&at(fake.address), credentials.as_ref(), None, DEADLINE)
            .await
            .map_err(failed)
            .unwrap_err();
        assert_eq!(failure.diagnosis.code, DiagnosisCode::Unauthorized);
        assert!(failure.diagnosis.message.contains("needs credentials, none were given"));
    }
}

#[tokio::test]
async fn a_token_is_fetched_with_the_password_and_the_registry_sees_only_the_token() {
    let fake = bearer_registry().await;
    let outcome = client().test(&at(fake.address), Some(&bob(PASSWORD)), None, DEADLINE).await.unwrap();
    assert_eq!((outcome.auth, outcome.credentials), (AuthScheme::Bearer, CredentialsVerdict::Verified));
    let asked = fake.asked();
    let lines: Vec<_> = asked.iter().map(|asked| asked.line.as_str()).collect();
    let token = "GET /token?account=bob&client_id=purser&service=fake HTTP/1.1";
    assert_eq!(lines, ["GET /v2/ HTTP/1.1", token, "GET /v2/ HTTP/1.1"]);
    assert_eq!(asked[2].authorization.as_deref(), Some("Bearer tok-bob"));
}

#[tokio::test]
async fn a_wrong_or_expired_password_is_what_the_token_server_says_it_is() {
    let fake = bearer_registry().await;
    for (password, code) in [("wrong", DiagnosisCode::Unauthorized), ("expired", DiagnosisCode::TokenExpired)]
    {
        let failure = client()
            .test(&at(fake.address), Some(&bob(password)), None, DEADLINE)
            .await
            .map_err(failed)
            .unwrap_err();
        assert_eq!(failure.diagnosis.code, code);
        assert_eq!(failure.steps.last().map(|step| (step.step.as_str(), step.ok)), Some(("token", false)));
    }
}

#[tokio::test]
async fn an_anonymous_token_is_called_anonymous() {
    let fake = bearer_registry().await;
    let outcome = client().test(&at(fake.address), None, None, DEADLINE).await.unwrap();
    assert_eq!((outcome.auth, outcome.credentials), (AuthScheme::Bearer, CredentialsVerdict::Anonymous));
}

#[tokio::test]
async fn a_probe_says_where_a_secret_would_go_and_asks_nothing_there() {
    let fake = bearer_registry().await;
    let outcome = client().probe(&at(fake.address), None, DEADLINE).await.unwrap();
    assert_eq!((outcome.auth, outcome.realm_host), (AuthScheme::Bearer, Some(fake.address.to_string())));
    assert_eq!(fake.asked().len(), 1);
}

#[tokio::test]
async fn a_token_server_elsewhere_is_denied_by_name_and_never_asked() {
    for realm in ["http://evil.test/token", "http://169.254.169.254/latest/meta-data", "http://10.0.0.1/"] {
        let fake = Fake::start(move |_| {
            answer("401 Unauthorized", &[&format!("WWW-Authenticate: Bearer realm=\"{realm}\"")], "")
        })
        .await;
        let tested = client()
            .test(&at(fake.address), Some(&bob(PASSWORD)), None, DEADLINE)
            .await
            .map_err(failed)
            .unwrap_err();
        let probed = client().probe(&at(fake.address), None, DEADLINE).await.map_err(failed).unwrap_err();
        for failure in [tested, probed] {
            assert_eq!(failure.diagnosis.code, DiagnosisCode::RealmDenied);
            assert!(failure.diagnosis.message.contains(realm.split('/').nth(2).unwrap()));
        }
        assert!(fake.asked().iter().all(|asked| asked.authorization.is_none()));
    }
}

#[tokio::test]
async fn a_token_server_on_another_port_of_the_same_host_is_asked() {
    let tokens = Fake::start(token_answer).await;
    let challenge = bearer_challenge(tokens.address);
    let fake = Fake::start(move |asked| match asked.authorization {
        Some(_) => answer("200 OK", &[], "{}"),
        None => answer("401 Unauthorized", &[&challenge], ""),
    })
    .await;
    let outcome = client().test(&at(fake.address), Some(&bob(PASSWORD)), None, DEADLINE).await.unwrap();
    assert_eq!(outcome.credentials, CredentialsVerdict::Verified);
    assert_eq!(tokens.asked().len(), 1);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_sees_no_authorization() {
    let other = Fake::start(|_| answer("200 OK", &[], "{}")).await;
    let location = format!("Location: http://{}/v2/", other.address);
    let fake = Fake::start(move |asked| match asked.authorization {
        None => answer("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"x\""], ""),
        Some(_) => answer("307 Temporary Redirect", &[&location], ""),
    })
    .await;
    let failure = client()
        .test(&at(fake.address), Some(&bob(PASSWORD)), None, DEADLINE)
        .await
        .map_err(failed)
        .unwrap_err();
    assert_eq!(failure.diagnosis.code, DiagnosisCode::NotARegistry);
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn statuses_mean_what_they_say() {
    let table = [
        ("403 Forbidden", DiagnosisCode::Forbidden, None),
        ("404 Not Found", DiagnosisCode::NotARegistry, None),
        ("429 Too Many Requests", DiagnosisCode::RateLimited, Some(7)),
        ("503 Service Unavailable", DiagnosisCode::Other, Some(0)),
    ];
    for (status, code, passes_after) in table {
        let fake = Fake::start(move |_| answer(status, &["Retry-After: 7"], "")).await;
        let failure =
            client().test(&at(fake.address), None, None, DEADLINE).await.map_err(failed).unwrap_err();
        assert_eq!(failure.diagnosis.code, code, "{status}");
        assert_eq!(failure.diagnosis.passes_after.map(|after| after.as_secs()), passes_after, "{status}");
    }
    for (headers, body) in [("Content-Type: text/html", "<html>"), ("Content-Type: text/plain", "welcome")] {
        let fake = Fake::start(move |_| answer("200 OK", &[headers], body)).await;
        let failure =
            client().test(&at(fake.address), None, None, DEADLINE).await.map_err(failed).unwrap_err();
        assert_eq!(failure.diagnosis.code, DiagnosisCode::NotARegistry, "{body}");
    }
}

#[tokio::test]
async fn a_key_file_of_3_kib_arrives_byte_for_byte() {
    let key_file = format!("{{\n \"private_key\": \"{}\\n\"\n}}\n", "A/b+~>?ü".repeat(350));
    let expected = basic_of(&key_file);
    let fake = Fake::start(move |asked| match &asked.authorization {
        given if *given == expected => answer("200 OK", &[], "{}"),
        _ => answer("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"x\""], ""),
    })
    .await;
    let outcome = client().test(&at(fake.address), Some(&bob(&key_file)), None, DEADLINE).await.unwrap();
    assert_eq!(outcome.credentials, CredentialsVerdict::Verified);
}

#[tokio::test]
async fn a_token_server_that_is_named_after_the_secret_is_not_named() {
    // Nothing listens there.
    let challenge = "WWW-Authenticate: Bearer realm=\"http://localhost:1/token\"";
    let fake = Fake::start(move |_| answer("401 Unauthorized", &[challenge], "")).await;
    let failure = client()
        .test(&at(fake.address), Some(&bob("LocalHost")), None, DEADLINE)
        .await
        .map_err(failed)
        .unwrap_err();
    let text = serde_json::to_string(&(&failure.diagnosis, &failure.steps)).unwrap();
    assert!(text.contains("go to the token server [redacted]:1") && !text.contains("localhost"), "{text}");
    let failure = client()
        .test(&at(fake.address), Some(&bob("other")), None, DEADLINE)
        .await
        .map_err(failed)
        .unwrap_err();
    assert!(failure.steps.iter().any(|step| step.detail.contains("localhost")), "{:?}", failure.steps);
}
