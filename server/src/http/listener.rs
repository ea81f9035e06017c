//! The listener: accepted sockets, their number, and how long a caller may take to ask. A caller shakes
//! hands in a task of its own, so that a slow one keeps nobody else waiting.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, http::Request};
use futures_util::FutureExt as _;
use hyper::{
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto::Builder,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Tls, around::Peer, write_deadline::WriteDeadline};

/// Connections at once, sockets included; further ones wait to be accepted.
const CONNECTIONS: usize = 40_000;
/// Connections that the system has made and nobody has accepted yet, if its own limit is no lower (4,096 on Linux).
const BACKLOG: u32 = 16_384;
/// The longest head of a request, and what is gathered of a body or an answer before it is passed on.
const GATHERED: usize = 80 * 1024;
/// How long a caller may take for the head of a request, and be idle between two.
const HEAD: Duration = Duration::from_secs(30);
/// How long to wait after the system refused to accept, such as for want of file descriptors.
const REFUSED: Duration = Duration::from_millis(200);

/// Listens, with room for a whole fleet that dials at once: a dial beyond the backlog hears nothing, and the
/// system repeats it seconds later.
///
/// # Errors
/// When the address cannot be used.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart would else have to wait for the last connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stop`, then lets calls under way end, and sockets be told, at most `within`. Callers and
/// agents may take five eighths of the `open_files` that there may be: the rest is for registries and the database.
pub async fn serve(
    listener: TcpListener,
    open_files: usize,
    tls: Option<Arc<Tls>>,
    router: Router,
    sockets: TaskTracker,
    stop: CancellationToken,
    within: Duration,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS.min(open_files / 8 * 5)));
    let draining = GracefulShutdown::new();
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(GATHERED);
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = async { (place.await, listener.accept().await) } => accepted,
        };
        let (Ok(place), Ok((stream, peer))) = accepted else {
            tokio::time::sleep(REFUSED).await;
            continue;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let connection = Connection {
            http: http.clone(),
            router: router.clone(),
            peer: Peer(peer.ip()),
            draining: draining.watcher(),
        };
        // A task each: one for both would have room for a TLS session on every connection.
        match &tls {
            None => tokio::spawn(connection.serve(stream, place)),
            Some(tls) => tokio::spawn(connection.secure(Arc::clone(tls), stream, place, stop.clone())),
        };
    }
    drop(listener);
    sockets.close();
    let ended = async { tokio::join!(draining.shutdown(), sockets.wait()) };
    if tokio::time::timeout(within, ended).await.is_err() {
        tracing::warn!("some calls were still under way; they end with the process");
    }
}

/// What one connection needs.
struct Connection {
    http: Builder<TokioExecutor>,
    router: Router,
    peer: Peer,
    draining: Watcher,
}

impl Connection {
    async fn secure(
        self,
        tls: Arc<Tls>,
        stream: TcpStream,
        place: OwnedSemaphorePermit,
        stop: CancellationToken,
    ) {
        let shaken = tokio::select! {
            () = stop.cancelled() => return,
            shaken = Box::pin(tls.accept(stream)) => shaken,
        };
        match shaken {
            Ok(stream) => Box::pin(self.serve(stream, place)).await,
            // A caller that went away, took too long, does not speak TLS or does not trust us.
            Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
        }
    }

    /// No `async fn`, which would hold the connection twice: as what it was given, and as what it waits for.
    fn serve<S>(self, stream: S, place: OwnedSemaphorePermit) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let doors = TowerToHyperService::new(self.router);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(self.peer);
            doors.call(request)
        });
        let stream = TokioIo::new(WriteDeadline::new(stream, place));
        let connection = self.http.serve_connection_with_upgrades(stream, service).into_owned();
        self.draining.watch(connection).map(|ended| {
            if let Err(error) = ended {
                // A caller that went away, took too long or does not speak HTTP.
                tracing::debug!(%error, "a connection ended");
            }
        })
    }
}
