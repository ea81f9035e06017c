use super::*;

fn hub_client(registry: &Fake, website: &Fake) -> RegistryClient {
    let at = |fake: &Fake| RegistryAddress::parse(&format!("http://{}", fake.address)).unwrap();
    let endpoints = HubEndpoints { registry: at(registry), website: at(website) };
    let policy = EgressPolicy::default().allow_loopback(true);
    RegistryClient::with_hub_endpoints(policy, "purser-test", endpoints)
}

fn hub(namespace: &str) -> Target {
    Target::new(RegistryAddress::parse(&format!("docker.io/{namespace}")).unwrap())
}

async fn website() -> Fake {
    Fake::start(|_| {
        let body = r#"{"count":3,"next":"http://evil.test/","results":[
            {"repo_name":"nginx","short_description":"Official\u001b build","star_count":20000,"pull_count":12345678901,"is_official":true},
            {"repo_name":"bitnami/nginx","short_description":"","star_count":-5,"pull_count":1},
            {"repo_name":"../../x"},{"repo_name":"EVIL/\u0000"},{"repo_name":"myorg/nginx"}]}"#;
        answer("200 OK", &[], body)
    })
    .await
}

#[tokio::test]
async fn docker_hub_is_searched_by_its_website_which_sees_no_credentials() {
    let (registry, website) = (bearer_registry(|_| answer("404 Not Found", &[], "")).await, website().await);
    let (client, bob, target) = (hub_client(&registry, &website), bob(), hub(""));
    let result =
        client.open(&target, Some(&bob), DEADLINE).await.unwrap().search("nginx & co", 10).await.unwrap();
    let images: Vec<_> =
        result.items.iter().map(|hit| (hit.repository.as_str(), hit.image.as_str())).collect();
    let expected =
        [("library/nginx", "nginx"), ("bitnami/nginx", "bitnami/nginx"), ("myorg/nginx", "myorg/nginx")];
    assert_eq!(images, expected);
    let nginx = &result.items[0];
    assert_eq!(
        (nginx.description.as_deref(), nginx.stars, nginx.official),
        (Some("Official build"), Some(20000), true)
    );
    assert_eq!((result.items[1].stars, result.items[1].official), (None, false));
    let asked = website.asked();
    assert_eq!(path_of(&asked[0]), "/v2/search/repositories/?query=nginx%20%26%20co&page_size=10");
    assert!(asked.iter().all(|asked| asked.authorization.is_none()));
    assert_eq!(registry.connections(), 0);
}

#[tokio::test]
async fn private_repositories_of_docker_hub_are_found_by_their_whole_name_and_in_the_namespace() {
    let registry = bearer_registry(|asked| match path_of(asked) {
        "/v2/myorg/secret/tags/list?n=1" => answer("200 OK", &[], r#"{"tags":["1"]}"#),
        _ => answer("401 Unauthorized", &[], ""),
    })
    .await;
    let website = website().await;
    let (client, bob) = (hub_client(&registry, &website), bob());
    for (target, query) in [(hub(""), "myorg/secret"), (hub("myorg"), "secret")] {
        let result =
            client.open(&target, Some(&bob), DEADLINE).await.unwrap().search(query, 10).await.unwrap();
        assert!(result.items[0].exact && result.items[0].repository == "myorg/secret");
    }
    let result =
        client.open(&hub("myorg"), Some(&bob), DEADLINE).await.unwrap().search("nginx", 10).await.unwrap();
    assert_eq!(result.items.iter().map(|hit| hit.repository.as_str()).collect::<Vec<_>>(), ["myorg/nginx"]);
}

#[tokio::test]
async fn a_search_that_docker_hub_refuses_is_an_error_with_a_reason() {
    let registry = bearer_registry(|_| answer("404 Not Found", &[], "")).await;
    for (status, code) in [("429 Too Many Requests", Code::RateLimited), ("500 Oops", Code::Other)] {
        let website = Fake::start(move |_| answer(status, &["Retry-After: 60"], "")).await;
        let client = hub_client(&registry, &website);
        let error =
            client.open(&hub(""), None, DEADLINE).await.unwrap().search("nginx", 10).await.unwrap_err();
        assert_eq!(failed(error).code, code);
    }
}

#[tokio::test]
async fn the_rate_limit_is_asked_for_free_and_its_absence_is_unlimited() {
    let website = website().await;
    let limited: &[&str] = &["ratelimit-limit: 100;w=21600", "ratelimit-remaining: 76;w=21600"];
    for (headers, limit, remaining) in [(limited, Some(100), Some(76)), (&[][..], None, None)] {
        let headers: Vec<String> = headers.iter().map(|header| (*header).to_owned()).collect();
        let registry = bearer_registry(move |_| {
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            answer("200 OK", &headers, "")
        })
        .await;
        let client = hub_client(&registry, &website);
        let read = client.open(&hub(""), None, DEADLINE).await.unwrap().rate_limit().await.unwrap();
        assert_eq!((read.limit, read.remaining), (limit, remaining));
        let asked = registry.asked();
        assert_eq!(asked.last().unwrap().line, "HEAD /v2/ratelimitpreview/test/manifests/latest HTTP/1.1");
        assert!(path_of(&asked[1]).ends_with("scope=repository:ratelimitpreview/test:pull"));
    }
    let target = Target::new(RegistryAddress::parse("ghcr.io").unwrap());
    let error = client().open(&target, None, DEADLINE).await.unwrap().rate_limit().await.unwrap_err();
    assert!(matches!(error, BrowseError::NotSupported { .. }));
}

#[tokio::test]
async fn official_images_are_found_under_their_short_names() {
    let registry = bearer_registry(|asked| match path_of(asked) {
        "/v2/library/nginx/tags/list?n=10" => answer("200 OK", &[], r#"{"tags":["1"]}"#),
        _ => answer("404 Not Found", &[], ""),
    })
    .await;
    let client = hub_client(&registry, &website().await);
    let page = client.open(&hub(""), None, DEADLINE).await.unwrap().tags("nginx", None, 10).await.unwrap();
    assert_eq!(page.items, ["1"]);
}
