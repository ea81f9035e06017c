//! The procedures, registered: one thin line each, in a file per namespace.
//!
//! The wrapper around every handler is here and nowhere else: rate limit, permission, input, panic, audit, and
//! the one mapping of errors. Every door calls these methods in process, so nothing of it can be
//! gone around.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Instant,
};

use futures_util::FutureExt;
use jsonrpsee::{
    Extensions, RpcModule,
    core::server::Methods,
    types::{ErrorObjectOwned, Params},
};
use purser_proto_schema::procedure::{self, Kind, Procedure, ProcedureInfo};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use tokio_util::sync::CancellationToken;

use subscription::Begin;

use crate::{
    app::App,
    domain::{
        audit as trail,
        caller::{Call, Caller},
    },
    error::{Error, Result},
    metrics::Meter,
    request::{self, Door, Request},
    traces::{Span, Traces},
};

mod api_key;
mod aside;
mod audit;
mod error;
mod image;
mod input;
mod job;
mod organization;
mod registry;
mod server;
mod stack;
mod subscription;

pub use aside::Aside;
use error::code;
pub use error::{public, wire};
pub use subscription::{WireEvents, WireSubscription};

/// A method's answer.
pub type Answer = std::result::Result<Box<RawValue>, ErrorObjectOwned>;

/// The largest answer, in bytes: a list of the most that can be asked for fits.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// The registered procedures, by name.
#[derive(Clone)]
pub struct Procedures {
    methods: Methods,
    subscriptions: Arc<HashMap<&'static str, Begin>>,
    infos: Arc<HashMap<&'static str, &'static ProcedureInfo>>,
    /// What ends a subscription, on JSON-RPC.
    ends: Arc<HashSet<String>>,
}

impl Procedures {
    /// Registers every procedure of the table.
    ///
    /// # Errors
    /// [`Error::Internal`] when the table names a procedure that has no handler: a fault of the build.
    pub fn register(app: Arc<App>) -> Result<Self> {
        let mut registrar = Registrar {
            module: RpcModule::from_arc(Arc::clone(&app)),
            app,
            subscriptions: HashMap::new(),
            failed: None,
        };
        registry::register(&mut registrar);
        server::register(&mut registrar);
        image::register(&mut registrar);
        stack::register(&mut registrar);
        job::register(&mut registrar);
        organization::register(&mut registrar);
        api_key::register(&mut registrar);
        audit::register(&mut registrar);
        if let Some(error) = registrar.failed {
            return Err(Error::internal("registering the procedures")(error));
        }
        let methods: Methods = registrar.module.into();
        let infos: HashMap<_, _> = procedure::table().map(|info| (info.name, info)).collect();
        let subscriptions = registrar.subscriptions;
        let missing = |name: &&&str| methods.method(name).is_none() && !subscriptions.contains_key(**name);
        if let Some(name) = infos.keys().find(missing) {
            return Err(Error::Internal { what: "registering the procedures", source: (*name).into() });
        }
        let ends = infos.values().filter_map(|info| info.unsubscribe()).collect();
        Ok(Self {
            methods,
            subscriptions: Arc::new(subscriptions),
            infos: Arc::new(infos),
            ends: Arc::new(ends),
        })
    }

    /// What the table says of a procedure.
    pub fn info(&self, name: &str) -> Option<&'static ProcedureInfo> {
        self.infos.get(name).copied()
    }

    /// Whether a JSON-RPC method of this name ends subscriptions.
    pub fn ends_subscriptions(&self, name: &str) -> bool {
        self.ends.contains(name)
    }

    /// The methods, for in-process calls.
    pub fn methods(&self) -> &Methods {
        &self.methods
    }

    /// Begins a subscription. Without a caller the answer is UNAUTHORIZED.
    ///
    /// # Errors
    /// As the procedure's own, on the wire's terms.
    pub async fn subscribe(
        &self,
        name: &str,
        params: Option<&str>,
        caller: Option<&Arc<Caller>>,
    ) -> std::result::Result<WireSubscription, ErrorObjectOwned> {
        match self.subscriptions.get(name) {
            Some(begin) => begin(params, caller).await,
            None => Err(wire(name, Error::NotFound("procedure"))),
        }
    }
}

struct Registrar {
    module: RpcModule<App>,
    app: Arc<App>,
    subscriptions: HashMap<&'static str, Begin>,
    failed: Option<jsonrpsee::core::RegisterMethodError>,
}

impl Registrar {
    /// Registers a procedure's handler inside the wrapper.
    fn add<P, F, Fut>(&mut self, handler: F)
    where
        P: Procedure,
        F: Fn(Arc<App>, Arc<Call>, P::Input) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<P::Output>> + Send + 'static,
    {
        let meter = Arc::new(Meter::new(Arc::clone(&self.app.metrics), P::INFO.name));
        let method = move |params: Params<'static>, app: Arc<App>, extensions: Extensions| {
            let (handler, meter) = (handler.clone(), Arc::clone(&meter));
            async move {
                let goes_on = extensions.get::<Aside>().is_some_and(Aside::goes_on);
                let counted = Counted::begin(&meter, &app.traces, goes_on);
                let outcome = serve::<P, F, Fut>(handler, params, Arc::clone(&app), &extensions).await;
                counted.end(outcome.as_ref().err());
                // Without it nobody is there who would read an answer.
                if let Some(aside) = extensions.get::<Aside>() {
                    aside.answer(outcome.and_then(|output| in_json(&output)).map_err(refused::<P>));
                }
                None::<()>
            }
        };
        if let Err(error) = self.module.register_async_method(P::INFO.name, method) {
            self.failed = Some(error);
        }
    }
}

/// A call on its way to be counted and traced. What goes on with an earlier one is traced only.
struct Counted<'a> {
    meter: &'a Meter,
    traces: &'a Traces,
    goes_on: bool,
    of: Option<Request>,
    begun: Instant,
}

impl<'a> Counted<'a> {
    fn begin(meter: &'a Meter, traces: &'a Traces, goes_on: bool) -> Self {
        let of = request::current().inspect(Request::reach);
        Self { meter, traces, goes_on, of, begun: Instant::now() }
    }

    fn end(self, error: Option<&Error>) {
        let (took, code) = (self.begun.elapsed(), error.map(|error| code(error).as_str()));
        let door = self.of.as_ref().map_or(Door::Other, |of| of.door);
        if !self.goes_on {
            self.meter.called(door, took, code);
        }
        if let Some(of) = &self.of {
            self.traces.tell(|| {
                Span::within_request(of.id.as_str(), self.meter.procedure().to_owned(), took)
                    .with("purser.door", door.as_str())
                    .failed(code)
            });
        }
    }
}

async fn serve<P, F, Fut>(
    handler: F,
    params: Params<'static>,
    app: Arc<App>,
    extensions: &Extensions,
) -> Result<P::Output>
where
    P: Procedure,
    F: Fn(Arc<App>, Arc<Call>, P::Input) -> Fut,
    Fut: Future<Output = Result<P::Output>> + Send + 'static,
{
    let gone = CancellationToken::new();
    let _gone_when_dropped = gone.clone().drop_guard();
    let aside = extensions.get::<Aside>();
    let (call, input) = admit::<P>(&app, params.as_str(), extensions.get::<Arc<Caller>>(), aside, gone)?;
    drop(params);
    // In a box: what holds it hands it on, and each that does would have room for it.
    let work = Box::pin(handler(Arc::clone(&app), Arc::clone(&call), input));
    let work = AssertUnwindSafe(work).catch_unwind();
    match P::INFO.kind {
        Kind::Query | Kind::Subscription => work.await.unwrap_or_else(|_| Err(panicked())),
        // In a task of its own: a caller that hangs up must not leave it half done.
        Kind::Mutation => {
            let unattended = app.unattended.clone();
            let task = async move {
                let outcome = work.await.unwrap_or_else(|_| Err(panicked()));
                let ended = outcome.as_ref().map_or_else(error::outcome, |_| trail::OK);
                trail::record(&app, &call, ended).await;
                outcome
            };
            let task = request::within(request::current(), task);
            unattended.spawn(task).await.unwrap_or_else(|_| Err(panicked()))
        }
    }
}

fn in_json(output: &impl Serialize) -> Result<Box<RawValue>> {
    const WHAT: &str = "writing an answer";
    let json = to_raw_value(output).map_err(Error::internal(WHAT))?;
    if json.get().len() > MAX_ANSWER {
        return Err(Error::Internal { what: WHAT, source: "it is too large".into() });
    }
    Ok(json)
}

/// The caller, how often it may call, what it may do, and the input, in this order. What is left of a large input then
/// is what its fields may hold, and it lasts as long as the call has its place.
fn admit<P: Procedure>(
    app: &App,
    params: Option<&str>,
    caller: Option<&Arc<Caller>>,
    aside: Option<&Aside>,
    gone: CancellationToken,
) -> Result<(Arc<Call>, P::Input)> {
    let caller = caller.ok_or(Error::Unauthorized)?;
    let_in(app, &P::INFO, caller, aside.is_some_and(Aside::is_counted))?;
    let place = aside.and_then(Aside::take_place);
    let call = Call::new(Arc::clone(caller), P::INFO.name, gone, place.clone());
    let input = input::parse::<P::Input>(params)?;
    if let Some(place) = place {
        place.has_been_read();
    }
    Ok((Arc::new(call), input))
}

/// What is asked of a key before any input is read: whether it may call again, where that has not been counted, and
/// whether it may call this. A door asks it of an input that is no JSON, which does not get as far as the wrapper.
///
/// # Errors
/// [`Error::TooManyCalls`], [`Error::Forbidden`].
pub fn let_in(app: &App, info: &ProcedureInfo, caller: &Caller, is_counted: bool) -> Result<()> {
    if !is_counted {
        caller.count_call()?;
    }
    caller.require(info.permission).inspect_err(|_| {
        // A query would have changed nothing.
        if info.kind == Kind::Mutation {
            trail::record_forbidden(app, caller, info.name);
        }
    })
}

/// A procedure's error on the wire. The suite holds by this that its documents name every code it answers.
fn refused<P: Procedure>(error: Error) -> ErrorObjectOwned {
    let code = public(&error).data.code;
    debug_assert!(
        P::INFO.codes().any(|named| named == code),
        "{} answers {}: name it in its line of the table, after `fails`",
        P::INFO.name,
        code.as_str()
    );
    wire(P::INFO.name, error)
}

/// The panic itself has been logged by the hook.
fn panicked() -> Error {
    Error::Internal { what: "serving a call", source: "the handler panicked".into() }
}
