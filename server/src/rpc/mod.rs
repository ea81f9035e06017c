//! The procedures, registered: one thin line each, in a file per namespace.
//!
//! The wrapper around every handler is here and nowhere else: permission, input, panic, audit, and
//! the one mapping of errors. Every door calls these methods in process, so nothing of it can be
//! gone around.

use std::{collections::HashMap, future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use jsonrpsee::{Extensions, RpcModule, core::server::Methods, types::Params};
use purser_proto_schema::procedure::{self, Kind, Procedure, ProcedureInfo};

use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    domain::{
        audit,
        caller::{Call, Caller},
    },
    error::{Error, Result},
};

mod error;
mod image;
mod input;
mod job;
mod registry;
mod server;
mod stack;

pub use error::{public, wire};

/// The registered procedures, by name.
#[derive(Clone)]
pub struct Procedures {
    methods: Methods,
    infos: Arc<HashMap<&'static str, &'static ProcedureInfo>>,
}

impl Procedures {
    /// Registers every procedure of the table.
    ///
    /// # Errors
    /// [`Error::Internal`] when the table names a procedure that has no handler: a fault of the build.
    pub fn register(app: Arc<App>) -> Result<Self> {
        let mut registrar = Registrar { module: RpcModule::from_arc(app), failed: None };
        registry::register(&mut registrar);
        server::register(&mut registrar);
        image::register(&mut registrar);
        stack::register(&mut registrar);
        job::register(&mut registrar);
        if let Some(error) = registrar.failed {
            return Err(Error::internal("registering the procedures")(error));
        }
        let methods: Methods = registrar.module.into();
        let infos: HashMap<_, _> = procedure::table().map(|info| (info.name, info)).collect();
        match infos.keys().find(|name| methods.method(name).is_none()) {
            Some(name) => Err(Error::Internal { what: "registering the procedures", source: (*name).into() }),
            None => Ok(Self { methods, infos: Arc::new(infos) }),
        }
    }

    /// What the table says of a procedure.
    pub fn info(&self, name: &str) -> Option<&'static ProcedureInfo> {
        self.infos.get(name).copied()
    }

    /// The methods, for in-process calls.
    pub fn methods(&self) -> &Methods {
        &self.methods
    }
}

struct Registrar {
    module: RpcModule<App>,
    failed: Option<jsonrpsee::core::RegisterMethodError>,
}

impl Registrar {
    /// Registers a procedure's handler inside the wrapper.
    fn add<P, F, Fut>(&mut self, handler: F)
    where
        P: Procedure,
        P::Output: Clone,
        F: Fn(Arc<App>, Arc<Call>, P::Input) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<P::Output>> + Send + 'static,
    {
        let method = move |params: Params<'static>, app: Arc<App>, extensions: Extensions| {
            let handler = handler.clone();
            async move {
                let outcome = serve::<P, F, Fut>(handler, params, app, &extensions).await;
                outcome.map_err(|error| wire(P::INFO.name, error))
            }
        };
        if let Err(error) = self.module.register_async_method(P::INFO.name, method) {
            self.failed = Some(error);
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
    let caller = extensions.get::<Arc<Caller>>().ok_or(Error::Unauthorized)?;
    caller.require(P::INFO.permission)?;
    let input = input::parse::<P::Input>(params.as_str())?;
    let gone = CancellationToken::new();
    let _gone_when_dropped = gone.clone().drop_guard();
    let call = Arc::new(Call::new(Arc::clone(caller), P::INFO.name, gone));
    let work = AssertUnwindSafe(handler(Arc::clone(&app), Arc::clone(&call), input)).catch_unwind();
    match P::INFO.kind {
        Kind::Query => work.await.unwrap_or_else(|_| Err(panicked())),
        // In a task of its own: a caller that hangs up must not leave it half done.
        Kind::Mutation => {
            let task = tokio::spawn(async move {
                let outcome = work.await.unwrap_or_else(|_| Err(panicked()));
                let code =
                    outcome.as_ref().map_or_else(|error| public(error).data.code.as_str(), |_| audit::OK);
                audit::record(&app, &call, code).await;
                outcome
            });
            task.await.unwrap_or_else(|_| Err(panicked()))
        }
    }
}

/// The panic itself has been logged by the hook.
fn panicked() -> Error {
    Error::Internal { what: "serving a call", source: "the handler panicked".into() }
}
