use super::*;

/// Follows cursors to the end.
async fn all_tags(target: &Target, limit: usize) -> (Vec<usize>, Vec<String>, Vec<String>) {
    let (client, mut cursor) = (client(), None::<String>);
    let (mut sizes, mut all, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let mut session = client.open(target, None, DEADLINE).await.unwrap();
        let page = session.tags("team/app", cursor.as_deref(), limit).await.unwrap();
        sizes.push(page.items.len());
        all.extend(page.items);
        warnings.extend(page.warnings);
        assert!(sizes.len() < 100);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return (sizes, all, warnings);
        }
    }
}

#[tokio::test]
async fn links_are_followed_to_the_end_in_every_spelling() {
    for prefix in ["/v2/team/app/tags/list", "", "list", "http://127.0.0.1:1/v2/team/app/tags/list"] {
        let fake = open_registry(move |path| {
            let last = path.split("last=").nth(1).unwrap_or_default();
            let first = numbered("v", 7).iter().position(|tag| tag == last).map_or(0, |at| at + 1);
            let page: Vec<_> = numbered("v", 7).into_iter().skip(first).take(3).collect();
            let link = format!("Link: <{prefix}?n=3&last={}>; rel=\"next\"", page.last().unwrap());
            let links: &[&str] = if first + 3 < 7 { &[&link] } else { &[] };
            answer("200 OK", links, &names("tags", &page))
        })
        .await;
        let (sizes, all, warnings) = all_tags(&at(fake.address, ""), 3).await;
        assert_eq!((sizes, all, warnings), (vec![3, 3, 1], numbered("v", 7), vec![]), "{prefix}");
    }
}

#[tokio::test]
async fn a_server_that_ignores_n_is_paged_all_the_same() {
    let fake = open_registry(|_| answer("200 OK", &[], &names("tags", &numbered("v", 250)))).await;
    let (sizes, all, _) = all_tags(&at(fake.address, ""), 100).await;
    assert_eq!((sizes, all), (vec![100, 100, 50], numbered("v", 250)));
}

#[tokio::test]
async fn a_short_page_with_a_link_is_not_the_end() {
    let fake = open_registry(|path| match path.split("page=").nth(1) {
        None => answer("200 OK", &["Link: <?page=2>; rel=next"], r#"{"tags":["a"]}"#),
        Some("2") => answer("200 OK", &["Link: <?page=3>; rel=next"], r#"{"tags":[]}"#),
        _ => answer("200 OK", &[], r#"{"tags":["b"]}"#),
    })
    .await;
    let (sizes, all, _) = all_tags(&at(fake.address, ""), 10).await;
    assert_eq!((sizes, all), (vec![2], vec!["a".to_owned(), "b".to_owned()]));
}

#[tokio::test]
async fn a_link_to_itself_is_the_end_and_said_and_a_circle_is_left() {
    let fake =
        open_registry(|path| answer("200 OK", &[&format!("Link: <{path}>; rel=next")], r#"{"tags":["a"]}"#))
            .await;
    let (sizes, _, warnings) = all_tags(&at(fake.address, ""), 10).await;
    assert_eq!((sizes, warnings.len()), (vec![1], 1));
    let fake = open_registry(|path| {
        let next = if path.ends_with("p=1") { "?p=2" } else { "?p=1" };
        answer("200 OK", &[&format!("Link: <{next}>; rel=next")], r#"{"tags":[]}"#)
    })
    .await;
    let target = at(fake.address, "");
    let page =
        client().open(&target, None, DEADLINE).await.unwrap().tags("team/app", None, 10).await.unwrap();
    assert!(page.items.is_empty() && page.next_cursor.is_some());
    assert!(fake.asked().len() <= 11);
}

#[tokio::test]
async fn a_link_to_another_host_or_list_is_refused_and_not_dialled() {
    let other = Fake::start(|_| answer("200 OK", &[], "{}")).await;
    for link in [
        format!("http://localhost:{}/v2/team/app/tags/list", other.address.port()),
        "//169.254.169.254/v2/team/app/tags/list".to_owned(),
        "/v2/secret/tags/list".to_owned(),
        "http://a\u{1}b/".to_owned(),
    ] {
        let field = format!("Link: <{}>; rel=next", link.replace('\u{1}', "|"));
        let fake = open_registry(move |_| answer("200 OK", &[&field], r#"{"tags":["a"]}"#)).await;
        let target = at(fake.address, "");
        let error = client()
            .open(&target, None, DEADLINE)
            .await
            .unwrap()
            .tags("team/app", None, 10)
            .await
            .unwrap_err();
        assert_eq!(failed(error).code, Code::Other, "{link}");
        assert_eq!(fake.asked().len(), 2);
    }
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn opaque_cursors_of_the_registry_survive_and_foreign_ones_are_refused_before_anything_is_dialled() {
    let fake = open_registry(|path| match path.split("next_page=").nth(1) {
        None => answer(
            "200 OK",
            &["Link: </v2/_catalog?n=1&next_page=gAAA~-_%3D%3D>; rel=\"next\""],
            r#"{"repositories":["a/a"]}"#,
        ),
        Some("gAAA~-_%3D%3D") => answer("200 OK", &[], r#"{"repositories":["b/b"]}"#),
        _ => answer("400 Bad Request", &[], ""),
    })
    .await;
    let target = at(fake.address, "");
    let client = client();
    let first = client.open(&target, None, DEADLINE).await.unwrap().catalog(None, 1).await.unwrap();
    assert_eq!(first.items, ["a/a"]);
    let cursor = first.next_cursor.unwrap();
    let second = client.open(&target, None, DEADLINE).await.unwrap().catalog(Some(&cursor), 1).await.unwrap();
    assert_eq!((second.items, second.next_cursor), (vec!["b/b".to_owned()], None));
    let asked = fake.asked().len();
    for cursor in [cursor.as_str(), "x", ""] {
        let error = client
            .open(&target, None, DEADLINE)
            .await
            .unwrap()
            .tags("a/a", Some(cursor), 1)
            .await
            .unwrap_err();
        assert_eq!(error, BrowseError::Cursor);
    }
    assert_eq!(fake.asked().len(), asked);
}

#[tokio::test]
async fn a_page_that_is_too_large_for_the_registry_is_asked_for_smaller() {
    let fake = open_registry(|path| match path {
        "/v2/_catalog?n=10" => answer("200 OK", &[], r#"{"repositories":["a"]}"#),
        _ => answer("400 Bad Request", &[], r#"{"errors":[{"code":"PAGINATION_NUMBER_INVALID"}]}"#),
    })
    .await;
    let target = at(fake.address, "");
    let page = client().open(&target, None, DEADLINE).await.unwrap().catalog(None, 100).await.unwrap();
    assert_eq!(page.items, ["a"]);
    let asked: Vec<_> = fake.asked().iter().map(|asked| path_of(asked).to_owned()).collect();
    assert_eq!(asked, ["/v2/", "/v2/_catalog?n=100", "/v2/_catalog?n=50", "/v2/_catalog?n=10"]);
}

#[tokio::test]
async fn an_entry_with_a_namespace_sees_that_namespace_only() {
    let fake = open_registry(|path| match path.split("last=").nth(1) {
        None => answer(
            "200 OK",
            &["Link: <?n=1000&last=teams>; rel=next"],
            r#"{"repositories":["a/x","team","team/a","teams/b"]}"#,
        ),
        _ => answer("200 OK", &[], r#"{"repositories":["team/b/c","zebra"]}"#),
    })
    .await;
    let target = at(fake.address, "team");
    let client = client();
    let mut session = client.open(&target, None, DEADLINE).await.unwrap();
    let page = session.catalog(None, 50).await.unwrap();
    assert_eq!(page.items, ["team", "team/a", "team/b/c"]);
    let page = session.catalog(None, 2).await.unwrap();
    assert_eq!(page.items, ["team", "team/a"]);
    let page = session.catalog(page.next_cursor.as_deref(), 2).await.unwrap();
    assert_eq!((page.items, page.next_cursor), (vec!["team/b/c".to_owned()], None));
    for repository in ["teams/b", "a"] {
        let error = session.tags(repository, None, 1).await.unwrap_err();
        assert_eq!(error, BrowseError::OutsideNamespace { namespace: "team".into() });
    }
    for repository in ["../x", "A", "", "a b", "a?b", "team/a:latest"] {
        assert_eq!(session.tags(repository, None, 1).await.unwrap_err(), BrowseError::Repository);
    }
}

#[tokio::test]
async fn tags_of_signatures_are_hidden_and_improper_ones_left_out_with_a_warning() {
    let hex = "0123456789abcdef".repeat(4);
    let body = format!(
        r#"{{"tags":["sha256-{hex}.sig","1.0","sha256-{hex}.att","sha256-{hex}","a\u001b[31m","b\u0000","sha256:{hex}",7]}}"#
    );
    let fake = open_registry(move |_| answer("200 OK", &[], &body)).await;
    let target = at(fake.address, "");
    let page =
        client().open(&target, None, DEADLINE).await.unwrap().tags("team/app", None, 10).await.unwrap();
    assert_eq!((page.items, page.warnings.len()), (vec!["1.0".to_owned()], 1));
}

#[tokio::test]
async fn an_endless_list_is_cut_and_said_to_be() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
    let tags = "\"v1\",".repeat(300_000);
    let text = format!("{head}{{\"name\":\"endless\",\"tags\":[{tags}\"");
    let fake = open_registry(move |_| text.clone()).await;
    let target = at(fake.address, "");
    let client = client();
    let mut session = client.open(&target, None, DEADLINE).await.unwrap();
    let page = session.tags("team/app", None, 100).await.unwrap();
    assert_eq!(page.items.len(), 100);
    let last = cursor::Position { page: "/v2/team/app/tags/list?n=100".into(), offset: 299_950 }.encode();
    let page = session.tags("team/app", Some(&last), 100).await.unwrap();
    assert_eq!((page.items.len(), page.next_cursor), (50, None));
    assert!(page.warnings.iter().any(|warning| warning.contains("8 MiB")), "{:?}", page.warnings);
}

#[tokio::test]
async fn an_empty_list_is_empty_however_it_is_written() {
    for body in [r#"{"name":"x","tags":null}"#, r#"{"tags":[]}"#] {
        let fake = open_registry(move |_| answer("200 OK", &[], body)).await;
        let page = client()
            .open(&at(fake.address, ""), None, DEADLINE)
            .await
            .unwrap()
            .tags("a", None, 1)
            .await
            .unwrap();
        assert_eq!(page, Page::default());
    }
}

#[tokio::test]
async fn what_is_no_list_is_not_taken_for_one() {
    let deep = format!(r#"{{"tags":{}"#, "[".repeat(100_000));
    for body in ["<html>hello</html>", "", "{}", "[]", r#"{"tags":"a"}"#, r#"{"tags":["a"]} x"#, &deep] {
        let body = body.to_owned();
        let fake = open_registry(move |_| answer("200 OK", &[], &body)).await;
        let target = at(fake.address, "");
        let error =
            client().open(&target, None, DEADLINE).await.unwrap().tags("a", None, 1).await.unwrap_err();
        assert_eq!(failed(error).code, Code::NotARegistry);
    }
}
