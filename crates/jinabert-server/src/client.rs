//! Detection of disconnected clients: one that half-closes its connection still wants the response,
//! one that closed it does not, and both look the same until something is sent.

use axum::http::Version;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use std::{
    future::{pending, poll_fn},
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{io::ReadBuf, net::TcpStream, time};

/// Interim response that every HTTP/1.1 client skips; a closed connection answers it with a reset.
const PROBE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Interval between two checks of a half-closed connection.
const INTERVAL: Duration = Duration::from_millis(50);

/// Connection that is shared with its requests, which check whether the client is gone.
#[derive(Clone)]
pub struct Client(Arc<Mutex<TokioIo<TcpStream>>>);

impl Client {
    /// Wraps a connection.
    pub fn new(stream: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(TokioIo::new(stream))))
    }

    fn stream(&self) -> MutexGuard<'_, TokioIo<TcpStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the client is gone; call it only before the response is written.
    pub async fn gone(self, version: Version) {
        loop {
            let peek = |context: &mut Context<'_>| {
                let mut byte = [0];
                self.stream().inner().poll_peek(context, &mut ReadBuf::new(&mut byte))
            };
            match poll_fn(peek).await {
                Ok(0) => break,
                // Data: the rest of a body, or the next request.
                Ok(_) => time::sleep(INTERVAL).await,
                Err(_) => return,
            }
        }
        if version != Version::HTTP_11 {
            pending::<()>().await;
        }
        let sent = self.stream().inner().try_write(PROBE);
        while sent.is_ok() {
            time::sleep(INTERVAL).await;
            if !matches!(self.stream().inner().take_error(), Ok(None)) {
                return;
            }
        }
    }
}

impl Read for Client {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_read(context, buffer)
    }
}

impl Write for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_shutdown(context)
    }
}
