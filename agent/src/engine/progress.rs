//! From the lines of the engine's stream to a [`Progress`] that is true.
//!
//! Bytes are summed over layers by id, so that layers in parallel add up and a repeated line counts once.
//! The percentage exists only while the total of every unfinished layer is known, never falls, and stays
//! below 100: only the verdict says that it is done.

use std::collections::HashMap;

use purser_proto_schema::job::Progress;

/// The most that is said before the end.
const ALMOST: u64 = 99;
/// More layers than any image has: a bound against an engine that invents ids.
const MAX_LAYERS: usize = 1024;

/// One line of the stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line<'a> {
    pub(super) id: Option<&'a str>,
    pub(super) status: &'a str,
    pub(super) current: Option<u64>,
    pub(super) total: Option<u64>,
}

#[derive(Debug, Default)]
struct Layer {
    total: Option<u64>,
    downloaded: u64,
    fetched: bool,
    done: bool,
}

impl Layer {
    fn download(&mut self, current: u64, total: Option<u64>) {
        // After an interruption the engine counts only what was left.
        let whole = self.total.max(total);
        let before = whole.zip(total).map_or(0, |(whole, total)| whole - total);
        self.total = whole;
        self.downloaded = self.downloaded.max(before + current);
    }

    fn finish_download(&mut self) {
        self.fetched = true;
        // A small layer may have shown no bytes at all.
        self.total = self.total.or(Some(self.downloaded));
        self.downloaded = self.total.unwrap_or(self.downloaded);
    }
}

/// The progress of one pull.
#[derive(Debug, Default)]
pub(super) struct PullProgress {
    layers: HashMap<String, Layer>,
    retrying: bool,
    percent: Option<u8>,
}

impl PullProgress {
    /// Takes a line, and says how far the pull is.
    pub(super) fn take(&mut self, line: Line<'_>) -> Progress {
        if let Some(id) = line.id {
            self.take_layer(id, line);
        }
        self.snapshot()
    }

    fn take_layer(&mut self, id: &str, line: Line<'_>) {
        // Lines such as `latest: Pulling from library/nginx` carry a tag, and are no layer's.
        let known = self.layers.contains_key(id);
        let begins = matches!(line.status, "Pulling fs layer" | "Waiting" | "Downloading" | "Already exists");
        if !known && (!begins || self.layers.len() >= MAX_LAYERS) {
            return;
        }
        let layer = self.layers.entry(id.to_owned()).or_default();
        self.retrying = line.status.starts_with("Retrying");
        match line.status {
            "Downloading" => layer.download(line.current.unwrap_or_default(), line.total),
            "Verifying Checksum" | "Download complete" | "Extracting" => layer.finish_download(),
            "Already exists" | "Pull complete" => {
                layer.finish_download();
                layer.done = true;
            }
            _ => {}
        }
    }

    fn snapshot(&mut self) -> Progress {
        let layers = self.layers.values();
        let downloaded: u64 = layers.clone().map(|layer| layer.downloaded).sum();
        let total: Option<u64> = layers.clone().map(|layer| layer.total).sum();
        let total = total.filter(|_| !self.layers.is_empty());
        let done = layers.clone().filter(|layer| layer.done).count();
        let fetched = layers.clone().all(|layer| layer.fetched);
        let percent = total.map(|total| match total {
            // Nothing to move: count the layers instead.
            0 => share(done as u64, self.layers.len() as u64),
            total => share(downloaded, total),
        });
        self.percent = self.percent.max(percent);
        let phase = match (self.layers.is_empty(), self.retrying, fetched) {
            (true, ..) => "resolving",
            (_, true, _) => "retrying",
            (.., false) => "downloading",
            (.., true) => "extracting",
        };
        Progress {
            phase: phase.to_owned(),
            percent: self.percent,
            downloaded_bytes: downloaded,
            total_bytes: total,
            layers_done: count(done),
            layers_total: count(self.layers.len()),
        }
    }
}

/// The progress of one push. bollard drops the layers' ids, so layers are counted and bytes are not.
#[derive(Debug, Default)]
pub(super) struct PushProgress {
    seen: usize,
    done: usize,
    percent: Option<u8>,
}

impl PushProgress {
    /// Takes a line, and says how far the push is.
    pub(super) fn take(&mut self, status: &str) -> Progress {
        match status {
            "Preparing" => self.seen += 1,
            "Pushed" | "Layer already exists" => self.done += 1,
            mounted if mounted.starts_with("Mounted from") => self.done += 1,
            _ => {}
        }
        let percent = (self.seen > 0).then(|| share(self.done as u64, self.seen as u64));
        self.percent = self.percent.max(percent);
        Progress {
            phase: if self.seen == 0 { "preparing" } else { "pushing" }.to_owned(),
            percent: self.percent,
            layers_done: count(self.done),
            layers_total: count(self.seen),
            ..Progress::default()
        }
    }
}

fn share(part: u64, whole: u64) -> u8 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u8::try_from(percent.min(u128::from(ALMOST))).unwrap_or_default()
}

fn count(layers: usize) -> u32 {
    u32::try_from(layers).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(id: &'a str, status: &'a str) -> Line<'a> {
        Line { id: Some(id), status, ..Line::default() }
    }

    fn bytes<'a>(id: &'a str, current: u64, total: u64) -> Line<'a> {
        Line { id: Some(id), status: "Downloading", current: Some(current), total: Some(total) }
    }

    #[test]
    fn bytes_of_parallel_layers_add_up() {
        let mut pull = PullProgress::default();
        assert_eq!(pull.take(line("latest", "Pulling from library/nginx")).phase, "resolving");
        pull.take(line("a", "Pulling fs layer"));
        pull.take(line("b", "Pulling fs layer"));
        pull.take(line("c", "Already exists"));
        let begun = pull.take(bytes("a", 50, 100));
        assert_eq!((begun.percent, begun.total_bytes, begun.layers_total), (None, None, 3));
        let both = pull.take(bytes("b", 0, 300));
        assert_eq!((both.percent, both.downloaded_bytes, both.total_bytes), (Some(12), 50, Some(400)));
        pull.take(line("a", "Download complete"));
        let fetched = pull.take(line("b", "Download complete"));
        assert_eq!(
            (fetched.percent, fetched.phase.as_str(), fetched.layers_done),
            (Some(99), "extracting", 1)
        );
        pull.take(line("a", "Pull complete"));
        let done = pull.take(line("b", "Pull complete"));
        assert_eq!((done.percent, done.layers_done, done.downloaded_bytes), (Some(99), 3, 400));
    }

    #[test]
    fn a_resumed_download_goes_on_from_where_it_was() {
        let mut pull = PullProgress::default();
        pull.take(line("a", "Pulling fs layer"));
        pull.take(bytes("a", 600, 1000));
        assert_eq!(pull.take(line("a", "Retrying in 5 seconds")).phase, "retrying");
        let resumed = pull.take(bytes("a", 100, 400));
        assert_eq!(
            (resumed.downloaded_bytes, resumed.total_bytes, resumed.percent),
            (700, Some(1000), Some(70))
        );
    }

    #[test]
    fn the_percentage_never_falls() {
        let mut pull = PullProgress::default();
        pull.take(bytes("a", 90, 100));
        assert_eq!(pull.take(line("b", "Pulling fs layer")).percent, Some(90));
        assert_eq!(pull.take(bytes("b", 0, 900)).percent, Some(90));
        assert_eq!(pull.take(bytes("b", 900, 900)).percent, Some(99));
    }

    #[test]
    fn an_image_that_is_there_already_is_counted_in_layers() {
        let mut pull = PullProgress::default();
        let there = pull.take(line("a", "Already exists"));
        assert_eq!((there.percent, there.total_bytes, there.layers_done), (Some(99), Some(0), 1));
    }

    #[test]
    fn a_push_counts_layers() {
        let mut push = PushProgress::default();
        assert_eq!(push.take("The push refers to repository [h/a]").percent, None);
        push.take("Preparing");
        push.take("Preparing");
        push.take("Waiting");
        assert_eq!(push.take("Layer already exists").percent, Some(50));
        assert_eq!(push.take("Pushing").layers_done, 1);
        assert_eq!(push.take("Mounted from h/b").percent, Some(99));
    }
}
