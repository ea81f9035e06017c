//! `stack.*`: Compose files, and what comes of them onto which host.

use http::StatusCode;
use purser_tests::{Answer, Purser, Road, Testbed, image, scan_for_secret, unique, user::Kind};
use serde_json::{Value, json};

/// In every file here, where a pull has nothing to look for.
const SECRET: &str = "Sw0rdf1sh-of-the-stack";

/// The rules that an answer notes of a field.
#[track_caller]
fn rules(answer: &Answer, field: &str) -> String {
    assert_eq!(answer.code(), "BAD_REQUEST", "{answer:?}");
    let rules = answer.error()["data"]["zodError"]["fieldErrors"][field].clone();
    assert!(rules.is_array(), "{field}: {answer:?}");
    rules.to_string()
}

/// The targets of a job for one image, all of them with this end.
#[track_caller]
fn targets<'a>(job: &'a Value, image: &str, status: &str) -> Vec<&'a Value> {
    let all = job["targets"].as_array().unwrap();
    let found: Vec<_> = all.iter().filter(|target| target["image"] == image).collect();
    assert!(found.iter().all(|target| target["status"] == status), "{image}: {job:#}");
    found
}

#[tokio::test]
async fn a_stack_of_two_registries_comes_onto_two_hosts_and_each_image_once() {
    let (bed, road) = (Testbed::get(), Road::to_two_hosts().await);
    let user = bed.user(Kind::Symbols);
    let maker = bed.host_b();
    let app = image::in_registry(&maker, &bed.registries.basic, "stack-app", 1000, Some(user)).await;
    let db = image::in_registry(&maker, &bed.registries.open, "stack-db", 1000, None).await;
    let cache = image::in_registry(&maker, &bed.registries.open, "stack-cache", 1000, None).await;
    let entry = road.entry(&bed.registries.basic, user).await;
    let file = format!(
        "
x-app: &app
  image: ${{REGISTRY:?}}/{}:${{TAG:-v1}}
  environment: {{DATABASE_PASSWORD: {SECRET}}}
services:
  web: {{<<: *app, ports: [\"80:80\"]}}
  worker: {{<<: *app, command: work}}
  db: {{image: {}}}
  cache: {{image: {}}}
  site: {{build: ./site}}
  debug: {{image: never/pulled, profiles: [debug]}}
",
        app.name,
        db.reference(),
        cache.reference(),
    );
    let variables = json!({"REGISTRY": bed.registries.basic, "SECRET": SECRET});
    let input = json!({"composeFile": file, "variables": variables, "serverIds": road.servers});
    let job = road.ended(&road.client.mutate("stack.pull", input).await).await;
    assert_eq!((&job["kind"], &job["status"]), (&json!("stackPull"), &json!("succeeded")), "{job:#}");
    assert_eq!(job["targets"].as_array().unwrap().len(), 6, "three images, two hosts: {job:#}");
    for image in [&app, &db, &cache] {
        let targets = targets(&job, &image.reference(), "succeeded");
        let hosts: Vec<_> = targets.iter().map(|target| target["serverId"].clone()).collect();
        assert_eq!(json!(hosts), json!(road.servers), "{job:#}");
        for target in targets {
            assert_eq!(target["result"]["digest"], image.digest, "{target:#}");
            let expected = if image.name == app.name {
                (json!(entry), json!("entry"))
            } else {
                (Value::Null, json!("anonymous"))
            };
            assert_eq!((&target["registryId"], &target["credentials"]), (&expected.0, &expected.1));
        }
        for host in [bed.host_a(), bed.host_b()] {
            assert!(host.remove(&image.reference()).await, "{} is not there", image.name);
        }
    }
    let asked = &job["request"];
    assert_eq!(asked["images"], json!([cache.reference(), db.reference(), app.reference()]), "{asked:#}");
    let skipped: Vec<_> =
        asked["skipped"].as_array().unwrap().iter().map(|one| (&one["service"], &one["why"])).collect();
    assert_eq!(skipped, [(&json!("debug"), &json!("profile")), (&json!("site"), &json!("build"))]);
    // The file was there for one call.
    assert_eq!(scan_for_secret(&job.to_string(), SECRET), []);
    assert_eq!(scan_for_secret(&road.purser.data_dir(), SECRET), []);
    assert_eq!(scan_for_secret(&road.purser.logs(), SECRET), []);
}

#[tokio::test]
async fn a_credential_that_is_refused_fails_the_images_of_its_registry_only() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let user = bed.user(Kind::Plain);
    let maker = bed.host_b();
    let private = image::in_registry(&maker, &bed.registries.basic, "stack-no", 100, Some(user)).await;
    let open = image::in_registry(&maker, &bed.registries.open, "stack-yes", 100, None).await;
    let wrong = road.entry_with(&bed.registries.basic, &user.username, "not the password").await;
    let two = format!(
        "services: {{a: {{image: '{}'}}, b: {{image: '{}'}}}}",
        private.reference(),
        open.reference()
    );
    let job = road.client.mutate("stack.pull", json!({"composeFile": two, "serverId": road.host()})).await;
    let job = road.ended(&job).await;
    assert_eq!(job["status"], "failed", "{job:#}");
    let [refused] = targets(&job, &private.reference(), "failed")[..] else { panic!("{job:#}") };
    assert_eq!(refused["error"]["code"], "unauthorized", "{refused:#}");
    assert_eq!((&refused["registryId"], &refused["credentials"]), (&json!(wrong), &json!("entry")));
    let [came] = targets(&job, &open.reference(), "succeeded")[..] else { panic!("{job:#}") };
    assert_eq!(came["result"]["digest"], open.digest);
    assert!(bed.host_a().remove(&open.reference()).await);
    assert!(bed.host_a().inspect(&private.reference()).await.is_none());

    // A named entry is for its registry; the other image goes on as ever.
    let right = road.entry(&bed.registries.basic, user).await;
    let input = json!({"composeFile": two, "serverId": road.host(), "registryId": right, "wait": true});
    let job = road.client.mutate("stack.pull", input).await;
    assert_eq!(targets(&job, &private.reference(), "succeeded")[0]["registryId"], json!(right), "{job:#}");
    assert_eq!(targets(&job, &open.reference(), "succeeded")[0]["credentials"], "anonymous");
    for image in [&private, &open] {
        assert!(bed.host_a().remove(&image.reference()).await);
    }

    // A one-time credential goes to one registry, and to none where there are two.
    let auth = json!({"username": user.username, "password": user.password});
    let mut input = json!({"composeFile": two, "serverId": road.host(), "auth": auth, "wait": true});
    let refused = road.client.trpc_mutation("stack.pull", &input).await;
    assert!(rules(&refused, "auth").contains("one registry"), "{refused:?}");
    input["composeFile"] = json!(format!("services: {{a: {{image: '{}'}}}}", private.reference()));
    let job = road.client.mutate("stack.pull", input).await;
    assert_eq!(targets(&job, &private.reference(), "succeeded")[0]["credentials"], "oneTime", "{job:#}");
    assert!(bed.host_a().remove(&private.reference()).await);
}

#[tokio::test]
async fn the_images_of_a_file_are_shown_with_their_entries() {
    let purser = Purser::start().await;
    let client = purser.client();
    let entry = async |url: &str, more: Value| {
        let mut input = json!({"registryName": url, "registryUrl": url});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        client.mutate("registry.create", input).await["registryId"].clone()
    };
    let team = entry("ghcr.io/team", json!({"isDefault": true})).await;
    let host = entry("ghcr.io", json!({})).await;
    let file = "
services:
  a: {image: 'ghcr.io/team/app:$V'}
  b: {image: 'ghcr.io/team/app:$V'}
  c: {image: 'ghcr.io/other/app', platform: linux/arm64}
  d: {image: app}
  e: {image: 'quay.io/org/app', profiles: [more]}
  f: {build: .}
  g: {image: local, pull_policy: never}
";
    let mut input = json!({"composeFile": file, "variables": {"V": "1"}});
    let shown = client.query("stack.images", input.clone()).await;
    let images: Vec<_> = shown["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| json!([one["services"], one["image"], one["platform"], one["registryId"]]))
        .collect();
    assert_eq!(
        json!(images),
        json!([
            [["a", "b"], "ghcr.io/team/app:1", null, team],
            [["c"], "ghcr.io/other/app:latest", "linux/arm64", host],
            [["d"], "ghcr.io/team/app:latest", null, team],
        ]),
        "{shown:#}"
    );
    assert_eq!(shown["images"][0]["reference"]["repository"], "team/app");
    assert!(shown["images"][2]["reason"].as_str().unwrap().contains("default"), "{shown:#}");
    let why: Vec<_> = shown["skipped"].as_array().unwrap().iter().map(|one| one["why"].clone()).collect();
    assert_eq!(json!(why), json!(["profile", "build", "pullPolicy"]));
    // It is what registry.match says of each.
    for one in shown["images"].as_array().unwrap() {
        let matched = client.query("registry.match", json!({"image": one["image"]})).await;
        assert_eq!((&matched["registryId"], &matched["reference"]), (&one["registryId"], &one["reference"]));
    }

    input["profiles"] = json!(["more"]);
    input["registryId"] = host.clone();
    let shown = client.query("stack.images", input.clone()).await;
    let ids: Vec<_> =
        shown["images"].as_array().unwrap().iter().map(|one| one["registryId"].clone()).collect();
    assert_eq!(json!(ids), json!([host, host, team, null]), "{shown:#}");
    let reason = shown["images"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("which the call names"), "{reason}");

    let elsewhere = entry("registry.example.com", json!({})).await;
    input["registryId"] = elsewhere;
    rules(&client.trpc_mutation("stack.images", &input).await, "registryId");
    input["registryId"] = Value::Null;
    input["variables"] = Value::Null;
    let unset = client.trpc_mutation("stack.images", &input).await;
    let said = rules(&unset, "composeFile");
    assert!(said.contains("line 3, column 14: needs the variable V,"), "{said}");
    assert!(!unset.text().contains("team/app"), "{unset:?}");
}

#[tokio::test]
async fn a_file_that_is_wrong_is_told_by_line_and_column_and_nothing_is_pulled() {
    let purser = Purser::builder().rust_log("trace").start().await;
    let client = purser.client();
    let mut servers = Vec::new();
    for _ in 0..26 {
        let server = client.mutate("server.create", json!({"name": unique("host")})).await;
        servers.push(server["serverId"].clone());
    }
    let levels: String = (1..=12)
        .map(|n| format!("x-{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", ")))
        .collect();
    let bomb = format!("x-0: &a0 [{SECRET}]\n{levels}services: {{web: {{image: a, command: *a12}}}}\n");
    let many: String = (0..400).map(|n| format!("  s{n}: {{image: 'a:{n}', x: {SECRET}}}\n")).collect();
    for (file, expected) in [
        (format!("services:\n  web:\n    image: \"{SECRET}\n  db: x\n"), "line 4, column 3: "),
        (format!("services:\n  web: {{image: a, image: {SECRET}}}\n"), "line 2, column 19: "),
        (format!("services:\n  web: {{image: '{SECRET}'}}\n"), "line 2, column 16: "),
        (bomb, "too large"),
        (format!("services:\n{many}"), "has 400 images, for 26 servers"),
        (format!("services: {{site: {{build: {SECRET}}}}}"), "nothing to pull"),
    ] {
        let input = json!({"composeFile": file, "serverIds": servers});
        let refused = client.trpc_mutation("stack.pull", &input).await;
        let said = rules(&refused, "composeFile");
        assert!(said.contains(expected), "{expected}: {said}");
        assert_eq!(scan_for_secret(&refused.text(), SECRET), []);
    }
    let jobs = client.query("job.all", json!({})).await;
    assert_eq!(jobs["items"], json!([]), "a refused call is no job");
    assert_eq!(scan_for_secret(&purser.logs(), SECRET), []);
    assert_eq!(scan_for_secret(&purser.data_dir(), SECRET), []);
}

#[tokio::test]
async fn a_server_of_nobodys_is_not_found_and_exactly_one_choice_is_needed() {
    let purser = Purser::start().await;
    let client = purser.client();
    let server = client.mutate("server.create", json!({"name": "host"})).await["serverId"].clone();
    let foreign = Purser::start().await;
    let foreign = foreign.client().mutate("server.create", json!({"name": "host"})).await["serverId"].clone();
    let file = "services: {web: {image: a}}";
    for unknown in [json!({"serverId": foreign}), json!({"serverIds": [server, foreign]})] {
        let mut input = unknown;
        input["composeFile"] = json!(file);
        let refused = client.trpc_mutation("stack.pull", &input).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{refused:?}");
    }
    let neither = client.trpc_mutation("stack.pull", &json!({"composeFile": file})).await;
    rules(&neither, "serverId");
    let both = json!({"composeFile": file, "serverId": server, "serverIds": [server]});
    rules(&client.trpc_mutation("stack.pull", &both).await, "serverId");
}
