use super::*;
use crate::fake::{Fake, answer};

#[tokio::test]
async fn an_endless_body_is_cut_and_an_endless_head_refused() {
    let body = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"endless\"\r\nContent-Length: 99999999999\r\n\r\n";
    let fake = Fake::start(|_| body.to_owned()).await;
    let failure = client().test(&at(fake.address), None, None, DEADLINE).await.map_err(failed).unwrap_err();
    assert_eq!(failure.diagnosis.code, DiagnosisCode::Unauthorized);

    let fake = Fake::start(|_| "HTTP/1.1 200 OK\r\nX-endless: ".to_owned()).await;
    let failure = client().test(&at(fake.address), None, None, DEADLINE).await.map_err(failed).unwrap_err();
    assert_eq!(failure.diagnosis.code, DiagnosisCode::NotARegistry);
}

/// hyper's own bound is a dozen times ours, so an endless head alone would not show ours.
#[tokio::test]
async fn a_head_that_ends_beyond_the_bound_is_refused_and_one_within_it_is_read() {
    for (length, refused) in [(16 * 1024, false), (200 * 1024, true)] {
        let long = format!("X-Long: {}", "x".repeat(length));
        let fake = Fake::start(move |_| answer("200 OK", &[&long], "{}")).await;
        let tested = client().test(&at(fake.address), None, None, DEADLINE).await;
        let code = tested.map_err(failed).err().map(|failure| failure.diagnosis.code);
        assert_eq!(code, refused.then_some(DiagnosisCode::NotARegistry), "{length}");
    }
}

/// A byte every 20 ms: nothing that is ever silent for long, and nothing that ends.
#[tokio::test]
async fn what_drips_is_left_at_the_deadline_be_it_a_head_a_body_or_a_handshake() {
    // Of a TLS handshake: the head of a ServerHello of 16 KiB.
    let handshake = vec![0x16, 3, 3, 0x40, 0, 2, 0, 0x3f, 0xfc, 3, 3];
    for (place, begun) in [
        // Not written as loopback, where plain HTTP would be tried after it.
        ("https://[::ffff:127.0.0.1]", handshake),
        ("http://127.0.0.1", b"HTTP/1.1 200 ".to_vec()),
        ("http://127.0.0.1", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n".to_vec()),
    ] {
        let what = String::from_utf8_lossy(&begun).into_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(&format!("{place}:{}", listener.local_addr().unwrap().port()));
        let dripping = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut going = stream.write_all(&begun).await;
                while going.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    going = stream.write_all(b"x").await;
                }
            }
        });
        let client = client();
        let tested = client.test(&target, None, None, Duration::from_millis(400));
        let tested = tokio::time::timeout(Duration::from_secs(10), tested).await;
        let code = tested.map(|tested| tested.map_err(failed).unwrap_err().diagnosis.code);
        assert_eq!(code, Ok(DiagnosisCode::Timeout), "{what:?}");
        dripping.abort();
    }
}

#[tokio::test]
async fn a_compressed_answer_is_refused() {
    let fake = Fake::start(|_| answer("200 OK", &["Content-Encoding: gzip"], "{}")).await;
    let failure = client().test(&at(fake.address), None, None, DEADLINE).await.map_err(failed).unwrap_err();
    assert_eq!(failure.diagnosis.code, DiagnosisCode::NotARegistry);
}

#[tokio::test]
async fn a_silent_registry_is_left_at_the_deadline() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let begun = std::time::Instant::now();
    let target = at(listener.local_addr().unwrap());
    let failure =
        client().test(&target, None, None, Duration::from_millis(300)).await.map_err(failed).unwrap_err();
    assert_eq!(failure.diagnosis.code, DiagnosisCode::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(8));
    assert!(failure.steps.last().is_some_and(|step| !step.ok));
}

#[tokio::test]
async fn what_the_policy_refuses_is_not_dialled() {
    let fake = Fake::start(|_| answer("200 OK", &[], "{}")).await;
    let client = RegistryClient::new(EgressPolicy::default(), "purser-test");
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let target = target(&format!("{host}:{}", fake.address.port()));
        let failure = client.test(&target, None, None, DEADLINE).await.map_err(failed).unwrap_err();
        assert_eq!(failure.diagnosis.code, DiagnosisCode::EgressDenied, "{host}");
    }
    let failure =
        client.test(&target("169.254.169.254"), None, None, DEADLINE).await.map_err(failed).unwrap_err();
    assert_eq!(failure.diagnosis.code, DiagnosisCode::EgressDenied);
    assert_eq!(fake.connections(), 0);
}

#[tokio::test]
async fn a_closed_port_is_a_connect_failure() {
    // Bound, so that nobody else gets it, and nobody listens.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = at(socket.local_addr().unwrap());
    let failure = client().test(&target, None, None, DEADLINE).await.map_err(failed).unwrap_err();
    assert_eq!(failure.diagnosis.code, DiagnosisCode::Connect);
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_opened_again() {
    let fake = Fake::start(|asked| match asked.authorization {
        None => answer("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"x\"", "Connection: close"], ""),
        Some(_) => answer("200 OK", &[], "{}"),
    })
    .await;
    let outcome = client().test(&at(fake.address), Some(&bob(PASSWORD)), None, DEADLINE).await.unwrap();
    assert_eq!(outcome.credentials, CredentialsVerdict::Verified);
}

#[tokio::test]
async fn no_more_is_asked_at_once_than_there_is_room_for_and_turns_come() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client().at_most(2);
    let hold = |deadline| {
        let (client, target) = (client.clone(), at(silent.local_addr().unwrap()));
        tokio::spawn(async move { client.test(&target, None, None, deadline).await })
    };
    let holding = [hold(Duration::from_secs(6)), hold(Duration::from_secs(6))];
    let held = [silent.accept().await.unwrap(), silent.accept().await.unwrap()];

    let fake = Fake::start(|_| answer("200 OK", &[], "{}")).await;
    let (target, hurried) = (at(fake.address), Duration::from_millis(200));
    assert_eq!(client.test(&target, None, None, hurried).await, Err(TestError::Busy(Busy)));
    assert_eq!(client.probe(&target, None, hurried).await, Err(TestError::Busy(Busy)));
    assert!(matches!(client.open(&target, None, hurried).await, Err(Busy)));
    assert_eq!(fake.connections(), 0, "it was asked without room");

    // Whoever can wait gets in when others end; and makes room again.
    for _ in 0..3 {
        client.test(&target, None, None, Duration::from_secs(60)).await.unwrap();
    }
    for hold in holding {
        assert!(matches!(hold.await.unwrap(), Err(TestError::Failed(_))), "it had a place");
    }
    drop(held);
}

/// Thousands may wait for registries that answer late. The compiler keeps room for a future as often as it is handed on
/// before it waits: this was 23 KiB once, and three times that where it was called.
#[test]
fn a_test_that_waits_holds_little() {
    let (client, target) = (client(), target("registry.example.com"));
    let scope = ScopeProbe { repository: "team/app".into(), pull: true, push: true };
    let bob = bob(PASSWORD);
    let test = client.test(&target, Some(&bob), Some(&scope), DEADLINE);
    assert!(size_of_val(&test) < 8 << 10, "{} B", size_of_val(&test));
}
