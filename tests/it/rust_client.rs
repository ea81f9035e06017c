//! The typed Rust client against a running control plane.

use std::{pin::pin, time::Duration};

use futures_util::StreamExt as _;
use purser_proto_schema::{
    client::{Client, ClientError, SecretString},
    error::Code,
    ids::{JobId, RegistryId},
    image, job,
    job::JobStatus,
    patch::Patch,
    procedure::NoInput,
    registry::{
        All, Create, CreateInput, One, OneInput, Remove, RemoveInput, TestRegistryById,
        TestRegistryByIdInput, Update, UpdateInput,
    },
    server,
};
use purser_registry_client::DiagnosisCode;
use purser_tests::{Authority, Purser};

const NOWHERE: &str = "127.0.0.1:1";
const SOON: Duration = Duration::from_secs(30);

fn client(purser: &Purser) -> Client {
    Client::new(purser.url(), purser.admin_key().into()).unwrap()
}

fn nowhere() -> CreateInput {
    CreateInput::builder().registry_name("nowhere").registry_url(NOWHERE).build()
}

#[tokio::test]
async fn an_entry_is_made_listed_changed_tested_and_removed_and_its_failed_test_is_typed() {
    let purser = Purser::start().await;
    let purser = client(&purser);
    let password = SecretString::from("hunter2~>?");
    let input = CreateInput::builder().registry_name("GHCR").registry_url(format!("{NOWHERE}/myorg"));
    let entry = purser.call::<Create>(input.username("me").password(password.into()).build()).await.unwrap();
    assert_eq!((entry.registry_host.as_str(), entry.namespace.as_deref()), (NOWHERE, Some("myorg")));

    let all = purser.call::<All>(NoInput {}).await.unwrap();
    assert_eq!(all.iter().map(|one| &one.registry_id).collect::<Vec<_>>(), [&entry.registry_id]);

    let change = UpdateInput::builder().registry_id(entry.registry_id.clone());
    let change = change.registry_name("renamed").image_prefix(Patch::Set("apps".into())).build();
    let changed = purser.call::<Update>(change).await.unwrap();
    assert_eq!((changed.registry_name.as_str(), changed.image_prefix.as_deref()), ("renamed", Some("apps")));
    assert!(changed.has_credentials && changed.username.as_deref() == Some("me"), "what is absent stays");
    let change =
        UpdateInput::builder().registry_id(entry.registry_id.clone()).image_prefix(Patch::Clear).build();
    assert_eq!(purser.call::<Update>(change).await.unwrap().image_prefix, None);

    let test = TestRegistryByIdInput::builder().registry_id(entry.registry_id.clone()).build();
    let failed = purser.call::<TestRegistryById>(test).await.unwrap_err();
    assert_eq!(failed.code(), Some(Code::BadRequest));
    let diagnosis = failed.diagnosis().unwrap_or_else(|| panic!("{failed:?}"));
    assert_eq!(diagnosis.diagnosis.code, DiagnosisCode::Connect);
    assert!(!diagnosis.diagnosis.advice.is_empty() && !diagnosis.steps.is_empty());

    let remove = RemoveInput::builder().registry_id(entry.registry_id.clone()).build();
    assert_eq!(purser.call::<Remove>(remove).await.unwrap().registry_id, entry.registry_id);
    assert!(purser.call::<All>(NoInput {}).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_the_control_plane_refuses_is_told_apart() {
    let purser = Purser::start().await;
    let wrong = Client::new(purser.url(), "purser_wrong".to_owned().into()).unwrap();
    let error = wrong.call::<All>(NoInput {}).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Unauthorized), "{error:?}");
    let error = wrong
        .watch::<job::Watch>(job::WatchInput { job_id: JobId::generate(), last_event_id: None })
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(Code::Unauthorized), "{error:?}");

    let client = client(&purser);
    let error = client.call::<One>(OneInput { registry_id: RegistryId::generate() }).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::NotFound), "{error:?}");
    let error = client
        .watch::<job::Watch>(job::WatchInput { job_id: JobId::generate(), last_event_id: None })
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(Code::NotFound), "{error:?}");
    let nameless = CreateInput::builder().registry_name("").registry_url(NOWHERE).build();
    let error = client.call::<Create>(nameless).await.unwrap_err();
    let zod =
        error.public().and_then(|error| error.data.zod_error.as_ref()).unwrap_or_else(|| panic!("{error:?}"));
    assert!(zod.field_errors.contains_key("registryName"), "{zod:?}");

    purser.kill9();
    let error = client.call::<All>(NoInput {}).await.unwrap_err();
    assert!(matches!(error, ClientError::Connection(_)) && error.code().is_none(), "{error:?}");
}

/// A pull for a host that never joins.
async fn waiting_job(purser: &Client) -> job::Job {
    let host = server::CreateInput::builder().name(purser_tests::unique("host")).build();
    let host = purser.call::<server::Create>(host).await.unwrap().server;
    let pull = image::PullInput::builder().image("127.0.0.1:1/app:v1").server_id(host.server_id).build();
    purser.call::<image::Pull>(pull).await.unwrap()
}

#[tokio::test]
async fn a_job_is_watched_to_its_end_as_a_stream() {
    let purser = Purser::start().await;
    let purser = client(&purser);
    let job = waiting_job(&purser).await;
    let input = || job::WatchInput { job_id: job.job_id.clone(), last_event_id: None };
    let mut events = pin!(purser.watch::<job::Watch>(input()).await.unwrap().into_stream());
    let mut next = async || tokio::time::timeout(SOON, events.next()).await.unwrap().unwrap().unwrap().data;
    assert_eq!(next().await.status, JobStatus::Queued);
    let cancelled = purser.call::<job::Cancel>(job::OneInput { job_id: job.job_id.clone() }).await.unwrap();
    assert_eq!(next().await, cancelled);
    assert!(cancelled.status.is_final());
}

#[tokio::test]
async fn a_watch_says_when_the_control_plane_stops_or_is_gone() {
    for killed in [false, true] {
        let purser = Purser::start().await;
        let client = client(&purser);
        let job = waiting_job(&client).await;
        let mut watch = client
            .watch::<job::Watch>(job::WatchInput { job_id: job.job_id, last_event_id: None })
            .await
            .unwrap();
        assert_eq!(watch.next().await.unwrap().data.status, JobStatus::Queued);
        if killed {
            purser.kill9();
        } else {
            purser.stop().await;
        }
        let error = tokio::time::timeout(SOON, watch.next()).await.unwrap().unwrap_err();
        match error {
            ClientError::Closed(reason) if !killed => assert_eq!(reason, "the server is stopping"),
            ClientError::Connection(_) if killed => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_key_is_sent_to_nobody_whose_certificate_is_not_vouched_for() {
    let purser = Purser::builder().listen("0.0.0.0:0").start().await;
    let stranger = Authority::new("stranger").pem();
    let key = || SecretString::from(purser.admin_key());
    for client in [Client::new(purser.url(), key()), Client::trusting(purser.url(), key(), &stranger)] {
        let client = client.unwrap();
        let error = client.call::<All>(NoInput {}).await.unwrap_err();
        assert!(matches!(error, ClientError::Connection(_)), "{error:?}");
        let error = client
            .watch::<job::Watch>(job::WatchInput { job_id: JobId::generate(), last_event_id: None })
            .await
            .unwrap_err();
        assert!(matches!(error, ClientError::Connection(_)), "{error:?}");
    }
    let client = Client::trusting(purser.url(), key(), &purser.trusted()).unwrap();
    client.call::<Create>(nowhere()).await.unwrap();
    let job = waiting_job(&client).await;
    let mut watch = client
        .watch::<job::Watch>(job::WatchInput { job_id: job.job_id, last_event_id: None })
        .await
        .unwrap();
    assert_eq!(watch.next().await.unwrap().data.status, JobStatus::Queued);
    let none = Client::trusting(purser.url(), key(), "no certificate").unwrap_err();
    assert!(matches!(none, ClientError::Tls(_)), "{none:?}");
}
