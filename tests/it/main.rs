//! The integration suite: one binary, a module per subject. Run it with `tests/run`.

#![allow(clippy::unwrap_used, reason = "everything here is a test, also what several tests call")]

mod image_pull;
mod image_push;
mod jobs;
mod passwords;
mod pull_credentials;
mod registry_test;
mod registry_unreachable;
mod secrecy;
mod smoke;
mod tidy;
