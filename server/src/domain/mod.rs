//! The rules of Purser, one module per namespace, under the names that the wires use.
//!
//! A function here takes the caller and an input that has the right shape, decides, and answers. It
//! calls the store, dispatch, the vault and the registry client. It knows nothing of HTTP, tRPC or
//! JSON-RPC, and hands a plaintext secret to nobody but the vault and the registry client.

pub mod api_key;
pub mod audit;
pub mod caller;
pub mod first_start;
pub mod held_open;
pub mod image;
pub mod job;
pub mod large_inputs;
pub mod last_use;
pub mod matching;
pub mod names;
pub mod naming;
pub mod operations;
pub mod organization;
pub mod rate_limit;
pub mod reencrypt;
pub mod registry;
pub mod server;
pub mod stack;
pub mod subscribers;
pub mod targets;
pub mod tracked;
