//! Settings: flags and environment, checked once.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use secrecy::SecretString;

use crate::traces;

/// The shortest key or token that an operator may choose, in bytes.
const MIN_KEY: usize = 16;

/// Keeps registry credentials, tests them, and pulls and pushes with them on Docker hosts.
#[derive(Debug, Parser)]
#[command(name = "purser-server", version, about)]
pub struct Cli {
    /// What to do; without it, serve.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// What else the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Seal every stored secret anew under the first key of the ring, then exit. Safe while serving.
    Reencrypt,
}

/// The settings of the control plane.
#[derive(Debug, Args)]
pub struct Settings {
    /// Where to listen. Other than on loopback it serves TLS.
    #[arg(long, env = "PURSER_LISTEN", default_value = "127.0.0.1:3000", global = true)]
    pub listen: SocketAddr,
    /// What agents dial, for join commands, such as `https://purser.example.com`.
    #[arg(long, env = "PURSER_PUBLIC_URL", global = true)]
    pub public_url: Option<String>,
    /// Where the database, the master key and the admin key are kept.
    #[arg(long, env = "PURSER_DATA_DIR", default_value = "purser-data", global = true)]
    pub data_dir: PathBuf,
    /// postgres://… ; SQLite in the data dir when absent.
    #[arg(long, env = "PURSER_DATABASE_URL", hide_env_values = true, global = true)]
    pub database_url: Option<SecretString>,
    /// Networks that registries may be in although they are refused otherwise (loopback, link-local).
    #[arg(long, env = "PURSER_EGRESS_ALLOW", value_delimiter = ',', global = true)]
    pub egress_allow: Vec<IpNet>,
    /// Networks that registries may not be in.
    #[arg(long, env = "PURSER_EGRESS_DENY", value_delimiter = ',', global = true)]
    pub egress_deny: Vec<IpNet>,
    /// Join this machine's own Docker Engine as server `local`.
    #[arg(long, env = "PURSER_LOCAL_AGENT", value_enum, default_value = "auto", global = true)]
    pub local_agent: LocalAgent,
    /// The certificate to serve TLS with, PEM, the chain behind it; read again on SIGHUP. Without it,
    /// and other than on loopback, one of its own making in the data dir.
    #[arg(long, env = "PURSER_TLS_CERT", value_name = "FILE", global = true)]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM.
    #[arg(long, env = "PURSER_TLS_KEY", value_name = "FILE", hide_env_values = true, global = true)]
    pub tls_key: Option<PathBuf>,
    /// A proxy in front terminates TLS: without --tls-cert, none is served here.
    #[arg(long, env = "PURSER_BEHIND_TLS_PROXY", global = true)]
    pub behind_tls_proxy: bool,
    /// For how many days audit events are kept; 0 for ever.
    #[arg(
        long,
        env = "PURSER_AUDIT_RETENTION_DAYS",
        default_value = "365",
        value_name = "DAYS",
        global = true
    )]
    pub audit_retention_days: u32,
    /// For how many days jobs are kept after their end; 0 for ever.
    #[arg(long, env = "PURSER_JOB_RETENTION_DAYS", default_value = "90", value_name = "DAYS", global = true)]
    pub job_retention_days: u32,
    /// Where to serve /metrics, /healthz and /readyz besides, over plain HTTP, such as `127.0.0.1:9464`.
    #[arg(long, env = "PURSER_METRICS_LISTEN", value_name = "ADDRESS", global = true)]
    pub metrics_listen: Option<SocketAddr>,
    /// Origins whose pages may call from a browser, such as `https://app.example.com`.
    #[arg(
        long,
        env = "PURSER_CORS_ALLOW_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ',',
        global = true
    )]
    pub cors_allow_origin: Vec<String>,
    /// The form of log lines, on stderr.
    #[arg(long, env = "PURSER_LOG_FORMAT", value_enum, default_value = "text", global = true)]
    pub log_format: LogFormat,
    /// The instance-admin key; generated once into `admin-api-key` in the data dir when absent.
    #[arg(skip)]
    pub admin_api_key: Option<SecretString>,
    /// The master key ring; kept in `master.key` in the data dir when absent.
    #[arg(skip)]
    pub master_key: Option<SecretString>,
    /// Where traces are exported to.
    #[arg(skip)]
    pub traces: traces::Settings,
    /// What /metrics asks for.
    #[arg(skip)]
    pub metrics_token: Option<SecretString>,
    /// The engine of the local agent.
    #[arg(skip)]
    pub docker_host: Option<String>,
}

/// Whether this machine joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LocalAgent {
    /// If a Docker socket answers.
    Auto,
    /// Yes; the agent waits for the engine.
    On,
    /// No.
    Off,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Settings {
    /// Takes the secrets from the environment (they have no flags: arguments are for all to see) and
    /// checks what clap cannot.
    ///
    /// # Errors
    /// One line that says what to change.
    pub fn complete(mut self) -> Result<Self, String> {
        self.admin_api_key = secret("PURSER_ADMIN_API_KEY")?;
        self.master_key = secret("PURSER_MASTER_KEY")?;
        self.metrics_token = secret("PURSER_METRICS_TOKEN")?;
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        self.traces = traces::Settings {
            endpoint: variable("OTEL_EXPORTER_OTLP_ENDPOINT"),
            traces_endpoint: variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
            headers: secret("OTEL_EXPORTER_OTLP_HEADERS")?,
            protocol: variable("OTEL_EXPORTER_OTLP_PROTOCOL"),
            service: variable("OTEL_SERVICE_NAME"),
        };
        traces::Receiver::of(&self.traces)?;
        self.docker_host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        if let Some(key) = &self.admin_api_key {
            check_key("PURSER_ADMIN_API_KEY", secrecy::ExposeSecret::expose_secret(key))?;
        }
        if let Some(token) = &self.metrics_token {
            check_key("PURSER_METRICS_TOKEN", secrecy::ExposeSecret::expose_secret(token))?;
        }
        for origin in &mut self.cors_allow_origin {
            *origin = checked_origin(origin)?;
        }
        if let Some(url) = &self.database_url {
            let url = secrecy::ExposeSecret::expose_secret(url);
            if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
                return Err("--database-url must start with postgres:// (SQLite needs none)".to_owned());
            }
        }
        for (given, other) in [(&self.tls_cert, &self.tls_key), (&self.tls_key, &self.tls_cert)] {
            if given.is_some() && other.is_none() {
                return Err("--tls-cert and --tls-key belong together: give both, or neither".to_owned());
            }
        }
        Ok(self)
    }
}

fn check_key(name: &str, key: &str) -> Result<(), String> {
    if key.len() < MIN_KEY {
        return Err(format!("{name} is shorter than {MIN_KEY} bytes"));
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{name} must be printable ASCII without spaces: it travels in a header"));
    }
    Ok(())
}

/// An origin as browsers write it: they compare it letter by letter.
fn checked_origin(given: &str) -> Result<String, String> {
    let origin = given.trim().trim_end_matches('/').to_ascii_lowercase();
    let authority = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    if authority.is_some_and(|authority| !authority.is_empty() && authority.bytes().all(plain)) {
        return Ok(origin);
    }
    Err("--cors-allow-origin takes origins such as https://app.example.com, without a path, and not `*`: a page \
         of any origin could then use a key that it got hold of"
        .to_owned())
}

fn secret(name: &str) -> Result<Option<SecretString>, String> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(SecretString::from(value))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(format!("{name} is not UTF-8")),
    }
}
