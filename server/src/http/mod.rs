//! The doors: one listener, and nothing but translation.
//!
//! | path | door |
//! | --- | --- |
//! | `/api/trpc/<procedure>` | [`trpc`]; batches line by line ([`jsonl`]); subscriptions by SSE ([`sse`]) |
//! | `/api/<procedure>` | [`plain`]; its query parameters are [`parameters`] |
//! | `/api/openapi.json` | [`openapi`]: what the plain door is |
//! | `/rpc` | [`rpc`]: JSON-RPC 2.0 over POST and WebSocket, subscriptions ([`rpc_subscriptions`]) on the latter; `rpc.discover` ([`openrpc`]) |
//! | `/agent` | [`agent`]: the agents' channel |
//! | `/healthz`, `/readyz` | [`health`] |
//!
//! The web console gets modules of its own beside these. [`tls`] is below all of them. A door authenticates
//! ([`auth`]), finds the procedure in the table and calls it in process ([`in_process`]); it decides nothing.
//! What a key may still do is in every answer's headers ([`allowance`]), whichever door gave it.

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{any, get},
};
use tokio_util::sync::CancellationToken;

use crate::{app::App, rpc::Procedures};

mod agent;
mod allowance;
mod auth;
mod body;
mod document;
mod envelope;
mod health;
mod in_process;
mod jsonl;
mod listener;
mod openapi;
mod openrpc;
mod own_certificate;
mod parameters;
mod plain;
mod rpc;
mod rpc_socket;
mod rpc_subscriptions;
mod sse;
mod superjson;
mod tls;
mod trpc;
mod write_deadline;

pub use listener::serve;
pub use tls::{Source, Tls};

/// The largest body of a call, in bytes.
const MAX_BODY: usize = 1024 * 1024;
/// How long a caller may take to send a body.
const BODY: std::time::Duration = std::time::Duration::from_secs(15);
/// The most calls in one batch.
const MAX_BATCH: usize = 100;
/// Calls of one batch that are under way at once.
const BATCH_WIDTH: usize = 8;

/// What every door holds.
#[derive(Clone)]
struct Doors {
    app: Arc<App>,
    procedures: Procedures,
    stop: CancellationToken,
}

/// All doors as one router.
pub fn router(app: Arc<App>, procedures: Procedures, stop: CancellationToken) -> Router {
    Router::new()
        .route("/api/trpc/{*path}", any(trpc::handle))
        .route("/api/openapi.json", get(openapi::handle))
        .route("/api/{*procedure}", any(plain::handle))
        .route("/rpc", any(rpc::handle))
        .route(purser_proto_schema::agent::PATH, any(agent::handle))
        .route("/healthz", any(health::live))
        .route("/readyz", any(health::ready))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(allowance::tell))
        .with_state(Doors { app, procedures, stop })
}
