//! Log lines on stderr.
//!
//! `RUST_LOG` raises only Purser's own lines above `info`: libraries below (jsonrpsee, bollard,
//! tungstenite) write whole requests at `trace`, and a secret may be in them.

use std::io::{self, IsTerminal};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::config::LogFormat;

/// What is logged without `RUST_LOG`. The certificate verifier logs refused certificates as its own
/// errors; they are verdicts of a test here.
const DEFAULT: &str = "info,sqlx=warn,sea_orm_migration=warn,rustls_platform_verifier=off";

/// Starts logging for the process.
pub fn start(format: LogFormat) {
    // Where it happened and not what it said: that could hold anything.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "a task panicked");
    }));
    let wanted = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let lines =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // Filters of the whole, not of the layer: with those, a library that asks whether it may log and
    // hears no (sqlx, at each notice of PostgreSQL) costs its thread the next line, whoever writes it.
    tracing_subscriber::registry().with(lines).with(filter_fn(may_be_logged)).with(wanted).init();
}

fn may_be_logged(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::INFO || line.target().starts_with("purser")
}
