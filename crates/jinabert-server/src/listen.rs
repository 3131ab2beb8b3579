//! Connections: accepting, limits, and completion before the process ends.

use super::{
    client::Client,
    pace::{MinRate, RateLimitedBody},
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
const HEAD: Duration = Duration::from_secs(75);

/// Send buffer in bytes.  The system reports it writable when about a third is free: a smaller
/// buffer shows sooner that a slow client reads something.
const KEPT: u32 = 256 << 10;

/// Maximum connections that the system queues until they are accepted.
const BACKLOG: u32 = 1024;

/// Maximum time that shutdown waits for accepted requests.
const GRACE: Duration = Duration::from_secs(30);

/// Listens on the first free address.
pub fn bind(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
    let bind = |address: SocketAddr| {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // On Windows this option would share the port.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.set_send_buffer_size(KEPT)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "no address");
    for &address in addresses {
        match bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
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
            let place = connections.clone().acquire_owned().await.ok()?;
            Some((listener.accept().await, place))
        };
        let (stream, place) = tokio::select! {
            () = &mut stop => break,
            accepted = accepted => match accepted {
                Some((Ok((stream, _)), place)) => (stream, place),
                // Too many open files, for example: some will be closed.
                Some((Err(error), _)) => {
                    tracing::warn!("a connection was not accepted: {error}");
                    time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                None => break,
            },
        };
        let connection = graceful.watch(serve(stream, router.clone(), state.limits.pace));
        tokio::spawn(async move {
            // The cause is on the client's side: it disconnected, or does not speak HTTP.
            if let Err(error) = connection.await {
                tracing::debug!("a connection ended: {error}");
            }
            drop(place);
        });
    }
    drop(listener);
    if time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still under way after {} s", GRACE.as_secs());
    }
}

/// Serves one connection, from its first request to its last.
fn serve(
    stream: TcpStream,
    router: Router,
    pace: MinRate,
) -> impl GracefulConnection<Output = Result<(), hyper::Error>> + Send {
    // Small responses are sent without delay; if this fails, they are only slower.
    let _ = stream.set_nodelay(true);
    let (client, router) = (Client::new(stream), TowerToHyperService::new(router));
    let paced = RateLimitedBody::new(client.clone(), pace);
    let answer = move |request: Request<Incoming>| {
        let gone = client.clone().gone(request.version());
        let answer = router.call(request);
        async move {
            tokio::select! {
                biased;
                answer = answer => answer,
                // The client is gone: nobody reads the response.
                () = gone => Ok(Response::new(Body::empty())),
            }
        }
    };
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .half_close(true)
        .serve_connection(paced, service_fn(answer))
}
