//! What is counted and timed for `/metrics`, in the text form of Prometheus.
//!
//! Two kinds: what is counted as it happens is kept here by the library; what only has a state ([`Sample`]) is looked
//! up by whoever writes the text. Labels are words of this program (procedures of the table, doors, codes), never
//! what a caller sent and never whose it is, so neither their number nor what they tell has to do with tenants.

use std::{
    fmt::Write as _,
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
    TextEncoder,
};

use crate::{
    error::{Error, Result},
    request::Door,
};

/// The media type of the text.
pub const MEDIA: &str = prometheus::TEXT_FORMAT;
/// The label of what is no procedure of the table.
pub const UNKNOWN: &str = "unknown";
/// The code of a call that did what was asked.
const OK: &str = "OK";
/// From reading what is kept to waiting for a job, in seconds.
const SECONDS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];

/// The counters.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    answers: IntCounterVec,
    tests: IntCounterVec,
    test_failures: IntCounterVec,
    targets: IntCounterVec,
    refusals: IntCounterVec,
    spans_dropped: IntCounter,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// [`Error::Internal`] where a name is taken or malformed: a fault of the build.
    pub fn new() -> Result<Arc<Self>> {
        Self::build().map(Arc::new).map_err(Error::internal("making the metrics"))
    }

    fn build() -> prometheus::Result<Self> {
        let counter = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let durations = HistogramOpts::new(
            "purser_request_duration_seconds",
            "How long calls of procedures took, from the door to the answer.",
        );
        let metrics = Self {
            registry: Registry::new(),
            requests: counter(
                "purser_requests_total",
                "Calls of procedures, by the code of their answer.",
                &["procedure", "door", "code"],
            )?,
            durations: HistogramVec::new(durations.buckets(SECONDS.to_vec()), &["procedure", "door"])?,
            answers: counter(
                "purser_http_responses_total",
                "HTTP answers; a batch of calls is one.",
                &["door", "status"],
            )?,
            tests: counter("purser_registry_tests_total", "Tests of registries.", &["tested_from"])?,
            test_failures: counter(
                "purser_registry_test_failures_total",
                "Tests of registries that failed, by the code of the diagnosis.",
                &["tested_from", "code"],
            )?,
            targets: counter(
                "purser_job_targets_ended_total",
                "Ends of targets (one host's part of a job) that this process stored: ok, cancelled, or the code of \
                 the diagnosis.",
                &["kind", "outcome"],
            )?,
            refusals: counter(
                "purser_refusals_total",
                "Keys, agents and calls that were refused.",
                &["action", "outcome"],
            )?,
            spans_dropped: IntCounter::new(
                "purser_spans_dropped_total",
                "Spans of traces that the receiver did not take.",
            )?,
        };
        for family in [
            &metrics.requests,
            &metrics.answers,
            &metrics.tests,
            &metrics.test_failures,
            &metrics.targets,
            &metrics.refusals,
        ] {
            metrics.registry.register(Box::new(family.clone()))?;
        }
        metrics.registry.register(Box::new(metrics.durations.clone()))?;
        metrics.registry.register(Box::new(metrics.spans_dropped.clone()))?;
        Ok(metrics)
    }

    /// Counts an HTTP answer.
    pub fn answered(&self, door: Door, status: u16) {
        let mut text = [0; 3];
        let digits = [status / 100 % 10, status / 10 % 10, status % 10];
        for (place, digit) in text.iter_mut().zip(digits) {
            *place = b'0' + digit as u8;
        }
        let status = std::str::from_utf8(&text).unwrap_or(UNKNOWN);
        self.answers.with_label_values(&[door.as_str(), status]).inc();
    }

    /// Counts a call that was answered before any procedure was reached.
    pub fn turned_away(&self, procedure: &str, door: Door, code: &str) {
        self.requests.with_label_values(&[procedure, door.as_str(), code]).inc();
    }

    /// Counts a test of a registry; `code` of the diagnosis if it failed.
    pub fn tested(&self, from_host: bool, code: Option<&str>) {
        let from = if from_host { "host" } else { "control_plane" };
        self.tests.with_label_values(&[from]).inc();
        if let Some(code) = code {
            self.test_failures.with_label_values(&[from, code]).inc();
        }
    }

    /// Counts the end of a target.
    pub fn target_ended(&self, kind: &str, outcome: &str) {
        self.targets.with_label_values(&[kind, outcome]).inc();
    }

    /// Counts a refusal.
    pub fn refused(&self, action: &str, outcome: &str) {
        self.refusals.with_label_values(&[action, outcome]).inc();
    }

    /// Counts spans that were dropped.
    pub fn spans_dropped(&self, count: u64) {
        self.spans_dropped.inc_by(count);
    }

    /// All counters, and behind them what the samples say.
    ///
    /// # Errors
    /// [`Error::Internal`] where they cannot be written.
    pub fn text(&self, samples: &[Sample]) -> Result<String> {
        const WHAT: &str = "writing the metrics";
        let mut bytes = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut bytes).map_err(Error::internal(WHAT))?;
        let mut text = String::from_utf8(bytes).map_err(Error::internal(WHAT))?;
        for sample in samples {
            sample.write(&mut text).map_err(Error::internal(WHAT))?;
        }
        Ok(text)
    }
}

/// The counters of one procedure, at hand: a call that goes well looks nothing up.
pub struct Meter {
    metrics: Arc<Metrics>,
    procedure: &'static str,
    doors: [OnceLock<(IntCounter, Histogram)>; Door::ALL.len()],
}

impl Meter {
    /// Of a procedure.
    pub fn new(metrics: Arc<Metrics>, procedure: &'static str) -> Self {
        Self { metrics, procedure, doors: Default::default() }
    }

    /// Whose they are.
    pub fn procedure(&self) -> &'static str {
        self.procedure
    }

    /// Counts a call; `code` of the error if it failed.
    pub fn called(&self, door: Door, took: Duration, code: Option<&str>) {
        let Metrics { requests, durations, .. } = self.metrics.as_ref();
        let (well, seconds) = self.doors[door as usize].get_or_init(|| {
            let well = requests.with_label_values(&[self.procedure, door.as_str(), OK]);
            (well, durations.with_label_values(&[self.procedure, door.as_str()]))
        });
        seconds.observe(took.as_secs_f64());
        match code {
            None => well.inc(),
            Some(code) => requests.with_label_values(&[self.procedure, door.as_str(), code]).inc(),
        }
    }
}

/// Something that has a state when it is asked for.
pub struct Sample {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// The label's name and its values; one value without a label.
    label: Option<&'static str>,
    values: Vec<(String, f64)>,
}

impl Sample {
    /// A value that goes up and down.
    pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, kind: "gauge", help, label: None, values: vec![(String::new(), value)] }
    }

    /// A value that only grows.
    pub fn counter(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { kind: "counter", ..Self::gauge(name, help, value) }
    }

    /// Values that are told apart by a label.
    pub fn gauges(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (String, f64)>,
    ) -> Self {
        Self { name, kind: "gauge", help, label: Some(label), values: values.into_iter().collect() }
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let Self { name, kind, help, label, values } = self;
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        for (word, value) in values {
            match label {
                // The words are this program's own: nothing in them needs to be escaped.
                Some(label) => writeln!(text, "{name}{{{label}=\"{word}\"}} {value}")?,
                None => writeln!(text, "{name} {value}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_written_as_prometheus_reads_it() {
        let metrics = Metrics::new().unwrap();
        let meter = Meter::new(Arc::clone(&metrics), "registry.all");
        meter.called(Door::Trpc, Duration::from_millis(2), None);
        meter.called(Door::Trpc, Duration::from_millis(2), Some("FORBIDDEN"));
        metrics.turned_away(UNKNOWN, Door::Plain, "NOT_FOUND");
        metrics.answered(Door::Trpc, 207);
        metrics.tested(true, Some("dns"));
        let jobs = Sample::gauges("purser_jobs", "Jobs.", "state", [("queued".to_owned(), 3.0)]);
        let text = metrics.text(&[jobs, Sample::counter("x_total", "X.", 1.5)]).unwrap();
        for line in [
            "# TYPE purser_requests_total counter",
            r#"purser_requests_total{code="OK",door="trpc",procedure="registry.all"} 1"#,
            r#"purser_requests_total{code="FORBIDDEN",door="trpc",procedure="registry.all"} 1"#,
            r#"purser_requests_total{code="NOT_FOUND",door="plain",procedure="unknown"} 1"#,
            r#"purser_request_duration_seconds_bucket{door="trpc",procedure="registry.all",le="0.0025"} 2"#,
            r#"purser_request_duration_seconds_count{door="trpc",procedure="registry.all"} 2"#,
            r#"purser_http_responses_total{door="trpc",status="207"} 1"#,
            r#"purser_registry_tests_total{tested_from="host"} 1"#,
            r#"purser_registry_test_failures_total{code="dns",tested_from="host"} 1"#,
            r#"purser_jobs{state="queued"} 3"#,
            "x_total 1.5",
        ] {
            assert!(text.lines().any(|written| written == line), "{line}\n{text}");
        }
    }
}
