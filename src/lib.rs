//! JinaBERT text embeddings on any GPU.
//!
//! Data flows one way:
//!
//! ```text
//! text → tokens → packed batch → embeddings → N × (attention, GEGLU) → pooling → vectors
//! text   batch    model          kernels                          kernels   embedder
//! ```
//!
//! [`Embedder`] is the front door.  Behind it, a [`model`] writes each batch as a [`recording`]: a
//! list of dispatches as plain data.  An engine runs it, [`gpu`] with the shaders in `shaders/`,
//! [`cpu`] with their twins; the plainest twins, in [`reference`](mod@reference), define what each
//! kernel computes. [`probe`] sets a single kernel a problem, for tests, benchmarks and `jinabert
//! doctor`.
//!
//! ```no_run
//! let embedder = jinabert::Embedder::open("models/jinabert-mini-en")?;
//! let vectors = embedder.embed(&["A blue cat", "A cat that is blue"])?;
//! println!("{:.3}", vectors[0].dot(&vectors[1]));
//! # Ok::<(), jinabert::Error>(())
//! ```

pub mod batch;
#[cfg(feature = "cli")]
pub mod bench;
mod cache;
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
