//! Embeddings over HTTP, in the dialects of OpenAI, Jina, Cohere and text-embeddings-inference.
//!
//! A request is read within its limits, tokenised, and put into its model's
//! [`scheduler`](jinabert::scheduler); while the device computes, others are read.  Requests of
//! disconnected clients are cancelled.

mod body;
mod call;
mod client;
#[cfg(test)]
mod fuzz;
mod listen;
mod metrics;
mod openai;
mod pace;
mod page;
mod predict;
mod refusal;
mod rerank;
mod routes;
mod state;
mod status;
mod tei;
mod tokens;
mod wire;

use axum::http::HeaderValue;
use jinabert::{Error, Options};
pub use pace::MinRate;
pub use state::{Limits, ModelSource};
use std::{io, net::SocketAddr, num::NonZero, sync::Arc, thread, time::Duration};
use tokio::{runtime, signal, sync::oneshot, task, time};

/// Configuration of the server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Models; at least one.  The first is the default.
    pub models: Vec<ModelSource>,
    /// Options for opening the models.
    pub embedding: Options,
    /// Addresses to listen on: the first free one is used.
    pub addresses: Vec<SocketAddr>,
    /// Accepted keys; if empty, no key is needed.
    pub keys: Vec<String>,
    /// Allowed CORS origins; `*` for all.
    pub origins: Vec<HeaderValue>,
    /// Limits for clients.
    pub limits: Limits,
    /// Truncate texts over the limit by default; a request may say otherwise.
    pub auto_truncate: bool,
    /// Accept token ids without checking that the tokenizer could have made them.
    pub trust_ids: bool,
    /// Path prefix, for example `/emb`, if a proxy does not remove it; empty for none.
    pub base: String,
}

/// Interval at which recorded metric values are sorted into their histograms.
const SETTLE: Duration = Duration::from_secs(5);

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
    serve: ServerConfig,
    ready: impl FnOnce(SocketAddr) + Send,
) -> Result<(), ServerError> {
    let state = Arc::new(state::State::new(&serve).map_err(ServerError::Start)?);
    // One tokenising thread for each core, and two for requests that wait.
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(cores + 2)
        .build()
        .map_err(|e| ServerError::Start(e.to_string()))?;
    runtime.block_on(async {
        let listener = listen::bind(&serve.addresses).map_err(|source| {
            let address = serve.addresses.first().map_or_else(String::new, ToString::to_string);
            ServerError::Listen { address, source }
        })?;
        let address = listener
            .local_addr()
            .map_err(|source| ServerError::Listen { address: String::new(), source })?;
        let router = routes::router(state.clone(), &serve.origins, &serve.base);
        let (ended, end) = oneshot::channel::<()>();
        let listening = task::spawn({
            let state = state.clone();
            async move { listen::listen(listener, router, &state, async { drop(end.await) }).await }
        });
        task::spawn({
            let state = state.clone();
            async move {
                loop {
                    time::sleep(SETTLE).await;
                    state.metrics.settle();
                }
            }
        });
        let opening = task::spawn_blocking({
            let (state, serve) = (state.clone(), serve.clone());
            move || state.open(&serve.models, &serve.embedding)
        });
        let interrupted = interrupted();
        tokio::pin!(interrupted);
        tokio::select! {
            opened = opening => opened.map_err(|e| ServerError::Start(e.to_string()))??,
            // Loading cannot be interrupted; the process can be ended.
            () = &mut interrupted => return Ok::<(), ServerError>(()),
        }
        ready(address);
        interrupted.await;
        tracing::info!("finishing what was accepted; once more ends at once");
        let _ = ended.send(());
        tokio::select! {
            _ = listening => {}
            () = self::interrupted() => {}
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
