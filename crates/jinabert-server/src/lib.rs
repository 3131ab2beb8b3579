//! Embeddings over HTTP, in the dialects of OpenAI, Jina, Cohere and text-embeddings-inference.
//!
//! A request is read within its limits, tokenised, and put into its model's
//! [`scheduler`](jinabert::scheduler); while the device computes, others are read.  Requests of
//! disconnected clients are cancelled.

mod body;
mod call;
mod client;
mod config;
mod dialect;
mod error;
#[cfg(test)]
mod fuzz;
mod listen;
mod metrics;
mod openai;
mod page;
mod permits;
mod predict;
mod rate_limit;
mod rerank;
mod response;
mod routes;
mod state;
mod stats;
mod status;
mod tasks;
mod tei;
#[cfg(test)]
mod test_config;
mod tokens;
mod wire;

pub use config::{Limits, ModelSource, ServerConfig};
use jinabert::Error;
pub use rate_limit::MinRate;
use std::{io, net::SocketAddr, num::NonZero, sync::Arc, thread, time::Duration};
use tokio::{runtime, signal, sync::oneshot, task, time};

/// Interval at which recorded metric values are sorted into their histograms.
const METRICS_INTERVAL: Duration = Duration::from_secs(5);

/// Error that ended the server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A model cannot be opened.
    #[error(transparent)]
    Engine(#[from] Error),
    /// The port cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The first address that was tried.
        address: String,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The runtime cannot be started.
    #[error("cannot start: {0}")]
    Start(String),
}

/// Serves until SIGINT or SIGTERM, then completes the accepted requests.
///
/// The port is open before the models are loaded and warmed up: until then `/health` answers 503.
/// `ready` is called with the address once the port is open.
///
/// # Errors
/// [`ServerError`]
pub fn serve(
    config: ServerConfig,
    ready: impl FnOnce(SocketAddr) + Send,
) -> Result<(), ServerError> {
    let state = Arc::new(state::State::new(&config).map_err(ServerError::Start)?);
    // One tokenising thread for each core, and two for requests that wait.
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(cores + 2)
        .build()
        .map_err(|e| ServerError::Start(e.to_string()))?;
    runtime.block_on(async {
        let listener = listen::bind(&config.addresses).map_err(|source| {
            let address = config.addresses.first().map_or_else(String::new, ToString::to_string);
            ServerError::Listen { address, source }
        })?;
        let address = listener
            .local_addr()
            .map_err(|source| ServerError::Listen { address: String::new(), source })?;
        let router = routes::router(state.clone(), &config.origins, &config.base);
        let (stop, stopped) = oneshot::channel::<()>();
        let listening = task::spawn({
            let state = state.clone();
            let stopped = async { drop(stopped.await) };
            async move { listen::listen(listener, router, &state, stopped).await }
        });
        task::spawn({
            let state = state.clone();
            async move {
                loop {
                    time::sleep(METRICS_INTERVAL).await;
                    state.metrics.update_histograms();
                }
            }
        });
        let opening = task::spawn_blocking({
            let state = state.clone();
            move || state.open(&config.models, &config.embedding)
        });
        let signal = interrupted();
        tokio::pin!(signal);
        tokio::select! {
            opened = opening => opened.map_err(|e| ServerError::Start(e.to_string()))??,
            // Loading cannot be interrupted; the process can be ended.
            () = &mut signal => return Ok::<(), ServerError>(()),
        }
        ready(address);
        signal.await;
        tracing::info!("completing the accepted requests; a second signal ends the server at once");
        let _ = stop.send(());
        tokio::select! {
            _ = listening => {}
            () = interrupted() => {}
        }
        Ok(())
    })?;
    runtime.shutdown_background();
    Ok(())
}

/// Waits for SIGINT or SIGTERM.
async fn interrupted() {
    let interrupt = async { drop(signal::ctrl_c().await) };
    #[cfg(unix)]
    {
        match signal::unix::signal(signal::unix::SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    () = interrupt => {}
                    _ = terminate.recv() => {}
                }
            }
            Err(_) => interrupt.await,
        }
    }
    #[cfg(not(unix))]
    interrupt.await;
}
