//! wgpu, and only here: adapters, shader assembly, pipelines, and the engine that runs a
//! [`Recording`](crate::recording::Recording).

mod adapter;
mod assemble;
mod chain;
mod engine;
#[cfg(feature = "faults")]
mod fault;
mod pace;
mod pipeline;
mod pipeline_cache;
mod pipelines;
mod profile;
mod progress;
mod readback;
mod scope;
mod slot;
mod unroll;

pub use adapter::{
    AdapterSummary, Backend, Gpu, adapters, native_adapters, open, open_experimental,
};
pub use assemble::{Assembled, assemble, library};
pub use engine::Engine;
pub use pace::SUBMISSION;
pub use progress::PATIENCE;
/// What [`Gpu::shared`] takes the types of.
pub use wgpu;
