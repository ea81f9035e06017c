//! The audit: every mutation, and every use of a credential, with its outcome.

use super::caller::Call;
use crate::{app::App, store::AuditEntry};

/// Notes how a call ended. A failure to note it is logged and does not undo the call.
pub async fn record(app: &App, call: &Call, action: &str, outcome: &str) {
    let entry = AuditEntry {
        organization_id: call.organization(),
        api_key_id: Some(&call.caller.api_key_id),
        action,
        registry_id: call.registry.get().cloned(),
        server_id: call.server.get().cloned(),
        job_id: call.job.get().cloned(),
        outcome,
    };
    if let Err(error) = app.store.audit_append(entry).await {
        tracing::error!(action, error = %crate::error::chain(&error), "an audit event could not be stored");
    }
}
