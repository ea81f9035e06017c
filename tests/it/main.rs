//! The integration suite: one binary, a module per subject. Run it with `tests/run`.

#![allow(clippy::unwrap_used, reason = "everything here is a test, also what several tests call")]

/// Declares tests of each engine: `docker::NAME` and `podman::NAME`, of functions that take the engine.
macro_rules! on_each_engine {
    ($($test:ident),+ $(,)?) => {
        mod docker {
            $(#[tokio::test] async fn $test() {
                super::$test(purser_tests::Testbed::get().host_a()).await;
            })+
        }
        mod podman {
            $(#[tokio::test] async fn $test() {
                super::$test(purser_tests::Testbed::get().podman()).await;
            })+
        }
    };
}

mod answers;
mod api_keys;
mod at_once;
mod audit;
mod audit_export;
mod audit_holds;
mod backoff;
mod bad_input;
mod browse;
mod channel;
mod clients;
mod config;
mod credential_use;
mod database_lost;
mod deadlocks;
mod docker_hub;
mod documents;
mod dokploy_docs;
mod ended_keys;
mod engine_by_tcp;
mod enrolment;
mod faults;
mod hostile;
mod image_pull;
mod image_push;
mod inputs;
mod job_pulls;
mod job_retry;
mod job_watch;
mod jobs;
mod jsonrpc;
mod key_matrix;
mod large_batches;
mod large_inputs;
mod large_jobs;
mod limits;
mod local_agent;
mod matching;
mod operations;
mod organizations;
mod passwords;
mod plain;
mod podman;
mod pull_credentials;
mod rate_limits;
mod recovery;
mod registry;
mod registry_changes;
mod registry_events;
mod registry_test;
mod registry_unreachable;
mod replicas;
mod rust_client;
mod schemas;
mod secrecy;
mod server;
mod smoke;
mod sse;
mod stack;
mod stops;
mod strangers;
mod tidy;
mod tls;
mod traces;
mod trpc;
mod trpc_lines;
mod typescript;
