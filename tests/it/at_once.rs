//! What is not waited for: a target goes to its host with the statement that accepts it, and a test's verdict to its
//! caller before it is stored. And where that must not be: for a session that is not in force.

use std::time::Duration;

use purser_proto_schema::agent::{
    calls::{ServerCallsClient as _, VerdictReport},
    command::{Failure, Verdict},
};
use purser_registry_client::DiagnosisCode;
use purser_tests::{Purser, double::Double, unique};
use serde_json::{Value, json};

const NOBODY_LISTENS: &str = "nobody listens there, says the host";

fn failed() -> Verdict {
    let failure = Failure::new(DiagnosisCode::Connect, NOBODY_LISTENS, "start it");
    Verdict::Failed { failure, duration_ms: 1 }
}

/// A server, and who is to be its agent.
async fn host(purser: &Purser) -> (Value, Double) {
    let row = purser.client().mutate("server.create", json!({"name": unique("host")})).await;
    let double = Double::with_token(row["joinToken"].as_str().unwrap());
    (row["serverId"].clone(), double)
}

/// The newer one stands elsewhere, and nobody here knows of it yet.
#[tokio::test]
async fn what_is_accepted_while_its_session_is_not_in_force_waits_for_the_next_one() {
    let purser = Purser::start().await;
    let (server_id, double) = host(&purser).await;
    let mut older = double.dial(purser.address()).await.unwrap();
    let pull = async || {
        let asked = json!({"serverId": server_id, "image": "127.0.0.1:1/nothing:v1"});
        purser.client().mutate("image.pull", asked).await
    };
    pull().await;
    let first = older.target().await;
    let report = VerdictReport { attempt: first.attempt.clone(), verdict: failed() };
    older.peer.client().target_verdict(report).await.unwrap();
    purser.execute_sql("UPDATE server SET session_epoch = session_epoch + 1");
    pull().await;
    let said = older.ended().await;
    assert!(said.contains("superseded"), "{said}");
    assert!(older.started.try_recv().is_err(), "it was given to a session that is not in force");
    let member = Double { join_secret: None, ..double };
    let mut next = member.dial(purser.address()).await.unwrap();
    let given = next.target().await.attempt;
    assert_ne!(given.target_id, first.attempt.target_id);
    assert_eq!(given.attempt, 1, "it was with nobody before");
}

/// Longer than its caller goes without a look at the job.
const A_WHILE: Duration = Duration::from_secs(3);

/// That it is told again until it is stored, `job_retry` says.
#[tokio::test]
async fn who_waits_for_a_test_is_told_after_a_while_what_cannot_be_stored_yet() {
    let purser = Purser::start().await;
    let (server_id, double) = host(&purser).await;
    let mut session = double.dial(purser.address()).await.unwrap();
    let refuses = if purser.database().is_some() {
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''refused''; END'; \
         CREATE TRIGGER refuse BEFORE UPDATE OF finished_at ON job_target FOR EACH ROW EXECUTE FUNCTION refuse()"
    } else {
        "CREATE TRIGGER refuse BEFORE UPDATE OF finished_at ON job_target BEGIN SELECT RAISE(ABORT, 'refused'); END"
    };
    purser.execute_sql(refuses);
    let client = purser.client();
    let asked = json!({"registryUrl": "127.0.0.1:1", "serverId": server_id});
    let tested = client.trpc_mutation("registry.testRegistry", &asked);
    let told = async {
        let attempt = session.target().await.attempt;
        tokio::time::sleep(A_WHILE).await;
        let report = VerdictReport { attempt, verdict: failed() };
        assert!(session.peer.client().target_verdict(report).await.is_err(), "it is not stored");
    };
    let (answer, ()) = tokio::join!(tested, told);
    assert_eq!(answer.error()["message"], NOBODY_LISTENS, "{answer:?}");
}
