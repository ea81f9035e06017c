//! TLS for all doors: the server's own certificate, a given one, a new one, and what agents make of it.
//!
//! What counts as loopback is the address that is listened on; all that is dialled here is 127.0.0.1.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use nix::sys::signal::Signal;
use purser_tests::{
    Agent, Client, Purser, Road, Testbed,
    certificate::{Authority, Issued, Validity},
    eventually, image, purser,
    road::succeeded,
    scan_for_secret, unique,
};
use ring::digest;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::config::refusal;

/// Not loopback, so TLS is served.
const EVERYWHERE: &str = "0.0.0.0:0";
const SOON: Duration = Duration::from_secs(30);
const FAILED: &str = "the TLS certificate was not replaced";
const CONNECTED: &str = " connected server=";
const TOLERATED: &str = "the server's certificate cannot be verified";

/// An authority, and files of a certificate that it issued.
struct Given {
    authority: Authority,
    folder: TempDir,
}

impl Given {
    fn new() -> Self {
        let given =
            Self { authority: Authority::new(&unique("authority")), folder: Testbed::get().scratch("tls") };
        given.replace(&given.authority.issue(&["127.0.0.1"], Validity::Current));
        given
    }

    fn replace(&self, issued: &Issued) {
        issued.write(self.folder.path(), "server").unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn purser(&self) -> purser::Builder {
        Purser::builder().certificate(self.folder.path(), "server", &self.authority.pem())
    }
}

async fn answers(client: &Client) -> Result<u16, String> {
    client.send(http::Method::GET, "/healthz", &[], "").await.map(|answer| answer.status.as_u16())
}

#[tokio::test]
async fn without_a_certificate_it_makes_its_own_and_serves_every_door_with_it() {
    let mut purser = Purser::builder().listen(EVERYWHERE).rust_log("trace").start().await;
    assert!(purser.url().starts_with("https://"), "{}", purser.url());
    let client = purser.client();
    assert_eq!(client.query("registry.all", Value::Null).await, json!([]));
    let mut socket = client.websocket().await.unwrap();
    assert_eq!(socket.call("registry.all", json!({})).await.unwrap()["result"], json!([]));
    assert!(answers(&Client::new(&format!("http://{}", purser.address()))).await.is_err(), "in clear");
    let stranger = Authority::new("stranger").pem();
    assert!(answers(&Client::tls(purser.url(), &stranger)).await.is_err(), "whoever wants another");

    let (certificate, key) = (purser.data_dir().join("tls-cert.pem"), purser.data_dir().join("tls-key.pem"));
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let made = (fs::read_to_string(&certificate).unwrap(), fs::read_to_string(&key).unwrap());
    purser.restart().await;
    assert_eq!((fs::read_to_string(&certificate).unwrap(), fs::read_to_string(&key).unwrap()), made, "kept");
    assert_eq!(answers(&Client::tls(purser.url(), &made.0)).await, Ok(200), "and served");

    let logs = purser.logs();
    let leaf = CertificateDer::from_pem_slice(made.0.as_bytes()).unwrap();
    let fingerprint: Vec<_> =
        digest::digest(&digest::SHA256, &leaf).as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    assert!(logs.contains(&fingerprint.join(":")), "the fingerprint is said");
    assert!(logs.contains(certificate.to_str().unwrap()), "and where it is");
    let secret = PrivateKeyDer::from_pem_slice(made.1.as_bytes()).unwrap();
    let lines: Vec<_> = made.1.lines().filter(|line| !line.starts_with("-----")).collect();
    assert!(secret.secret_der().len() > 60 && lines[0].len() > 40, "there is something to look for");
    for line in lines {
        assert!(scan_for_secret(&logs, line).is_empty(), "the private key was logged");
    }
}

#[tokio::test]
async fn a_given_certificate_is_served_wherever_it_listens() {
    let given = Given::new();
    for listen in ["127.0.0.1:0", EVERYWHERE] {
        let purser = given.purser().listen(listen).start().await;
        assert!(purser.url().starts_with("https://"), "{listen}");
        assert_eq!(purser.client().query("registry.all", Value::Null).await, json!([]), "{listen}");
        assert!(!purser.data_dir().join("tls-cert.pem").exists(), "none of its own");
        let row = purser.client().mutate("server.create", json!({"name": "host"})).await;
        let command = row["joinCommand"].as_str().unwrap();
        assert!(command.contains(" --server https://"), "{command}");
    }
}

#[tokio::test]
async fn behind_a_proxy_that_does_it_none_is_served() {
    let purser = Purser::builder().listen(EVERYWHERE).arg("--behind-tls-proxy").start().await;
    assert!(purser.url().starts_with("http://"));
    assert_eq!(purser.client().query("registry.all", Value::Null).await, json!([]));
    purser.signal(Signal::SIGHUP);
    purser.await_log("there is no certificate to read again").await;
    assert_eq!(purser.client().query("registry.all", Value::Null).await, json!([]));
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_refused_in_one_line() {
    let given = Given::new();
    let other = Given::new();
    let file = |given: &Given, name: &str| given.file(name).to_str().unwrap().to_owned();
    let (certificate, key) = (file(&given, "server.pem"), file(&given, "server.key"));
    fs::write(given.file("empty"), "").unwrap();
    fs::write(given.file("torn"), "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
    let (empty, torn) = (file(&given, "empty"), file(&given, "torn"));
    let (missing, strange) = (file(&given, "missing"), file(&other, "server.key"));
    let secret = fs::read_to_string(&key).unwrap();
    for (certificate, key, says) in [
        (&certificate, &strange, "is not the key of"),
        (&missing, &key, "missing: No such file"),
        (&certificate, &missing, "missing: No such file"),
        (&empty, &key, "holds no certificate"),
        (&certificate, &empty, "holds no private key"),
        (&key, &key, "holds no certificate"),
        (&torn, &key, "torn"),
    ] {
        let said = refusal(&["--listen", "127.0.0.1:0", "--tls-cert", certificate, "--tls-key", key], &[]);
        assert!(said.contains(says), "{says}: {said}");
        let lines = secret.lines().filter(|line| !line.starts_with("-----"));
        lines.for_each(|line| assert!(!said.contains(line), "{said}"));
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    for lonely in [["--tls-cert", &certificate], ["--tls-key", &key]] {
        assert!(refusal(&lonely, &[]).contains("belong together"));
    }
    assert!(refusal(&[], &[("PURSER_TLS_CERT", &certificate)]).contains("belong together"));
}

#[tokio::test]
async fn sighup_takes_the_new_certificate_and_keeps_the_sessions() {
    let given = Given::new();
    let purser = given.purser().start().await;
    let (agent, id) = Agent::join(&purser, &Testbed::get().host_a()).await;
    let (client, epoch) = (purser.client(), "SELECT session_epoch FROM server");
    let mut socket = client.websocket().await.unwrap();
    // Its connection is kept for the calls at the end.
    client.query("registry.all", Value::Null).await;
    let before = purser.execute_sql(epoch);

    let next = Authority::new("next");
    given.replace(&next.issue(&["127.0.0.1"], Validity::Current));
    purser.signal(Signal::SIGHUP);
    purser.await_log("the TLS certificate was read again").await;
    let renewed = || Client::tls(purser.url(), &next.pem());
    assert_eq!(answers(&renewed()).await, Ok(200), "who comes now sees the new one");
    assert!(answers(&Client::tls(purser.url(), &given.authority.pem())).await.is_err(), "and not the old");

    // Whole or not at all: a certificate with the key of another would shut every door.
    for broken in [next.issue(&["127.0.0.1"], Validity::Current).key.as_str(), "", "nonsense"] {
        let failures = purser.logs().matches(FAILED).count();
        fs::write(given.file("server.key"), broken).unwrap();
        purser.signal(Signal::SIGHUP);
        eventually(SOON, async || (purser.logs().matches(FAILED).count() > failures).then_some(())).await;
        assert_eq!(answers(&renewed()).await, Ok(200), "a broken file changes nothing");
    }
    assert!(purser.logs().contains("is not the key of"), "and why is said: {}", purser.logs());

    // What stood before stands.
    assert_eq!(socket.call("registry.all", json!({})).await.unwrap()["result"], json!([]));
    assert_eq!(client.query("server.one", json!({"serverId": id})).await["status"], "online");
    assert!(client.query("image.all", json!({"serverId": id})).await.is_array(), "the agent answers");
    assert_eq!(purser.execute_sql(epoch), before, "in the same session");
    assert_eq!(agent.logs().matches(CONNECTED).count(), 1, "{}", agent.logs());
}

#[tokio::test]
async fn a_host_joins_and_pulls_over_tls_with_nothing_but_url_and_token() {
    let bed = Testbed::get();
    let purser = Purser::builder().listen(EVERYWHERE).start().await;
    let mut road = Road::over(purser, &[bed.host_a()]).await;
    let made = image::in_registry(&bed.host_a(), &bed.registries.open, "tls", 1000, None).await;
    succeeded(&road.pull(&made.reference(), json!({})).await);
    assert!(bed.host_a().remove(&made.reference()).await, "the image was there");
    // It comes again by the same road, and has said its piece.
    road.purser.restart().await;
    let agent = &road.agents[0];
    eventually(SOON, async || (agent.logs().matches(CONNECTED).count() > 1).then_some(())).await;
    agent.await_online(&road.purser.client(), road.host()).await;
    assert_eq!(agent.logs().matches(TOLERATED).count(), 1, "said once: {}", agent.logs());
}

#[tokio::test]
async fn with_authorities_of_its_own_an_agent_takes_no_other_certificate() {
    let purser = Purser::builder().listen(EVERYWHERE).start().await;
    let row = purser.client().mutate("server.create", json!({"name": "host"})).await;
    let token = row["joinToken"].as_str();
    let folder = Testbed::get().scratch("ca");
    let with = |pem: &str| {
        let file = folder.path().join(unique("ca"));
        fs::write(&file, pem).unwrap();
        let builder = Agent::builder(&purser, &Testbed::get().host_a(), token);
        builder.arg("--ca-file").arg(file.to_str().unwrap())
    };
    let stranger = with(&Authority::new("stranger").pem()).start();
    stranger.await_log("invalid peer certificate").await;
    let status = async || purser.client().query("server.all", Value::Null).await[0]["status"].clone();
    assert_eq!(status().await, "pending", "it did not join");
    assert!(!stranger.logs().contains(TOLERATED), "{}", stranger.logs());
    drop(stranger);

    // The server's own certificate is its own authority.
    let agent = with(&purser.trusted()).start();
    agent.await_online(&purser.client(), row["serverId"].as_str().unwrap()).await;
    assert!(!agent.logs().contains(TOLERATED), "{}", agent.logs());
}

#[tokio::test]
async fn authorities_without_tls_or_without_a_certificate_are_refused() {
    let purser = Purser::start().await;
    let folder = Testbed::get().scratch("ca");
    let refused = async |server: &str, pem: &str, says: &str| {
        let file = folder.path().join("ca.pem");
        fs::write(&file, pem).unwrap();
        let builder = Agent::builder(&purser, &Testbed::get().host_a(), None).server(server);
        let token = purser.client().mutate("server.create", json!({"name": unique("host")})).await;
        let token = token["joinToken"].as_str().unwrap();
        let agent =
            builder.env("PURSER_JOIN_TOKEN", token).arg("--ca-file").arg(file.to_str().unwrap()).start();
        let status = eventually(SOON, async || agent.exit_status()).await;
        assert!(!status.success() && agent.logs().contains(says), "{}", agent.logs());
    };
    refused(purser.url(), &Authority::new("ca").pem(), "does not begin with https://").await;
    refused("https://127.0.0.1:1", "", "holds no PEM block").await;
}

/// The machine's own agent dials whatever its control plane serves.
#[tokio::test]
async fn the_local_agent_joins_over_tls_without_a_word() {
    let engine = Testbed::get().host_a();
    let purser =
        Purser::builder().listen(EVERYWHERE).local_agent("on").env("DOCKER_HOST", &engine.docker_host());
    let purser = purser.start().await;
    let client = purser.client();
    eventually(SOON, async || {
        (client.query("server.all", Value::Null).await[0]["status"] == "online").then_some(())
    })
    .await;
    assert!(!purser.logs().contains(TOLERATED), "{}", purser.logs());
}

#[tokio::test]
async fn who_stalls_the_handshake_holds_up_nobody_and_is_cut() {
    let given = Given::new();
    let purser = given.purser().start().await;
    let mut stalled = Vec::new();
    for _ in 0..50 {
        stalled.push(TcpStream::connect(purser.address()).await.unwrap());
        let mut torn = TcpStream::connect(purser.address()).await.unwrap();
        // The head of a record that holds a hello of 512 bytes, and a few of them.
        torn.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await.unwrap();
        stalled.push(torn);
    }
    assert_eq!(purser.client().query("registry.all", Value::Null).await, json!([]));
    for mut socket in stalled {
        let end = timeout(SOON, socket.read(&mut [0; 64])).await;
        assert!(matches!(end, Ok(Ok(_) | Err(_))), "not cut");
    }
}

/// A stop does not wait for callers who have said nothing yet.
#[tokio::test]
async fn a_stalled_handshake_does_not_hold_up_a_stop() {
    let given = Given::new();
    let purser = given.purser().start().await;
    let mut stalled = std::net::TcpStream::connect(purser.address()).unwrap();
    stalled.write_all(&[22, 3, 1]).unwrap();
    assert!(purser.stop().await.success());
    assert!(!purser.logs().contains("some calls were still under way"), "{}", purser.logs());
}
