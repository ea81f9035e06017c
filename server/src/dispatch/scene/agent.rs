//! An agent that dials a [`Scene`], over a wire in memory: handshake and session are the real ones.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use jsonrpsee::core::{RpcResult, async_trait};
use purser_proto_schema::{
    agent::{
        MAX_TARGETS_PER_AGENT, PROTOCOLS,
        calls::{AgentCallsServer, Attempt, StartReply, StartTarget},
        close::CloseCode,
        handshake::{Answer, Hello, Resume},
        noise::{ChannelError, initiate},
        peer::{Liveness, Peer},
        wire::{Incoming, Ration, WireError, WireReader, WireWriter},
    },
    ids::TargetId,
    image::Image,
};
use secrecy::SecretString;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{Dispatch, JOIN_SECRET, Scene, Session};

/// More than is ever under way.
const ROOM: usize = 64;
/// Between two signs of life.
const PING: Duration = Duration::from_secs(5);
/// How long any step may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// An agent in its session.
pub(in super::super) struct Agent {
    pub(in super::super) peer: Peer,
    /// What it was given. It takes everything.
    pub(in super::super) started: mpsc::Receiver<StartTarget>,
    /// The other end of its session.
    pub(in super::super) session: Arc<Session>,
}

impl Scene {
    /// The server's agent dials, and its session begins.
    pub(in super::super) async fn agent(&self) -> Agent {
        self.dial(false).await.unwrap()
    }

    /// The same, with a hello that is as long as any.
    ///
    /// # Errors
    /// How it was turned away.
    pub(in super::super) async fn dial(&self, long: bool) -> Result<Agent, ChannelError> {
        let (to_agent, at_agent) = mpsc::channel(ROOM);
        let (to_server, at_server) = mpsc::channel(ROOM);
        let dispatch = Dispatch { shared: Arc::clone(&self.shared) };
        let server_ear = Ear { hears: at_server, ration: self.ration.clone() };
        tokio::spawn(async move { dispatch.serve(server_ear, Mouth(to_agent)).await });
        let attempts = if long { MAX_TARGETS_PER_AGENT } else { 0 };
        let hello = Hello {
            protocol: PROTOCOLS,
            agent_version: "0".to_owned(),
            instance: None,
            server_id: self.server.clone(),
            join_secret: Some(SecretString::from(JOIN_SECRET).into()),
            engine: None,
            resume: Resume {
                running_targets: (0..attempts)
                    .map(|_| Attempt { target_id: TargetId::generate(), attempt: 1 })
                    .collect(),
                ..Resume::default()
            },
        };
        let (mut ear, mut mouth) =
            (Ear { hears: at_agent, ration: watch::Sender::new(Ration::Endless) }, Mouth(to_server));
        let pinned = self.shared.channel_key.fingerprint();
        let (answer, sealer, opener) = initiate(&mut ear, &mut mouth, &self.key, &pinned, &hello).await?;
        let Answer::Welcome(welcome) = answer else { panic!("{answer:?}") };
        let (starts, started) = mpsc::channel(ROOM);
        // It has nobody else to answer the server's pings, which are signs of life.
        let liveness = Liveness { ping_every: Some(PING), lost_after: Duration::from_secs(24 * 3600) };
        let calls = Calls { starts }.into_rpc().into();
        let peer = Peer::start(ear, mouth, sealer, opener, calls, liveness);
        // It is told before its session is in the table, and looks into the queue.
        let session = timeout(DEADLINE, async {
            loop {
                match self.shared.session(&self.server) {
                    Some(session)
                        if session.fence.epoch == welcome.session_epoch && session.nobody_waits() =>
                    {
                        return session;
                    }
                    _ => tokio::task::yield_now().await,
                }
            }
        });
        let session = session.await.expect("the session begins");
        Ok(Agent { peer, started, session })
    }
}

struct Calls {
    starts: mpsc::Sender<StartTarget>,
}

#[async_trait]
impl AgentCallsServer for Calls {
    async fn target_start(&self, request: StartTarget) -> RpcResult<StartReply> {
        // A test that does not look has dropped the other end.
        let _ = self.starts.send(request).await;
        Ok(StartReply::Accepted)
    }

    async fn target_cancel(&self, _: Attempt) -> RpcResult<()> {
        Ok(())
    }

    async fn engine_images(&self) -> RpcResult<Vec<Image>> {
        Ok(Vec::new())
    }
}

struct Ear {
    hears: mpsc::Receiver<Incoming>,
    ration: watch::Sender<Ration>,
}

impl WireReader for Ear {
    async fn next(&mut self) -> Option<Result<Incoming, WireError>> {
        self.hears.recv().await.map(Ok)
    }

    fn ration(&mut self, ration: Ration) {
        self.ration.send_replace(ration);
    }
}

struct Mouth(mpsc::Sender<Incoming>);

impl Mouth {
    async fn say(&self, what: Incoming) -> Result<(), WireError> {
        self.0.send(what).await.map_err(|error| WireError(error.to_string().into()))
    }
}

impl WireWriter for Mouth {
    async fn send(&mut self, message: Bytes) -> Result<(), WireError> {
        self.say(Incoming::Binary(message)).await
    }

    async fn ping(&mut self) -> Result<(), WireError> {
        self.say(Incoming::Liveness).await
    }

    async fn close(&mut self, code: CloseCode) -> Result<(), WireError> {
        self.say(Incoming::Closed { code: code.number(), reason: code.reason().to_owned() }).await
    }
}
