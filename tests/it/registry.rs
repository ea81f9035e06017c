//! `registry.*`: what is stored, what is shown, and what a change may not do.

use std::time::Duration;

use purser_tests::{
    Client, Hostile, Purser, Testbed, eventually, hostile::basic, scan_for_secret, tenant::Grant, user::Kind,
};
use serde_json::{Value, json};

use crate::{
    answers::{members, registry},
    audit::{events, told},
};

/// The members of `Registry` in API.md, and no other.
const MEMBERS: &[&str] = &[
    "createdAt",
    "credentialsUpdatedAt",
    "hasCaCertificate",
    "hasCredentials",
    "imagePrefix",
    "insecure",
    "isDefault",
    "kind",
    "lastTest",
    "namespace",
    "organizationId",
    "realmAllow",
    "registryHost",
    "registryId",
    "registryName",
    "registryType",
    "registryUrl",
    "updatedAt",
    "username",
];
const PASSWORD: &str = "~>?+/=\"'\\$% ünï";

fn stored() -> Value {
    json!({"registryName": " Mine ", "registryUrl": " Registry.Example.com:5000/team ", "username": "u",
        "password": PASSWORD, "registryType": "selfHosted", "imagePrefix": "team/"})
}

#[track_caller]
fn is_time(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    let digits = text.bytes().map(|byte| if byte.is_ascii_digit() { b'0' } else { byte }).collect::<Vec<_>>();
    assert_eq!(String::from_utf8(digits).unwrap(), "0000-00-00T00:00:00.000Z", "{text}");
}

#[track_caller]
fn is_registry(row: &Value) {
    assert_eq!(members(row), MEMBERS);
    for field in ["createdAt", "updatedAt"] {
        is_time(&row[field]);
    }
    if !row["credentialsUpdatedAt"].is_null() {
        is_time(&row["credentialsUpdatedAt"]);
    }
    assert!(row["registryId"].as_str().unwrap().starts_with("reg_"));
}

async fn one(client: &Client, id: &Value) -> Value {
    client.query("registry.one", json!({"registryId": id})).await
}

#[tokio::test]
async fn an_entry_is_shown_as_the_contract_says_and_the_same_by_every_procedure() {
    let purser = Purser::start().await;
    let client = purser.client();
    let created = client.mutate("registry.create", stored()).await;
    is_registry(&created);
    let expected = json!({
        "registryName": "Mine", "registryUrl": "Registry.Example.com:5000/team",
        "registryHost": "registry.example.com:5000", "namespace": "team", "username": "u", "imagePrefix": "team/",
        "registryType": "selfHosted", "kind": "other", "isDefault": false, "insecure": false, "hasCaCertificate": false,
        "hasCredentials": true, "realmAllow": [], "lastTest": null, "organizationId": purser.default_organization(),
    });
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&created[member], value, "{member}");
    }
    let id = &created["registryId"];
    assert_eq!(one(&client, id).await, created);
    assert_eq!(client.query("registry.all", Value::Null).await, json!([created]));
    assert_eq!(client.mutate("registry.remove", json!({"registryId": id})).await, created);
    assert_eq!(client.query("registry.all", Value::Null).await, json!([]));
    let again = client.trpc_mutation("registry.remove", &json!({"registryId": id})).await;
    assert_eq!(again.code(), "NOT_FOUND");
}

#[tokio::test]
async fn the_least_entry_has_defaults_and_nulls() {
    let purser = Purser::start().await;
    let created = purser.client().mutate("registry.create", registry("least")).await;
    is_registry(&created);
    for member in ["namespace", "username", "imagePrefix", "credentialsUpdatedAt", "lastTest"] {
        assert_eq!(created[member], Value::Null, "{member}");
    }
    assert_eq!(created["hasCredentials"], false);
}

#[tokio::test]
async fn the_kind_is_told_and_the_type_is_the_kinds_unless_said() {
    let purser = Purser::start().await;
    let client = purser.client();
    for (url, kind, usual) in [
        ("ghcr.io/org", "ghcr", "cloud"),
        ("https://index.docker.io/v1/", "dockerHub", "cloud"),
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", "ecr", "cloud"),
        ("registry.example.com:5000", "other", "selfHosted"),
    ] {
        let mut input = json!({"registryName": url, "registryUrl": url});
        let row = client.mutate("registry.create", input.clone()).await;
        assert_eq!((&row["kind"], &row["registryType"]), (&json!(kind), &json!(usual)), "{url}");
        for said in ["cloud", "selfHosted"] {
            input["registryType"] = json!(said);
            assert_eq!(client.mutate("registry.create", input.clone()).await["registryType"], said, "{url}");
        }
    }
}

#[tokio::test]
async fn a_password_is_in_no_answer_no_log_and_no_database() {
    let purser = Purser::builder().rust_log("trace").start().await;
    let client = purser.client();
    let secret = "Pa55-\\\"w/ord+never=seen";
    let mut input = stored();
    input["password"] = json!(secret);
    let created = client.trpc_mutation("registry.create", &input).await;
    let id = created.data()["registryId"].clone();
    let update = json!({"registryId": id, "password": secret, "username": "other"});
    let bad = json!({"registryId": id, "password": secret, "registryUrl": "://"});
    let test = json!({"registryUrl": "127.0.0.1:1", "username": "u", "password": secret});
    let answers = [
        created,
        client.trpc_mutation("registry.update", &update).await,
        client.trpc_mutation("registry.update", &bad).await,
        client.trpc_mutation("registry.testRegistry", &test).await,
        client.rpc("registry.testRegistry", &test).await,
        client.trpc_query("registry.all", &Value::Null).await,
    ];
    for answer in answers {
        assert!(scan_for_secret(&answer.text(), secret).is_empty(), "{answer:?}");
        assert!(!answer.text().contains("\"password\":"), "{answer:?}");
    }
    assert!(scan_for_secret(&purser.logs(), secret).is_empty());
    assert!(scan_for_secret(purser.data_dir().as_path(), secret).is_empty());
    if let Some(database) = purser.database() {
        assert!(scan_for_secret(&database.dump(), secret).is_empty());
    }
    let kept = purser.sql("SELECT count(*) FROM registry WHERE sealed_password LIKE 'v1.%'");
    assert_eq!(kept, "1");
}

#[tokio::test]
async fn absent_keeps_and_null_clears() {
    let purser = Purser::start().await;
    let client = purser.client();
    let before = client.mutate("registry.create", stored()).await;
    let id = &before["registryId"];
    let named = client.mutate("registry.update", json!({"registryId": id, "registryName": "Other"})).await;
    let mut expected = before.clone();
    expected["registryName"] = json!("Other");
    expected["updatedAt"] = named["updatedAt"].clone();
    assert_eq!(named, expected);
    assert!(named["updatedAt"].as_str() > before["updatedAt"].as_str());

    let cleared = client.mutate("registry.update", json!({"registryId": id, "imagePrefix": null})).await;
    assert_eq!((&cleared["imagePrefix"], &cleared["hasCredentials"]), (&Value::Null, &json!(true)));
    let kept = json!({"registryId": id, "registryName": null, "registryType": null, "insecure": null});
    let kept = client.mutate("registry.update", kept).await;
    assert_eq!((&kept["registryName"], &kept["registryType"]), (&json!("Other"), &json!("selfHosted")));
    let open = json!({"registryId": id, "username": null, "password": null});
    let open = client.mutate("registry.update", open).await;
    for member in ["username", "credentialsUpdatedAt"] {
        assert_eq!(open[member], Value::Null);
    }
    assert_eq!(open["hasCredentials"], false);
    assert_eq!(purser.sql("SELECT count(*) FROM registry WHERE sealed_password IS NULL"), "1");
}

#[tokio::test]
async fn another_host_needs_the_password_again_and_without_it_nothing_changes() {
    let purser = Purser::start().await;
    let client = purser.client();
    let before = client.mutate("registry.create", stored()).await;
    let id = &before["registryId"];
    for url in [
        "evil.example.com",
        "registry.example.com",
        "registry.example.com:5001/team",
        "docker.io",
        "registry.example.com.evil.org:5000",
        "sub.registry.example.com:5000",
    ] {
        let input =
            json!({"registryId": id, "registryUrl": url, "registryName": "Changed", "imagePrefix": null});
        let answer = client.trpc_mutation("registry.update", &input).await;
        assert_eq!(answer.code(), "BAD_REQUEST", "{url}: {answer:?}");
        let issue = &answer.error()["data"]["zodError"]["fieldErrors"]["password"][0];
        assert!(issue.is_string(), "{url}: {answer:?}");
        assert_eq!(one(&client, id).await, before, "{url}");
    }
    for url in [
        "registry.example.com:5000",
        "HTTPS://REGISTRY.example.com:5000/other/team",
        "registry.example.com:5000/",
    ] {
        let answer = client.mutate("registry.update", json!({"registryId": id, "registryUrl": url})).await;
        assert_eq!(answer["registryHost"], "registry.example.com:5000");
        assert_eq!(answer["credentialsUpdatedAt"], before["credentialsUpdatedAt"]);
    }
    let moved = json!({"registryId": id, "registryUrl": "ghcr.io", "password": "new"});
    let moved = client.mutate("registry.update", moved).await;
    assert_eq!((&moved["registryHost"], &moved["hasCredentials"]), (&json!("ghcr.io"), &json!(true)));
    let open = json!({"registryId": id, "registryUrl": "quay.io", "password": null, "username": null});
    assert_eq!(client.mutate("registry.update", open).await["hasCredentials"], false);
}

#[tokio::test]
async fn an_organization_has_at_most_one_default() {
    let purser = Purser::start().await;
    let client = purser.client();
    let default = |name: &str| {
        let mut input = registry(name);
        input["isDefault"] = json!(true);
        input
    };
    let defaults = async || {
        let all = client.query("registry.all", Value::Null).await;
        all.as_array().unwrap().iter().filter(|row| row["isDefault"] == true).count()
    };
    let first = client.mutate("registry.create", default("first")).await;
    let second = client.mutate("registry.create", default("second")).await;
    assert_eq!(one(&client, &first["registryId"]).await["isDefault"], false);
    assert_eq!(one(&client, &second["registryId"]).await["isDefault"], true);
    client.mutate("registry.update", json!({"registryId": first["registryId"], "isDefault": true})).await;
    assert_eq!(defaults().await, 1);
    client.mutate("registry.update", json!({"registryId": first["registryId"], "isDefault": false})).await;
    assert_eq!(defaults().await, 0);
    for _ in 0..5 {
        let (a, b, c, d) = (default("a"), default("b"), default("c"), default("d"));
        tokio::join!(
            client.mutate("registry.create", a),
            client.mutate("registry.create", b),
            client.mutate("registry.create", c),
            client.mutate("registry.create", d)
        );
        assert_eq!(defaults().await, 1);
    }
}

#[tokio::test]
async fn every_name_of_docker_hub_is_one_host() {
    let purser = Purser::start().await;
    let client = purser.client();
    for url in [
        "https://index.docker.io/v1/",
        "docker.io",
        "index.docker.io",
        "registry-1.docker.io",
        "https://registry-1.docker.io/v2/",
        "DOCKER.IO",
        "https://docker.io",
    ] {
        let mut input = registry(url);
        input["registryUrl"] = json!(url);
        let row = client.mutate("registry.create", input).await;
        assert_eq!((&row["registryHost"], &row["namespace"]), (&json!("docker.io"), &Value::Null), "{url}");
        assert_eq!(row["registryUrl"], url);
    }
}

/// Whoever may only write would use the stored secret, or see what an address answers.
#[tokio::test]
async fn a_change_that_tests_first_needs_the_permission_to_test() {
    let purser = Purser::start().await;
    let own = purser.default_organization();
    let writer = purser.key_in(&own, Grant::Permissions(&["registry:write"]));
    let both = purser.key_in(&own, Grant::Permissions(&["registry:write", "registry:test"]));
    let asked = Hostile::start(|_| basic().into()).await;
    let input = |test: Value| {
        json!({"registryName": "tested", "registryUrl": asked.address().to_string(), "username": "u", "password": "p",
            "test": test})
    };
    let entry = writer.mutate("registry.create", input(Value::Null)).await;
    let change =
        |test: Value| json!({"registryId": entry["registryId"], "registryName": "renamed", "test": test});
    // There or not: it is not looked at.
    let absent = json!({"registryId": "reg_x", "serverId": "srv_x", "test": true});
    let tested = [("registry.create", input(json!(true))), ("registry.update", change(json!(true)))];
    for (procedure, input) in tested.iter().chain([&("registry.update", absent)]) {
        let refused = writer.trpc_mutation(procedure, input).await;
        assert_eq!(refused.code(), "FORBIDDEN", "{procedure}: {refused:?}");
        assert!(refused.text().contains("lacks the permission `registry:test`"), "{refused:?}");
    }
    assert_eq!(asked.connections(), 0, "nobody was asked");
    let client = purser.client();
    assert_eq!(client.query("registry.all", Value::Null).await, json!([entry]));
    let forbidden = json!({"outcome": "FORBIDDEN"});
    let noted = async || Some(events(&client, forbidden.clone()).await).filter(|noted| noted.len() >= 3);
    let noted = eventually(Duration::from_secs(20), noted).await;
    let whose = |event: &Value| event["requestId"].is_string() && event["source"] == "127.0.0.1";
    assert!(noted.iter().all(whose), "{noted:?}");
    let noted = told(&noted);
    assert_eq!(noted.iter().filter(|event| *event == "registry.update FORBIDDEN").count(), 2, "{noted:?}");
    assert!(noted.len() == 3 && noted.contains(&"registry.create FORBIDDEN".to_owned()), "{noted:?}");
    // By the one in place of the other, too; and without a test there is nothing more to have.
    for (procedure, input) in tested {
        assert_eq!(both.trpc_mutation(procedure, &input).await.diagnosis(), "unauthorized");
    }
    for no_test in [json!(false), Value::Null] {
        writer.mutate("registry.update", change(no_test)).await;
    }
    let theirs = json!({"name": "theirs", "permissions": ["iam:project:cicd:registry:write"]});
    let theirs = client.with_key(client.mutate("apiKey.create", theirs).await["key"].as_str().unwrap());
    assert_eq!(theirs.trpc_mutation("registry.create", &input(json!(true))).await.code(), "FORBIDDEN");
}

#[tokio::test]
async fn a_failed_test_creates_and_changes_nothing_and_a_good_one_is_noted() {
    let purser = Purser::start().await;
    let client = purser.client();
    let bed = Testbed::get();
    let user = bed.user(Kind::Symbols);
    let input = |password: &str| {
        json!({"registryName": "tested", "registryUrl": bed.basic_for(user), "username": user.username,
            "password": password, "test": true})
    };
    let refused = client.trpc_mutation("registry.create", &input("wrong")).await;
    assert_eq!((refused.code(), refused.diagnosis()), ("BAD_REQUEST".into(), "unauthorized".into()));
    assert_eq!(client.query("registry.all", Value::Null).await, json!([]));

    let before = client.mutate("registry.create", input(&user.password)).await;
    assert_eq!(members(&before["lastTest"]), ["at", "code", "ok", "serverId"]);
    assert_eq!((&before["lastTest"]["ok"], &before["lastTest"]["serverId"]), (&json!(true), &Value::Null));
    is_time(&before["lastTest"]["at"]);
    let id = &before["registryId"];
    let wrong = json!({"registryId": id, "password": "wrong", "registryName": "x", "test": true});
    let refused = client.trpc_mutation("registry.update", &wrong).await;
    assert_eq!(refused.diagnosis(), "unauthorized", "{refused:?}");
    assert_eq!(one(&client, id).await, before);
    let right = json!({"registryId": id, "registryName": "renamed", "test": true});
    assert_eq!(client.mutate("registry.update", right).await["registryName"], "renamed");

    client.mutate("registry.testRegistryById", json!({"registryId": id})).await;
    client.mutate("registry.update", json!({"registryId": id, "password": "wrong"})).await;
    let failed = client.trpc_mutation("registry.testRegistryById", &json!({"registryId": id})).await;
    assert_eq!(failed.diagnosis(), "unauthorized");
    let noted = one(&client, id).await;
    assert_eq!(
        (&noted["lastTest"]["ok"], &noted["lastTest"]["code"]),
        (&json!(false), &json!("unauthorized"))
    );
}

#[tokio::test]
async fn a_host_added_to_realm_allow_needs_the_password_again() {
    let purser = Purser::start().await;
    let client = purser.client();
    let mut input = stored();
    input["realmAllow"] = json!([" Auth.Example.org ", "auth.example.org", "tokens.example.net:8443"]);
    let before = client.mutate("registry.create", input).await;
    let id = &before["registryId"];
    let hosts = json!(["auth.example.org", "tokens.example.net:8443"]);
    assert_eq!(before["realmAllow"], hosts);
    for more in [json!(["auth.example.org", "evil.example.com"]), json!(["tokens.example.net"])] {
        let now = one(&client, id).await;
        let update = json!({"registryId": id, "realmAllow": more});
        let refused = client.trpc_mutation("registry.update", &update).await;
        assert_eq!(refused.code(), "BAD_REQUEST", "{refused:?}");
        assert!(refused.error()["data"]["zodError"]["fieldErrors"]["password"][0].is_string(), "{refused:?}");
        assert_eq!(one(&client, id).await, now);
        let with = json!({"registryId": id, "realmAllow": more, "password": PASSWORD});
        assert_eq!(client.mutate("registry.update", with).await["realmAllow"], more);
        let back = json!({"registryId": id, "realmAllow": hosts, "password": PASSWORD});
        client.mutate("registry.update", back).await;
        assert_eq!(one(&client, id).await["realmAllow"], hosts);
    }
    // Trusting less needs nothing, nor does an entry without a password.
    let kept = client.mutate("registry.update", json!({"registryId": id, "registryName": "Kept"})).await;
    assert_eq!(kept["realmAllow"], hosts);
    let fewer = json!({"registryId": id, "realmAllow": ["auth.example.org"]});
    assert_eq!(client.mutate("registry.update", fewer).await["realmAllow"], json!(["auth.example.org"]));
    let none = json!({"registryId": id, "realmAllow": null});
    assert_eq!(client.mutate("registry.update", none).await["realmAllow"], json!([]));
    let open = client.mutate("registry.create", registry("open")).await;
    let more = json!({"registryId": open["registryId"], "realmAllow": ["auth.example.org"]});
    assert_eq!(client.mutate("registry.update", more).await["realmAllow"], json!(["auth.example.org"]));
}
