use super::*;

async fn searched(fake: &Fake, namespace: &str, query: &str, limit: usize) -> SearchResult {
    client()
        .open(&at(fake.address, namespace), None, DEADLINE)
        .await
        .unwrap()
        .search(query, limit)
        .await
        .unwrap()
}

fn found(result: &SearchResult) -> Vec<(&str, bool)> {
    result.items.iter().map(|hit| (hit.repository.as_str(), hit.exact)).collect()
}

async fn registry() -> Fake {
    open_registry(|path| match path {
        "/v2/team/app/tags/list?n=1" | "/v2/hidden/app/tags/list?n=1" => {
            answer("200 OK", &[], r#"{"tags":["1"]}"#)
        }
        path if path.ends_with("/tags/list?n=1") => answer("404 Not Found", &[], ""),
        "/v2/_catalog?n=1000" => answer(
            "200 OK",
            &["Link: </v2/_catalog?last=x>; rel=next"],
            r#"{"repositories":["a/other","team/app","team/app2"]}"#,
        ),
        _ => answer("200 OK", &[], r#"{"repositories":["z/my-app"]}"#),
    })
    .await
}

#[tokio::test]
async fn a_whole_name_is_looked_up_and_a_part_is_found_in_the_catalog() {
    let fake = registry().await;
    let result = searched(&fake, "", "team/app", 10).await;
    assert_eq!(found(&result), [("team/app", true), ("team/app2", false)]);
    assert!(result.complete && result.warnings.is_empty());
    assert_eq!(result.items[0].image, format!("{}/team/app", fake.address));
    let result = searched(&fake, "", "APP", 10).await;
    assert_eq!(found(&result), [("team/app", false), ("team/app2", false), ("z/my-app", false)]);
    let result = searched(&fake, "", &format!("{}/hidden/app", fake.address), 10).await;
    assert_eq!(found(&result), [("hidden/app", true)]);
}

#[tokio::test]
async fn a_search_stays_in_the_entrys_namespace_and_within_its_limit() {
    let fake = registry().await;
    let result = searched(&fake, "team", "app", 10).await;
    assert_eq!(found(&result), [("team/app", true), ("team/app2", false)]);
    let result = searched(&fake, "", "app", 2).await;
    assert_eq!((found(&result).len(), result.complete), (2, false));
    assert_eq!(result.warnings.len(), 1);
}

#[tokio::test]
async fn without_a_catalog_whole_names_are_still_found() {
    let fake = open_registry(|path| match path {
        "/v2/team/app/tags/list?n=1" => answer("200 OK", &[], r#"{"tags":["1"]}"#),
        _ => answer("404 Not Found", &[], ""),
    })
    .await;
    let result = searched(&fake, "", "team/app", 10).await;
    assert_eq!((found(&result), result.complete), (vec![("team/app", true)], false));
    assert!(result.warnings[0].contains("doesn't list its repositories"), "{:?}", result.warnings);
}

#[tokio::test]
async fn what_was_found_is_kept_when_the_rest_fails() {
    let fake = open_registry(|path| match path {
        "/v2/team/app/tags/list?n=1" => answer("200 OK", &[], r#"{"tags":["1"]}"#),
        // Silent: a catalog that takes longer than the time given.
        _ => "HTTP/1.1 200".to_owned(),
    })
    .await;
    let (client, target) = (client(), at(fake.address, ""));
    let mut session = client.open(&target, None, Duration::from_secs(6)).await.unwrap();
    let result = session.search("team/app", 10).await.unwrap();
    assert_eq!((found(&result), result.complete), (vec![("team/app", true)], false));
    assert!(result.warnings[0].contains("longer than the time given"), "{:?}", result.warnings);
}

#[tokio::test]
async fn a_search_of_nothing_is_refused() {
    let fake = registry().await;
    let (client, target) = (client(), at(fake.address, ""));
    for query in ["", "  ", "/", "a\u{0}b", &"a".repeat(300)] {
        let error = client.open(&target, None, DEADLINE).await.unwrap().search(query, 10).await.unwrap_err();
        assert_eq!(error, BrowseError::Query);
    }
    assert_eq!(fake.connections(), 0);
}
