//! How a host joins, and everything that is no way to join.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use purser_proto_schema::{
    agent::{handshake::RefusalCode, join_token::JoinToken},
    ids::ServerId,
};
use purser_tests::{Agent, Client, Purser, Testbed, double::Double, eventually, unique};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

async fn create(client: &Client) -> (String, String) {
    token_of(&client.mutate("server.create", json!({"name": unique("host")})).await)
}

fn token_of(row: &Value) -> (String, String) {
    let text = |name: &str| row[name].as_str().expect("a text").to_owned();
    (text("serverId"), text("joinToken"))
}

async fn status(client: &Client, id: &str) -> String {
    let row = client.query("server.one", json!({"serverId": id})).await;
    row["status"].as_str().expect("a text").to_owned()
}

/// Starts an agent with a token that must not work: it says why, and joins nothing.
async fn refused(purser: &Purser, token: &str, why: &str) {
    let agent = Agent::start(purser, &Testbed::get().host_a(), token);
    agent.await_log(why).await;
    assert!(!agent.logs().contains("connected\""), "{}", agent.logs());
    assert!(!agent.state_dir().join("server.json").exists(), "it must not think that it joined");
    assert!(!agent.logs().contains(token), "the token is a secret");
}

const INVALID_TOKEN: &str = "the join token was used, has expired, or is another server's";

#[tokio::test]
async fn a_host_joins_and_shows_its_engine_and_version() {
    let purser = Purser::start().await;
    let client = purser.client();
    let (id, token) = create(&client).await;
    assert_eq!(status(&client, &id).await, "pending");
    let agent = Agent::start(&purser, &Testbed::get().host_a(), &token);
    let row = agent.await_online(&client, &id).await;
    assert_eq!(row["engine"]["name"], "Docker", "{row}");
    assert!(row["engine"]["version"].as_str().is_some_and(|version| !version.is_empty()), "{row}");
    assert_eq!(row["agentVersion"], env!("CARGO_PKG_VERSION"));
    assert!(row["lastSeenAt"].is_string());
    let spent = purser.execute_sql(&format!(
        "SELECT COUNT(*) FROM join_token WHERE server_id = '{id}' AND spent_at IS NOT NULL"
    ));
    assert_eq!(spent, "1");
    let audited = purser.execute_sql(&format!(
        "SELECT COUNT(*) FROM audit_event WHERE action = 'agent.enrolled' AND server_id = '{id}'"
    ));
    assert_eq!(audited, "1");
}

#[tokio::test]
async fn a_token_works_once() {
    let purser = Purser::start().await;
    let (id, token) = create(&purser.client()).await;
    let first = Agent::start(&purser, &Testbed::get().host_a(), &token);
    first.await_online(&purser.client(), &id).await;
    refused(&purser, &token, INVALID_TOKEN).await;
    assert_eq!(status(&purser.client(), &id).await, "online", "the first agent is not disturbed");
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let purser = Purser::start().await;
    let (id, token) = create(&purser.client()).await;
    purser.execute_sql(&format!(
        "UPDATE join_token SET expires_at = '2020-01-01 00:00:00+00:00' WHERE server_id = '{id}'"
    ));
    refused(&purser, &token, INVALID_TOKEN).await;
    assert_eq!(status(&purser.client(), &id).await, "pending");
}

/// A secret of one row with the id of another: the id is in the clear, the secret belongs to its row.
#[tokio::test]
async fn a_token_enrols_for_its_own_server_only() {
    let purser = Purser::start().await;
    let client = purser.client();
    let (own, token) = create(&client).await;
    let (other, _) = create(&client).await;
    let mut spliced = JoinToken::decode(&token).unwrap();
    spliced.server_id = ServerId::from_stored(other.clone());
    let mut thief = Double::with_token(&token);
    thief.server_id = spliced.server_id.clone();
    let refusal = thief.dial(purser.address()).await.err().unwrap();
    assert_eq!(refusal.code, RefusalCode::InvalidJoinToken);
    // An id that does not exist looks the same.
    thief.server_id = ServerId::generate();
    assert_eq!(thief.dial(purser.address()).await.err().unwrap().message, refusal.message);
    assert_eq!(status(&client, &other).await, "pending");

    let honest = Agent::start(&purser, &Testbed::get().host_a(), &token);
    honest.await_online(&client, &own).await;
}

#[tokio::test]
async fn a_malformed_token_ends_the_agent_with_the_reason() {
    let purser = Purser::start().await;
    for token in ["purser_join_hunter2hunter2", "hunter2hunter2"] {
        let agent = Agent::start(&purser, &Testbed::get().host_a(), token);
        let ended = eventually(SOON, async || agent.exit_status()).await;
        assert!(!ended.success());
        assert!(agent.logs().contains("not a Purser join token"), "{}", agent.logs());
        assert!(!agent.logs().contains("hunter2"), "{}", agent.logs());
    }
    let none = Agent::builder(&purser, &Testbed::get().host_a(), None).start();
    assert!(!eventually(SOON, async || none.exit_status()).await.success());
    assert!(none.logs().contains("has not joined a server yet"), "{}", none.logs());
}

#[tokio::test]
async fn a_host_that_joins_anew_takes_the_place_of_the_old_one() {
    let purser = Purser::start().await;
    let client = purser.client();
    let (old, id) = Agent::join(&purser, &Testbed::get().host_a()).await;
    let (_, unused) = token_of(&client.mutate("server.createJoinToken", json!({"serverId": id})).await);
    let (_, token) = token_of(&client.mutate("server.createJoinToken", json!({"serverId": id})).await);
    refused(&purser, &unused, INVALID_TOKEN).await;
    assert_eq!(status(&client, &id).await, "online", "a token alone changes nothing");

    let new = Agent::start(&purser, &Testbed::get().host_b(), &token);
    old.await_log("superseded by a newer session").await;
    new.await_online(&client, &id).await;
    old.await_log("this host's key is not enrolled for the server").await;
    let thief = Double::of(&old);
    assert_eq!(thief.dial(purser.address()).await.err().unwrap().code, RefusalCode::UnknownKey);
    assert_eq!(status(&client, &id).await, "online");
}

#[tokio::test]
async fn a_removed_server_loses_its_session_and_its_key() {
    let purser = Purser::start().await;
    let client = purser.client();
    let (agent, id) = Agent::join(&purser, &Testbed::get().host_a()).await;
    let (_, token) = token_of(&client.mutate("server.createJoinToken", json!({"serverId": id})).await);
    let thief = Double::of(&agent);
    client.mutate("server.remove", json!({"serverId": id})).await;
    let removed = Duration::from_secs(10);
    eventually(removed, async || agent.logs().contains("this server was removed").then_some(())).await;
    assert_eq!(status(&client, &id).await, "revoked");
    assert_eq!(thief.dial(purser.address()).await.err().unwrap().code, RefusalCode::UnknownKey);
    let late = Double::with_token(&token);
    assert_eq!(late.dial(purser.address()).await.err().unwrap().code, RefusalCode::InvalidJoinToken);
    assert_eq!(status(&client, &id).await, "revoked");
}

#[tokio::test]
async fn an_unknown_key_is_refused_like_an_unknown_server() {
    let purser = Purser::start().await;
    let (agent, id) = Agent::join(&purser, &Testbed::get().host_a()).await;
    let mut stranger = Double::of(&agent);
    stranger.key = purser_proto_schema::agent::noise::StaticKey::generate().unwrap();
    let refusal = stranger.dial(purser.address()).await.err().unwrap();
    assert_eq!(refusal.code, RefusalCode::UnknownKey);
    assert!(refusal.retry_after_ms >= 5_000, "{refusal:?}");
    stranger.server_id = ServerId::generate();
    assert_eq!(stranger.dial(purser.address()).await.err().unwrap().message, refusal.message);
    assert_eq!(status(&purser.client(), &id).await, "online");
}

#[tokio::test]
async fn an_enrolled_agent_starts_again_without_a_token() {
    let purser = Purser::start().await;
    let client = purser.client();
    let (id, token) = create(&client).await;
    let engine = Testbed::get().host_a();
    let mut agent = Agent::start(&purser, &engine, &token);
    agent.await_online(&client, &id).await;
    agent.kill9();
    eventually(SOON, async || (status(&client, &id).await == "offline").then_some(())).await;
    agent.restart();
    agent.await_online(&client, &id).await;
    // A unit file that still names the spent token does no harm either.
    let again = Agent::builder(&purser, &engine, Some(&token)).start_as_clone_of(&agent);
    agent.kill9();
    again.await_log("connected").await;
    assert!(!again.logs().contains("invalidJoinToken"), "{}", again.logs());
}

/// A host that shows a new token under its old key: the token is spent all the same.
#[tokio::test]
async fn a_token_shown_under_a_known_key_is_spent() {
    let purser = Purser::start().await;
    let client = purser.client();
    let (agent, id) = Agent::join(&purser, &Testbed::get().host_a()).await;
    let (_, token) = token_of(&client.mutate("server.createJoinToken", json!({"serverId": id})).await);
    let mut same = Double::of(&agent);
    same.join_secret = Double::with_token(&token).join_secret;
    assert!(same.dial(purser.address()).await.is_ok());
    let thief = Double::with_token(&token);
    assert_eq!(thief.dial(purser.address()).await.err().unwrap().code, RefusalCode::InvalidJoinToken);
    assert!(same.dial(purser.address()).await.is_ok(), "a crash after the token was spent shuts nobody out");
}

#[tokio::test]
async fn the_state_folder_is_private() {
    let purser = Purser::start().await;
    let (agent, _) = Agent::join(&purser, &Testbed::get().host_a()).await;
    eventually(SOON, async || agent.state_dir().join("server.json").exists().then_some(())).await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&agent.state_dir()), 0o700);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(agent.state_dir()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.push(path.file_name().unwrap().to_owned());
    }
    assert!(names.iter().any(|name| name == "identity.key"), "{names:?}");
}

#[tokio::test]
async fn two_agents_do_not_share_a_state_folder() {
    let purser = Purser::start().await;
    let engine = Testbed::get().host_a();
    let (first, id) = Agent::join(&purser, &engine).await;
    let second = Agent::builder(&purser, &engine, None).start_beside(&first);
    assert!(!eventually(SOON, async || second.exit_status()).await.success());
    assert!(second.logs().contains("another agent uses the state folder"), "{}", second.logs());
    assert_eq!(status(&purser.client(), &id).await, "online");
}
