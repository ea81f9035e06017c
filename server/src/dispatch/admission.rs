//! From a socket to a session: the handshake, who is let in, and what is superseded.
//!
//! Nothing is written, and no live session is touched, before the agent's key is proven and known.
//!
//! All agents of a fleet dial at once when their server returns. Each has a place in the [waiting
//! room](crate::waiting_room), says what it has to say, and waits there until the database has looked it up,
//! instead of dialling again and again.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::BoxFuture;
use purser_proto_schema::{
    agent::{
        ADMISSION_DEADLINE, HANDSHAKE_DEADLINE, MAX_TARGETS_PER_AGENT, PROTOCOLS,
        calls::ServerCallsServer,
        close::CloseCode,
        handshake::{Hello, RefusalCode, Refused, Welcome},
        noise::{self, ChannelError, Introduced},
        peer::{Liveness, Peer},
        wire::{Ration, WireReader, WireWriter},
    },
    ids::{OrganizationId, ServerId},
};
use tokio::{
    sync::SemaphorePermit,
    time::{error::Elapsed, timeout},
};

use super::{
    Dispatch, Session, Shared, pump, report,
    resume::{self, Reconciled},
    session, write,
};
use crate::{
    error::Result,
    refusals::Refusal,
    request, secret_hash,
    store::{Admission, Admittance, Admitted, Fence, TargetRow},
};

/// The audit's word for an agent that was not let in.
const REFUSED: &str = "agent.refused";
/// How often the server pings a small fleet.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// For telling a stranger what was wrong.
const FAREWELL: Duration = Duration::from_secs(2);
/// The longest name of an agent's run.
const MAX_INSTANCE_BYTES: usize = 64;
/// What a refused agent is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(10);

impl Dispatch {
    /// Serves one agent's socket until it ends.
    pub async fn serve<R: WireReader, W: WireWriter>(&self, mut reader: R, mut writer: W) {
        let shared = &self.shared;
        // In a box of its own: the socket's task would else keep room for it as long as the session lasts.
        let wrong = match Box::pin(shake(shared, &mut reader, &mut writer)).await {
            Ok(Some((terms, turn))) => {
                reader.ration(Ration::Endless);
                return live(shared, terms, turn, reader, writer).await;
            }
            Ok(None) => None,
            Err(code) => code,
        };
        if let Some(code) = wrong {
            say(&mut writer, code).await;
        }
    }
}

/// The whole handshake, in a place of the waiting room: what the session begins with, nothing where the agent
/// was told why it is refused, or how the socket is to be closed.
async fn shake<'a, R: WireReader, W: WireWriter>(
    shared: &'a Arc<Shared>,
    reader: &mut R,
    writer: &mut W,
) -> std::result::Result<Option<(Box<Terms>, SemaphorePermit<'a>)>, Option<CloseCode>> {
    // Anyone can dial, so what strangers get wrong is no more than a debug line.
    let failed = |error: ChannelError| {
        tracing::debug!(%error, "a handshake failed");
        CloseCode::about(&error)
    };
    let too_slow = |_: Elapsed| {
        tracing::debug!("a handshake took too long");
        Some(CloseCode::TooSlow)
    };
    let mut place = shared.waiting.enter().ok_or(Some(CloseCode::Busy))?;
    let introduced = tokio::select! {
        introduced = Box::pin(timeout(HANDSHAKE_DEADLINE, noise::receive(reader, writer, &shared.channel_key))) => {
            introduced.map_err(too_slow)?.map_err(failed)?
        }
        () = place.displaced() => return Err(Some(CloseCode::Busy)),
    };
    if !place.keep() {
        return Err(Some(CloseCode::Busy));
    }
    let busy = |_| Some(CloseCode::Busy);
    let (line, _room) = if introduced.is_long {
        (&shared.long_admissions, Some(shared.long_waiting.try_acquire().map_err(busy)?))
    } else {
        (&shared.admissions, None)
    };
    let turn = timeout(ADMISSION_DEADLINE, line.acquire()).await;
    let Ok(Ok(turn)) = turn else { return Err(Some(CloseCode::Busy)) };
    // A whole fleet may wait for its turn, and few are let in at once: what that takes is in a box of its own.
    let admitted = Box::pin(timeout(HANDSHAKE_DEADLINE, admit(shared, introduced, writer))).await;
    Ok(admitted.map_err(too_slow)?.map_err(failed)?.map(|terms| (terms, turn)))
}

async fn say<W: WireWriter>(writer: &mut W, code: CloseCode) {
    let _ = timeout(FAREWELL, writer.close(code)).await;
}

/// A session about to begin.
struct Terms {
    fence: Fence,
    organization_id: OrganizationId,
    name: String,
    enrolled: bool,
    heartbeat: Duration,
    reconciled: Reconciled,
    sealer: noise::Sealer,
    opener: noise::Opener,
}

async fn admit<W: WireWriter>(
    shared: &Arc<Shared>,
    introduced: Introduced,
    writer: &mut W,
) -> std::result::Result<Option<Box<Terms>>, ChannelError> {
    let hello = &introduced.hello;
    let Some(protocol) = PROTOCOLS.newest_common(hello.protocol) else {
        let (min, max) = (PROTOCOLS.min, PROTOCOLS.max);
        let message =
            format!("this server speaks agent protocols {min} to {max}; use an agent of its version");
        shared.note_refused(None, None, RefusalCode::UnsupportedProtocol);
        introduced.refuse(writer, refusal(RefusalCode::UnsupportedProtocol, message)).await?;
        return Ok(None);
    };
    let admitted = match look_up(shared, hello, &introduced.agent_key).await {
        Ok(Admittance::Admitted(admitted)) => *admitted,
        Ok(refused) => {
            let (code, message) = why_not(hello);
            let (organization_id, server_id) = match &refused {
                Admittance::Refused { organization_id } => {
                    (Some(organization_id.clone()), Some(hello.server_id.clone()))
                }
                Admittance::NoSuchServer | Admittance::Admitted(_) => (None, None),
            };
            shared.note_refused(organization_id, server_id, code);
            // Anyone can name a server that there is not.
            if let Admittance::Refused { .. } = &refused {
                tracing::warn!(server = %hello.server_id, ?code, "an agent was refused");
            } else {
                tracing::debug!(?code, "an agent of no server was refused");
            }
            introduced.refuse(writer, refusal(code, message)).await?;
            return Ok(None);
        }
        Err(error) => {
            report("admitting an agent", &hello.server_id, &error);
            let message = "the server cannot admit agents right now".to_owned();
            introduced.refuse(writer, refusal(RefusalCode::Unavailable, message)).await?;
            return Ok(None);
        }
    };
    if admitted.cloned {
        tracing::warn!(server = %hello.server_id, name = admitted.row.name,
            "several agents use one key and keep superseding each other");
    }
    let fence = Fence { server_id: hello.server_id.clone(), epoch: admitted.row.session_epoch };
    let reconciled = match resume::reconcile(shared, &fence, &hello.resume).await {
        Ok(reconciled) => reconciled,
        Err(error) => {
            report("reconciling an agent's work", &fence.server_id, &error);
            let message = "the server cannot admit agents right now".to_owned();
            introduced.refuse(writer, refusal(RefusalCode::Unavailable, message)).await?;
            return Ok(None);
        }
    };
    let heartbeat = heartbeat(shared);
    let welcome = Welcome {
        session_epoch: fence.epoch,
        protocol,
        heartbeat_ms: u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX),
        limits: session::LIMITS,
        drop: reconciled.drop.clone(),
    };
    let (sealer, opener) = introduced.welcome(writer, welcome).await?;
    let Admitted { row, enrolled, .. } = admitted;
    let (organization_id, name) = (OrganizationId::from_stored(row.organization_id), row.name);
    let terms = Terms { fence, organization_id, name, enrolled, heartbeat, reconciled, sealer, opener };
    Ok(Some(Box::new(terms)))
}

async fn look_up(shared: &Shared, hello: &Hello, key: &[u8]) -> Result<Admittance> {
    let resumed = hello.resume.running_targets.len() + hello.resume.unacknowledged_verdicts.len();
    if resumed > 2 * MAX_TARGETS_PER_AGENT {
        return Ok(Admittance::NoSuchServer);
    }
    let request = request::current();
    let join_secret_hash = hello.join_secret.as_ref().map(|secret| secret_hash::of_random(secret.expose()));
    let admission = Admission {
        server_id: &hello.server_id,
        agent_key: &URL_SAFE_NO_PAD.encode(key),
        join_secret_hash: join_secret_hash.as_deref(),
        agent_version: &hello.agent_version.chars().take(64).collect::<String>(),
        instance: hello.instance.as_deref().filter(|instance| instance.len() <= MAX_INSTANCE_BYTES),
        engine: hello.engine.as_ref(),
        request_id: request.as_ref().map(|request| &request.id),
    };
    shared.store.server_admit(admission).await
}

fn why_not(hello: &Hello) -> (RefusalCode, String) {
    if hello.join_secret.is_some() {
        let message = "the join token was used, has expired, or is another server's: make a new one with \
                       server.createJoinToken";
        return (RefusalCode::InvalidJoinToken, message.to_owned());
    }
    let message = "this host's key is not enrolled for the server: it was removed, or joined anew from another \
                   host; make a join token with server.createJoinToken";
    (RefusalCode::UnknownKey, message.to_owned())
}

fn refusal(code: RefusalCode, message: String) -> Refused {
    Refused { code, message, retry_after_ms: u64::try_from(RETRY_AFTER.as_millis()).unwrap_or(u64::MAX) }
}

/// The ping interval: grows with the fleet, and differs by ± 20 % from agent to agent.
fn heartbeat(shared: &Shared) -> Duration {
    let spread = f64::from(uuid::Uuid::now_v7().as_bytes()[15]) / 255.0;
    shared.at_the_fleets_pace(HEARTBEAT).mul_f64(0.8 + 0.4 * spread)
}

impl Shared {
    /// Notes in the audit that an agent was not let in.
    fn note_refused(
        &self,
        organization_id: Option<OrganizationId>,
        server_id: Option<ServerId>,
        code: RefusalCode,
    ) {
        let outcome = match code {
            RefusalCode::UnknownKey => "unknown_key",
            RefusalCode::InvalidJoinToken => "invalid_join_token",
            RefusalCode::UnsupportedProtocol => "unsupported_protocol",
            // No judgement of the agent.
            RefusalCode::Busy | RefusalCode::Unavailable => return,
        };
        let refusal = Refusal { organization_id, api_key_id: None, server_id, action: REFUSED, outcome };
        self.told.refusals.note(refusal);
    }
}

/// The session itself: from welcome to the end of the socket. What its beginning and end take is in boxes of
/// their own, and not kept in between.
async fn live<R: WireReader, W: WireWriter>(
    shared: &Arc<Shared>,
    terms: Box<Terms>,
    turn: SemaphorePermit<'_>,
    reader: R,
    writer: W,
) {
    let (session, run, begin) = set_up(shared, terms, turn, reader, writer);
    let (reason, began) = tokio::join!(run, begin);
    if began {
        Box::pin(end(shared, &session, &reason)).await;
    }
}

/// A session, its life, and its beginning, which tells whether it began. No `async fn`, which would keep the terms.
#[expect(clippy::boxed_local, reason = "the box is gone when the session lives")]
fn set_up<'a, R: WireReader, W: WireWriter>(
    shared: &'a Arc<Shared>,
    terms: Box<Terms>,
    turn: SemaphorePermit<'a>,
    reader: R,
    writer: W,
) -> (Arc<Session>, impl Future<Output = Arc<ChannelError>> + use<R, W>, BoxFuture<'a, bool>) {
    let Terms { fence, organization_id, name, enrolled, heartbeat, reconciled, sealer, opener } = *terms;
    let late = Arc::new(OnceLock::new());
    let line = shared.turns.of(&organization_id);
    let inbound = super::inbound::Inbound {
        shared: Arc::downgrade(shared),
        fence: fence.clone(),
        session: Arc::clone(&late),
        line: Arc::clone(&line),
    };
    let liveness = Liveness { ping_every: Some(heartbeat), lost_after: heartbeat * 3 };
    let (peer, run) = Peer::new(reader, writer, sealer, opener, inbound.into_rpc().into(), liveness);
    let session = Arc::new(Session::new(fence, name, peer, line));
    // Nobody else sets it.
    let _ = late.set(Arc::downgrade(&session));
    let begin = begin(shared, Arc::clone(&session), turn, reconciled.going_on, enrolled);
    (session, run, Box::pin(begin))
}

/// Begins a session, unless it is superseded already. What the database has to do for it is part of its turn: all
/// sessions of a fleet may begin at once.
async fn begin(
    shared: &Arc<Shared>,
    session: Arc<Session>,
    turn: SemaphorePermit<'_>,
    going_on: Vec<TargetRow>,
    enrolled: bool,
) -> bool {
    let fence = &session.fence;
    for target in &going_on {
        if let Ok(kind) = target.job_kind() {
            session.enter(target, kind);
        }
    }
    if let Err(reason) = take_over(shared, &session) {
        drop(turn);
        session.close(reason).await;
        return false;
    }
    tracing::info!(server = %fence.server_id, name = session.name, epoch = fence.epoch,
        enrolled, resumed = going_on.len(), "agent connected");
    shared.tasks.spawn(pump::run(Arc::clone(shared), Arc::clone(&session)));
    // Held first: whoever cancels from now on knows whom to ask, and whoever did before is found here.
    if let Err(error) = shared.hold(fence).await {
        report("noting who holds a session", &fence.server_id, &error);
        shared.note_later(fence.clone());
    }
    // A removal that came before the session was in the table found none to end.
    let in_force = shared.store.session_holds(fence).await;
    drop(turn);
    if let Ok(false) = in_force {
        session.close(CloseCode::NotInForce).await;
    }
    if let Err(error) = resume::stop_ended(shared, &session, &going_on).await {
        report("looking for what was cancelled meanwhile", &fence.server_id, &error);
    }
    true
}

/// Takes a session that has ended out of the table.
async fn end(shared: &Arc<Shared>, session: &Session, reason: &ChannelError) {
    let fence = &session.fence;
    tracing::info!(server = %fence.server_id, name = session.name, epoch = fence.epoch, %reason, "agent disconnected");
    leave(shared, session);
    if let Err(error) = shared.store.server_seen(&fence.server_id, fence.epoch, None).await {
        report("noting when an agent was last connected", &fence.server_id, &error);
    }
    if let Err(error) = shared.let_go(fence).await {
        report("noting that nobody holds a session", &fence.server_id, &error);
        shared.note_later(fence.clone());
    }
}

/// Makes the session its server's only one in this process, or says why it must end instead.
fn take_over(shared: &Arc<Shared>, session: &Arc<Session>) -> std::result::Result<(), CloseCode> {
    let older = {
        let mut sessions = write(&shared.sessions);
        if shared.stop.is_cancelled() {
            return Err(CloseCode::ServerStops);
        }
        match sessions.get(&session.fence.server_id) {
            Some(other) if other.fence.epoch > session.fence.epoch => return Err(CloseCode::Superseded),
            _ => sessions.insert(session.fence.server_id.clone(), Arc::clone(session)),
        }
    };
    if let Some(older) = older {
        tracing::warn!(server = %session.fence.server_id, epoch = older.fence.epoch, "session superseded");
        shared.tasks.spawn(async move { older.close(CloseCode::Superseded).await });
    }
    Ok(())
}

fn leave(shared: &Shared, session: &Session) {
    let mut sessions = write(&shared.sessions);
    if sessions
        .get(&session.fence.server_id)
        .is_some_and(|current| current.fence.epoch == session.fence.epoch)
    {
        sessions.remove(&session.fence.server_id);
    }
}

#[cfg(test)]
mod tests;
