//! Settings, starts and stops: what is refused in one clear line, what is kept, what is revoked.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command, time::Duration};

use purser_tests::{Purser, eventually, purser::built, tenant::digest};
use serde_json::{Value, json};

use crate::answers::registry;

const TABLES: [&str; 8] =
    ["organization", "api_key", "registry", "server", "join_token", "job", "job_target", "audit_event"];
const KEY_ONE: &str = "an-operators-own-key-1";
const KEY_TWO: &str = "an-operators-own-key-2";

/// What a start that must be refused says: one line on stderr, and a code that is not zero.
pub(crate) fn refusal(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let folder = purser_tests::Testbed::get().scratch("refused");
    let mut command = Command::new("timeout");
    command.arg("30").arg(built("purser-server")).args(["--local-agent", "off"]).args(arguments);
    if !arguments.contains(&"--data-dir") {
        command.arg("--data-dir").arg(folder.path().join("data"));
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let ran = command.env_clear().env("PATH", path).envs(environment.iter().copied()).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    let code = ran.status.code();
    assert!(code.is_some_and(|code| code != 0 && code != 124), "not refused ({:?}): {said}", ran.status);
    let lines: Vec<_> = said.lines().filter(|line| line.starts_with("purser-server: ")).collect();
    assert_eq!(lines.len(), 1, "one clear line: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn a_bad_database_url_is_refused_and_its_password_not_shown() {
    for url in ["mysql://u:hunter2@h/d", "nonsense", "sqlite://x"] {
        assert!(refusal(&["--database-url", url], &[]).contains("postgres://"), "{url}");
    }
    for url in [
        "postgres://u:hunter2@127.0.0.1:1/d",
        "postgres://u:hunter2@[/d",
        "postgres://u:hunter2@127.0.0.1:x/d",
    ] {
        let said = refusal(&[], &[("PURSER_DATABASE_URL", url)]);
        assert!(said.contains("database") && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_short_or_unsendable_admin_key_is_refused_and_not_shown() {
    for (key, says) in [
        ("tiny-k", "shorter than 16"),
        ("with spaces inside it", "printable ASCII"),
        ("ünïcödé-and-long-enough", "printable ASCII"),
    ] {
        let said = refusal(&[], &[("PURSER_ADMIN_API_KEY", key)]);
        assert!(said.contains(says) && !said.contains(key), "{said}");
    }
}

#[test]
fn a_master_key_of_the_wrong_form_is_refused_and_not_shown() {
    for key in ["c2hvcnQ", "not base64 at all!", "hex:zz", ","] {
        let said = refusal(&[], &[("PURSER_MASTER_KEY", key)]);
        assert!(said.contains("master key is 32 bytes"), "{said}");
        assert!(key.len() < 2 || !said.contains(key), "{said}");
    }
}

#[tokio::test]
async fn another_master_key_than_the_databases_is_refused() {
    let purser = Purser::start().await;
    purser.stop().await;
    let other = format!("hex:{}", "ab".repeat(32));
    let folder = purser.data_dir();
    let mut arguments = vec!["--listen", "127.0.0.1:0", "--data-dir", folder.to_str().unwrap()];
    arguments
        .extend(purser.database().map(|database| ["--database-url", database.url()]).into_iter().flatten());
    assert!(refusal(&arguments, &[("PURSER_MASTER_KEY", &other)]).contains("master key"));
}

#[test]
fn a_data_folder_that_cannot_be_made_is_refused() {
    assert!(refusal(&["--data-dir", "/proc/purser"], &[]).contains("data folder"));
}

#[tokio::test]
async fn a_port_in_use_is_refused() {
    let first = Purser::start().await;
    assert!(refusal(&["--listen", first.address()], &[]).contains("listening on"));
}

#[tokio::test]
async fn unknown_flags_are_refused_and_help_is_given() {
    let bin = built("purser-server");
    let run = |arguments: &[&str]| Command::new(&bin).args(arguments).output().unwrap();
    let unknown = run(&["--no-such-flag"]);
    assert!(!unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("--no-such-flag"));
    let help = run(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(help.status.success());
    for flag in [
        "--listen",
        "--data-dir",
        "--database-url",
        "--egress-allow",
        "--local-agent",
        "--tls-cert",
        "--tls-key",
        "--behind-tls-proxy",
        "--audit-retention-days",
        "--job-retention-days",
        "--metrics-listen",
        "--cors-allow-origin",
        "--log-format",
    ] {
        assert!(text.contains(flag), "{flag}: {text}");
    }
}

#[tokio::test]
async fn the_generated_key_and_everything_beside_it_are_for_their_owner_only() {
    let mut purser = Purser::start().await;
    let key = purser.admin_key();
    let mode = |path: std::path::PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(purser.data_dir()), 0o700);
    for file in ["admin-api-key", "master.key"] {
        assert_eq!(mode(purser.data_dir().join(file)), 0o600, "{file}");
    }
    let logs = purser.logs();
    assert!(logs.contains("admin-api-key") && !logs.contains(&key), "the path is printed, the key is not");
    purser.restart().await;
    assert_eq!(purser.admin_key(), key, "made once");
    assert_eq!(purser.client().query("registry.all", Value::Null).await, json!([]));
}

#[tokio::test]
async fn a_chosen_admin_key_works_and_a_changed_one_ends_the_former() {
    let first = Purser::builder().env("PURSER_ADMIN_API_KEY", KEY_ONE).start().await;
    assert!(!first.data_dir().join("admin-api-key").exists());
    first.anonymous().with_key(KEY_ONE).mutate("registry.create", registry("kept")).await;
    assert!(!first.logs().contains(KEY_ONE));
    first.stop().await;
    let again = |key: &str| Purser::builder().data_of(&first).env("PURSER_ADMIN_API_KEY", key);
    let answers = async |purser: &Purser, key: &str| {
        purser.anonymous().with_key(key).trpc_query("registry.all", &Value::Null).await.status.as_u16()
    };
    let second = again(KEY_TWO).start().await;
    assert_eq!((answers(&second, KEY_ONE).await, answers(&second, KEY_TWO).await), (401, 200));
    second.stop().await;
    let third = again(KEY_ONE).start().await;
    assert_eq!((answers(&third, KEY_ONE).await, answers(&third, KEY_TWO).await), (200, 401));
    let all = third.anonymous().with_key(KEY_ONE).query("registry.all", Value::Null).await;
    assert_eq!(all[0]["registryName"], "kept");
}

/// With calls waiting and sockets open, too.
#[tokio::test]
async fn sigterm_ends_it_in_time_whatever_is_open() {
    let purser = Purser::start().await;
    let client = purser.client();
    let server = client.mutate("server.create", json!({"name": "never"})).await["serverId"].clone();
    let mut socket = client.websocket().await.unwrap();
    let waiting = client.clone();
    let held = tokio::spawn(async move {
        let input = json!({"image": "app", "serverId": server, "wait": true});
        let headers = [("content-type", "application/json")];
        waiting.send(http::Method::POST, "/api/trpc/image.pull", &headers, input.to_string()).await
    });
    eventually(Duration::from_secs(30), async || {
        (client.query("job.all", json!({})).await["items"].as_array()?.len() == 1).then_some(())
    })
    .await;
    assert!(purser.stop().await.success());
    assert!(socket.receive().await.is_err(), "told to go");
    let _ = held.await.unwrap();
}

#[tokio::test]
async fn health_needs_no_key_and_readiness_means_the_database() {
    let purser = Purser::start().await;
    let nobody = purser.anonymous();
    assert_eq!(nobody.get("/healthz").await.status, 200);
    assert_eq!(nobody.get("/readyz").await.status, 200);
    assert_eq!(nobody.get("/no/such/path").await.status, 404);
}

#[tokio::test]
async fn a_restart_finds_what_was_stored() {
    let mut purser = Purser::start().await;
    let client = purser.client();
    let row = client.mutate("registry.create", registry("kept")).await;
    purser.kill9();
    purser.restart().await;
    assert_eq!(client.query("registry.all", Value::Null).await, json!([row]));
}

#[tokio::test]
async fn reencrypt_moves_every_secret_to_the_first_key_of_the_ring() {
    let bed = purser_tests::Testbed::get();
    let user = bed.user(purser_tests::user::Kind::Symbols);
    let (old, new) = (format!("hex:{}", "11".repeat(32)), format!("hex:{}", "22".repeat(32)));
    let ring = format!("{new},{old}");
    let purser = Purser::builder().env("PURSER_MASTER_KEY", &old).start().await;
    let entry = json!({"registryName": "r", "registryUrl": bed.registries.basic, "username": user.username,
        "password": user.password});
    let id = purser.client().mutate("registry.create", entry).await["registryId"].clone();
    let server = purser.client().mutate("server.create", json!({"name": "s"})).await["serverId"].clone();
    let once = json!({"image": "app", "serverId": server, "auth": {"username": "u", "password": "one time"}});
    purser.client().mutate("image.pull", once).await;
    purser.stop().await;

    let run = |keys: &str| {
        let mut command = Command::new(built("purser-server"));
        command
            .arg("reencrypt")
            .env_clear()
            .env("PURSER_MASTER_KEY", keys)
            .arg("--data-dir")
            .arg(purser.data_dir());
        if let Some(database) = purser.database() {
            command.args(["--database-url", database.url()]);
        }
        command.output().unwrap()
    };
    let without = run(&new);
    assert!(!without.status.success());
    assert!(String::from_utf8_lossy(&without.stderr).contains("not in the key ring"), "{without:?}");
    for changed in [3, 0] {
        let ran = run(&ring);
        assert!(ran.status.success(), "{ran:?}");
        let said =
            format!("{}{}", String::from_utf8_lossy(&ran.stderr), String::from_utf8_lossy(&ran.stdout));
        assert!(said.contains(&format!("changed={changed}")), "{said}");
    }
    let after = Purser::builder().data_of(&purser).env("PURSER_MASTER_KEY", &new).start().await;
    let tested = after.client().mutate("registry.testRegistryById", json!({"registryId": id})).await;
    assert_eq!(tested["credentials"], "verified");
    let sealed = purser.sql("SELECT DISTINCT substr(sealed_password, 1, 12) FROM registry");
    let one_time = purser.sql("SELECT substr(sealed_auth, 1, 12) FROM job_target");
    assert_eq!(sealed, one_time, "one key seals both");
}

/// Nothing is written for a caller who only reads, but once a minute that its key was used; so a busy
/// frontend costs no disk.
#[tokio::test]
async fn reading_never_writes() {
    let purser = Purser::start().await;
    let client = purser.client();
    let things = crate::inputs::Things::make(&client, "read").await;
    // That the key was used, for the next minute.
    eventually(Duration::from_secs(30), async || {
        client.query("apiKey.all", Value::Null).await[0]["lastUsedAt"].is_string().then_some(())
    })
    .await;
    let written = || match purser.database() {
        // A row that is written gets another transaction or place.
        Some(_) => TABLES.map(|table| {
            purser.sql(&format!(
                "SELECT md5(string_agg(xmin::text || ctid::text, ',' ORDER BY ctid)) FROM {table}"
            ))
        }),
        // Every commit that writes moves the WAL; a checkpoint changes the file.
        None => {
            let digest = |name: &str| digest(&fs::read(purser.data_dir().join(name)).unwrap_or_default());
            TABLES.map(|_| digest("purser.db-wal") + &digest("purser.db"))
        }
    };
    let before = written();
    for _ in 0..15 {
        for (name, input) in [
            ("registry.all", Value::Null),
            ("registry.one", json!({"registryId": things.registry})),
            ("registry.one", json!({"registryId": "reg_x"})),
            ("server.all", Value::Null),
            ("server.one", json!({"serverId": things.server})),
            ("image.all", json!({"serverId": things.server})),
            ("job.all", Value::Null),
            ("job.one", json!({"jobId": things.job})),
            ("audit.all", json!({"limit": 5, "registryId": things.registry})),
        ] {
            client.trpc_query(name, &input).await;
            client.rpc(name, &if input.is_null() { json!({}) } else { input }).await;
        }
    }
    assert_eq!(written(), before);
    // The measure sees a write.
    client.mutate("server.update", json!({"serverId": things.server, "name": "written"})).await;
    assert_ne!(written(), before);
}
