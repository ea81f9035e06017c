//! `/healthz`: the process answers. `/readyz`: and so does its database.

use axum::{extract::State, http::StatusCode};

use super::Doors;

pub(super) async fn live() -> &'static str {
    "ok\n"
}

pub(super) async fn ready(State(doors): State<Doors>) -> (StatusCode, &'static str) {
    if doors.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    match crate::domain::operations::ready(&doors.app).await {
        Ok(()) => (StatusCode::OK, "ok\n"),
        Err(error) => {
            tracing::error!(error = %crate::error::chain(&error), "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n")
        }
    }
}
