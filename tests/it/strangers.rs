//! What anyone at the agents' door can cost: a code and a reason, a little memory, little work; and what
//! an agent can that does not keep to the channel.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _, future::join_all, stream::FuturesUnordered};
use purser_proto_schema::{
    agent::{
        calls::Attempt,
        handshake::ProtocolRange,
        noise::{ChannelError, StaticKey},
        wire::WireWriter as _,
    },
    ids::TargetId,
};
use purser_tests::{
    Agent, Purser, Testbed,
    double::{self, Double},
    eventually,
    process::{peak_resident_kib, processor_time, resident_kib},
    unique,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

const SOON: Duration = Duration::from_secs(20);

/// What the server says at the end of a socket.
async fn said(socket: &mut double::Socket) -> Option<(u16, String)> {
    timeout(SOON, async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(frame) = message {
                return frame.map(|frame| (frame.code.into(), frame.reason.as_str().to_owned()));
            }
        }
        None
    })
    .await
    .expect("the server ends it")
}

#[tokio::test]
async fn a_stranger_is_told_by_a_code_what_was_wrong() {
    let purser = Purser::start().await;
    for (half, message, code) in [
        (false, Message::text("hello"), 1003),
        (true, Message::text("hello"), 1003),
        (false, Message::binary(vec![7; 5]), 4401),
        (true, Message::binary(vec![7; 300]), 4401),
        (false, Message::binary(vec![7; 6000]), 1009),
        (true, Message::binary(vec![7; 80_000]), 1009),
    ] {
        let mut socket = double::open(purser.address()).await;
        if half {
            // The first message is any 32 bytes: an ephemeral key.
            socket.send(Message::binary(vec![9; 32])).await.unwrap();
            timeout(SOON, socket.next()).await.unwrap();
        }
        socket.send(message.clone()).await.unwrap();
        let (said, reason) = said(&mut socket).await.expect("a close with a code");
        assert_eq!(said, code, "{reason}, to {} bytes, half {half}", message.len());
        assert!(!reason.is_empty());
    }
}

#[tokio::test]
async fn strangers_with_long_first_messages_hold_little_memory() {
    let purser = Purser::start().await;
    let before = resident_kib(purser.pid()).unwrap();
    let head = format!(
        "GET /agent HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        purser.address()
    );
    let strangers = (0..60).map(|_| async {
        let mut stream = TcpStream::connect(purser.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await.unwrap();
        // A masked binary frame of 4 MiB, but for its last byte.
        let frame = [&[0x82, 0xff][..], &(4_u64 << 20).to_be_bytes(), &[0; 4]].concat();
        let _ = stream.write_all(&frame).await;
        for _ in 0..63 {
            if stream.write_all(&[7; 64 * 1024]).await.is_err() {
                break;
            }
        }
        stream
    });
    let strangers = timeout(Duration::from_secs(60), join_all(strangers)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let grown = peak_resident_kib(purser.pid()).unwrap().saturating_sub(before);
    assert!(grown < 40 * 1024, "{} strangers made it hold {grown} KiB", strangers.len());
}

/// In a debug build each takes its time on both sides, and all together no more than one may.
const CROWD: usize = 40;

#[tokio::test]
async fn a_crowd_refused_at_once_costs_less_than_it_pays_and_disturbs_nobody() {
    let purser = Purser::start().await;
    let (agent, id) = Agent::join(&purser, &Testbed::get().host_a()).await;
    let before = purser.sql("SELECT session_epoch FROM server");
    let (used, paid) = (processor_time(purser.pid()), processor_time(std::process::id()));
    let strangers = (0..CROWD).map(|_| {
        let stranger = Double { key: StaticKey::generate().unwrap(), ..Double::of(&agent) };
        let address = purser.address();
        async move { stranger.try_dial(address).await }
    });
    let (mut refused, mut turned_away) = (0, 0);
    for outcome in join_all(strangers).await {
        match outcome {
            Ok(Ok(_)) => panic!("a stranger was let in"),
            Ok(Err(why)) => {
                assert!(why.retry_after_ms >= 5000, "{why:?}");
                refused += 1;
            }
            Err(ChannelError::Closed { code: 4429 | 4408, .. }) => turned_away += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0, "{refused} refused, {turned_away} turned away");
    let (cost, paid) = (processor_time(purser.pid()) - used, processor_time(std::process::id()) - paid);
    assert!(cost <= paid, "{refused} refused, {turned_away} turned away: cost {cost:?}, paid {paid:?}");
    assert_eq!(purser.sql("SELECT session_epoch FROM server"), before);
    assert!(!agent.logs().contains("not connected"), "{}", agent.logs());
    let images = purser.client().trpc_query("image.all", &json!({"serverId": id})).await;
    assert!(images.status.is_success(), "{images:?}");
}

/// Half of the open files that a server may have.
const PLACES: usize = 100;
/// More than are looked up at once.
const FLEET: usize = 80;

/// Agents of a fleet of so many servers, each with a join token.
async fn fleet(purser: &Purser, agents: usize) -> Vec<Double> {
    let client = purser.client();
    let row = async |_| client.mutate("server.create", json!({"name": unique("host")})).await;
    let rows = join_all((0..agents).map(row)).await;
    rows.iter().map(|row| Double::with_token(row["joinToken"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn a_fleet_that_dials_at_once_gets_in_and_nobody_is_turned_away() {
    let purser = Purser::builder().open_files(2 * PLACES as u32, 2 * PLACES as u32).start().await;
    let mut fleet = fleet(&purser, FLEET).await;
    let mut sessions = Vec::new();
    while !fleet.is_empty() {
        let dials = join_all(fleet.iter().map(|double| double.try_dial(purser.address()))).await;
        let mut again = Vec::new();
        for (double, outcome) in fleet.into_iter().zip(dials) {
            match outcome {
                Ok(Ok(session)) => sessions.push(session),
                // This process was too slow, on a slow machine, with so many at once.
                Err(ChannelError::Closed { code: 4408, .. }) => again.push(double),
                Ok(Err(why)) => panic!("an agent was refused: {why:?}"),
                Err(error) => panic!("an agent was turned away: {error}"),
            }
        }
        fleet = again;
    }
    assert_eq!(sessions.len(), FLEET);
}

#[tokio::test]
async fn a_crowd_that_says_nothing_displaces_itself_and_no_agent() {
    let purser = Purser::builder().open_files(2 * PLACES as u32, 2 * PLACES as u32).start().await;
    let agent = fleet(&purser, 1).await.remove(0);
    let silent = || async {
        let mut socket = double::open(purser.address()).await;
        said(&mut socket).await.expect("a close with a code").0
    };
    // The last ones find no place, whoever has to go for it.
    let mut crowd: FuturesUnordered<_> = (0..PLACES + 20).map(|_| silent()).collect();
    // On a slow machine the first ones were silent for too long before the last ones came.
    while crowd.next().await != Some(4429) {
        crowd.push(silent());
    }
    // The crowd stays.
    assert!(agent.try_dial(purser.address()).await.expect("it is not turned away").is_ok());
    drop(crowd);
}

/// As many as may send more than anyone at once, and one.
const TOO_MANY_LONG: usize = 64 + 1;

/// Says a hello of 60 KB but for its end, and gives the code with which the server ends that.
async fn half_a_long_hello(address: &str) -> u16 {
    let mut socket = double::open(address).await;
    socket.send(Message::binary(vec![9; 32])).await.unwrap();
    timeout(SOON, socket.next()).await.unwrap();
    // A masked binary frame.
    let frame = [&[0x82, 0xfe][..], &60_000_u16.to_be_bytes(), &[0; 4], &[7; 5 * 1024]].concat();
    socket.get_mut().write_all(&frame).await.unwrap();
    said(&mut socket).await.expect("a close with a code").0
}

#[tokio::test]
async fn strangers_who_say_half_a_long_hello_keep_no_agent_out() {
    let purser = Purser::start().await;
    let mut agent = fleet(&purser, 1).await.remove(0);
    agent.running = (0..200).map(|_| Attempt { target_id: TargetId::generate(), attempt: 1 }).collect();
    let stranger = || half_a_long_hello(purser.address());
    let mut crowd: FuturesUnordered<_> = (0..TOO_MANY_LONG).map(|_| stranger()).collect();
    // On a slow machine the first ones said nothing for too long before the last ones came.
    let mut displaced = false;
    for _ in 0..5 * TOO_MANY_LONG {
        displaced = crowd.next().await == Some(4429);
        if displaced {
            break;
        }
        crowd.push(stranger());
    }
    assert!(displaced, "the first one goes for the last");
    // All places are taken.
    assert!(agent.try_dial(purser.address()).await.expect("it is not turned away").is_ok());
    drop(crowd);
}

/// It sends and sends, and never reads an answer.
#[tokio::test]
async fn an_agent_that_does_not_read_is_cut() {
    let purser = Purser::start().await;
    let client = purser.client();
    let row = client.mutate("server.create", json!({"name": unique("host")})).await;
    let double = Double::with_token(row["joinToken"].as_str().unwrap());
    let (answer, mut link) = double.shake(purser.address()).await.unwrap();
    assert!(answer.is_ok());
    let flood = async {
        // An answer repeats the id of its call, so it is as long.
        let call = json!({"jsonrpc": "2.0", "id": "x".repeat(60_000), "method": "none"}).to_string();
        loop {
            let sealed = link.sealer.seal(&call).unwrap();
            if link.writer.send(sealed).await.is_err() {
                return;
            }
        }
    };
    timeout(Duration::from_secs(60), flood).await.expect("the server cuts it");
    eventually(SOON, async || purser.logs().contains("the other side does not read").then_some(())).await;
    let offline = async || {
        let now = client.query("server.one", json!({"serverId": row["serverId"]})).await;
        (now["status"] == "offline").then_some(())
    };
    eventually(SOON, offline).await;
}

#[tokio::test]
async fn an_agent_of_another_protocol_is_refused_and_a_neighbour_is_not() {
    let purser = Purser::start().await;
    let client = purser.client();
    let row = client.mutate("server.create", json!({"name": unique("host")})).await;
    let double = Double::with_token(row["joinToken"].as_str().unwrap());
    let offering = |min, max| Double { protocol: ProtocolRange { min, max }, ..double.clone() };
    for (min, max) in [(1000, 1001), (0, 0), (2, 1)] {
        let refused = offering(min, max).dial(purser.address()).await.err().expect("no common protocol");
        assert!(refused.message.contains("this server speaks agent protocols 1 to 1"), "{refused:?}");
    }
    let Ok(session) = offering(0, 1000).dial(purser.address()).await else { panic!("one in common") };
    assert_eq!(session.welcome.protocol, purser_proto_schema::agent::PROTOCOL);
    let limits = session.welcome.limits;
    assert_eq!((limits.tests, limits.transfers, limits.text_bytes), (16, 3, 4 << 20));
}
