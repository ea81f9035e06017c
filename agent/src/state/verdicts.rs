//! Verdicts across starts: one JSON text a line, oldest first.
//!
//! A file that cannot be read, or a line of it, is worth a complaint and no more: without the verdict the
//! server gives the target out again.

use purser_proto_schema::agent::{MAX_TARGETS_PER_AGENT, calls::VerdictReport};

use super::files::Folder;
use crate::error::AgentError;

const VERDICTS: &str = "verdicts.jsonl";
/// All verdicts together; a full table of ordinary ones takes a tenth of it.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The file.
#[derive(Clone)]
pub(crate) struct VerdictFile(Folder);

impl VerdictFile {
    pub(super) fn new(folder: Folder) -> Self {
        Self(folder)
    }

    /// What is kept, oldest first, as far as it can be read.
    pub(crate) fn read(&self) -> Vec<VerdictReport> {
        let text = match self.0.read(VERDICTS, MAX_BYTES as u64) {
            Ok(text) => text.unwrap_or_default(),
            Err(error) => {
                tracing::error!(error = %error.chain(), "verdicts of an earlier run are lost; their targets are given out again");
                return Vec::new();
            }
        };
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        // serde's own error could quote the line.
        let parsed: Vec<Option<VerdictReport>> =
            lines.map(|line| serde_json::from_slice(line).ok()).collect();
        let damaged = parsed.iter().filter(|report| report.is_none()).count();
        if damaged > 0 {
            tracing::error!(damaged, path = %self.0.path(VERDICTS).display(), "verdicts of an earlier run cannot be read; their targets are given out again");
        }
        let mut reports: Vec<VerdictReport> = parsed.into_iter().flatten().collect();
        reports.drain(..reports.len().saturating_sub(MAX_TARGETS_PER_AGENT));
        reports
    }

    /// Keeps these in place of all others. Where they are more than the file takes, the newest are kept.
    ///
    /// # Errors
    /// When they cannot be written; what was kept before then still is.
    pub(crate) fn write(&self, reports: &[VerdictReport]) -> Result<(), AgentError> {
        let mut lines = Vec::with_capacity(reports.len());
        let mut room = MAX_BYTES;
        for report in reports.iter().rev() {
            let mut line = serde_json::to_vec(report).map_err(|error| AgentError::State {
                doing: "write",
                path: self.0.path(VERDICTS),
                source: error.into(),
            })?;
            line.push(b'\n');
            let Some(left) = room.checked_sub(line.len()) else { break };
            room = left;
            lines.push(line);
        }
        lines.reverse();
        if lines.is_empty() { self.0.remove(VERDICTS) } else { self.0.write(VERDICTS, &lines.concat()) }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use purser_proto_schema::{
        agent::{
            calls::Attempt,
            command::{Failure, Verdict},
        },
        ids::TargetId,
    };
    use purser_registry_client::DiagnosisCode;

    use super::*;

    fn report(name: &str, said: &str) -> VerdictReport {
        let attempt = Attempt { target_id: TargetId::from_stored(name.to_owned()), attempt: 1 };
        let failure = Failure::new(DiagnosisCode::Other, said, "");
        VerdictReport { attempt, verdict: Verdict::Failed { failure, duration_ms: 1 } }
    }

    fn names(file: &VerdictFile) -> Vec<String> {
        file.read().iter().map(|report| report.attempt.target_id.to_string()).collect()
    }

    #[test]
    fn what_is_written_is_read_again_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = VerdictFile(Folder::open(folder.path()).unwrap());
        assert!(file.read().is_empty());
        file.write(&[report("a", "x\ny"), report("b", "")]).unwrap();
        assert_eq!(names(&file), ["a", "b"]);
        let path = folder.path().join(VERDICTS);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        file.write(&[]).unwrap();
        file.write(&[]).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
    }

    #[test]
    fn a_torn_or_damaged_file_costs_what_is_damaged_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = VerdictFile(Folder::open(folder.path()).unwrap());
        file.write(&[report("a", ""), report("b", ""), report("c", "")]).unwrap();
        let path = folder.path().join(VERDICTS);
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        assert_eq!(names(&file), ["a", "b"]);
        fs::write(&path, whole.replacen("attempt", "\u{0}\u{0}\u{0}", 1)).unwrap();
        assert_eq!(names(&file), ["b", "c"]);
        fs::write(&path, [0xff; 5000]).unwrap();
        assert!(names(&file).is_empty());
        // Far too long, or no file at all.
        fs::File::create(&path).unwrap().set_len(MAX_BYTES as u64 + 1).unwrap();
        assert!(names(&file).is_empty());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(names(&file).is_empty());
    }

    #[test]
    fn the_file_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let file = VerdictFile(Folder::open(folder.path()).unwrap());
        let long = "x".repeat(MAX_BYTES / 4);
        let reports: Vec<_> = (0..6).map(|n| report(&n.to_string(), &long)).collect();
        file.write(&reports).unwrap();
        assert!(fs::metadata(folder.path().join(VERDICTS)).unwrap().len() <= MAX_BYTES as u64);
        assert_eq!(names(&file), ["3", "4", "5"], "the newest are kept");
        let many: Vec<_> = (0..2 * MAX_TARGETS_PER_AGENT).map(|n| report(&n.to_string(), "")).collect();
        file.write(&many).unwrap();
        assert_eq!(names(&file).len(), MAX_TARGETS_PER_AGENT);
    }
}
