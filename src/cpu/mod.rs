//! CPU engine: runs a [`Recording`](crate::recording::Recording) with the functions of
//! [`reference`](crate::reference), or with fast versions of them: tiles of sums in registers, wide
//! vectors, all cores.

#![allow(clippy::needless_range_loop)] // few, constant numbers of vectors: loops to be unrolled

mod attention;
mod bias_rows;
mod engine;
mod layer_norm;
mod linear;
mod lora;
mod panel;
mod pool;
mod rope;
mod simd;
mod skip_bound;
mod tile;
mod widen;

pub use engine::Engine;
