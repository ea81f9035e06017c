//! The integration suite: one binary, a module per subject. Run it with `tests/run`.

// clippy allows it in `#[test]` functions only, not in what they call.
#![allow(clippy::unwrap_used)]

mod answers;
mod bad_input;
mod config;
mod dokploy_docs;
mod inputs;
mod jsonrpc;
mod organizations;
mod registry;
mod server;
mod smoke;
mod tidy;
mod trpc;
