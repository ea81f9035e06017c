//! The integration suite: one binary, a module per subject. Run it with `tests/run`.

mod answers;
mod jsonrpc;
mod smoke;
mod tidy;
mod trpc;
