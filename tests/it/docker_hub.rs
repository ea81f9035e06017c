//! What is special about Docker Hub, with a fake one under its real names ([`Hub`]): a website that is searched, limits
//! that can be read, and mirrors.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use purser_tests::{
    Agent, BreakableProxy, Hub, Purser, Road, Testbed,
    daemon::OwnEngine,
    image,
    road::{failed, succeeded},
    scan_for_secret,
    user::{Kind, User},
    wait::random_hex,
};
use serde_json::{Value, json};

fn bob() -> (User, String) {
    let password = random_hex(24);
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("bob:{password}")));
    (User { username: "bob".into(), password, kind: Kind::Plain }, basic)
}

#[tokio::test]
async fn docker_hub_is_searched_and_its_limit_read_through_every_room() {
    let (bob, basic) = bob();
    let hub = Hub::start(&basic).await;
    let road = Road::over(Purser::builder().with_hub(&hub).start().await, &[]).await;
    let entry = road.entry("docker.io", &bob).await;

    let found = road.client.query("registry.search", json!({"query": "nginx", "registryId": entry})).await;
    let hits = found["items"].as_array().unwrap();
    assert_eq!(hits.len(), 2, "{found:#}");
    assert_eq!((&hits[0]["repository"], &hits[0]["image"]), (&json!("library/nginx"), &json!("nginx")));
    assert_eq!((&hits[0]["official"], &hits[0]["stars"]), (&json!(true), &json!(20_000)));
    assert_eq!((&hits[1]["image"], &hits[1]["pulls"]), (&json!("bitnami/nginx"), &json!(12_345_678_901_u64)));
    let searches = hub.searches();
    assert_eq!(searches.len(), 1);
    assert!(
        searches[0].target.starts_with("/v2/search/repositories/?query=nginx&page_size="),
        "{searches:?}"
    );
    assert!(searches.iter().all(|asked| !asked.authorized()), "the website was shown a secret");

    let limit = road.client.query("registry.rateLimit", json!({"registryId": entry})).await;
    assert_eq!(limit, json!({"limit": 100, "remaining": 76, "windowSeconds": 21_600}));
    let asked = hub.requests();
    let token = asked.iter().rfind(|asked| asked.path() == "/token").unwrap();
    assert_eq!(token.authorization, Some(basic));
    assert!(token.target.contains("scope=repository:ratelimitpreview/test:pull"), "{}", token.target);
    let last = asked.last().unwrap();
    let free = ("HEAD", "/v2/ratelimitpreview/test/manifests/latest");
    assert_eq!((last.method.as_str(), last.target.as_str()), free, "a GET would use up a pull");

    let tested = road.test(&entry, None).await.data();
    assert_eq!((&tested["credentials"], &tested["kind"]), (&json!("verified"), &json!("dockerHub")));
    let wrong = road.entry_with("docker.io", "bob", "wrong").await;
    let refused = road.test(&wrong, None).await;
    assert_eq!(refused.diagnosis(), "unauthorized", "{refused:?}");
    let refused = road.client.trpc_query("registry.rateLimit", &json!({"registryId": wrong})).await;
    assert_eq!(refused.diagnosis(), "unauthorized", "{refused:?}");
}

/// The engine by itself gives Docker Hub's secret to any mirror that asks for one: it is not given it then.
#[tokio::test]
async fn a_mirror_never_gets_docker_hubs_secret_by_our_doing() {
    let bed = Testbed::get();
    let (bob, basic) = bob();
    let hub = Hub::start(&basic).await;
    // Two real registries, seen through: one asks for a password, and one for none.
    let asking = BreakableProxy::start(&bed.registries.basic).await;
    let open = BreakableProxy::start(&bed.registries.open).await;
    let published = image::in_registry(&bed.host_b(), &bed.registries.open, "team/mirrored", 100, None).await;
    let mirrors = [&asking, &open].map(|mirror| format!("http://{}", mirror.address()));
    let own = OwnEngine::with_mirrors(&hub, &mirrors).await;
    let purser = Purser::builder().with_hub(&hub).start().await;
    let (agent, server) =
        Agent::join_by(&purser, Agent::builder(&purser, &own.engine(), None).with_hub(&hub)).await;
    let road = Road { client: purser.client(), agents: vec![agent], servers: vec![server], purser };
    let entry = road.entry("docker.io", &bob).await;
    let was_shown = |mirror: &BreakableProxy| {
        let seen = String::from_utf8_lossy(&mirror.recording().to_upstream).to_ascii_lowercase();
        seen.contains("authorization") || !scan_for_secret(seen.as_bytes(), &bob.password).is_empty()
    };
    let image = format!("{}:{}", published.name, published.tag);

    let tested = road.test(&entry, Some(road.host())).await.data();
    assert_eq!((&tested["credentials"], &tested["kind"]), (&json!("verified"), &json!("dockerHub")));
    assert_eq!((asking.accepted(), open.accepted()), (0, 0), "a test asks no mirror");

    let job = road.pull(&image, Value::Null).await;
    let target = failed(&job);
    assert_eq!((&target["error"]["code"], &target["registryId"]), (&json!("realm_denied"), &json!(entry)));
    let said = target["error"].to_string();
    assert!(said.contains(&asking.address().to_string()) && said.contains("registry-mirrors"), "{said}");
    assert!(!was_shown(&asking) && !was_shown(&open));

    // The owner says that it may see it. It does not know it, so the engine goes on to the open one.
    let allow =
        json!({"registryId": entry, "realmAllow": [asking.address().to_string()], "password": bob.password});
    road.client.mutate("registry.update", allow).await;
    let job = road.pull(&image, Value::Null).await;
    assert_eq!(succeeded(&job)["result"]["digest"], published.digest, "{job:#}");
    assert!(
        was_shown(&asking),
        "the engine would not have shown it, and the rest of this test means nothing"
    );
    assert!(!was_shown(&open), "a mirror that asks for nothing is sent nothing");

    // Without a secret there is nothing to guard.
    assert!(own.engine().remove(&image).await);
    road.client.mutate("registry.remove", json!({"registryId": entry})).await;
    let job = road.pull(&image, Value::Null).await;
    assert_eq!(succeeded(&job)["credentials"], "anonymous");
}
