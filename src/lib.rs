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
//! memory; [`Options`] set the device, f16, the policy for texts over the limit, and the number of
//! components kept.  Texts are packed without padding, so the cost of a batch depends only on its
//! tokens; memory grows linearly with the longest text.
//!
//! # Other tasks
//!
//! A checkpoint is opened for one [`Task`]: embeddings, reranking ([`Embedder::rerank`]), a vector
//! for every token ([`Embedder::multi_vector`], [`TokenCalls::each_token`]), classification
//! ([`TokenCalls::classify`]), masked tokens ([`Embedder::fill_mask`]).  Late chunking, for chunks
//! of a long text with context, is [`Embedder::embed_chunks`].
//!
//! Calls whose input is token ids are in [`Embedder::tokens`], and [`Embedder::jobs`] takes options
//! for each call, such as [`EncodeOptions::dimensions`].
//!
//! # Many callers
//!
//! An [`Embedder`] may be called from any thread; calls take turns.  A [`Queue`] merges
//! simultaneous calls of many threads or `async` tasks into common batches, and is cheap to clone:
//!
//! ```no_run
//! # async fn run() -> Result<(), jinabert::Error> {
//! use jinabert::{Embedder, Queue};
//!
//! let queue = Queue::new(Embedder::open("models/jinabert-mini-en")?)?;
//! let here = queue.embed(&["A blue cat"])?;          // in flight
//! let there = queue.embed(&["A cat that is blue"])?; // in the same batch, or the next
//! let cosine = here.wait()?[0].dot(&there.await?[0]);  // blocking, or as a future
//! # Ok(())
//! # }
//! ```
//!
//! Long texts are tokenised on threads of the queue, not on the calling task.  Dropping a call
//! cancels it.  [`Embedder::embed_watched`] reports the progress of a long call and can cancel it.
//!
//! # An application's own device
//!
//! An application that draws with wgpu can embed on the same device, between its frames: see
//! [`gpu::Gpu::shared`], [`Options::gpu`] and `examples/render_loop.rs`.
//!
//! # Failure
//!
//! Bad input is an [`Error`] that names the input, the limit and the value.  Devices are lost, run
//! out of memory, hang and return wrong results.  Every result is checked (complete and finite),
//! and a failed batch is retried: in smaller batches, with simpler kernels, on the re-opened
//! device, or on the CPU if [`Options::fallback`] allows it.  If all fail, the call returns an
//! error, and the embedder is as good as before.  Device failures never cause a panic.
//!
//! Only rayon's threads, which tokenise, are global; an embedder computes on its own threads, so
//! that it may be called from rayon's.  The only outputs are events of `tracing`, and compiled
//! kernels and GPU measurements in the user's cache directory or in `JINABERT_CACHE`.
//!
//! # How it is built
//!
//! ```text
//! text → tokens → packed batch → embeddings → N × (attention, GEGLU) → pooling → vectors
//! text   batch    model          kernels                          kernels   embedder
//! ```
//!
//! A [`model`] writes each batch as a [`recording`]: a list of dispatches as plain data.  An engine
//! runs it: [`gpu`] with the shaders in `shaders/`, [`cpu`] with its own kernels.  The functions in
//! [`reference`](mod@reference) define the result of each kernel.  [`kernel_check`] runs a single
//! kernel, for tests, benchmarks and `jinabert doctor`.
//!
//! # Features
//!
//! | feature | contents |
//! |---|---|
//! | `hub` | models by name, from the Hugging Face hub and its cache |
//! | `faults` | fault injection, for tests |
//! | `internals` | the engine's modules, for the other packages of this repository and for tests |
//! | `shaders` | `internals`, and kernels in the drivers' languages |
//!
//! None is on by default, and what only `internals` shows may change in any version.  The command
//! line, the HTTP server and the C interface are packages of their own: `jinabert-cli`,
//! `jinabert-server`, `jinabert-capi`.

// Without the front ends, parts of the engine have no user.
#![cfg_attr(not(feature = "internals"), allow(dead_code, unused_imports))]

#[cfg(not(feature = "internals"))]
mod activation;
#[cfg(feature = "internals")]
pub mod activation;
mod adapter_files;
#[cfg(not(feature = "internals"))]
mod batch;
#[cfg(feature = "internals")]
pub mod batch;
mod cache;
#[cfg(not(feature = "internals"))]
mod cpu;
#[cfg(feature = "internals")]
pub mod cpu;
#[cfg(not(feature = "internals"))]
mod device;
#[cfg(feature = "internals")]
pub mod device;
#[cfg(not(feature = "internals"))]
mod elements;
#[cfg(feature = "internals")]
pub mod elements;
mod embedder;
mod error;
mod files;
mod gguf;
pub mod gpu;
#[cfg(feature = "hub")]
pub mod hub;
#[cfg(not(feature = "internals"))]
mod kernel_check;
#[cfg(feature = "internals")]
pub mod kernel_check;
#[cfg(not(feature = "internals"))]
mod kernels;
#[cfg(feature = "internals")]
pub mod kernels;
mod memory;
#[cfg(not(feature = "internals"))]
mod model;
#[cfg(feature = "internals")]
pub mod model;
mod names;
pub mod precision;
#[cfg(feature = "shaders")]
pub mod programs;
#[cfg(not(feature = "internals"))]
mod recording;
#[cfg(feature = "internals")]
pub mod recording;
#[cfg(not(feature = "internals"))]
mod reference;
#[cfg(feature = "internals")]
pub mod reference;
#[cfg(not(feature = "internals"))]
mod scheduler;
#[cfg(feature = "internals")]
pub mod scheduler;
pub mod text;
#[cfg(not(feature = "internals"))]
mod tune;
#[cfg(feature = "internals")]
pub mod tune;

pub use batch::{Adapter, Tokens};
pub use device::Device;
pub use embedder::{
    Candidate, Embedded, EmbeddedChunk, EmbeddedChunks, Embedder, EncodeJob, EncodeOptions,
    EncoderInput, Jobs, LengthBucket, Masked, OnLong, Options, Perplexity, PerplexityOptions,
    Pooling, Power, Progress, Prompt, Role, Runtime, Score, SequenceInput, TokenCalls,
    TokenVectors, Tokenization, TruncationSide, Vector, probabilities,
};
pub use error::Error;
pub use files::Files;
pub use kernels::{Dtype, Tier};
pub use model::{
    AdapterInfo, Architecture, Config, LoraConfig, Mlp, ModelInfo, Output, Positions,
    SentenceTransformersConfig, Task,
};
pub use precision::Precision;
pub use recording::{InFlight, Span};
pub use scheduler::{EmbedFuture, Queue};
pub use tune::{Speed, Tune, Workload};
