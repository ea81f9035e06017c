//! Spans as OTLP's JSON says them: ids in hexadecimal, times as nanoseconds since 1970 in texts.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{Place, Span, random_id};

/// `SPAN_KIND_INTERNAL` and `SPAN_KIND_SERVER`.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

/// An `ExportTraceServiceRequest`.
pub(super) fn text(spans: &[Span], service: &str) -> String {
    let resource =
        [attribute("service.name", service), attribute("service.version", env!("CARGO_PKG_VERSION"))];
    json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{
            "scope": {"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")},
            "spans": spans.iter().map(span).collect::<Vec<_>>(),
        }],
    }]})
    .to_string()
}

fn span(span: &Span) -> Value {
    let (id, parent, kind) = match span.place {
        Place::Request => (span.context.request, span.context.caller, SERVER),
        Place::Within => (random_id(), Some(span.context.request), INTERNAL),
    };
    let began = span.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let nanos = |at: Duration| at.as_nanos().to_string();
    json!({
        "traceId": hex(&span.context.trace),
        "spanId": hex(&id),
        "parentSpanId": parent.map(|parent| hex(&parent)).unwrap_or_default(),
        "name": span.name,
        "kind": kind,
        "startTimeUnixNano": nanos(began),
        "endTimeUnixNano": nanos(began + span.took),
        "attributes": span.attributes.iter().map(|(name, value)| attribute(name, value)).collect::<Vec<_>>(),
        "status": match &span.error {
            Some(code) => json!({"code": ERROR, "message": code}),
            None => json!({}),
        },
    })
}

fn attribute(name: &str, value: &str) -> Value {
    json!({"key": name, "value": {"stringValue": value}})
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
