//! The doors: one listener, and nothing but translation.
//!
//! | path | door |
//! | --- | --- |
//! | `/api/trpc/<procedure>` | [`trpc`] |
//! | `/rpc` | [`rpc`]: JSON-RPC 2.0 over POST and WebSocket, subscriptions ([`rpc_subscriptions`]) on the latter |
//! | `/agent` | [`agent`]: the agents' channel |
//! | `/api/trpc.d.ts`, `/api/trpc-v10.d.ts` | [`typescript`]: what the tRPC door is |
//! | `/healthz`, `/readyz` | [`health`] |
//!
//! The plain door `/api/<procedure>`, subscriptions by SSE, the documents and the web console get modules of
//! their own beside these. [`tls`] is below all of them. A door authenticates ([`auth`]), finds the procedure in the table and calls
//! it in process ([`in_process`]); it decides nothing.

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{any, get},
};
use tokio_util::sync::CancellationToken;

use crate::{app::App, rpc::Procedures};

mod agent;
mod auth;
mod body;
mod document;
mod health;
mod in_process;
mod listener;
mod own_certificate;
mod rpc;
mod rpc_socket;
mod rpc_subscriptions;
mod superjson;
mod tls;
mod trpc;
mod typescript;

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
        .route("/api/trpc.d.ts", get(typescript::v11))
        .route("/api/trpc-v10.d.ts", get(typescript::v10))
        .route("/rpc", any(rpc::handle))
        .route(purser_proto_schema::agent::PATH, any(agent::handle))
        .route("/healthz", any(health::live))
        .route("/readyz", any(health::ready))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Doors { app, procedures, stop })
}
