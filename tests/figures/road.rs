//! Tests and pulls through Purser beside the bare registry and engine.

use http::Method;
use purser_tests::{Agent, Client, Engine, Purser, Testbed, image, user::Kind};
use serde_json::json;

use crate::sample::{Row, timed};

const TESTS: usize = 200;
const PULLS: usize = 7;
const LAYER: usize = 50 << 20;

/// A test from the control plane beside an authenticated `GET /v2/`, and a test from a host beside
/// the engine's own `POST /auth`. Connections to the registry are fresh on both sides.
pub async fn tests() -> Vec<Row> {
    let bed = Testbed::get();
    let user = bed.user(Kind::Plain);
    let registry = bed.basic_for(user);
    let purser = Purser::start().await;
    let engine = bed.host_a();
    let (_agent, server_id) = Agent::join(&purser, &engine).await;
    let client = purser.client();
    let entry = client
        .mutate(
            "registry.create",
            json!({"registryName": "figures", "registryUrl": registry, "username": user.username, "password": user.password}),
        )
        .await;
    let here = json!({"registryId": entry["registryId"]});
    let there = json!({"registryId": entry["registryId"], "serverId": server_id});
    let authorization = user.basic();
    let (mut from_here, mut bare, mut from_host, mut engine_auth) = (vec![], vec![], vec![], vec![]);
    for _ in 0..TESTS {
        let fresh = Client::new(&format!("http://{registry}"));
        let (took, answer) =
            timed(fresh.send(Method::GET, "/v2/", &[("authorization", &authorization)], "")).await;
        assert!(
            answer.is_ok_and(|answer| answer.status.is_success()),
            "the registry refused the right password"
        );
        bare.push(took);
        from_here.push(timed(client.mutate("registry.testRegistryById", here.clone())).await.0);
        let fresh = Engine::at(engine.socket());
        let (took, answer) = timed(fresh.auth(registry, &user.username, &user.password)).await;
        assert!(answer.status.is_success(), "the engine refused the right password");
        engine_auth.push(took);
        from_host.push(timed(client.mutate("registry.testRegistryById", there.clone())).await.0);
    }
    vec![
        Row::of(
            "test from the control plane, beside an authenticated `GET /v2/`",
            &from_here,
            &bare,
            "≤ 1.5×",
        ),
        Row::of("test from a host, beside the engine's `POST /auth`", &from_host, &engine_auth, "≤ 1.5×"),
    ]
}

/// A pull of 50 MB through an agent beside the same pull by the engine's API.
pub async fn pulls() -> Row {
    let bed = Testbed::get();
    let user = bed.user(Kind::Plain);
    let registry = bed.basic_for(user);
    let engine = bed.host_a();
    let purser = Purser::start().await;
    let (_agent, server_id) = Agent::join(&purser, &engine).await;
    let client = purser.client();
    client
        .mutate(
            "registry.create",
            json!({"registryName": "figures", "registryUrl": registry, "username": user.username, "password": user.password}),
        )
        .await;
    let image = image::in_registry(&engine, registry, "figures", LAYER, Some(user)).await;
    let reference = image.reference();
    let (mut through, mut bare) = (vec![], vec![]);
    for _ in 0..PULLS {
        let (took, pulled) = timed(engine.pull(&image.repository, &image.tag, Some(user))).await;
        assert_eq!(pulled, Ok(()));
        bare.push(took);
        engine.remove(&reference).await;
        let input = json!({"image": reference, "serverId": server_id, "wait": true});
        let (took, job) = timed(client.mutate("image.pull", input)).await;
        assert_eq!(job["status"], "succeeded", "{job}");
        through.push(took);
        engine.remove(&reference).await;
    }
    Row::of("pull of 50 MB onto a host, beside the engine's own", &through, &bare, "≤ 1.05×")
}
