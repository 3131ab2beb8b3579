//! Eviction of slow readers: a client that reads its response too slowly loses its permits.

use super::metrics;
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
pub struct RateLimitedBody<S> {
    stream: S,
    pace: MinRate,
    /// Time that the client may still block a write.
    left: Duration,
    /// Start of the write that is blocked now.
    waiting: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
}

impl<S> RateLimitedBody<S> {
    /// Wraps a connection, with the full time left.
    pub fn new(stream: S, pace: MinRate) -> Self {
        let alarm = Box::pin(sleep(pace.stall));
        Self { stream, pace, left: pace.stall, waiting: None, alarm }
    }

    /// Subtracts the time of a write and adds what its bytes gain; an error if no time is left.
    fn count(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                let waited = self.waiting.take().map_or(Duration::ZERO, |since| since.elapsed());
                let gained = Duration::from_secs_f64(bytes as f64 / f64::from(self.pace.rate));
                let left = self.left.saturating_sub(waited).saturating_add(gained);
                self.left = left.min(self.pace.stall);
                written
            }
            Poll::Ready(Err(_)) => written,
            Poll::Pending => {
                if self.waiting.is_none() {
                    let now = Instant::now();
                    self.waiting = Some(now);
                    self.alarm.as_mut().reset(now + self.left);
                }
                self.alarm.as_mut().poll(context).map(|()| {
                    metrics::not_taken();
                    Err(io::Error::new(
                        ErrorKind::TimedOut,
                        "the client takes its answer too slowly",
                    ))
                })
            }
        }
    }
}

impl<S: Read + Unpin> Read for RateLimitedBody<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: Write + Unpin> Write for RateLimitedBody<S> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fuzz::{self, KEY},
        listen::{bind, listen},
        routes,
        state::State,
    };
    use metrics_exporter_prometheus::PrometheusBuilder;
    use serde_json::json;
    use std::{
        future,
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpStream},
        sync::Arc,
        thread,
    };
    use tokio::{runtime, task, time};

    const PACE: MinRate = MinRate { stall: Duration::from_secs(1), rate: 2 << 20 };

    /// Requests some 12 MB, reads nothing for a while or `part` bytes every 20 ms, then the rest;
    /// returns the bytes received, and the bytes announced.
    fn take(address: SocketAddr, part: usize) -> (usize, usize) {
        let body = json!({ "inputs": vec!["a ".repeat(62); 256] }).to_string();
        let head = format!(
            "POST /embed_all HTTP/1.1\r\nhost: a\r\nauthorization: {KEY}\r\n\
             connection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.write_all(head.as_bytes()).expect("sent");
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; part.max(1)]);
        stream.read_exact(&mut buffer[..1]).expect("a status line");
        bytes.push(buffer[0]);
        // Longer than the server's timeout.
        let until = Instant::now() + 3 * PACE.stall;
        while Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
            match stream.read(&mut buffer[..part]) {
                Ok(n) => bytes.extend_from_slice(&buffer[..n]),
                Err(_) => break,
            }
        }
        // Bytes that were in flight when the connection was closed, or an error.
        let _ = stream.read_to_end(&mut bytes);
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let (_, length) = head.split_once("content-length: ").expect("a length");
        let length = length.lines().next().expect("a line").parse().expect("a number");
        (bytes.len() - end, length)
    }

    #[test]
    fn who_takes_an_answer_too_slowly_gives_its_place_back() {
        let mut serve = fuzz::serve();
        serve.limits.answer = 1 << 21;
        serve.limits.client_batch = 512;
        serve.limits.payloads = 64 << 20;
        serve.limits.pace = PACE;
        serve.embedding.batch_tokens = None;
        let state = Arc::new(State::new(&serve).expect("metrics"));
        state.open(&serve.models, &serve.embedding).expect("good models");
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        // A single thread runs the connections, so that this recorder sees their counts.
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let taken = ::metrics::with_local_recorder(&recorder, || {
            runtime.expect("a runtime").block_on(async {
                let listener = bind(&[([127, 0, 0, 1], 0).into()]).expect("a port");
                let address = listener.local_addr().expect("an address");
                let router = routes::router(state.clone(), &serve.origins, &serve.base);
                let own = state.clone();
                task::spawn(async move { listen(listener, router, &own, future::pending()).await });
                let clients = [256 << 10, 8 << 10, 0];
                let clients = clients.map(|part| task::spawn_blocking(move || take(address, part)));
                let mut taken = Vec::new();
                for client in clients {
                    taken.push(client.await.expect("a client"));
                }
                let all = state.limits.payloads.div_ceil(1024);
                for _ in 0..100 {
                    if state.under_way() == 0 && state.payloads.available_permits() == all {
                        break;
                    }
                    time::sleep(Duration::from_millis(20)).await;
                }
                assert_eq!(state.under_way(), 0);
                assert_eq!(state.payloads.available_permits(), all);
                taken
            })
        });
        let [honest, dripping, silent] = taken[..] else { panic!("three clients") };
        assert!(honest.1 > 4 << 20, "{honest:?}: too short an answer to fill what systems keep");
        assert_eq!(honest.0, honest.1, "who keeps pace has all of it");
        assert!(dripping.0 < dripping.1 / 2, "{dripping:?}");
        assert!(silent.0 < silent.1 / 2, "{silent:?}");
        let counted = handle.render();
        assert!(counted.contains("jinabert_answers_not_taken 2"), "{counted}");
    }
}
