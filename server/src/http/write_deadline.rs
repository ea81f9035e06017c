//! A socket whose reader may stall only so long. Without it a caller that reads nothing would hold its
//! connection, and what is being answered on it, as long as it likes: TCP itself has no such limit.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// How long a write may make no progress.
const STALL: Duration = Duration::from_secs(30);

/// The socket.
pub(super) struct WriteDeadline<S, P> {
    socket: S,
    /// Its place among all, given back with it: also a WebSocket's, which its connection does not outlive.
    _place: P,
    /// Set while a write waits.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S, P> WriteDeadline<S, P> {
    pub(super) fn new(socket: S, place: P) -> Self {
        Self { socket, _place: place, until: None }
    }

    /// What became of an attempt to write: an error once it has waited too long.
    fn judge<T>(&mut self, tried: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if tried.is_ready() {
            self.until = None;
            return tried;
        }
        let until = self.until.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + STALL)));
        ready!(until.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the caller reads nothing")))
    }
}

impl<S: AsyncRead + Unpin, P: Unpin> AsyncRead for WriteDeadline<S, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin, P: Unpin> AsyncWrite for WriteDeadline<S, P> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.judge(tried, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.socket).poll_write_vectored(cx, bytes);
        self.judge(tried, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.socket).poll_flush(cx);
        self.judge(tried, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.socket).poll_shutdown(cx);
        self.judge(tried, cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_may_be_slow_but_not_stall() {
        let (here, mut there) = duplex(8);
        let mut socket = WriteDeadline::new(here, ());
        let writing = tokio::spawn(async move {
            let slow = socket.write_all(&[0; 64]).await;
            (slow, socket.write_all(&[0; 64]).await)
        });
        // Slower than the deadline in all, and never in one step.
        let mut taken = [0; 8];
        for _ in 0..8 {
            tokio::time::sleep(STALL - Duration::from_secs(1)).await;
            there.read_exact(&mut taken).await.unwrap();
        }
        let (slow, stalled) = writing.await.unwrap();
        slow.unwrap();
        assert_eq!(stalled.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
