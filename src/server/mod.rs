//! Embeddings over HTTP, in the dialects of OpenAI, Jina, Cohere and text-embeddings-inference.
//!
//! A request is read within its limits, tokenised, and put into its model's
//! [`scheduler`](crate::scheduler); while the device computes, others are read.  A client that
//! leaves takes its request with it.

mod body;
mod call;
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

use crate::{Error, Options};
use axum::http::HeaderValue;
pub use pace::Pace;
pub use state::{Limits, ModelSource};
use std::{io, net::SocketAddr, num::NonZero, sync::Arc, thread, time::Duration};
use tokio::{runtime, signal, sync::oneshot, task, time};

/// What is served, to whom, and how.
#[derive(Clone, Debug)]
pub struct Serve {
    /// At least one; the first is meant where nothing says which.
    pub models: Vec<ModelSource>,
    /// How they are opened.
    pub embedding: Options,
    /// Where to listen; the first address that is free.
    pub addresses: Vec<SocketAddr>,
    /// Keys of which a client shows one; none needed if there are none.
    pub keys: Vec<String>,
    /// Pages of these origins may ask; `*` for all.
    pub origins: Vec<HeaderValue>,
    /// How much of everything.
    pub limits: Limits,
    /// Whether texts over the limit are cut unless a request says otherwise.
    pub auto_truncate: bool,
    /// Whether token ids are taken without a look at whether the tokenizer could have made them.
    pub trust_ids: bool,
}

/// How long values that were measured are kept one by one.
const SETTLE: Duration = Duration::from_secs(5);

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A model cannot be opened.
    #[error(transparent)]
    Engine(#[from] Error),
    /// The port cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The first that was tried.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The runtime cannot be started.
    #[error("cannot start: {0}")]
    Start(String),
}

/// Serves until the process is asked to end (SIGINT, SIGTERM), then finishes what was accepted.
///
/// The port is open before the models are: until they are loaded and warm, `/health` says 503.
/// `ready` is told the address then.
///
/// # Errors
/// [`Failure`]
pub fn serve(serve: Serve, ready: impl FnOnce(SocketAddr) + Send) -> Result<(), Failure> {
    let state = Arc::new(state::State::new(&serve).map_err(Failure::Start)?);
    // As many requests are tokenised at once as cores can, and a few more for those that wait.
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(cores + 2)
        .build()
        .map_err(|e| Failure::Start(e.to_string()))?;
    runtime.block_on(async {
        let listener = listen::bind(&serve.addresses).map_err(|source| {
            let address = serve.addresses.first().map_or_else(String::new, ToString::to_string);
            Failure::Listen { address, source }
        })?;
        let address = listener
            .local_addr()
            .map_err(|source| Failure::Listen { address: String::new(), source })?;
        let router = routes::router(state.clone(), &serve.origins);
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
            opened = opening => opened.map_err(|e| Failure::Start(e.to_string()))??,
            // Loading cannot be stopped in the middle; the process can.
            () = &mut interrupted => return Ok::<(), Failure>(()),
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

/// SIGINT or SIGTERM.
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
