//! Lists and manifests of a hostile registry, read by the crate itself: bounded in time, bytes and pages.

use std::{
    process,
    time::{Duration, Instant},
};

use purser_registry_client::{
    Credentials, DiagnosisCode as Code, EgressPolicy, RegistryAddress, RegistryClient, Target,
    browse::{BrowseError, Image, Page},
};
use purser_tests::{
    Hostile,
    hostile::{Asked, Reply, answer, basic},
    process::resident_kib,
    scan_for_secret,
    wait::random_hex,
};

use super::FORGED;

/// For one call.
const DEADLINE: Duration = Duration::from_secs(8);

/// Which list is read.
#[derive(Clone, Copy, PartialEq)]
enum List {
    Tags,
    Catalog,
}

struct Reader {
    client: RegistryClient,
    target: Target,
    credentials: Credentials,
}

impl Reader {
    fn of(registry: &Hostile) -> Self {
        Self {
            client: RegistryClient::new(EgressPolicy::default().allow_loopback(true), "purser-tests"),
            target: Target::new(RegistryAddress::parse(&registry.address().to_string()).unwrap()),
            credentials: Credentials { username: "bob".into(), password: random_hex(60).into() },
        }
    }

    async fn list(&self, list: List, cursor: Option<&str>) -> Result<Page, BrowseError> {
        let begun = Instant::now();
        let mut session = self.client.open(&self.target, Some(&self.credentials), DEADLINE).await?;
        let page = match list {
            List::Tags => session.tags("team/app", cursor, 100).await,
            List::Catalog => session.catalog(cursor, 100).await,
        };
        assert!(begun.elapsed() < DEADLINE + Duration::from_secs(3), "took {:?}", begun.elapsed());
        if let Ok(page) = &page {
            assert!(page.items.len() <= 100);
            assert!(!format!("{page:?}").chars().any(char::is_control), "{page:?}");
        }
        page
    }

    async fn manifest(&self, version: &str) -> Result<Image, BrowseError> {
        let mut session = self.client.open(&self.target, Some(&self.credentials), DEADLINE).await?;
        session.manifest("team/app", version).await
    }
}

/// Asks for a password; lists are as `reply` says.
async fn registry(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Hostile {
    Hostile::start(move |asked| match (asked.authorized(), asked.path()) {
        (false, _) => basic().into(),
        (true, "/v2/") => answer("200 OK", "", "{}").into(),
        (true, _) => reply(asked),
    })
    .await
}

fn code<T: std::fmt::Debug>(answer: Result<T, BrowseError>) -> Code {
    match answer {
        Err(BrowseError::Failed(diagnosis)) => {
            assert!(!diagnosis.message.is_empty() && !diagnosis.advice.is_empty(), "{diagnosis:?}");
            assert!(!format!("{diagnosis:?}").contains('\u{1b}'), "{diagnosis:?}");
            diagnosis.code
        }
        other => panic!("no failure: {other:?}"),
    }
}

#[tokio::test]
async fn ten_million_tags_are_read_in_bounded_memory() {
    for list in [List::Tags, List::Catalog] {
        // 10 million names of 12 bytes, in one answer of 150 MB.
        let key = if list == List::Tags { "tags" } else { "repositories" };
        let begin = format!("HTTP/1.1 200 OK\r\n\r\n{{\"name\":\"team/app\",\"{key}\":[\"first\"");
        let piece = ",\"tag-00000000\"".repeat(10_000);
        let hostile = registry(move |_| Reply::endless(begin.clone(), piece.clone())).await;
        let before = resident_kib(process::id()).unwrap();
        let page = Reader::of(&hostile).list(list, None).await.unwrap();
        let grown = resident_kib(process::id()).unwrap().saturating_sub(before);
        assert_eq!((page.items.len(), page.items[0].as_str()), (100, "first"));
        assert!(page.next_cursor.is_some());
        assert!(hostile.written() < 24 << 20, "{} bytes were read", hostile.written());
        assert!(grown < 64 * 1024, "grew by {grown} KiB");
    }
}

#[tokio::test]
async fn a_list_never_leaves_its_host_and_always_ends() {
    let thief = Hostile::start(|_| answer("200 OK", "", r#"{"tags":["stolen"]}"#).into()).await;
    let links = [
        (format!("http://{}/v2/team/app/tags/list?last=b", thief.as_localhost()), true),
        ("//evil.invalid/v2/team/app/tags/list".to_owned(), true),
        ("http://169.254.169.254/v2/team/app/tags/list".to_owned(), true),
        ("/v2/other/secret/tags/list?n=1".to_owned(), true),
        ("/v2/team/app/tags/list?n=100".to_owned(), false),
        // Another port of this host: only the query counts, over the connection that is there.
        (format!("http://{}/v2/team/app/tags/list?n=100", thief.address()), false),
        ("/v2/team/app/tags/list?n=100&again=FOREVER".to_owned(), false),
    ];
    for (link, refused) in links {
        let target = link.clone();
        let hostile = registry(move |asked| {
            let next = target.replace("FOREVER", &asked.before.to_string());
            let header = format!("Link: <{next}>; rel=\"next\"\r\n");
            answer("200 OK", &header, r#"{"tags":["a"]}"#).into()
        })
        .await;
        let page = Reader::of(&hostile).list(List::Tags, None).await;
        match refused {
            true => assert_eq!(code(page), Code::Other, "{link}"),
            false => {
                let page = page.unwrap();
                assert_eq!(page.items[0], "a", "{link}");
                // A page that is followed by itself is the last, for whoever follows cursors, too.
                let itself = !link.contains("FOREVER");
                assert_eq!((page.items.len() == 1, page.next_cursor.is_none()), (itself, itself), "{link}");
                assert_eq!(page.warnings.is_empty(), !itself, "{link}: {:?}", page.warnings);
            }
        }
        assert!(hostile.requests().len() < 20, "{link}: {} requests", hostile.requests().len());
    }
    assert_eq!(thief.connections(), 0);
}

#[tokio::test]
async fn a_redirect_takes_the_secret_nowhere() {
    let thief = Hostile::start(|_| answer("200 OK", "", r#"{"tags":["stolen"]}"#).into()).await;
    for place in [
        format!("http://{}/v2/team/app/tags/list", thief.address()),
        format!("http://{}/v2/team/app/tags/list", thief.as_localhost()),
        format!("//{}/v2/team/app/tags/list", thief.address()),
        "/v2/team/app/tags/list?n=100".to_owned(),
    ] {
        let location = format!("Location: {place}\r\n");
        let hostile = registry(move |_| answer("307 Temporary Redirect", &location, "").into()).await;
        assert_eq!(code(Reader::of(&hostile).list(List::Tags, None).await), Code::Other, "{place}");
        assert!(hostile.requests().len() < 10, "{place}: {} requests", hostile.requests().len());
    }
    assert_eq!(thief.connections(), 0);
}

#[tokio::test]
async fn absurd_lists_are_read_as_far_as_they_make_sense() {
    let list = |body: String| registry(move |_| answer("200 OK", "", body.clone()).into());
    let absurd = serde_json::json!({"repositories": [
        "good/one", FORGED, "", "../../etc/passwd", "UPPER", "a//b", "x".repeat(1 << 16), "\u{202e}gpj", 7, null,
        {"a": 1}, "good/two", "https://evil.invalid/x", "<script>", "a\u{0}b",
    ]});
    let hostile = list(absurd.to_string()).await;
    let page = Reader::of(&hostile).list(List::Catalog, None).await.unwrap();
    assert_eq!((page.items, page.warnings.len()), (vec!["good/one".to_owned(), "good/two".to_owned()], 1));
    // What isn't asked for is passed over without recursion, however deep.
    let levels = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let hostile = list(format!("{{\"a\":{levels},\"tags\":[\"a\",{levels}]}}")).await;
    assert_eq!(Reader::of(&hostile).list(List::Tags, None).await.unwrap().items, ["a"]);
    let twice = r#"{"tags":["a"],"tags":["b"]}"#.to_owned();
    for body in [twice, "[]".to_owned(), "null".to_owned(), "<html>".to_owned(), "{}".to_owned()] {
        let hostile = list(body.clone()).await;
        let verdict = code(Reader::of(&hostile).list(List::Tags, None).await);
        assert_eq!(verdict, Code::NotARegistry, "{}", &body[..body.len().min(40)]);
    }
    let nothing = list(r#"{"name":"team/app","tags":null}"#.to_owned()).await;
    assert!(Reader::of(&nothing).list(List::Tags, None).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn waits_and_refusals_of_lists_are_bounded() {
    let huge = "Retry-After: 86400\r\n";
    for (status, headers, expected) in [
        ("429 Too Many Requests", "", Code::RateLimited),
        ("429 Too Many Requests", huge, Code::RateLimited),
        ("429 Too Many Requests", "Retry-After: -1\r\n", Code::RateLimited),
        ("503 Service Unavailable", huge, Code::Other),
        (
            "401 Unauthorized",
            "WWW-Authenticate: Bearer realm=\"http://169.254.169.254/\"\r\n",
            Code::Forbidden,
        ),
        ("404 Not Found", "", Code::NotFound),
        ("418 I'm a teapot", "", Code::Other),
    ] {
        let hostile = registry(move |_| answer(status, headers, FORGED).into()).await;
        assert_eq!(code(Reader::of(&hostile).list(List::Tags, None).await), expected, "{status} {headers}");
    }
    // Once is forgiven.
    let passing = registry(|asked| {
        let status = if asked.before == 2 { "503 Service Unavailable" } else { "200 OK" };
        answer(status, "", r#"{"tags":["a"]}"#).into()
    })
    .await;
    assert_eq!(Reader::of(&passing).list(List::Tags, None).await.unwrap().items, ["a"]);
    let slow = registry(|_| Reply::slow("HTTP/1.1 200 OK\r\n\r\n", " ", Duration::from_secs(1))).await;
    assert_eq!(code(Reader::of(&slow).list(List::Tags, None).await), Code::Timeout);
}

#[tokio::test]
async fn a_manifest_is_what_it_hashes_to() {
    let manifest =
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    let other = format!("sha256:{}", "0".repeat(64));
    let lies = format!("Docker-Content-Digest: {other}\r\n");
    let hostile = registry(move |_| answer("200 OK", &lies, manifest).into()).await;
    let reader = Reader::of(&hostile);
    for version in ["latest", &other] {
        assert_eq!(code(reader.manifest(version).await), Code::Other, "{version}");
    }
    for version in ["../../x", "sha256:00", "a b", "", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        assert!(matches!(reader.manifest(version).await, Err(BrowseError::Version)), "{version}");
    }
    let large = registry(|_| Reply::endless("HTTP/1.1 200 OK\r\n\r\n{\"a\":\"", [b'x'; 8192])).await;
    assert_eq!(code(Reader::of(&large).manifest("latest").await), Code::Other);
    assert!(large.written() < 16 << 20, "{} bytes were read", large.written());
}

/// What a session says is free of the secret, whatever the registry repeats.
#[tokio::test]
async fn a_list_repeats_no_secret() {
    let hostile = registry(|asked| {
        let said = asked.authorization.clone().unwrap_or_default();
        let errors = serde_json::json!({"errors": [{"code": "DENIED", "message": format!("{}{said}", "x".repeat(1_950))}]});
        answer("403 Forbidden", "", errors.to_string()).into()
    })
    .await;
    let reader = Reader::of(&hostile);
    let text = format!("{:?}", reader.list(List::Tags, None).await);
    let secret = hostile.requests().last().unwrap().authorization.clone().unwrap();
    let secret = secret.trim_start_matches("Basic ").to_owned();
    assert_eq!(scan_for_secret(&text, &secret), [], "{text}");
}
