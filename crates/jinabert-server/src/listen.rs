//! Connections: accepting, limits, and completion before the process ends.

use crate::{
    client::Client,
    rate_limit::{MinRate, RateLimitedStream},
    state::State,
};
use axum::{
    Router,
    body::Body,
    http::{Request, Response},
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::TokioTimer,
    server::graceful::{GracefulConnection, GracefulShutdown},
    service::TowerToHyperService,
};
use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    time,
};

/// Maximum time for the head of a request, and for the pause before the next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// Send buffer in bytes.  The system reports it writable when about a third is free: a smaller
/// buffer shows sooner that a slow client reads something.
const SEND_BUFFER: u32 = 256 << 10;

/// Maximum connections that the system queues until they are accepted.
const BACKLOG: u32 = 1024;

/// Maximum time that shutdown waits for accepted requests.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// Listens on the first free address.
pub fn bind(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no address");
    for &address in addresses {
        match bind_one(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // On Windows this option would share the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections until `stop`, then completes the accepted requests.
pub async fn listen(
    listener: TcpListener,
    router: Router,
    state: &State,
    stop: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(state.limits.connections));
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            let permit = connections.clone().acquire_owned().await.ok()?;
            Some((listener.accept().await, permit))
        };
        let (stream, permit) = tokio::select! {
            () = &mut stop => break,
            accepted = accepted => match accepted {
                Some((Ok((stream, _)), permit)) => (stream, permit),
                // Too many open files, for example: some will be closed.
                Some((Err(error), _)) => {
                    tracing::warn!("a connection was not accepted: {error}");
                    time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                None => break,
            },
        };
        let connection = graceful.watch(serve(stream, router.clone(), state.limits.min_rate));
        tokio::spawn(async move {
            // The cause is on the client's side: it disconnected, or does not speak HTTP.
            if let Err(error) = connection.await {
                tracing::debug!("a connection ended: {error}");
            }
            drop(permit);
        });
    }
    drop(listener);
    if time::timeout(SHUTDOWN_TIMEOUT, graceful.shutdown()).await.is_err() {
        let seconds = SHUTDOWN_TIMEOUT.as_secs();
        tracing::warn!("requests were still in progress {seconds} s after the signal to stop");
    }
}

/// Serves one connection, from its first request to its last.
fn serve(
    stream: TcpStream,
    router: Router,
    min_rate: MinRate,
) -> impl GracefulConnection<Output = Result<(), hyper::Error>> + Send {
    // Small responses are sent without delay; if this fails, they are only slower.
    let _ = stream.set_nodelay(true);
    let client = Client::new(stream);
    let router = TowerToHyperService::new(router);
    let limited = RateLimitedStream::new(client.clone(), min_rate);
    let respond = move |request: Request<Incoming>| {
        let gone = client.clone().gone(request.version());
        let response = router.call(request);
        async move {
            tokio::select! {
                biased;
                response = response => response,
                // The client is gone: nobody reads the response.
                () = gone => Ok(Response::new(Body::empty())),
            }
        }
    };
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .half_close(true)
        .serve_connection(limited, service_fn(respond))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        routes,
        test_config::{KEY, config},
    };
    use metrics_exporter_prometheus::PrometheusBuilder;
    use serde_json::json;
    use std::{
        future,
        io::{Read, Write},
        net, thread,
        time::Instant,
    };
    use tokio::{runtime, task};

    const MIN_RATE: MinRate = MinRate { stall: Duration::from_secs(1), rate: 2 << 20 };

    /// Requests some 12 MB, reads nothing for a while or `part` bytes every 20 ms, then the rest;
    /// returns the bytes received, and the bytes announced.
    fn request_and_read(address: SocketAddr, part: usize) -> (usize, usize) {
        let body = json!({ "inputs": vec!["a ".repeat(62); 256] }).to_string();
        let head = format!(
            "POST /embed_all HTTP/1.1\r\nhost: a\r\nauthorization: {KEY}\r\n\
             connection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = net::TcpStream::connect(address).expect("a connection");
        stream.write_all(head.as_bytes()).expect("sent");
        let mut bytes = Vec::new();
        let mut buffer = vec![0; part.max(1)];
        stream.read_exact(&mut buffer[..1]).expect("a status line");
        bytes.push(buffer[0]);
        // Longer than the server's timeout.
        let until = Instant::now() + 3 * MIN_RATE.stall;
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
        let announced = length.lines().next().expect("a line").parse().expect("a number");
        (bytes.len() - end, announced)
    }

    #[test]
    fn slow_reader_releases_its_permits() {
        let mut config = config();
        config.limits.answer = 1 << 21;
        config.limits.client_batch = 512;
        config.limits.payloads = 64 << 20;
        config.limits.min_rate = MIN_RATE;
        config.embedding.batch_tokens = None;
        let state = Arc::new(State::new(&config).expect("metrics"));
        state.open(&config.models, &config.embedding).expect("good models");
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        // A single thread runs the connections, so that this recorder sees their counts.
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let received = metrics::with_local_recorder(&recorder, || {
            runtime.expect("a runtime").block_on(async {
                let listener = bind(&[([127, 0, 0, 1], 0).into()]).expect("a port");
                let address = listener.local_addr().expect("an address");
                let router = routes::router(state.clone(), &config.origins, &config.base);
                let own = state.clone();
                task::spawn(async move { listen(listener, router, &own, future::pending()).await });
                let clients = [256 << 10, 8 << 10, 0]
                    .map(|part| task::spawn_blocking(move || request_and_read(address, part)));
                let mut received = Vec::new();
                for client in clients {
                    received.push(client.await.expect("a client"));
                }
                let all = state.limits.payloads.div_ceil(1024);
                for _ in 0..100 {
                    let free = state.payload_permits.available_permits();
                    if state.requests_in_progress() == 0 && free == all {
                        break;
                    }
                    time::sleep(Duration::from_millis(20)).await;
                }
                assert_eq!(state.requests_in_progress(), 0);
                assert_eq!(state.payload_permits.available_permits(), all);
                received
            })
        });
        let [fast, slow, silent] = received[..] else { panic!("three clients") };
        assert!(fast.1 > 4 << 20, "{fast:?}: the response fits in the system's buffers");
        assert_eq!(fast.0, fast.1, "a fast reader gets all of it");
        assert!(slow.0 < slow.1 / 2, "{slow:?}");
        assert!(silent.0 < silent.1 / 2, "{silent:?}");
        let rendered = handle.render();
        assert!(rendered.contains("jinabert_answers_not_taken 2"), "{rendered}");
    }
}
