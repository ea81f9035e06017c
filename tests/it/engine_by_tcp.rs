//! Engines that are not on the agent's own socket: `DOCKER_HOST=tcp://…`, with TLS and without.

use std::{fs, path::Path, time::Duration};

use purser_tests::{
    Agent, Authority, Purser, Road, Testbed, agent,
    certificate::Validity,
    eventually,
    image::{self, Local},
    road::{given_up, succeeded},
    unique,
    user::Kind,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const EXPOSED: &str = "pass the network in clear";

/// An agent for the engine that the testbed offers by TLS, with certificates from a folder.
fn by_tls(purser: &Purser, certificates: &Path) -> agent::Builder {
    let bed = Testbed::get();
    Agent::builder(purser, &bed.host_b(), None)
        .docker_host(&format!("tcp://{}", bed.docker_by_tls))
        .env("DOCKER_TLS_VERIFY", "1")
        .env("DOCKER_CERT_PATH", certificates.to_str().unwrap())
}

/// Every command, also the login that the agent asks for by itself.
#[tokio::test]
async fn with_a_client_certificate_an_engine_is_driven_by_tls() {
    let bed = Testbed::get();
    let purser = Purser::start().await;
    let (agent, id) = Agent::join_by(&purser, by_tls(&purser, &bed.docker_certificates)).await;
    let road = Road { client: purser.client(), agents: vec![agent], servers: vec![id.clone()], purser };
    let row = road.client.query("server.one", json!({"serverId": id})).await;
    assert_eq!(row["engine"]["name"], "Docker", "{row:#}");

    let (engine, user) = (bed.host_b(), bed.user(Kind::Symbols));
    let entry = road.entry(&bed.registries.token, user).await;
    assert_eq!(road.test(&entry, Some(&id)).await.data()["credentials"], "verified");
    let wrong = road.entry_with(&bed.registries.token, &user.username, "not the password").await;
    assert_eq!(road.test(&wrong, Some(&id)).await.diagnosis(), "unauthorized");
    let local = Local::make(&engine, "tls", 1000).await;
    let job = road.push(&local.repository, &entry, json!({"repository": unique("tls")})).await;
    let pushed = succeeded(&job)["image"].as_str().unwrap().to_owned();
    assert!(engine.remove(&pushed).await, "the name is kept after a push");
    let job = road.pull(&pushed, json!({"registryId": entry})).await;
    assert_eq!(succeeded(&job)["credentials"], "entry");
    assert!(engine.remove(&pushed).await, "and there after a pull");
    assert!(!road.agents[0].logs().contains(EXPOSED), "{}", road.agents[0].logs());
}

#[tokio::test]
async fn a_pull_by_tls_that_is_cancelled_is_aborted_in_the_engine() {
    const SIZE: usize = 4_000_000;
    let bed = Testbed::get();
    let purser = Purser::start().await;
    let (agent, id) = Agent::join_by(&purser, by_tls(&purser, &bed.docker_certificates)).await;
    let road = Road { client: purser.client(), agents: vec![agent], servers: vec![id.clone()], purser };
    let image = image::in_registry(&bed.host_a(), &bed.registries.open, "slow", SIZE, None).await;
    let proxy = purser_tests::BreakableProxy::start(&bed.registries.open).await;
    let reference = format!("{}/{}:v1", proxy.address(), image.name);
    proxy.allow(SIZE / 3);
    let job = road.client.mutate("image.pull", json!({"image": reference, "serverId": id})).await;
    let moved = |job: &Value| job["targets"][0]["progress"]["downloadedBytes"].as_u64() > Some(0);
    road.job_when(&job, moved).await;
    road.client.mutate("job.cancel", json!({"jobId": job["jobId"]})).await;
    assert_eq!(road.ended(&job).await["status"], "cancelled");
    given_up(&proxy).await;
    proxy.allow(usize::MAX);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(bed.host_b().inspect(&reference).await.is_none(), "the download went on");
}

#[tokio::test]
async fn an_engine_of_another_authority_is_not_spoken_to() {
    let purser = Purser::start().await;
    let folder = Testbed::get().scratch("strange");
    let stranger = Authority::new("stranger");
    let issued = stranger.issue(&["127.0.0.1"], Validity::Current);
    fs::write(folder.path().join("ca.pem"), stranger.pem()).unwrap();
    fs::write(folder.path().join("cert.pem"), &issued.certificate).unwrap();
    fs::write(folder.path().join("key.pem"), &issued.key).unwrap();
    let (_agent, id) = Agent::join_by(&purser, by_tls(&purser, folder.path())).await;
    let answer = purser.client().trpc_query("image.all", &json!({"serverId": id})).await;
    assert!(!answer.status.is_success(), "{answer:?}");
    assert!(answer.text().contains("engine"), "{answer:?}");
    assert_eq!(purser.client().query("server.one", json!({"serverId": id})).await["engine"], Value::Null);

    // And one that we trust does not speak to whom it does not know.
    fs::write(folder.path().join("ca.pem"), &Testbed::get().ca_certificate).unwrap();
    let answer = purser.client().trpc_query("image.all", &json!({"serverId": id})).await;
    assert!(!answer.status.is_success(), "{answer:?}");
    // The files are read for each call, so renewed ones need no restart.
    for name in ["cert.pem", "key.pem"] {
        fs::copy(Testbed::get().docker_certificates.join(name), folder.path().join(name)).unwrap();
    }
    assert!(purser.client().query("image.all", json!({"serverId": id})).await.is_array());
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_refused_at_the_start() {
    let purser = Purser::start().await;
    let folder = Testbed::get().scratch("broken");
    for (name, content) in [("ca.pem", None), ("ca.pem", Some("nonsense")), ("key.pem", Some(""))] {
        for good in ["ca.pem", "cert.pem", "key.pem"] {
            fs::copy(Testbed::get().docker_certificates.join(good), folder.path().join(good)).unwrap();
        }
        match content {
            Some(content) => fs::write(folder.path().join(name), content).unwrap(),
            None => fs::remove_file(folder.path().join(name)).unwrap(),
        }
        let row = purser.client().mutate("server.create", json!({"name": unique("host")})).await;
        let token = row["joinToken"].as_str().unwrap();
        let agent = by_tls(&purser, folder.path()).env("PURSER_JOIN_TOKEN", token).start();
        let status = eventually(SOON, async || agent.exit_status()).await;
        let said = agent.logs();
        let lines: Vec<_> = said.lines().filter(|line| line.starts_with("purser-agent: ")).collect();
        assert!(!status.success() && lines.len() == 1, "{said}");
        assert!(lines[0].contains("DOCKER_CERT_PATH") && lines[0].contains(name), "{said}");
    }
}

/// 0.0.0.0 is this machine to a socket, and no loopback address to Purser: nothing leaves it.
#[tokio::test]
async fn credentials_in_clear_on_a_network_are_warned_of_once() {
    let purser = Purser::start().await;
    for (host, times) in [("tcp://0.0.0.0:1", 1), ("tcp://127.0.0.1:1", 0)] {
        let builder = Agent::builder(&purser, &Testbed::get().host_b(), None).docker_host(host);
        let (agent, _id) = Agent::join_by(&purser, builder).await;
        assert_eq!(agent.logs().matches(EXPOSED).count(), times, "{host}: {}", agent.logs());
    }
}
