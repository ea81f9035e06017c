//! The testbed itself: its parts are real, and they do what the other tests rely on.

use std::time::Duration;

use http::{Method, StatusCode};
use purser_tests::{
    Authority, BreakableProxy, Client, Testbed,
    certificate::Validity,
    database::Database,
    eventually,
    image::{self, Local},
    process::{command_line, resident_kib},
    scan_for_secret, secret, unique,
    user::{Kind, basic},
};
use serde_json::json;

#[tokio::test]
async fn the_engines_answer() {
    let bed = Testbed::get();
    let mut ids = Vec::new();
    for engine in [bed.host_a(), bed.host_b()] {
        let answer = engine.request(Method::GET, "/info", &[], "").await;
        assert_eq!(answer.status, StatusCode::OK);
        ids.push(answer.json()["ID"].as_str().unwrap().to_owned());
    }
    assert_ne!(ids[0], ids[1], "two hosts, not one twice");
}

#[tokio::test]
async fn an_image_made_for_one_test_is_gone_after_it() {
    let engine = Testbed::get().host_a();
    let image = Local::make(&engine, "local", 1000).await;
    let (id, other) = (image.id.clone(), unique("other"));
    engine.tag(&image.repository, &other, "v2").await;
    assert_eq!(engine.tags_of(&other).await, ["v2"]);
    assert!(engine.inspect(&id).await.is_some());
    drop(image);
    assert!(engine.inspect(&id).await.is_none());
}

#[tokio::test]
async fn each_registry_refuses_a_wrong_password() {
    let bed = Testbed::get();
    let user = bed.user(Kind::Plain);
    let wrong = basic(&user.username, "wrong");
    let all = &bed.registries;
    for (address, password_works) in [(&all.basic, true), (&all.long, true), (&all.open, true)] {
        let registry = Client::new(&format!("http://{address}"));
        let right =
            registry.send(Method::GET, "/v2/", &[("authorization", &user.basic())], "").await.unwrap();
        assert_eq!(right.status.is_success(), password_works, "{right:?}");
        let refused = registry.send(Method::GET, "/v2/", &[("authorization", &wrong)], "").await.unwrap();
        let expected = if *address == all.open { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        assert_eq!(refused.status, expected, "{refused:?}");
        assert_eq!(registry.get("/v2/").await.status, expected);
    }
    let challenged = Client::new(&format!("http://{}", all.token)).get("/v2/").await;
    let challenge = challenged.headers["www-authenticate"].to_str().unwrap();
    assert!(challenge.starts_with(&format!("Bearer realm=\"{}\"", all.realm)), "{challenge}");

    let tls = Client::tls(&format!("https://{}", all.tls), &bed.ca_certificate);
    let answer = tls.send(Method::GET, "/v2/", &[("authorization", &user.basic())], "").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    let answer = tls.send(Method::GET, "/v2/", &[("authorization", &wrong)], "").await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let strangers = Authority::new("nobody").pem();
    let untrusted = Client::tls(&format!("https://{}", all.tls), &strangers);
    assert!(untrusted.send(Method::GET, "/v2/", &[], "").await.is_err());
}

/// Also the right password with one byte less: what bcrypt alone would let pass when it is long.
#[tokio::test]
async fn every_password_works_with_the_engines_own_login() {
    let bed = Testbed::get();
    let engine = bed.host_a();
    for user in &bed.users {
        for registry in [bed.basic_for(user), &bed.registries.token] {
            let right = engine.auth(registry, &user.username, &user.password).await;
            assert_eq!(right.status, StatusCode::OK, "{:?} at {registry}: {right:?}", user.kind);
            assert_eq!(right.json()["Status"], "Login Succeeded");
            let mut short = user.password.clone();
            short.pop();
            let refused = engine.auth(registry, &user.username, &short).await;
            assert!(!refused.status.is_success(), "{:?} at {registry}: {refused:?}", user.kind);
        }
    }
}

#[tokio::test]
async fn every_password_pushes_and_pulls() {
    let bed = Testbed::get();
    let engine = bed.host_b();
    for user in bed.users.iter().filter(|user| user.kind != Kind::Reader) {
        for registry in [bed.basic_for(user), &bed.registries.token] {
            let image = image::in_registry(&engine, registry, "password", 100, Some(user)).await;
            let pulled = engine.pull(&image.repository, "v1", Some(user)).await;
            assert_eq!(pulled, Ok(()), "{:?} at {registry}", user.kind);
            engine.remove(&image.reference()).await;
        }
    }
}

#[tokio::test]
async fn the_token_registry_accepts_a_docker_push_and_pull() {
    let bed = Testbed::get();
    let (engine, user, reader) = (bed.host_a(), bed.user(Kind::Plain), bed.user(Kind::Reader));
    let image = image::in_registry(&engine, &bed.registries.token, "private/app", 100, Some(user)).await;

    let anonymous = engine.pull(&image.repository, "v1", None).await;
    assert!(anonymous.is_err(), "a private image was given to nobody");
    assert_eq!(engine.pull(&image.repository, "v1", Some(reader)).await, Ok(()));
    assert!(engine.push(&image.repository, "v1", Some(reader)).await.is_err(), "the reader may not push");
    engine.remove(&image.reference()).await;

    let asked = bed.token_requests(&image.name);
    assert!(
        asked.iter().any(|request| request.username.as_deref() == Some("plain") && request.status == 200)
    );
    assert!(asked.iter().any(|request| !request.credentials_sent), "{asked:?}");

    let image = image::in_registry(&engine, &bed.registries.token, "public/app", 100, Some(user)).await;
    assert_eq!(engine.pull(&image.repository, "v1", None).await, Ok(()), "public images need no login");
    engine.remove(&image.reference()).await;
}

#[tokio::test]
async fn a_database_of_its_own_is_made_and_dumped() {
    let database = Database::create();
    let dump = String::from_utf8(database.dump()).unwrap();
    assert!(dump.contains("PostgreSQL database dump"), "{dump}");
}

#[tokio::test]
async fn the_proxy_records_stalls_refuses_and_cuts() {
    let bed = Testbed::get();
    let user = bed.user(Kind::Symbols);
    let proxy = BreakableProxy::start(&bed.registries.basic).await;
    let through = Client::new(&format!("http://{}", proxy.address()));
    let ask = async || {
        let headers = [("authorization", user.basic())];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        through.send_within(Duration::from_millis(500), Method::GET, "/v2/", &headers, "").await
    };
    let first = eventually(Duration::from_secs(10), async || ask().await.ok()).await;
    assert_eq!(first.status, StatusCode::OK);
    assert!(!scan_for_secret(&proxy.recording().to_upstream, &user.password).is_empty());
    assert!(scan_for_secret(&proxy.recording().to_client, &user.password).is_empty());

    proxy.stall(true);
    assert!(ask().await.is_err(), "nothing passes");
    proxy.stall(false);
    eventually(Duration::from_secs(20), async || ask().await.ok()).await;

    proxy.refuse(true);
    proxy.cut();
    eventually(Duration::from_secs(20), async || ask().await.err()).await;
    proxy.refuse(false);
    eventually(Duration::from_secs(20), async || ask().await.ok()).await;
}

#[tokio::test]
async fn the_tls_proxy_records_the_decrypted_stream() {
    let bed = Testbed::get();
    let user = bed.user(Kind::NonAscii);
    let authority = Authority::new("proxy");
    let issued = authority.issue(&["127.0.0.1"], Validity::Current);
    let proxy = BreakableProxy::terminating_tls(&bed.registries.basic, issued.server_config()).await;
    let through = Client::tls(&format!("https://{}", proxy.address()), &authority.pem());
    let answer = through.send(Method::GET, "/v2/", &[("authorization", &user.basic())], "").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    let found = scan_for_secret(&proxy.recording().both(), &user.password);
    assert!(found.iter().all(|finding| finding.form.starts_with("base64")), "{found:?}");
    assert!(!found.is_empty());

    let expired = authority.issue(&["127.0.0.1"], Validity::Expired);
    let proxy = BreakableProxy::terminating_tls(&bed.registries.basic, expired.server_config()).await;
    let through = Client::tls(&format!("https://{}", proxy.address()), &authority.pem());
    assert!(through.send(Method::GET, "/v2/", &[], "").await.is_err());
}

#[test]
fn a_secret_is_found_in_every_form() {
    use base64::{Engine as _, prelude::*};
    for user in purser_tests::User::one_of_each_kind() {
        let secret = &user.password;
        let json = json!({"username": "me", "password": secret}).to_string();
        let leaks = [
            format!("x{secret}y"),
            json.clone(),
            json!({"message": json}).to_string(),
            format!("{:?}", secret),
            purser_tests::percent::encode(secret),
            secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
            BASE64_STANDARD.encode(&json),
            BASE64_URL_SAFE_NO_PAD.encode(&json),
            basic("a", secret),
            basic("ab", secret),
            basic("abc", secret),
        ];
        for leak in leaks {
            assert!(!scan_for_secret(&leak, secret).is_empty(), "{:?} not found in {leak}", user.kind);
        }
        assert!(scan_for_secret("nothing of that kind", secret).is_empty());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), secret).unwrap();
        assert_eq!(scan_for_secret(folder.path(), secret)[0].file, Some(folder.path().join("file")));
    }
    assert_eq!(
        secret::of_key("purser_0123456789abcdef_a-secret_with_all_of_base64url_"),
        "a-secret_with_all_of_base64url_"
    );
}

#[test]
fn a_process_shows_its_arguments_and_its_memory() {
    let pid = std::process::id();
    assert!(command_line(pid).contains("it-"));
    assert!(resident_kib(pid).is_some_and(|kib| kib > 500));
    assert_eq!(resident_kib(u32::MAX), None);
}

#[tokio::test]
async fn the_socket_tells_responses_from_notifications() {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::{accept_async, tungstenite::Message};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut peer = accept_async(listener.accept().await.unwrap().0).await.unwrap();
        let call: serde_json::Value =
            serde_json::from_str(peer.next().await.unwrap().unwrap().to_text().unwrap()).unwrap();
        let notification = json!({"jsonrpc": "2.0", "method": "job.watch", "params": {"n": 1}});
        let response = json!({"jsonrpc": "2.0", "id": call["id"], "result": call["method"]});
        for message in [notification, response] {
            peer.send(Message::text(message.to_string())).await.unwrap();
        }
        peer.close(None).await.unwrap();
    });
    let mut socket = Client::new(&url).with_key("a key").websocket().await.unwrap();
    assert_eq!(socket.call("registry.all", json!({})).await.unwrap()["result"], "registry.all");
    assert_eq!(socket.notification().await.unwrap()["params"]["n"], 1);
    assert!(socket.receive().await.is_err(), "closed");
}
