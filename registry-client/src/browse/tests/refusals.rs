use super::*;

async fn catalog(target: &Target, credentials: Option<&Credentials>) -> BrowseError {
    client().open(target, credentials, DEADLINE).await.unwrap().catalog(None, 10).await.unwrap_err()
}

#[tokio::test]
async fn a_catalog_that_is_not_shown_is_not_supported_and_says_what_to_do_instead() {
    for status in ["401 Unauthorized", "403 Forbidden", "404 Not Found", "405 Method Not Allowed"] {
        let fake = basic_registry(move |_| answer(status, &[], "")).await;
        let BrowseError::NotSupported { advice, .. } = catalog(&at(fake.address, ""), Some(&bob())).await
        else {
            panic!("{status}")
        };
        assert!(advice.contains("name the repository"), "{advice}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_apart_from_a_catalog_that_is_not_shown() {
    let wrong = Credentials { password: "wrong-secret".to_owned().into(), ..bob() };
    let basic = basic_registry(|_| answer("200 OK", &[], "{}")).await;
    let bearer = bearer_registry(|_| answer("200 OK", &[], "{}")).await;
    for fake in [basic, bearer] {
        let target = at(fake.address, "");
        assert_eq!(failed(catalog(&target, Some(&wrong)).await).code, Code::Unauthorized);
    }
}

#[tokio::test]
async fn a_token_server_that_refuses_the_catalog_refuses_the_catalog_only() {
    let own = Arc::new(OnceLock::<SocketAddr>::new());
    let known = Arc::clone(&own);
    let fake = Fake::start(move |asked| match path_of(asked) {
        path if path.contains("registry:catalog") => answer("401 Unauthorized", &[], ""),
        path if path.starts_with("/token?") => answer("200 OK", &[], r#"{"token":"t"}"#),
        _ if asked.authorization.is_some() => answer("200 OK", &[], "{}"),
        _ => {
            let realm = format!("WWW-Authenticate: Bearer realm=\"http://{}/token\"", known.get().unwrap());
            answer("401 Unauthorized", &[&realm], "")
        }
    })
    .await;
    own.set(fake.address).unwrap();
    let error = catalog(&at(fake.address, ""), Some(&bob())).await;
    assert!(matches!(error, BrowseError::NotSupported { .. }), "{error:?}");
}

#[tokio::test]
async fn registries_that_are_known_to_have_no_catalog_are_not_even_asked() {
    for host in ["docker.io", "ghcr.io/myorg", "public.ecr.aws"] {
        let target = Target::new(RegistryAddress::parse(host).unwrap());
        let error = catalog(&target, None).await;
        assert!(matches!(error, BrowseError::NotSupported { .. }), "{host} {error:?}");
    }
}

#[tokio::test]
async fn what_a_repository_is_refused_with_is_named() {
    let table = [
        ("401 Unauthorized", Code::Forbidden),
        ("403 Forbidden", Code::Forbidden),
        ("404 Not Found", Code::NotFound),
        ("418 Teapot", Code::Other),
    ];
    for (status, code) in table {
        let fake = basic_registry(move |_| answer(status, &[], "no: corréct-horse\u{1b}[31m")).await;
        let target = at(fake.address, "");
        let bob = bob();
        let client = client();
        let mut session = client.open(&target, Some(&bob), DEADLINE).await.unwrap();
        let diagnosis = failed(session.tags("team/app", None, 10).await.unwrap_err());
        assert_eq!(diagnosis.code, code, "{status}");
        assert_eq!(diagnosis.engine_message.as_deref(), Some("no: [redacted][31m"));
    }
    let fake = basic_registry(|_| answer("200 OK", &[], "{}")).await;
    let target = at(fake.address, "");
    let error =
        client().open(&target, None, DEADLINE).await.unwrap().tags("team/app", None, 10).await.unwrap_err();
    assert!(failed(error).message.contains("none were given"));
}
