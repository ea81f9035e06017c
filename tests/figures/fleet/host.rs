//! An agent without an engine, as light as can be: one task that shakes hands for real, answers pings,
//! takes targets, and says at once that they succeeded.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use purser_proto_schema::agent::{
    HANDSHAKE_DEADLINE,
    handshake::{Answer, Hello, Resume},
    noise::{ChannelError, Opener, Sealer, initiate},
    wire::{Incoming, WireReader as _, WireWriter as _},
};
use purser_tests::{
    double::{Double, Reader, Writer},
    eventually,
    faults::Chance,
    wait::random_bytes,
};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_tungstenite::{client_async_with_config, tungstenite::protocol::WebSocketConfig};

/// As in the agent: full jitter under a ceiling that doubles.
const FIRST_CEILING: Duration = Duration::from_millis(500);
const LAST_CEILING: Duration = Duration::from_secs(30);
const LEAST_WAIT: Duration = Duration::from_millis(100);
/// The library's default is 128 KiB for each socket.
const BUFFER: usize = 4 * 1024;
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Who an agent is, and where its server listens.
pub struct Host {
    double: Double,
    address: String,
    /// Set once its key is enrolled.
    enrolled: OnceLock<()>,
}

impl Host {
    /// One that has yet to join.
    pub fn with_token(token: &str, address: &str) -> Self {
        Self { double: Double::with_token(token), address: address.to_owned(), enrolled: OnceLock::new() }
    }

    /// Its server's id.
    pub fn server(&self) -> &str {
        self.double.server_id.as_str()
    }

    async fn dial(&self) -> Result<Session, String> {
        let words = |error: &dyn std::fmt::Display| error.to_string();
        let stream = TcpStream::connect(&self.address).await.map_err(|error| words(&error))?;
        let config = WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(0);
        let url = format!("ws://{}/agent", self.address);
        let opened = client_async_with_config(url, stream, Some(config)).await;
        let (sink, stream) = opened.map_err(|error| words(&error))?.0.split();
        let (mut reader, mut writer) = (Reader(stream), Writer(sink));
        let hello = Hello {
            protocol: self.double.protocol,
            agent_version: "0.0.0-figures".into(),
            instance: Some(self.double.instance.clone()),
            server_id: self.double.server_id.clone(),
            join_secret: self.double.join_secret.clone().filter(|_| self.enrolled.get().is_none()),
            engine: None,
            resume: Resume::default(),
        };
        let shaking = initiate(&mut reader, &mut writer, &self.double.key, &self.double.server_key, &hello);
        match shaking.await.map_err(|error| words(&error))? {
            (Answer::Welcome(welcome), sealer, opener) => {
                // Whoever was here first has set it.
                let _ = self.enrolled.set(());
                let lost_after = 3 * Duration::from_millis(welcome.heartbeat_ms);
                Ok(Session { reader, writer, sealer, opener, lost_after, calls: 0 })
            }
            (Answer::Refused(refused), ..) => Err(refused.message),
        }
    }

    /// Keeps the link, as the agent does.
    async fn live(&self, tally: &Tally) {
        let mut chance = Chance::new(seed());
        let mut ceiling = FIRST_CEILING;
        loop {
            match timeout(HANDSHAKE_DEADLINE, self.dial()).await {
                Ok(Ok(mut session)) => {
                    let _online = Online::new(tally);
                    ceiling = FIRST_CEILING;
                    // However it ended: it is dialled again.
                    let _ = session.serve(tally).await;
                }
                Ok(Err(why)) => tally.turn_away(&why),
                Err(_) => tally.turn_away("no answer to the handshake in time"),
            }
            sleep(chance.between(Duration::ZERO, ceiling).max(LEAST_WAIT)).await;
            ceiling = (2 * ceiling).min(LAST_CEILING);
        }
    }
}

fn seed() -> u64 {
    random_bytes(8).iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

struct Session {
    reader: Reader,
    writer: Writer,
    sealer: Sealer,
    opener: Opener,
    lost_after: Duration,
    calls: u64,
}

impl Session {
    async fn serve(&mut self, tally: &Tally) -> Result<(), ChannelError> {
        while let Ok(Some(incoming)) = timeout(self.lost_after, self.reader.next()).await {
            let Incoming::Binary(message) = incoming? else { continue };
            let text = self.opener.open(&message)?;
            let frame: Value = serde_json::from_str(&text).map_err(|_| ChannelError::Malformed)?;
            if frame["method"] == "target.start" {
                self.succeed(&frame).await?;
            } else if frame["result"]["receipt"] == "stored" {
                tally.stored.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    async fn succeed(&mut self, start: &Value) -> Result<(), ChannelError> {
        let target = &start["params"]["request"];
        let outcome = json!({"type": "image", "digest": DIGEST, "sizeBytes": null});
        let verdict = json!({"status": "succeeded", "outcome": outcome, "durationMs": 1});
        let report =
            json!({"targetId": target["targetId"], "attempt": target["attempt"], "verdict": verdict});
        self.calls += 1;
        self.say(&json!({"jsonrpc": "2.0", "id": start["id"], "result": {"reply": "accepted"}})).await?;
        let params = json!({"report": report});
        self.say(&json!({"jsonrpc": "2.0", "id": self.calls, "method": "target.verdict", "params": params}))
            .await
    }

    async fn say(&mut self, frame: &Value) -> Result<(), ChannelError> {
        let sealed = self.sealer.seal(&frame.to_string())?;
        Ok(self.writer.send(sealed).await?)
    }
}

/// What has happened to all agents together.
#[derive(Default)]
pub struct Tally {
    online: AtomicUsize,
    stored: AtomicUsize,
    turned_away: Mutex<BTreeMap<String, usize>>,
}

impl Tally {
    fn turn_away(&self, why: &str) {
        let mut counts = self.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(why.to_owned()).or_default() += 1;
    }

    /// How dials ended that did not become sessions, since this was last asked.
    pub fn take_turned_away(&self) -> String {
        let counts = std::mem::take(&mut *self.turned_away.lock().unwrap_or_else(PoisonError::into_inner));
        counts.iter().map(|(why, count)| format!(", {count} × {why:?}")).collect()
    }

    /// Verdicts that the server says it has stored.
    pub fn stored(&self) -> usize {
        self.stored.load(Ordering::Relaxed)
    }

    /// Waits for that many of them.
    pub async fn all_stored(&self, count: usize, patience: Duration) {
        eventually(patience, async || (self.stored() >= count).then_some(())).await;
    }

    /// Waits until that many agents have sessions.
    pub async fn all_online(&self, agents: usize, patience: Duration) {
        eventually(patience, async || (self.online.load(Ordering::Relaxed) == agents).then_some(())).await;
    }

    /// Waits until no agent has one.
    pub async fn all_offline(&self, patience: Duration) {
        self.all_online(0, patience).await;
    }
}

/// Counts while it is held, also in a task that is aborted.
struct Online<'a>(&'a Tally);

impl<'a> Online<'a> {
    fn new(tally: &'a Tally) -> Self {
        tally.online.fetch_add(1, Ordering::Relaxed);
        Self(tally)
    }
}

impl Drop for Online<'_> {
    fn drop(&mut self) {
        self.0.online.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Agents at work.
pub struct Running(JoinSet<()>);

impl Running {
    /// Starts all at once.
    pub fn start(hosts: &Arc<[Host]>, tally: &Arc<Tally>) -> Self {
        let mut tasks = JoinSet::new();
        for at in 0..hosts.len() {
            let (hosts, tally) = (Arc::clone(hosts), Arc::clone(tally));
            tasks.spawn(async move { hosts[at].live(&tally).await });
        }
        Self(tasks)
    }

    /// Cuts all.
    pub async fn stop(mut self) {
        self.0.shutdown().await;
    }
}
