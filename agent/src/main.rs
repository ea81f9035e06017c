//! The program `purser-agent`: arguments, log, signals. Everything else is the library's.

use std::{
    env,
    ffi::OsString,
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, ValueEnum, error::ErrorKind};
use ipnet::IpNet;
use purser_agent::{AgentConfig, AgentError, DEFAULT_DOCKER_HOST, DockerHost, Trust, run};
use purser_proto_schema::agent::join_token::JoinToken;
use purser_registry_client::EgressPolicy;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::filter_fn, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

const STATE_DIR: &str = "/var/lib/purser-agent";
/// The verifier shouts about each certificate that the link then names by itself.
const DEFAULT_FILTER: &str = "info,rustls_platform_verifier=off";
/// From the signal to the end of the process.
const STOP_DEADLINE: Duration = Duration::from_secs(9);

/// Joins this Docker host to a Purser server.
#[derive(Parser)]
#[command(name = "purser-agent", version)]
struct Arguments {
    /// The server, such as https://purser.example.com
    #[arg(long, value_name = "URL", env = "PURSER_SERVER", hide_env_values = true)]
    server: Option<String>,
    /// The one-time token of server.create; needed at the first start
    #[arg(long, value_name = "TOKEN", env = "PURSER_JOIN_TOKEN", hide_env_values = true)]
    join_token: Option<String>,
    /// Where this host's key is kept [default: /var/lib/purser-agent]
    #[arg(long, value_name = "FOLDER", env = "PURSER_STATE_DIR")]
    state_dir: Option<String>,
    /// The Docker Engine: unix:// or tcp://, by TLS where DOCKER_TLS_VERIFY or DOCKER_CERT_PATH is set
    /// [default: unix:///var/run/docker.sock]
    #[arg(long, value_name = "URL", env = "DOCKER_HOST")]
    docker_host: Option<String>,
    /// PEM of authorities to trust for the server besides the system's, and to accept no other; without
    /// it a certificate that cannot be verified is said once, and the server's pinned key decides
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Networks that the agent may dial although they are link-local or metadata addresses, by comma
    #[arg(long, value_name = "CIDR", env = "PURSER_EGRESS_ALLOW", value_delimiter = ',')]
    egress_allow: Vec<String>,
    /// Networks that the agent may not dial, by comma
    #[arg(long, value_name = "CIDR", env = "PURSER_EGRESS_DENY", value_delimiter = ',')]
    egress_deny: Vec<String>,
    /// The form of the log on stderr
    #[arg(long, value_name = "FORM", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Why the program does not start, or ended badly, on one line.
struct Refusal(String);

impl From<AgentError> for Refusal {
    fn from(error: AgentError) -> Self {
        Self(error.chain())
    }
}

fn main() -> ExitCode {
    match start(env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refusal(line)) => {
            eprintln!("purser-agent: {line}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: impl IntoIterator<Item = OsString>) -> Result<(), Refusal> {
    // There may be several providers in a build one day; rustls then chooses none by itself.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Some(arguments) = parse(arguments)? else { return Ok(()) };
    start_log(arguments.log_format);
    let config = config(arguments)?;
    // One thread: an agent waits for others nearly always, and a second thread to hand things to and be
    // woken by takes longer than what is to be done.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Refusal(format!("no runtime: {error}")))?;
    let result = runtime.block_on(serve(config));
    // A name that is being looked up must not hold the process.
    runtime.shutdown_timeout(Duration::from_millis(500));
    result
}

/// `None`: help or version was asked for, and shown.
fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Option<Arguments>, Refusal> {
    Arguments::try_parse_from(arguments).map(Some).or_else(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            Ok(None)
        }
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            Err(Refusal(line.trim_start_matches("error: ").to_owned()))
        }
    })
}

fn config(arguments: Arguments) -> Result<AgentConfig, Refusal> {
    // An empty variable, as compose files leave them, is one that is not set.
    let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    let server = given(arguments.server)
        .ok_or_else(|| Refusal("no server: give --server URL or set PURSER_SERVER".to_owned()))?;
    let docker_host = given(arguments.docker_host).unwrap_or_else(|| DEFAULT_DOCKER_HOST.to_owned());
    let docker_host: DockerHost = docker_host.parse()?;
    let variable = |name: &str| env::var(name).ok();
    let join_token = given(arguments.join_token).map(|text| JoinToken::decode(&text)).transpose();
    Ok(AgentConfig {
        server: server.parse()?,
        join_token: join_token.map_err(AgentError::from)?,
        state_dir: given(arguments.state_dir).unwrap_or_else(|| STATE_DIR.to_owned()).into(),
        docker_host: docker_host.with_tls(
            variable("DOCKER_TLS_VERIFY").as_deref(),
            variable("DOCKER_CERT_PATH").as_deref(),
            variable("HOME").as_deref(),
        ),
        trust: arguments.ca_file.map_or(Trust::System, Trust::File),
        // The engine of this host talks to registries on its loopback, too.
        egress: EgressPolicy::new(
            networks("PURSER_EGRESS_ALLOW", &arguments.egress_allow)?,
            networks("PURSER_EGRESS_DENY", &arguments.egress_deny)?,
        )
        .allow_loopback(true),
    })
}

fn networks(name: &str, given: &[String]) -> Result<Vec<IpNet>, Refusal> {
    let networks = given.iter().map(|network| network.trim()).filter(|network| !network.is_empty());
    let networks = networks.map(|network| {
        network
            .parse()
            .map_err(|_| Refusal(format!("{name} must be networks such as 10.0.0.0/8, separated by commas")))
    });
    networks.collect()
}

/// Log lines on stderr, chosen by `RUST_LOG`, by [`DEFAULT_FILTER`] without. Other crates never go below INFO: there
/// they write whole requests and frames, secrets included.
fn start_log(format: LogFormat) {
    let chosen = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let capped = filter_fn(|metadata: &Metadata<'_>| {
        metadata.target().starts_with("purser") || *metadata.level() <= Level::INFO
    });
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(chosen).with(capped).with(lines).init();
}

async fn serve(config: AgentConfig) -> Result<(), Refusal> {
    let stop = stop_on_signal().map_err(|error| Refusal(format!("signals cannot be received: {error}")))?;
    let overdue = async {
        stop.cancelled().await;
        sleep(STOP_DEADLINE).await;
    };
    tokio::select! {
        result = run(config, stop.clone()) => Ok(result?),
        () = overdue => Err(Refusal("the agent did not stop in time".to_owned())),
    }
}

/// Cancelled by SIGTERM and SIGINT.
fn stop_on_signal() -> io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stopping.cancel();
    });
    Ok(stop)
}
