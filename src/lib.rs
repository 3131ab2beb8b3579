//! JinaBERT text embeddings on any GPU.
//!
//! # Text in, vectors out
//!
//! ```no_run
//! let embedder = jinabert::Embedder::open("models/jinabert-mini-en")?;
//! let vectors = embedder.embed(&["A blue cat", "A cat that is blue"])?;
//! println!("{:.3}", vectors[0].dot(&vectors[1]));
//! # Ok::<(), jinabert::Error>(())
//! ```
//!
//! [`Embedder::open`] takes a directory with `config.json`, `model.safetensors` and
//! `tokenizer.json`, as the jina-embeddings-v2 models are published, or the same [`Files`] in
//! memory; [`Options`] say what is not usual: the device, f16, what happens to texts over the
//! limit, how many components are kept.  Texts are packed without padding, so a batch of long and
//! short ones costs what its tokens cost; memory grows with the longest text, not with its square.
//!
//! # Other tasks
//!
//! A checkpoint is opened for one [`Task`]: embeddings, reranking ([`Embedder::rerank`]), a vector
//! for every token ([`Embedder::embed_each_token`]), classes, words behind a mask.  Chunks of a
//! long text that know their context (late chunking) are [`Embedder::embed_chunks`]'s.
//!
//! # Many callers
//!
//! An [`Embedder`] may be called from any thread; calls take turns.  A [`Queue`] puts what many
//! threads or `async` tasks ask for at the same time into common batches, and is cheap to clone:
//!
//! ```no_run
//! # async fn run() -> Result<(), jinabert::Error> {
//! use jinabert::{Embedder, Queue};
//!
//! let queue = Queue::new(Embedder::open("models/jinabert-mini-en")?)?;
//! let here = queue.embed(&["A blue cat"])?;          // under way
//! let there = queue.embed(&["A cat that is blue"])?; // in the same batch, or the next
//! let cosine = here.wait()?[0].dot(&there.await?[0]);  // blocking, or as a future
//! # Ok(())
//! # }
//! ```
//!
//! A call that is dropped is cancelled.  [`Embedder::embed_watched`] reports the progress of a long
//! one and can end it.
//!
//! # An application's own device
//!
//! What draws with wgpu may embed on the same device, between its frames: [`gpu::Gpu::shared`] and
//! [`Options::gpu`]; `examples/render_loop.rs` does it.
//!
//! # Failure
//!
//! Bad input is an [`Error`] that names it, the limit and the value.  Devices are lost, run out of
//! memory, hang and return nonsense: every result is checked (that all of its work was done, that
//! it is finite), and what failed is done again, in smaller batches, on plainer kernels or on the
//! device opened anew; on the CPU, if [`Options::fallback`] says so.  If nothing helps there is an
//! error, and the embedder is as good as before.  No failure of a device is a panic.
//!
//! Nothing is global but rayon's threads, which tokenise; an embedder computes on its own, so that
//! it may be called from rayon's.  Nothing is written but events of `tracing`, and compiled kernels
//! and what was found about the GPU, into the user's cache directory or the one that
//! `JINABERT_CACHE` names.
//!
//! # How it is built
//!
//! ```text
//! text → tokens → packed batch → embeddings → N × (attention, GEGLU) → pooling → vectors
//! text   batch    model          kernels                          kernels   embedder
//! ```
//!
//! A [`model`] writes each batch as a [`recording`]: a list of dispatches as plain data.  An engine
//! runs it, [`gpu`] with the shaders in `shaders/`, [`cpu`] with their twins; the plainest twins,
//! in [`reference`](mod@reference), define what each kernel computes.  [`probe`] sets a single
//! kernel a problem, for tests, benchmarks and `jinabert doctor`.
//!
//! # Features
//!
//! | feature | what it brings | default |
//! |---|---|---|
//! | `cli` | the command line, and [`hub`] | yes |
//! | `server` | `jinabert serve` | yes |
//! | `hub` | models by name, from the Hugging Face hub and its cache | with `cli` |
//! | `capi` | the C interface, `include/jinabert.h` | no |
//! | `otlp` | the server's requests as spans to a collector | no |
//! | `faults` | failures on order, for tests | no |
//!
//! A library that only embeds wants `default-features = false`.

pub mod batch;
#[cfg(feature = "cli")]
pub mod bench;
mod cache;
#[cfg(feature = "capi")]
pub mod capi;
#[cfg(feature = "cli")]
pub mod cli;
pub mod cpu;
mod device;
pub mod elements;
mod embedder;
mod error;
mod files;
pub mod gpu;
#[cfg(feature = "hub")]
pub mod hub;
pub mod kernels;
mod memory;
pub mod model;
pub mod precision;
pub mod probe;
pub mod recording;
pub mod reference;
pub mod scheduler;
#[cfg(feature = "server")]
pub mod server;
pub mod text;
pub mod tune;

pub use device::Device;
pub use embedder::{
    AtLength, Candidate, Embedded, EmbeddedChunk, EmbeddedChunks, Embedder, End, Forward, Masked,
    Measure, Measured, OnLong, Options, Pooling, Prepared, Progress, Role, Score, Submitted,
    TokenVectors, Vector, Wanted, Work,
};
pub use error::Error;
pub use files::Files;
pub use model::Task;
pub use precision::Precision;
pub use scheduler::{Pending, Queue};
pub use tune::Tune;
