//! Every use of a credential leaves a row in the audit; what uses none leaves none.

use std::time::Duration;

use purser_tests::{
    Hostile, Purser, Testbed,
    hostile::{Reply, basic},
    image, unique,
    user::Kind,
    wait::eventually,
};
use serde_json::{Value, json};

/// Action and outcome of each use of an entry, oldest first.
fn uses(purser: &Purser, entry: &Value) -> Vec<String> {
    let rows = purser.execute_sql(&format!(
        "SELECT action, outcome FROM audit_event WHERE registry_id = '{}' AND action NOT LIKE '%.create' \
         AND organization_id IS NOT NULL AND api_key_id IS NOT NULL ORDER BY audit_event_id",
        entry.as_str().unwrap()
    ));
    rows.lines().map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn every_browse_that_uses_a_credential_is_audited_and_a_cached_page_is_not() {
    let (bed, purser) = (Testbed::get(), Purser::start().await);
    let (client, user) = (purser.client(), bed.user(Kind::Plain));
    let image = image::in_registry(&bed.host_b(), &bed.registries.basic, "used", 100, Some(user)).await;
    let entry = async |url: &str, password: &str| {
        let input = json!({
            "registryName": unique("used"), "registryUrl": url, "username": user.username, "password": password,
        });
        client.mutate("registry.create", input).await["registryId"].clone()
    };
    let id = entry(&bed.registries.basic, &user.password).await;
    let token = entry(&bed.registries.token, &user.password).await;
    let wrong = entry(&bed.registries.basic, "not the password").await;
    // Never asks for a secret, so none is used there.
    let open = entry(&bed.registries.open, &user.password).await;

    let catalog = json!({"registryId": id, "limit": 5});
    for _ in 0..3 {
        client.query("registry.catalog", catalog.clone()).await;
    }
    assert_eq!(uses(&purser, &id), ["registry.catalog|ok"]);
    client.query("registry.catalog", json!({"registryId": id, "limit": 5, "refresh": true})).await;
    client.query("registry.tags", json!({"registryId": id, "repository": image.name})).await;
    client.query("registry.manifest", json!({"image": image.reference(), "registryId": id})).await;
    let absent = json!({"registryId": id, "repository": unique("absent")});
    assert_eq!(client.trpc_query("registry.tags", &absent).await.diagnosis(), "not_found");
    // Refused without a question.
    for (procedure, input) in [
        ("registry.tags", json!({"registryId": id, "repository": "A b"})),
        ("registry.catalog", json!({"registryId": id, "cursor": "AAAA"})),
        ("registry.rateLimit", json!({"registryId": id})),
    ] {
        assert!(!client.trpc_query(procedure, &input).await.status.is_success(), "{procedure}");
    }
    let mut expected = vec![
        "registry.catalog|ok",
        "registry.catalog|ok",
        "registry.tags|ok",
        "registry.manifest|ok",
        "registry.tags|not_found",
    ];
    assert_eq!(uses(&purser, &id), expected);
    // One call, and a use of each entry.
    client.query("registry.search", json!({"query": image.name})).await;
    expected.push("registry.search|ok");
    assert_eq!(uses(&purser, &id), expected);
    assert_eq!(uses(&purser, &token), ["registry.search|ok"]);
    assert_eq!(uses(&purser, &wrong), ["registry.search|unauthorized"]);
    assert_eq!(uses(&purser, &open), [""; 0]);
}

#[tokio::test]
async fn a_use_is_audited_although_its_caller_hung_up() {
    let purser = Purser::start().await;
    let client = purser.client();
    let slow = Hostile::start(|asked| match asked.authorized() {
        // No JSON, and its end comes after 8 s: time to hang up in, and well within what a browse may take.
        true => Reply::slow("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "{", Duration::from_secs(4)),
        false => basic().into(),
    })
    .await;
    let input = json!({
        "registryName": "slow", "registryUrl": slow.address().to_string(), "username": "u", "password": "p",
    });
    let id = client.mutate("registry.create", input).await["registryId"].clone();
    let input = json!({"registryId": id, "repository": "a/b"});
    let call = tokio::spawn(async move { client.trpc_query("registry.tags", &input).await });
    eventually(Duration::from_secs(20), async || (slow.authorized() > 0).then_some(())).await;
    call.abort();
    assert!(call.await.is_err_and(|ended| ended.is_cancelled()), "the answer came before the caller hung up");
    let used = async || uses(&purser, &id).pop().filter(|row| !row.is_empty());
    assert_eq!(eventually(Duration::from_secs(40), used).await, "registry.tags|not_a_registry");
}
