use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Answers `first` once, then a list.
async fn stumbling(first: &'static str, headers: &'static [&'static str]) -> Fake {
    let count = AtomicUsize::new(0);
    open_registry(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => answer(first, headers, ""),
        _ => answer("200 OK", &[], r#"{"tags":["a"]}"#),
    })
    .await
}

async fn tags(fake: &Fake, credentials: Option<&Credentials>) -> Result<Page, BrowseError> {
    client()
        .open(&at(fake.address, ""), credentials, DEADLINE)
        .await
        .unwrap()
        .tags("team/app", None, 10)
        .await
}

#[tokio::test]
async fn a_passing_fault_is_tried_once_more() {
    for (status, headers) in [
        ("503 Service Unavailable", &[][..]),
        ("502 Bad Gateway", &["Retry-After: nonsense"][..]),
        ("429 Too Many Requests", &["Retry-After: 0"][..]),
        ("429 Too Many Requests", &["Retry-After: -1"][..]),
    ] {
        let fake = stumbling(status, headers).await;
        assert_eq!(tags(&fake, None).await.unwrap().items, ["a"], "{status}");
    }
}

#[tokio::test]
async fn a_long_wait_is_not_waited_and_a_lasting_fault_not_tried_for_ever() {
    let fake = stumbling("429 Too Many Requests", &["Retry-After: 3600"]).await;
    let diagnosis = failed(tags(&fake, None).await.unwrap_err());
    assert_eq!(diagnosis.code, Code::RateLimited);
    assert!(diagnosis.advice.contains("3600"));
    assert_eq!(fake.asked().len(), 2);
    let fake = open_registry(|_| answer("500 Internal Server Error", &[], "")).await;
    assert_eq!(failed(tags(&fake, None).await.unwrap_err()).code, Code::Other);
    assert_eq!(fake.asked().len(), 3);
}

#[tokio::test]
async fn tokens_are_asked_for_by_scope_and_kept_for_the_session() {
    let fake = bearer_registry(|asked| match (path_of(asked), asked.authorization.as_deref()) {
        (path, Some("Bearer registry:catalog:%2A")) if path.starts_with("/v2/_catalog") => {
            answer("200 OK", &[], r#"{"repositories":["team/app"]}"#)
        }
        (path, Some("Bearer repository:team/app:pull")) if path.starts_with("/v2/team/app/") => {
            answer("200 OK", &[], r#"{"tags":["a"]}"#)
        }
        _ => answer("403 Forbidden", &[], ""),
    })
    .await;
    let (client, target, bob) = (client(), at(fake.address, ""), bob());
    let mut session = client.open(&target, Some(&bob), DEADLINE).await.unwrap();
    for _ in 0..2 {
        assert_eq!(session.catalog(None, 10).await.unwrap().items, ["team/app"]);
        assert_eq!(session.tags("team/app", None, 10).await.unwrap().items, ["a"]);
    }
    let tokens = fake.asked().into_iter().filter(|asked| path_of(asked).starts_with("/token"));
    assert_eq!(tokens.count(), 2);
    // Anonymous callers get tokens as well.
    assert_eq!(
        client.open(&target, None, DEADLINE).await.unwrap().tags("team/app", None, 10).await.unwrap().items,
        ["a"]
    );
}

#[tokio::test]
async fn a_token_that_ran_out_is_renewed_once_and_401_for_ever_ends() {
    let count = AtomicUsize::new(0);
    let fake = bearer_registry(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => answer("401 Unauthorized", &[], ""),
        _ => answer("200 OK", &[], r#"{"tags":["a"]}"#),
    })
    .await;
    assert_eq!(tags(&fake, Some(&bob())).await.unwrap().items, ["a"]);
    let fake = bearer_registry(|_| answer("401 Unauthorized", &[], "")).await;
    assert_eq!(failed(tags(&fake, Some(&bob())).await.unwrap_err()).code, Code::Forbidden);
    assert_eq!(fake.asked().len(), 5);
}

#[tokio::test]
async fn a_registry_that_is_open_at_its_door_only_gets_credentials_where_it_asks() {
    let fake = Fake::start(|asked| match path_of(asked) {
        "/v2/" => answer("200 OK", &[], "{}"),
        _ if asked.authorization == Some(basic()) => answer("200 OK", &[], r#"{"tags":["a"]}"#),
        _ => answer("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"x\""], ""),
    })
    .await;
    assert_eq!(tags(&fake, Some(&bob())).await.unwrap().items, ["a"]);
    let asked = fake.asked();
    assert_eq!(
        asked.iter().map(|asked| asked.authorization.is_some()).collect::<Vec<_>>(),
        [false, false, true]
    );
}

#[tokio::test]
async fn a_later_challenge_that_sends_the_secret_elsewhere_is_denied() {
    let fake = Fake::start(|asked| match path_of(asked) {
        "/v2/" => answer("200 OK", &[], "{}"),
        _ => answer("401 Unauthorized", &["WWW-Authenticate: Bearer realm=\"http://evil.test/token\""], ""),
    })
    .await;
    let diagnosis = failed(tags(&fake, Some(&bob())).await.unwrap_err());
    assert_eq!(diagnosis.code, Code::RealmDenied);
    assert!(diagnosis.advice.contains("evil.test") && diagnosis.advice.contains("realmAllow"));
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_place_only() {
    let fake = basic_registry(|path| match path {
        "/moved" => answer("200 OK", &[], r#"{"tags":["a"]}"#),
        _ => answer("307 Temporary Redirect", &["Location: /moved"], ""),
    })
    .await;
    assert_eq!(tags(&fake, Some(&bob())).await.unwrap().items, ["a"]);

    let other = Fake::start(|_| answer("200 OK", &[], r#"{"tags":["evil"]}"#)).await;
    for location in [format!("http://{}/x", other.address), format!("//{}/x", other.address)] {
        let field = format!("Location: {location}");
        let fake = basic_registry(move |_| answer("302 Found", &[&field], "")).await;
        assert_eq!(failed(tags(&fake, Some(&bob())).await.unwrap_err()).code, Code::Other);
    }
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn a_redirect_loop_is_left() {
    let fake = open_registry(|path| answer("302 Found", &[&format!("Location: {path}")], "")).await;
    assert_eq!(failed(tags(&fake, None).await.unwrap_err()).code, Code::Other);
    assert_eq!(fake.asked().len(), 5);
}

#[tokio::test]
async fn a_session_ends_at_its_deadline() {
    // A byte and then nothing: the head never ends.
    let fake = open_registry(|_| "HTTP/1.1 200".to_owned()).await;
    let (client, target) = (client(), at(fake.address, ""));
    let begun = std::time::Instant::now();
    let mut session = client.open(&target, None, Duration::from_millis(400)).await.unwrap();
    for _ in 0..2 {
        let error = session.tags("team/app", None, 10).await.unwrap_err();
        assert_eq!(failed(error).code, Code::Timeout);
    }
    assert!(begun.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn a_token_server_that_refuses_a_repository_does_not_pass_for_a_wrong_password() {
    let own = Arc::new(OnceLock::<SocketAddr>::new());
    let known = Arc::clone(&own);
    let fake = Fake::start(move |asked| match path_of(asked) {
        path if path.contains("scope=repository") => answer(
            "403 Forbidden",
            &[],
            r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#,
        ),
        path if path.starts_with("/token?") => answer("200 OK", &[], r#"{"token":"t"}"#),
        _ => {
            let realm = format!("WWW-Authenticate: Bearer realm=\"http://{}/token\"", known.get().unwrap());
            answer("401 Unauthorized", &[&realm], "")
        }
    })
    .await;
    own.set(fake.address).unwrap();
    assert_eq!(failed(tags(&fake, Some(&bob())).await.unwrap_err()).code, Code::Forbidden);
    assert_eq!(failed(tags(&fake, None).await.unwrap_err()).code, Code::Unauthorized);
}

#[tokio::test]
async fn sessions_may_be_moved_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    let (client, target) = (client(), Target::new(RegistryAddress::parse("ghcr.io").unwrap()));
    let mut session = client.open(&target, None, DEADLINE).await.unwrap();
    is_send(&client.open(&target, None, DEADLINE));
    is_send(&session);
    is_send(&session.catalog(None, 1));
    is_send(&session.tags("a", None, 1));
    is_send(&session.search("a", 1));
    is_send(&session.manifest("a", "1"));
    is_send(&session.rate_limit());
}

#[tokio::test]
async fn a_token_of_a_megabyte_is_no_token() {
    let own = Arc::new(OnceLock::<SocketAddr>::new());
    let known = Arc::clone(&own);
    let fake = Fake::start(move |asked| match path_of(asked) {
        path if path.starts_with("/token?") => {
            answer("200 OK", &[], &format!(r#"{{"token":"{}"}}"#, "a".repeat(1_000_000)))
        }
        _ => {
            let realm = format!("WWW-Authenticate: Bearer realm=\"http://{}/token\"", known.get().unwrap());
            answer("401 Unauthorized", &[&realm], "")
        }
    })
    .await;
    own.set(fake.address).unwrap();
    assert!(failed(tags(&fake, None).await.unwrap_err()).message.contains("without a token"));
}
