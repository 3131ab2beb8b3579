//! GPU engine, the only module that uses wgpu: adapters, shader assembly, pipelines, and the engine
//! that runs a [`Recording`](crate::recording::Recording).

mod adapter;
mod assemble;
mod budget;
mod chain;
mod compiled;
mod dx12;
mod engine;
#[cfg_attr(not(feature = "faults"), path = "no_fault.rs")]
mod fault;
#[cfg(feature = "shaders")]
mod languages;
mod pipeline;
mod pipeline_cache;
mod pipelines;
mod profile;
mod progress;
mod readback;
mod scope;
mod slot;
mod unroll;

pub use adapter::{AdapterSummary, Backend, Gpu, adapters};
pub(crate) use budget::SUBMISSION;
#[cfg(not(feature = "internals"))]
pub(crate) use internals::*;
#[cfg(feature = "internals")]
pub use internals::*;
#[cfg(feature = "shaders")]
pub use languages::{Language, NotWritten, Written, write};
pub(crate) use progress::PATIENCE;
/// wgpu, with the types for [`Gpu::shared`].
pub use wgpu;

/// Items for the other packages of this repository.
mod internals {
    pub use super::{
        adapter::{forget_adapters, native_adapters, open, open_experimental},
        assemble::{Assembled, assemble, library},
        engine::Engine,
    };
}

/// Zero workgroup memory before a kernel runs.  Disabled: no kernel reads unwritten memory, and on
/// backends without native zeroing a single lane would do it.
pub(crate) const ZERO_INITIALIZE_WORKGROUP_MEMORY: bool = false;
