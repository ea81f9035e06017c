//! Stops: in time, with a reason for everybody, and nothing that was done goes unsaid.

use std::time::Duration;

use http::Method;
use nix::sys::signal::Signal;
use purser_tests::{
    Client, Hostile, Purser, Road, eventually,
    hostile::{Asked, Reply, basic},
    tenant::Grant,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_stop_tells_every_socket_why() {
    // Without an agent, whose end would take its time and give the others theirs.
    let purser = Purser::start().await;
    let client = purser.client();
    let mut sockets = Vec::new();
    for _ in 0..300 {
        sockets.push(client.websocket().await.unwrap());
    }
    assert!(purser.stop().await.success());
    for socket in &mut sockets {
        let said = socket.receive().await.unwrap_err();
        assert!(said.contains("Away") && said.contains("the server is stopping"), "{said}");
    }
    let road = Road::start().await;
    assert!(road.purser.stop().await.success());
    road.agents[0].await_log("the server is stopping").await;
}

/// A caller that sends a byte and no more, one that reads nothing, one that waits for a job.
#[tokio::test]
async fn stuck_callers_do_not_hold_a_stop() {
    let purser = Purser::start().await;
    let mut half = tokio::net::TcpStream::connect(purser.address()).await.unwrap();
    let head = "POST /api/trpc/registry.all HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    half.write_all(head.as_bytes()).await.unwrap();
    let client = purser.client();
    let key = purser.key_in(&purser.default_organization(), Grant::Role("admin"));
    let server = client.mutate("server.create", json!({"name": "never"})).await["serverId"].clone();
    let waiting = tokio::spawn(async move {
        let input = json!({"image": "app", "serverId": server, "wait": true}).to_string();
        key.send(Method::POST, "/api/trpc/image.pull", &[("content-type", "application/json")], input).await
    });
    let accepted =
        async || Some(client.query("job.all", json!({})).await).filter(|jobs| jobs["items"][0].is_object());
    eventually(SOON, accepted).await;
    // Ten seconds are held by this.
    assert!(purser.stop().await.success());
    // Whoever waited is answered with the job as it stands.
    assert_eq!(waiting.await.unwrap().unwrap().data()["status"], "queued");
    let mut rest = Vec::new();
    let _ = half.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn told_a_second_time_it_waits_for_nobody() {
    let purser = Purser::start().await;
    // Holds the first stop for its 8 s.
    let mut half = tokio::net::TcpStream::connect(purser.address()).await.unwrap();
    half.write_all(
        b"POST /rpc HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
    )
    .await
    .unwrap();
    purser.client().query("registry.all", Value::Null).await;
    purser.signal(Signal::SIGTERM);
    purser.await_log("stopping").await;
    purser.signal(Signal::SIGINT);
    let status = eventually(SOON, async || purser.exit_status()).await;
    // One that had been waited for ends otherwise.
    assert_eq!(status.code(), Some(130));
    assert!(purser.logs().contains("what is under way is cut off"));
}

/// A registry that asks for the password, gets it, and says nothing any more; and the entry for it.
async fn silent_registry(client: &Client) -> (Hostile, Value) {
    let silent = |asked: &Asked| if asked.authorized() { Reply::silence("") } else { basic().into() };
    let hostile = Hostile::start(silent).await;
    let entry = json!({
        "registryName": "silent", "registryUrl": hostile.as_localhost(), "username": "u", "password": "p",
    });
    let id = client.mutate("registry.create", entry).await["registryId"].clone();
    (hostile, id)
}

#[tokio::test]
async fn a_credential_that_was_used_before_a_stop_is_audited_and_whoever_asked_is_told() {
    let mut purser = Purser::start().await;
    let client = purser.client();
    let (hostile, id) = silent_registry(&client).await;
    let (testing, looking) = (client.afresh(), client.afresh());
    let (test, tags) = (json!({"registryId": id}), json!({"registryId": id, "repository": "app"}));
    let test = tokio::spawn(async move { testing.trpc_mutation("registry.testRegistryById", &test).await });
    let tags = tokio::spawn(async move { looking.trpc_query("registry.tags", &tags).await });
    eventually(SOON, async || (hostile.authorized() >= 2).then_some(())).await;
    assert!(purser.stop().await.success());
    let (test, tags) = (test.await.unwrap(), tags.await.unwrap());
    assert_eq!((test.status.as_u16(), test.code().as_str()), (503, "SERVICE_UNAVAILABLE"), "{test:?}");
    assert!(tags.error().to_string().contains("the control plane is stopping"), "{tags:?}");
    purser.restart().await;
    let noted = purser.client().query("audit.all", json!({"registryId": id})).await;
    let outcome = |action: &str| {
        let events = noted["items"].as_array().unwrap().iter();
        events
            .filter(|event| event["action"] == action)
            .map(|event| event["outcome"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(outcome("registry.testRegistryById"), vec![json!("SERVICE_UNAVAILABLE")], "{noted}");
    assert_eq!(outcome("registry.tags"), vec![json!("other")], "{noted}");
}

/// Its body ends only now; the registry would not answer for longer than there is time.
#[tokio::test]
async fn what_begins_after_a_stop_is_told_and_audited_too() {
    let mut purser = Purser::start().await;
    let client = purser.client();
    let (_hostile, id) = silent_registry(&client).await;
    let body = json!({"registryId": id}).to_string();
    let head = format!(
        "POST /api/registry.testRegistryById HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        purser.admin_key(),
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(purser.address()).await.unwrap();
    stream.write_all(format!("{head}{}", &body[..body.len() - 1]).as_bytes()).await.unwrap();
    client.query("registry.all", Value::Null).await;
    purser.signal(Signal::SIGTERM);
    purser.await_log("stopping").await;
    stream.write_all(&body.as_bytes()[body.len() - 1..]).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("SERVICE_UNAVAILABLE"), "{answer}");
    let ended = eventually(SOON, async || purser.exit_status()).await;
    assert!(ended.success());
    purser.restart().await;
    let asked = json!({"registryId": id, "action": "registry.testRegistryById"});
    let noted = purser.client().query("audit.all", asked).await;
    assert_eq!(noted["items"][0]["outcome"], "SERVICE_UNAVAILABLE", "{noted}");
}
