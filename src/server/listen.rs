//! Connections: accepted, limited, and finished before the process ends.

use super::state::State;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulConnection, GracefulShutdown},
    service::TowerToHyperService,
};
use std::{future::Future, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};
use tokio_io_timeout::TimeoutStream;

/// The longest that a client may take over the head of a request, and be silent before the next.
const HEAD: Duration = Duration::from_secs(75);

/// The longest that a client may not take what it is sent.
const STALL: Duration = Duration::from_secs(30);

/// The longest that the end of the process waits for requests that were accepted.
const GRACE: Duration = Duration::from_secs(30);

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
        let connection = graceful.watch(serve(stream, router.clone()));
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
) -> impl GracefulConnection<Output = Result<(), hyper::Error>> + Send {
    // Small answers do not wait for more; without it they are only slower.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALL));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router))
}
