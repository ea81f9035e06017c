//! An agent made by hand, from the protocol's own types: a clone with a stolen key, a stranger, one
//! that answers what no honest agent would.

use std::{fs, time::Duration};

use base64::{Engine as _, prelude::*};
use bytes::Bytes;
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use jsonrpsee::core::{RpcResult, async_trait, client::ClientT as _};
use purser_proto_schema::{
    agent::{
        PROTOCOLS,
        calls::{AgentCallsServer, Attempt, StartReply, StartTarget},
        close::CloseCode,
        command::Verdict,
        handshake::{Answer, Hello, ProtocolRange, Refused, Resume, Welcome},
        join_token::{Fingerprint, JoinToken},
        noise::{ChannelError, Opener, Sealer, StaticKey, initiate},
        peer::{Liveness, Peer},
        wire::{Incoming, WireError, WireReader, WireWriter},
    },
    ids::ServerId,
    image::Image,
    secret::Secret,
};
use serde_json::Value;
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::{Agent, unique};

/// How long any step may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// A WebSocket to the agents' door.
pub type Socket = WebSocketStream<TcpStream>;

/// Opens the agents' door at `address` (`host:port`), and says nothing yet.
///
/// # Panics
/// It does not open.
pub async fn open(address: &str) -> Socket {
    let stream = TcpStream::connect(address).await.expect("the server listens");
    client_async(format!("ws://{address}/agent"), stream).await.expect("the door opens").0
}

/// Who a hand-made agent says it is.
#[derive(Clone)]
pub struct Double {
    /// Its key.
    pub key: StaticKey,
    /// The server row that it claims.
    pub server_id: ServerId,
    /// The server's key that it pins.
    pub server_key: Fingerprint,
    /// The protocols that it offers.
    pub protocol: ProtocolRange,
    /// What it shows to be enrolled.
    pub join_secret: Option<Secret>,
    /// Which run of an agent it says it is.
    pub instance: String,
    /// What it says it works on.
    pub running: Vec<Attempt>,
    /// How every target that it is given has ended before; accepted when absent.
    pub ended: Option<Verdict>,
}

/// A session of a hand-made agent.
pub struct Session {
    /// The server's terms.
    pub welcome: Welcome,
    /// The session.
    pub peer: Peer,
    /// The targets that the server gave it.
    pub started: mpsc::UnboundedReceiver<StartTarget>,
}

/// A link after its handshake, without a session on it.
pub struct Link {
    /// What the server sends.
    pub reader: Reader,
    /// What goes to it.
    pub writer: Writer,
    /// Seals it.
    pub sealer: Sealer,
    /// Opens what comes.
    pub opener: Opener,
}

impl Double {
    /// A stranger with a fresh key and a join token.
    ///
    /// # Panics
    /// The token is none.
    pub fn with_token(token: &str) -> Self {
        let token = JoinToken::decode(token).expect("a join token");
        Self {
            key: StaticKey::generate().expect("a key can be made"),
            server_id: token.server_id,
            server_key: token.server_key,
            join_secret: Some(token.secret),
            protocol: PROTOCOLS,
            instance: unique("double"),
            running: Vec::new(),
            ended: None,
        }
    }

    /// What a thief of `agent`'s state folder can be.
    ///
    /// # Panics
    /// The folder does not hold what an agent keeps.
    pub fn of(agent: &Agent) -> Self {
        let read = |name| fs::read(agent.state_dir().join(name)).expect("the agent has joined");
        let key = BASE64_STANDARD.decode(read("identity.key").trim_ascii()).expect("base64");
        let member: Value = serde_json::from_slice(&read("server.json")).expect("JSON");
        let text = |name: &str| member[name].as_str().expect("a text").to_owned();
        let server_key = BASE64_URL_SAFE_NO_PAD.decode(text("serverKey")).expect("base64url");
        Self {
            key: StaticKey::from_bytes(&key).expect("a key pair"),
            server_id: ServerId::from_stored(text("serverId")),
            server_key: server_key.try_into().expect("a SHA-256"),
            join_secret: None,
            protocol: PROTOCOLS,
            instance: unique("double"),
            running: Vec::new(),
            ended: None,
        }
    }

    /// Dials and shakes hands: a session, or how the server refused.
    ///
    /// # Panics
    /// The handshake breaks.
    pub async fn dial(&self, address: &str) -> Result<Session, Refused> {
        self.try_dial(address).await.expect("the server answers a handshake")
    }

    /// [`dial`](Self::dial) that may break.
    ///
    /// # Errors
    /// How it broke.
    ///
    /// # Panics
    /// Nobody listens, or it takes too long.
    pub async fn try_dial(&self, address: &str) -> Result<Result<Session, Refused>, ChannelError> {
        let (answer, link) = self.shake(address).await?;
        let welcome = match answer {
            Ok(welcome) => welcome,
            Err(refused) => return Ok(Err(refused)),
        };
        let Link { reader, writer, sealer, opener } = link;
        let (sender, started) = mpsc::unbounded_channel();
        let liveness = Liveness { ping_every: None, lost_after: Duration::from_secs(120) };
        let methods = Calls { started: sender, ended: self.ended.clone() }.into_rpc().into();
        let peer = Peer::start(reader, writer, sealer, opener, methods, liveness);
        Ok(Ok(Session { welcome, peer, started }))
    }

    /// Dials and shakes hands, and does not begin a session: the server's answer, and what is left to
    /// do with the link by hand.
    ///
    /// # Errors
    /// How it broke.
    ///
    /// # Panics
    /// Nobody listens, or it takes too long.
    pub async fn shake(&self, address: &str) -> Result<(Result<Welcome, Refused>, Link), ChannelError> {
        let (sink, stream) = open(address).await.split();
        let (mut reader, mut writer) = (Reader(stream), Writer(sink));
        let hello = Hello {
            protocol: self.protocol,
            agent_version: "0.0.0-double".into(),
            instance: Some(self.instance.clone()),
            server_id: self.server_id.clone(),
            join_secret: self.join_secret.clone(),
            engine: None,
            resume: Resume { running_targets: self.running.clone(), ..Resume::default() },
        };
        let shaking = initiate(&mut reader, &mut writer, &self.key, &self.server_key, &hello);
        let (answer, sealer, opener) = timeout(DEADLINE, shaking).await.expect("a handshake ends")?;
        let answer = match answer {
            Answer::Welcome(welcome) => Ok(welcome),
            Answer::Refused(refused) => Err(refused),
        };
        Ok((answer, Link { reader, writer, sealer, opener }))
    }
}

impl Session {
    /// Waits for the session's end: what was said.
    ///
    /// # Panics
    /// It does not end.
    pub async fn ended(&self) -> String {
        timeout(DEADLINE, self.peer.ended()).await.expect("the session ends").to_string()
    }

    /// The next target that the server gives.
    ///
    /// # Panics
    /// None comes.
    pub async fn target(&mut self) -> StartTarget {
        timeout(DEADLINE, self.started.recv()).await.expect("a target comes").expect("the session stands")
    }

    /// Calls a method that is not in the protocol.
    ///
    /// # Errors
    /// What the server said.
    pub async fn call(&self, method: &str) -> Result<Value, String> {
        let none = jsonrpsee::core::params::ObjectParams::new();
        self.peer.client().request(method, none).await.map_err(|error| error.to_string())
    }
}

struct Calls {
    started: mpsc::UnboundedSender<StartTarget>,
    ended: Option<Verdict>,
}

#[async_trait]
impl AgentCallsServer for Calls {
    async fn target_start(&self, request: StartTarget) -> RpcResult<StartReply> {
        // A test that does not look has dropped the other end.
        let _ = self.started.send(request);
        let ended = self.ended.clone();
        Ok(ended.map_or(StartReply::Accepted, |verdict| StartReply::Duplicate { verdict }))
    }

    async fn target_cancel(&self, _: Attempt) -> RpcResult<()> {
        Ok(())
    }

    async fn engine_images(&self) -> RpcResult<Vec<Image>> {
        Ok(Vec::new())
    }
}

/// The receiving half.
pub struct Reader(pub SplitStream<Socket>);

impl WireReader for Reader {
    async fn next(&mut self) -> Option<Result<Incoming, WireError>> {
        Some(match self.0.next().await? {
            Ok(Message::Binary(message)) => Ok(Incoming::Binary(message)),
            Ok(Message::Ping(_) | Message::Pong(_)) => Ok(Incoming::Liveness),
            Ok(Message::Close(frame)) => {
                let frame = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                let (code, reason) = frame.unwrap_or_default();
                Ok(Incoming::Closed { code, reason })
            }
            Ok(Message::Text(_) | Message::Frame(_)) => Ok(Incoming::Unexpected),
            Err(error) => Err(WireError(Box::new(error))),
        })
    }
}

/// The sending half.
pub struct Writer(pub SplitSink<Socket, Message>);

impl Writer {
    async fn put(&mut self, message: Message) -> Result<(), WireError> {
        self.0.send(message).await.map_err(|error| WireError(Box::new(error)))
    }
}

impl WireWriter for Writer {
    async fn send(&mut self, message: Bytes) -> Result<(), WireError> {
        self.put(Message::Binary(message)).await
    }

    async fn ping(&mut self) -> Result<(), WireError> {
        self.put(Message::Ping(Bytes::new())).await
    }

    async fn close(&mut self, _: CloseCode) -> Result<(), WireError> {
        self.put(Message::Close(None)).await
    }
}
