//! Which processes of one identity had its last sessions.
//!
//! Each run of an agent has a random name. A host that reconnects keeps it, one that was restarted has a
//! new one; but a process that comes back after another had the session proves that two of them run with
//! one key: that a state folder was copied.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// How often a process must have come back. Once could be a host that hung while its guest was replaced.
const RETURNS: usize = 3;
/// Within this time.
const WINDOW: TimeDelta = TimeDelta::minutes(5);
/// Copies that are still at it come back more often than this: each is kept away half a minute at most.
const OVER: TimeDelta = TimeDelta::minutes(15);
/// Processes that are remembered; more copies than that are noticed by those that come back sooner.
const REMEMBERED: usize = 16;

/// A server row's column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionHistory {
    /// The processes, the newest last, each once.
    processes: Vec<String>,
    /// When one came back after another, the newest last.
    returns: Vec<DateTime<Utc>>,
}

impl SessionHistory {
    /// Reads the column. What cannot be read is no history.
    pub(super) fn of(column: Option<&str>) -> Self {
        column.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// The column's text; `None` for no history.
    pub(super) fn column(&self) -> Option<String> {
        (*self != Self::default()).then(|| serde_json::to_string(self).ok()).flatten()
    }

    /// A session of `process` begins.
    pub(super) fn begin(&mut self, process: &str, now: DateTime<Utc>) {
        let Some(newest) = self.processes.last() else {
            self.processes.push(process.to_owned());
            return;
        };
        if newest == process {
            return;
        }
        if self.processes.iter().any(|earlier| earlier == process) {
            self.returns.push(now);
            self.returns.drain(..self.returns.len().saturating_sub(RETURNS));
        }
        self.processes.retain(|earlier| earlier != process);
        self.processes.push(process.to_owned());
        self.processes.drain(..self.processes.len().saturating_sub(REMEMBERED));
    }

    /// Whether several processes with this key keep taking the session from each other.
    pub(super) fn is_cloned(&self, now: DateTime<Utc>) -> bool {
        match self.returns.as_slice() {
            [first, .., last] if self.returns.len() == RETURNS => {
                *last - *first <= WINDOW && now - *last <= OVER
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(sessions: &[(&str, i64)]) -> (SessionHistory, DateTime<Utc>) {
        let start = Utc::now();
        let mut history = SessionHistory::default();
        let mut now = start;
        for (process, second) in sessions {
            now = start + TimeDelta::seconds(*second);
            history.begin(process, now);
            history = SessionHistory::of(history.column().as_deref());
        }
        (history, now)
    }

    #[test]
    fn two_that_take_turns_are_noticed_and_forgotten_when_they_stop() {
        let (history, now) = after(&[("a", 0), ("b", 9), ("a", 20), ("b", 31), ("a", 44)]);
        assert!(history.is_cloned(now));
        assert!(history.is_cloned(now + OVER));
        assert!(!history.is_cloned(now + OVER + TimeDelta::seconds(1)));
        let (history, now) = after(&[("a", 0), ("b", 9), ("c", 10), ("a", 20), ("b", 31), ("c", 44)]);
        assert!(history.is_cloned(now), "three are noticed, too");
    }

    #[test]
    fn reconnects_and_restarts_are_not_taken_for_copies() {
        let (history, now) = after(&[("a", 0), ("a", 1), ("a", 2), ("a", 3), ("a", 4), ("a", 5)]);
        assert!(!history.is_cloned(now));
        let names: Vec<String> = (0..100).map(|run| run.to_string()).collect();
        let restarts: Vec<_> = names.iter().zip(0..).map(|(name, at)| (name.as_str(), at)).collect();
        let (history, now) = after(&restarts);
        assert!(!history.is_cloned(now));
        assert!(history.processes.len() <= REMEMBERED);
    }

    #[test]
    fn returns_far_apart_are_no_sign() {
        let (history, now) = after(&[("a", 0), ("b", 1), ("a", 200), ("b", 400), ("a", 600)]);
        assert!(!history.is_cloned(now));
        assert_eq!(SessionHistory::of(Some("{]")), SessionHistory::default());
    }
}
