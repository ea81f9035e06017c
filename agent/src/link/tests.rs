use std::sync::atomic::{AtomicUsize, Ordering};

use jsonrpsee::core::server::RpcModule;
use purser_proto_schema::{
    agent::{
        PROTOCOL,
        handshake::{Limits, RefusalCode},
        join_token::JoinToken,
        noise::{self, StaticKey},
        wire::WireWriter as _,
    },
    ids::ServerId,
};
use tokio::net::TcpListener;

use super::*;
use crate::{config::DockerHost, websocket};

/// What the server of a test does with each agent that dials.
#[derive(Clone)]
enum Manner {
    Refuse,
    Welcome { then_close: bool },
}

struct Server {
    key: StaticKey,
    port: u16,
    dials: Arc<AtomicUsize>,
    welcomed: Arc<AtomicUsize>,
}

async fn serve(manner: Manner) -> Server {
    let key = StaticKey::generate().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (dials, welcomed) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let server =
        Server { key: key.clone(), port, dials: Arc::clone(&dials), welcomed: Arc::clone(&welcomed) };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            dials.fetch_add(1, Ordering::SeqCst);
            let (mut reader, mut writer) = websocket::accept(stream).await;
            let Ok(introduced) = noise::receive(&mut reader, &mut writer, &key).await else { continue };
            match manner {
                Manner::Refuse => {
                    let refused = Refused {
                        code: RefusalCode::InvalidJoinToken,
                        message: "no".to_owned(),
                        retry_after_ms: 0,
                    };
                    introduced.refuse(&mut writer, refused).await.unwrap();
                }
                Manner::Welcome { then_close } => {
                    let terms = Welcome {
                        session_epoch: 1,
                        protocol: PROTOCOL,
                        heartbeat_ms: 1000,
                        limits: Limits::default(),
                        drop: Vec::new(),
                    };
                    introduced.welcome(&mut writer, terms).await.unwrap();
                    welcomed.fetch_add(1, Ordering::SeqCst);
                    if then_close {
                        writer.close(CloseCode::ServerStops).await.unwrap();
                    } else {
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    });
    server
}

fn link(server: &Server, pinned: &StaticKey, folder: &std::path::Path) -> Link {
    let url = format!("http://127.0.0.1:{}", server.port).parse().unwrap();
    let token = JoinToken::generate(ServerId::generate(), pinned.fingerprint()).unwrap();
    Link {
        dialler: Dialler::new(url, &crate::config::Trust::System).unwrap(),
        state: State::open(folder, Some(token)).unwrap(),
        engine: Arc::new(Engine::new(DockerHost::Unix("/nowhere/docker.sock".into()))),
        targets: Arc::default(),
        instance: None,
        methods: RpcModule::new(()).into(),
    }
}

/// Runs a link for a while.
async fn run_for(link: Link, time: Duration) {
    let stop = CancellationToken::new();
    let running = tokio::spawn(link.run(stop.clone()));
    sleep(time).await;
    stop.cancel();
    timeout(Duration::from_secs(5), running).await.unwrap().unwrap();
}

fn refused(retry_after_ms: u64) -> AgentError {
    AgentError::Refused(Refused { code: RefusalCode::Busy, message: String::new(), retry_after_ms })
}

#[tokio::test]
async fn a_server_with_another_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(Manner::Welcome { then_close: false }).await;
    let expected = StaticKey::generate().unwrap();
    let link = link(&server, &expected, folder.path());
    let error = link.introduce().await.err().unwrap();
    assert!(matches!(error, AgentError::Channel(ChannelError::AnotherServer { .. })), "{error}");
    assert!(least_wait(&error) >= AFTER_REFUSAL);
    assert_eq!(server.welcomed.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_right_server_is_joined_and_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(Manner::Welcome { then_close: false }).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(link(&server, &server.key, folder.path()).run(stop.clone()));
    let joined = async {
        while crate::state::joined_server(folder.path()).is_none() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), joined).await.unwrap();
    stop.cancel();
    timeout(Duration::from_secs(5), running).await.unwrap().unwrap();
    assert_eq!(server.welcomed.load(Ordering::SeqCst), 1);
    assert!(State::open(folder.path(), None).unwrap().introduction().join_secret.is_none());
}

#[test]
fn refusal_waits_at_least_five_seconds() {
    let mut backoff = Backoff::default();
    for (retry_after_ms, least) in [(0, 5), (4999, 5), (20_000, 20), (u64::MAX, 600)] {
        let wait = backoff.next(least_wait(&refused(retry_after_ms)));
        assert!(wait >= Duration::from_secs(least), "{wait:?}");
    }
    let closed = |code: CloseCode| ChannelError::Closed { code: code.number(), reason: String::new() };
    for code in [CloseCode::Superseded, CloseCode::NotInForce, CloseCode::Removed] {
        assert!(least_wait(&AgentError::Session(Arc::new(closed(code)))) >= AFTER_REFUSAL);
    }
    assert!(least_wait(&AgentError::Channel(closed(CloseCode::Busy))) >= AFTER_REFUSAL);
    assert_eq!(least_wait(&AgentError::Session(Arc::new(closed(CloseCode::ServerStops)))), Duration::ZERO);
}

#[tokio::test]
async fn no_refusal_makes_a_tight_loop() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(Manner::Refuse).await;
    run_for(link(&server, &server.key, folder.path()), Duration::from_secs(2)).await;
    assert_eq!(server.dials.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_closes_every_session_is_not_dialled_in_a_tight_loop() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(Manner::Welcome { then_close: true }).await;
    run_for(link(&server, &server.key, folder.path()), Duration::from_secs(2)).await;
    let dials = server.dials.load(Ordering::SeqCst);
    assert!((1..=12).contains(&dials), "{dials}");
}
