//! What operators ask of the control plane: does it do its work, and how much of it. Nothing of any tenant.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::timeout;

use crate::{
    app::App,
    error::{Error, Result, chain},
    metrics::Sample,
    process,
    refusals::Refusal,
};

/// How long the database may take to show that it lives.
const ANSWER: Duration = Duration::from_secs(3);
/// How long open jobs are not counted anew.
const COUNTED: Duration = Duration::from_secs(5);
/// Beyond it, jobs are not counted any further.
const MOST_JOBS: u64 = 100_000;
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Open jobs as they were last counted.
#[derive(Default)]
pub struct CountedJobs(Mutex<Option<(Instant, ByState)>>);

/// How many there are of each state.
type ByState = Vec<(String, u64)>;

/// Whether the database answers in time. Its shape was brought up to date before anything was served.
///
/// # Errors
/// [`Error::Internal`] when it does not.
pub async fn ready(app: &App) -> Result<()> {
    let answer = timeout(ANSWER, app.store.ping()).await;
    answer
        .map_err(|_| "no answer in time")
        .map_err(Error::internal("asking the database for a sign of life"))?
}

/// Everything that is counted, as Prometheus reads it.
///
/// # Errors
/// [`Error::Internal`] where it cannot be written.
pub async fn metrics(app: &App) -> Result<String> {
    let pool = app.store.pool();
    let mut samples = vec![
        Sample::gauges("purser_build_info", "Which build this is.", "version", [(VERSION.to_owned(), 1.0)]),
        Sample::gauge(
            "purser_agents_online",
            "Agents connected to this process.",
            app.dispatch.online() as f64,
        ),
        Sample::gauges(
            "purser_database_connections",
            "Connections to the database.",
            "state",
            [("idle".to_owned(), f64::from(pool.idle)), ("in_use".to_owned(), f64::from(pool.in_use))],
        ),
        Sample::gauge(
            "purser_database_connections_max",
            "The most connections that there may be.",
            f64::from(pool.most),
        ),
    ];
    if let Some(jobs) = open_jobs(app).await {
        let jobs = jobs.into_iter().map(|(state, count)| (state, count as f64));
        samples.push(Sample::gauges(
            "purser_jobs",
            "Jobs that have not ended, in the whole database.",
            "state",
            jobs,
        ));
    }
    let process = tokio::task::spawn_blocking(process::samples).await;
    samples.extend(process.unwrap_or_default());
    app.metrics.text(&samples)
}

/// Lets the audit hear, within its bounds, that somebody asked for the metrics with what is not their token.
pub fn note_wrong_token(app: &App) {
    app.refusals.note(Refusal {
        organization_id: None,
        api_key_id: None,
        server_id: None,
        action: "metrics.refused",
        outcome: "wrong_token",
    });
}

/// Open jobs by state; none while the database is away.
async fn open_jobs(app: &App) -> Option<ByState> {
    let kept = || app.counted_jobs.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, jobs)) = kept().as_ref()
        && at.elapsed() < COUNTED
    {
        return Some(jobs.clone());
    }
    match timeout(ANSWER, app.store.jobs_open(MOST_JOBS)).await {
        Ok(Ok(jobs)) => {
            *kept() = Some((Instant::now(), jobs.clone()));
            Some(jobs)
        }
        Ok(Err(error)) => {
            tracing::warn!(error = %chain(&error), "open jobs could not be counted");
            None
        }
        Err(_) => {
            tracing::warn!("open jobs could not be counted in time");
            None
        }
    }
}
