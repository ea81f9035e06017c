use std::future::pending;

use bytes::Bytes;
use jsonrpsee::core::server::RpcModule;
use tokio::sync::mpsc;

use super::*;
use crate::{
    agent::{
        MAX_TARGETS_PER_AGENT, PROTOCOLS,
        calls::Attempt,
        handshake::{Answer, Hello, Limits, Resume, Welcome},
        noise::{self, StaticKey},
        wire::WireError,
    },
    ids::{ServerId, TargetId},
};

/// What a side wrote.
#[derive(Debug)]
enum Sent {
    Message(Bytes),
    Ping,
    Closed(CloseCode),
}

struct Reader(mpsc::UnboundedReceiver<Incoming>);

impl WireReader for Reader {
    async fn next(&mut self) -> Option<Result<Incoming, WireError>> {
        self.0.recv().await.map(Ok)
    }
}

struct Writer(mpsc::UnboundedSender<Sent>);

impl WireWriter for Writer {
    async fn send(&mut self, message: Bytes) -> Result<(), WireError> {
        self.0.send(Sent::Message(message)).map_err(|error| WireError(error.to_string().into()))
    }

    async fn ping(&mut self) -> Result<(), WireError> {
        self.0.send(Sent::Ping).map_err(|error| WireError(error.to_string().into()))
    }

    async fn close(&mut self, code: CloseCode) -> Result<(), WireError> {
        self.0.send(Sent::Closed(code)).map_err(|error| WireError(error.to_string().into()))
    }
}

/// A peer that does not read.
struct Stalled;

impl WireWriter for Stalled {
    async fn send(&mut self, _: Bytes) -> Result<(), WireError> {
        pending().await
    }

    async fn ping(&mut self) -> Result<(), WireError> {
        pending().await
    }

    async fn close(&mut self, _: CloseCode) -> Result<(), WireError> {
        pending().await
    }
}

/// One side under test, and what the other side has in hand.
struct Scene {
    reader: Reader,
    writer: Writer,
    sealer: Sealer,
    opener: Opener,
    /// What the side under test hears.
    say: mpsc::UnboundedSender<Incoming>,
    /// What it says.
    heard: mpsc::UnboundedReceiver<Sent>,
    /// The other side's.
    other: Sealer,
}

fn hello() -> Hello {
    // As long as one gets.
    let attempts = |start: usize| {
        let ids = (start..start + MAX_TARGETS_PER_AGENT).map(|_| TargetId::generate());
        ids.map(|target_id| Attempt { target_id, attempt: u32::MAX }).collect()
    };
    Hello {
        protocol: PROTOCOLS,
        agent_version: "0".repeat(64),
        instance: Some("x".repeat(64)),
        server_id: ServerId::generate(),
        join_secret: None,
        engine: None,
        resume: Resume { running_targets: attempts(0), unacknowledged_verdicts: attempts(1000) },
    }
}

/// Passes what a side says on to the other, until the first has nothing more to say.
async fn pass(mut from: mpsc::UnboundedReceiver<Sent>, to: mpsc::UnboundedSender<Incoming>) {
    while let Some(Sent::Message(message)) = from.recv().await {
        let _ = to.send(Incoming::Binary(message));
    }
}

/// After a handshake, the responding side.
async fn shaken() -> Scene {
    let (server, agent) = (StaticKey::generate().unwrap(), StaticKey::generate().unwrap());
    let (to_server, server_hears) = mpsc::unbounded_channel();
    let (to_agent, agent_hears) = mpsc::unbounded_channel();
    let (server_says, server_said) = mpsc::unbounded_channel();
    let (agent_says, agent_said) = mpsc::unbounded_channel();
    let (up, down) =
        (tokio::spawn(pass(agent_said, to_server.clone())), tokio::spawn(pass(server_said, to_agent)));
    let fingerprint = server.fingerprint();
    let dialled = tokio::spawn(async move {
        let (mut reader, mut writer) = (Reader(agent_hears), Writer(agent_says));
        noise::initiate(&mut reader, &mut writer, &agent, &fingerprint, &hello()).await.unwrap()
    });
    let (mut reader, mut writer) = (Reader(server_hears), Writer(server_says));
    let introduced = noise::receive(&mut reader, &mut writer, &server).await.unwrap();
    let terms = Welcome {
        session_epoch: 1,
        protocol: 1,
        heartbeat_ms: 1000,
        limits: Limits::default(),
        drop: Vec::new(),
    };
    let (sealer, opener) = introduced.welcome(&mut writer, terms).await.unwrap();
    let (answer, other, _) = dialled.await.unwrap();
    assert!(matches!(answer, Answer::Welcome(_)));
    up.abort();
    down.abort();
    let (says, heard) = mpsc::unbounded_channel();
    Scene { reader, writer: Writer(says), sealer, opener, say: to_server, heard, other }
}

const LIVENESS: Liveness = Liveness { ping_every: None, lost_after: Duration::from_secs(45) };

/// How a session ends in which the other side says this, and what it is told.
async fn ends(what: impl FnOnce(&mut Sealer) -> Option<Incoming>) -> (String, Option<u16>) {
    let mut scene = shaken().await;
    let methods = RpcModule::new(()).into();
    let peer = Peer::start(scene.reader, scene.writer, scene.sealer, scene.opener, methods, LIVENESS);
    if let Some(incoming) = what(&mut scene.other) {
        scene.say.send(incoming).unwrap();
    }
    let ended = timeout(Duration::from_secs(300), peer.ended()).await.unwrap().to_string();
    drop(peer);
    let mut told = None;
    while let Some(sent) = scene.heard.recv().await {
        if let Sent::Closed(code) = sent {
            assert!(told.replace(code.number()).is_none(), "told twice");
        }
    }
    (ended, told)
}

#[tokio::test(start_paused = true)]
async fn who_does_not_keep_to_the_protocol_is_told_by_a_code_and_cut() {
    let text = |text: &'static str| ends(move |sealer| Some(Incoming::Binary(sealer.seal(text).unwrap())));
    let reason = |code: CloseCode| (code.reason().to_owned(), Some(code.number()));
    assert_eq!(ends(|_| Some(Incoming::Unexpected)).await.1, Some(1003));
    assert_eq!(ends(|_| Some(Incoming::TooLong)).await.1, Some(1009));
    assert_eq!(
        ends(|_| Some(Incoming::Binary(Bytes::from_static(&[0, 20, 1, 2])))).await,
        reason(CloseCode::Malformed)
    );
    assert_eq!(
        ends(|_| Some(Incoming::Binary(vec![0, 20].into_iter().chain([7; 20]).collect()))).await,
        reason(CloseCode::Undecryptable)
    );
    // Out of order: the second without the first.
    let skipped = ends(|sealer| {
        let _ = sealer.seal("{}").unwrap();
        Some(Incoming::Binary(sealer.seal("{}").unwrap()))
    });
    assert_eq!(skipped.await, reason(CloseCode::Undecryptable));
    assert_eq!(text("no JSON").await, reason(CloseCode::Malformed));
    assert_eq!(ends(|_| None).await, ("the other side gives no sign of life".to_owned(), Some(4408)));
}

#[tokio::test]
async fn what_the_other_side_says_at_the_end_is_known_and_not_answered() {
    let closed = Incoming::Closed { code: 4409, reason: "superseded".to_owned() };
    let (ended, told) = ends(|_| Some(closed)).await;
    assert_eq!((ended.as_str(), told), ("the other side closed the connection: superseded", None));
}

/// On both sides: the server's has pings to write, the agent's a call.
#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_cut_when_a_write_takes_too_long() {
    for ping_every in [None, Some(Duration::from_secs(15))] {
        let scene = shaken().await;
        let liveness = Liveness { ping_every, lost_after: Duration::from_secs(3600) };
        let methods = RpcModule::new(()).into();
        let peer = Peer::start(scene.reader, Stalled, scene.sealer, scene.opener, methods, liveness);
        if ping_every.is_none() {
            use jsonrpsee::core::{client::ClientT as _, params::ObjectParams};
            let client = peer.client();
            tokio::spawn(async move { client.request::<(), _>("any", ObjectParams::new()).await.err() });
        }
        let begun = Instant::now();
        let ended = timeout(Duration::from_secs(300), peer.ended()).await.unwrap();
        assert!(matches!(*ended, ChannelError::Stalled), "{ended}");
        assert_eq!((begun.elapsed() - ping_every.unwrap_or_default()).as_secs(), WRITE_DEADLINE.as_secs());
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_reason_to_close_lets_the_first_be_said() {
    for _ in 0..20 {
        let mut scene = shaken().await;
        let methods = RpcModule::new(()).into();
        let peer = Peer::start(scene.reader, scene.writer, scene.sealer, scene.opener, methods, LIVENESS);
        tokio::join!(peer.close(CloseCode::Superseded), peer.close(CloseCode::NotInForce));
        assert!(matches!(scene.heard.recv().await, Some(Sent::Closed(CloseCode::Superseded))));
        assert!(matches!(*peer.ended().await, ChannelError::ClosedHere(CloseCode::Superseded)));
    }
}
