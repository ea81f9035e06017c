//! The control plane: keeps registry credentials, and uses them on Docker hosts through their agents.
//!
//! ```text
//! http → rpc → domain → { store, dispatch, vault, registry-client }
//! ```
//!
//! | room | holds | never |
//! | --- | --- | --- |
//! | `http` | the doors | decides, or reaches below `rpc` for a procedure |
//! | `rpc` | one thin line per procedure, the wrapper around all, the mapping of errors | a rule |
//! | `domain` | the rules | HTTP, JSON-RPC, SQL |
//! | `dispatch` | sessions, hand-over, verdicts, deadlines | which credential to use |
//! | `store` | the database | a plaintext secret |
//! | `vault` | plaintext of stored secrets | who may see it |
//! | `metrics` | what is counted | whose it is |
//! | `traces` | spans on their way to OpenTelemetry | what a caller sent |
//! | `request` | the request that a task works for | what it is about |
//! | `unattended` | work that goes on without its caller, and that a stop waits for | what the work is |
//!
//! [`run`] wires them and serves until it is told to stop.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use purser_registry_client::{EgressPolicy, RegistryClient};
use secrecy::ExposeSecret;
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod app;
pub mod config;
mod dispatch;
mod domain;
mod error;
mod http;
mod local_agent;
pub mod logging;
mod metrics;
mod one_by_one;
mod open_files;
mod private_file;
mod process;
mod refusals;
mod registries;
mod request;
mod retention;
mod rpc;
mod secret_hash;
mod shares;
mod store;
mod traces;
mod unattended;
mod vault;
mod waiting_room;

use app::App;
use config::Settings;
use dispatch::{Dispatch, Name, Told};
use domain::{
    caller::KnownKeys, first_start, last_use, operations::CountedJobs, reencrypt, registry::CatalogCache,
    subscribers::Subscribers,
};
use metrics::Metrics;
use one_by_one::OneByOne;
use refusals::Refusals;
use registries::Registries;
use retention::Retention;
use store::Store;
use traces::Traces;
use unattended::Unattended;
use vault::Vault;

pub use error::{Error, Result, chain};

/// How long a stop may take, of the 10 s that service managers are promised.
const STOP: Duration = Duration::from_secs(7);
/// How long what nobody waits for any more, and what is still being written behind an answer, may take then.
const SETTLE: Duration = Duration::from_secs(2);
/// Sockets in an agent's handshake at once, where the system allows so many: twice the largest fleet.
const HANDSHAKES: usize = 20_000;
/// Open files for those who ask at `--metrics-listen`: few.
const OPERATORS: usize = 128;
const USER_AGENT: &str = concat!("purser-server/", env!("CARGO_PKG_VERSION"));

/// Serves until `stop`, then closes sessions and lets calls under way end. At each `reload` the TLS
/// certificate is read again.
///
/// # Errors
/// When the data folder, the certificate, the master key, the database or the address cannot be used.
pub async fn run(settings: Settings, reload: Arc<Notify>, stop: CancellationToken) -> Result<()> {
    private_file::make_folder(&settings.data_dir).map_err(Error::internal("making the data folder"))?;
    let _lock = private_file::lock(&settings.data_dir).map_err(Error::internal("taking the data folder"))?;
    // Callers, agents, registries and the database share them.
    let open_files = usize::try_from(open_files::raise()).unwrap_or(usize::MAX);
    let tls = tls(&settings)?;
    let (store, vault) = open(&settings).await?;
    let organization = first_start::organization(&store).await?;
    let admin_key = settings.admin_api_key.as_ref();
    if let Some(path) =
        first_start::admin_key(&store, organization.clone(), admin_key, &settings.data_dir).await?
    {
        tracing::info!(path = %path.display(), "an admin API key was made; read it from the file");
    }
    let channel_key = first_start::channel_key(&store, &vault).await?;
    let listener = http::listen(settings.listen).map_err(Error::internal("listening on --listen"))?;
    let address = listener.local_addr().map_err(Error::internal("asking for the listener's address"))?;
    let settling = store.clone();
    let name = Name::new(first_start::replica_before(&settings.data_dir)?);
    first_start::keep_replica(&settings.data_dir, &name.own)?;
    let tasks = TaskTracker::new();
    let metrics = Metrics::new()?;
    let receiver =
        traces::Receiver::of(&settings.traces).map_err(Error::internal("preparing the export of traces"))?;
    let traces = Traces::start(receiver, Arc::clone(&metrics), &tasks, stop.clone());
    let refusals = Refusals::start(store.clone(), Arc::clone(&metrics), &tasks, stop.clone());
    let told = Told { refusals: refusals.clone(), metrics: Arc::clone(&metrics), traces: traces.clone() };
    let retention =
        Retention { audit_days: settings.audit_retention_days, job_days: settings.job_retention_days };
    tasks.spawn(retention::keep(store.clone(), retention, stop.clone()));
    tasks.close();
    let dispatch = Dispatch::start(
        store.clone(),
        Arc::clone(&vault),
        channel_key,
        name,
        told,
        in_handshakes(open_files),
        stop.clone(),
    )
    .await?;
    let unattended = Unattended::default();
    let (uses, used) = last_use::Uses::channel();
    let known_keys = KnownKeys::new(uses)?;
    let noting = tokio::spawn(last_use::write(store.clone(), used, stop.clone()));
    let watching = tokio::spawn(known_keys.held_open().watch(store.clone(), stop.clone()));
    let app = Arc::new(App {
        store,
        vault,
        dispatch: dispatch.clone(),
        registries: Registries::new(RegistryClient::new(egress(&settings), USER_AGENT), open_files / 4),
        tests: OneByOne::default(),
        catalogs: CatalogCache::new(),
        known_keys,
        subscribers: Subscribers::within(open_files),
        metrics,
        traces,
        counted_jobs: CountedJobs::default(),
        refusals,
        unattended: unattended.clone(),
        agent_url: settings.public_url.clone().unwrap_or_else(|| agent_url(address, tls.is_some())),
    });
    let procedures = rpc::Procedures::register(Arc::clone(&app))?;
    let reached = |tls| http::Reached { tls, stop: stop.clone(), sockets: TaskTracker::new() };
    let doors = reached(tls.is_some());
    let sockets = doors.sockets.clone();
    let router = http::router(Arc::clone(&app), procedures.clone(), &settings, doors)?;
    let for_operators = match settings.metrics_listen {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(Error::internal("listening on --metrics-listen"))?;
            let address =
                listener.local_addr().map_err(Error::internal("asking for the listener's address"))?;
            tracing::info!(%address, "metrics are served");
            let router = http::operators_router(Arc::clone(&app), procedures, &settings, reached(false));
            Some((listener, router))
        }
        None => None,
    };
    tracing::info!(%address, tls = tls.is_some(), version = env!("CARGO_PKG_VERSION"), "listening");
    let local = local_agent::Local {
        mode: settings.local_agent,
        listen: address,
        tls: tls.is_some(),
        state_dir: settings.data_dir.join("local-agent"),
        docker_host: settings.docker_host,
        egress_allow: settings.egress_allow,
        egress_deny: settings.egress_deny,
    };
    let local = tokio::spawn(local_agent::run(app, organization, local, stop.clone()));
    let reloading = tokio::spawn(read_again(tls.clone(), reload));
    let serving = http::serve(listener, open_files, tls, router, sockets, stop.clone(), STOP);
    let serving_operators = async {
        if let Some((listener, router)) = for_operators {
            http::serve(listener, OPERATORS, None, router, TaskTracker::new(), stop.clone(), STOP).await;
        }
    };
    let stopping = async {
        stop.cancelled().await;
        tracing::info!("stopping");
        let work = async {
            tokio::join!(dispatch.stop(STOP), local, noting, watching, tasks.wait(), unattended.stop())
        };
        if tokio::time::timeout(STOP, work).await.is_err() {
            tracing::warn!("some work did not stop in time");
        }
    };
    tokio::join!(serving, serving_operators, stopping);
    reloading.abort();
    let last = async {
        unattended.ended().await;
        settling.settle().await;
    };
    if tokio::time::timeout(SETTLE, last).await.is_err() {
        tracing::warn!(
            "some changes were cut off, or the verdict of a last test was not stored, nor its audit event"
        );
    }
    Ok(())
}

/// The certificate to serve with; `None` where the address or a proxy makes TLS needless.
fn tls(settings: &Settings) -> Result<Option<Arc<http::Tls>>> {
    let listen = settings.listen.ip();
    let source = match (&settings.tls_cert, &settings.tls_key) {
        (Some(certificate), Some(key)) => http::Source::Given { certificate, key },
        _ if settings.behind_tls_proxy || listen.is_loopback() => return Ok(None),
        _ => http::Source::own(&settings.data_dir, listen, settings.public_url.as_deref()),
    };
    http::Tls::load(source).map(Arc::new).map(Some)
}

async fn read_again(tls: Option<Arc<http::Tls>>, reload: Arc<Notify>) {
    loop {
        reload.notified().await;
        match &tls {
            Some(tls) => Arc::clone(tls).reload().await,
            None => tracing::info!("no TLS is served here; there is no certificate to read again"),
        }
    }
}

/// Seals every stored secret anew under the current master key, and gives how many changed.
///
/// # Errors
/// As [`run`], and when a secret does not open.
pub async fn reencrypt(settings: Settings) -> Result<usize> {
    let (store, vault) = open(&settings).await?;
    reencrypt::everything(&store, &vault).await
}

async fn open(settings: &Settings) -> Result<(Store, Arc<Vault>)> {
    let url = settings.database_url.as_ref().map(ExposeSecret::expose_secret);
    let store = Store::open(url, &settings.data_dir).await?;
    let file = settings.data_dir.join("master.key");
    let vault = match &settings.master_key {
        Some(text) => Vault::from_text(text),
        // A database with sealed secrets has a key somewhere; another one would only hide that.
        None if store.channel_key().await?.is_some() => Vault::from_file(&file),
        None => Vault::from_new_file(&file),
    };
    Ok((store, Arc::new(vault.map_err(Error::internal("reading the master key"))?)))
}

fn egress(settings: &Settings) -> EgressPolicy {
    EgressPolicy::new(settings.egress_allow.clone(), settings.egress_deny.clone())
        .allow_loopback(settings.listen.ip().is_loopback())
}

/// How many sockets may be in an agent's handshake at once: a fleet that returns as one, within half of what
/// this process may have open.
fn in_handshakes(open_files: usize) -> usize {
    HANDSHAKES.min(open_files / 2)
}

/// What agents dial, as much as this process can know of it by itself.
fn agent_url(address: SocketAddr, tls: bool) -> String {
    match (tls, address.ip()) {
        (false, ip) if ip.is_loopback() => format!("http://{address}"),
        (false, _) => "https://YOUR-PURSER-ADDRESS".to_owned(),
        (true, ip) if ip.is_unspecified() => format!("https://YOUR-PURSER-ADDRESS:{}", address.port()),
        (true, _) => format!("https://{address}"),
    }
}
