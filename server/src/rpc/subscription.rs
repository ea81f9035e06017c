//! Subscriptions, registered: the same wrapper around the beginning as around a call, and around every
//! event after it. One whose key is removed or expires ends in UNAUTHORIZED, also while there is nothing to tell.
//!
//! They are no jsonrpsee subscriptions, which belong to a connection of jsonrpsee's own and to its form
//! of ids: a door takes the events and puts them into its own envelope.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream, stream::BoxStream};
use jsonrpsee::types::ErrorObjectOwned;
use purser_proto_schema::procedure::Procedure;
use serde_json::value::{RawValue, to_raw_value};
use tokio_util::sync::CancellationToken;

use super::{Counted, Registrar, admit, panicked, refused};
use crate::{
    app::App,
    domain::{
        caller::{Call, Caller},
        held_open::Open,
        subscribers::Place,
        tracked::{Begun, Events, Tracked},
    },
    error::{Error, Result},
    metrics::Meter,
};

/// The events of a subscription, as they go out; after an error nothing comes.
pub type WireEvents = BoxStream<'static, std::result::Result<Tracked<Box<RawValue>>, ErrorObjectOwned>>;

/// A subscription that has begun, as it goes out.
pub struct WireSubscription {
    /// As of [`Begun`].
    pub since: Option<String>,
    /// What it tells.
    pub events: WireEvents,
}

/// How a subscription begins.
pub(super) type Begin = Arc<
    dyn Fn(
            Option<&str>,
            Option<&Arc<Caller>>,
        ) -> BoxFuture<'static, std::result::Result<WireSubscription, ErrorObjectOwned>>
        + Send
        + Sync,
>;

impl Registrar {
    /// Registers a subscription's handler inside the wrapper.
    pub(super) fn add_subscription<P, F, Fut>(&mut self, handler: F)
    where
        P: Procedure,
        F: Fn(Arc<App>, Arc<Call>, P::Input) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Begun<P::Output>>> + Send + 'static,
    {
        let app = Arc::clone(&self.app);
        let meter = Arc::new(Meter::new(Arc::clone(&app.metrics), P::INFO.name));
        let begin: Begin = Arc::new(move |params, caller| {
            // It lives as long as its events are read: whoever hangs up drops them.
            let (handler, app, meter) = (handler.clone(), Arc::clone(&app), Arc::clone(&meter));
            let admitted = admit::<P>(&app, params, caller, None, CancellationToken::new());
            async move {
                // What is counted and timed is how it begins.
                let traces = app.traces.clone();
                let counted = Counted::begin(&meter, &traces, false);
                let beginning = async {
                    let (call, input) = admitted?;
                    let place = app.subscribers.place(&call.caller)?;
                    let open = app.known_keys.hold_open(&call.caller);
                    let beginning = AssertUnwindSafe(handler(app, call, input)).catch_unwind();
                    let begun = beginning.await.unwrap_or_else(|_| Err(panicked()))?;
                    Ok((begun, (open, place)))
                };
                let begun = beginning.await;
                counted.end(begun.as_ref().err());
                let (Begun { since, events }, held) = begun.map_err(refused::<P>)?;
                Ok(WireSubscription { since, events: on_the_wire::<P>(while_open(events, held)) })
            }
            .boxed()
        });
        self.subscriptions.insert(P::INFO.name, begin);
    }
}

/// Events for as long as the key is valid that asked for them, and holding its place no longer than that.
fn while_open<T: Send + 'static>(events: Events<T>, held: (Open, Place)) -> Events<T> {
    let telling = stream::unfold((events, Some(held)), |(mut events, held)| async move {
        let (open, place) = held?;
        tokio::select! {
            biased;
            () = open.ended() => Some((Err(Error::Unauthorized), (events, None))),
            event = events.next() => Some((event?, (events, Some((open, place))))),
        }
    });
    telling.boxed()
}

fn on_the_wire<P: Procedure>(events: Events<P::Output>) -> WireEvents {
    let events = AssertUnwindSafe(events).catch_unwind().map(|event| {
        let Tracked { id, data } = event.unwrap_or_else(|_| Err(panicked()))?;
        let data = to_raw_value(&data).map_err(Error::internal("writing an event"))?;
        Ok(Tracked { id, data })
    });
    events.map(|event| event.map_err(refused::<P>)).boxed()
}
