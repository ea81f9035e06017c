//! `audit.all`: who did what, to what, and how it ended; page after page, for those of the organization.

use std::{collections::BTreeSet, time::Duration};

use purser_proto_schema::ids::{ApiKeyId, AuditEventId, JobId, OrganizationId, RegistryId, ServerId};
use purser_tests::{
    Agent, Client, Purser, Road, Testbed, eventually, secret, tenant::Grant, unique, user::Kind,
};
use serde_json::{Value, json};

use crate::{answers::members, inputs::Things};

const SOON: Duration = Duration::from_secs(20);

pub async fn events(client: &Client, filter: Value) -> Vec<Value> {
    client.query("audit.all", filter).await["items"].as_array().unwrap().clone()
}

/// `action outcome` of each, newest first.
pub fn told(events: &[Value]) -> Vec<String> {
    let text = |event: &Value, name: &str| event[name].as_str().unwrap().to_owned();
    events.iter().map(|event| format!("{} {}", text(event, "action"), text(event, "outcome"))).collect()
}

#[tokio::test]
async fn each_change_and_each_use_of_a_credential_is_told_with_who_what_and_where() {
    let (bed, road) = (Testbed::get(), Road::start().await);
    let client = &road.client;
    let entry = road.entry(&bed.registries.basic, bed.user(Kind::Plain)).await;
    road.test(&entry, None).await.data();
    road.test(&entry, Some(road.host())).await.data();
    let wrong = road.entry_with(&bed.registries.basic, "plain", "not the password").await;
    assert_eq!(road.test(&wrong, None).await.diagnosis(), "unauthorized");
    let never = client.mutate("server.create", json!({"name": "never"})).await["serverId"].clone();
    assert_eq!(road.test(&wrong, never.as_str()).await.diagnosis(), "server_offline");
    client.query("registry.catalog", json!({"registryId": entry})).await;
    client.mutate("registry.update", json!({"registryId": entry, "registryName": unique("new")})).await;
    let job = road.pull(&format!("{}/absent:v1", bed.registries.basic), json!({"registryId": entry})).await;
    client.mutate("registry.remove", json!({"registryId": entry})).await;

    let of_entry = events(client, json!({"registryId": entry})).await;
    assert_eq!(
        told(&of_entry),
        [
            "registry.remove ok",
            "image.pull accepted",
            "registry.update ok",
            "registry.catalog ok",
            "registry.testRegistryById accepted",
            "registry.testRegistryById ok",
            "registry.create ok",
        ]
    );
    let pull = &of_entry[1];
    assert_eq!((&pull["serverId"], &pull["jobId"]), (&json!(road.host()), &job["jobId"]));
    assert_eq!(of_entry[4]["serverId"], road.host());
    assert!(of_entry[5]["serverId"].is_null());
    // A test that failed is told, and found, by what was found.
    assert_eq!(
        told(&events(client, json!({"registryId": wrong})).await),
        [
            "registry.testRegistryById server_offline",
            "registry.testRegistryById unauthorized",
            "registry.create ok"
        ]
    );
    let found = events(client, json!({"outcome": "unauthorized"})).await;
    assert_eq!((found.len(), &found[0]["registryId"]), (1, &json!(wrong)), "{found:?}");
    assert_eq!(
        told(&events(client, json!({"serverId": road.host()})).await).last().unwrap(),
        "server.create ok",
        "the host's own story"
    );
    assert!(!events(client, json!({"action": "agent.enrolled", "serverId": road.host()})).await.is_empty());
    for event in &of_entry {
        let names = [
            "action",
            "apiKeyId",
            "at",
            "auditEventId",
            "count",
            "jobId",
            "outcome",
            "registryId",
            "requestId",
            "serverId",
            "source",
            "subjectApiKeyId",
            "subjectOrganizationId",
        ];
        assert_eq!(members(event), names);
        assert!(event["apiKeyId"].as_str().is_some_and(|id| id.starts_with("key_")), "{event}");
        assert!(event["requestId"].is_string() && event["count"] == 1, "{event}");
    }
}

#[tokio::test]
async fn a_job_on_several_hosts_is_told_of_each() {
    let purser = Purser::start().await;
    let client = purser.client();
    let things = Things::make(&client, "one").await;
    let other = client.mutate("server.create", json!({"name": "other"})).await["serverId"].clone();
    let entry = json!({"registryName": "b", "registryUrl": "127.0.0.1:2", "username": "u", "password": "p"});
    let second = client.mutate("registry.create", entry).await["registryId"].clone();
    let stack = json!({
        "composeFile": "services: {a: {image: '127.0.0.1:1/a'}, b: {image: '127.0.0.1:2/b'}, c: {image: '127.0.0.1:3/c'}}",
        "serverIds": [things.server, other],
    });
    let job = client.mutate("stack.pull", stack).await["jobId"].clone();
    let told = events(&client, json!({"jobId": job})).await;
    let uses: BTreeSet<_> =
        told.iter().map(|event| (event["registryId"].to_string(), event["serverId"].to_string())).collect();
    let mut expected = BTreeSet::new();
    for server in [&json!(things.server), &other] {
        for entry in [&json!(things.registry), &second, &Value::Null] {
            expected.insert((entry.to_string(), server.to_string()));
        }
    }
    assert_eq!((uses, told.len()), (expected, 6));
}

#[tokio::test]
async fn pages_miss_and_repeat_nothing_while_more_happens() {
    let purser = Purser::start().await;
    let client = purser.client();
    let happen = async || client.mutate("server.create", json!({"name": unique("page")})).await;
    for _ in 0..12 {
        happen().await;
    }
    let whole = events(&client, json!({"limit": 100})).await;
    let (mut paged, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let page = client.query("audit.all", json!({"limit": 5, "cursor": cursor})).await;
        paged.extend(page["items"].as_array().unwrap().clone());
        happen().await;
        cursor = page["nextCursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(paged, whole);
    let ids: Vec<_> = whole.iter().map(|event| event["auditEventId"].as_str().unwrap()).collect();
    assert!(ids.is_sorted_by(|newer, older| newer > older), "newest first: {ids:?}");
}

#[tokio::test]
async fn filters_join_and_a_moment_parts_before_from_after() {
    let purser = Purser::start().await;
    let client = purser.client();
    let things = Things::make(&client, "filtered").await;
    client.mutate("server.update", json!({"serverId": things.server, "name": "renamed"})).await;
    assert!(!client.trpc_mutation("job.retry", &json!({"jobId": things.job})).await.status.is_success());
    let whole = events(&client, json!({})).await;
    assert_eq!(told(&whole)[..2], ["job.retry CONFLICT", "server.update ok"]);
    for (filter, count) in [
        (json!({"outcome": "CONFLICT"}), 1),
        (json!({"action": "server.update"}), 1),
        (json!({"action": "server.update", "outcome": "CONFLICT"}), 0),
        (json!({"serverId": things.server}), 3),
        (json!({"serverId": things.server, "action": "image.pull"}), 1),
        (json!({"jobId": things.job}), 2),
        // All but the making of the key itself.
        (json!({"apiKeyId": whole[0]["apiKeyId"]}), whole.len() - 1),
        (json!({"apiKeyId": "key_x"}), 0),
    ] {
        assert_eq!(events(&client, filter.clone()).await.len(), count, "{filter}");
    }
    let at = whole[1]["at"].clone();
    let (from, to) = (events(&client, json!({"from": at})).await, events(&client, json!({"to": at})).await);
    assert_eq!([from.clone(), to].concat(), whole);
    assert!(from.contains(&whole[1]));
    let between = json!({"from": whole.last().unwrap()["at"], "to": "9999-12-31T23:59:59Z"});
    assert_eq!(events(&client, between).await, whole);
}

#[tokio::test]
async fn another_organization_hears_nothing_of_it() {
    let purser = Purser::start().await;
    let client = purser.client();
    let other = purser.key_in(&purser.organization("other"), Grant::Role("admin"));
    let things = Things::make(&client, "own").await;
    let cursor = client.query("audit.all", json!({"limit": 1})).await["nextCursor"].clone();
    let filter = json!({"registryId": things.registry});
    for input in [json!({}), json!({"cursor": cursor}), filter] {
        assert_eq!(other.query("audit.all", input).await, json!({"items": [], "nextCursor": null}));
    }
    assert_eq!(other.get("/api/audit.jsonl").await.text(), "");
}

#[tokio::test]
async fn of_keys_and_organizations_it_is_told_which_where_they_are() {
    let purser = Purser::start().await;
    let client = purser.client();
    let made = client.mutate("apiKey.create", json!({"name": "made", "role": "viewer"})).await;
    client.mutate("apiKey.remove", json!({"apiKeyId": made["apiKeyId"]})).await;
    let own = purser.default_organization();
    client.mutate("organization.update", json!({"organizationId": own, "name": "renamed"})).await;
    let noted = events(&client, json!({})).await;
    let first_start = "apiKey.create ok";
    assert_eq!(told(&noted), ["organization.update ok", "apiKey.remove ok", "apiKey.create ok", first_start]);
    let (admin, subject) = (&noted[0]["apiKeyId"], ["subjectApiKeyId", "subjectOrganizationId"]);
    for (event, which) in noted.iter().zip([
        [&Value::Null, &json!(own)],
        [&made["apiKeyId"], &Value::Null],
        [&made["apiKeyId"], &Value::Null],
    ]) {
        assert_eq!(subject.map(|name| &event[name]), which, "{event}");
        assert_eq!(&event["apiKeyId"], admin, "{event}");
    }

    let other =
        client.mutate("organization.create", json!({"name": "other"})).await["organizationId"].clone();
    let first = json!({"name": "first", "role": "admin", "organizationId": other});
    let first = client.mutate("apiKey.create", first).await;
    client.mutate("organization.update", json!({"organizationId": other, "name": "theirs"})).await;
    let theirs = events(&client.with_key(first["key"].as_str().unwrap()), json!({})).await;
    assert_eq!(told(&theirs), ["organization.update ok", "apiKey.create ok"]);
    assert_eq!(theirs[0]["subjectOrganizationId"], other);
    assert_eq!((&theirs[1]["subjectApiKeyId"], &theirs[1]["apiKeyId"]), (&first["apiKeyId"], admin));
    assert_eq!(events(&client, json!({})).await, noted, "each has its own");
}

#[tokio::test]
async fn it_is_found_by_the_key_or_organization_that_it_is_about_within_the_own_organization() {
    let purser = Purser::start().await;
    let client = purser.client();
    let create = async |organization: &Value| {
        let input = json!({"name": unique("key"), "role": "admin", "organizationId": organization});
        client.mutate("apiKey.create", input).await
    };
    let (own, made) = (json!(purser.default_organization()), create(&Value::Null).await);
    client.mutate("apiKey.remove", json!({"apiKeyId": made["apiKeyId"]})).await;
    client.mutate("organization.update", json!({"organizationId": own, "name": "ours"})).await;
    let other =
        client.mutate("organization.create", json!({"name": "other"})).await["organizationId"].clone();
    let first = create(&other).await;
    client.mutate("organization.update", json!({"organizationId": other, "name": "theirs"})).await;
    let theirs = client.with_key(first["key"].as_str().unwrap());

    let (key, organization) = ("subjectApiKeyId", "subjectOrganizationId");
    let of_made = ["apiKey.remove ok", "apiKey.create ok"].as_slice();
    let (created, updated) = (["apiKey.create ok"].as_slice(), ["organization.update ok"].as_slice());
    for (asking, filter, expected) in [
        (&client, json!({key: made["apiKeyId"]}), of_made),
        (&client, json!({key: made["apiKeyId"], "action": "apiKey.create"}), created),
        (&client, json!({organization: own}), updated),
        (&client, json!({key: made["apiKeyId"], organization: own}), &[]),
        (&theirs, json!({key: first["apiKeyId"]}), created),
        (&theirs, json!({organization: other}), updated),
        (&client, json!({"instance": true, organization: other}), &["organization.create ok"]),
        // Of the other side of the wall nobody finds anything, nor does an instance-admin.
        (&theirs, json!({key: made["apiKeyId"]}), &[]),
        (&theirs, json!({organization: own}), &[]),
        (&client, json!({key: first["apiKeyId"]}), &[]),
        (&client, json!({organization: other}), &[]),
        (&client, json!({"instance": true, key: made["apiKeyId"]}), &[]),
    ] {
        assert_eq!(told(&events(asking, filter.clone()).await), expected, "{filter}");
    }
    let path = format!("/api/audit.jsonl?{key}={}", made["apiKeyId"].as_str().unwrap());
    assert_eq!(client.get(&path).await.text().lines().count(), 2);
    assert_eq!(theirs.get(&path).await.text(), "");
}

#[tokio::test]
async fn what_was_not_found_is_not_named() {
    let purser = Purser::start().await;
    let (client, other) =
        (purser.client(), purser.key_in(&purser.organization("other"), Grant::Role("admin")));
    let own = Things::make(&client, "own").await;
    let before = events(&client, json!({})).await;
    let theirs = Things::make(&other, "theirs").await;
    let noted = events(&other, json!({})).await.len();
    let nobody = Things {
        registry: RegistryId::generate().to_string(),
        server: ServerId::generate().to_string(),
        job: JobId::generate().to_string(),
        organization: OrganizationId::generate().to_string(),
        api_key: ApiKeyId::generate().to_string(),
    };
    let mut made = 0;
    for Things { registry, server, job, organization, api_key } in [own, nobody] {
        for (procedure, input) in [
            ("registry.remove", json!({"registryId": registry})),
            ("registry.update", json!({"registryId": registry, "registryName": "x"})),
            ("registry.testRegistryById", json!({"registryId": registry})),
            ("registry.testRegistry", json!({"registryUrl": "127.0.0.1:1", "serverId": server})),
            ("server.remove", json!({"serverId": server})),
            ("server.update", json!({"serverId": server, "name": "x"})),
            ("server.createJoinToken", json!({"serverId": server})),
            ("job.cancel", json!({"jobId": job})),
            ("job.retry", json!({"jobId": job})),
            ("apiKey.remove", json!({"apiKeyId": api_key})),
            ("organization.update", json!({"organizationId": organization, "name": "x"})),
            ("image.pull", json!({"image": "app", "serverId": server})),
            ("image.pull", json!({"image": "app", "serverIds": [server, server]})),
            ("image.push", json!({"image": "app", "serverId": server, "registryId": theirs.registry})),
            ("stack.pull", json!({"composeFile": "services: {a: {image: app}}", "serverId": server})),
        ] {
            let answer = other.trpc_mutation(procedure, &input).await;
            assert_eq!(answer.code(), "NOT_FOUND", "{procedure} {input}");
            made += 1;
        }
    }
    let told = events(&other, json!({"outcome": "NOT_FOUND", "limit": 100})).await;
    assert_eq!((told.len(), noted + made), (made, events(&other, json!({"limit": 100})).await.len()));
    let subjects = ["registryId", "serverId", "jobId", "subjectApiKeyId", "subjectOrganizationId"];
    for event in told {
        assert_eq!(subjects.map(|name| &event[name]), [&Value::Null; 5], "{event}");
    }
    assert_eq!(events(&client, json!({})).await, before, "the other side hears nothing of it");
}

#[tokio::test]
async fn what_belongs_to_no_organization_is_told_to_instance_admins_only() {
    let purser = Purser::start().await;
    let client = purser.client();
    let other =
        client.mutate("organization.create", json!({"name": "other"})).await["organizationId"].clone();
    let unknown = purser.anonymous().with_key(&format!("purser_0123456789abcdef_{}", unique("unknown")));
    assert_eq!(unknown.trpc_query("registry.all", &Value::Null).await.status, 401);
    let instance = json!({"instance": true});
    let all = async || Some(events(&client, instance.clone()).await).filter(|all| all.len() >= 2);
    let noted = eventually(SOON, all).await;
    assert_eq!(told(&noted), ["key.refused unknown_key", "organization.create ok"]);
    assert_eq!(noted[1]["subjectOrganizationId"], other);
    let refused = json!({"instance": true, "action": "key.refused"});
    assert_eq!(events(&client, refused).await, noted[..1]);
    for own in [json!({}), json!({"instance": null}), json!({"instance": false})] {
        assert_eq!(told(&events(&client, own).await), ["apiKey.create ok"], "of the first start");
    }
    let exported = client.get("/api/audit.jsonl?instance=true").await;
    let lines: Vec<Value> = exported.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, noted);
    assert_eq!(client.get("/api/audit.jsonl?instance=1").await.status, 400);
    let organization = purser.default_organization();
    for grant in
        [Grant::Role("admin"), Grant::Permissions(&["audit:read"]), Grant::Permissions(&["instance:admin"])]
    {
        let weak = purser.key_in(&organization, grant);
        assert_eq!(weak.trpc_query("audit.all", &instance).await.code(), "FORBIDDEN");
        assert_eq!(weak.get("/api/audit.jsonl?instance=true").await.status, 403);
    }
    let both = purser.key_in(&organization, Grant::Permissions(&["audit:read", "instance:admin"]));
    assert_eq!(events(&both, instance.clone()).await, noted);
}

#[tokio::test]
async fn what_a_key_may_not_do_is_told_once_in_a_while() {
    let purser = Purser::start().await;
    let viewer = purser.key_in(&purser.default_organization(), Grant::Role("viewer"));
    for _ in 0..20 {
        assert_eq!(viewer.trpc_mutation("server.create", &json!({"name": "x"})).await.code(), "FORBIDDEN");
        // A query changes nothing, and its refusal is told nobody.
        assert_eq!(viewer.trpc_query("audit.all", &json!({})).await.code(), "FORBIDDEN");
    }
    let filter = json!({"outcome": "FORBIDDEN"});
    let forbidden =
        async || Some(events(&purser.client(), filter.clone()).await).filter(|all| all.len() >= 5);
    let noted = eventually(SOON, forbidden).await;
    assert_eq!(told(&noted), ["server.create FORBIDDEN"; 5]);
    purser.stop().await;
    let counts = "SELECT count FROM audit_event WHERE outcome = 'FORBIDDEN' ORDER BY count";
    assert_eq!(purser.execute_sql(counts).lines().collect::<Vec<_>>(), ["1", "1", "1", "1", "1", "15"]);
}

#[tokio::test]
async fn refused_keys_are_told_to_whom_they_name_in_bounded_number_and_never_stored() {
    let purser = Purser::start().await;
    let client = purser.client();
    let own = purser.admin_key();
    let guessed = own.replace(secret::of_key(&own), &unique("guess"));
    let unknown = format!("purser_0123456789abcdef_{}", unique("unknown"));
    let asks = async |key: &str| {
        purser.anonymous().with_key(key).trpc_query("registry.all", &Value::Null).await.status.as_u16()
    };
    for _ in 0..300 {
        assert_eq!((asks(&guessed).await, asks(&unknown).await), (401, 401));
    }
    for grant in [Grant::Expired, Grant::Revoked] {
        let dead = purser.key_in(&purser.default_organization(), grant);
        assert_eq!(dead.trpc_query("registry.all", &Value::Null).await.status, 401);
    }
    // No key is no key that was refused.
    assert_eq!(purser.anonymous().get("/api/trpc/registry.all").await.status, 401);

    let refused = async || {
        let noted = events(&client, json!({"action": "key.refused"})).await;
        (noted.len() >= 7).then_some(noted)
    };
    let noted = eventually(SOON, refused).await;
    let mut expected = vec!["key.refused expired", "key.refused revoked"];
    expected.extend(["key.refused wrong_secret"; 5]);
    let mut all = told(&noted);
    all.sort();
    assert_eq!(all, expected, "and none of the unknown key");
    let wrong = noted.iter().find(|event| event["outcome"] == "wrong_secret").unwrap();
    assert_eq!(wrong["source"], "127.0.0.1");
    let own_id = purser.sql("SELECT api_key_id FROM api_key WHERE instance_admin");
    assert_eq!(wrong["apiKeyId"], own_id.trim());

    // The numbers of the last minute are stored at the end.
    assert!(purser.stop().await.success());
    let rows = |organization: &str, outcome: &str| {
        purser.execute_sql(&format!(
            "SELECT COUNT(*), SUM(count) FROM audit_event WHERE organization_id {organization} '' AND outcome = '{outcome}'"
        ))
    };
    assert_eq!((rows("<>", "wrong_secret"), rows("=", "unknown_key")), ("6|300".into(), "6|300".into()));
    for needle in [&guessed, &unknown].map(|key| secret::of_key(key)) {
        assert_eq!(purser_tests::scan_for_secret(&purser.data_dir(), needle), []);
        assert_eq!(purser_tests::scan_for_secret(purser.log_file(), needle), []);
    }
}

#[tokio::test]
async fn an_agent_that_is_not_let_in_is_told() {
    let purser = Purser::start().await;
    let client = purser.client();
    let created = client.mutate("server.create", json!({"name": "host"})).await;
    let id = created["serverId"].as_str().unwrap();
    client.mutate("server.createJoinToken", json!({"serverId": id})).await;
    // The first token stopped working with the second.
    let _agent = Agent::start(&purser, &Testbed::get().host_a(), created["joinToken"].as_str().unwrap());
    let filter = json!({"serverId": id, "action": "agent.refused"});
    let noted = eventually(SOON, async || events(&client, filter.clone()).await.into_iter().next()).await;
    assert_eq!((&noted["outcome"], &noted["source"]), (&json!("invalid_join_token"), &json!("127.0.0.1")));
    assert!(noted["apiKeyId"].is_null());
}

/// An old moment, and the ids of then.
fn long_ago(days: i64) -> (String, String, String) {
    let at = chrono::Utc::now() - chrono::Duration::days(days);
    let rest = purser_tests::wait::random_hex(10);
    let (event, job) = (AuditEventId::floor_of(at) + &rest, JobId::floor_of(at) + &rest);
    (at.format("%Y-%m-%d %H:%M:%S+00:00").to_string(), event, job)
}

#[tokio::test]
async fn what_is_over_its_time_is_forgotten_and_nothing_else() {
    let first = Purser::start().await;
    let things = Things::make(&first.client(), "kept").await;
    let organization = first.default_organization();
    for days in [0, 20, 40, 60] {
        let (at, event, job) = long_ago(days);
        let finished = if days == 60 { "NULL".to_owned() } else { format!("'{at}'") };
        first.sql(&format!(
            "INSERT INTO audit_event (audit_event_id, organization_id, at, action, outcome) \
             VALUES ('{event}', '{organization}', '{at}', 'old.{days}', 'ok'); \
             INSERT INTO job (job_id, organization_id, kind, status, created_by, request, created_at, finished_at) \
             VALUES ('{job}', '{organization}', 'pull', 'succeeded', 'old.{days}', '{{}}', '{at}', {finished}); \
             INSERT INTO job_target (target_id, job_id, organization_id, server_id, kind, plan, credentials, status, \
             attempt, cancel_requested, queue_deadline, run_limit_ms) VALUES ('tgt_{days}', '{job}', '{organization}', \
             '{}', 'pull', '{{}}', 'anonymous', 'succeeded', 1, FALSE, '2126-01-01 00:00:00+00:00', 1)",
            things.server
        ));
    }
    first.stop().await;
    // For ever, first. Events are looked at before jobs, so they were when the jobs are gone.
    for (days, events) in [("0", "old.0\nold.20\nold.40\nold.60"), ("30", "old.0\nold.20")] {
        let settings = Purser::builder().data_of(&first).env("PURSER_AUDIT_RETENTION_DAYS", days);
        let again = settings.arg("--job-retention-days").arg("10").start().await;
        let left = |column: &str, table: &str, like: &str| {
            first.sql(&format!("SELECT {column} FROM {table} WHERE {column} LIKE '{like}' ORDER BY 1"))
        };
        eventually(SOON, async || {
            // The oldest has not ended.
            let jobs = left("created_by", "job", "old.%") == "old.0\nold.60";
            (jobs && left("action", "audit_event", "old.%") == events).then_some(())
        })
        .await;
        let targets = left("target_id", "job_target", "tgt\\__%' ESCAPE '\\");
        assert_eq!(targets.lines().count(), 3, "with their targets: {targets}");
        assert_eq!(left("job_id", "job", &things.job), things.job);
        again.stop().await;
    }
}

/// Whatever is asked for, an index gives it newest first: no page reads the whole audit.
#[tokio::test]
async fn each_filter_has_its_index() {
    let purser = Purser::start().await;
    for column in ["registry_id", "server_id", "api_key_id", "job_id", "action", "outcome"] {
        let page = format!(
            "SELECT * FROM audit_event WHERE organization_id = 'o' AND {column} = 'x' AND audit_event_id < 'z' \
             ORDER BY audit_event_id DESC LIMIT 51"
        );
        let plan = match purser.database() {
            Some(_) => {
                purser.sql(&format!("SET enable_seqscan = off; SET enable_sort = off; EXPLAIN {page}"))
            }
            None => purser.sql(&format!("EXPLAIN QUERY PLAN {page}")),
        };
        assert!(plan.contains(&format!("audit_event_by_{column}")), "{column}: {plan}");
        assert!(!plan.contains("Sort") && !plan.contains("TEMP B-TREE"), "{column}: {plan}");
    }
}
