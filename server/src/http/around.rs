//! What is around every door: the request's id, the headers that no answer goes without, and the count of answers.

use std::{net::IpAddr, sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};

use purser_proto_schema::{
    audit,
    error::Code,
    procedure::{Procedure as _, ProcedureInfo},
};

use super::{Doors, MOUNTS, Procedures, audit_export};
use crate::{
    app::App,
    metrics::{Metrics, UNKNOWN},
    request::{self, Door, RequestId},
    traces::{Context, Span, Traces},
};

/// The header that a request's id comes and goes by.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header by which a caller says that the request is part of a trace of its own.
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
/// What is served may load nothing, be framed by nobody, and be taken for nothing but what it says it is. A door
/// that serves pages says otherwise by itself.
const ALWAYS: [(HeaderName, HeaderValue); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];
/// A year, as browsers want it. They do not heed it of a certificate that they do not trust.
const OVER_TLS_ONLY: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// The address at the other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// What is needed around the doors.
#[derive(Clone)]
pub(super) struct Around {
    /// Whether this program itself serves TLS.
    pub(super) tls: bool,
    pub(super) metrics: Arc<Metrics>,
    pub(super) traces: Traces,
    /// Which names may be told in metrics.
    pub(super) procedures: Procedures,
}

pub(super) async fn every_door(State(around): State<Around>, request: Request, next: Next) -> Response {
    let id = id_of(request.headers());
    let source = request.extensions().get::<Peer>().map(|peer| peer.0);
    let (door, procedure) = around.door(request.uri().path());
    let of = request::Request::new(id.clone(), source, door);
    let (begun, method) = (Instant::now(), word_of(request.method()));
    let mut response = request::within(Some(of.clone()), next.run(request)).await;
    let status = response.status();
    around.metrics.answered(door, status.as_u16());
    if procedure.is_some() {
        around.traces.tell(|| {
            Span::of_request(&id, format!("{method} {}", door.as_str()), begun.elapsed())
                .with("http.request.method", method)
                .with("http.response.status_code", status.as_str())
                .with("purser.request_id", id.as_str())
                .failed(Some(status.as_str()).filter(|_| status.is_server_error()))
        });
    }
    if let Some(procedure) = procedure
        && !of.has_reached()
        && is_refusal(door, method, status)
    {
        around.metrics.turned_away(procedure, door, code_of(status).as_str());
    }
    let headers = response.headers_mut();
    // It was checked, or is hexadecimal.
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, id);
    }
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(value);
    }
    if around.tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, OVER_TLS_ONLY);
    }
    response
}

/// Counts a call that a door refuses by itself: by its own name, however many came by the same request, which is then not
/// counted as one more.
pub(super) fn turned_away(doors: &Doors, info: Option<&ProcedureInfo>, code: Code) {
    if let Some(request) = request::current() {
        request.reach();
        let procedure = info.map_or(UNKNOWN, |info| info.name);
        doors.app.metrics.turned_away(procedure, request.door, code.as_str());
    }
}

impl Around {
    pub(super) fn of(app: &App, procedures: &Procedures, tls: bool) -> Self {
        let (metrics, traces) = (Arc::clone(&app.metrics), app.traces.clone());
        Self { tls, metrics, traces, procedures: procedures.clone() }
    }

    /// The door of a path, and for those that lead to procedures the name of one, where it is known.
    fn door(&self, path: &str) -> (Door, Option<&'static str>) {
        let found = MOUNTS.iter().find_map(|(mount, door)| Some((*door, path.strip_prefix(mount)?)));
        match found {
            // The same procedure by another name.
            _ if path == audit_export::PATH => (Door::Plain, Some(audit::All::INFO.name)),
            Some((door @ (Door::Trpc | Door::Plain), name)) => {
                let info = self.procedures.info(name.trim_start_matches('/'));
                (door, Some(info.map_or(UNKNOWN, |info| info.name)))
            }
            Some((Door::JsonRpc, "")) => (Door::JsonRpc, Some(UNKNOWN)),
            Some((Door::Agent, "")) => (Door::Agent, None),
            _ => (Door::Other, None),
        }
    }
}

/// A method as OpenTelemetry names it: callers may make up others.
fn word_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::POST => "POST",
        _ => "_OTHER",
    }
}

/// Whether an answer that no procedure gave refuses a call. JSON-RPC says 200 of what is no call, too; elsewhere that
/// is a document, a preflight, an upgrade.
fn is_refusal(door: Door, method: &str, status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error() || (door == Door::JsonRpc && method == "POST")
}

/// How the status of a call that reached no procedure is called.
fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        401 => Code::Unauthorized,
        403 => Code::Forbidden,
        404 => Code::NotFound,
        405 => Code::MethodNotSupported,
        408 => Code::Timeout,
        413 => Code::PayloadTooLarge,
        415 => Code::UnsupportedMediaType,
        429 => Code::TooManyRequests,
        501 => Code::NotImplemented,
        503 => Code::ServiceUnavailable,
        500.. => Code::InternalServerError,
        // JSON-RPC says 200 of what is no call, too.
        _ => Code::BadRequest,
    }
}

fn id_of(headers: &HeaderMap) -> RequestId {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let parent = || Context::id_of_parent(headers.get(TRACE_PARENT)?.to_str().ok()?);
    given.and_then(RequestId::from_received).or_else(parent).unwrap_or_else(RequestId::generate)
}
