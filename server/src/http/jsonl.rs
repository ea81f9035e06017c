//! Batches for tRPC's `httpBatchStreamLink`: each call's answer goes out as soon as it is there.
//!
//! The first line has a promise for each position, `{"0":[[0],[null,0,0]],…}`; then comes a line for each
//! that is kept, `[<position>,0,[[<envelope>]]]`, in any order. An error is a promise that is kept, too. For
//! a caller that speaks superjson each whole line is wrapped, and nothing inside it. While no call ends, a space goes
//! out now and then, in front of the next line: what is between here and the caller sees that somebody is there.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use futures_util::{Stream, StreamExt, future::ready, stream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{
    BATCH_WIDTH,
    envelope::{Outcome, respond, unbuffered},
    trpc::Batch,
};
use crate::{error::Error, request, rpc};

const MEDIA_TYPE: &str = "application/jsonl";
/// After how long without a line a space is sent: `jsonl.pingMs` of tRPC's own server.
const PING: Duration = Duration::from_secs(10);

/// Whether the caller reads a batch's answers line by line.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    if let Some(own) = headers.get("trpc-accept") {
        return own == MEDIA_TYPE;
    }
    let accepted = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|media| media.trim() == MEDIA_TYPE)
}

/// The answer to a batch, whose calls have been counted; they begin when its body is read. Each is a task of its own: whoever stops reading stops
/// none of them half-way, with what it holds, such as a connection to the database.
pub(super) fn answer(batch: Arc<Batch>) -> Response {
    let superjson = batch.speaks_superjson();
    let promises: Vec<_> = (0..batch.len()).map(|at| format!(r#""{at}":[[0],[null,0,{at}]]"#)).collect();
    let head = Bytes::from(line(["{", &promises.join(","), "}"], superjson));
    // Not known any more when the body is read.
    let of = request::current();
    let calls = stream::iter(0..batch.len()).map(move |at| {
        let batch = Arc::clone(&batch);
        let told = move |outcome: Outcome| {
            let outcome = Outcome { superjson: false, ..outcome };
            line([&format!("[{at},0,[["), &outcome.envelope(), "]]]"], superjson)
        };
        // The line is made and counted by the task: it may be long before anybody looks at it.
        let call = request::within(of.clone(), async move {
            let outcome = batch.call(at).await;
            batch.hold(told(outcome))
        });
        async move {
            let called = AbortOnDropHandle::new(tokio::spawn(call)).await;
            called.unwrap_or_else(|error| {
                // Panics are caught around each procedure, and nobody else ends a call that is waited for.
                let error = Error::internal("answering a call of a batch")(error);
                told(Outcome::refused(rpc::public(&error))).into()
            })
        }
    });
    let lines = kept_alive(stream::once(ready(head)).chain(calls.buffer_unordered(BATCH_WIDTH)));
    let body = Body::from_stream(lines.map(Ok::<_, Infallible>));
    unbuffered(respond(StatusCode::OK, body))
}

fn kept_alive(lines: impl Stream<Item = Bytes> + Send + 'static) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(lines.boxed(), |mut lines| async move {
        match timeout(PING, lines.next()).await {
            Ok(line) => Some((line?, lines)),
            Err(_) => Some((Bytes::from_static(b" "), lines)),
        }
    })
}

/// Written once: of a large answer each copy would be kept in mind by the allocator.
fn line([before, json, after]: [&str; 3], superjson: bool) -> String {
    let [opened, closed] = if superjson { [r#"{"json":"#, "}\n"] } else { ["", "\n"] };
    [opened, before, json, after, closed].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn while_there_is_no_line_there_is_a_space_now_and_then_and_none_after_the_last() {
        let slow = stream::once(async {
            tokio::time::sleep(PING * 2 + PING / 2).await;
            Bytes::from_static(b"[0]\n")
        });
        let told: Vec<_> =
            kept_alive(stream::once(ready(Bytes::from_static(b"{}\n"))).chain(slow)).collect().await;
        assert_eq!(told, ["{}\n", " ", " ", "[0]\n"]);
    }
}
