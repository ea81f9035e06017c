use super::*;

fn parse(input: &str) -> RegistryAddress {
    RegistryAddress::parse(input).unwrap_or_else(|error| panic!("{input}: {error}"))
}

#[test]
fn addresses_are_read_as_people_type_them() {
    let table = [
        ("ghcr.io", "ghcr.io", None, false),
        ("GHCR.IO", "ghcr.io", None, false),
        ("  https://ghcr.io/path \n", "ghcr.io", Some("path"), false),
        ("https://ghcr.io/MyOrg/", "ghcr.io", Some("myorg"), false),
        ("HTTPS://GHCR.IO///", "ghcr.io", None, false),
        ("https://ghcr.io:443", "ghcr.io:443", None, false),
        ("http://registry.example.com:80/v2/", "registry.example.com:80", None, true),
        ("https://registry.example.com:5443", "registry.example.com:5443", None, false),
        ("registry.example.com:5000/v1", "registry.example.com:5000", None, false),
        ("http://localhost:5000/team/project/", "localhost:5000", Some("team/project"), true),
        ("192.168.1.50:5000", "192.168.1.50:5000", None, false),
        ("[::1]:5000", "[::1]:5000", None, false),
        ("https://[2001:DB8:0::1]/", "[2001:db8::1]", None, false),
        ("docker.io", "docker.io", None, false),
        ("index.docker.io", "docker.io", None, false),
        ("https://index.docker.io/v1/", "docker.io", None, false),
        ("https://index.docker.io:443/v1/", "docker.io", None, false),
        ("http://registry-1.docker.io/v2/", "docker.io", None, false),
        ("docker.io/mycompany", "docker.io", Some("mycompany"), false),
        (
            "123456789.dkr.ecr.us-east-1.amazonaws.com",
            "123456789.dkr.ecr.us-east-1.amazonaws.com",
            None,
            false,
        ),
        ("xn--n3h.com", "xn--n3h.com", None, false),
        ("registry", "registry", None, false),
    ];
    for (input, host, namespace, plain_http) in table {
        let expected =
            RegistryAddress { host: host.to_owned(), namespace: namespace.map(str::to_owned), plain_http };
        assert_eq!(parse(input), expected, "{input}");
    }
}

#[test]
fn what_is_no_address_is_refused_with_the_right_advice() {
    let table = [
        ("", AddressError::Empty),
        (" \t", AddressError::Empty),
        ("https://", AddressError::Host),
        ("https://user:pass@ghcr.io", AddressError::UserInfo),
        ("user:p/a?s#s@ghcr.io", AddressError::UserInfo),
        ("ghcr.io/app@sha256:00", AddressError::UserInfo),
        ("ghcr.io?x=1", AddressError::Query),
        ("ghcr.io#x", AddressError::Fragment),
        ("ftp://ghcr.io", AddressError::Scheme),
        ("https://https://ghcr.io", AddressError::Port),
        ("ghcr .io", AddressError::Character),
        ("ghcr.io\\x", AddressError::Character),
        ("ghcr.io/a\0b", AddressError::Character),
        ("ghcr.io:", AddressError::Port),
        ("ghcr.io:0", AddressError::Port),
        ("ghcr.io:65536", AddressError::Port),
        ("ghcr.io:+80", AddressError::Port),
        ("-a.io", AddressError::Host),
        ("a..io", AddressError::Host),
        ("ghcr.io.", AddressError::Host),
        ("foo_bar.com", AddressError::Host),
        ("fc00::1", AddressError::Host),
        ("[fe80::1%eth0]", AddressError::Host),
        ("[::1", AddressError::Host),
        ("[::1]x", AddressError::Host),
        ("[::1]x:5000", AddressError::Host),
        ("/ghcr.io", AddressError::Host),
        ("2130706433", AddressError::OddIpv4),
        ("0x7f.0.0.1", AddressError::OddIpv4),
        ("0x7f.1", AddressError::OddIpv4),
        ("127.1:5000", AddressError::OddIpv4),
        ("0177.0.0.1", AddressError::OddIpv4),
        ("ghcr.io/a//b", AddressError::Path),
        ("ghcr.io/../b", AddressError::Path),
        ("ghcr.io/app:tag", AddressError::Path),
        ("ghcr.io/%2e", AddressError::Path),
        ("hub.docker.com", AddressError::HubWebsite),
        ("https://hub.docker.com/u/someone", AddressError::HubWebsite),
    ];
    for (input, expected) in table {
        assert_eq!(RegistryAddress::parse(input), Err(expected), "{input}");
    }
    assert_eq!(RegistryAddress::parse(&"a".repeat(2000)), Err(AddressError::TooLong));
}

#[test]
fn a_host_in_other_letters_is_the_same_as_in_its_ascii_form() {
    for (typed, host) in [
        ("bücher.example", "xn--bcher-kva.example"),
        ("https://Bücher.Example/Team/", "xn--bcher-kva.example"),
        ("BÜCHER.example:5000", "xn--bcher-kva.example:5000"),
        ("bu\u{308}cher.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("реестр.рф", "xn--e1aa5aceg.xn--p1ai"),
        ("реестр.example", "xn--e1aa5aceg.example"),
        ("登録.example", "xn--7wyo62d.example"),
        ("dockerの登録.jp", "xn--docker-ge4eu732cj95b.jp"),
        ("레지스트리.kr", "xn--om2b23a15p8shb5l.kr"),
        // Entered in ASCII, so nobody is misled.
        ("xn--n3h.com", "xn--n3h.com"),
    ] {
        let address = parse(typed);
        assert_eq!(address.host, host, "{typed}");
        assert_eq!(parse(host).host, host, "{typed}");
        assert!(address.serves(host), "{typed}");
        assert!(address.api_authority().is_ascii() && address.engine_server_address().is_ascii());
    }
    assert_eq!(canonical_registry_host("Bücher.example"), "xn--bcher-kva.example");
    assert_eq!(crate::check_realm_host("Bücher.example:8443").as_deref(), Ok("xn--bcher-kva.example:8443"));
}

#[test]
fn a_host_that_is_taken_for_another_or_is_none_is_refused() {
    let long = format!("{}.example", "ü".repeat(63));
    for typed in [
        // Cyrillic, Greek and other look-alikes among Latin letters.
        "g\u{4bb}cr.io",
        "d\u{3bf}cker.io",
        "gh\u{441}r.io",
        "ghc\u{261}.io\u{301}\u{441}",
        // What mapping would make another name or an address of.
        "１２７.0.0.1",
        "①②⑦.0.0.1",
        "127。0。0。1",
        "ｇｈｃｒ.io",
        "ghcr\u{2024}io",
        "gh\u{200b}cr.io",
        "gh\u{ad}cr.io",
        "gh\u{202e}cr.io",
        "ghcr.io\u{ff0f}team",
        "☃.com",
        "💩.la",
        // No labels.
        "\u{308}a.example",
        "-ü.example",
        "ü-.example",
        "ü_x.example",
        "ü..example",
        "ü.example.",
        &long,
        "xn--.example",
        "xn--a.example",
        "xn--zzzzzzzz.example",
        "xn--ghcr-.io",
        "xn--a-ecp.ru",
    ] {
        assert_eq!(RegistryAddress::parse(typed), Err(AddressError::Letters), "{typed}");
    }
}

#[test]
fn an_error_never_repeats_the_input() {
    for input in ["https://bob:hunter2@ghcr.io", "hunter2://x", "ghcr.io/hunter2:hunter2", "ghcr.io:hunter2"]
    {
        let error = RegistryAddress::parse(input).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn the_engine_gets_the_spelling_it_wants() {
    let hub = parse("registry-1.docker.io");
    assert!(hub.is_docker_hub());
    assert_eq!(hub.engine_server_address(), "https://index.docker.io/v1/");
    assert_eq!(hub.api_authority(), "registry-1.docker.io");
    let ghcr = parse("https://ghcr.io/");
    assert_eq!(ghcr.engine_server_address(), "ghcr.io");
    assert_eq!(ghcr.api_authority(), "ghcr.io");
}

#[test]
fn only_literal_loopback_hosts_count_as_loopback() {
    for input in ["localhost", "LOCALHOST:5000", "127.0.0.1", "127.9.9.9:1", "[::1]:5000"] {
        assert!(parse(input).is_loopback_literal(), "{input}");
    }
    for input in ["localhost.example.com", "128.0.0.1", "[::2]", "[::ffff:127.0.0.1]", "my.localhost"] {
        assert!(!parse(input).is_loopback_literal(), "{input}");
    }
}

#[test]
fn hosts_match_by_port_and_regardless_of_case_and_alias() {
    assert!(parse("https://index.docker.io/v1/").serves("docker.io"));
    assert!(parse("docker.io").serves("registry-1.docker.io"));
    assert!(parse("ghcr.io").serves("GHCR.io"));
    assert!(parse("[2001:db8::1]").serves("[2001:DB8:0::1]"));
    assert!(!parse("ghcr.io").serves("ghcr.io:443"));
    assert!(!parse("ghcr.io").serves("registry.example.com"));
    assert!(!parse("ghcr.io").serves("ghcr.io.evil.test"));
}
