//! Where Purser may dial, by every procedure that takes an address, and from both ends.

use purser_tests::{
    Agent, Client, Hostile, Purser, Road, Testbed,
    hostile::{Front, answer},
    unique,
};
use serde_json::{Value, json};
use std::{net::IpAddr, sync::Arc};

/// An address that the operator denies in these tests.
const DENIED: &str = "127.0.0.8";

/// What `testRegistry` says of an address, from either end.
async fn verdict(client: &Client, registry: &str, server: Option<&str>) -> String {
    let input = json!({"registryUrl": registry, "serverId": server});
    let answer = client.trpc_mutation("registry.testRegistry", &input).await;
    if answer.status.is_success() {
        return answer.data()["credentials"].as_str().unwrap().to_owned();
    }
    match answer.diagnosis() {
        none if none.is_empty() => answer.code(),
        code => code,
    }
}

async fn open_registry(ip: &str) -> Hostile {
    let ip: IpAddr = ip.parse().unwrap();
    Hostile::at(ip, Front::Plain, Arc::new(|_| answer("200 OK", "", "{}").into())).await
}

#[tokio::test]
async fn what_is_no_address_is_refused_by_every_procedure_that_takes_one() {
    let purser = Purser::start().await;
    let client = purser.client();
    let entry = json!({"registryName": unique("entry"), "registryUrl": "registry.example.com"});
    let entry = client.mutate("registry.create", entry).await["registryId"].clone();
    for url in [
        "2130706433",
        "http://2130706433:80",
        "0x7f.1",
        "0x7f000001",
        "127.1",
        "0177.0.0.1",
        "127.0.0.1.",
        "127.0.0.256",
        "http://[::1",
        "[::ffff:127.0.0.1%lo]",
        "http://user@127.0.0.1",
        "https://user:password@registry.example.com",
        "https://registry.example.com@169.254.169.254",
        "registry.example.com\\@169.254.169.254",
        "http://registry.example.com:0",
        "http://registry.example.com:99999",
        "ftp://registry.example.com",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_X",
        "https://registry.example.com/?a=b",
        "https://registry.example.com/#a",
        "registry.example.com/../x",
        "registry example.com",
        "registry.example.com\r\nX: y",
        "registry.example.com\0",
        // A Cyrillic letter among Latin ones.
        "r\u{435}gistry.example.com",
        "\u{ff11}27.0.0.1",
        "",
        "http://",
        "hub.docker.com",
    ] {
        let create = json!({"registryName": unique("entry"), "registryUrl": url});
        let update = json!({"registryId": entry, "registryUrl": url});
        for (procedure, input) in [
            ("registry.testRegistry", json!({"registryUrl": url})),
            ("registry.create", create),
            ("registry.update", update),
        ] {
            let answer = client.trpc_mutation(procedure, &input).await;
            assert_eq!(answer.code(), "BAD_REQUEST", "{procedure} {url:?}: {answer:?}");
            let errors = answer.error()["data"]["zodError"]["fieldErrors"]["registryUrl"].clone();
            assert!(errors.is_array(), "{procedure} {url:?}: {answer:?}");
            // People paste passwords into the wrong field.
            assert!(!answer.text().contains("user:password"), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn addresses_where_no_registry_is_are_not_dialled_from_either_end() {
    let road = Road::start().await;
    for url in [
        "169.254.169.254",
        "http://169.254.169.254",
        "http://169.254.170.2",
        "http://100.100.100.200",
        "http://168.63.129.16",
        "http://192.0.0.192",
        "http://[::ffff:169.254.169.254]",
        "http://[::ffff:a9fe:a9fe]",
        "http://[64:ff9b::a9fe:a9fe]",
        "http://[2002:a9fe:a9fe::]",
        "http://[fd00:ec2::254]",
        "http://169.254.1.1",
        "http://[fe80::1]",
        "http://0.0.0.0",
        "http://0.0.0.0:3000",
        "http://[::]",
        "http://[::ffff:0.0.0.0]",
        "http://255.255.255.255",
        "http://224.0.0.1",
        "http://[ff02::1]",
    ] {
        for server in [None, Some(road.host())] {
            assert_eq!(verdict(&road.client, url, server).await, "egress_denied", "{url} from {server:?}");
        }
        // As an entry it can be stored, and is judged when it is dialled; not even `create` dials it.
        let create = json!({"registryName": unique("entry"), "registryUrl": url, "test": true});
        let refused = road.client.trpc_mutation("registry.create", &create).await;
        assert_eq!(refused.diagnosis(), "egress_denied", "{url}: {refused:?}");
    }
}

#[tokio::test]
async fn denials_and_permissions_of_the_operator_hold_at_both_ends() {
    let here = open_registry(DENIED).await;
    let (allowed, denied) = (open_registry("127.0.0.1").await, open_registry("127.0.0.9").await);
    let flags =
        ["--egress-allow", "127.0.0.0/8,169.254.1.0/24", "--egress-deny", "127.0.0.9/32,127.0.0.8/32"];
    let mut server = Purser::builder();
    for flag in flags {
        server = server.arg(flag);
    }
    let purser = server.start().await;
    let mut agent = Agent::builder(&purser, &Testbed::get().host_a(), None);
    for flag in flags {
        agent = agent.arg(flag);
    }
    let (agent, host) = Agent::join_by(&purser, agent).await;
    let client = purser.client();
    for (registry, code) in [
        (allowed.address().to_string(), "notRequired"),
        (denied.address().to_string(), "egress_denied"),
        (format!("http://[::ffff:127.0.0.9]:{}", denied.address().port()), "egress_denied"),
        (format!("http://{}", here.address()), "egress_denied"),
        ("http://169.254.169.254".to_owned(), "egress_denied"),
    ] {
        for server in [None, Some(host.as_str())] {
            assert_eq!(verdict(&client, &registry, server).await, code, "{registry} from {server:?}");
        }
    }
    assert_eq!((denied.connections(), here.connections()), (0, 0), "something was dialled");
    drop(agent);
}

/// The agent inside the control plane is held to the same flags.
#[tokio::test]
async fn denials_hold_for_the_local_agent() {
    let here = open_registry(DENIED).await;
    let server = Purser::builder().arg("--egress-deny").arg("127.0.0.8/32").local_agent("on");
    let purser = server.env("DOCKER_HOST", &Testbed::get().host_a().docker_host()).start().await;
    let client = purser.client();
    let host = purser_tests::eventually(std::time::Duration::from_secs(30), async || {
        let all = client.query("server.all", Value::Null).await;
        let rows = all.as_array().unwrap().clone();
        let online = rows.into_iter().find(|row| row["status"] == "online");
        online.map(|row| row["serverId"].as_str().unwrap().to_owned())
    })
    .await;
    let registry = format!("http://{}", here.address());
    for server in [None, Some(host.as_str())] {
        assert_eq!(verdict(&client, &registry, server).await, "egress_denied", "from {server:?}");
    }
    assert_eq!(here.connections(), 0);
}

/// A control plane that others can reach does not let them reach its own machine.
#[tokio::test]
async fn a_control_plane_for_others_refuses_its_own_loopback() {
    let registry = open_registry("127.0.0.1").await;
    let purser = Purser::builder().listen("0.0.0.0:0").arg("--behind-tls-proxy").start().await;
    let client = purser.client();
    let port = registry.address().port();
    for address in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]", "127.8.8.8"] {
        let code = verdict(&client, &format!("http://{address}:{port}"), None).await;
        assert_eq!(code, "egress_denied", "{address}");
    }
    assert_eq!(registry.connections(), 0);
    let permitted = Purser::builder().listen("0.0.0.0:0").arg("--behind-tls-proxy");
    let permitted = permitted.arg("--egress-allow").arg("127.0.0.0/8").start().await;
    let code = verdict(&permitted.client(), &registry.address().to_string(), None).await;
    assert_eq!(code, "notRequired");
}
