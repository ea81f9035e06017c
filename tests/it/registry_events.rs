//! `registry.events`: each change of an entry, once, in order, also for those who come back.

use std::{io::Write as _, process::Stdio, time::Duration};

use http::Method;
use purser_tests::{
    BreakableProxy, Client, Purser, ServerSent, Streamed, Testbed, database::Database, eventually, percent,
    process, tenant::Grant,
};
use serde_json::{Value, json};

use crate::answers::{is_error, members};

const EVENTS: &str = "/api/trpc/registry.events";

/// Nothing answers there: a test fails at once.
fn nowhere(name: &str) -> Value {
    json!({"registryName": name, "registryUrl": "127.0.0.1:1"})
}

async fn create(client: &Client, input: Value) -> String {
    client.mutate("registry.create", input).await["registryId"].as_str().unwrap().to_owned()
}

fn after(id: &str) -> String {
    format!("{EVENTS}?input={}", percent::encode(&json!({"lastEventId": id}).to_string()))
}

/// The next event: what happened to which entry.
async fn next(stream: &mut Streamed) -> (String, String) {
    is_change(&stream.message().await.json())
}

#[track_caller]
fn is_change(event: &Value) -> (String, String) {
    assert_eq!(members(event), ["at", "registryId", "type"], "{event}");
    let text = |name: &str| event[name].as_str().unwrap().to_owned();
    assert!(text("at").ends_with('Z') && text("at").len() == 24, "{event}");
    (text("type"), text("registryId"))
}

fn change(what: &str, id: &str) -> (String, String) {
    (what.to_owned(), id.to_owned())
}

/// The first event is an error.
async fn fails(stream: &mut Streamed, code: &str) -> Value {
    let told = stream.event().await.unwrap();
    assert_eq!(told.event, "serialized-error", "{told:?}");
    is_error(&told.json(), code, Some("registry.events"));
    assert_eq!(stream.event().await, None);
    told.json()
}

#[tokio::test]
async fn each_change_is_told_once_and_in_order_and_what_failed_is_not() {
    let purser = Purser::start().await;
    let client = purser.client();
    let before = create(&client, nowhere("before")).await;
    let mut stream = client.subscribe(EVENTS, &[]).await;
    let first = create(&client, nowhere("first")).await;
    let named = json!({"registryId": first, "registryName": "renamed"});
    client.mutate("registry.update", named.clone()).await;
    let by_id = json!({"registryId": first});
    for (procedure, input) in [
        ("registry.testRegistryById", by_id.clone()),
        ("registry.testRegistry", json!({"registryUrl": "127.0.0.1:1"})),
        ("registry.create", json!({"registryName": "x", "registryUrl": "127.0.0.1:1", "test": true})),
        ("registry.create", json!({"registryName": "", "registryUrl": ""})),
        ("registry.update", json!({"registryId": first, "registryUrl": ""})),
        ("registry.update", json!({"registryId": "reg_x", "registryName": "x"})),
        ("registry.remove", json!({"registryId": "reg_x"})),
        ("registry.testRegistryById", json!({"registryId": "reg_x"})),
    ] {
        let answer = client.trpc_mutation(procedure, &input).await;
        assert!(!answer.status.is_success(), "{procedure}: {answer:?}");
    }
    // The one mark of the default goes from one to the other.
    client.mutate("registry.update", json!({"registryId": first, "isDefault": true})).await;
    let mut heir = nowhere("heir");
    heir["isDefault"] = json!(true);
    let heir = create(&client, heir).await;
    client.mutate("registry.update", json!({"registryId": heir, "isDefault": true})).await;
    client.mutate("registry.remove", by_id).await;
    client.mutate("registry.remove", json!({"registryId": before})).await;
    for expected in [
        change("created", &first),
        change("updated", &first),
        change("tested", &first),
        change("updated", &first),
        change("created", &heir),
        change("updated", &first),
        change("updated", &heir),
        change("removed", &first),
        change("removed", &before),
    ] {
        assert_eq!(next(&mut stream).await, expected);
    }
}

/// Its verdict is of what the entry was, and is not noted.
#[tokio::test]
async fn a_test_of_an_entry_that_was_changed_meanwhile_is_not_told() {
    let purser = Purser::start().await;
    let client = purser.client();
    let registry = BreakableProxy::start(&Testbed::get().registries.open).await;
    registry.stall(true);
    let mut stream = client.subscribe(EVENTS, &[]).await;
    let url = registry.address().to_string();
    let entry = create(&client, json!({"registryName": "slow", "registryUrl": url})).await;
    let (tester, by_id) = (purser.client(), json!({"registryId": entry}));
    let testing = tokio::spawn(async move { tester.mutate("registry.testRegistryById", by_id).await });
    eventually(Duration::from_secs(10), async || (registry.accepted() > 0).then_some(())).await;
    client.mutate("registry.update", json!({"registryId": entry, "registryName": "renamed"})).await;
    registry.stall(false);
    assert_eq!(testing.await.unwrap()["success"], true);
    client.mutate("registry.testRegistryById", json!({"registryId": entry})).await;
    for what in ["created", "updated", "tested"] {
        assert_eq!(next(&mut stream).await, change(what, &entry));
    }
    client.mutate("registry.remove", json!({"registryId": entry})).await;
    assert_eq!(next(&mut stream).await, change("removed", &entry), "one test was noted");
}

#[tokio::test]
async fn whoever_comes_back_with_an_id_misses_nothing() {
    let purser = Purser::start().await;
    let client = purser.client();
    let mut stream = client.stream(Method::GET, EVENTS, &[], "").await;
    // Before the first event there is an id, too: the stream may be lost before that.
    let start = stream.event().await.unwrap().id.expect("an id to begin with");
    let mut entries = Vec::new();
    for n in 0..4 {
        entries.push(create(&client, nowhere(&format!("entry {n}"))).await);
    }
    let mut told: Vec<ServerSent> = Vec::new();
    for entry in &entries {
        told.push(stream.message().await);
        assert_eq!(is_change(&told.last().unwrap().json()), change("created", entry));
    }
    drop(stream);
    // While nobody listens.
    client.mutate("registry.remove", json!({"registryId": entries[3]})).await;
    let id = |at: usize| told[at].id.clone().unwrap();
    let undefined = json!({"json": null, "meta": {"values": ["undefined"], "v": 1}}).to_string();
    let wrapped = json!({"json": {"lastEventId": id(2)}}).to_string();
    for (url, header, seen) in [
        (EVENTS.to_owned(), start.clone(), 0),
        (EVENTS.to_owned(), id(2), 3),
        (after(&id(1)), String::new(), 2),
        (after(&id(0)), id(2), 3),
        (format!("{EVENTS}?lastEventId={}", id(2)), String::new(), 3),
        (format!("{}&lastEventId={}", after(&id(0)), id(2)), String::new(), 3),
        (format!("{EVENTS}?lastEventId={}", id(0)), id(2), 3),
        (format!("{EVENTS}?input={}", percent::encode(&undefined)), id(2), 3),
        (format!("{EVENTS}?input={}", percent::encode(&wrapped)), String::new(), 3),
    ] {
        let headers = [("last-event-id", header.as_str())];
        let headers = if header.is_empty() { &headers[..0] } else { &headers[..] };
        let mut stream = client.subscribe(&url, headers).await;
        for entry in &told[seen..] {
            let again = stream.message().await;
            let data = if url.contains("json") { again.json()["json"].clone() } else { again.json() };
            assert_eq!((data, &again.id), (entry.json(), &entry.id), "{url} {header}");
        }
        let last = stream.message().await;
        let data = if url.contains("json") { last.json()["json"].clone() } else { last.json() };
        assert_eq!(is_change(&data), change("removed", &entries[3]), "{url} {header}");
    }
    // On JSON-RPC's socket, too: the id is beside the result.
    let mut socket = client.websocket().await.unwrap();
    let begun = socket.call("registry.events", json!({"lastEventId": id(3)})).await.unwrap();
    let told = socket.notification().await.unwrap();
    assert_eq!(told["method"], "registry.events", "{told}");
    assert_eq!(told["params"]["subscription"], begun["result"], "{told}");
    assert_eq!(is_change(&told["params"]["result"]), change("removed", &entries[3]));
    let last = told["params"]["id"].as_str().unwrap().to_owned();
    let live = create(&client, nowhere("live")).await;
    let told = socket.notification().await.unwrap();
    assert_eq!(is_change(&told["params"]["result"]), change("created", &live));
    assert_ne!(told["params"]["id"], last.as_str());
}

#[tokio::test]
async fn an_id_that_cannot_be_gone_on_from_is_refused() {
    let purser = Purser::start().await;
    let client = purser.client();
    create(&client, nowhere("one")).await;
    for id in ["x", "-1", "1.5", "+1", " 1", "99999999999999999999", "\u{0661}"] {
        let error = fails(&mut client.subscribe(&after(id), &[]).await, "BAD_REQUEST").await;
        assert!(error["data"]["zodError"]["fieldErrors"]["lastEventId"].is_array(), "{error}");
    }
    let long = "1".repeat(100);
    fails(&mut client.subscribe(EVENTS, &[("last-event-id", &long)]).await, "BAD_REQUEST").await;
    // One that was never told, such as one of a database that was put back since.
    fails(&mut client.subscribe(&after("2"), &[]).await, "PRECONDITION_FAILED").await;
    // As after 9,999 more changes.
    purser.sql("UPDATE registry_event_head SET newest = 10000");
    create(&client, nowhere("two")).await;
    assert_eq!(purser.sql("SELECT min(number) FROM registry_event"), "10001");
    let error = fails(&mut client.subscribe(&after("0"), &[]).await, "PRECONDITION_FAILED").await;
    assert!(error["message"].as_str().unwrap().contains("registry.all"), "{error}");
    let mut oldest = client.subscribe(&after("1"), &[]).await;
    assert_eq!(oldest.message().await.id.as_deref(), Some("10001"));
    let mut socket = client.websocket().await.unwrap();
    let refused = socket.call("registry.events", json!({"lastEventId": "0"})).await.unwrap();
    assert_eq!(refused["error"]["code"], -32012, "{refused}");
}

/// More than is read at once, and more than is kept.
#[tokio::test]
async fn old_events_are_forgotten_and_long_replays_are_whole() {
    let purser = Purser::start().await;
    let client = purser.client();
    let organization = purser.default_organization();
    create(&client, nowhere("one")).await;
    purser.sql(&format!(
        "WITH RECURSIVE counted(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM counted WHERE n < 10010) \
         INSERT INTO registry_event SELECT '{organization}', n, 'tested', 'reg_x', '2026-01-01 00:00:00+00:00' \
         FROM counted"
    ));
    purser.sql("UPDATE registry_event_head SET newest = 10010");
    create(&client, nowhere("two")).await;
    let kept = purser.sql("SELECT min(number), max(number), count(*) FROM registry_event");
    assert_eq!(kept, "12|10011|10000");
    let mut stream = client.subscribe(&after("9700"), &[]).await;
    for number in 9_701..=10_011 {
        assert_eq!(stream.message().await.id, Some(number.to_string()));
    }
}

#[tokio::test]
async fn an_organization_is_told_of_its_own_entries_only() {
    let purser = Purser::start().await;
    let client = purser.client();
    let other = purser.key_in(&purser.organization("other"), Grant::Role("viewer"));
    let foreign = purser.key_in(&purser.organization("foreign"), Grant::Role("admin"));
    let mut stream = foreign.subscribe(EVENTS, &[]).await;
    let mut begun = other.subscribe(EVENTS, &[]).await;
    create(&client, nowhere("mine")).await;
    let theirs = create(&foreign, nowhere("theirs")).await;
    assert_eq!(next(&mut stream).await, change("created", &theirs));
    // It had nothing to say all the while.
    let weak = purser.key_in(&purser.default_organization(), Grant::Permissions(&["registry:write"]));
    fails(&mut weak.subscribe(EVENTS, &[]).await, "FORBIDDEN").await;
    assert!(purser.stop().await.success());
    assert_eq!(begun.told().await, None);
}

/// Writers that commit in any order, and a reader that comes back after each event: had one of them become
/// visible after a higher one, it would be missed.
#[tokio::test]
async fn no_change_is_missed_while_many_write_at_once() {
    const WRITERS: usize = 6;
    const EACH: usize = 15;
    let purser = Purser::start().await;
    let client = purser.client();
    let start = client.stream(Method::GET, EVENTS, &[], "").await.event().await.unwrap().id.unwrap();
    let writing = (0..WRITERS).map(|writer| {
        let client = purser.client();
        tokio::spawn(async move {
            let mut changes = Vec::new();
            for n in 0..EACH {
                let entry = create(&client, nowhere(&format!("{writer} {n}"))).await;
                changes.push(change("created", &entry));
                if n % 3 == 0 {
                    client.trpc_mutation("registry.testRegistryById", &json!({"registryId": entry})).await;
                    changes.push(change("tested", &entry));
                }
                if n % 3 == 1 {
                    client.mutate("registry.remove", json!({"registryId": entry})).await;
                    changes.push(change("removed", &entry));
                }
            }
            changes
        })
    });
    let writing: Vec<_> = writing.collect();
    let (mut told, mut id) = (Vec::new(), start);
    while told.len() < WRITERS * EACH * 5 / 3 {
        let mut stream = client.subscribe(&after(&id), &[]).await;
        let event = stream.message().await;
        told.push(is_change(&event.json()));
        id = event.id.unwrap();
    }
    let mut expected = Vec::new();
    for writer in writing {
        let changes = writer.await.unwrap();
        // Each writer's own in the order in which it made them.
        let own: Vec<_> = told.iter().filter(|event| changes.contains(event)).cloned().collect();
        assert_eq!(own, changes);
        expected.extend(changes);
    }
    assert_eq!(told.len(), expected.len());
}

/// With PostgreSQL, where a sequence would let the second be seen before the first. (Always there: SQLite has
/// one writer at a time.)
#[tokio::test]
async fn a_change_waits_for_one_that_has_a_lower_number_and_is_not_committed() {
    let database = Database::create();
    let purser = Purser::builder().database_url(database.url()).start().await;
    let client = purser.client();
    create(&client, nowhere("one")).await;
    let mut stream = client.subscribe(EVENTS, &[]).await;
    let mut session = process::tied("psql");
    session.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", database.url()]).stdin(Stdio::piped());
    let mut session = process::spawn(session).unwrap();
    let mut statements = session.stdin.take().unwrap();
    let first = "BEGIN; UPDATE registry_event_head SET newest = newest + 1; INSERT INTO registry_event \
                 SELECT organization_id, newest, 'removed', 'reg_first', now() FROM registry_event_head;\n";
    statements.write_all(first.as_bytes()).unwrap();
    let count = |what: &str| {
        let activity = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND";
        database.value(&format!("{activity} {what}"))
    };
    let soon = Duration::from_secs(20);
    eventually(soon, async || (count("state = 'idle in transaction'") == "1").then_some(())).await;
    let writer = purser.client();
    let second = tokio::spawn(async move { create(&writer, nowhere("two")).await });
    eventually(soon, async || (count("wait_event_type = 'Lock'") == "1").then_some(())).await;
    statements.write_all(b"COMMIT;\n").unwrap();
    drop(statements);
    assert!(session.wait().unwrap().success());
    let second = second.await.unwrap();
    assert_eq!(next(&mut stream).await, change("removed", "reg_first"));
    assert_eq!(next(&mut stream).await, change("created", &second));
}
