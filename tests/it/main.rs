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
mod backoff;
mod bad_input;
mod browse;
mod channel;
mod config;
mod credential_use;
mod dokploy_docs;
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
mod local_agent;
mod matching;
mod organizations;
mod passwords;
mod podman;
mod pull_credentials;
mod recovery;
mod registry;
mod registry_test;
mod registry_unreachable;
mod replicas;
mod rust_client;
mod secrecy;
mod server;
mod smoke;
mod stack;
mod strangers;
mod tidy;
mod tls;
mod trpc;
mod typescript;
