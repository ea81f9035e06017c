//! `registry.testRegistry` and `testRegistryById`: the same verdict from the control plane and from a host.

use http::StatusCode;
use purser_tests::{
    Agent, Answer, BreakableProxy, Client, Engine, Hostile, Purser, Road, Testbed, User,
    hostile::{bearer, json, token},
    image::{self, Local},
    road::succeeded,
    scan_for_secret, unique,
    user::Kind,
};
use serde_json::{Value, json};

on_each_engine!(
    a_right_password_is_verified_from_both_ends,
    a_wrong_password_is_unauthorized_and_is_not_remembered,
    an_open_registry_never_sees_the_secret,
    an_open_registry_is_not_sent_the_secret_by_a_pull_or_push,
    access_is_proven_for_the_reader_on_the_token_registry,
);

/// The control plane and the host, as `serverId`.
fn both(road: &Road) -> [Value; 2] {
    [Value::Null, json!(road.host())]
}

async fn test(client: &Client, input: Value) -> Answer {
    client.trpc_mutation("registry.testRegistry", &input).await
}

fn of(user: &User, registry: &str, server: &Value) -> Value {
    json!({
        "registryUrl": registry, "username": user.username, "password": user.password, "serverId": server,
    })
}

async fn a_right_password_is_verified_from_both_ends(engine: Engine) {
    let (bed, road) = (Testbed::get(), Road::on(&engine).await);
    let user = bed.user(Kind::Symbols);
    let name = road.client.query("server.one", json!({"serverId": road.host()})).await["name"].clone();
    for server in both(&road) {
        for (registry, auth) in [(&bed.registries.basic, "basic"), (&bed.registries.token, "bearer")] {
            let tested = test(&road.client, of(user, registry, &server)).await.data();
            assert_eq!(tested["success"], true);
            assert_eq!(tested["credentials"], "verified", "{tested:#}");
            assert_eq!((&tested["auth"], &tested["registryHost"]), (&json!(auth), &json!(registry)));
            assert_eq!(tested["kind"], "distribution", "by its answer: {tested:#}");
            assert_eq!(tested["testedFrom"]["serverId"], server);
            if server.is_string() {
                assert_eq!(tested["testedFrom"]["serverName"], name);
            }
            let steps = tested["steps"].as_array().unwrap();
            let proof = if server.is_null() { "authenticate" } else { "engineLogin" };
            assert!(steps.iter().any(|step| step["step"] == proof), "{tested:#}");
            assert!(steps.iter().all(|step| step["durationMs"].is_u64() && step["detail"].is_string()));
            assert!(steps.last().unwrap()["ok"] == true, "{tested:#}");
        }
    }
}

async fn a_wrong_password_is_unauthorized_and_is_not_remembered(engine: Engine) {
    let (bed, road) = (Testbed::get(), Road::on(&engine).await);
    let user = bed.user(Kind::Plain);
    let wrong = User { password: "not the password".into(), ..user.clone() };
    for server in both(&road) {
        for registry in [&bed.registries.basic, &bed.registries.token, &bed.registries.long] {
            for _ in 0..2 {
                let refused = test(&road.client, of(&wrong, registry, &server)).await;
                assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
                assert_eq!(refused.code(), "BAD_REQUEST");
                assert_eq!(refused.diagnosis(), "unauthorized", "{refused:?}");
                let diagnosis = &refused.error()["data"]["diagnosis"];
                assert!(!diagnosis["advice"].as_str().unwrap().is_empty());
                let steps = diagnosis["steps"].as_array().unwrap();
                assert!(steps.last().unwrap()["ok"] == false, "{diagnosis:#}");

                let right = test(&road.client, of(user, registry, &server)).await.data();
                assert_eq!(right["credentials"], "verified", "{right:#}");
            }
        }
    }
}

#[tokio::test]
async fn a_refused_login_is_advised_as_the_registrys_kind_needs_it_by_tests_and_pulls() {
    let road = Road::start().await;
    let user = Testbed::get().user(Kind::Plain);
    // Harbor is told by its token server's path.
    let harbor = Hostile::start(|asked| match asked.path() {
        "/service/token" => json("401 Unauthorized", &json!({"errors": [{"code": "UNAUTHORIZED"}]})).into(),
        _ => bearer(&format!("http://{}/service/token", asked.address)).into(),
    })
    .await;
    let address = harbor.address().to_string();
    let entry = road.entry(&address, user).await;
    let advised = |error: &Value| {
        assert_eq!(error["code"], "unauthorized", "{error:#}");
        assert!(error["advice"].as_str().unwrap().contains("robot$"), "{error:#}");
    };
    for server in both(&road) {
        let refused = test(&road.client, of(user, &address, &server)).await;
        advised(&refused.error()["data"]["diagnosis"]);
    }
    let job = road.pull(&format!("{address}/team/app:1"), json!({"registryId": entry})).await;
    advised(&job["targets"][0]["error"]);
}

/// Loopback in a spelling that is nowhere taken for loopback: to the rules, just another host.
const ELSEWHERE: &str = "[::ffff:127.0.0.1]";

#[tokio::test]
async fn a_login_at_a_foreign_token_server_succeeds_only_where_the_entry_names_it() {
    let road = Road::start().await;
    let user = Testbed::get().user(Kind::Symbols);
    let tokens = Hostile::start(|asked| {
        match asked.authorized() {
            true => token("a-token"),
            false => json("401 Unauthorized", &json!({})),
        }
        .into()
    })
    .await;
    let foreign = format!("{ELSEWHERE}:{}", tokens.address().port());
    let realm = format!("http://{foreign}/token");
    let registry = Hostile::start(move |asked| {
        match asked.authorization.as_deref() {
            Some("Bearer a-token") => json("200 OK", &json!({})),
            _ => bearer(&realm),
        }
        .into()
    })
    .await;
    let address = registry.address().to_string();
    let with = |allow: Value, server: &Value| {
        let mut input = of(user, &address, server);
        input["realmAllow"] = allow;
        input
    };
    let refusals =
        [json!([]), json!([format!("{ELSEWHERE}:1")]), json!(["127.0.0.1"]), json!(["registry.example.com"])];
    for server in both(&road) {
        for allow in &refusals {
            let denied = test(&road.client, with(allow.clone(), &server)).await;
            assert_eq!(denied.diagnosis(), "realm_denied", "{allow} {denied:?}");
            let message = denied.error()["message"].as_str().unwrap().to_owned();
            assert!(message.contains(&foreign), "{message}");
        }
    }
    assert_eq!(tokens.connections(), 0, "a token server that was denied was asked");

    for allow in [ELSEWHERE.to_owned(), foreign.clone()] {
        let input = json!({
            "registryName": unique("realm"), "registryUrl": address, "username": user.username,
            "password": user.password, "realmAllow": [allow],
        });
        let entry = road.client.mutate("registry.create", input).await["registryId"].clone();
        for server in both(&road) {
            let before = tokens.authorized();
            let tested = test(&road.client, with(json!([allow]), &server)).await;
            assert_eq!(tested.data()["credentials"], "verified", "{tested:?}");
            let stored = road.test(entry.as_str().unwrap(), server.as_str()).await;
            assert_eq!(stored.data()["credentials"], "verified", "{stored:?}");
            assert!(tokens.authorized() >= before + 2, "another token server was asked");
        }
    }
    assert!(scan_for_secret(&registry.received(), &user.password).is_empty(), "it is not the registry's");
}

async fn an_open_registry_never_sees_the_secret(engine: Engine) {
    let (bed, road) = (Testbed::get(), Road::on(&engine).await);
    let user = bed.user(Kind::Symbols);
    let proxy = BreakableProxy::start(&bed.registries.open).await;
    let registry = proxy.address().to_string();
    let entry = road.entry(&registry, user).await;
    for server in both(&road) {
        let tested = test(&road.client, of(user, &registry, &server)).await.data();
        assert_eq!((&tested["credentials"], &tested["auth"]), (&json!("notRequired"), &json!("none")));
        let stored = road.test(&entry, server.as_str()).await.data();
        assert_eq!(stored["credentials"], "notRequired", "{stored:#}");
        let none = json!({"registryUrl": registry, "serverId": server});
        assert_eq!(test(&road.client, none).await.data()["credentials"], "notRequired");
    }
    let seen = proxy.recording().to_upstream;
    assert!(!seen.is_empty(), "nothing was asked");
    assert!(scan_for_secret(&seen, &user.password).is_empty(), "the secret was sent to an open registry");
    assert!(!String::from_utf8_lossy(&seen).to_lowercase().contains("authorization:"));
}

async fn an_open_registry_is_not_sent_the_secret_by_a_pull_or_push(engine: Engine) {
    let (bed, road) = (Testbed::get(), Road::on(&engine).await);
    let user = bed.user(Kind::Symbols);
    let proxy = BreakableProxy::start(&bed.registries.open).await;
    let entry = road.entry(&proxy.address().to_string(), user).await;
    let local = Local::make(&engine, "open", 100).await;
    let job = road.push(&local.repository, &entry, json!({"repository": unique("open")})).await;
    let pushed = succeeded(&job);
    let job = road.pull(pushed["image"].as_str().unwrap(), Value::Null).await;
    succeeded(&job);
    let seen = proxy.recording().to_upstream;
    assert!(seen.len() > 100, "the engine did not go through the proxy");
    assert_eq!(scan_for_secret(&seen, &user.password), [], "sent to a registry that did not ask");
}

async fn access_is_proven_for_the_reader_on_the_token_registry(engine: Engine) {
    let (bed, road) = (Testbed::get(), Road::on(&engine).await);
    let (owner, reader) = (bed.user(Kind::Plain), bed.user(Kind::Reader));
    let name = unique("access");
    let repository = format!("{}/{name}", bed.registries.token);
    let maker = bed.host_b();
    maker.make_image(&repository, "latest", 100).await;
    maker.push(&repository, "latest", Some(owner)).await.unwrap();
    maker.remove(&format!("{repository}:latest")).await;
    for server in both(&road) {
        for (user, push) in [(owner, true), (reader, false)] {
            let mut input = of(user, &bed.registries.token, &server);
            input["repository"] = json!(name);
            input["access"] = json!(["pull", "push"]);
            let tested = test(&road.client, input).await.data();
            assert_eq!(tested["access"], json!({"pull": true, "push": push}), "{tested:#}");
            assert_eq!(tested["credentials"], "verified");
        }
        let entry = road.entry(&bed.registries.token, reader).await;
        let input = json!({"registryId": entry, "serverId": server, "repository": name, "access": ["push"]});
        let tested = road.client.mutate("registry.testRegistryById", input).await;
        assert_eq!(tested["access"], json!({"push": false}), "{tested:#}");
    }
    let alone = json!({"registryUrl": bed.registries.token, "access": ["pull"]});
    let refused = test(&road.client, alone).await;
    assert!(refused.error()["data"]["zodError"]["fieldErrors"]["repository"].is_array(), "{refused:?}");
}

#[tokio::test]
async fn null_empty_and_none_are_the_control_plane() {
    let (bed, purser) = (Testbed::get(), Purser::start().await);
    let (client, user) = (purser.client(), bed.user(Kind::Plain));
    for server in [Value::Null, json!(""), json!("none")] {
        let tested = test(&client, of(user, &bed.registries.basic, &server)).await.data();
        assert_eq!(tested["testedFrom"]["serverId"], Value::Null, "{server}: {tested:#}");
    }
    let mut absent = of(user, &bed.registries.basic, &Value::Null);
    absent.as_object_mut().unwrap().remove("serverId");
    assert_eq!(test(&client, absent).await.data()["testedFrom"]["serverId"], Value::Null);
}

#[tokio::test]
async fn a_server_that_is_unknown_or_not_connected_says_so_at_once() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let user = bed.user(Kind::Plain);
    let unknown = test(&road.client, of(user, &bed.registries.basic, &json!("srv_unknown"))).await;
    assert_eq!((unknown.status, unknown.code()), (StatusCode::NOT_FOUND, "NOT_FOUND".into()));

    let pending = road.client.mutate("server.create", json!({"name": unique("pending")})).await;
    road.stop_agent(0).await;
    let entry = road.entry(&bed.registries.basic, user).await;
    for server in [&pending["serverId"], &json!(road.host())] {
        let begun = std::time::Instant::now();
        let stored = json!({"registryId": entry, "serverId": server});
        let answers = [
            test(&road.client, of(user, &bed.registries.basic, server)).await,
            road.client.trpc_mutation("registry.testRegistryById", &stored).await,
        ];
        assert!(begun.elapsed().as_secs() < 11, "took {:?}", begun.elapsed());
        for answer in answers {
            assert_eq!(answer.status, StatusCode::PRECONDITION_FAILED, "{answer:?}");
            assert_eq!(answer.code(), "PRECONDITION_FAILED");
            assert_eq!(answer.diagnosis(), "server_offline", "{answer:?}");
        }
    }
    let row = road.client.query("registry.one", json!({"registryId": entry})).await;
    assert_eq!(row["lastTest"], Value::Null, "a registry that was never asked was not tested");

    road.client.mutate("server.remove", json!({"serverId": road.host()})).await;
    let removed = test(&road.client, of(user, &bed.registries.basic, &json!(road.host()))).await;
    assert_eq!(removed.status, StatusCode::NOT_FOUND, "{removed:?}");
}

#[tokio::test]
async fn the_last_test_of_an_entry_is_recorded_and_no_other() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let user = bed.user(Kind::Plain);
    let entry = road.entry(&bed.registries.basic, user).await;
    let last = async || {
        let row = road.client.query("registry.one", json!({"registryId": entry})).await;
        row["lastTest"].clone()
    };
    for server in both(&road) {
        test(&road.client, of(user, &bed.registries.basic, &server)).await.data();
    }
    assert_eq!(last().await, Value::Null, "testRegistry is nobody's test");
    for server in both(&road) {
        road.test(&entry, server.as_str()).await.data();
        let passed = last().await;
        assert_eq!((&passed["ok"], &passed["code"]), (&json!(true), &Value::Null), "{passed:#}");
        assert_eq!(passed["serverId"], server);
    }
    let broken = road.entry_with(&bed.registries.basic, &user.username, "not the password").await;
    for server in both(&road) {
        assert_eq!(road.test(&broken, server.as_str()).await.diagnosis(), "unauthorized");
        let row = road.client.query("registry.one", json!({"registryId": broken})).await;
        let failed = &row["lastTest"];
        assert_eq!((&failed["ok"], &failed["code"]), (&json!(false), &json!("unauthorized")), "{row:#}");
        assert_eq!(failed["serverId"], server);
    }
}

#[tokio::test]
async fn create_with_a_failed_test_creates_nothing() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let user = bed.user(Kind::Plain);
    for server in both(&road) {
        let mut input = of(user, &bed.registries.basic, &server);
        input["registryName"] = json!(unique("tested"));
        input["test"] = json!(true);
        let mut wrong = input.clone();
        wrong["password"] = json!("not the password");
        let refused = road.client.trpc_mutation("registry.create", &wrong).await;
        assert_eq!(refused.diagnosis(), "unauthorized", "{refused:?}");
        let before = road.client.query("registry.all", Value::Null).await.as_array().unwrap().len();
        let created = road.client.mutate("registry.create", input).await;
        assert_eq!(created["lastTest"]["ok"], true, "{created:#}");
        assert_eq!(created["lastTest"]["serverId"], server);
        let after = road.client.query("registry.all", Value::Null).await.as_array().unwrap().len();
        assert_eq!(after, before + 1);
    }
}

#[tokio::test]
async fn an_agent_of_another_control_plane_is_not_asked() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let other = Purser::start().await;
    let (_agent, foreign) = Agent::join(&other, &bed.host_b()).await;
    let user = bed.user(Kind::Plain);
    let answer = test(&road.client, of(user, &bed.registries.basic, &json!(foreign))).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{answer:?}");
    let image = image::in_registry(&bed.host_b(), &bed.registries.open, "foreign", 100, None).await;
    let pull = json!({"image": image.reference(), "serverId": foreign});
    let answer = road.client.trpc_mutation("image.pull", &pull).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{answer:?}");
}
