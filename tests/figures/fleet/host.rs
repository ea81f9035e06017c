//! An agent without an engine, as light as can be: one task that shakes hands for real, answers pings,
//! takes targets, and says at once that they succeeded.

use std::{
    collections::BTreeMap,
    fmt::Display,
    io,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use purser_proto_schema::agent::{
    close::CloseCode,
    handshake::{Answer, Hello, Resume},
    noise::{ChannelError, Opener, Sealer, initiate},
    wire::{Incoming, WireReader as _, WireWriter as _},
};
use purser_tests::{
    double::{Double, Reader, Writer},
    faults::Chance,
    wait::random_bytes,
};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{client_async_with_config, tungstenite::protocol::WebSocketConfig};

/// As in the agent: full jitter under a ceiling that doubles.
const FIRST_CEILING: Duration = Duration::from_millis(500);
const LAST_CEILING: Duration = Duration::from_secs(30);
const LEAST_WAIT: Duration = Duration::from_millis(100);
const AFTER_REFUSAL: Duration = Duration::from_secs(5);
const HEALTHY: Duration = Duration::from_secs(60);
const DIAL_DEADLINE: Duration = Duration::from_secs(30);
const CONNECT_DEADLINE: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_millis(20);
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

    async fn dial(&self) -> Result<Session, Failed> {
        let address = &self.address;
        let dialling = timeout(DIAL_DEADLINE, async {
            let connecting = timeout(CONNECT_DEADLINE, TcpStream::connect(address));
            let stream = connecting.await.map_err(|_| Failed::of("no connection in time"))??;
            let config = WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(0);
            let opened =
                client_async_with_config(format!("ws://{address}/agent"), stream, Some(config)).await;
            Ok::<_, Failed>(opened.map_err(Failed::of)?.0.split())
        });
        let (sink, stream) = dialling.await.map_err(|_| Failed::of("no WebSocket in time"))??;
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
        match shaking.await? {
            (Answer::Welcome(welcome), sealer, opener) => {
                // Whoever was here first has set it.
                let _ = self.enrolled.set(());
                let lost_after = 3 * Duration::from_millis(welcome.heartbeat_ms);
                Ok(Session { reader, writer, sealer, opener, lost_after, calls: 0 })
            }
            (Answer::Refused(refused), ..) => {
                let least_wait = Duration::from_millis(refused.retry_after_ms).max(AFTER_REFUSAL);
                Err(Failed { why: refused.message, least_wait, nobody_there: false })
            }
        }
    }

    /// Keeps the link, as the agent does.
    async fn live(&self, tally: &Tally) {
        let mut chance = Chance::new(seed());
        let mut ceiling = FIRST_CEILING;
        loop {
            let mut least_wait = Duration::ZERO;
            match self.dial().await {
                Ok(mut session) => {
                    let _online = Online::new(tally);
                    let began = Instant::now();
                    // However it ended: it is dialled again.
                    let _ = session.serve(tally).await;
                    if began.elapsed() >= HEALTHY {
                        ceiling = FIRST_CEILING;
                    }
                }
                Err(failed) => {
                    least_wait = failed.least_wait;
                    tally.turn_away(&failed);
                }
            }
            sleep((least_wait + chance.between(Duration::ZERO, ceiling)).max(LEAST_WAIT)).await;
            ceiling = (2 * ceiling).min(LAST_CEILING);
        }
    }
}

/// Why a dial became no session.
struct Failed {
    why: String,
    least_wait: Duration,
    /// The server's process was away.
    nobody_there: bool,
}

impl Failed {
    fn of(error: impl Display) -> Self {
        Self { why: error.to_string(), least_wait: Duration::ZERO, nobody_there: false }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self { nobody_there: error.kind() == io::ErrorKind::ConnectionRefused, ..Self::of(error) }
    }
}

impl From<ChannelError> for Failed {
    fn from(error: ChannelError) -> Self {
        let busy = matches!(error, ChannelError::Closed { code, .. } if code == CloseCode::Busy.number());
        let least_wait = if busy { AFTER_REFUSAL } else { Duration::ZERO };
        Self { least_wait, ..Self::of(error) }
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
    /// A dial while no server was there is nothing that the server did.
    fn turn_away(&self, failed: &Failed) {
        if !failed.nobody_there {
            let mut counts = self.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
            *counts.entry(failed.why.clone()).or_default() += 1;
        }
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

    /// Waits for that many of them; false when that took longer than `patience`.
    pub async fn all_stored(&self, count: usize, patience: Duration) -> bool {
        reached(patience, || self.stored() >= count).await
    }

    /// Waits until that many agents have sessions; false when that took longer than `patience`.
    pub async fn all_online(&self, agents: usize, patience: Duration) -> bool {
        reached(patience, || self.online() == agents).await
    }

    /// Agents with a session.
    pub fn online(&self) -> usize {
        self.online.load(Ordering::Relaxed)
    }
}

async fn reached(patience: Duration, wanted: impl Fn() -> bool) -> bool {
    let looking = async {
        while !wanted() {
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(patience, looking).await.is_ok()
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
