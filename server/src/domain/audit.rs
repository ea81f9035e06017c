//! The audit: every mutation, every use of a credential, and every key that was refused, with the outcome. What
//! changes something is noted in the transaction that changes it. A call that makes a job is noted together with the
//! job ([`job::accept`](super::job::accept)); how that ends is the job's.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Datelike as _, Utc};
use purser_proto_schema::{
    audit::{AllInput, AuditEvent, AuditPage},
    ids::{ApiKeyId, AuditEventId, JobId, OrganizationId, RegistryId, ServerId},
    permission::Permission,
    time::Timestamp,
};

use super::caller::{Call, Caller};
use crate::{
    app::App,
    error::{Issues, Result},
    refusals::Refusal,
    store::{AuditEntry, AuditFilter, AuditRow},
};

/// The outcome of a call that did what was asked.
pub const OK: &str = "ok";
/// The outcome of a call that its key may not make.
const FORBIDDEN: &str = "FORBIDDEN";
const DEFAULT_PAGE: u32 = 50;
const MAX_PAGE: u32 = 100;
/// The longest action or outcome that is looked for, in bytes.
const MAX_WORD: usize = 64;

/// Notes how a call ended, unless it was noted already: with what it changed, or with the job that it made. So it is
/// of calls that failed, or changed nothing here. A failure to note it is logged.
pub async fn record(app: &App, call: &Call, outcome: &str) {
    if !call.is_audited() {
        append(app, call.audit_entry(outcome)).await;
    }
}

/// Notes that a call used an entry's credential, and what came of it. One call may use several.
pub async fn record_use(app: &App, call: &Call, registry: RegistryId, outcome: &str) {
    append(app, AuditEntry { registry_id: Some(registry), ..call.audit_entry(outcome) }).await;
}

/// Notes that a call was not let through to its procedure. What a key repeats is not noted each time.
pub fn record_forbidden(app: &App, caller: &Caller, action: &'static str) {
    app.refusals.note(Refusal {
        organization_id: Some(caller.organization_id.clone()),
        api_key_id: Some(caller.api_key_id.clone()),
        server_id: None,
        action,
        outcome: FORBIDDEN,
    });
}

async fn append(app: &App, entry: AuditEntry<'_>) {
    let action = entry.action.to_owned();
    if let Err(error) = app.store.audit_append(entry).await {
        tracing::error!(action, error = %crate::error::chain(&error), "an audit event could not be stored");
    }
}

/// `audit.all`
pub async fn all(app: Arc<App>, call: Arc<Call>, input: AllInput) -> Result<AuditPage> {
    let organization = match input.instance {
        Some(true) => {
            call.caller.require(Permission::InstanceAdmin)?;
            None
        }
        Some(false) | None => Some(call.organization()),
    };
    let mut issues = Issues::default();
    let limit = input.limit.unwrap_or(DEFAULT_PAGE);
    if limit == 0 || limit > MAX_PAGE {
        issues.add("limit", "must be from 1 to 100");
    }
    let before = input.cursor.as_deref().map(decode_cursor);
    if before == Some(None) {
        issues.add("cursor", "must be the nextCursor of a page before");
    }
    let filter = AuditFilter {
        registry_id: input.registry_id,
        server_id: input.server_id,
        api_key_id: input.api_key_id,
        job_id: input.job_id,
        subject_api_key_id: input.subject_api_key_id,
        subject_organization_id: input.subject_organization_id,
        action: word(&mut issues, "action", input.action),
        outcome: word(&mut issues, "outcome", input.outcome),
        from: moment(&mut issues, "from", input.from),
        to: moment(&mut issues, "to", input.to),
        before: before.flatten(),
    };
    issues.into_result(())?;
    // One more than asked tells whether there is another page.
    let mut rows = app.store.audit_page(organization, filter, u64::from(limit) + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| more).map(|row| encode_cursor(&row.audit_event_id));
    Ok(AuditPage { items: rows.into_iter().map(view).collect(), next_cursor })
}

fn word(issues: &mut Issues, field: &'static str, text: Option<String>) -> Option<String> {
    let text = text?;
    if text.is_empty() || text.len() > MAX_WORD || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        issues.add(field, "must be 1 to 64 letters, digits, `.`, `_` and the like");
    }
    Some(text)
}

/// Within the years that both databases order as calendars do.
fn moment(issues: &mut Issues, field: &'static str, at: Option<Timestamp>) -> Option<DateTime<Utc>> {
    let at = at?.to_utc();
    if !(1970..10_000).contains(&at.year()) {
        issues.add(field, "must be a time from 1970 to 9999");
        return None;
    }
    Some(at)
}

fn encode_cursor(id: &str) -> String {
    URL_SAFE_NO_PAD.encode(id)
}

fn decode_cursor(text: &str) -> Option<AuditEventId> {
    let id = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok())?;
    let id = AuditEventId::from_received(id).ok()?;
    id.uuid().is_some().then_some(id)
}

fn view(row: AuditRow) -> AuditEvent {
    AuditEvent {
        audit_event_id: AuditEventId::from_stored(row.audit_event_id),
        at: row.at.into(),
        action: row.action,
        outcome: row.outcome,
        api_key_id: row.api_key_id.map(ApiKeyId::from_stored),
        registry_id: row.registry_id.map(RegistryId::from_stored),
        server_id: row.server_id.map(ServerId::from_stored),
        job_id: row.job_id.map(JobId::from_stored),
        subject_api_key_id: row.subject_api_key_id.map(ApiKeyId::from_stored),
        subject_organization_id: row.subject_organization_id.map(OrganizationId::from_stored),
        request_id: row.request_id,
        source: row.source,
        count: u32::try_from(row.count).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is_one() {
        let id = AuditEventId::generate();
        assert_eq!(decode_cursor(&encode_cursor(id.as_str())), Some(id.clone()));
        let foreign = encode_cursor(JobId::generate().as_str());
        for text in ["", "x", id.as_str(), &foreign, &encode_cursor("aud_"), &encode_cursor("aud_\u{0}")] {
            assert_eq!(decode_cursor(text), None, "{text}");
        }
    }
}
