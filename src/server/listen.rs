//! Connections: accepted, limited, and finished before the process ends.

use super::{
    pace::{Pace, Paced},
    state::State,
};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulConnection, GracefulShutdown},
    service::TowerToHyperService,
};
use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    time,
};

/// The longest that a client may take over the head of a request, and be silent before the next.
const HEAD: Duration = Duration::from_secs(75);

/// Bytes of an answer that the system keeps for a client.  It says that there is room for more when
/// about a third is free: the less it keeps, the sooner is seen that a slow client takes something.
const KEPT: u32 = 256 << 10;

/// Connections that the system keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// The longest that the end of the process waits for requests that were accepted.
const GRACE: Duration = Duration::from_secs(30);

/// Listens on the first address that is free.
pub fn bind(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
    let bind = |address: SocketAddr| {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // On Windows it would share the port.
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

/// Accepts connections until `stop`, then finishes what was accepted.
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
                // Too many open files, for one: some will be closed.
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
            // What went wrong is the client's affair: it left, or spoke no HTTP.
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

/// One connection, from its first request to its last.
fn serve(
    stream: TcpStream,
    router: Router,
    pace: Pace,
) -> impl GracefulConnection<Output = Result<(), hyper::Error>> + Send {
    // Small answers do not wait for more; without it they are only slower.
    let _ = stream.set_nodelay(true);
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(Paced::new(TokioIo::new(stream), pace), TowerToHyperService::new(router))
}
