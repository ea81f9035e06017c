//! The integration suite: one binary, a module per subject. Run it with `tests/run`.

#![allow(clippy::unwrap_used, reason = "everything here is a test, also what several tests call")]

mod answers;
mod backoff;
mod bad_input;
mod browse;
mod channel;
mod config;
mod credential_use;
mod dokploy_docs;
mod enrolment;
mod hostile;
mod image_pull;
mod image_push;
mod inputs;
mod jobs;
mod jsonrpc;
mod local_agent;
mod matching;
mod organizations;
mod passwords;
mod pull_credentials;
mod recovery;
mod registry;
mod registry_test;
mod registry_unreachable;
mod secrecy;
mod server;
mod smoke;
mod stack;
mod strangers;
mod tidy;
mod trpc;
