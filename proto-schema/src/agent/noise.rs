//! `Noise_XX_25519_AESGCM_SHA256` over the WebSocket: keys, handshake, sealed frames.
//!
//! The prologue is the protocol's name and nothing of the HTTP request, which proxies rewrite. After
//! the handshake each JSON text is one binary message: sealed segments, each with a two-byte
//! big-endian length before it. Nonces count up on each side, so a replayed, dropped or reordered
//! segment does not open and ends the session.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Serialize, de::DeserializeOwned};
use snow::{Builder, HandshakeState, StatelessTransportState, params::NoiseParams};
use tokio::time::timeout;

use super::{
    ANSWER_DEADLINE, GREETING_DEADLINE, MAX_TEXT_BYTES,
    close::CloseCode,
    handshake::{Answer, Hello, Refused, Welcome},
    join_token::{Fingerprint, display_fingerprint, fingerprint},
    wire::{Incoming, Ration, WireError, WireReader, WireWriter},
};

const PATTERN: &str = "Noise_XX_25519_AESGCM_SHA256";
const PROLOGUE: &[u8] = b"purser-agent-channel/1";
/// Noise's limit of a message, tag included.
const MAX_SEGMENT: usize = 65_535;
const TAG: usize = 16;
const KEY: usize = 32;
/// Keys and tags that a handshake message carries besides its payload.
const HANDSHAKE_OVERHEAD: usize = 2 * KEY + 2 * TAG;

/// What the first message may take on the wire: a key of 32 bytes, frames, and pings before it.
const FIRST_RATION: usize = 4 * 1024;
/// What the third may from anyone: enough for an agent that is not very busy.
const HELLO_RATION: usize = 4 * 1024;
/// And beyond: one Noise message, with the lists of a full table.
const LONG_HELLO: usize = MAX_SEGMENT;

/// What ends a channel. Nothing here repeats received bytes.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket failed.
    #[error("the connection broke")]
    Wire(#[from] WireError),
    /// The other side closed.
    #[error("the other side closed the connection: {reason}")]
    Closed {
        /// See [`CloseCode`].
        code: u16,
        /// Its reason, as it said it.
        reason: String,
    },
    /// This side closed.
    #[error("this side closed the connection: {}", .0.reason())]
    ClosedHere(CloseCode),
    /// Nothing came for too long.
    #[error("the other side gives no sign of life")]
    Silent,
    /// A write took too long.
    #[error("the other side does not read")]
    Stalled,
    /// The stream ended without a close.
    #[error("the connection ended")]
    Ended,
    /// Something came that is no message of the channel.
    #[error("the other side does not speak the agent protocol")]
    Unexpected,
    /// A message did not open, or was out of order.
    #[error("a message did not open under the session's keys")]
    Noise(#[source] snow::Error),
    /// A text over [`MAX_TEXT_BYTES`].
    #[error("a message is longer than {MAX_TEXT_BYTES} bytes")]
    TooLong,
    /// Others needed the room for what it was sending.
    #[error("others who dial need its place")]
    Displaced,
    /// What was inside is not what belongs there.
    #[error("a message has another form than the protocol says")]
    Malformed,
    /// The server's key is not the pinned one.
    #[error(
        "the server's key is {seen}, and {expected} was expected: this is another server, or someone between"
    )]
    AnotherServer {
        /// What it showed.
        seen: String,
        /// What the join token or the state folder pins.
        expected: String,
    },
}

/// A static key pair. The private half never leaves the process that made it, but for where it is
/// kept: the agent's `identity.key`, the server's vault.
#[derive(Clone)]
pub struct StaticKey {
    private: SecretSlice<u8>,
    public: [u8; KEY],
}

impl StaticKey {
    /// A new pair.
    ///
    /// # Errors
    /// [`ChannelError::Noise`] where the system gives no randomness.
    pub fn generate() -> Result<Self, ChannelError> {
        let pair = Builder::new(params()?).generate_keypair().map_err(ChannelError::Noise)?;
        let public = pair.public.try_into().map_err(|_| ChannelError::Malformed)?;
        Ok(Self { private: SecretSlice::from(pair.private), public })
    }

    /// The pair from the bytes that [`Self::to_bytes`] gave.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (private, public) = bytes.split_at_checked(KEY)?;
        Some(Self { private: SecretSlice::from(private.to_vec()), public: public.try_into().ok()? })
    }

    /// Private and public half, 64 bytes: a secret.
    #[must_use]
    pub fn to_bytes(&self) -> SecretSlice<u8> {
        let mut bytes = self.private.expose_secret().to_vec();
        bytes.extend_from_slice(&self.public);
        SecretSlice::from(bytes)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &[u8; KEY] {
        &self.public
    }

    /// The fingerprint of the public half.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.public)
    }
}

fn params() -> Result<NoiseParams, ChannelError> {
    PATTERN.parse().map_err(ChannelError::Noise)
}

fn builder(key: &StaticKey) -> Result<Builder<'_>, ChannelError> {
    Builder::new(params()?)
        .local_private_key(key.private.expose_secret())
        .and_then(|builder| builder.prologue(PROLOGUE))
        .map_err(ChannelError::Noise)
}

/// The agent's side of the handshake, until the server's answer: within [`GREETING_DEADLINE`] and
/// [`ANSWER_DEADLINE`] together, of which the server may use the most for others that dial, too.
///
/// # Errors
/// [`ChannelError::Silent`] after that, and
/// [`ChannelError::AnotherServer`] before anything but an ephemeral key was sent, when the server's
/// key is not the pinned one; any other [`ChannelError`] when the talk fails.
pub async fn initiate<R: WireReader, W: WireWriter>(
    reader: &mut R,
    writer: &mut W,
    key: &StaticKey,
    pinned: &Fingerprint,
    hello: &Hello,
) -> Result<(Answer, Sealer, Opener), ChannelError> {
    let mut state = builder(key)?.build_initiator().map_err(ChannelError::Noise)?;
    send_handshake(writer, &mut state, &[]).await?;
    within(GREETING_DEADLINE, receive_handshake(reader, &mut state)).await?;
    let seen = fingerprint(state.get_remote_static().ok_or(ChannelError::Malformed)?);
    if seen != *pinned {
        return Err(ChannelError::AnotherServer {
            seen: display_fingerprint(&seen),
            expected: display_fingerprint(pinned),
        });
    }
    let payload = serde_json::to_vec(hello).map_err(|_| ChannelError::Malformed)?;
    send_handshake(writer, &mut state, &payload).await?;
    let (sealer, mut opener) = halves(state)?;
    let answer = opener.open(&within(ANSWER_DEADLINE, next_binary(reader)).await?)?;
    Ok((parse(answer.as_bytes())?, sealer, opener))
}

/// An agent that has proved its key and waits for the answer. Nothing was changed for it yet.
pub struct Introduced {
    /// The key it proved.
    pub agent_key: [u8; KEY],
    /// What it says of itself.
    pub hello: Hello,
    /// Whether that is longer than anyone's may be: it takes its room until it is dropped.
    pub is_long: bool,
    sealer: Sealer,
    opener: Opener,
}

/// The server's side of the handshake, until the agent is known. From then on the reader takes nothing, until
/// whoever looks up the agent gives it another ration.
///
/// # Errors
/// Any [`ChannelError`] but `AnotherServer`.
pub async fn receive<R: WireReader, W: WireWriter>(
    reader: &mut R,
    writer: &mut W,
    key: &StaticKey,
) -> Result<Introduced, ChannelError> {
    let mut state = builder(key)?.build_responder().map_err(ChannelError::Noise)?;
    reader.ration(Ration::Bytes { bytes: FIRST_RATION, more: 0 });
    receive_handshake(reader, &mut state).await?;
    send_handshake(writer, &mut state, &[]).await?;
    reader.ration(Ration::Bytes { bytes: HELLO_RATION, more: LONG_HELLO });
    let hello = receive_handshake(reader, &mut state).await?;
    // What is given to few is somebody else's from now on, however long the agent has to wait.
    reader.ration(Ration::Bytes { bytes: 0, more: 0 });
    let is_long = hello.len() > HELLO_RATION;
    let hello = parse(&hello)?;
    let remote = state.get_remote_static().ok_or(ChannelError::Malformed)?;
    let agent_key = remote.try_into().map_err(|_| ChannelError::Malformed)?;
    let (sealer, opener) = halves(state)?;
    Ok(Introduced { agent_key, hello, is_long, sealer, opener })
}

impl Introduced {
    /// Begins the session.
    ///
    /// # Errors
    /// [`ChannelError::Wire`] when the answer cannot be sent.
    pub async fn welcome<W: WireWriter>(
        mut self,
        writer: &mut W,
        terms: Welcome,
    ) -> Result<(Sealer, Opener), ChannelError> {
        writer.send(self.sealer.seal_value(&Answer::Welcome(terms))?).await?;
        Ok((self.sealer, self.opener))
    }

    /// Turns the agent away, saying why.
    ///
    /// # Errors
    /// [`ChannelError::Wire`] when the answer cannot be sent.
    pub async fn refuse<W: WireWriter>(mut self, writer: &mut W, why: Refused) -> Result<(), ChannelError> {
        writer.send(self.sealer.seal_value(&Answer::Refused(why))?).await?;
        writer.close(CloseCode::Refused).await?;
        Ok(())
    }
}

async fn send_handshake<W: WireWriter>(
    writer: &mut W,
    state: &mut HandshakeState,
    payload: &[u8],
) -> Result<(), ChannelError> {
    let mut message = vec![0; MAX_SEGMENT.min(payload.len() + HANDSHAKE_OVERHEAD)];
    let length = state.write_message(payload, &mut message).map_err(ChannelError::Noise)?;
    message.truncate(length);
    Ok(writer.send(message.into()).await?)
}

async fn receive_handshake<R: WireReader>(
    reader: &mut R,
    state: &mut HandshakeState,
) -> Result<Vec<u8>, ChannelError> {
    let message = next_binary(reader).await?;
    if message.len() > MAX_SEGMENT {
        return Err(ChannelError::TooLong);
    }
    let mut payload = vec![0; message.len()];
    let length = state.read_message(&message, &mut payload).map_err(ChannelError::Noise)?;
    payload.truncate(length);
    Ok(payload)
}

async fn within<T>(
    deadline: Duration,
    heard: impl Future<Output = Result<T, ChannelError>>,
) -> Result<T, ChannelError> {
    timeout(deadline, heard).await.map_err(|_| ChannelError::Silent)?
}

async fn next_binary<R: WireReader>(reader: &mut R) -> Result<Bytes, ChannelError> {
    loop {
        match reader.next().await.ok_or(ChannelError::Ended)?? {
            Incoming::Binary(message) => return Ok(message),
            Incoming::Liveness => {}
            Incoming::Closed { code, reason } => return Err(ChannelError::Closed { code, reason }),
            Incoming::TooLong => return Err(ChannelError::TooLong),
            Incoming::Displaced => return Err(ChannelError::Displaced),
            Incoming::Unexpected => return Err(ChannelError::Unexpected),
        }
    }
}

fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, ChannelError> {
    // serde's own error could quote what was received.
    serde_json::from_slice(payload).map_err(|_| ChannelError::Malformed)
}

fn halves(state: HandshakeState) -> Result<(Sealer, Opener), ChannelError> {
    let state = Arc::new(state.into_stateless_transport_mode().map_err(ChannelError::Noise)?);
    Ok((Sealer { state: Arc::clone(&state), nonce: 0 }, Opener { state, nonce: 0 }))
}

/// The sealing half of a session.
pub struct Sealer {
    state: Arc<StatelessTransportState>,
    nonce: u64,
}

impl Sealer {
    /// Seals a JSON text into one binary message.
    ///
    /// # Errors
    /// [`ChannelError::TooLong`] over [`MAX_TEXT_BYTES`].
    pub fn seal(&mut self, text: &str) -> Result<Bytes, ChannelError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(ChannelError::TooLong);
        }
        let segments = text.len().div_ceil(MAX_SEGMENT - TAG).max(1);
        let mut message = BytesMut::with_capacity(text.len() + segments * (TAG + 2));
        let mut rest = text.as_bytes();
        for _ in 0..segments {
            let (plain, later) = rest.split_at(rest.len().min(MAX_SEGMENT - TAG));
            rest = later;
            let sealed = plain.len() + TAG;
            // At most MAX_SEGMENT, so it fits.
            message.put_u16(u16::try_from(sealed).map_err(|_| ChannelError::TooLong)?);
            let start = message.len();
            message.resize(start + sealed, 0);
            let nonce = self.nonce;
            self.state.write_message(nonce, plain, &mut message[start..]).map_err(ChannelError::Noise)?;
            self.nonce += 1;
        }
        Ok(message.freeze())
    }

    fn seal_value<T: Serialize>(&mut self, value: &T) -> Result<Bytes, ChannelError> {
        self.seal(&serde_json::to_string(value).map_err(|_| ChannelError::Malformed)?)
    }
}

/// The opening half of a session.
pub struct Opener {
    state: Arc<StatelessTransportState>,
    nonce: u64,
}

impl Opener {
    /// Opens a binary message into its JSON text.
    ///
    /// # Errors
    /// [`ChannelError::Noise`] when a segment does not open; the session is then over.
    pub fn open(&mut self, message: &[u8]) -> Result<String, ChannelError> {
        if message.len() > MAX_TEXT_BYTES + MAX_TEXT_BYTES / 1024 {
            return Err(ChannelError::TooLong);
        }
        let mut text = vec![0; message.len()];
        let mut filled = 0;
        let mut rest = message;
        while let Some((length, later)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let (segment, later) = later.split_at_checked(length).ok_or(ChannelError::Malformed)?;
            rest = later;
            let opened = self
                .state
                .read_message(self.nonce, segment, &mut text[filled..])
                .map_err(ChannelError::Noise)?;
            self.nonce += 1;
            filled += opened;
        }
        if !rest.is_empty() || filled > MAX_TEXT_BYTES {
            return Err(ChannelError::Malformed);
        }
        text.truncate(filled);
        String::from_utf8(text).map_err(|_| ChannelError::Malformed)
    }
}
