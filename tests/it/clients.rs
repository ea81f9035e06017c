//! The published tRPC clients, 10 and 11, in Node.js against a running control plane: the scripts in
//! `tests/clients`, whose packages are installed once.

use std::{fs, path::Path, sync::Arc, time::Duration};

use purser_tests::{
    BreakableProxy, Purser, Testbed,
    npm::{folder, install},
    process::{Process, tied},
};

/// How long a script may take.
const END: Duration = Duration::from_secs(240);

/// A running script.
struct Script {
    process: Arc<Process>,
    // Holds its log.
    _folder: tempfile::TempDir,
}

impl Script {
    fn start(path: &str, purser: &Purser, environment: &[(&str, &str)]) -> Self {
        install();
        let scratch = Testbed::get().scratch("client");
        let mut node = tied("node");
        node.arg(Path::new(path)).current_dir(folder()).env_clear();
        node.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        node.env("PURSER_URL", purser.url()).env("PURSER_KEY", purser.admin_key());
        node.envs(environment.iter().copied());
        let process = Process::start(path, node, &scratch.path().join("log")).unwrap();
        Self { process: Arc::new(process), _folder: scratch }
    }

    /// Waits until the script says something on a line of its own.
    async fn says(&self, line: &str) {
        let (process, line) = (Arc::clone(&self.process), line.to_owned());
        let waiting = move || process.await_log(END, |said| (said == line).then_some(()));
        tokio::task::spawn_blocking(waiting).await.unwrap().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits for its end, which is a good one.
    async fn succeeds(self) {
        let process = Arc::clone(&self.process);
        let status = tokio::task::spawn_blocking(move || process.wait(END)).await.unwrap();
        let log = self.process.logs();
        assert!(status.is_some_and(|status| status.success()), "{status:?}: {log}");
        assert!(log.contains("ok: "), "{log}");
    }
}

#[tokio::test]
async fn version_10_calls_plain_and_in_batches() {
    let purser = Purser::start().await;
    Script::start("v10/calls.mjs", &purser, &[]).succeeds().await;
}

#[tokio::test]
async fn version_11_calls_plain_in_batches_and_line_by_line() {
    let purser = Purser::start().await;
    Script::start("v11/calls.mjs", &purser, &[]).succeeds().await;
}

#[tokio::test]
async fn version_11_gets_each_answer_of_a_batch_when_it_is_there() {
    let purser = Purser::start().await;
    Script::start("v11/stream.mjs", &purser, &[]).succeeds().await;
}

async fn through_a_link_that_breaks_and_stalls(dialect: &str) {
    let purser = Purser::start().await;
    let link = BreakableProxy::start(purser.address()).await;
    let url = format!("http://{}", link.address());
    let environment = [("PURSER_LINK", url.as_str()), ("DIALECT", dialect)];
    let script = Script::start("v11/subscriptions.mjs", &purser, &environment);
    script.says("please cut").await;
    link.refuse(true);
    link.cut();
    script.says("please mend").await;
    link.refuse(false);
    script.says("please stall").await;
    link.stall(true);
    script.says("please flow").await;
    // What was sent into the stalled connections is lost with them.
    link.cut();
    link.stall(false);
    script.succeeds().await;
}

#[tokio::test]
async fn version_11_is_told_everything_through_a_link_that_breaks_and_stalls() {
    through_a_link_that_breaks_and_stalls("plain").await;
}

#[tokio::test]
async fn version_11_is_told_everything_in_superjson_too() {
    through_a_link_that_breaks_and_stalls("superjson").await;
}

/// A lock file that names a host would install from there, whatever registry is configured.
#[test]
fn the_lock_file_names_no_registry() {
    let lock = fs::read_to_string(folder().join("package-lock.json")).unwrap();
    assert!(!lock.contains("\"resolved\": \"http"), "npm install --omit-lockfile-registry-resolved");
    assert!(lock.contains("\"integrity\": \"sha512-"));
}
