//! Eviction of slow readers: a client that reads its response too slowly loses its permits.

use crate::metrics;
use hyper::rt::{Read, ReadBufCursor, Write};
use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};

/// Minimum rate at which a client must read: a response of `n` bytes has `stall` plus `n / rate`
/// seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinRate {
    /// Maximum time without progress.
    pub stall: Duration,
    /// Minimum bytes a second; faster reading gains time, up to `stall`.
    pub rate: u32,
}

impl Default for MinRate {
    /// 30 s, and half the rate of the slowest mobile networks.
    fn default() -> Self {
        Self { stall: Duration::from_secs(30), rate: 8 << 10 }
    }
}

/// Connection that ends with an error if its client reads too slowly.
pub struct RateLimitedStream<S> {
    stream: S,
    min_rate: MinRate,
    /// Time that the client may still block a write.
    left: Duration,
    /// Start of the write that is blocked now.
    blocked_since: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
}

impl<S> RateLimitedStream<S> {
    /// Wraps a connection, with the full time left.
    pub fn new(stream: S, min_rate: MinRate) -> Self {
        let alarm = Box::pin(sleep(min_rate.stall));
        Self { stream, min_rate, left: min_rate.stall, blocked_since: None, alarm }
    }

    /// Subtracts the time of a write and adds what its bytes gain; an error if no time is left.
    fn count(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                let waited =
                    self.blocked_since.take().map_or(Duration::ZERO, |since| since.elapsed());
                let gained = Duration::from_secs_f64(bytes as f64 / f64::from(self.min_rate.rate));
                let left = self.left.saturating_sub(waited).saturating_add(gained);
                self.left = left.min(self.min_rate.stall);
                written
            }
            Poll::Ready(Err(_)) => written,
            Poll::Pending => {
                if self.blocked_since.is_none() {
                    let now = Instant::now();
                    self.blocked_since = Some(now);
                    self.alarm.as_mut().reset(now + self.left);
                }
                self.alarm.as_mut().poll(context).map(|()| {
                    metrics::slow_reader_closed();
                    let message = "the client reads its response too slowly";
                    Err(io::Error::new(ErrorKind::TimedOut, message))
                })
            }
        }
    }
}

impl<S: Read + Unpin> Read for RateLimitedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: Write + Unpin> Write for RateLimitedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.count(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.count(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
