//! Batches for tRPC's `httpBatchStreamLink`: each call's answer goes out as soon as it is there.
//!
//! The first line has a promise for each position, `{"0":[[0],[null,0,0]],…}`; then comes a line for each
//! that is kept, `[<position>,0,[[<envelope>]]]`, in any order. An error is a promise that is kept, too. For
//! a caller that speaks superjson each whole line is wrapped, and nothing inside it.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use futures_util::{StreamExt, future::ready, stream};

use super::{
    BATCH_WIDTH,
    envelope::{Outcome, in_dialect, respond, unbuffered},
    trpc::Batch,
};

const MEDIA_TYPE: &str = "application/jsonl";

/// Whether the caller reads a batch's answers line by line.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    if let Some(own) = headers.get("trpc-accept") {
        return own == MEDIA_TYPE;
    }
    let accepted = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|media| media.trim() == MEDIA_TYPE)
}

/// The answer to a batch; its calls begin when its body is read.
pub(super) fn answer(batch: Arc<Batch>) -> Response {
    let superjson = batch.speaks_superjson();
    let promises: Vec<_> = (0..batch.len()).map(|at| format!(r#""{at}":[[0],[null,0,{at}]]"#)).collect();
    let head = line(&format!("{{{}}}", promises.join(",")), superjson);
    let calls = stream::iter(0..batch.len()).map(move |at| {
        let batch = Arc::clone(&batch);
        async move {
            let outcome = Outcome { superjson: false, ..batch.call(at).await };
            line(&format!("[{at},0,[[{}]]]", outcome.envelope()), superjson)
        }
    });
    let lines = stream::once(ready(head)).chain(calls.buffer_unordered(BATCH_WIDTH));
    let body = Body::from_stream(lines.map(|line| Ok::<_, Infallible>(Bytes::from(line))));
    unbuffered(respond(StatusCode::OK, body))
}

fn line(json: &str, superjson: bool) -> String {
    let mut line = in_dialect(json, superjson);
    line.push('\n');
    line
}
