//! The integration suite: one binary, a module per subject. Run it with `tests/run`.

mod answers;
mod image_pull;
mod image_push;
mod jobs;
mod jsonrpc;
mod passwords;
mod pull_credentials;
mod registry_test;
mod registry_unreachable;
mod bad_input;
mod inputs;
mod jsonrpc;
mod organizations;
mod registry;
mod server;
mod secrecy;
mod smoke;
mod tidy;
mod trpc;
