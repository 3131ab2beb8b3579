//! The CPU device: runs a [`Recording`](crate::recording::Recording) with the twins of
//! [`reference`](crate::reference), or with fast versions of them: tiles of sums in registers, wide
//! vectors, all cores.

#![allow(clippy::needless_range_loop)] // few, known numbers of vectors: loops to be unrolled

mod attention;
mod engine;
mod layer_norm;
mod linear;
mod pool;
mod reach;
mod simd;
mod tile;

pub use engine::Engine;
