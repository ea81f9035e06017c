//! `registry.catalog`, `tags`, `search`, `manifest`, `rateLimit` and `presets`, against real registries.

use std::{collections::BTreeSet, time::Duration};

use http::Method;
use purser_tests::{
    Answer, BreakableProxy, Canned, Client, Purser, Road, Testbed, User,
    image::{self, Published},
    percent, scan_for_secret,
    tenant::Grant,
    unique,
    user::Kind,
};
use serde_json::{Value, json};

use crate::answers::{members, refused};

async fn entry(client: &Client, url: &str, user: Option<&User>) -> Value {
    let mut input = json!({"registryName": unique("entry"), "registryUrl": url});
    if let Some(user) = user {
        input["username"] = json!(user.username);
        input["password"] = json!(user.password);
    }
    client.mutate("registry.create", input).await["registryId"].clone()
}

async fn published(registry: &str, name: &str, user: Option<&User>) -> Published {
    image::in_registry(&Testbed::get().host_b(), registry, name, 100, user).await
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// All items of a paged list, asked for `limit` at a time.
async fn walk(client: &Client, procedure: &str, mut input: Value, limit: usize) -> Vec<String> {
    input["limit"] = json!(limit);
    let mut items = Vec::new();
    for _ in 0..10_000 {
        let page = client.query(procedure, input.clone()).await;
        assert_eq!(members(&page), ["items", "nextCursor", "warnings"]);
        let some = texts(&page["items"]);
        assert!(some.len() <= limit, "{page}");
        items.extend(some);
        if page["nextCursor"].is_null() {
            return items;
        }
        input["cursor"] = page["nextCursor"].clone();
    }
    panic!("{procedure} has no end")
}

/// The field that an answer to bad input names.
#[track_caller]
fn names(answer: &Answer, field: &str) {
    let path = answer.error()["data"]["path"].clone();
    let error = refused(answer, "BAD_REQUEST", path.as_str());
    assert!(error["data"]["zodError"]["fieldErrors"][field].is_array(), "{answer:?}");
}

#[tokio::test]
async fn a_catalog_is_paged_and_holds_the_namespace_only() {
    let (bed, purser) = (Testbed::get(), Purser::start().await);
    let (client, user) = (purser.client(), bed.user(Kind::Symbols));
    let team = unique("team");
    let mut own = BTreeSet::new();
    for name in ["a", "b", "c"] {
        own.insert(published(&bed.registries.basic, &format!("{team}/{name}"), Some(user)).await.name);
    }
    let near = published(&bed.registries.basic, &format!("{team}x/a"), Some(user)).await.name;
    let whole = entry(&client, &bed.registries.basic, Some(user)).await;
    let all = walk(&client, "registry.catalog", json!({"registryId": whole}), 2).await;
    let distinct: BTreeSet<_> = all.iter().cloned().collect();
    assert_eq!(distinct.len(), all.len(), "a repository came twice: {all:?}");
    assert!(own.is_subset(&distinct) && distinct.contains(&near), "{all:?}");

    let part = entry(&client, &format!("{}/{team}", bed.registries.basic), Some(user)).await;
    let listed = walk(&client, "registry.catalog", json!({"registryId": part}), 1).await;
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), own);
    let outside = json!({"registryId": part, "repository": near});
    names(&client.trpc_query("registry.tags", &outside).await, "repository");
    names(&client.trpc_query("registry.manifest", &outside).await, "repository");
}

#[tokio::test]
async fn tags_are_paged() {
    let (bed, purser) = (Testbed::get(), Purser::start().await);
    let client = purser.client();
    let engine = bed.host_b();
    let repository = format!("{}/{}", bed.registries.open, unique("tags"));
    engine.make_image(&repository, "v1", 100).await;
    for tag in ["v2", "v3", "latest", "V1.0_x"] {
        engine.tag(&format!("{repository}:v1"), &repository, tag).await;
    }
    let tags = ["V1.0_x", "latest", "v1", "v2", "v3"];
    for tag in tags {
        engine.push(&repository, tag, None).await.unwrap();
        engine.remove(&format!("{repository}:{tag}")).await;
    }
    let id = entry(&client, &bed.registries.open, None).await;
    let name = repository.split_once('/').unwrap().1;
    for limit in [2, 100] {
        let input = json!({"registryId": id, "repository": name});
        let mut listed = walk(&client, "registry.tags", input, limit).await;
        listed.sort();
        assert_eq!(listed, tags, "{limit}");
    }
    let absent = json!({"registryId": id, "repository": unique("absent")});
    let answer = client.trpc_query("registry.tags", &absent).await;
    assert_eq!((answer.code(), answer.diagnosis()), ("BAD_REQUEST".into(), "not_found".into()), "{answer:?}");
    let cursor = json!({"registryId": id, "repository": name, "cursor": "AAAA"});
    names(&client.trpc_query("registry.tags", &cursor).await, "cursor");
}

#[tokio::test]
async fn a_search_finds_whole_names_and_parts_and_a_failing_registry_spoils_nothing() {
    let (bed, purser) = (Testbed::get(), Purser::start().await);
    let (client, user) = (purser.client(), bed.user(Kind::Symbols));
    let team = unique("find");
    let one = published(&bed.registries.basic, &format!("{team}/app"), Some(user)).await;
    let two = published(&bed.registries.open, &format!("{team}/other"), None).await;
    let basic = entry(&client, &bed.registries.basic, Some(user)).await;
    let open = entry(&client, &bed.registries.open, None).await;
    let dead = entry(&client, "127.0.0.1:1", None).await;
    let wrong = User { password: "not the password".into(), ..user.clone() };
    let wrong = entry(&client, &bed.registries.basic, Some(&wrong)).await;

    let answer = client.query("registry.search", json!({"query": team})).await;
    assert_eq!(members(&answer), ["complete", "errors", "items", "warnings"]);
    assert_eq!(answer["complete"], false);
    let found: BTreeSet<_> = answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hit| (hit["registryId"].to_string(), hit["image"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [(basic.to_string(), one.repository.clone()), (open.to_string(), two.repository.clone())];
    assert_eq!(found, expected.into(), "{answer:#}");
    let errors = answer["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2, "{answer:#}");
    for (error, (id, code)) in errors.iter().zip([(&dead, "connect"), (&wrong, "unauthorized")]) {
        assert_eq!(members(error), ["advice", "code", "message", "registryId", "registryName"]);
        assert_eq!((&error["registryId"], &error["code"]), (id, &json!(code)), "{error}");
    }
    // The whole name is an exact hit, at the registry that has it.
    let answer = client.query("registry.search", json!({"query": one.name})).await;
    let first = &answer["items"][0];
    assert_eq!((&first["repository"], &first["exact"]), (&json!(one.name), &json!(true)), "{answer:#}");
    assert_eq!(answer["items"].as_array().unwrap().len(), 1, "{answer:#}");
    let here = json!({"query": team.to_uppercase(), "registryId": open, "limit": 1});
    let answer = client.query("registry.search", here).await;
    assert_eq!(answer["items"][0]["repository"], json!(two.name), "{answer:#}");
    assert_eq!(answer["errors"], json!([]));
    // A registry that is named is what the call is about.
    let answer = client.trpc_query("registry.search", &json!({"query": "x", "registryId": dead})).await;
    assert_eq!((answer.code(), answer.diagnosis()), ("BAD_REQUEST".into(), "connect".into()));
}

#[tokio::test]
async fn a_manifest_is_described_by_entry_and_by_image() {
    let (bed, purser) = (Testbed::get(), Purser::start().await);
    let (client, user) = (purser.client(), bed.user(Kind::Symbols));
    let engine = bed.host_b();
    let name = unique("described");
    let repository = format!("{}/{name}", bed.registries.basic);
    let path = format!(
        "/images/create?fromSrc=-&repo={}&tag=v1&changes={}",
        percent::encode(&repository),
        percent::encode("LABEL org.example.of=purser")
    );
    let made = engine.request(Method::POST, &path, &[], image::archive(1000)).await;
    assert!(made.status.is_success(), "{made:?}");
    let digest = engine.push(&repository, "v1", Some(user)).await.unwrap();
    engine.remove(&format!("{repository}:v1")).await;
    let id = entry(&client, &bed.registries.basic, Some(user)).await;
    let by_entry = json!({"registryId": id, "repository": name, "reference": "v1"});
    let by_entry = client.query("registry.manifest", by_entry).await;
    assert_eq!((&by_entry["registryId"], &by_entry["digest"]), (&id, &json!(digest)), "{by_entry:#}");
    assert_eq!(by_entry["labels"], json!({"org.example.of": "purser"}), "{by_entry:#}");
    assert_eq!(by_entry["platforms"][0]["os"], "linux", "{by_entry:#}");
    assert!(by_entry["totalSizeBytes"].as_u64().is_some_and(|size| size > 100), "{by_entry:#}");
    assert!(by_entry["created"].is_string(), "{by_entry:#}");
    assert_eq!(by_entry["attachments"]["referrers"], json!([]), "{by_entry:#}");
    for more in [
        json!({"image": format!("{repository}:v1")}),
        json!({"image": format!("{repository}@{digest}")}),
        json!({"image": format!("{repository}:v1"), "registryId": id}),
        json!({"registryId": id, "repository": name, "reference": digest}),
    ] {
        assert_eq!(client.query("registry.manifest", more).await, by_entry);
    }
    let latest = json!({"registryId": id, "repository": name});
    let answer = client.trpc_query("registry.manifest", &latest).await;
    assert_eq!(answer.diagnosis(), "not_found", "{answer:?}");
    for (input, field) in [
        (json!({}), "image"),
        (json!({"registryId": id}), "image"),
        (json!({"image": "a", "reference": "v1"}), "reference"),
        (json!({"image": "a", "registryId": id}), "registryId"),
        // Nobody's registry: a key that may only look does not choose what is dialled.
        (json!({"image": format!("{}/{name}", bed.registries.open)}), "image"),
    ] {
        names(&client.trpc_query("registry.manifest", &input).await, field);
    }
}

#[tokio::test]
async fn a_wrong_password_is_unauthorized_and_nowhere_repeated() {
    let (bed, purser) = (Testbed::get(), Purser::builder().rust_log("trace").start().await);
    let client = purser.client();
    let secret = "wrong-but-SECRET-~?>/";
    let user = User { password: secret.into(), ..bed.user(Kind::Plain).clone() };
    for registry in [&bed.registries.basic, &bed.registries.token] {
        let id = entry(&client, registry, Some(&user)).await;
        for (procedure, mut input) in [
            ("registry.catalog", json!({})),
            ("registry.tags", json!({"repository": "a/b"})),
            ("registry.manifest", json!({"repository": "a/b"})),
            ("registry.search", json!({"query": "a/b"})),
        ] {
            input["registryId"] = id.clone();
            let answer = client.trpc_query(procedure, &input).await;
            assert_eq!(answer.diagnosis(), "unauthorized", "{procedure} {answer:?}");
            refused(&answer, "BAD_REQUEST", Some(procedure));
            assert!(scan_for_secret(&answer.text(), secret).is_empty(), "{answer:?}");
        }
    }
    assert!(scan_for_secret(&purser.logs(), secret).is_empty());
}

#[tokio::test]
async fn a_token_registry_is_browsed_with_a_token() {
    let (bed, purser) = (Testbed::get(), Purser::start().await);
    let (client, user) = (purser.client(), bed.user(Kind::Plain));
    let image = published(&bed.registries.token, "tokens", Some(user)).await;
    let id = entry(&client, &bed.registries.token, Some(user)).await;
    let tags = client.query("registry.tags", json!({"registryId": id, "repository": image.name})).await;
    assert_eq!(tags["items"], json!(["v1"]));
    let manifest = client.query("registry.manifest", json!({"image": image.reference()})).await;
    assert_eq!((&manifest["digest"], &manifest["registryId"]), (&json!(image.digest), &id));
    let found = client.query("registry.search", json!({"query": image.name})).await;
    assert_eq!(found["items"][0]["repository"], json!(image.name), "{found:#}");
}

#[tokio::test]
async fn a_catalog_is_remembered_for_one_organization_and_one_credential() {
    let (bed, purser) = (Testbed::get(), Purser::start().await);
    let (client, user) = (purser.client(), bed.user(Kind::Plain));
    let proxy = BreakableProxy::start(&bed.registries.basic).await;
    let url = proxy.address().to_string();
    let id = entry(&client, &url, Some(user)).await;
    let input = json!({"registryId": id, "limit": 5});
    let asked = async |client: &Client, input: &Value| {
        let before = proxy.accepted();
        let answer = client.trpc_query("registry.catalog", input).await;
        (proxy.accepted() > before, answer)
    };
    let five = five_times(&client, &input).await;
    let once = proxy.accepted();
    assert!(once > 0);
    assert!(five.iter().all(|answer| answer.data() == five[0].data()));
    let (again, same) = asked(&client, &input).await;
    assert_eq!((again, same.data()), (false, five[0].data()), "the second call reached the registry");

    let mut refresh = input.clone();
    refresh["refresh"] = json!(true);
    assert!(asked(&client, &refresh).await.0, "refresh did not reach the registry");
    assert!(proxy.accepted() - once <= once, "five callers at once asked more than once");
    assert!(!asked(&client, &input).await.0);
    assert!(asked(&client, &json!({"registryId": id, "limit": 4})).await.0, "another limit");

    let other = purser.key_in(&purser.organization("other"), Grant::Role("admin"));
    assert_eq!(asked(&other, &input).await.1.code(), "NOT_FOUND");
    let theirs = entry(&other, &url, Some(user)).await;
    assert!(asked(&other, &json!({"registryId": theirs, "limit": 5})).await.0, "another organization");

    let wrong = json!({"registryId": id, "password": "not the password"});
    client.mutate("registry.update", wrong).await;
    let (reached, answer) = asked(&client, &input).await;
    assert!(reached);
    assert_eq!(answer.diagnosis(), "unauthorized", "{answer:?}");
    assert!(asked(&client, &input).await.0, "a refusal was remembered");
}

/// The same call five times at once.
async fn five_times(client: &Client, input: &Value) -> Vec<Answer> {
    let calls = (0..5).map(|_| {
        let (client, input) = (client.clone(), input.clone());
        tokio::spawn(async move { client.trpc_query("registry.catalog", &input).await })
    });
    let mut answers = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        answers.push(call.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn what_a_registry_does_not_offer_is_said_without_dialling_it() {
    let (bed, purser) = (Testbed::get(), Purser::start().await);
    let client = purser.client();
    for (url, word) in [("ghcr.io/myorg", "Packages"), ("docker.io", "search"), ("public.ecr.aws", "gallery")]
    {
        let id = entry(&client, url, None).await;
        let begun = std::time::Instant::now();
        let answer = client.trpc_query("registry.catalog", &json!({"registryId": id})).await;
        assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
        let error = refused(&answer, "NOT_IMPLEMENTED", Some("registry.catalog"));
        assert!(error["message"].as_str().unwrap().contains(word), "{error}");
    }
    let proxy = BreakableProxy::start(&bed.registries.open).await;
    let id = entry(&client, &proxy.address().to_string(), None).await;
    let answer = client.trpc_query("registry.rateLimit", &json!({"registryId": id})).await;
    let error = refused(&answer, "NOT_IMPLEMENTED", Some("registry.rateLimit"));
    assert!(error["message"].as_str().unwrap().contains("Only Docker Hub"), "{error}");
    assert_eq!(proxy.accepted(), 0);
}

#[tokio::test]
async fn presets_are_listed_for_a_form() {
    let purser = Purser::start().await;
    let presets = purser.client().query("registry.presets", Value::Null).await;
    let presets = presets.as_array().unwrap();
    assert!(presets.len() >= 13, "{presets:?}");
    let known = ["kind", "name", "notes", "passwordHint", "registryType", "registryUrl", "usernameHint"];
    for preset in presets {
        assert_eq!(members(preset), known);
        assert!(["cloud", "selfHosted"].contains(&preset["registryType"].as_str().unwrap()), "{preset}");
    }
    let kinds: BTreeSet<_> = presets.iter().map(|preset| preset["kind"].as_str().unwrap()).collect();
    for kind in ["dockerHub", "ghcr", "gitlab", "ecr", "acr", "harbor", "quay", "gitea", "distribution"] {
        assert!(kinds.contains(kind), "{kind}");
    }
}

/// The secret goes to a token server of another name only where the entry's owner said so, and a browse,
/// a test from here and a test from a host judge alike.
#[tokio::test]
async fn a_foreign_token_server_is_denied_until_the_entry_allows_it() {
    let road = Road::start().await;
    let (client, user) = (&road.client, Testbed::get().user(Kind::Plain));
    let canned = Canned::with_realm("http://auth.purser.invalid:8080/token").await;
    let url = canned.address().to_string();
    let id = entry(client, &url, Some(user)).await;
    let verdicts = async || {
        let list = client.trpc_query("registry.tags", &json!({"registryId": id, "repository": "a"})).await;
        let mut codes = vec![list.diagnosis()];
        for server in [None, Some(road.host())] {
            codes.push(road.test(id.as_str().unwrap(), server).await.diagnosis());
        }
        codes
    };
    assert_eq!(verdicts().await, ["realm_denied"; 3]);
    let alone = json!({"registryId": id, "realmAllow": ["auth.purser.invalid:8080"]});
    names(&client.trpc_mutation("registry.update", &alone).await, "password");
    assert_eq!(verdicts().await, ["realm_denied"; 3]);
    let mut both = alone.clone();
    both["password"] = json!(user.password);
    client.mutate("registry.update", both).await;
    // Allowed now, and there is no such host: the judgement by name was passed.
    for code in verdicts().await {
        assert!(["dns", "timeout"].contains(&code.as_str()), "{code}");
    }
    client.mutate("registry.update", json!({"registryId": id, "realmAllow": []})).await;
    assert_eq!(verdicts().await, ["realm_denied"; 3]);

    let given = json!({"registryUrl": url, "username": user.username, "password": user.password});
    let mut allowed = given.clone();
    allowed["realmAllow"] = json!(["AUTH.purser.invalid"]);
    let test = async |input| client.trpc_mutation("registry.testRegistry", &input).await.diagnosis();
    assert_eq!(test(given).await, "realm_denied");
    assert!(["dns", "timeout"].contains(&test(allowed).await.as_str()));
    let seen = canned.requests().concat();
    assert!(scan_for_secret(&seen, &user.password).is_empty(), "the registry was shown the secret");
}
