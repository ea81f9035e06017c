use super::*;

/// A valid digest.
const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

struct Parsed(&'static str, String, Option<String>, bool);

fn tagged(registry: &'static str, repository: &str, tag: &str) -> Option<Parsed> {
    Some(Parsed(registry, repository.to_owned(), Some(tag.to_owned()), false))
}

fn digested(registry: &'static str, repository: &str, tag: Option<&str>) -> Option<Parsed> {
    Some(Parsed(registry, repository.to_owned(), tag.map(str::to_owned), true))
}

/// Every row of the table in registry-protocol.md §3.
fn docker_table() -> Vec<(String, Option<Parsed>)> {
    let hub = "docker.io";
    let hex64 = "0123456789abcdef".repeat(4);
    let hex63 = &hex64[1..];
    let mut rows: Vec<(String, Option<Parsed>)> = vec![
        ("nginx".into(), tagged(hub, "library/nginx", "latest")),
        ("nginx:alpine".into(), tagged(hub, "library/nginx", "alpine")),
        (format!("nginx@{D}"), digested(hub, "library/nginx", None)),
        (format!("nginx:1@{D}"), digested(hub, "library/nginx", Some("1"))),
        ("user/app".into(), tagged(hub, "user/app", "latest")),
        ("a/b/c".into(), tagged(hub, "a/b/c", "latest")),
        ("docker.io/nginx".into(), tagged(hub, "library/nginx", "latest")),
        ("index.docker.io/nginx".into(), tagged(hub, "library/nginx", "latest")),
        ("registry-1.docker.io/u/a".into(), tagged("registry-1.docker.io", "u/a", "latest")),
        ("docker.io".into(), tagged(hub, "library/docker.io", "latest")),
        ("library/foo/bar".into(), tagged(hub, "library/foo/bar", "latest")),
        ("ghcr.io/app".into(), tagged("ghcr.io", "app", "latest")),
        ("ghcr.io/o/s/a:v1".into(), tagged("ghcr.io", "o/s/a", "v1")),
        ("localhost".into(), tagged(hub, "library/localhost", "latest")),
        ("localhost/app".into(), tagged("localhost", "app", "latest")),
        ("localhost:5000".into(), tagged(hub, "library/localhost", "5000")),
        ("localhost:5000/app".into(), tagged("localhost:5000", "app", "latest")),
        ("test:5000/r:t".into(), tagged("test:5000", "r", "t")),
        ("test.com:5000".into(), tagged(hub, "library/test.com", "5000")),
        ("test_com/foo".into(), tagged(hub, "test_com/foo", "latest")),
        ("foo_bar.com:8080".into(), tagged(hub, "library/foo_bar.com", "8080")),
        ("foo_bar.com:8080/a".into(), None),
        ("192.168.1.1".into(), tagged(hub, "library/192.168.1.1", "latest")),
        ("192.168.1.1:5000/r:5050".into(), tagged("192.168.1.1:5000", "r", "5050")),
        ("host:99999/r".into(), tagged("host:99999", "r", "latest")),
        (format!("[::1]:5000/r@{D}"), digested("[::1]:5000", "r", None)),
        ("[2001:db8::1]/r".into(), tagged("[2001:db8::1]", "r", "latest")),
        ("[2001:db8::1]:5000".into(), None),
        ("[fe80::1%eth0]/r".into(), None),
        ("fc00::1:5000/r".into(), None),
        ("Foo/bar".into(), tagged("Foo", "bar", "latest")),
        ("Nginx".into(), None),
        ("docker/Docker".into(), None),
        ("low:UPPER".into(), tagged(hub, "library/low", "UPPER")),
        ("xn--n3h.com/i".into(), tagged("xn--n3h.com", "i", "latest")),
        ("☃.com/i".into(), None),
        ("https://ghcr.io/a".into(), None),
        (format!("r@sha256:{}", "f".repeat(34)), None),
        (format!("r@sha256:{}", "F".repeat(64)), None),
        (format!("r@md5:{}", "f".repeat(32)), None),
        (hex64.clone(), None),
        (hex63.to_owned(), tagged(hub, &format!("library/{hex63}"), "latest")),
        (format!("docker.io/{hex64}"), tagged(hub, &format!("library/{hex64}"), "latest")),
        (format!("example.com/{}", "a".repeat(255)), tagged("example.com", &"a".repeat(255), "latest")),
        (format!("example.com/{}", "a".repeat(256)), None),
        (format!("r:{}", "t".repeat(128)), tagged(hub, "library/r", &"t".repeat(128))),
        (format!("r:{}", "t".repeat(129)), None),
        ("a--b/c".into(), tagged(hub, "a--b/c", "latest")),
        ("d__e/x".into(), tagged(hub, "d__e/x", "latest")),
    ];
    let errors = [
        "", ":t", "r:", "r@", "r:-b", "r:.b", "d___e/x", "d..e/x", "-a/b", "a-/b", "_a/b", "a/b-", "a///b",
        "a/",
    ];
    rows.extend(errors.map(|input| (input.to_owned(), None)));
    rows.push((format!("@{D}"), None));
    rows
}

#[test]
fn every_row_of_dockers_table_is_read_as_docker_reads_it() {
    for (input, expected) in docker_table() {
        match (Reference::parse(&input), expected) {
            (Ok(reference), Some(Parsed(registry, repository, tag, digest))) => {
                assert_eq!(reference.registry(), registry, "{input}");
                assert_eq!(reference.repository(), repository, "{input}");
                assert_eq!(reference.tag(), tag.as_deref(), "{input}");
                assert_eq!(reference.digest(), digest.then_some(D), "{input}");
            }
            (Err(_), None) => {}
            (Ok(reference), None) => panic!("{input} was read as {reference}"),
            (Err(error), Some(_)) => panic!("{input}: {error}"),
        }
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let f = "f".repeat(64);
    let table = [
        ("Nginx".to_owned(), ReferenceError::UpperCase),
        ("docker/Docker".to_owned(), ReferenceError::UpperCase),
        ("https://ghcr.io/a".to_owned(), ReferenceError::Scheme),
        ("foo_bar.com:8080/a".to_owned(), ReferenceError::Registry),
        ("foo_bar.com/a".to_owned(), ReferenceError::Registry),
        ("r@sha256:ffffffffffffffffffffffffffffffffff".to_owned(), ReferenceError::DigestLength),
        (format!("r@sha256:{}", f.to_uppercase()), ReferenceError::Digest),
        (format!("r@md5:{}", &f[..32]), ReferenceError::DigestAlgorithm),
        (format!("r@a@sha256:{f}"), ReferenceError::DigestAlgorithm),
        ("r@sha256".to_owned(), ReferenceError::Digest),
        ("".to_owned(), ReferenceError::Empty),
        (f, ReferenceError::ImageId),
        (format!("example.com/{}", "a".repeat(256)), ReferenceError::TooLong),
        ("a".repeat(1_000_000), ReferenceError::TooLong),
        (" nginx".to_owned(), ReferenceError::Format),
        ("nginx:a\n".to_owned(), ReferenceError::Tag),
    ];
    for (input, expected) in table {
        assert_eq!(Reference::parse(&input), Err(expected), "{input:.80}");
    }
}

#[test]
fn what_is_displayed_reads_back_as_the_same_reference() {
    for (input, _) in docker_table() {
        if let Ok(reference) = Reference::parse(&input) {
            assert_eq!(Reference::parse(&reference.to_string()), Ok(reference.clone()), "{input}");
            assert_eq!(Reference::parse(&reference.familiar()), Ok(reference), "{input}");
        }
    }
}

/// `:latest` and `docker.io` make the written form longer than what was typed.
#[test]
fn what_is_accepted_at_the_bounds_reads_back() {
    let digest = format!("sha512:{}", "0".repeat(128));
    let rest = format!("/{}:{}@{digest}", "a".repeat(255), "t".repeat(128));
    for (host, accepted) in [(3072, true), (3073, false), (4089, false)] {
        for rest in ["/app", &rest] {
            let read = Reference::parse(&format!("r.{}{rest}", "a".repeat(host - 2)));
            assert_eq!(read.is_ok(), accepted, "{host}");
            if let Ok(reference) = read {
                assert_eq!(Reference::parse(&reference.to_string()), Ok(reference));
            }
        }
    }
}

#[test]
fn familiar_names_are_as_docker_prints_them() {
    let table = [
        ("nginx", "nginx:latest"),
        ("docker.io/library/nginx:1", "nginx:1"),
        ("index.docker.io/user/app", "user/app:latest"),
        ("library/foo/bar", "library/foo/bar:latest"),
        ("ghcr.io/o/app:1", "ghcr.io/o/app:1"),
        ("docker.io/foo.bar/app", "docker.io/foo.bar/app:latest"),
    ];
    for (input, expected) in table {
        assert_eq!(Reference::parse(input).unwrap().familiar(), expected, "{input}");
    }
}

#[test]
fn a_digest_decides_over_a_tag() {
    let reference = Reference::parse(&format!("nginx:1@{D}")).unwrap();
    assert_eq!((reference.tag(), reference.version()), (Some("1"), D));
    assert_eq!(Reference::parse("nginx").unwrap().version(), "latest");
}

#[test]
fn only_names_without_a_registry_are_rebased() {
    let rebased = |input: &str, registry: &str, prefix: Option<&str>| {
        Reference::parse(input).unwrap().with_registry_and_prefix(registry, prefix).map(|r| r.to_string())
    };
    assert_eq!(rebased("app", "ghcr.io", Some("org")).unwrap(), "ghcr.io/org/app:latest");
    assert_eq!(rebased("team/app:2", "ghcr.io", Some("/org/")).unwrap(), "ghcr.io/org/team/app:2");
    assert_eq!(rebased("library/app", "ghcr.io", None).unwrap(), "ghcr.io/library/app:latest");
    assert_eq!(rebased("nginx", "localhost:5000", Some("")).unwrap(), "localhost:5000/nginx:latest");
    assert_eq!(rebased("nginx", "docker.io", None).unwrap(), "docker.io/library/nginx:latest");
    assert_eq!(rebased("nginx", "docker.io", Some("me")).unwrap(), "docker.io/me/nginx:latest");
    assert_eq!(rebased(&format!("nginx@{D}"), "ghcr.io", None).unwrap(), format!("ghcr.io/nginx@{D}"));
    assert_eq!(rebased("quay.io/a/b", "ghcr.io", Some("org")).unwrap(), "quay.io/a/b:latest");
    assert_eq!(rebased("docker.io/nginx", "ghcr.io", None).unwrap(), "docker.io/library/nginx:latest");
    assert_eq!(rebased("app", "nohost", Some("org")), Err(ReferenceError::Registry));
    assert_eq!(rebased("app", "ghcr.io", Some("ORG")), Err(ReferenceError::UpperCase));
    assert_eq!(rebased("app", "ghcr.io", Some("a b")), Err(ReferenceError::Format));
    assert!(
        Reference::parse("app")
            .unwrap()
            .with_registry_and_prefix("ghcr.io", None)
            .unwrap()
            .explicit_registry()
    );
}

#[test]
fn a_written_registry_is_remembered() {
    assert!(!Reference::parse("user/app").unwrap().explicit_registry());
    assert!(!Reference::parse("docker.io").unwrap().explicit_registry());
    assert!(Reference::parse("docker.io/user/app").unwrap().explicit_registry());
    assert!(Reference::parse("index.docker.io/nginx").unwrap().explicit_registry());
}

/// Texts of the pieces that matter to the grammar, from a fixed seed (xorshift), so that a failure repeats itself.
#[test]
fn no_text_panics_and_every_accepted_one_reads_back() {
    const PIECES: [&str; 24] = [
        "a",
        "b9",
        "Z",
        ".",
        "..",
        "_",
        "__",
        "-",
        "--",
        "/",
        "//",
        ":",
        "@",
        "localhost",
        "docker.io",
        "5000",
        "[",
        "]",
        "::1",
        "☃",
        " ",
        "library",
        "sha256:",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    let mut accepted = 0;
    for _ in 0..50_000 {
        let length = next(9);
        let text: String = (0..length).map(|_| PIECES[next(PIECES.len())]).collect();
        if let Ok(reference) = Reference::parse(&text) {
            accepted += 1;
            assert_eq!(Reference::parse(&reference.to_string()), Ok(reference.clone()), "{text}");
            assert_eq!(Reference::parse(&reference.familiar()), Ok(reference), "{text}");
        }
    }
    assert!(accepted > 1000, "only {accepted} texts were accepted");
}
