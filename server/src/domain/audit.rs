//! The audit: every mutation, and every use of a credential, with its outcome. A call that makes a job
//! is noted together with the job ([`job::accept`](super::job::accept)); how that ends is the job's.

use super::caller::Call;
use crate::app::App;

/// The outcome of a call that did what was asked.
pub const OK: &str = "ok";

/// Notes how a call ended, unless it was noted already. A failure to note it is logged and does not
/// undo the call.
pub async fn record(app: &App, call: &Call, outcome: &str) {
    if call.is_audited() {
        return;
    }
    if let Err(error) = app.store.audit_append(call.audit_entry(outcome)).await {
        let action = call.action;
        tracing::error!(action, error = %crate::error::chain(&error), "an audit event could not be stored");
    }
}
