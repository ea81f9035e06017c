//! Batches of more calls than are made at once: what their queries leave to others. (Always on PostgreSQL, whichever
//! database the rest of the suite runs on: it can be told to let those of one table wait.)

use std::{
    process::{Child, Stdio},
    time::Duration,
};

use futures_util::future::join_all;
use http::Method;
use purser_tests::{Client, Purser, database::Database, eventually, process};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};

const SOON: Duration = Duration::from_secs(30);
/// Calls of a batch, and batches: together many more than the database has connections.
const CALLS: usize = 12;
const BATCHES: usize = 8;
/// Half of the connections to the database, and what one organization may have of that.
const AT_ONCE: &str = "4";
const OF_ONE: &str = "2";
/// How the one who holds the table is called.
const HOLDER: &str = "holds the audit";

/// By which a batch is sent.
#[derive(Clone, Copy)]
enum Door {
    Trpc,
    Lines,
    Rpc,
    Socket,
}

/// Nobody reads the audit before this is over.
struct Held<'a> {
    database: &'a Database,
    psql: Child,
}

impl<'a> Held<'a> {
    async fn new(database: &'a Database) -> Self {
        let mut psql = process::tied("psql");
        psql.env("PGAPPNAME", HOLDER).args(["--no-psqlrc", "--quiet"]).arg(database.url());
        let hold = "BEGIN; LOCK TABLE audit_event IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)";
        psql.args(["--command", hold]).stdout(Stdio::null()).stderr(Stdio::null());
        let psql = process::spawn(psql).unwrap();
        let held = "SELECT COUNT(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock' \
                    AND relation = 'audit_event'::regclass";
        eventually(SOON, async || (database.value(held) == "1").then_some(())).await;
        Self { database, psql }
    }

    /// How many of the server's questions wait for it.
    fn waiting(&self) -> String {
        let waiting = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
                       AND application_name = 'purser-server' AND wait_event_type = 'Lock'";
        self.database.value(waiting)
    }

    fn over(mut self) {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name =";
        self.database.execute(&format!("{end} '{HOLDER}' AND datname = current_database()"));
        self.psql.wait().unwrap();
    }
}

/// How many calls of one batch were answered with a page.
async fn pages(client: &Client, door: Door) -> usize {
    let names = ["audit.all"; CALLS].join(",");
    let calls: Vec<_> =
        (0..CALLS).map(|id| json!({"jsonrpc": "2.0", "method": "audit.all", "id": id})).collect();
    let calls = Value::from(calls);
    let path = format!("/api/trpc/{names}?batch=1");
    let text = match door {
        Door::Trpc => client.get(&path).await.text(),
        Door::Rpc => client.post("/rpc", &calls).await.text(),
        Door::Lines => {
            let mut lines =
                client.stream(Method::GET, &path, &[("trpc-accept", "application/jsonl")], "").await;
            let mut text = String::new();
            while let Some(line) = lines.line().await {
                text += &line;
            }
            text
        }
        Door::Socket => {
            let mut socket = client.websocket().await.unwrap();
            socket.send(&calls.to_string()).await.unwrap();
            socket.receive().await.unwrap().to_string()
        }
    };
    text.matches(r#""items":["#).count()
}

#[tokio::test]
async fn the_queries_of_large_batches_leave_half_of_the_database_to_others() {
    let database = Database::create();
    let purser = Purser::builder().database_url(database.url()).start().await;
    let (client, other) = (purser.client(), purser.client().afresh());
    assert_eq!(other.get("/api/registry.all").await.status, 200);
    // Of one organization half of that.
    let elsewhere = client.mutate("organization.create", json!({"name": "elsewhere"})).await;
    let key = json!({"name": "k", "role": "admin", "organizationId": elsewhere["organizationId"]});
    let elsewhere = client.with_key(client.mutate("apiKey.create", key).await["key"].as_str().unwrap());
    for door in [Door::Trpc, Door::Lines, Door::Rpc, Door::Socket] {
        let held = Held::new(&database).await;
        let mut batches = JoinSet::new();
        let batch = |client: &Client| {
            let client = client.afresh();
            async move { pages(&client, door).await }
        };
        for _ in 0..BATCHES {
            batches.spawn(batch(&client));
        }
        eventually(SOON, async || (held.waiting() == OF_ONE).then_some(())).await;
        batches.spawn(batch(&elsewhere));
        eventually(SOON, async || (held.waiting() == AT_ONCE).then_some(())).await;
        let others = join_all((0..20).map(|_| other.get("/api/registry.all")));
        let others = timeout(SOON, others).await.expect("there is a connection left for others");
        assert!(others.iter().all(|answer| answer.status == 200), "{others:?}");
        assert_eq!(held.waiting(), AT_ONCE);
        held.over();
        // What waited too long was told to come again.
        let answered: usize = batches.join_all().await.iter().sum();
        assert!((1..=(BATCHES + 1) * CALLS).contains(&answered), "{answered}");
    }
}
