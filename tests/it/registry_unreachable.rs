//! Registries that cannot be reached, or that are none: a verdict within 15 s that names the cause.

use std::time::{Duration, Instant};

use http::StatusCode;
use purser_tests::{
    Answer, Authority, BreakableProxy, Canned, Hostile, Purser, Road, Testbed,
    certificate::Validity,
    hostile::{Front, Reply},
    road::failed,
    scan_for_secret,
    tenant::Grant,
    user::Kind,
    wait::eventually,
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// The promise is 15 s, and the deadlines behind it are 12 and 13; the rest is for a busy machine.
const VERDICT: Duration = Duration::from_secs(20);

/// Tests `registry` from one end with a user's credential, and keeps the time.
async fn test(road: &Road, registry: &str, server: Option<&str>, more: Value) -> Answer {
    let user = Testbed::get().user(Kind::Plain);
    let mut input = json!({
        "registryUrl": registry, "username": user.username, "password": user.password, "serverId": server,
    });
    if let Value::Object(more) = more {
        input.as_object_mut().unwrap().extend(more);
    }
    let begun = Instant::now();
    let answer = road.client.trpc_mutation("registry.testRegistry", &input).await;
    let took = begun.elapsed();
    assert!(took < VERDICT, "{registry} from {server:?} took {took:?}: {answer:?}");
    answer
}

/// From both ends at once, since a verdict may take its 15 s: the codes.
async fn verdicts(road: &Road, registry: &str) -> [String; 2] {
    let (here, there) = tokio::join!(
        test(road, registry, None, Value::Null),
        test(road, registry, Some(road.host()), Value::Null)
    );
    for answer in [&here, &there] {
        assert_eq!(answer.code(), "BAD_REQUEST", "{answer:?}");
        let diagnosis = &answer.error()["data"]["diagnosis"];
        assert!(diagnosis["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{answer:?}");
        assert!(diagnosis["steps"].is_array(), "{answer:?}");
    }
    [here.diagnosis(), there.diagnosis()]
}

#[tokio::test]
async fn a_closed_port_is_connect() {
    let road = Road::start().await;
    // Bound, so that nobody else gets it, and nobody listens.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap();
    assert_eq!(verdicts(&road, &port.to_string()).await, ["connect", "connect"]);
}

#[tokio::test]
async fn a_port_that_never_answers_is_a_timeout() {
    let road = Road::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepting = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    assert_eq!(verdicts(&road, &address).await, ["timeout", "timeout"]);
    accepting.abort();
}

/// Connecting hangs, as it does towards a firewall that drops packets.
#[tokio::test]
async fn a_black_hole_is_a_timeout() {
    let road = Road::start().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        filling.push(stream);
        assert!(filling.len() < 64, "the backlog does not fill");
    }
    assert_eq!(verdicts(&road, &address.to_string()).await, ["timeout", "timeout"]);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_dns() {
    let road = Road::start().await;
    assert_eq!(verdicts(&road, "registry.invalid").await, ["dns", "dns"]);
}

#[tokio::test]
async fn any_http_server_is_not_a_registry() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    for (status, body) in [("200 OK", "<html>hello</html>"), ("404 Not Found", "nothing here")] {
        let page = Canned::start(status, "Content-Type: text/html\r\n", body).await;
        let codes = verdicts(&road, &page.address().to_string()).await;
        assert_eq!(codes, ["not_a_registry", "not_a_registry"], "{status}");
        let seen = page.requests().join("\n");
        assert!(!seen.to_lowercase().contains("authorization:"), "{seen}");
        assert!(scan_for_secret(&seen, &bed.user(Kind::Plain).password).is_empty());
    }
}

#[tokio::test]
async fn an_unknown_authority_is_named_and_a_given_one_is_trusted() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let tls = &bed.registries.tls;
    assert_eq!(verdicts(&road, tls).await, ["tls_unknown_authority", "tls_unknown_authority"]);

    let trusting = test(&road, tls, None, json!({"caCertificate": bed.ca_certificate})).await.data();
    assert_eq!(trusting["credentials"], "verified", "{trusting:#}");
    assert_eq!(trusting["warnings"], json!([]), "{trusting:#}");

    let other = json!({"caCertificate": Authority::new("someone else").pem()});
    assert_eq!(test(&road, tls, None, other).await.diagnosis(), "tls_unknown_authority");

    for server in [None, Some(road.host())] {
        let insecure = test(&road, tls, server, json!({"insecure": true})).await.data();
        assert_eq!(insecure["credentials"], "verified", "{insecure:#}");
        assert_ne!(insecure["warnings"], json!([]), "insecure is always warned about: {insecure:#}");
    }
}

#[tokio::test]
async fn a_wrong_name_and_an_expired_certificate_are_told_apart() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let authority = Authority::new("of this test");
    for (names, validity, code) in [
        (["registry.example.com"], Validity::Current, "tls_name"),
        (["127.0.0.1"], Validity::Expired, "tls_expired"),
    ] {
        let config = authority.issue(&names, validity).server_config();
        let proxy = BreakableProxy::terminating_tls(&bed.registries.basic, config).await;
        let registry = proxy.address().to_string();
        let trusted = json!({"caCertificate": authority.pem()});
        for server in [None, Some(road.host())] {
            let answer = test(&road, &registry, server, trusted.clone()).await;
            assert_eq!(answer.diagnosis(), code, "from {server:?}: {answer:?}");
        }
        assert!(
            scan_for_secret(&proxy.recording().both(), &bed.user(Kind::Plain).password).is_empty(),
            "a secret was sent past a bad certificate"
        );
    }
}

#[tokio::test]
async fn loopback_may_speak_http_and_an_http_url_says_so() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let basic = &bed.registries.basic;
    for server in [None, Some(road.host())] {
        let plain = test(&road, basic, server, Value::Null).await.data();
        assert_eq!(plain["credentials"], "verified", "{plain:#}");
        let spelled = test(&road, &format!("http://{basic}"), server, Value::Null).await.data();
        assert_eq!(spelled["credentials"], "verified", "{spelled:#}");
        assert_eq!(&spelled["registryHost"], basic);
        assert!(spelled["warnings"].to_string().to_lowercase().contains("http"), "{spelled:#}");
        let tls = test(&road, &format!("https://{basic}"), server, Value::Null).await;
        assert!(tls.status.is_success() || tls.diagnosis() == "http_on_https", "{tls:?}");
    }
}

#[tokio::test]
async fn the_metadata_service_is_never_asked() {
    let road = Road::start().await;
    for address in ["http://169.254.169.254", "169.254.169.254:80", "http://[fd00:ec2::254]"] {
        let begun = Instant::now();
        assert_eq!(verdicts(&road, address).await, ["egress_denied", "egress_denied"], "{address}");
        assert!(begun.elapsed() < Duration::from_secs(11), "refused before dialling");
    }
    let answer = test(&road, "http://169.254.169.254", None, Value::Null).await;
    let steps = answer.error()["data"]["diagnosis"]["steps"].to_string();
    assert!(!steps.contains("\"connect\"") && !steps.contains("\"ping\""), "{steps}");
}

/// A registry can name any token server: the engine would follow, so it is not even given the secret.
#[tokio::test]
async fn a_token_server_that_must_not_see_the_secret_never_does() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let password = &bed.user(Kind::Plain).password;
    let thief = Canned::start("200 OK", "", r#"{"token":"x"}"#).await;
    for (realm, codes) in [
        ("http://169.254.169.254/token".to_owned(), ["egress_denied", "realm_denied"]),
        (format!("http://localhost.evil.invalid:{}/token", thief.address().port()), ["realm_denied", "dns"]),
    ] {
        let registry = Canned::with_realm(&realm).await;
        let address = registry.address().to_string();
        for code in verdicts(&road, &address).await {
            assert!(codes.contains(&code.as_str()), "{realm}: {code}");
        }
        let entry = road.entry(&address, bed.user(Kind::Plain)).await;
        let job = road.pull(&format!("{address}/app:v1"), json!({"registryId": entry})).await;
        let failed = failed(&job);
        assert!(codes.contains(&failed["error"]["code"].as_str().unwrap()), "{failed:#}");
        let seen = registry.requests().join("\n");
        assert!(scan_for_secret(&seen, password).is_empty(), "{seen}");
    }
    assert!(thief.requests().is_empty(), "{:?}", thief.requests());
}

/// Callers who test many dead addresses at once take neither all sockets nor the server's attention, nor what another
/// organization needs for its tests.
#[tokio::test]
async fn with_few_open_files_few_registries_are_asked_at_once_and_the_others_are_told() {
    const HARD: u32 = 512;
    // What the server allows itself is a quarter of its sockets, and half of that to an organization.
    const AT_ONCE: usize = HARD as usize / 4 / 2;
    const MORE: usize = 12;
    let purser = Purser::builder().open_files(256, HARD).start().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", purser.pid())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().take(2).collect::<Vec<_>>(), ["512", "512"], "{limits}");

    let silent = Hostile::behind(Front::Silent, std::sync::Arc::new(|_| Reply::last(""))).await;
    let input = json!({"registryUrl": silent.address().to_string(), "insecure": true});
    let tests: Vec<_> = (0..AT_ONCE + MORE)
        .map(|_| {
            let (client, input) = (purser.client(), input.clone());
            tokio::spawn(async move { client.trpc_mutation("registry.testRegistry", &input).await })
        })
        .collect();
    eventually(VERDICT, async || (silent.connections() >= AT_ONCE).then_some(())).await;
    purser.client().query("registry.all", Value::Null).await;
    let other = purser.key_in(&purser.organization("other"), Grant::Role("admin"));
    other.mutate("registry.testRegistry", json!({"registryUrl": Testbed::get().registries.open})).await;
    let mut turned_away = 0;
    for test in tests {
        let answer = test.await.unwrap();
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            let error = answer.error();
            assert_eq!(error["data"]["code"], "SERVICE_UNAVAILABLE", "{error:#}");
            assert!(error["data"]["diagnosis"].is_null(), "nothing is known of the registry: {error:#}");
            let wait = answer.headers["retry-after"].to_str().unwrap();
            assert_eq!(error["data"]["retryAfter"].to_string(), wait);
            turned_away += 1;
        } else {
            assert_eq!(answer.diagnosis(), "timeout", "{answer:?}");
        }
    }
    assert_eq!(turned_away, MORE);
}
