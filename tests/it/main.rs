//! The integration suite: one binary, a module per subject. Run it with `tests/run`.

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
