//! The calls of Dokploy's registry documentation, by the `curl` that it prints them for.
//!
//! Only the host, the key and the ids of its examples are replaced. The shell reads the text, so that
//! quoting is the documentation's too.

use std::process::{Command, Stdio};

use http::StatusCode;
use purser_tests::{Answer, Purser};
use serde_json::{Value, json};

const HOST: &str = "https://your-domain.com";
const KEY: &str = "your-api-key";

/// Runs a call of the documentation, as printed, with `replaced` put in place of its example ids.
async fn curl(purser: &Purser, printed: &str, replaced: &[(&str, &str)]) -> Answer {
    let mut script = printed.replace(HOST, purser.url()).replace(KEY, &purser.admin_key());
    assert!(printed.contains(HOST) && printed.contains(KEY), "not as printed: {printed}");
    for (example, real) in replaced {
        assert!(script.contains(example), "{example} is not in {script}");
        script = script.replace(example, real);
    }
    let script = format!("{} -sS -w '\\n%{{http_code}} %{{content_type}}'", script.trim_end());
    let run = tokio::task::spawn_blocking(move || {
        Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().expect("sh can be started")
    });
    let ran = run.await.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let out = String::from_utf8(ran.stdout).unwrap();
    let (body, said) = out.rsplit_once('\n').unwrap();
    let (status, media) = said.split_once(' ').unwrap();
    let mut headers = http::HeaderMap::new();
    headers.insert("content-type", media.parse().unwrap());
    Answer { status: status.parse().unwrap(), headers, body: body.to_owned().into() }
}

fn created(answer: &Answer) -> Value {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(crate::answers::members(&answer.json()), ["result"]);
    answer.data()
}

const CREATE: &[(&str, &str)] = &[
    (
        "docker.io",
        r#"curl -X POST https://your-domain.com/api/trpc/registry.create \
-H "x-api-key: your-api-key" \
-H "Content-Type: application/json" \
-d '{
"registryName": "Docker Hub",
"registryUrl": "https://index.docker.io/v1/",
"username": "dockerhubuser",
"password": "dockerhub-token",
"registryType": "cloud",
"imagePrefix": "mycompany/"
}'"#,
    ),
    (
        "ghcr.io",
        r#"curl -X POST https://your-domain.com/api/trpc/registry.create \
-H "x-api-key: your-api-key" \
-H "Content-Type: application/json" \
-d '{
"registryName": "GitHub Container Registry",
"registryUrl": "ghcr.io",
"username": "github-username",
"password": "ghp_xxxxxxxxxxxxxxxxxxxx",
"registryType": "cloud",
"imagePrefix": "ghcr.io/myorg/"
}'"#,
    ),
    (
        "123456789.dkr.ecr.us-east-1.amazonaws.com",
        r#"curl -X POST https://your-domain.com/api/trpc/registry.create \
-H "x-api-key: your-api-key" \
-H "Content-Type: application/json" \
-d '{
"registryName": "AWS ECR",
"registryUrl": "123456789.dkr.ecr.us-east-1.amazonaws.com",
"username": "AWS",
"password": "<ecr-token>",
"registryType": "cloud",
"imagePrefix": "123456789.dkr.ecr.us-east-1.amazonaws.com/"
}'"#,
    ),
    (
        "gcr.io",
        r#"curl -X POST https://your-domain.com/api/trpc/registry.create \
-H "x-api-key: your-api-key" \
-H "Content-Type: application/json" \
-d '{
"registryName": "Google Container Registry",
"registryUrl": "gcr.io",
"username": "_json_key",
"password": "<service-account-json>",
"registryType": "cloud",
"imagePrefix": "gcr.io/my-project/"
}'"#,
    ),
    (
        "myregistry.azurecr.io",
        r#"curl -X POST https://your-domain.com/api/trpc/registry.create \
-H "x-api-key: your-api-key" \
-H "Content-Type: application/json" \
-d '{
"registryName": "Azure Container Registry",
"registryUrl": "myregistry.azurecr.io",
"username": "myregistry",
"password": "<acr-password>",
"registryType": "cloud"
}'"#,
    ),
    (
        "registry.example.com:5000",
        r#"curl -X POST https://your-domain.com/api/trpc/registry.create \
-H "x-api-key: your-api-key" \
-H "Content-Type: application/json" \
-d '{
"registryName": "Self-Hosted Registry",
"registryUrl": "registry.example.com:5000",
"username": "admin",
"password": "registry-password",
"registryType": "selfHosted"
}'"#,
    ),
];

const ALL: &str = r#"curl https://your-domain.com/api/trpc/registry.all \
-H "x-api-key: your-api-key""#;
/// No `-X` and no GET: `-d` makes it a POST on a query.
const ONE: &str = r#"curl https://your-domain.com/api/trpc/registry.one \
-H "x-api-key: your-api-key" \
-H "Content-Type: application/json" \
-d '{"registryId": "registry-123"}'"#;
const UPDATE: &str = r#"curl -X POST https://your-domain.com/api/trpc/registry.update \
-H "x-api-key: your-api-key" \
-H "Content-Type: application/json" \
-d '{
"registryId": "registry-123",
"registryName": "Docker Hub Production",
"username": "newusername",
"password": "newpassword"
}'"#;
const REMOVE: &str = r#"curl -X POST https://your-domain.com/api/trpc/registry.remove \
-H "x-api-key: your-api-key" \
-H "Content-Type: application/json" \
-d '{"registryId": "registry-123"}'"#;
const TEST: &str = r#"curl -X POST https://your-domain.com/api/trpc/registry.testRegistry \
-H "x-api-key: your-api-key" \
-H "Content-Type: application/json" \
-d '{
"registryUrl": "ghcr.io",
"username": "github-user",
"password": "ghp_xxxxxxxxxxxx",
"registryType": "cloud"
}'"#;
const TEST_BY_ID: &str = r#"curl -X POST https://your-domain.com/api/trpc/registry.testRegistryById \
-H "x-api-key: your-api-key" \
-H "Content-Type: application/json" \
-d '{
"registryId": "registry-123"
}'"#;
const TEST_ON_A_SERVER: &str = r#"curl -X POST https://your-domain.com/api/trpc/registry.testRegistry \
-H "x-api-key: your-api-key" \
-H "Content-Type: application/json" \
-d '{
"registryUrl": "registry.example.com",
"username": "admin",
"password": "password",
"serverId": "server-123"
}'"#;

#[tokio::test]
async fn every_create_of_the_documentation_stores_what_it_says() {
    let purser = Purser::start().await;
    for (host, printed) in CREATE {
        let row = created(&curl(&purser, printed, &[]).await);
        assert_eq!((&row["registryHost"], &row["hasCredentials"]), (&json!(host), &json!(true)));
        let sent: Value = serde_json::from_str(printed.split('\'').nth(1).unwrap()).unwrap();
        for member in ["registryName", "registryUrl", "username", "registryType", "imagePrefix"] {
            assert_eq!(row[member], sent[member], "{member} of {host}");
        }
        assert_eq!(row.get("password"), None);
    }
    let all = created(&curl(&purser, ALL, &[]).await);
    assert_eq!(all.as_array().unwrap().len(), CREATE.len());
    assert_eq!(all[0]["registryName"], "Docker Hub", "oldest first");
}

#[tokio::test]
async fn one_update_and_remove_work_as_printed() {
    let purser = Purser::start().await;
    let row = created(&curl(&purser, CREATE[0].1, &[]).await);
    let ids = [("registry-123", row["registryId"].as_str().unwrap())];
    assert_eq!(created(&curl(&purser, ONE, &ids).await), row);
    let updated = created(&curl(&purser, UPDATE, &ids).await);
    assert_eq!(updated["registryName"], "Docker Hub Production");
    assert_eq!(
        (&updated["username"], &updated["imagePrefix"]),
        (&json!("newusername"), &json!("mycompany/"))
    );
    assert_eq!(created(&curl(&purser, REMOVE, &ids).await)["registryId"], row["registryId"]);
    for printed in [ONE, UPDATE, REMOVE, TEST_BY_ID] {
        assert_eq!(curl(&purser, printed, &[]).await.code(), "NOT_FOUND", "{printed}");
    }
}

/// Against the testbed's registry in place of ghcr.io, which no test may ask.
#[tokio::test]
async fn the_tests_work_as_printed() {
    let bed = purser_tests::Testbed::get();
    let user = bed.user(purser_tests::user::Kind::Plain);
    let purser = Purser::start().await;
    let to = [
        ("ghcr.io", bed.registries.basic.as_str()),
        ("github-user", user.username.as_str()),
        ("ghp_xxxxxxxxxxxx", user.password.as_str()),
    ];
    let tested = created(&curl(&purser, TEST, &to).await);
    assert_eq!((&tested["success"], &tested["credentials"]), (&json!(true), &json!("verified")));
    let wrong = curl(&purser, TEST, &to[..1]).await;
    assert_eq!((wrong.code(), wrong.diagnosis()), ("BAD_REQUEST".into(), "unauthorized".into()));

    let to_create = [
        ("registry.example.com:5000", bed.registries.basic.as_str()),
        ("\"admin\"", &json!(user.username).to_string()),
        ("registry-password", user.password.as_str()),
    ];
    let row = created(&curl(&purser, CREATE[5].1, &to_create).await);
    let ids = [("registry-123", row["registryId"].as_str().unwrap())];
    let tested = created(&curl(&purser, TEST_BY_ID, &ids).await);
    assert_eq!(tested["testedFrom"], json!({"serverId": null, "serverName": "control plane"}));

    assert_eq!(curl(&purser, TEST_ON_A_SERVER, &[]).await.code(), "NOT_FOUND");
    let server = purser.client().mutate("server.create", json!({"name": "away"})).await;
    let ids = [("server-123", server["serverId"].as_str().unwrap())];
    let offline = curl(&purser, TEST_ON_A_SERVER, &ids).await;
    assert_eq!(
        (offline.code(), offline.diagnosis()),
        ("PRECONDITION_FAILED".into(), "server_offline".into())
    );
}
