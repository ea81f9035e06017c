//! The agent channel: one outbound WebSocket from agent to server, sealed end to end by Noise, with
//! JSON-RPC 2.0 both ways inside it.
//!
//! * [`handshake`]: who speaks, under which key, and what was under way;
//! * [`noise`]: keys, the XX handshake and sealed frames;
//! * [`wire`]: the little that is asked of the WebSocket below;
//! * [`peer`]: one session: both directions of calls over one socket;
//! * [`outbound`]: the calls of this side, and who waits for which answer;
//! * [`outgoing`]: what waits to be written;
//! * [`calls`]: the calls of each direction;
//! * [`close`]: why a socket is closed;
//! * [`command`]: what a host is asked to do, and its verdict;
//! * [`join_token`]: what enrols a host.
//!
//! Unknown fields are ignored here, unlike on the public wire, so that neighbouring versions can
//! talk. No secret crosses this channel outside a sealed frame, and no type here that holds one has
//! `Debug` of it.

use std::time::Duration;

pub mod calls;
pub mod close;
pub mod command;
pub mod handshake;
pub mod join_token;
pub mod noise;
pub mod outbound;
pub mod outgoing;
pub mod peer;
pub mod wire;

/// The newest protocol that this build speaks. `tests/golden` holds its wire form: what a neighbour would
/// not understand needs a new number.
pub const PROTOCOL: u32 = 1;

/// The protocols that this build speaks: the newest and the one before, as far as there was one.
pub const PROTOCOLS: handshake::ProtocolRange =
    handshake::ProtocolRange { min: if PROTOCOL > 1 { PROTOCOL - 1 } else { PROTOCOL }, max: PROTOCOL };

/// The path of the channel on the server.
pub const PATH: &str = "/agent";

/// The longest JSON text inside the channel, in bytes.
pub const MAX_TEXT_BYTES: usize = 4 * 1024 * 1024;

/// How long who dials may take until it has proved its key and said what it has to say. Then it waits for its turn, up
/// to [`ADMISSION_DEADLINE`]; and from its turn on, to be looked up and welcomed, it is this long again.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How long who has proved its key may have to wait for the server to get to it: when a server returns, its
/// whole fleet dials at once.
pub const ADMISSION_DEADLINE: Duration = Duration::from_secs(60);

/// How long who dials waits for the server's key.
pub const GREETING_DEADLINE: Duration = Duration::from_secs(30);

/// How long who dials waits for the answer to what it said of itself: longer than the server lets anyone
/// wait, so that nobody gives up before its turn.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(80);

/// How long any call may take: calls hand over and report, the work itself is a target.
pub const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// How many targets an agent lists at most in a handshake, running and ended ones together.
pub const MAX_TARGETS_PER_AGENT: usize = 256;
