//! Samples, medians, and rows of the table.

use std::{
    io::Write,
    time::{Duration, Instant},
};

/// One line of the table.
pub struct Row {
    /// What was measured.
    pub figure: &'static str,
    /// Purser's value.
    pub purser: String,
    /// The baseline's value, or none.
    pub baseline: String,
    /// The one over the other.
    pub ratio: String,
    /// What the ratio or value should be.
    pub goal: &'static str,
}

impl Row {
    /// The line in Markdown.
    pub fn line(&self) -> String {
        format!(
            "| {} | {} | {} | {} | {} |\n",
            self.figure, self.purser, self.baseline, self.ratio, self.goal
        )
    }

    /// A row of two durations.
    pub fn of(figure: &'static str, purser: &[Duration], baseline: &[Duration], goal: &'static str) -> Self {
        let (purser, baseline) = (median(purser), median(baseline));
        Self {
            figure,
            purser: show(purser),
            baseline: show(baseline),
            ratio: format!("{:.2}×", purser.as_secs_f64() / baseline.as_secs_f64()),
            goal,
        }
    }
}

/// The middle one.
pub fn median(samples: &[Duration]) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The one that a hundredth of all are above.
pub fn p99(samples: &[Duration]) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort();
    sorted.get(sorted.len() * 99 / 100).copied().unwrap_or_default()
}

/// A duration for people.
pub fn show(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{:.2} ms", duration.as_secs_f64() * 1e3)
    } else {
        format!("{:.2} s", duration.as_secs_f64())
    }
}

/// How long `work` takes.
pub async fn timed<T>(work: impl Future<Output = T>) -> (Duration, T) {
    let start = Instant::now();
    let done = work.await;
    (start.elapsed(), done)
}

/// Writes to standard output, which is this program's result.
pub fn print(text: &str) {
    // A reader that went away wants no result.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
