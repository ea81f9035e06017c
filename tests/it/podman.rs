//! What only a Podman does, and what nobody is believed without being one.

use std::fs;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::Method;
use purser_tests::{
    Agent, BreakableProxy, Engine, Hostile, Purser, Road, Testbed,
    hostile::{Asked, Reply, answer},
    image::{self, Local},
    road::{failed, succeeded},
    unique,
    user::Kind,
};
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

const IMAGE: &str = "20affae3e7cfefe72148afcee4d2347f19bc427c07a3c0e91c67594fb9251bfe";
const DIGEST: &str = "sha256:584111bfbc6d2b2b5790de2aba9b679a0a79f9324bf776bf5c7557da046aa350";

/// Something that ends each pull as Podman does, and has the image `id` under every name.
async fn engine(is_podman: bool, id: &'static str, name: &str) -> Hostile {
    let digest = format!("{name}@{DIGEST}");
    Hostile::start(move |asked: &Asked| -> Reply {
        let body = match asked.path() {
            "/images/create" => format!(r#"{{"status":"Download complete","id":"{}"}}"#, &IMAGE[..12]),
            "/version" => json!({"Version": "4.3.1", "ApiVersion": "1.41"}).to_string(),
            "/_ping" => "OK".to_owned(),
            push if push.ends_with("/push") => {
                json!({"status": format!("latest: digest: {DIGEST} size: 337")}).to_string()
            }
            _ => json!({"Id": format!("sha256:{id}"), "RepoDigests": [digest]}).to_string(),
        };
        let podman = if is_podman { "Libpod-Api-Version: 4.3.1\r\n" } else { "" };
        answer("200 OK", &format!("Content-Type: application/json\r\n{podman}"), &body).into()
    })
    .await
}

/// A host with such an engine.
async fn host(engine: &Hostile) -> Road {
    let purser = Purser::start().await;
    let builder = Agent::builder(&purser, &Testbed::get().host_a(), None);
    let builder = builder.docker_host(&format!("tcp://{}", engine.address()));
    let (agent, server) = Agent::join_by(&purser, builder).await;
    Road { client: purser.client(), agents: vec![agent], servers: vec![server], purser }
}

/// A pull on such an engine.
async fn pull(is_podman: bool, id: &'static str) -> serde_json::Value {
    let name = format!("{}/app", Testbed::get().registries.open);
    let engine = engine(is_podman, id, &name).await;
    host(&engine).await.pull(&format!("{name}:v1"), json!({})).await
}

#[tokio::test]
async fn a_pull_that_ends_without_digest_is_believed_of_a_podman_that_has_the_image() {
    assert_eq!(succeeded(&pull(true, IMAGE).await)["result"]["digest"], DIGEST);
}

#[tokio::test]
async fn a_pull_that_ends_without_digest_is_not_believed_of_a_docker() {
    let job = pull(false, IMAGE).await;
    assert_eq!(failed(&job)["error"]["code"], "engine_error", "{job:#}");
}

#[tokio::test]
async fn a_podman_that_has_another_image_under_the_name_did_not_pull_it() {
    let another = "defebae5054cbf8e209508f3ecd62474478cf70394e4745c9fa11bcf3132c486";
    let job = pull(true, another).await;
    assert_eq!(failed(&job)["error"]["code"], "engine_error", "{job:#}");
}

#[tokio::test]
async fn a_push_that_the_registry_knows_nothing_of_did_not_succeed() {
    let bed = Testbed::get();
    let engine = engine(true, IMAGE, "docker.io/library/other").await;
    let road = host(&engine).await;
    let entry = road.entry(&bed.registries.open, bed.user(Kind::Plain)).await;
    let job = road.push("app", &entry, json!({"repository": unique("never")})).await;
    assert_eq!(failed(&job)["error"]["code"], "not_found", "{job:#}");
}

/// The registry of the testbed at another loopback address, of which no `registries.conf` says anything.
async fn elsewhere(registry: &str) -> String {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let registry = registry.to_owned();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let registry = registry.clone();
            tokio::spawn(async move {
                let mut upstream = TcpStream::connect(registry).await?;
                copy_bidirectional(&mut client, &mut upstream).await
            });
        }
    });
    address
}

/// What a job calls anonymous is, whoever has logged in on the host by hand.
#[tokio::test]
async fn an_anonymous_pull_does_not_use_the_hosts_own_login() {
    let (bed, podman) = (Testbed::get(), Testbed::get().podman());
    let user = bed.user(Kind::Plain);
    let made = image::in_registry(&bed.host_b(), &bed.registries.basic, "by-hand", 100, Some(user)).await;
    // At an address that only this test knows, and so does the login.
    let registry = BreakableProxy::start(&bed.registries.basic).await;
    let auth = BASE64_STANDARD.encode(format!("{}:{}", user.username, user.password));
    let login = json!({"auths": {registry.address().to_string(): {"auth": auth}}});
    let home = podman.socket().parent().unwrap().join("home/containers");
    fs::create_dir_all(&home).unwrap();
    // Whole or not at all: others use this host, too.
    fs::write(home.join("auth.new"), login.to_string()).unwrap();
    fs::rename(home.join("auth.new"), home.join("auth.json")).unwrap();
    let image = format!("{}/{}", registry.address(), made.name);
    let by_hand = format!("/images/create?fromImage={image}&tag={}", made.tag);
    let by_hand = podman.request(Method::POST, &by_hand, &[], "").await;
    assert!(by_hand.text().contains("Download complete"), "the host is logged in: {by_hand:?}");
    let image = format!("{image}:{}", made.tag);
    podman.remove(&image).await;
    let road = Road::on(&podman).await;
    let job = road.pull(&image, json!({})).await;
    assert_eq!(failed(&job)["error"]["code"], "unauthorized", "{job:#}");
    assert_eq!(failed(&job)["credentials"], "anonymous");
    // With a credential of Purser's own it is pulled.
    road.entry(&registry.address().to_string(), user).await;
    succeeded(&road.pull(&image, json!({})).await);
    podman.remove(&image).await;
    fs::remove_file(home.join("auth.json")).unwrap();
}

/// Where it would not pull, a test by the agent in its place would be a lie.
#[tokio::test]
async fn a_podman_that_insists_on_tls_fails_the_test_as_it_would_the_pull() {
    let bed = Testbed::get();
    let engine: Engine = bed.podman();
    let road = Road::on(&engine).await;
    let registry = elsewhere(&bed.registries.basic).await;
    let entry = road.entry(&registry, bed.user(Kind::Plain)).await;
    assert_eq!(road.test(&entry, None).await.data()["credentials"], "verified", "the control plane may");
    let tested = road.test(&entry, Some(road.host())).await;
    assert_eq!(tested.diagnosis(), "http_on_https", "{tested:?}");
    let local = Local::make(&engine, "strict", 100).await;
    let job = road.push(&local.repository, &entry, json!({})).await;
    assert_eq!(failed(&job)["error"]["code"], "http_on_https", "{job:#}");
}

/// The step says who logged in.
#[tokio::test]
async fn where_the_agent_logs_in_for_a_podman_the_test_says_so() {
    let bed = Testbed::get();
    let road = Road::on(&bed.podman()).await;
    let entry = road.entry(&bed.registries.basic, bed.user(Kind::Plain)).await;
    let tested = road.test(&entry, Some(road.host())).await.data();
    let steps = tested["steps"].as_array().unwrap();
    let login = steps.iter().find(|step| step["step"] == "engineLogin").expect("a login");
    assert!(login["detail"].as_str().unwrap().contains("the agent logged in"), "{tested:#}");
}
