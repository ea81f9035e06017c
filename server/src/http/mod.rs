//! The doors: one listener, and nothing but translation.
//!
//! | path | door |
//! | --- | --- |
//! | `/api/trpc/<procedure>` | [`trpc`]; batches line by line ([`jsonl`]); subscriptions by SSE ([`sse`]) |
//! | `/api/<procedure>` | [`plain`]; its query parameters are [`parameters`] |
//! | `/api/openapi.json` | [`openapi`]: what the plain door is |
//! | `/api/audit.jsonl` | [`audit_export`] |
//! | `/rpc` | [`rpc`]: JSON-RPC 2.0 over POST and WebSocket, taken apart by [`rpc_text`], subscriptions ([`rpc_subscriptions`]) on the latter; `rpc.discover` ([`openrpc`]) |
//! | `/agent` | [`agent`]: the agents' channel |
//! | `/api/trpc.d.ts`, `/api/trpc-v10.d.ts` | [`typescript`]: what the tRPC door is |
//! | `/healthz`, `/readyz` | [`health`] |
//! | `/metrics` | [`metrics`] |
//!
//! The web console gets modules of its own beside these. [`tls`] is below all of them. A door authenticates
//! ([`auth`]), finds the procedure in the table and calls it in process ([`in_process`]); it decides nothing.
//! Answers that nobody reads are bounded ([`unread`]), and
//! what a key may still do is in every answer's headers ([`allowance`]), whichever door gave it. [`around`] is
//! around all of them.

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method},
    middleware,
    routing::{any, get},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::cors::CorsLayer;

use crate::{
    app::App,
    config::Settings,
    domain::large_inputs::LargeInputs,
    error::{Error, Result},
    request::Door,
    rpc::Procedures,
};

mod agent;
mod allowance;
mod around;
mod audit_export;
mod auth;
mod batch;
mod body;
mod document;
mod envelope;
mod health;
mod in_process;
mod jsonl;
mod listener;
mod metrics;
mod openapi;
mod openrpc;
mod own_certificate;
mod parameters;
mod plain;
mod rpc;
mod rpc_socket;
mod rpc_subscriptions;
mod rpc_text;
mod sse;
mod superjson;
mod tls;
mod trpc;
mod typescript;
mod unread;
mod write_deadline;

pub use listener::{listen, serve};
pub use tls::{Source, Tls};

/// The largest body of a call, in bytes.
const MAX_BODY: usize = 1024 * 1024;
/// How long a caller may take to send a body.
const BODY: std::time::Duration = std::time::Duration::from_secs(15);
/// How long a large input waits for its turn: within the time for a body, so that there is some left to send it.
const TURN: std::time::Duration = std::time::Duration::from_secs(10);
/// What is read of a body before its caller is looked at and it needs a place among the large inputs, in bytes.
const SMALL_BODY: usize = 64 * 1024;
/// How large the answers of one batch are together, in bytes, before no further one of its calls is made.
const BATCH_ANSWERS: usize = 2 * 1024 * 1024;
/// The most calls in one batch.
const MAX_BATCH: usize = 100;
/// Calls of one batch that are under way at once.
const BATCH_WIDTH: usize = 8;

/// Where the doors are that are told apart in metrics. The first that fits counts.
const MOUNTS: [(&str, Door); 4] = [
    ("/api/trpc/", Door::Trpc),
    ("/api/", Door::Plain),
    ("/rpc", Door::JsonRpc),
    (purser_proto_schema::agent::PATH, Door::Agent),
];
/// What a browser elsewhere may send, and how long it may remember that.
const CORS_HEADERS: [&str; 10] = [
    "authorization",
    "content-type",
    "last-event-id",
    "traceparent",
    "tracestate",
    "trpc-accept",
    "trpc-batch-mode",
    "x-api-key",
    "x-request-id",
    "x-trpc-source",
];
/// What its pages may read of an answer's headers.
const CORS_EXPOSED: [&str; 10] = [
    "ratelimit-limit",
    "ratelimit-policy",
    "ratelimit-remaining",
    "ratelimit-reset",
    "retry-after",
    "www-authenticate",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-request-id",
];
const CORS_MAX_AGE: std::time::Duration = std::time::Duration::from_secs(600);

/// What every door holds.
#[derive(Clone)]
struct Doors {
    app: Arc<App>,
    procedures: Procedures,
    stop: CancellationToken,
    /// Sockets, which the listener does not know any more after their upgrade.
    sockets: TaskTracker,
    metrics: metrics::Access,
    large_inputs: LargeInputs,
    unread: unread::Unread,
    large_batches: batch::LargeBatches,
}

impl Doors {
    fn new(app: Arc<App>, procedures: Procedures, metrics: metrics::Access, reached: Reached) -> Self {
        let Reached { stop, sockets, .. } = reached;
        Self {
            app,
            procedures,
            stop,
            sockets,
            metrics,
            large_inputs: LargeInputs::default(),
            unread: unread::Unread::default(),
            large_batches: batch::LargeBatches::default(),
        }
    }
}

/// The doors, as they are reached.
pub struct Reached {
    /// By TLS that ends here.
    pub tls: bool,
    /// Told when to stop.
    pub stop: CancellationToken,
    /// Knows the open sockets.
    pub sockets: TaskTracker,
}

/// All doors as one router.
///
/// # Errors
/// [`Error::Internal`] where a name of `--cors-allow-origin` can be no header.
pub fn router(
    app: Arc<App>,
    procedures: Procedures,
    settings: &Settings,
    reached: Reached,
) -> Result<Router> {
    let around = around::Around::of(&app, &procedures, reached.tls);
    let doors = Doors::new(app, procedures, metrics::Access::at_the_doors(settings), reached);
    let router = Router::new()
        .route("/api/trpc/{*path}", any(trpc::handle))
        .route("/api/openapi.json", get(openapi::handle))
        .route("/api/{*procedure}", any(plain::handle))
        .route(audit_export::PATH, any(audit_export::handle))
        .route("/api/trpc.d.ts", get(typescript::v11))
        .route("/api/trpc-v10.d.ts", get(typescript::v10))
        .route("/rpc", any(rpc::handle))
        .route(purser_proto_schema::agent::PATH, any(agent::handle))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::handle))
        .layer(middleware::from_fn(allowance::tell));
    let router = match cors(&settings.cors_allow_origin)? {
        Some(cors) => router.layer(cors),
        None => router,
    };
    Ok(router.layer(middleware::from_fn_with_state(around, around::every_door)).with_state(doors))
}

/// What is reached at `--metrics-listen`: nothing that knows a tenant.
pub fn operators_router(
    app: Arc<App>,
    procedures: Procedures,
    settings: &Settings,
    reached: Reached,
) -> Router {
    let around = around::Around::of(&app, &procedures, reached.tls);
    let doors = Doors::new(app, procedures, metrics::Access::apart(settings), reached);
    Router::new()
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::handle))
        .layer(middleware::from_fn_with_state(around, around::every_door))
        .with_state(doors)
}

/// Browsers' pages of these origins may call; of none where none is named. Never with a browser's own credentials: a
/// page has to have a key.
fn cors(origins: &[String]) -> Result<Option<CorsLayer>> {
    if origins.is_empty() {
        return Ok(None);
    }
    let origins = origins
        .iter()
        .map(|origin| HeaderValue::from_str(origin))
        .collect::<std::result::Result<Vec<_>, _>>();
    let origins = origins.map_err(Error::internal("reading --cors-allow-origin"))?;
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(CORS_HEADERS.map(HeaderName::from_static))
        .expose_headers(CORS_EXPOSED.map(HeaderName::from_static))
        .max_age(CORS_MAX_AGE);
    Ok(Some(layer))
}
