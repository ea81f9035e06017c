//! The agent channel under attack: another server, strangers, replays, listeners, tampering, clones.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use nix::sys::signal::Signal;
use purser_proto_schema::agent::{
    calls::{ServerCallsClient as _, VerdictReport},
    command::{Outcome, Verdict},
    noise::{ChannelError, StaticKey},
};
use purser_tests::{
    Agent, Authority, BreakableProxy, Purser, Testbed,
    certificate::Validity,
    double::{self, Double},
    eventually, image, scan_for_secret, unique,
    user::Kind,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

const SOON: Duration = Duration::from_secs(20);

async fn behind(link: &BreakableProxy, purser: &Purser) -> (Agent, String) {
    let builder = Agent::builder(purser, &Testbed::get().host_a(), None);
    Agent::join_by(purser, builder.server(&format!("http://{}", link.address()))).await
}

/// All that a stranger could have changed.
fn known(purser: &Purser) -> String {
    ["server_id, agent_key, session_epoch FROM server", "join_token_id, spent_at FROM join_token"]
        .map(|what| purser.execute_sql(&format!("SELECT {what} ORDER BY 1")))
        .join("\n")
}

fn epoch(purser: &Purser, id: &str) -> String {
    purser.execute_sql(&format!("SELECT session_epoch FROM server WHERE server_id = '{id}'"))
}

/// What followed the last HTTP upgrade in a recording.
fn said(recording: &[u8]) -> &[u8] {
    let end = recording.windows(4).rposition(|four| four == b"\r\n\r\n").expect("an upgrade");
    &recording[end + 4..]
}

#[tokio::test]
async fn an_agent_says_nothing_to_another_server() {
    let (own, other) = (Purser::start().await, Purser::start().await);
    let link = BreakableProxy::start(own.address()).await;
    let (agent, id) = behind(&link, &own).await;
    let before = known(&other);
    link.point_to(other.address());
    link.cut();
    agent.await_log("and SHA256:").await;
    let logs = agent.logs();
    let line = logs.lines().find(|line| line.contains("and SHA256:")).unwrap();
    assert!(line.contains("was expected: this is another server, or someone between"), "{line}");
    assert_eq!(line.matches("SHA256:").count(), 2, "what it saw and what it expected: {line}");
    // An ephemeral key in a masked frame, and the end. Not who it is, and no proof of its key.
    assert!(said(&link.recording().to_upstream).len() <= 38 + 8, "it said more than hello");
    assert_eq!(known(&other), before);

    link.point_to(own.address());
    agent.await_online(&own.client(), &id).await;
}

#[tokio::test]
async fn a_join_token_is_not_shown_to_another_server() {
    let (own, other) = (Purser::start().await, Purser::start().await);
    let row = own.client().mutate("server.create", json!({"name": unique("host")})).await;
    let link = BreakableProxy::start(other.address()).await;
    let agent = Agent::builder(&own, &Testbed::get().host_a(), row["joinToken"].as_str())
        .server(&format!("http://{}", link.address()))
        .start();
    agent.await_log("and SHA256:").await;
    assert!(said(&link.recording().to_upstream).len() <= 38 + 8, "it said more than hello");
    link.point_to(own.address());
    agent.await_online(&own.client(), row["serverId"].as_str().unwrap()).await;
}

#[tokio::test]
async fn strangers_change_nothing_and_disturb_nobody() {
    let purser = Purser::start().await;
    let (agent, id) = Agent::join(&purser, &Testbed::get().host_a()).await;
    let before = known(&purser);
    let garbage = [
        Message::text("hello"),
        Message::text("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"engine.images\"}"),
        Message::binary(vec![]),
        Message::binary(vec![0; 32]),
        Message::binary(vec![7; 70_000]),
        Message::binary(vec![7; 5 << 20]),
        Message::Close(None),
    ];
    for message in garbage {
        for half in [false, true] {
            let mut socket = double::open(purser.address()).await;
            if half {
                // The first message is any 32 bytes: an ephemeral key.
                socket.send(Message::binary(vec![9; 32])).await.unwrap();
                timeout(SOON, socket.next()).await.unwrap();
            }
            // A refusal may come before the last byte is out.
            let _ = socket.send(message.clone()).await;
            if message == Message::binary(vec![0; 32]) && !half {
                continue;
            }
            timeout(SOON, async { while let Some(Ok(_)) = socket.next().await {} }).await.unwrap();
        }
    }
    let mut stranger = Double::of(&agent);
    stranger.key = StaticKey::generate().unwrap();
    for _ in 0..3 {
        assert!(stranger.dial(purser.address()).await.is_err());
    }
    assert_eq!(known(&purser), before);
    assert!(!agent.logs().contains("not connected"), "{}", agent.logs());
    let answer = purser.client().trpc_query("image.all", &json!({"serverId": id})).await;
    assert!(answer.status.is_success(), "{answer:?}");
}

#[tokio::test]
async fn a_handshake_that_stalls_is_cut() {
    let purser = Purser::start().await;
    let stalled = async |first: Option<Message>| {
        let started = Instant::now();
        let mut socket = double::open(purser.address()).await;
        if let Some(message) = first {
            socket.send(message).await.unwrap();
        }
        timeout(SOON, async { while let Some(Ok(_)) = socket.next().await {} }).await.expect("it is cut");
        started.elapsed()
    };
    let (silent, half) = tokio::join!(stalled(None), stalled(Some(Message::binary(vec![9; 32]))));
    for took in [silent, half] {
        assert!((9.0..25.0).contains(&took.as_secs_f64()), "{took:?}");
    }
}

#[tokio::test]
async fn a_recorded_session_cannot_be_replayed() {
    let purser = Purser::start().await;
    let link = BreakableProxy::start(purser.address()).await;
    let (agent, id) = behind(&link, &purser).await;
    let before = epoch(&purser, &id);
    let recorded = link.recording().to_upstream;
    assert!(recorded.len() > 300, "a whole handshake");
    let mut stream = TcpStream::connect(purser.address()).await.unwrap();
    stream.write_all(&recorded).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the server ends it");
    assert!(answer.starts_with(b"HTTP/1.1 101"), "the replay got as far as the channel");
    assert_eq!(epoch(&purser, &id), before);
    assert!(!agent.logs().contains("not connected"), "{}", agent.logs());
}

/// A test and a pull with a password, through `link`; what passed holds nothing of it.
async fn work_in_secret(purser: &Purser, link: &BreakableProxy, id: &str) {
    let bed = Testbed::get();
    let engine = bed.host_a();
    let user = bed.user(Kind::Symbols);
    let basic = &bed.registries.basic;
    let made = image::in_registry(&engine, basic, "secret", 1000, Some(user)).await;
    let client = purser.client();
    let tested = json!({"registryUrl": format!("http://{basic}"), "username": user.username,
        "password": user.password, "serverId": id});
    client.mutate("registry.testRegistry", tested).await;
    let pulled = json!({"serverId": id, "image": made.reference(), "wait": true,
        "auth": {"username": user.username, "password": user.password}});
    let job = client.mutate("image.pull", pulled).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    engine.remove(&made.reference()).await;
    let passed = link.recording().both();
    assert!(passed.len() > 1000, "the work went through the link");
    let found = scan_for_secret(&passed, &user.password);
    assert!(found.is_empty(), "{found:?}");
    for word in ["target.start", "testRegistry", "welcome", made.name.as_str()] {
        assert!(scan_for_secret(&passed, word).is_empty(), "{word} passed in clear");
    }
}

#[tokio::test]
async fn who_records_the_wire_learns_no_secret() {
    let purser = Purser::start().await;
    let link = BreakableProxy::start(purser.address()).await;
    let (_agent, id) = behind(&link, &purser).await;
    work_in_secret(&purser, &link, &id).await;
}

#[tokio::test]
async fn a_proxy_that_terminates_tls_learns_no_secret() {
    let purser = Purser::start().await;
    let authority = Authority::new("proxy");
    let issued = authority.issue(&["127.0.0.1"], Validity::Current);
    let link = BreakableProxy::terminating_tls(purser.address(), issued.server_config()).await;
    let folder = Testbed::get().scratch("ca");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let builder = Agent::builder(&purser, &Testbed::get().host_a(), None)
        .server(&format!("https://{}", link.address()))
        .arg("--ca-file")
        .arg(file.to_str().unwrap());
    let (_agent, id) = Agent::join_by(&purser, builder).await;
    assert!(scan_for_secret(&link.recording().to_upstream, "GET /agent").len() == 1, "decrypted");
    work_in_secret(&purser, &link, &id).await;
}

#[tokio::test]
async fn a_damaged_frame_ends_the_session_and_the_next_one_begins() {
    let purser = Purser::start().await;
    let link = BreakableProxy::start(purser.address()).await;
    let (agent, id) = behind(&link, &purser).await;
    let before = epoch(&purser, &id);
    link.damage_next();
    let answer = purser.client().trpc_query("image.all", &json!({"serverId": id})).await;
    assert!(!answer.status.is_success(), "a damaged answer was taken: {answer:?}");
    let logs = || purser.logs().contains("a message did not open under the session's keys");
    eventually(SOON, async || logs().then_some(())).await;
    eventually(SOON, async || (epoch(&purser, &id) != before).then_some(())).await;
    agent.await_online(&purser.client(), &id).await;
    let answer = purser.client().trpc_query("image.all", &json!({"serverId": id})).await;
    assert!(answer.status.is_success(), "{answer:?}");
}

#[tokio::test]
async fn the_newest_session_wins_and_the_older_is_told() {
    let purser = Purser::start().await;
    let (agent, id) = Agent::join(&purser, &Testbed::get().host_a()).await;
    let clone = Double::of(&agent);
    // Or it would be back before the second has come, on a busy machine.
    agent.signal(Signal::SIGSTOP);
    let first = clone.dial(purser.address()).await.unwrap();
    let second = clone.dial(purser.address()).await.unwrap();
    assert_eq!(second.welcome.session_epoch, first.welcome.session_epoch + 1);
    let ended = first.peer.ended().await;
    assert!(matches!(*ended, ChannelError::Closed { code: 4409, .. }), "{ended}");
    assert!(first.ended().await.contains("superseded"), "the older one is told why");
    agent.signal(Signal::SIGCONT);
    agent.await_log("superseded by a newer session").await;
    // Only now, after the 5 s that a superseded agent waits.
    assert!(second.ended().await.contains("superseded"), "the agent itself came back");
    agent.await_online(&purser.client(), &id).await;
}

/// As `server.all` shows them, which reads the database anew.
async fn warnings(purser: &Purser, id: &str) -> Value {
    let all = purser.client().query("server.all", Value::Null).await;
    let server = all.as_array().unwrap().iter().find(|server| server["serverId"] == id).unwrap();
    server["warnings"].clone()
}

#[tokio::test]
async fn two_hosts_with_one_key_are_noticed_and_said() {
    let purser = Purser::start().await;
    let row = purser.client().mutate("server.create", json!({"name": unique("host")})).await;
    let id = row["serverId"].as_str().unwrap();
    let double = Double::with_token(row["joinToken"].as_str().unwrap());
    drop(double.dial(purser.address()).await.unwrap());
    let double = Double { join_secret: None, ..double };
    let clone = Double { instance: unique("clone"), ..double.clone() };
    for turn in 0..4 {
        assert_eq!(warnings(&purser, id).await, json!([]), "after {turn} turns");
        let who = if turn % 2 == 0 { &clone } else { &double };
        drop(who.dial(purser.address()).await.unwrap());
    }
    let said = warnings(&purser, id).await;
    assert!(said[0].as_str().unwrap().contains("several hosts use this server's key"), "{said}");
    assert_eq!(said.as_array().unwrap().len(), 1);
    let one = purser.client().query("server.one", json!({"serverId": id})).await;
    assert_eq!(one["warnings"], said);
    assert_eq!(purser.logs().matches("keep superseding each other").count(), 1);

    // Over when they have stopped for a while, and begun anew when they have not.
    let history = purser.sql("SELECT session_history FROM server");
    purser.execute_sql("UPDATE server SET session_history = replace(session_history, '\"20', '\"19')");
    assert_eq!(warnings(&purser, id).await, json!([]));
    purser.execute_sql(&format!("UPDATE server SET session_history = '{history}'"));
    assert_eq!(warnings(&purser, id).await, said);

    // A host that joins anew has a key that the copy does not know.
    let token = purser.client().mutate("server.createJoinToken", json!({"serverId": id})).await;
    let anew = Double::with_token(token["joinToken"].as_str().unwrap());
    let _session = anew.dial(purser.address()).await.unwrap();
    assert_eq!(warnings(&purser, id).await, json!([]));
    assert!(clone.dial(purser.address()).await.is_err());
}

#[tokio::test]
async fn a_host_that_reconnects_and_restarts_is_not_taken_for_two() {
    let purser = Purser::start().await;
    let row = purser.client().mutate("server.create", json!({"name": unique("host")})).await;
    let id = row["serverId"].as_str().unwrap();
    let double = Double::with_token(row["joinToken"].as_str().unwrap());
    drop(double.dial(purser.address()).await.unwrap());
    let member = Double { join_secret: None, ..double };
    for _ in 0..3 {
        let run = Double { instance: unique("run"), ..member.clone() };
        for _ in 0..3 {
            drop(run.dial(purser.address()).await.unwrap());
        }
    }
    assert_eq!(warnings(&purser, id).await, json!([]));
}

fn success(digest: &str) -> Verdict {
    let outcome = Outcome::Image { digest: digest.into(), size_bytes: None };
    Verdict::Succeeded { outcome, duration_ms: 1 }
}

/// Its socket still stands (another replica holds the newer one, say), but it may say nothing.
#[tokio::test]
async fn a_verdict_of_an_older_epoch_is_refused() {
    let purser = Purser::start().await;
    let client = purser.client();
    let row = client.mutate("server.create", json!({"name": unique("host")})).await;
    let id = row["serverId"].as_str().unwrap();
    let double = Double::with_token(row["joinToken"].as_str().unwrap());
    let mut session = double.dial(purser.address()).await.unwrap();
    let asked = json!({"serverId": id, "image": "127.0.0.1:1/nothing:v1"});
    let job = client.mutate("image.pull", asked).await;
    let target = session.target().await;
    purser.execute_sql("UPDATE server SET session_epoch = session_epoch + 1");
    let report = VerdictReport { attempt: target.attempt.clone(), verdict: success("sha256:00") };
    assert!(session.peer.client().target_verdict(report).await.is_err(), "an old epoch was heard");
    // At once, and not when it next looks for work.
    let said = timeout(Duration::from_secs(10), session.ended()).await.expect("the session ends");
    assert!(said.contains("superseded"), "{said}");
    let status = async || {
        let job = client.query("job.one", json!({"jobId": job["jobId"]})).await;
        job["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status().await, "running");

    // The next session says that it has the target, and its verdict counts; twice is once.
    let member = Double { join_secret: None, running: vec![target.attempt.clone()], ..double };
    let session = member.dial(purser.address()).await.unwrap();
    assert!(session.welcome.drop.is_empty());
    for receipt in ["Stored", "Stale"] {
        let report = VerdictReport { attempt: target.attempt.clone(), verdict: success("sha256:00") };
        let answer = session.peer.client().target_verdict(report).await.unwrap();
        assert_eq!(format!("{answer:?}"), receipt);
    }
    assert_eq!(status().await, "succeeded");
}

#[tokio::test]
async fn a_target_that_has_ended_on_the_host_already_ends_by_that_verdict() {
    let purser = Purser::start().await;
    let client = purser.client();
    let row = client.mutate("server.create", json!({"name": unique("host")})).await;
    let double = Double::with_token(row["joinToken"].as_str().unwrap());
    let double = Double { ended: Some(success("sha256:77")), ..double };
    let session = double.dial(purser.address()).await.unwrap();
    let asked = json!({"serverId": row["serverId"], "image": "127.0.0.1:1/nothing:v1", "wait": true});
    let job = client.mutate("image.pull", asked).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(job["targets"][0]["result"]["digest"], "sha256:77", "{job}");
    drop(session);
}

/// Nobody takes another host's target for his own, nor one that he was not given.
#[tokio::test]
async fn an_agent_speaks_for_its_own_server_only() {
    let purser = Purser::start().await;
    let client = purser.client();
    let mut doubles = Vec::new();
    for _ in 0..2 {
        let row = client.mutate("server.create", json!({"name": unique("host")})).await;
        let double = Double::with_token(row["joinToken"].as_str().unwrap());
        doubles.push((row, double.dial(purser.address()).await.unwrap()));
    }
    let asked = json!({"serverId": doubles[0].0["serverId"], "image": "127.0.0.1:1/nothing:v1"});
    let job = client.mutate("image.pull", asked).await;
    let target = doubles[0].1.target().await;
    let report = VerdictReport { attempt: target.attempt, verdict: success("sha256:00") };
    let answer = doubles[1].1.peer.client().target_verdict(report).await.unwrap();
    assert_eq!(format!("{answer:?}"), "Stale");
    let job = client.query("job.one", json!({"jobId": job["jobId"]})).await;
    assert_eq!(job["status"], "running", "{job}");
    assert!(doubles[0].1.call("registry.all").await.is_err(), "no other procedure is served here");
}

/// Removed where this session's process does not hear of it: closed when it next looks for work.
#[tokio::test]
async fn a_session_without_a_right_to_stand_is_closed() {
    let purser = Purser::start().await;
    let (agent, _) = Agent::join(&purser, &Testbed::get().host_a()).await;
    purser.execute_sql("UPDATE server SET revoked_at = '2020-01-01 00:00:00+00:00'");
    agent.await_log("superseded by a newer session of this agent, or its server was removed").await;
    agent.await_log("this host's key is not enrolled for the server").await;
}
