//! The audit: every mutation, and every use of a credential, with its outcome. A call that makes a job
//! is noted together with the job ([`job::accept`](super::job::accept)); how that ends is the job's.

use purser_proto_schema::ids::RegistryId;

use super::caller::Call;
use crate::{app::App, store::AuditEntry};

/// The outcome of a call that did what was asked.
pub const OK: &str = "ok";

/// Notes how a call ended, unless it was noted already. A failure to note it is logged and does not
/// undo the call.
pub async fn record(app: &App, call: &Call, outcome: &str) {
    if !call.is_audited() {
        append(app, call.audit_entry(outcome)).await;
    }
}

/// Notes that a call used an entry's credential, and what came of it. One call may use several.
pub async fn record_use(app: &App, call: &Call, registry: RegistryId, outcome: &str) {
    append(app, AuditEntry { registry_id: Some(registry), ..call.audit_entry(outcome) }).await;
}

async fn append(app: &App, entry: AuditEntry<'_>) {
    let action = entry.action.to_owned();
    if let Err(error) = app.store.audit_append(entry).await {
        tracing::error!(action, error = %crate::error::chain(&error), "an audit event could not be stored");
    }
}
